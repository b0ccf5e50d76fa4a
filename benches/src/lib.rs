//! What the client is measured against, and how.
//!
//! - [`events`]: prepared events and batches.
//! - [`replay`]: a server that answers each getMore with a batch that it has prepared, so that its own work is little
//!   more than the copy into the socket. The program `replay` serves it.
//! - [`limit`]: bare loops that read replies and step over their events: nothing that reads them can be faster. The
//!   program `limit` runs them.
//! - [`report`]: what every measured program prints, whichever driver it uses.
//!
//! `cargo xtask bench` runs all of it and compares.

pub mod client;
pub mod clock;
#[cfg(feature = "layers")]
pub mod codec;
pub mod events;
#[cfg(feature = "layers")]
pub mod layered;
pub mod limit;
pub mod replay;
pub mod report;
#[cfg(feature = "layers")]
pub mod tls;
pub mod wire;
