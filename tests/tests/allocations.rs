//! What the data path allocates in the steady state: nothing for an event.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::System;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use changestream_benches::events::Shape;
use changestream_benches::replay::{self, Layer, Settings};
use changestream_blocking::Client;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The server's threads count too, but allocate nothing after their first batch.
#[test]
fn an_event_is_handed_over_without_allocating_and_a_part_of_a_batch_costs_a_few_allocations() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let settings = Settings {
        shape: Shape::Insert(1400),
        batch: BATCH,
        think: Duration::ZERO,
        members: 1,
        exhaust: false,
        layer: Layer::Plain,
    };
    thread::spawn(move || replay::serve(&listener, settings));
    let client = Client::new(format!("mongodb://127.0.0.1:{port}/?directConnection=true")).unwrap();
    let mut stream = client.collection("bench", "events").watch().open().unwrap();
    let mut next = || {
        let event = stream.next().unwrap().unwrap();
        assert!(event.document_id().is_some() && event.resume_token().as_document().is_some());
    };
    (0..3 * BATCH).for_each(|_| next());
    let (mut allocating, mut allocated, mut bytes) = (0, 0, 0);
    for _ in 0..ROUNDS * BATCH {
        let before = ALLOCATOR.stats();
        next();
        let change = ALLOCATOR.stats() - before;
        allocating += u32::from(change.allocations + change.reallocations > 0);
        allocated += change.allocations + change.reallocations;
        bytes += change.bytes_allocated;
    }
    assert!(
        allocating <= 3 * PARTS * ROUNDS,
        "{allocating} of {} events came with allocations",
        ROUNDS * BATCH
    );
    let rounds = ROUNDS as usize;
    assert!(
        allocated <= 100 * rounds,
        "{} allocations a batch",
        allocated / rounds
    );
    assert!(
        bytes <= (16 << 10) * rounds,
        "{} bytes a batch: the reply's buffer is used again",
        bytes / rounds
    );
}

const BATCH: u32 = 200;
const ROUNDS: u32 = 20;
/// In how many parts a batch of 280 KB is read.
const PARTS: u32 = 3;
