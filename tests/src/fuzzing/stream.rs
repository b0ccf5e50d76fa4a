//! The stream machine under any replies.

use std::time::{Duration, Instant};

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use bytes::Bytes;
use changestream_core::client::Demand;
use changestream_core::random::Random;
use changestream_core::stream::{
    CommandReply, Expects, Patience, Retries, Role, Server, StreamInput, StreamMachine, StreamOutput,
};
use changestream_core::{
    Error, ErrorKind, ResumePolicy, Scope, ServerAddress, ServerError, Update, WatchOptions,
};

use super::{Choices, epoch, words};

/// Whatever replies and failures come, the stream has one request on its way at most, and the next behind it once events
/// of its reply have come, tells nobody what was not asked for, hands events over in order and none twice, and does nothing
/// after its end.
///
/// # Panics
/// It does not hold.
pub fn stream(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut run = Run::new(&mut choices);
    run.drain();
    for _ in 0..MOST_STEPS {
        if choices.is_over() {
            return;
        }
        run.step(&mut choices);
        run.drain();
    }
}

const MOST_STEPS: usize = 200;
/// More outputs than anything that fits into an input can cause.
const MOST_OUTPUTS: usize = 10_000;

struct Run {
    machine: StreamMachine,
    now: Instant,
    demand: Demand,
    /// A server was asked for.
    selecting: bool,
    /// How many commands' replies are awaited.
    in_flight: u32,
    /// The last command's reply may come in parts.
    in_parts: bool,
    /// Events of the reply that is awaited have come.
    begun: bool,
    ended: bool,
    /// The number of the next event that is sent, and of the last that was handed over.
    next: i32,
    delivered: i32,
}

impl Run {
    fn new(choices: &mut Choices<'_>) -> Self {
        let mut options = WatchOptions::default();
        options.prefetch_batches = choices.below(4);
        options.prefetch_bytes = choices.any(&[0, 100, 16 << 20]);
        options.max_await_time = choices.any(&[None, Some(Duration::from_millis(50)), Some(Duration::MAX)]);
        options.batch_size = choices.any(&[None, Some(0), Some(u32::MAX)]);
        options.resume_policy = choices.any(&[
            ResumePolicy::Specification,
            ResumePolicy::For(Duration::from_secs(5)),
            ResumePolicy::Forever,
        ]);
        if choices.flag() {
            options.pipeline = vec![choices.document(words::EVENT)];
            options.comment = Some(choices.value(words::EVENT));
        }
        if options.max_await_time.is_none() && choices.flag() {
            options.timeout = Some(choices.any(&[1, 0, 300, 20_000].map(Duration::from_millis)));
        }
        if choices.flag() {
            options.start_at_operation_time = Some(Timestamp {
                time: 1,
                increment: 1,
            });
        }
        let retries = Retries {
            reads: choices.flag(),
            overloads: 2,
            retargets: choices.flag(),
        };
        let patience = Patience {
            open: Duration::from_secs(30),
            scan: Duration::from_secs(300),
            get_more: Duration::from_secs(10),
        };
        let now = epoch();
        let machine = StreamMachine::new(
            &Scope::Cluster,
            &options,
            retries,
            patience,
            Random::new([9; 32]),
            now,
        )
        .expect("options that encode");
        Self {
            machine,
            now,
            demand: Demand::None,
            selecting: false,
            in_flight: 0,
            in_parts: false,
            begun: false,
            ended: false,
            next: 1,
            delivered: 0,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(10) {
            0 | 1 => {
                let server = server(choices);
                self.selecting = false;
                self.input(StreamInput::Ready(server));
            }
            2 => self.reply(choices.encoded_document(words::REPLY)),
            3 if self.in_parts => self.part(choices),
            3..=5 => {
                let reply = self.good_reply(choices);
                self.reply(encoded(&reply));
            }
            6 => self.reply(encoded(&refusal(choices))),
            7 => self.fail(choices.any(&[
                Error::network("gone", false),
                Error::network("late", true),
                Error::protocol("gibberish"),
                Error::new(ErrorKind::from_server(ServerError::new(91, "", ""))),
            ])),
            8 => {
                self.now += Duration::from_millis(choices.below(1 << 16) as u64);
                self.input(StreamInput::Timeout);
            }
            _ if choices.below(16) == 15 => {
                self.machine.close(Some(Duration::from_secs(5)));
                self.ended = true;
            }
            _ if choices.below(4) == 3 => self.input(StreamInput::Begin),
            _ => {
                self.demand = choices.any(&[Demand::Next, Demand::TryNext, Demand::Next, Demand::None]);
                self.input(StreamInput::Demand(self.demand));
            }
        }
    }

    fn input(&mut self, input: StreamInput) {
        self.machine.handle_input(self.now, input);
    }

    fn reply(&mut self, body: Bytes) {
        match CommandReply::parse(body) {
            Ok(reply) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.begun = false;
                self.input(StreamInput::Reply(reply));
            }
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: Error) {
        (self.selecting, self.in_flight, self.begun) = (false, 0, false);
        self.input(StreamInput::Failed(error));
    }

    fn drain(&mut self) {
        for _ in 0..MOST_OUTPUTS {
            let Some(output) = self.machine.poll_output(self.now) else {
                assert!(
                    !self.ended || !self.machine.is_alive(),
                    "it ended, but more is to come"
                );
                return;
            };
            assert!(!self.ended, "after the end: {output:?}");
            match output {
                StreamOutput::SelectServer { .. } => {
                    assert!(
                        !self.selecting && self.in_flight == 0,
                        "it does two things at once"
                    );
                    self.selecting = true;
                }
                StreamOutput::Send(command) => {
                    let body = Document::try_from(command.body).expect("commands are BSON");
                    assert!(!self.selecting, "{body} is for which server?");
                    if let Expects::Reply { .. } = command.expects {
                        // The next getMore may follow a reply that has begun to arrive.
                        assert!(
                            self.in_flight == 0 || (self.in_flight == 1 && self.begun),
                            "{body} is sent while another reply is awaited"
                        );
                        assert_ne!(body.get("getMore"), Some(&Bson::Int64(0)), "{body}");
                        self.in_flight += 1;
                        self.in_parts = command.in_parts;
                    }
                }
                StreamOutput::Abandon => {
                    assert!(self.in_flight > 0, "nothing is given up");
                    (self.in_flight, self.begun) = (0, false);
                }
                StreamOutput::Update(update) => self.take(&update),
                StreamOutput::End(result, _) => {
                    let _ = result.map_err(|error| (error.to_string(), format!("{error:?}")));
                    self.ended = true;
                }
            }
        }
        panic!("a loop without end: {:?}", self.machine);
    }

    fn take(&mut self, update: &Update) {
        assert_ne!(self.demand, Demand::None, "nobody asked for {update:?}");
        let ends_a_try = matches!(
            update,
            Update::Change(_) | Update::Invalidated { .. } | Update::Idle(_) | Update::TimedOut(_)
        );
        if self.demand == Demand::Next || ends_a_try {
            self.demand = Demand::None;
        }
        let Update::Change(event) = update else { return };
        assert!(
            self.machine.resume_token().is_some(),
            "after an event there is a token"
        );
        if let Ok(Some(number)) = event.get(NUMBER)
            && let Some(number) = number.as_i32()
        {
            assert!(number > self.delivered, "{number} after {}", self.delivered);
            self.delivered = number;
        }
    }

    /// Events of a reply that is on its way, and of which more follows.
    fn part(&mut self, choices: &mut Choices<'_>) {
        let mut elements = Vec::new();
        for _ in 0..=choices.below(3) {
            let event = encoded(&self.event(choices));
            elements.extend_from_slice(b"\x030\0");
            elements.extend_from_slice(&event);
        }
        if choices.below(8) == 1 {
            elements.truncate(choices.below(elements.len()));
        }
        self.begun = self.in_flight > 0;
        self.input(StreamInput::Events(elements.into()));
    }

    fn event(&mut self, choices: &mut Choices<'_>) -> Document {
        let number = self.next;
        self.next += 1;
        let kind = choices.any(&["insert", "insert", "invalidate"]);
        doc! { "_id": { "_data": number.to_string() }, "operationType": kind, NUMBER: number }
    }

    /// A reply of the specified form, with events that are numbered.
    fn good_reply(&mut self, choices: &mut Choices<'_>) -> Document {
        let batch: Vec<Bson> = (0..choices.below(4))
            .map(|_| self.event(choices).into())
            .collect();
        let mut cursor = doc! { "id": choices.any(&[7_i64, 8, 9, 0]), "ns": "d.c" };
        cursor.insert(choices.any(&["firstBatch", "nextBatch"]), batch);
        if choices.flag() {
            cursor.insert(
                "postBatchResumeToken",
                doc! { "_data": format!("p{}", self.next) },
            );
        }
        doc! { "ok": 1, "cursor": cursor, "operationTime": Timestamp { time: choices.byte().into(), increment: 1 } }
    }
}

/// No field of a change event, so that no document of the words has it.
const NUMBER: &str = "numbered";

fn refusal(choices: &mut Choices<'_>) -> Document {
    const LABELS: [&str; 3] = [
        "ResumableChangeStreamError",
        "SystemOverloadedError",
        "RetryableError",
    ];
    let labels: Vec<&str> = LABELS.into_iter().filter(|_| choices.flag()).collect();
    doc! {
        "ok": 0, "errmsg": "no", "code": choices.any(&[43, 237, 6, 91, 189, 286, 280, 40573, 462, 1, 50]),
        "errorLabels": labels, "baseBackoffMS": choices.value(&[]),
    }
}

fn server(choices: &mut Choices<'_>) -> Server {
    Server {
        address: ServerAddress::tcp(choices.any(&["a", "b"]), 1),
        max_wire_version: choices.any(&[6, 8, 9, 25]),
        supports_sessions: choices.flag(),
        role: choices.any(&[Role::Member, Role::Direct, Role::Standalone, Role::LoadBalanced]),
        min_round_trip: Duration::from_millis(choices.any(&[0, 0, 5, 400])),
    }
}

fn encoded(document: &Document) -> Bytes {
    RawDocumentBuf::try_from(document)
        .expect("BSON")
        .into_bytes()
        .into()
}
