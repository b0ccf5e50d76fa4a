//! Blocking streams over real sockets, from a scripted server on the loopback.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use changestream_blocking::{ChangeStream, Client, ErrorKind, Update};
use changestream_core::wire::FrameReader;
use support::server::{Answer, Server, number};
use support::tcp::TcpServer;

#[path = "../../changestream-driver/tests/support/loopback.rs"]
mod support;

fn open(server: &TcpServer) -> ChangeStream {
    let client = Client::new(server.uri()).unwrap();
    client.collection("shop", "orders").watch().open().unwrap()
}

#[test]
fn a_stream_is_an_iterator() {
    let server = TcpServer::start(Server::new(250));
    let mut stream = open(&server);
    let seen: Vec<_> = stream
        .by_ref()
        .take(250)
        .map(|event| number(event.unwrap().resume_token()))
        .collect();
    assert_eq!(seen, (1..=250).collect::<Vec<_>>());
    assert_eq!(number(stream.resume_token().unwrap()), 250);
}

#[test]
fn an_iteration_ends_with_an_invalidated_stream() {
    let mut script = Server::new(5);
    script.invalidate = true;
    let server = TcpServer::start(script);
    let mut stream = open(&server);
    assert_eq!(stream.by_ref().map(Result::unwrap).count(), 6);
    assert!(!stream.is_alive());
    assert!(matches!(stream.try_next().unwrap_err().kind(), ErrorKind::Closed));
}

#[test]
fn a_large_event_comes_whole() {
    let mut script = Server::new(3);
    script.payload = 4 << 20;
    let server = TcpServer::start(script);
    let mut stream = open(&server);
    for n in 1..=3 {
        let event = stream.next().unwrap().unwrap();
        assert_eq!(number(event.resume_token()), n);
        assert!(event.as_raw().as_bytes().len() > 4 << 20);
    }
}

#[test]
fn batches_and_updates_come_too() {
    let server = TcpServer::start(Server::new(2));
    let mut stream = open(&server);
    assert_eq!(stream.next_batch().unwrap().unwrap().len(), 2);
    server.change(1);
    assert!(matches!(
        stream.next_update().unwrap().unwrap(),
        Update::Change(_)
    ));
    server.change(1);
    assert!(stream.try_next().unwrap().is_some());
}

#[test]
fn a_wait_with_a_limit_ends_and_loses_nothing() {
    let server = TcpServer::start(Server::new(0));
    let mut stream = open(&server);
    assert!(stream.next_timeout(Duration::from_millis(1)).unwrap().is_none());
    assert!(stream.next_timeout(Duration::ZERO).unwrap().is_none());
    server.change(1);
    let event = stream.next_timeout(Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(number(event.resume_token()), 1);
}

#[test]
fn a_look_without_any_wait_sees_what_has_come_since_the_last_one() {
    let server = TcpServer::start(Server::new(0));
    let mut stream = open(&server);
    assert!(stream.next_timeout(Duration::ZERO).unwrap().is_none());
    server.wait_for("getMore");
    server.change(1);
    let start = Instant::now();
    let event = loop {
        if let Some(event) = stream.next_timeout(Duration::ZERO).unwrap() {
            break event;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it never looks");
        thread::yield_now();
    };
    assert_eq!(number(event.resume_token()), 1);
}

#[test]
fn another_thread_ends_a_blocked_call_and_the_stream_closes_properly() {
    let server = TcpServer::start(Server::new(1));
    let mut stream = open(&server);
    assert!(stream.next().unwrap().is_ok());
    let canceller = stream.canceller();
    let other = thread::spawn(move || {
        server.wait_for("getMore");
        canceller.cancel();
    });
    assert!(stream.next().is_none());
    other.join().unwrap();
    assert!(!stream.is_alive());
    assert!(matches!(stream.try_next().unwrap_err().kind(), ErrorKind::Closed));
    let before = Instant::now();
    let token = stream.close_within(Duration::from_millis(200)).unwrap();
    assert_eq!(token.as_ref().map(number), Some(1));
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_stream_that_was_cancelled_before_it_opened_does_not_open() {
    let server = TcpServer::start(Server::new(1));
    let client = Client::new(server.uri()).unwrap();
    let mut stream = client.watch().start().unwrap();
    stream.canceller().cancel();
    assert!(matches!(stream.opened().unwrap_err().kind(), ErrorKind::Closed));
    assert!(stream.next().is_none());
}

#[test]
fn a_stream_moves_to_another_thread() {
    let server = TcpServer::start(Server::new(1));
    let mut stream = open(&server);
    let event = thread::spawn(move || stream.next().unwrap().unwrap());
    assert_eq!(number(event.join().unwrap().resume_token()), 1);
}

#[test]
fn nobody_listening_is_an_error_after_the_selection_time() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let uri = format!("mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=10");
    let error = Client::new(&uri).unwrap().watch().open().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::ServerSelection { .. }),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_missing_unix_socket_is_an_error_after_the_selection_time() {
    let uri = "mongodb://%2Fnowhere%2Fmongodb-27017.sock/?serverSelectionTimeoutMS=10";
    let error = Client::new(uri).unwrap().watch().open().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::ServerSelection { .. }),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_unix_socket_serves_as_well() {
    let path = std::env::temp_dir().join(format!("changestream-blocking-{}.sock", std::process::id()));
    let server = TcpServer::start_unix(Server::new(1), path.to_str().unwrap());
    let mut stream = Client::new(server.uri()).unwrap().watch().open().unwrap();
    assert_eq!(number(stream.next().unwrap().unwrap().resume_token()), 1);
    std::fs::remove_file(path).unwrap();
}

/// Most systems give `localhost` an IPv6 address first, and nobody listens there.
#[test]
fn the_addresses_of_a_name_are_tried_in_turn() {
    let server = TcpServer::start(Server::new(1));
    let uri = server.uri().replace("127.0.0.1", "localhost");
    let mut stream = Client::new(uri).unwrap().watch().open().unwrap();
    assert_eq!(number(stream.next().unwrap().unwrap().resume_token()), 1);
}

/// Its last words and the end of the connection may be reported at once, and the words do not fill the buffer.
#[test]
fn a_peer_that_goes_right_after_an_answer_is_missed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!(
        "mongodb://{}/?directConnection=true",
        listener.local_addr().unwrap()
    );
    let mut script = Server::new(6);
    script.batch = 1;
    thread::spawn(move || {
        for connection in listener.incoming() {
            answer_up_to_a_get_more(&mut script, connection.unwrap());
        }
    });
    let begun = Instant::now();
    let client = Client::new(uri).unwrap();
    let stream = client.collection("shop", "orders").watch().open().unwrap();
    let seen: Vec<_> = stream
        .take(6)
        .map(|event| number(event.unwrap().resume_token()))
        .collect();
    assert_eq!(seen, (1..=6).collect::<Vec<_>>());
    // By its deadline alone each of them would be found after ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(8));
}

fn answer_up_to_a_get_more(script: &mut Server, mut connection: TcpStream) {
    let mut reader = FrameReader::new();
    let asked = |script: &Server| script.heard().iter().filter(|name| **name == "getMore").count();
    let before = asked(script);
    while asked(script) == before {
        while let Some(frame) = reader.next_frame().unwrap() {
            if let Answer::Reply(bytes) = script.hear(&frame) {
                connection.write_all(&bytes).unwrap();
            }
        }
        match connection.read(reader.buffer()) {
            Ok(len) if len > 0 => reader.filled(len),
            _ => return,
        }
    }
}
