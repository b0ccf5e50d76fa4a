//! Plays the server's side of a recorded scenario against a client that was not there.

mod difference;
mod peer;
mod player;
mod scram_server;
mod world;

pub use difference::differences;
pub use peer::{Answer, Peer};
pub use player::{play, uri, waits_for};
pub use scram_server::ScramServer;
