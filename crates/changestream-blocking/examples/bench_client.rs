//! A client to be measured: `bench_client raw|typed URI DB COLL N throughput|latency|idle`.
//!
//! Prints one line of JSON when it has read N events; with `idle`, `READY` when N streams of one client wait, and goes on
//! until it is killed.
#![allow(
    clippy::print_stdout,
    reason = "a program whose standard output is its result"
)]

use std::error::Error;
use std::io::Write;

use changestream_benches::client::{Arguments, Form, Mode, sent_ns, tail};
use changestream_benches::report::Report;
use changestream_blocking::bson::{Document, RawBsonRef};
use changestream_blocking::{ChangeEvent, ChangeStream, ChangeStreamDocument, Client, Watch};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::from_environment()?;
    let client = Client::new(&arguments.uri)?;
    if arguments.mode == Mode::Idle {
        return idle(&client, &arguments);
    }
    let mut stream = watch(&client, &arguments).open()?;
    let mut report = Report::new(&arguments.name("changestream-blocking"));
    if arguments.variant.batches {
        read_batches(&mut stream, &arguments, &mut report)?;
    } else {
        while report.events() < arguments.events {
            let event = stream.next().ok_or("the stream has ended")??;
            count(&event, &arguments, &mut report)?;
        }
    }
    println!("{}", report.finish());
    Ok(())
}

fn read_batches(
    stream: &mut ChangeStream,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    while report.events() < arguments.events {
        let batch = stream.next_batch().ok_or("the stream has ended")??;
        for event in batch {
            if report.events() < arguments.events {
                count(&event, arguments, report)?;
            }
        }
    }
    Ok(())
}

fn count(event: &ChangeEvent, arguments: &Arguments, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let bytes = event.as_raw().as_bytes().len();
    let is_latency = arguments.mode == Mode::Latency;
    match arguments.form {
        Form::Raw => {
            let id = event.document_id().and_then(RawBsonRef::as_object_id);
            report.event(bytes, id.as_ref().map(tail));
            if is_latency {
                report.sent(event.full_document().present().and_then(sent_ns).unwrap_or(0));
            }
        }
        Form::Typed => {
            let typed: ChangeStreamDocument<Document> = event.decode()?;
            let id = typed
                .document_key
                .as_ref()
                .and_then(|key| key.get_object_id("_id").ok());
            report.event(bytes, id.as_ref().map(tail));
            if is_latency {
                let document = typed.full_document.as_ref();
                report.sent(document.and_then(|it| it.get_i64("sentNs").ok()).unwrap_or(0));
            }
        }
    }
    arguments.think(report.events());
    Ok(())
}

/// A blocking stream waits in a thread of its own.
fn idle(client: &Client, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut waiting = Vec::new();
    for _ in 0..arguments.events {
        let mut stream = watch(client, arguments).open()?;
        let thread = std::thread::Builder::new().stack_size(STACK);
        waiting.push(thread.spawn(move || while stream.next().is_some() {})?);
    }
    println!("READY");
    std::io::stdout().flush()?;
    for thread in waiting {
        thread.join().map_err(|_| "a thread has panicked")?;
    }
    Ok(())
}

/// Default options, but for what a comparison of options sets.
fn watch(client: &Client, arguments: &Arguments) -> Watch {
    let watch = client
        .collection(&arguments.database, &arguments.collection)
        .watch();
    let variant = arguments.variant;
    let watch = if variant.exhaust {
        watch.exhaust(true)
    } else {
        watch
    };
    variant.prefetch.into_iter().fold(watch, Watch::prefetch_batches)
}

const STACK: usize = 256 << 10;
