//! The connection machine against recorded conversations with a real server.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::{Document, RawDocument};
use bytes::Bytes;
use changestream_core::ServerAddress;
use changestream_core::auth::Credential;
use changestream_core::auth::scram::{Hash, Scram};
use changestream_core::connection::{
    ClientMetadata, Connection, ConnectionOutput, ConnectionSettings, PART_SIZE, Request, reply,
};
use changestream_core::random::Random;
use changestream_core::wire::{
    Compressor, DEFAULT_MAX_MESSAGE_SIZE, Flags, Message, compress, compressor_of, decompress, encode_op_msg,
    encode_op_query, encode_op_reply,
};

#[test]
fn every_recorded_message_decodes_and_encodes_to_the_same_bytes() {
    for (name, messages) in recordings() {
        for message in messages {
            let plain = inflated(&message.bytes);
            let decoded = Message::decode(&plain).unwrap();
            let encoded = match &decoded {
                Message::Msg(m) => {
                    let documents: Vec<Vec<&RawDocument>> = m
                        .sequences
                        .iter()
                        .map(|s| s.documents.iter().map(raw).collect())
                        .collect();
                    let names = m.sequences.iter().map(|s| s.identifier.as_str());
                    let sequences: Vec<_> = names.zip(documents.iter().map(Vec::as_slice)).collect();
                    encode_op_msg(m.request_id, m.response_to, m.flags, raw(&m.body), &sequences)
                }
                Message::Query(m) => encode_op_query(m.request_id, &m.namespace, raw(&m.query)),
                Message::Reply(m) => encode_op_reply(m.request_id, m.response_to, raw(&m.document)),
                other => panic!("{name}: {other:?}"),
            };
            let flags = match decoded {
                // Flags of OP_QUERY and OP_REPLY are not kept.
                Message::Query(_) | Message::Reply(_) => 16..24,
                _ => 0..0,
            };
            for (at, (a, b)) in encoded.iter().zip(&plain).enumerate() {
                assert!(a == b || flags.contains(&at), "{name}: byte {at}");
            }
            assert_eq!(encoded.len(), plain.len(), "{name}");
            if let Some(compressor) = compressor_of(&message.bytes).and_then(Compressor::from_id) {
                let again = compress(&encoded, compressor, None).unwrap();
                assert_eq!(inflated(&again), encoded, "{name}");
            }
        }
    }
}

#[test]
fn every_recorded_connection_gives_the_recorded_replies() {
    let mut exhausted = 0;
    for (name, messages) in recordings() {
        let mut by_connection: BTreeMap<u64, Vec<Recorded>> = BTreeMap::new();
        for message in messages {
            by_connection.entry(message.connection).or_default().push(message);
        }
        for (connection, messages) in by_connection {
            exhausted += Replay::run(&messages, &format!("{name}, connection {connection}"));
        }
    }
    if changestream_tests::captures().is_some() {
        assert!(exhausted > 10, "the recordings contain exhaust");
    }
}

#[test]
fn recorded_authentications_give_the_recorded_proofs() {
    let mut judged = 0;
    for (name, messages) in recordings() {
        for conversation in sasl_conversations(&messages) {
            judged += judge(&name, &conversation);
        }
    }
    if changestream_tests::captures().is_some() {
        assert!(judged >= 3, "only {judged} conversations");
    }
}

/// Compares the client's proof with ours, and the server's with what we expect. Returns whether there was a proof.
fn judge(name: &str, conversation: &[String]) -> usize {
    let [client_first, server_first, client_final, rest @ ..] = conversation else {
        return 0;
    };
    let (user, nonce) = client_first
        .strip_prefix("n,,n=")
        .unwrap()
        .rsplit_once(",r=")
        .unwrap();
    let is_sha256 = BASE64
        .decode(client_final.rsplit_once(",p=").unwrap().1)
        .unwrap()
        .len()
        == 32;
    let hash = if is_sha256 { Hash::Sha256 } else { Hash::Sha1 };
    let scram = Scram::new(hash, user, nonce);
    assert_eq!(&scram.client_first(), client_first, "{name}");
    let proof_for = |password: &str| {
        let credential = Credential::new(user, password, "admin", None);
        scram
            .answer(server_first.as_bytes(), |h, salt, i| {
                credential.scram_keys(h, salt, i)
            })
            .unwrap()
    };
    let (ours, server_proof) = proof_for(&password_of(name));
    assert_eq!(&ours, client_final, "{name}");
    if let Some(server_final) = rest.first() {
        server_proof.verify(server_final.as_bytes()).unwrap();
        let (_, other) = proof_for("not the password");
        assert!(other.verify(server_final.as_bytes()).is_err());
    }
    1
}

/// What the first mark of the scenario says.
fn password_of(name: &str) -> String {
    let path = changestream_tests::captures()
        .unwrap()
        .join(format!("{name}.expected.json"));
    let expected: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    expected["log"][0]["mark"]["password"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The payloads of each connection's SCRAM messages, in order, from the speculative start or the last real one.
fn sasl_conversations(messages: &[Recorded]) -> Vec<Vec<String>> {
    let mut conversations: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for message in messages {
        let Ok(Message::Msg(m)) = Message::decode(&message.bytes) else {
            continue;
        };
        let mut document: Document = bson::deserialize_from_slice(&m.body).unwrap();
        if let Ok(speculative) = document.get_document("speculativeAuthenticate") {
            document = speculative.clone();
        }
        let Ok(payload) = document.get_binary_generic("payload") else {
            continue;
        };
        let conversation = conversations.entry(message.connection).or_default();
        if document.contains_key("saslStart") {
            conversation.clear();
        }
        conversation.push(String::from_utf8(payload.clone()).unwrap());
    }
    conversations.into_values().collect()
}

/// One recorded connection, its requests sent by a connection of ours.
struct Replay {
    connection: Connection,
    now: Instant,
    /// The recorded client's request numbers, and ours.
    ids: BTreeMap<i32, i32>,
}

impl Replay {
    /// Returns how many replies announced another.
    fn run(messages: &[Recorded], name: &str) -> usize {
        let mut replay = Self::new();
        let mut exhausted = 0;
        let (mut expected, mut hellos) = (Vec::new(), 0);
        for message in messages {
            let decoded = Message::decode(&inflated(&message.bytes)).unwrap();
            if message.from_client {
                replay.request(&decoded);
                continue;
            }
            let (body, more) = match &decoded {
                Message::Msg(m) => (m.body.clone(), m.flags.contains(Flags::MORE_TO_COME)),
                Message::Reply(m) => (m.document.clone(), false),
                other => panic!("{name}: {other:?}"),
            };
            exhausted += usize::from(more);
            replay.receive(&message.bytes, decoded.response_to());
            if hellos == 0 {
                hellos = 1;
                let told = replay.connection.poll_output();
                let is_told =
                    matches!(&told, Some(ConnectionOutput::Hello { body: hello, .. }) if *hello == body);
                assert!(is_told, "{name}: {told:?}");
                replay.connection.authenticate(replay.now);
                continue;
            }
            expected.push((body, more));
        }
        let mut got = Vec::new();
        while let Some(output) = replay.connection.poll_output() {
            match output {
                ConnectionOutput::Reply(reply) => got.push((reply.body, reply.more_to_come)),
                ConnectionOutput::Failed(error) => panic!("{name}: {error}"),
                ConnectionOutput::Transmit(_)
                | ConnectionOutput::Hello { .. }
                | ConnectionOutput::Credentials(_)
                | ConnectionOutput::Refused(_)
                | ConnectionOutput::Events { .. }
                | ConnectionOutput::Ready => {}
            }
        }
        assert_eq!(got.len(), expected.len(), "{name}");
        assert!(got == expected, "{name}");
        assert!(
            got.iter()
                .all(|(body, _)| reply::is_ok(raw(body)) || reply::server_error(raw(body)).code != 0)
        );
        exhausted
    }

    fn new() -> Self {
        let settings = ConnectionSettings {
            app_name: None,
            credential: None,
            load_balanced: false,
            tls: false,
            connect_timeout: Duration::from_secs(10),
            metadata: ClientMetadata::new().into(),
            server_api: None,
            compressors: Compressor::ALL.to_vec(),
            zlib_level: None,
            part_size: PART_SIZE,
        };
        let now = Instant::now();
        let address = ServerAddress::tcp("localhost", 27017);
        let connection = Connection::new(Arc::new(settings), address, false, Random::new([3; 32]), now);
        Self {
            connection,
            now,
            ids: BTreeMap::new(),
        }
    }

    fn request(&mut self, message: &Message) {
        let ours = match message {
            Message::Msg(m) if !self.ids.is_empty() => self.connection.send(
                self.now,
                Request {
                    body: raw(&m.body).to_owned(),
                    exhaust_allowed: m.flags.contains(Flags::EXHAUST_ALLOWED),
                    in_parts: false,
                    reply_timeout: None,
                },
            ),
            _ => {
                self.connection.handle_connected(self.now);
                let Some(ConnectionOutput::Transmit(hello)) = self.connection.poll_output() else {
                    panic!("no hello");
                };
                Message::decode(&hello).unwrap().request_id()
            }
        };
        self.ids.insert(message.request_id(), ours);
    }

    fn receive(&mut self, bytes: &Bytes, response_to: i32) {
        let mut bytes = bytes.to_vec();
        if let Some(ours) = self.ids.get(&response_to) {
            bytes[8..12].copy_from_slice(&ours.to_le_bytes());
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            let lent = self.connection.read_buffer();
            let len = bytes.len().min(lent.len());
            lent[..len].copy_from_slice(&bytes[..len]);
            self.connection.handle_received(self.now, len);
            bytes = &bytes[len..];
        }
    }
}

struct Recorded {
    connection: u64,
    from_client: bool,
    bytes: Bytes,
}

/// The messages of each scenario, in order.
fn recordings() -> Vec<(String, Vec<Recorded>)> {
    let Some(folder) = changestream_tests::captures() else {
        return Vec::new();
    };
    let mut recordings = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(name) = file.strip_suffix(".wire.jsonl") {
            recordings.push((name.to_owned(), recording(&path)));
        }
    }
    recordings.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert!(!recordings.is_empty(), "no recordings");
    recordings
}

fn recording(path: &Path) -> Vec<Recorded> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let messages = lines.filter_map(|line| {
        Some(Recorded {
            connection: line["conn"].as_u64()?,
            from_client: line["dir"] == "c2s",
            bytes: BASE64.decode(line["bytes"].as_str()?).unwrap().into(),
        })
    });
    messages.collect()
}

fn inflated(message: &Bytes) -> Bytes {
    match compressor_of(message) {
        Some(_) => decompress(message, DEFAULT_MAX_MESSAGE_SIZE).unwrap(),
        None => message.clone(),
    }
}

fn raw(bytes: &Bytes) -> &RawDocument {
    RawDocument::from_bytes(bytes).unwrap()
}
