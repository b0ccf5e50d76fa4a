//! The program against peers that are no server it can use: a clear message, the right exit code, in time.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod peers;

use std::io::{Read, Write};
use std::net::TcpListener;

use bson::doc;
use peers::{member, peer, reply, requests, tail, wait_for_the_end};

/// A peer that answers the first request with these bytes, and then waits until the client leaves.
fn answering(answer: impl Into<Vec<u8>>) -> String {
    let answer = answer.into();
    peer(move |mut socket| {
        let _ = socket.read(&mut [0; 4096]);
        let _ = socket.write_all(&answer);
        wait_for_the_end(socket);
    })
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    tail(&address, "", &[]).is(
        10,
        &[
            "no suitable server",
            &address,
            "refused",
            "serverSelectionTimeoutMS",
        ],
    );
}

#[test]
fn a_name_that_no_host_has() {
    tail("no-such-host.invalid", "", &[]).is(10, &["no suitable server", "no-such-host.invalid"]);
}

#[test]
fn an_http_server() {
    let address = answering("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    tail(&address, "", &[]).is(10, &[&address, "is this a MongoDB server?", "HTTP"]);
}

#[test]
fn a_server_that_speaks_tls_only() {
    // A fatal alert, as OpenSSL sends it to a client that begins without TLS: protocol_version.
    let address = answering([0x15, 0x03, 0x03, 0, 2, 2, 70]);
    tail(&address, "", &[]).is(10, &[&address, "TLS"]);
}

#[test]
fn a_peer_that_accepts_and_never_answers() {
    let address = peer(wait_for_the_end);
    tail(&address, "", &[]).is(10, &["no suitable server", &address, "has not answered yet"]);
}

#[test]
fn a_peer_that_is_slower_than_the_connect_timeout() {
    let address = peer(wait_for_the_end);
    tail(&address, "&connectTimeoutMS=200", &[]).is(10, &[&address, "200ms", "connectTimeoutMS"]);
}

#[test]
fn a_peer_that_never_accepts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tail(&address, "", &[]).is(10, &["no suitable server", &address, "has not answered yet"]);
    drop(listener);
}

#[test]
fn a_peer_that_closes_at_once() {
    let address = peer(drop);
    tail(&address, "", &[]).is(10, &[&address, "closed during the handshake", "TLS"]);
}

#[test]
fn a_peer_that_answers_half_a_hello_and_closes() {
    let address = peer(|mut socket| {
        let (id, request) = requests(&socket).next().unwrap();
        let hello = reply(
            id,
            &request,
            &doc! { "ok": 1, "isWritablePrimary": true, "maxWireVersion": 21 },
        );
        let _ = socket.write_all(&hello[..hello.len() / 2]);
    });
    tail(&address, "", &[]).is(10, &[&address, "closed during the handshake"]);
}

#[test]
fn a_peer_that_claims_a_message_of_two_gigabytes() {
    let mut claim = vec![0; 16];
    claim[..4].copy_from_slice(&i32::MAX.to_le_bytes());
    let address = answering(claim);
    tail(&address, "", &[]).is(10, &[&address, "2147483647 bytes", "is this a MongoDB server?"]);
}

#[test]
fn a_peer_that_sends_garbage_without_end() {
    let address = peer(|mut socket| {
        let garbage: Vec<u8> = (0_u32..4096)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        while socket.write_all(&garbage).is_ok() {}
    });
    tail(&address, "", &[]).is(10, &[&address, "is this a MongoDB server?"]);
}

#[test]
fn a_server_that_is_too_old() {
    let address = peer(|mut socket| {
        for (id, request) in requests(&socket.try_clone().unwrap()) {
            let hello = doc! { "ok": 1, "ismaster": true, "minWireVersion": 0, "maxWireVersion": 5 };
            let _ = socket.write_all(&reply(id, &request, &hello));
        }
    });
    tail(&address, "", &[]).is(10, &[&address, "MongoDB 4.2"]);
}

#[test]
fn a_server_that_hangs_on_the_aggregate() {
    let address = member("aggregate", |socket, _, _| wait_for_the_end(socket));
    // Without socketTimeoutMS an aggregate has minutes: a server may read a long log before it answers.
    tail(&address, "&socketTimeoutMS=300", &[]).is(12, &[&address, "silent for 30"]);
}

#[test]
fn a_server_that_closes_in_the_middle_of_the_aggregates_reply() {
    let address = member("aggregate", |mut socket, id, request| {
        let cursor = doc! { "id": 1_i64, "ns": "d.c", "firstBatch": [] };
        let answer = reply(id, request, &doc! { "ok": 1, "cursor": cursor });
        let _ = socket.write_all(&answer[..answer.len() - 7]);
    });
    tail(&address, "", &[]).is(12, &[&address, "closed"]);
}

#[test]
fn a_server_that_answers_the_aggregate_with_what_is_no_cursor() {
    let address = member("aggregate", |mut socket, id, request| {
        let _ = socket.write_all(&reply(id, request, &doc! { "ok": 1 }));
        wait_for_the_end(socket);
    });
    tail(&address, "", &[]).is(13, &[&address, "cursor"]);
}

#[test]
fn a_pipeline_that_the_server_refuses() {
    let address = member("aggregate", |mut socket, id, request| {
        let error = doc! {
            "ok": 0, "code": 40324, "codeName": "Location40324", "errmsg": "Unrecognized pipeline stage name: '$mtach'",
        };
        let _ = socket.write_all(&reply(id, request, &error));
        wait_for_the_end(socket);
    });
    tail(&address, "", &["--pipeline", r#"{"$mtach":{}}"#]).is(14, &[&address, "40324", "$mtach"]);
}
