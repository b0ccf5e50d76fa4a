//! Streams over real sockets of tokio's, from a scripted server on the loopback.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

use std::time::Duration;

use changestream_tokio::{Client, ErrorKind};
use futures_util::StreamExt;
use support::server::{Server, number};
use support::tcp::TcpServer;

#[path = "../../changestream-driver/tests/support/loopback.rs"]
mod support;

#[tokio::test]
async fn events_come_over_tcp() {
    let server = TcpServer::start(Server::new(250));
    let client = Client::new(server.uri()).unwrap();
    let mut stream = client.collection("shop", "orders").watch().open().await.unwrap();
    let seen: Vec<_> = stream
        .by_ref()
        .take(250)
        .map(|event| number(event.unwrap().resume_token()))
        .collect()
        .await;
    assert_eq!(seen, (1..=250).collect::<Vec<_>>());
    stream.close().await.unwrap();
}

#[tokio::test]
async fn a_large_event_comes_whole() {
    let mut script = Server::new(3);
    script.payload = 4 << 20;
    let server = TcpServer::start(script);
    let client = Client::new(server.uri()).unwrap();
    let mut stream = client.collection("shop", "orders").watch().open().await.unwrap();
    for n in 1..=3 {
        let event = stream.next().await.unwrap().unwrap();
        assert_eq!(number(event.resume_token()), n);
        assert!(event.as_raw().as_bytes().len() > 4 << 20);
    }
}

#[tokio::test]
async fn a_select_that_drops_next_loses_nothing() {
    let server = TcpServer::start(Server::new(0));
    let client = Client::new(server.uri()).unwrap();
    let mut stream = client.collection("shop", "orders").watch().open().await.unwrap();
    let mut seen = Vec::new();
    let mut dropped = 0;
    while seen.len() < 50 {
        tokio::select! {
            biased;
            event = stream.next() => seen.push(number(event.unwrap().unwrap().resume_token())),
            () = tokio::task::yield_now() => {
                dropped += 1;
                if dropped % 10 == 0 {
                    server.change(1);
                }
                let _ = (stream.resume_token(), stream.is_alive(), stream.stats());
            }
        }
    }
    assert_eq!(seen, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_moves_to_another_task() {
    let server = TcpServer::start(Server::new(1));
    let client = Client::new(server.uri()).unwrap();
    let mut stream = client.watch().open().await.unwrap();
    let event = tokio::spawn(async move { stream.next().await.unwrap().unwrap() });
    assert_eq!(number(event.await.unwrap().resume_token()), 1);
}

#[tokio::test]
async fn a_timeout_around_next_leaves_the_stream_usable() {
    let server = TcpServer::start(Server::new(0));
    let client = Client::new(server.uri()).unwrap();
    let mut stream = client.watch().open().await.unwrap();
    let timed_out = tokio::time::timeout(Duration::from_millis(1), stream.next()).await;
    assert!(timed_out.is_err());
    server.change(1);
    assert_eq!(number(stream.next().await.unwrap().unwrap().resume_token()), 1);
}

#[tokio::test]
async fn nobody_listening_is_an_error_after_the_selection_time() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let uri = format!("mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=10");
    let error = Client::new(&uri).unwrap().watch().open().await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::ServerSelection { .. }),
        "{error}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_missing_unix_socket_is_an_error_after_the_selection_time() {
    let uri = "mongodb://%2Fnowhere%2Fmongodb-27017.sock/?serverSelectionTimeoutMS=10";
    let error = Client::new(uri).unwrap().watch().open().await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::ServerSelection { .. }),
        "{error}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let path = std::env::temp_dir().join(format!("changestream-tokio-{}.sock", std::process::id()));
    let server = TcpServer::start_unix(Server::new(1), path.to_str().unwrap());
    let mut stream = Client::new(server.uri()).unwrap().watch().open().await.unwrap();
    assert_eq!(number(stream.next().await.unwrap().unwrap().resume_token()), 1);
    std::fs::remove_file(path).unwrap();
}

/// Most systems give `localhost` an IPv6 address first, and nobody listens there.
#[tokio::test]
async fn the_addresses_of_a_name_are_tried_in_turn() {
    let server = TcpServer::start(Server::new(1));
    let uri = server.uri().replace("127.0.0.1", "localhost");
    let mut stream = Client::new(uri).unwrap().watch().open().await.unwrap();
    assert_eq!(number(stream.next().await.unwrap().unwrap().resume_token()), 1);
}
