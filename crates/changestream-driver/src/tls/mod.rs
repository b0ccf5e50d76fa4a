//! TLS by rustls: it encrypts, and has the bytes moved by whoever has a socket.

mod channel;
mod config;
mod identity;
mod message;
mod verifier;

pub(crate) use channel::Channel;
pub(crate) use config::{Config, dangers};
