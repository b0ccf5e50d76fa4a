//! The streams: each knows what is due to it, and says so when it gets anything else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use changestream_tokio::{ChangeEvent, ChangeStream, Client, Error, Update, Watch};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::settings::{DATABASE, Settings};

pub(crate) struct Streams {
    runtime: Runtime,
    tally: Arc<Tally>,
    tasks: Vec<JoinHandle<()>>,
}

/// What all streams together have done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) events: AtomicU64,
    pub(crate) resumes: AtomicU64,
    /// Streams that were opened anew where another one had ended.
    pub(crate) reopened: AtomicU64,
    /// Streams that have been given everything.
    complete: AtomicUsize,
    /// How many documents each collection has in the end.
    goal: OnceLock<Vec<u64>>,
    closing: AtomicBool,
    wrong: Mutex<Vec<String>>,
}

impl Streams {
    pub(crate) fn new() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("tokio does not start: {error}"))?;
        Ok(Self {
            runtime,
            tally: Arc::default(),
            tasks: Vec::new(),
        })
    }

    /// Opens all of them, some at a time, and lets them follow.
    pub(crate) fn open(&mut self, uri: &str, settings: &Settings) -> Result<(), String> {
        let client = Client::new(format!("{uri}{PATIENT}")).map_err(|error| error.to_string())?;
        let numbers: Vec<usize> = (0..settings.streams).collect();
        for some in numbers.chunks(AT_A_TIME) {
            let opening = some.iter().map(|number| self.start(&client, *number, settings));
            for (number, watched, watch, opening) in opening.collect::<Vec<_>>() {
                let stream = self
                    .runtime
                    .block_on(opening)
                    .map_err(|error| error.to_string())?
                    .map_err(|error| format!("stream {number} does not open: {error}"))?;
                let follower = Follower::new(number, watched, watch, stream, &self.tally);
                self.tasks.push(self.runtime.spawn(follower.follow()));
            }
        }
        Ok(())
    }

    fn start(
        &self,
        client: &Client,
        number: usize,
        settings: &Settings,
    ) -> (usize, Watched, Watch, JoinHandle<Result<ChangeStream, Error>>) {
        let watched = Watched::of(number, settings);
        let watch = watched.watch(client, number);
        let opening = self.runtime.spawn(watch.clone().open());
        (number, watched, watch, opening)
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Closes all of them, and waits until they are closed.
    pub(crate) fn close(&mut self) {
        self.tally.closing.store(true, Ordering::Release);
        for task in self.tasks.drain(..) {
            if self.runtime.block_on(task).is_err() {
                self.tally.note("a stream's task panicked".to_owned());
            }
        }
    }
}

impl Tally {
    /// From now on the streams know how much is due to them.
    pub(crate) fn set_goal(&self, goal: Vec<u64>) {
        drop(self.goal.set(goal));
    }

    pub(crate) fn complete(&self) -> usize {
        self.complete.load(Ordering::Acquire)
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.lock().clone()
    }

    pub(crate) fn is_wrong(&self) -> bool {
        !self.lock().is_empty()
    }

    fn note(&self, wrong: String) {
        self.lock().push(wrong);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a stream watches.
#[derive(Clone, Copy, Debug)]
enum Watched {
    Collection(usize),
    /// This many.
    All(usize),
}

impl Watched {
    /// One in a hundred watches the whole database.
    fn of(number: usize, settings: &Settings) -> Self {
        if number % 100 == 99 {
            Self::All(settings.collections())
        } else {
            Self::Collection(number % settings.collections())
        }
    }

    /// Streams differ in all that changes how a stream works.
    fn watch(self, client: &Client, number: usize) -> Watch {
        let database = client.database(DATABASE);
        let watch = match self {
            Self::Collection(collection) => database.collection(Settings::collection(collection)).watch(),
            Self::All(_) => database.watch(),
        };
        let watch = watch
            .max_await_time(Duration::from_millis(5_000 + 5 * (number % 1_000) as u64))
            .prefetch_batches(number % 3)
            .exhaust(number.is_multiple_of(7));
        if number.is_multiple_of(5) {
            watch.batch_size(10)
        } else {
            watch
        }
    }

    fn collections(self) -> std::ops::Range<usize> {
        match self {
            Self::Collection(collection) => collection..collection + 1,
            Self::All(collections) => 0..collections,
        }
    }
}

/// A stream and what it has been given.
struct Follower {
    number: usize,
    watched: Watched,
    watch: Watch,
    stream: ChangeStream,
    tally: Arc<Tally>,
    /// The number of the next document, by collection.
    next: BTreeMap<String, u64>,
    resumes: u64,
    is_complete: bool,
}

impl Follower {
    fn new(number: usize, watched: Watched, watch: Watch, stream: ChangeStream, tally: &Arc<Tally>) -> Self {
        let next = watched
            .collections()
            .map(|c| (Settings::collection(c), 0))
            .collect();
        Self {
            number,
            watched,
            watch,
            stream,
            tally: Arc::clone(tally),
            next,
            resumes: 0,
            is_complete: false,
        }
    }

    /// Until all are closed, also when everything has been given: something might be repeated.
    async fn follow(mut self) {
        while !self.tally.closing.load(Ordering::Acquire) {
            if let Err(wrong) = self.step().await {
                self.tally.note(format!("stream {}: {wrong}", self.number));
                return;
            }
        }
        if !self.is_complete {
            self.tally
                .note(format!("stream {}: has got {:?} only", self.number, self.next));
        }
        if let Err(error) = self.stream.close().await {
            self.tally
                .note(format!("stream {}: closing: {error}", self.number));
        }
    }

    async fn step(&mut self) -> Result<(), String> {
        let events = self.events().await?;
        for event in &events {
            self.take(event)?;
        }
        self.tally
            .events
            .fetch_add(events.len() as u64, Ordering::Relaxed);
        let resumes = self.stream.stats().resumes;
        self.tally
            .resumes
            .fetch_add(resumes - self.resumes, Ordering::Relaxed);
        self.resumes = resumes;
        if !self.is_complete && self.tally.goal.get().is_some_and(|goal| self.has_reached(goal)) {
            self.is_complete = true;
            self.tally.complete.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    /// Some events, by one of the methods, which is given up when it takes long.
    async fn events(&mut self) -> Result<Vec<ChangeEvent>, String> {
        let stream = &mut self.stream;
        let events = match self.number % 4 {
            0 => timeout(PATIENCE, stream.next())
                .await
                .map(|next| next.map(|next| next.map(|event| vec![event]))),
            1 => timeout(PATIENCE, stream.next_batch()).await,
            2 => timeout(PATIENCE, stream.next_update()).await.map(|update| {
                update.map(|update| {
                    update.map(|update| {
                        if let Update::Change(event) = update {
                            vec![event]
                        } else {
                            Vec::new()
                        }
                    })
                })
            }),
            _ => Ok(Some(
                stream.try_next().await.map(|event| event.into_iter().collect()),
            )),
        };
        match events {
            // It took long.
            Err(_) => Ok(Vec::new()),
            Ok(Some(Ok(events))) => Ok(events),
            Ok(Some(Err(error))) if error.code() == Some(CURSOR_KILLED) => self.open_again(&error).await,
            Ok(Some(Err(error))) => Err(error.to_string()),
            Ok(None) => Err("it came to an end".to_owned()),
        }
    }

    /// A stream whose cursor was killed while it waited has ended, as somebody wanted it. Another takes its place.
    async fn open_again(&mut self, error: &Error) -> Result<Vec<ChangeEvent>, String> {
        let token = error.resume_token().ok_or("an error without a token")?;
        let watch = self.watch.clone().resume_after(token.clone());
        self.stream = watch
            .open()
            .await
            .map_err(|error| format!("opened again: {error}"))?;
        self.resumes = 0;
        self.tally.reopened.fetch_add(1, Ordering::Relaxed);
        Ok(Vec::new())
    }

    fn take(&mut self, event: &ChangeEvent) -> Result<(), String> {
        let collection = event
            .namespace()
            .and_then(|namespace| namespace.coll)
            .unwrap_or_default();
        let id = event.document_key().and_then(|key| key.get_i64("_id").ok());
        let id = id.and_then(|id| u64::try_from(id).ok());
        let Some(next) = self.next.get_mut(collection) else {
            return Err(format!("an event of {collection:?}, which it does not watch"));
        };
        if id != Some(*next) {
            return Err(format!("{id:?} in the place of {next} of {collection}"));
        }
        *next += 1;
        Ok(())
    }

    fn has_reached(&self, goal: &[u64]) -> bool {
        self.watched
            .collections()
            .all(|c| self.next.get(&Settings::collection(c)) == goal.get(c))
    }
}

/// `CursorKilled` of MongoDB's error codes.
const CURSOR_KILLED: i32 = 237;
/// What opens together. Those that follow know by then where the primary is.
const AT_A_TIME: usize = 20;
/// One deployment has to bear it when all streams come back at once, on a machine that does other things besides.
const PATIENT: &str = "&connectTimeoutMS=60000&serverSelectionTimeoutMS=120000";
/// How long a call is waited for before it is given up.
const PATIENCE: Duration = Duration::from_secs(2);
