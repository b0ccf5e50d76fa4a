//! One connection, whose peer says anything.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{DateTime, RawDocument, RawDocumentBuf, rawdoc};
use bytes::Bytes;
use changestream_core::auth::{AwsCredentials, Credential, CredentialAnswer, Mechanism, OidcFlow, OidcToken};
use changestream_core::client::Disconnected;
use changestream_core::connection::{
    ClientMetadata, Connection, ConnectionOutput, ConnectionSettings, PART_SIZE, Request,
};
use changestream_core::random::Random;
use changestream_core::wire::Compressor;
use changestream_core::wire::{Flags, Message, encode_op_msg, encode_op_reply};
use changestream_core::{Error, ServerAddress};

use super::{Choices, epoch, words};

/// Whatever the peer says, and however it is cut, the connection does the same; after its failure it does nothing, it
/// takes no more memory than a peer that is not authenticated is worth, and it never shows the password.
///
/// # Panics
/// It does not hold.
pub fn connection(data: &[u8]) {
    let start = epoch();
    let whole = Run::new(data, start, usize::MAX).play();
    let cut = Run::new(data, start, 1).play();
    assert_eq!(cut, whole);
    let password = password(data);
    assert!(!whole.iter().any(|line| line.contains(&password)), "{whole:?}");
}

/// What no peer can say by itself: else a fuzzer guesses it, has the peer say it, and finds it in the peer's words.
fn password(data: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    format!("hunter-{:016x}", hasher.finish())
}

const MOST_STEPS: usize = 100;

struct Run<'a> {
    choices: Choices<'a>,
    password: String,
    connection: Connection,
    now: Instant,
    /// The most bytes that arrive at once.
    piece: usize,
    /// What it did, for comparing.
    done: Vec<String>,
    /// The numbers of what it sent, and its last message.
    sent: Vec<i32>,
    last: Option<Bytes>,
    ready: bool,
    failed: bool,
}

impl<'a> Run<'a> {
    fn new(data: &'a [u8], now: Instant, piece: usize) -> Self {
        let mut choices = Choices::new(data);
        let password = password(data);
        let mechanism = choices.any(&[
            None,
            Some(Mechanism::ScramSha256),
            Some(Mechanism::ScramSha1),
            Some(Mechanism::Plain),
            Some(Mechanism::MongodbX509),
            Some(Mechanism::MongodbAws),
            Some(Mechanism::MongodbOidc),
        ]);
        let flow = choices.any(&[OidcFlow::Machine, OidcFlow::Human]);
        let settings = ConnectionSettings {
            app_name: None,
            credential: choices
                .flag()
                .then(|| Credential::new("alice", password.as_str(), "admin", mechanism))
                .map(|credential| credential.with_oidc_flow(flow).with_allowed_hosts(["a"])),
            load_balanced: choices.below(8) == 1,
            tls: false,
            connect_timeout: Duration::from_secs(choices.below(3) as u64),
            compressors: vec![Compressor::Zlib, Compressor::Snappy, Compressor::Zstd],
            zlib_level: None,
            part_size: choices.any(&[0, 64, 200, 1000, PART_SIZE]),
            metadata: ClientMetadata::new().into(),
            server_api: None,
        };
        let address = ServerAddress::tcp("a", 1);
        let random = Random::new([5; 32]);
        let connection = Connection::new(Arc::new(settings), address, choices.flag(), random, now);
        let (done, sent) = (Vec::new(), Vec::new());
        Self {
            choices,
            password,
            connection,
            now,
            piece,
            done,
            sent,
            last: None,
            ready: false,
            failed: false,
        }
    }

    fn play(mut self) -> Vec<String> {
        for _ in 0..MOST_STEPS {
            if self.choices.is_over() {
                break;
            }
            self.step();
            self.drain();
        }
        self.done.push(format!("{:?}", self.connection));
        self.done
    }

    fn step(&mut self) {
        let now = self.now;
        match self.choices.below(18) {
            0 => self.connection.handle_connected(now),
            1 => self.connection.authenticate(now),
            2 => self.connection.check(now),
            3 => {
                let request = Request {
                    body: rawdoc! { "ping": 1, "$db": "admin" },
                    exhaust_allowed: self.choices.flag(),
                    in_parts: self.choices.flag(),
                    reply_timeout: self.choices.any(&[
                        None,
                        Some(Duration::from_secs(1)),
                        Some(Duration::MAX),
                    ]),
                };
                self.connection.send(now, request);
            }
            4 => self.now += Duration::from_millis(self.choices.below(1 << 16) as u64),
            5 => self.time_out(),
            6 => {
                let reason = Disconnected {
                    message: "gone".to_owned(),
                    timed_out: self.choices.flag(),
                };
                self.connection.handle_disconnected(now, reason);
            }
            7 => {
                let request = self.any_request();
                self.connection.forget(request);
                self.connection
                    .set_reply_timeout(now, request, Some(Duration::from_secs(1)));
                self.connection.postpone(Duration::from_secs(1));
            }
            8 => {
                let bytes = self.choices.slice();
                self.receive(bytes);
            }
            9 => {
                let body = self.choices.encoded_document(words::HELLO);
                self.reply(&body);
            }
            10 | 11 => self.reply(good_hello().as_bytes()),
            12 => self.reply(rawdoc! { "ok": 1, "n": 7 }.as_bytes()),
            13 => {
                let code = self.choices.any(&[391, 18, 20]);
                self.reply(rawdoc! { "ok": 0, "code": code, "errmsg": "no" }.as_bytes());
            }
            14 => {
                let done = self.choices.flag();
                let payload = self.choices.encoded_document(words::HELLO);
                self.reply(sasl(payload.to_vec(), done).as_bytes());
            }
            15 => {
                let answer = self.any_answer();
                self.connection.answer(now, answer);
            }
            16 => {
                let reply = self.server_first_of_aws();
                self.reply(reply.as_bytes());
            }
            _ => {
                let reply = self.server_first();
                self.reply(reply.as_bytes());
            }
        }
    }

    fn time_out(&mut self) {
        let Some(deadline) = self.connection.deadline() else {
            return self.connection.handle_timeout(self.now);
        };
        self.now = self.now.max(deadline.at);
        self.connection.handle_timeout(self.now);
        let next = self.connection.deadline();
        assert!(
            next.is_none_or(|next| next.at > self.now),
            "a loop without end: {next:?}"
        );
    }

    fn any_request(&mut self) -> i32 {
        let back = self.choices.below(4) + 1;
        let index = self.sent.len().checked_sub(back);
        index.and_then(|index| self.sent.get(index)).copied().unwrap_or(0)
    }

    /// What a server says first in SCRAM, to the client's last message.
    fn server_first(&self) -> RawDocumentBuf {
        let nonce = self.last.as_ref().and_then(client_nonce).unwrap_or_default();
        sasl(
            format!("r={nonce}x,s=QSXCR+Q6sek8bf92,i=4096").into_bytes(),
            false,
        )
    }

    /// What a server says first in MONGODB-AWS, or of its provider in MONGODB-OIDC.
    fn server_first_of_aws(&mut self) -> RawDocumentBuf {
        let host = self.choices.any(&["sts.amazonaws.com", "a..b", "localhost", ""]);
        let sent = self.last.as_deref().unwrap_or_default();
        let start = sent
            .windows(3)
            .position(|window| window == b"\x05r\0")
            .unwrap_or(0);
        let mut nonce = sent.iter().skip(start + 8).take(32).copied().collect::<Vec<_>>();
        nonce.resize(64, 7);
        let payload = rawdoc! { "s": binary(nonce), "h": host, "issuer": "i", "requestScopes": ["a"] };
        sasl(payload.into_bytes(), false)
    }

    fn any_answer(&mut self) -> Result<CredentialAnswer, Error> {
        let time = DateTime::from_millis(self.choices.any(&[0, -1, 1 << 40, i64::MAX, i64::MIN]));
        let password = self.password.as_str();
        match self.choices.below(4) {
            0 => Err(Error::authentication("no")),
            1 => Ok(CredentialAnswer::aws(AwsCredentials::new("key", password), time)),
            2 => Ok(CredentialAnswer::Oidc(
                OidcToken::new(password).with_refresh_token(password),
            )),
            _ => Ok(CredentialAnswer::Oidc(OidcToken::new(""))),
        }
    }

    fn reply(&mut self, body: &[u8]) {
        let to = self.any_request();
        let id = i32::from(self.choices.byte());
        let flags = [
            Flags::NONE,
            Flags::NONE,
            Flags::MORE_TO_COME,
            Flags::CHECKSUM_PRESENT,
        ][self.choices.below(4)];
        let Ok(document) = RawDocument::from_bytes(body) else {
            return;
        };
        let message = if self.choices.below(8) == 1 {
            encode_op_reply(id, to, document)
        } else {
            encode_op_msg(id, to, flags, document, &[])
        };
        self.receive(&message);
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let buffer = self.connection.read_buffer();
            assert!(
                self.ready || buffer.len() <= 1 << 20,
                "{} bytes were taken",
                buffer.len()
            );
            let len = buffer.len().min(bytes.len()).min(self.piece);
            buffer[..len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            self.connection.handle_received(self.now, len);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.connection.poll_output() {
            assert!(!self.failed, "after its failure: {output:?}");
            self.done.push(format!("{output:?}"));
            match output {
                ConnectionOutput::Transmit(bytes) => {
                    let message = Message::decode(&bytes).expect("it speaks the protocol");
                    self.sent.push(message.request_id());
                    // Some of them hold the password, as they must.
                    let mut hasher = DefaultHasher::new();
                    bytes.hash(&mut hasher);
                    self.done.push(hasher.finish().to_string());
                    self.last = Some(bytes);
                }
                ConnectionOutput::Ready => self.ready = true,
                ConnectionOutput::Failed(error) => {
                    self.done.push(error.to_string());
                    self.failed = true;
                }
                ConnectionOutput::Hello { .. }
                | ConnectionOutput::Credentials(_)
                | ConnectionOutput::Refused(_)
                | ConnectionOutput::Events { .. }
                | ConnectionOutput::Reply(_) => {}
            }
        }
        assert!(
            self.connection.deadline().is_none() || !self.failed,
            "a failed connection waits for nothing"
        );
    }
}

fn good_hello() -> RawDocumentBuf {
    rawdoc! {
        "ok": 1, "isWritablePrimary": true, "helloOk": true, "maxWireVersion": 25, "saslSupportedMechs": ["SCRAM-SHA-256"],
        "maxMessageSizeBytes": 48_000_000,
    }
}

fn sasl(payload: Vec<u8>, done: bool) -> RawDocumentBuf {
    rawdoc! { "ok": 1, "conversationId": 1, "done": done, "payload": binary(payload) }
}

fn binary(bytes: Vec<u8>) -> bson::Binary {
    bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes,
    }
}

/// The nonce in a `client-first-message`, wherever it stands in a message.
fn client_nonce(message: &Bytes) -> Option<String> {
    let start = message.windows(3).position(|window| window == b",r=")? + 3;
    let nonce = message.get(start..)?;
    let end = nonce.iter().position(|byte| !byte.is_ascii_graphic())?;
    String::from_utf8(nonce[..end].to_vec()).ok()
}
