//! The official Rust driver, measured as the project's own clients are: the same arguments, the same line of JSON.
//! `PEER_RUNTIME` is `current` (default), `multi` or `sync`. The feature `bson-3` has the driver use that library in the place
//! of the one that it uses by default.

use std::error::Error;

use changestream_benches::client::{Arguments, Form, Mode};
use changestream_benches::report::Report;
use futures_util::StreamExt;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, RawDocumentBuf};
use mongodb::change_stream::event::ChangeStreamEvent;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments = Arguments::from_environment()?;
    match std::env::var("PEER_RUNTIME").unwrap_or_default().as_str() {
        "sync" => blocking(&arguments),
        "multi" => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(run(&arguments, "mongodb multi-thread")),
        _ => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(run(&arguments, "mongodb")),
    }
}

async fn run(arguments: &Arguments, name: &str) -> Outcome<()> {
    let client = mongodb::Client::with_uri_str(&arguments.uri).await?;
    let collection = client
        .database(&arguments.database)
        .collection::<Document>(&arguments.collection);
    if arguments.mode == Mode::Idle {
        let mut waiting = Vec::new();
        for _ in 0..arguments.events {
            let mut stream = collection.watch().await?;
            waiting.push(tokio::spawn(async move { while stream.next().await.is_some() {} }));
        }
        println!("READY");
        for stream in waiting {
            stream.await?;
        }
        return Ok(());
    }
    let stream = collection.watch().await?;
    let mut report = Report::new(&arguments.name(name));
    match arguments.form {
        Form::Raw => {
            let mut stream = stream.with_type::<RawDocumentBuf>();
            while report.events() < arguments.events {
                let event = stream.next().await.ok_or("the stream has ended")??;
                raw(&event, arguments, &mut report);
            }
        }
        Form::Typed => {
            let mut stream = stream;
            while report.events() < arguments.events {
                let event = stream.next().await.ok_or("the stream has ended")??;
                typed(&event, arguments, &mut report);
            }
        }
    }
    println!("{}", report.finish());
    Ok(())
}

fn blocking(arguments: &Arguments) -> Outcome<()> {
    let client = mongodb::sync::Client::with_uri_str(&arguments.uri)?;
    let collection = client
        .database(&arguments.database)
        .collection::<Document>(&arguments.collection);
    let stream = collection.watch().run()?;
    let mut report = Report::new(&arguments.name("mongodb sync"));
    match arguments.form {
        Form::Raw => {
            let mut stream = stream.with_type::<RawDocumentBuf>();
            while report.events() < arguments.events {
                raw(&stream.next().ok_or("the stream has ended")??, arguments, &mut report);
            }
        }
        Form::Typed => {
            let mut stream = stream;
            while report.events() < arguments.events {
                typed(&stream.next().ok_or("the stream has ended")??, arguments, &mut report);
            }
        }
    }
    println!("{}", report.finish());
    Ok(())
}

fn raw(event: &RawDocumentBuf, arguments: &Arguments, report: &mut Report) {
    let key = event.get_document("documentKey").ok();
    let id = key.and_then(|key| key.get_object_id("_id").ok());
    report.event(event.as_bytes().len(), id.map(tail));
    if arguments.mode == Mode::Latency {
        let document = event.get_document("fullDocument").ok();
        report.sent(document.and_then(|it| it.get_i64("sentNs").ok()).unwrap_or(0));
    }
    arguments.think(report.events());
}

fn typed(event: &ChangeStreamEvent<Document>, arguments: &Arguments, report: &mut Report) {
    let id = event.document_key.as_ref().and_then(|key| key.get_object_id("_id").ok());
    report.event(0, id.map(tail));
    if arguments.mode == Mode::Latency {
        let document = event.full_document.as_ref();
        report.sent(document.and_then(|it| it.get_i64("sentNs").ok()).unwrap_or(0));
    }
    arguments.think(report.events());
}

/// The last four bytes of an ObjectId.
fn tail(id: ObjectId) -> [u8; 4] {
    let [.., a, b, c, d] = id.bytes();
    [a, b, c, d]
}
