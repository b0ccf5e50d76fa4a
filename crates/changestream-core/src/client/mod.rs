//! The client machine: joins topology, connections and one stream.
//!
//! [`ClientMachine`] is what an adapter drives. It finds a server (see `selecting`, and `resolving` where DNS lists the
//! servers), talks to it through a
//! [`Connection`](crate::connection::Connection), feeds a [`StreamMachine`](crate::stream::StreamMachine), and takes
//! leave of the server (see `closing`). The run loop of every adapter:
//!
//! 1. [`poll_output`](ClientMachine::poll_output) and obey, until it says [`Output::Wait`];
//! 2. wait for a socket, or for the deadline;
//! 3. feed what happened with [`handle_input`](ClientMachine::handle_input): everything that the sockets hold before
//!    an [`Input::Timeout`].
//!
//! In the steady state there is one connection and one request on it, and the next one while a reply arrives. Nothing happens
//! in the background.

mod awaited;
mod closing;
mod io;
mod journal;
mod links;
mod machine;
mod resolving;
mod selecting;
mod settings;
mod snapshot;
mod work;

pub use io::{
    ConnectionId, Deadline, DeadlineReason, Demand, Disconnected, Idle, Input, LookupId, Output, Resuming,
    Update,
};
pub use machine::ClientMachine;
pub use settings::ClientSettings;
pub use snapshot::Snapshot;
