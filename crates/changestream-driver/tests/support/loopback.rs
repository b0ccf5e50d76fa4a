//! What the adapters' tests take of this folder.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod server;
pub mod tcp;
