//! The topology at its public boundary: what the specifications' files do not cover.
#![allow(clippy::unwrap_used, reason = "tests")]

mod describing;
mod discovering;
mod errors;
mod hostile;
mod scanning;
mod selecting;
mod sharing;
mod world;
