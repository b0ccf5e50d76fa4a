//! What is fuzzed: one function for each target, from any bytes to nothing, or to a panic that says what does not hold.
//!
//! `fuzz/` runs them under a fuzzer that is guided by coverage; `tests/fuzz_corpus.rs` runs them, on any toolchain,
//! over the seeds that are kept in `fuzz/corpus` and over mutations of these.

mod choices;
mod connection;
mod dns;
mod event;
mod frames;
mod hello;
mod sim;
mod stream;
mod token;
mod uri;
mod wire;
mod words;
mod world;

pub use connection::connection;
pub use dns::dns;
pub use event::event;
pub use frames::frames;
pub use hello::hello;
pub use sim::sim;
pub use stream::stream;
pub use token::token;
pub use uri::uri;
pub use wire::wire;
pub use world::world;

use choices::Choices;

use crate::world::epoch;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of the function, of the binary in `fuzz/`, and of the folder in `fuzz/corpus`.
    pub name: &'static str,
    /// What is run on each input.
    pub run: fn(&[u8]),
    /// How many mutations of each seed a test run takes: fewer where one takes long.
    pub mutations: usize,
}

/// All of them.
pub const TARGETS: [Target; 11] = [
    Target {
        name: "connection",
        run: connection,
        mutations: 100,
    },
    Target {
        name: "dns",
        run: dns,
        mutations: 200,
    },
    Target {
        name: "event",
        run: event,
        mutations: 200,
    },
    Target {
        name: "frames",
        run: frames,
        mutations: 200,
    },
    Target {
        name: "hello",
        run: hello,
        mutations: 100,
    },
    Target {
        name: "sim",
        run: sim,
        mutations: 40,
    },
    Target {
        name: "stream",
        run: stream,
        mutations: 100,
    },
    Target {
        name: "token",
        run: token,
        mutations: 200,
    },
    Target {
        name: "uri",
        run: uri,
        mutations: 200,
    },
    Target {
        name: "wire",
        run: wire,
        mutations: 200,
    },
    Target {
        name: "world",
        run: world,
        mutations: 4,
    },
];
