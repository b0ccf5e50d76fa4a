//! A simulated MongoDB deployment: pure, deterministic, with elections and faults to order.
//!
//! A [`Deployment`] is a replica set, a standalone or a sharded cluster in one value. It takes the bytes that clients
//! send and the time, and hands out the bytes that the members answer: no socket, thread or clock is involved, and
//! equal seeds and inputs give equal bytes. Over it lies [`RunningDeployment`], the same on the loopback, for any driver to connect to:
//!
//! ```
//! use changestream_sim::Deployment;
//!
//! let deployment = Deployment::replica_set(3).server_version("6.0").start()?;
//! let uri = deployment.uri();                 // for a driver
//! deployment.step_down();                     // and see whether it copes
//! # assert!(uri.starts_with("mongodb://127.0.0.1:"));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Inside: `deployment` takes input and gives output; `connection` turns bytes into requests; `commands` answers them,
//! a file for each family; `replication` moves entries and elects; `oplog`, `catalog` and `transactions` are the data;
//! `change_stream` and `change_event` make events of entries; `query` and `token` are pure functions of documents;
//! `sharding` is what lies behind a mongos.
//! A write is an [oplog entry](Deployment::last_write) first: data, retryable writes and events all follow from it, so
//! that rolling entries back rolls everything back.
//!
//! # Features
//!
//! `snappy`, `zlib`, `zstd`: members can be told to compress by them ([`Config::compressors`]). All are off by default.

#[doc(no_inline)]
pub use changestream_core::wire::Compressor;

pub mod error;
pub mod keys;
pub mod keystring;
pub mod query;
pub mod token;

mod auth;
mod buffers;
mod catalog;
mod change_event;
mod change_stream;
mod commands;
mod connection;
mod cursors;
mod deployment;
mod disambiguation;
mod failpoints;
mod listener;
mod member;
mod open_cursors;
mod oplog;
mod plain_event;
mod profile;
mod replication;
mod reply;
mod sharding;
mod snapshot;
mod split_event;
mod transactions;
mod unique;
mod wait;

pub use deployment::{
    BuildError, CommandRecord, Committed, Config, ConnectionId, Deployment, Input, LoggedChange, Mechanism,
    Output,
};
pub use listener::RunningDeployment;
#[cfg(feature = "tls")]
pub use listener::Tls;
pub use profile::Profile;
