//! The client machine against servers that are played by hand: no network, no clock but the test's own.

#![allow(clippy::wildcard_enum_match_arm, reason = "tests panic on all else")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "client/network.rs"]
mod network;

#[path = "client/closing.rs"]
mod closing;
#[path = "client/commands.rs"]
mod commands;
#[path = "client/commands_in_time.rs"]
mod commands_in_time;
#[path = "client/contract.rs"]
mod contract;
#[path = "client/metadata.rs"]
mod metadata;
#[path = "client/monitoring.rs"]
mod monitoring;
#[path = "client/rescanning.rs"]
mod rescanning;
#[path = "client/resuming.rs"]
mod resuming;
#[path = "client/seedlist.rs"]
mod seedlist;
#[path = "client/selecting.rs"]
mod selecting;
#[path = "client/streams_in_time.rs"]
mod streams_in_time;
#[path = "client/taking.rs"]
mod taking;
