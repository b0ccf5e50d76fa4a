//! `changestream tail`.

mod checkpoint;
mod credentials;
mod output;
mod stats;

use std::time::{Duration, Instant};

use changestream_blocking::{ChangeStream, Watch};
use changestream_core::event::OperationType;
use changestream_core::{ReadPreference, Update};

use crate::args::Tail;
use crate::exit::Failure;
use crate::signals::Stop;
use crate::token::{self, Start};

use checkpoint::{Checkpoint, Position};
pub(crate) use output::{Printer, Unprinted};
use stats::StatusLine;

/// Follows the stream until it ends, as its user asks or otherwise.
pub(crate) fn run(args: &Tail) -> Result<(), Failure> {
    let mut checkpoint = args.checkpoint.clone().map(Checkpoint::new);
    let saved = match &mut checkpoint {
        Some(checkpoint) => checkpoint.load()?,
        None => None,
    };
    let mut stream = watch(args, saved.as_ref())?.start()?;
    let canceller = stream.canceller();
    let stop = Stop::on_signal(move || canceller.cancel())?;
    let mut tail = Follower {
        printer: Printer::new(args.format.into(), args.updates),
        stats: args.stats.then(StatusLine::new),
        checkpoint,
        start: saved.map_or(Start::ResumeAfter, |position| position.start),
        events_left: args.max_events,
        committed: None,
        stop,
    };
    let result = tail.follow(&mut stream);
    // What goes wrong now is of no interest: the server forgets the cursor by itself.
    let _ = stream.close();
    if let Some(stats) = &mut tail.stats {
        stats.finish(stream.stats());
    }
    match result {
        Ok(()) | Err(Unprinted::Closed) => Ok(()),
        Err(Unprinted::Failed(failure)) => Err(failure),
    }
}

/// The stream that the arguments describe, from the saved position if there is one.
fn watch(args: &Tail, saved: Option<&Position>) -> Result<Watch, Failure> {
    let client = credentials::client(&args.uri, args.oidc_token_file.as_deref())?;
    #[cfg(feature = "dns")]
    let client = if args.dns_server.is_empty() {
        client
    } else {
        client.with_dns_servers(args.dns_server.iter().copied())
    };
    // Not of the text but of what it asks for: options that give up what TLS is for.
    for warning in client.warnings() {
        crate::say(&format!("connection string: {warning}"));
    }
    let mut watch = match (&args.db, &args.coll) {
        (Some(db), Some(coll)) => client.collection(db, coll).watch(),
        (Some(db), None) => client.database(db).watch(),
        (None, _) => client.watch(),
    };
    watch = start(args, saved, watch)?;
    if let Some(stages) = &args.pipeline {
        watch = watch.pipeline(stages.iter().cloned());
    }
    if let Some(value) = &args.full_document {
        watch = watch.full_document(value.clone());
    }
    if let Some(value) = &args.full_document_before_change {
        watch = watch.full_document_before_change(value.clone());
    }
    if args.show_expanded_events {
        watch = watch.show_expanded_events(true);
    }
    if let Some(events) = args.batch_size {
        watch = watch.batch_size(events);
    }
    if let Some(time) = args.max_await_ms {
        watch = watch.max_await_time(time);
    }
    if let Some(mode) = args.read_preference {
        watch = watch.read_preference(ReadPreference::new(mode));
    }
    Ok(watch)
}

fn start(args: &Tail, saved: Option<&Position>, mut watch: Watch) -> Result<Watch, Failure> {
    if let Some(position) = saved {
        return Ok(match position.start {
            Start::ResumeAfter => watch.resume_after(position.token.clone()),
            Start::StartAfter => watch.start_after(position.token.clone()),
        });
    }
    // Several at once are the server's to refuse.
    if let Some(argument) = &args.resume_after {
        watch = watch.resume_after(token::from_argument(argument)?.0);
    }
    if let Some(argument) = &args.start_after {
        watch = watch.start_after(token::from_argument(argument)?.0);
    }
    if let Some(time) = args.start_at {
        watch = watch.start_at_operation_time(time);
    }
    Ok(watch)
}

/// Everything that happens to an update on its way out.
struct Follower {
    printer: Printer,
    stats: Option<StatusLine>,
    checkpoint: Option<Checkpoint>,
    /// How to go on from the stream's position: `startAfter` once it is that of an invalidate event.
    start: Start,
    events_left: Option<u64>,
    /// When the position was saved last.
    committed: Option<Instant>,
    stop: Stop,
}

/// The least time between two savings of the position.
const BETWEEN_SAVES: Duration = Duration::from_millis(100);

impl Follower {
    fn follow(&mut self, stream: &mut ChangeStream) -> Result<(), Unprinted> {
        match stream.opened() {
            // Where nothing was saved before, the start is a position too: what comes is not to be missed.
            Ok(()) => self.commit(stream)?,
            Err(_) if self.stop.is_set() => {}
            Err(error) => return Err(Unprinted::Failed(error.into())),
        }
        while let Some(update) = self.next(stream)? {
            self.take(&update)?;
            if let Some(stats) = &mut self.stats {
                stats.refresh(|| stream.stats());
            }
            if self.is_done() {
                break;
            }
            // Nothing more is at hand: before the wait, what is there goes out, and only then is it remembered.
            if !stream.has_buffered() {
                self.commit_now_and_then(stream)?;
            }
        }
        self.commit(stream)
    }

    /// The next update; none when the stream has ended or is to end.
    fn next(&mut self, stream: &mut ChangeStream) -> Result<Option<Update>, Unprinted> {
        if self.stop.is_set() {
            return Ok(None);
        }
        loop {
            match stream.next_update() {
                None => return Ok(None),
                Some(Ok(update)) => return Ok(Some(update)),
                Some(Err(_)) if self.stop.is_set() => return Ok(None),
                // `timeoutMS` ends the call, not the stream.
                Some(Err(error)) if error.is_timeout() && stream.is_alive() => {}
                Some(Err(error)) => {
                    self.commit(stream)?;
                    return Err(Unprinted::Failed(error.into()));
                }
            }
        }
    }

    fn take(&mut self, update: &Update) -> Result<(), Unprinted> {
        match update {
            Update::Change(event) => {
                let last = event.operation_type() == Some(OperationType::Invalidate);
                self.start = if last {
                    Start::StartAfter
                } else {
                    Start::ResumeAfter
                };
                self.events_left = self.events_left.map(|left| left.saturating_sub(1));
            }
            Update::Invalidated { .. } => self.start = Start::StartAfter,
            Update::Idle(_) | Update::Resuming(_) | Update::Resumed { .. } | _ => {}
        }
        self.printer.print(update)
    }

    fn is_done(&self) -> bool {
        self.events_left == Some(0)
    }

    /// Makes what was printed be seen; how far that was is remembered if that was not just done. Saving waits for the disk,
    /// and a reply that is still arriving is had in many pieces.
    fn commit_now_and_then(&mut self, stream: &ChangeStream) -> Result<(), Unprinted> {
        if self.committed.is_some_and(|then| then.elapsed() < BETWEEN_SAVES) {
            return self.flush();
        }
        self.commit(stream)
    }

    fn flush(&mut self) -> Result<(), Unprinted> {
        if let Some(stats) = &self.stats {
            stats.clear();
        }
        self.printer.flush()
    }

    /// Makes what was printed be seen, and then remembers how far that was.
    fn commit(&mut self, stream: &ChangeStream) -> Result<(), Unprinted> {
        self.flush()?;
        // As long as the server has not accepted where to start, that is no position.
        let token = stream.resume_token().filter(|_| stream.is_open());
        let (Some(checkpoint), Some(token)) = (&mut self.checkpoint, token) else {
            return Ok(());
        };
        self.committed = Some(Instant::now());
        let token = token.clone();
        // The stream may know the end before it is told here.
        let start = match token.explain() {
            Ok(info) if info.from_invalidate => Start::StartAfter,
            Ok(_) | Err(_) => self.start,
        };
        checkpoint
            .save(Position { token, start })
            .map_err(Unprinted::Failed)
    }
}
