//! A simulated MongoDB deployment: pure, deterministic, with elections and faults to order.

pub mod error;
pub mod keys;
pub mod keystring;
pub mod query;
pub mod token;

mod auth;
mod catalog;
mod change_event;
mod change_stream;
mod commands;
mod connection;
mod cursors;
mod deployment;
mod failpoints;
mod listener;
mod member;
mod oplog;
mod profile;
mod replication;
mod reply;
mod transactions;
mod unique;
mod wait;

pub use deployment::{
    BuildError, CommandRecord, Config, ConnectionId, Deployment, Input, Mechanism, Output,
};
pub use listener::RunningDeployment;
pub use profile::Profile;
