//! Streams whose messages are compressed: in the world, and over sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

use bson::{Document, doc};
use changestream_core::wire::Compressor;
use changestream_core::{Scope, WatchOptions};
use changestream_sim::{CommandRecord, Deployment, RunningDeployment};
use changestream_tests::world::{StreamId, World, key_of};

fn orders() -> Scope {
    Scope::Collection {
        database: "shop".into(),
        collection: "orders".into(),
    }
}

fn documents(ids: std::ops::Range<i32>) -> Vec<Document> {
    ids.map(|id| doc! { "_id": id, "text": "abc".repeat(2000) })
        .collect()
}

fn watching(world: &mut World, compressors: &str) -> StreamId {
    let uri = format!("{}&compressors={compressors}", world.deployment.uri());
    let options = WatchOptions::default();
    let stream = world.watch_by(&uri, None, &orders(), options).unwrap();
    world.open(stream).unwrap();
    stream
}

/// Every command but hello came compressed by this.
fn assert_compressed<'a>(records: impl Iterator<Item = &'a CommandRecord>, by: Option<Compressor>) {
    let mut streamed = 0;
    for record in records {
        let greets = ["hello", "isMaster", "ismaster"].contains(&record.name.as_str());
        assert_eq!(record.compressor, by.filter(|_| !greets), "{}", record.name);
        streamed += usize::from(!greets);
    }
    assert!(streamed >= 3);
}

#[test]
fn a_compressed_stream_delivers_every_event_over_an_election_too() {
    for compressor in Compressor::ALL {
        let mut world = World::new(Deployment::replica_set(3).compressors([compressor]), [3; 32]);
        world.network.conditions.longest_piece = Some(100);
        let stream = watching(&mut world, "snappy,zlib,zstd");
        world.insert("shop", "orders", documents(0..20));
        let mut seen: Vec<i32> = (0..10).map(|_| key_of(&world.event(stream))).collect();
        let (now, primary) = (world.now, world.deployment.primary().unwrap());
        world.deployment.crash(now, primary);
        world.insert("shop", "orders", documents(20..30));
        seen.extend((10..30).map(|_| key_of(&world.event(stream))));
        assert_eq!(seen, (0..30).collect::<Vec<_>>());
        world.close(stream);
        let of_streams = world
            .deployment
            .commands()
            .filter(|record| record.name != "insert");
        assert_compressed(of_streams, Some(compressor));
    }
}

#[test]
fn the_clients_order_decides_and_without_a_common_compressor_nothing_is_compressed() {
    use Compressor::{Snappy, Zlib};
    for (asked, known, agreed) in [
        ("zlib,snappy", vec![Snappy, Zlib], Some(Zlib)),
        ("zstd,snappy", vec![Snappy, Zlib], Some(Snappy)),
        ("zstd", vec![Snappy, Zlib], None),
        ("zstd", vec![], None),
    ] {
        let mut world = World::new(Deployment::replica_set(1).compressors(known), [4; 32]);
        let stream = watching(&mut world, asked);
        world.insert("shop", "orders", documents(0..1));
        assert_eq!(key_of(&world.event(stream)), 0);
        world.close(stream);
        let of_streams = world
            .deployment
            .commands()
            .filter(|record| record.name != "insert");
        assert_compressed(of_streams, agreed);
    }
}

/// A deployment on the loopback, and a connection string with that compressor.
fn running(compressor: Compressor) -> (RunningDeployment, String) {
    let deployment = Deployment::replica_set(1).start().unwrap();
    let uri = format!(
        "{}&compressors={}&zlibCompressionLevel=9",
        deployment.uri(),
        compressor.as_str()
    );
    (deployment, uri)
}

#[test]
fn a_blocking_stream_over_sockets_is_compressed() {
    use changestream_blocking::Client;
    for compressor in Compressor::ALL {
        let (deployment, uri) = running(compressor);
        let client = Client::new(&uri).unwrap();
        let mut stream = client.collection("shop", "orders").watch().open().unwrap();
        let writer = write(&deployment, documents(0..50));
        for id in 0..50 {
            let event = stream.next().unwrap().unwrap();
            assert_eq!(event.document_key().unwrap().get_i32("_id").unwrap(), id);
        }
        stream.close().unwrap();
        writer.join().unwrap();
        assert_compressed(
            deployment
                .commands()
                .iter()
                .filter(|record| record.name != "insert"),
            Some(compressor),
        );
    }
}

#[tokio::test]
async fn a_tokio_stream_over_sockets_is_compressed() {
    use changestream_tokio::Client;
    for compressor in Compressor::ALL {
        let (deployment, uri) = running(compressor);
        let client = Client::new(&uri).unwrap();
        let mut stream = client.collection("shop", "orders").watch().open().await.unwrap();
        let writer = write(&deployment, documents(0..50));
        for id in 0..50 {
            let event = stream.next().await.unwrap().unwrap();
            assert_eq!(event.document_key().unwrap().get_i32("_id").unwrap(), id);
        }
        stream.close().await.unwrap();
        writer.join().unwrap();
        assert_compressed(
            deployment
                .commands()
                .iter()
                .filter(|record| record.name != "insert"),
            Some(compressor),
        );
    }
}

/// Inserts over a socket of its own.
fn write(deployment: &RunningDeployment, documents: Vec<Document>) -> std::thread::JoinHandle<()> {
    use std::io::{Read, Write};
    let address = deployment.address(0).unwrap();
    std::thread::spawn(move || {
        let command = doc! { "insert": "orders", "documents": documents, "$db": "shop" };
        let body = bson::RawDocumentBuf::try_from(&command).unwrap();
        let bytes =
            changestream_core::wire::encode_op_msg(1, 0, changestream_core::wire::Flags::NONE, &body, &[]);
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        socket.write_all(&bytes).unwrap();
        socket.read_exact(&mut [0; 30]).unwrap();
    })
}
