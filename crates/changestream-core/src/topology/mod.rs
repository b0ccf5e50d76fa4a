//! What is known of the deployment, and which server to use: Server Discovery And Monitoring, and Server Selection.
//!
//! Pure data and functions. [`Topology`] is told what the servers answered ([`handle_hello`](Topology::handle_hello),
//! [`handle_check_failure`](Topology::handle_check_failure)) and what went wrong in use
//! ([`handle_application_error`](Topology::handle_application_error)); it says which server to check next
//! ([`poll_check`](Topology::poll_check)), which one to use ([`select`](Topology::select)) and, where there is none,
//! why ([`selection_error_message`](Topology::selection_error_message)).
//!
//! There is no background monitoring. The rules of the specification's single-threaded mode say when to check: before
//! a selection, if the last scan is older than `heartbeatFrequencyMS` or an error made the topology stale, and as long
//! as no server suits. One thing differs from that mode: the servers of a scan may be checked in parallel.

mod application_error;
mod description;
mod event;
mod hello;
mod message;
mod round_trip;
mod scan;
mod selection;
mod server;
mod settings;
mod snapshot;
mod staleness;
mod state;
mod transition;

pub use application_error::{
    ApplicationError, ApplicationErrorKind, ConnectionPhase, SYSTEM_OVERLOADED_ERROR,
};
pub use description::{MAX_SERVERS, MAX_WIRE_VERSION, MIN_WIRE_VERSION, TopologyDescription, TopologyType};
pub use event::TopologyEvent;
pub use hello::{HelloReply, InvalidHello, MAX_ADDRESS, MAX_HOSTS, MAX_LIST, MAX_TEXT};
pub use round_trip::RoundTripTimes;
pub use scan::{COOLDOWN, MIN_HEARTBEAT_FREQUENCY};
pub use selection::{
    Operation, SelectionCriteria, SelectionError, in_latency_window, less_loaded, suitable_servers,
};
pub use server::{ServerDescription, ServerType, TopologyVersion};
pub use settings::{InvalidTopologySettings, TopologySettings};
pub use snapshot::Snapshot;
pub use staleness::{IDLE_WRITE_PERIOD, SMALLEST_MAX_STALENESS};
pub use state::{Changes, Topology};
