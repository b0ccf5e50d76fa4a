//! Peers of the program that behave as no server should, and the program's run against them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bson::{Document, RawDocumentBuf, doc};
use changestream_core::wire::{self, FrameReader, Message};

/// `serverSelectionTimeoutMS` of these tests.
const PATIENCE: Duration = Duration::from_millis(800);
/// What a loaded machine may need beyond that, for the process too.
const LEEWAY: Duration = Duration::from_secs(15);

/// What a run of `changestream tail` came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    code: Option<i32>,
    /// What was printed to standard output.
    pub(crate) printed: String,
    pub(crate) said: String,
    pub(crate) took: Duration,
}

/// Runs `tail` against that address.
pub(crate) fn tail(address: &str, options: &str, arguments: &[&str]) -> Outcome {
    let millis = PATIENCE.as_millis();
    let patience = if options.contains("serverSelectionTimeoutMS") {
        String::new()
    } else {
        format!("serverSelectionTimeoutMS={millis}")
    };
    let uri = format!("mongodb://{address}/?{patience}{options}");
    let started = Instant::now();
    let output = limited()
        .args(["tail", &uri])
        .args(arguments)
        .env_remove("CHANGESTREAM_URI")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    Outcome {
        printed: String::from_utf8(output.stdout).unwrap(),
        code: output.status.code(),
        said,
        took: started.elapsed(),
    }
}

/// The program with as much memory and processor time as it may need at most: the system ends it if it wants more.
fn limited() -> Command {
    let program = env!("CARGO_BIN_EXE_changestream");
    if !cfg!(target_os = "linux") {
        return Command::new(program);
    }
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!("ulimit -v {MEMORY_KIB} && ulimit -t {PROCESSOR_SECONDS} && exec \"$0\" \"$@\""),
        program,
    ]);
    command
}

/// Address space: the largest message that servers send (48 MB), whole and inflated, and the program's own.
const MEMORY_KIB: u32 = 400 << 10;
/// Of an unoptimised build.
const PROCESSOR_SECONDS: u32 = 6;

impl Outcome {
    /// The end that the test expects: its exit code, and each of these in its message, which is of one line.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, told: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.printed, "", "{self:?}");
        for part in told {
            assert!(self.said.contains(part), "{part:?} is missing: {self:?}");
        }
        assert!(!self.said.contains("panicked"), "{self:?}");
        assert_eq!(self.said.trim_end().lines().count(), 1, "{self:?}");
        assert!(self.took < PATIENCE + LEEWAY, "{self:?}");
    }
}

/// A peer that does this to each connection; its address. It lives as long as the test.
pub(crate) fn peer(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(socket));
        }
    });
    address
}

pub(crate) fn wait_for_the_end(mut socket: TcpStream) {
    while socket.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
}

/// The requests of a client, one after the other.
pub(crate) fn requests(socket: &TcpStream) -> impl Iterator<Item = (i32, Document)> {
    let mut socket = socket.try_clone().unwrap();
    let mut reader = FrameReader::new();
    std::iter::from_fn(move || {
        loop {
            if let Some(frame) = reader.next_frame().ok()? {
                let message = Message::decode(&frame).unwrap();
                let id = message.request_id();
                let body = match message {
                    Message::Msg(request) => request.body,
                    Message::Query(request) => request.query,
                    other => panic!("{other:?}"),
                };
                let body = RawDocumentBuf::from_bytes(body.to_vec()).unwrap();
                return Some((id, body.try_into().unwrap()));
            }
            let read = socket.read(reader.buffer()).ok().filter(|read| *read > 0)?;
            reader.filled(read);
        }
    })
}

/// A reply in the form that its request asks for.
pub(crate) fn reply(to: i32, request: &Document, body: &Document) -> Vec<u8> {
    let body = RawDocumentBuf::try_from(body).unwrap();
    let legacy = !request.contains_key("$db");
    if legacy {
        wire::encode_op_reply(1, to, &body).to_vec()
    } else {
        wire::encode_op_msg(1, to, wire::Flags::NONE, &body, &[]).to_vec()
    }
}

/// A member of a replica set that does what it should, up to that command, and this then.
pub(crate) fn member(
    until: &'static str,
    then: impl Fn(TcpStream, i32, &Document) + Send + Sync + Clone + 'static,
) -> String {
    peer(move |mut socket| {
        let me = socket.local_addr().unwrap().to_string();
        let hello = doc! {
            "ok": 1, "isWritablePrimary": true, "ismaster": true, "helloOk": true, "setName": "rs", "hosts": [&me],
            "me": &me, "minWireVersion": 0, "maxWireVersion": 21, "logicalSessionTimeoutMinutes": 30,
            "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000,
        };
        for (id, request) in requests(&socket.try_clone().unwrap()) {
            let name = request.keys().next().unwrap();
            if name == until {
                return then(socket, id, &request);
            }
            let answer = match name.to_ascii_lowercase().as_str() {
                "hello" | "ismaster" => hello.clone(),
                _ => doc! { "ok": 1 },
            };
            let _ = socket.write_all(&reply(id, &request, &answer));
        }
    })
}
