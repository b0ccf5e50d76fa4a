//! The client machine: joins topology, connections and one stream.

mod io;

pub use io::{
    ConnectionId, Deadline, DeadlineReason, Demand, Disconnected, Idle, Input, Output, Resuming, Update,
};
