//! A long scenario again and again: in the first run each future of the stream is dropped when it waits for the first
//! time, in the next one when it waits for the second time, and so on. Whatever is dropped, nothing may be lost, nothing
//! repeated, and the token is always one to go on from.

use std::thread;
use std::time::Duration;

use bson::doc;
use changestream_driver::{ChangeEvent, Client, ResumeToken, Watch};
use changestream_sim::RunningDeployment;
use changestream_tests::writer::{insert, run};

use crate::adapter::{Adapter, Call, Follow, Patience, bounded_by};
use crate::scenarios::data;

pub fn calls_given_up_wherever_they_wait_lose_and_repeat_nothing<A: Adapter>() {
    bounded_by(LIMIT, || {
        thread::scope(|scope| {
            let runs = PATIENCE.map(|times| {
                // The thread's name tells which run it was that failed.
                let name = format!("patience {times}");
                let run = move || A::block_on(Run::<A>::new(times).go_through());
                (
                    times,
                    thread::Builder::new()
                        .name(name)
                        .spawn_scoped(scope, run)
                        .unwrap(),
                )
            });
            for (times, run) in runs {
                let dropped = run.join().unwrap();
                // Each step of the script is taken where a call waits.
                assert!(times > 0 || dropped >= SCRIPT.len(), "{dropped} were dropped");
            }
        });
    });
}

/// One run of the scenario.
struct Run<A: Adapter> {
    deployment: RunningDeployment,
    watch: Watch<A::Mode>,
    patience: usize,
    exhaust: bool,
    calls: usize,
    dropped: usize,
    /// What the consumer was given.
    given: Vec<String>,
    /// The token that the stream told last, or that of the last event.
    last: Option<ResumeToken>,
    /// Tokens where calls were dropped, and how much had been given there.
    marks: Vec<(ResumeToken, usize)>,
}

impl<A: Adapter> Run<A> {
    fn new(patience: usize) -> Self {
        let deployment = crate::scenarios::quick_to_elect()
            .server_version(VERSIONS[patience % VERSIONS.len()])
            .start()
            .unwrap();
        let exhaust = patience % 3 == 1;
        let watch = Client::<A::Mode>::new(deployment.uri())
            .unwrap()
            .collection("shop", "orders")
            .watch()
            .batch_size(3)
            .max_await_time(Duration::from_millis(50))
            .prefetch_batches(patience % 2)
            .exhaust(exhaust);
        Self {
            deployment,
            watch,
            patience,
            exhaust,
            calls: 0,
            dropped: 0,
            given: Vec::new(),
            last: None,
            marks: Vec::new(),
        }
    }

    /// How many calls were dropped.
    async fn go_through(mut self) -> usize {
        let faults = SCRIPT
            .iter()
            .copied()
            .flatten()
            .filter(|step| step.is_fault(self.exhaust));
        let invalidated = self.follow(self.watch.clone(), &SCRIPT, faults.count()).await;
        self.follow_after_the_end(invalidated).await;
        for mark in [self.marks.len() / 3, self.marks.len() / 2] {
            self.go_on_from(mark).await;
        }
        self.dropped
    }

    /// A stream from its opening to its end. The token that it ended with.
    async fn follow(&mut self, watch: Watch<A::Mode>, script: &[&[Step]], resumes: usize) -> ResumeToken {
        let mut stream = self.open(watch).await;
        let mut script = Script::new(script);
        while !self.call(&mut stream, &mut script).await {}
        assert!(script.is_over());
        assert_eq!(self.given, script.due);
        assert!(!stream.is_alive());
        let stats = stream.stats();
        assert!(stats.resumes >= u64::try_from(resumes).unwrap(), "{stats:?}");
        assert_eq!(stats.events, u64::try_from(self.given.len()).unwrap());
        assert_eq!(stream.resume_token(), self.last.as_ref());
        self.last.clone().unwrap()
    }

    /// The collection is created again, and a stream goes on after the invalidate event. It is closed, by calls that are
    /// given up too.
    async fn follow_after_the_end(&mut self, invalidated: ResumeToken) {
        let mut stream = self.open(self.watch.clone().start_after(invalidated)).await;
        let before = self.given.len();
        let mut script = Script::new(&[&[Step::Write(4)]]);
        while self.given.len() < before + 4 {
            assert!(!self.call(&mut stream, &mut script).await);
        }
        assert_eq!(self.given[before..], script.due);
        self.given.truncate(before);
        let primary = self.deployment.primary().unwrap();
        let cursors = self.deployment.with(|d, _| d.cursors(primary)).len();
        let token = loop {
            self.calls += 1;
            match stream.closed(self.patience(), &mut || {}).await {
                Some(token) => break token.unwrap(),
                None => self.dropped += 1,
            }
        };
        assert_eq!(token.as_ref(), stream.resume_token());
        assert!(!stream.is_alive());
        assert!(matches!(
            stream.call(0, self.patience(), &mut || {}).await,
            Call::Ended
        ));
        let left = self.deployment.with(|d, _| d.cursors(primary)).len();
        assert_eq!(left + 1, cursors, "closing kills the cursor");
    }

    /// Another stream takes up where a call was dropped, and gets exactly what was not given before.
    async fn go_on_from(&self, mark: usize) {
        let (token, given) = self.marks[mark].clone();
        let mut stream = A::open(self.watch.clone().resume_after(token)).await.unwrap();
        let mut rest = Vec::new();
        while let Some(event) = stream.next().await {
            rest.push(told(&event.unwrap()));
        }
        assert_eq!(rest, self.given[given..], "after {given} events");
    }

    async fn open(&mut self, watch: Watch<A::Mode>) -> A::Stream {
        let mut stream = watch.start().unwrap();
        loop {
            self.calls += 1;
            match stream.opened(self.patience(), &mut || {}).await {
                Some(opened) => break opened.unwrap(),
                None => self.dropped += 1,
            }
        }
        self.last = stream.resume_token().cloned();
        stream
    }

    /// One call. Whether the stream has ended.
    async fn call(&mut self, stream: &mut A::Stream, script: &mut Script<'_>) -> bool {
        self.calls += 1;
        let given = self.given.len();
        let patience = self.patience();
        let mut waits = || script.go_on(&self.deployment, given);
        match stream.call(self.calls, patience, &mut waits).await {
            Call::Events(events) => events.iter().for_each(|event| self.take(event)),
            Call::Nothing => {}
            Call::GivenUp => {
                self.dropped += 1;
                assert!(stream.is_alive() || self.given.len() == script.due.len());
            }
            Call::Ended => return true,
        }
        self.look(stream);
        false
    }

    fn take(&mut self, event: &ChangeEvent) {
        let token = event.resume_token();
        let before = self.last.as_ref().map(data);
        assert!(before < Some(data(token)), "{before:?} was told before {token:?}");
        self.last = Some(token.clone());
        self.given.push(told(event));
    }

    /// The token is that of what was given last, or a later one that still comes before what is given next: the latter
    /// shows when that comes.
    fn look(&mut self, stream: &A::Stream) {
        let token = stream.resume_token().expect("the server has told one").clone();
        let last = self
            .last
            .take()
            .expect("the stream has told one when it was opened");
        assert!(data(&last) <= data(&token), "from {last:?} back to {token:?}");
        if self.patience.is_multiple_of(2) && stream.has_buffered() {
            assert_eq!(
                last, token,
                "nothing is fetched ahead: this is the middle of a batch"
            );
        }
        if !self.given.iter().any(|given| given == "drop") {
            self.marks.push((token.clone(), self.given.len()));
        }
        self.last = Some(token);
    }

    fn patience(&self) -> Patience {
        Patience {
            times: self.patience,
            then_at_once: self.calls.is_multiple_of(2),
        }
    }
}

/// What happens to the deployment: the next steps follow whenever the stream waits and the consumer has been given all
/// that is due to it.
struct Script<'a> {
    steps: &'a [&'a [Step]],
    written: i32,
    due: Vec<String>,
}

#[derive(Clone, Copy)]
enum Step {
    /// So many documents.
    Write(i32),
    /// The next command of this name fails with this code.
    Refuse(&'static str, i32),
    /// The connection of the next getMore breaks.
    Break,
    DropConnections,
    /// The primary steps down, and its connections end. Another is elected after a moment.
    Elect,
    /// The primary crashes, and another is elected at once.
    Crash,
    Restart,
    /// The collection is dropped.
    Drop,
}

impl Step {
    /// Whether a stream has to resume for it.
    fn is_fault(self, exhaust: bool) -> bool {
        match self {
            Self::Write(_) | Self::Restart | Self::Drop => false,
            // An aggregate that is refused makes a resume longer. With exhaust a getMore may never come.
            Self::Refuse(command, _) => command == "getMore" && !exhaust,
            Self::Break => !exhaust,
            Self::DropConnections | Self::Elect | Self::Crash => true,
        }
    }
}

impl<'a> Script<'a> {
    fn new(steps: &'a [&'a [Step]]) -> Self {
        Self {
            steps,
            written: 0,
            due: Vec::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.steps.is_empty()
    }

    fn go_on(&mut self, deployment: &RunningDeployment, given: usize) {
        if given < self.due.len() || deployment.primary().is_none() {
            return;
        }
        let Some((steps, later)) = self.steps.split_first() else {
            return;
        };
        self.steps = later;
        for step in *steps {
            self.take(deployment, *step);
        }
    }

    fn take(&mut self, deployment: &RunningDeployment, step: Step) {
        let primary = deployment.primary().unwrap();
        match step {
            Step::Write(count) => {
                let ids = self.written..self.written + count;
                self.written = ids.end;
                self.due.extend(ids.clone().map(|id| id.to_string()));
                insert(deployment, "shop", "orders", ids);
            }
            Step::Refuse(command, code) => {
                let labels = ["ResumableChangeStreamError"];
                let data =
                    doc! { "failCommands": [command], "errorCode": code, "errorLabels": labels.as_slice() };
                fail_once(deployment, data);
            }
            Step::Break => fail_once(
                deployment,
                doc! { "failCommands": ["getMore"], "closeConnection": true },
            ),
            Step::DropConnections => deployment.drop_connections(primary),
            Step::Elect => deployment.with(|d, now| {
                d.step_down(now);
                d.drop_connections(now, primary);
            }),
            Step::Crash => {
                deployment.crash(primary);
                assert!((0..3).any(|member| deployment.elect(member)));
            }
            Step::Restart => (0..3).for_each(|member| deployment.restart(member)),
            Step::Drop => {
                run(deployment, &doc! { "drop": "orders", "$db": "shop" });
                self.due.extend(["drop".to_owned(), "invalidate".to_owned()]);
            }
        }
    }
}

fn fail_once(deployment: &RunningDeployment, data: bson::Document) {
    let primary = deployment.primary().unwrap();
    let command = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data };
    deployment.fail_command(primary, &command).unwrap();
}

/// An insert by its number, any other event by its kind.
fn told(event: &ChangeEvent) -> String {
    match event.operation_type().unwrap().as_str() {
        "insert" => event.document_key().unwrap().get_i32("_id").unwrap().to_string(),
        other => other.to_owned(),
    }
}

const SCRIPT: [&[Step]; 17] = {
    use Step::{Break, Crash, Drop, DropConnections, Elect, Refuse, Restart, Write};
    [
        &[Write(1)],
        &[Write(7)],
        &[Write(4), Refuse("getMore", CURSOR_NOT_FOUND), Write(2)],
        &[Write(2)],
        &[Break],
        &[Write(5)],
        &[Write(3), DropConnections, Write(3)],
        &[Elect],
        &[Write(4)],
        &[Refuse("getMore", INTERRUPTED_AT_SHUTDOWN), Write(4)],
        &[Write(1)],
        &[Crash, Write(5)],
        &[Restart, Write(1)],
        &[Refuse("aggregate", NOT_WRITABLE_PRIMARY), DropConnections],
        &[Write(8)],
        &[DropConnections, Write(2)],
        &[Write(2), Drop],
    ]
};

/// After how many waits a call is dropped, by run. In the last ones hardly any is.
const PATIENCE: [usize; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 17, 25, 50];
const VERSIONS: [&str; 4] = ["4.4", "8.0", "5.0", "7.0"];

/// Far longer than it takes: only what waits for ever takes this long.
const LIMIT: Duration = Duration::from_secs(60);

/// Of MongoDB's error codes. A killed cursor is one that is not found: what a getMore that waits is told when its cursor is
/// killed is the end of a stream.
const CURSOR_NOT_FOUND: i32 = 43;
const INTERRUPTED_AT_SHUTDOWN: i32 = 11600;
const NOT_WRITABLE_PRIMARY: i32 = 10107;
