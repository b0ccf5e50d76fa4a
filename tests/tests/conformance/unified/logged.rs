//! Log messages, as clients log them by `tracing`: caught on the thread that they are logged on.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::OnceLock;

use bson::{Bson, Document};
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, span};

use super::entities::EntityMap;
use super::fault::{Fault, failed};
use super::matcher::{self, to_bson};
use super::schema::{ExpectedMessage, ExpectedMessages};

/// A log message.
#[derive(Clone, Debug)]
pub(super) struct LogMessage {
    /// The machine that logged it.
    pub(super) source: u64,
    /// As the specifications call it.
    pub(super) component: &'static str,
    level: &'static str,
    data: Document,
}

impl LogMessage {
    fn text(&self) -> &str {
        self.data.get_str("message").unwrap_or_default()
    }
}

/// What a test wants to see of a client's messages: the least severe level of each component.
pub(super) type ObservedComponents = std::collections::BTreeMap<String, String>;

/// Catches what is logged on this thread, as long as it is there.
pub(super) struct Listening;

impl Drop for Listening {
    fn drop(&mut self) {
        CAUGHT.with_borrow_mut(|caught| *caught = None);
    }
}

/// Catches what is logged on this thread from now on.
pub(super) fn listen() -> Listening {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        tracing::subscriber::set_global_default(Catcher).expect("nothing else in the program listens");
    });
    CAUGHT.with_borrow_mut(|caught| *caught = Some(Vec::new()));
    Listening
}

/// Takes what was logged on this thread since the last call, if it [listens](listen).
pub(super) fn take() -> Vec<LogMessage> {
    CAUGHT.with_borrow_mut(|caught| caught.as_mut().map(std::mem::take).unwrap_or_default())
}

/// Whether this thread listens.
pub(super) fn is_listening() -> bool {
    CAUGHT.with_borrow(Option::is_some)
}

/// Holds a client's messages to those that a test expects.
pub(super) fn compare(
    expected: &ExpectedMessages,
    observed: &ObservedComponents,
    logged: &[LogMessage],
    entities: &EntityMap,
) -> Result<(), Fault> {
    let is_observed = |message: &&LogMessage| {
        let least = observed.get(message.component);
        least.is_some_and(|least| severity(message.level) <= severity(least))
    };
    let is_ignored = |message: &LogMessage| {
        let mut ignored = expected.ignore_messages.iter();
        ignored.any(|ignored| matches(ignored, message, entities).is_ok())
    };
    let logged: Vec<_> = logged
        .iter()
        .filter(is_observed)
        .filter(|message| !is_ignored(message))
        .collect();
    let shown = || logged.iter().map(|message| message.text()).collect::<Vec<_>>();
    for (number, wanted) in expected.messages.iter().enumerate() {
        let place = format!("message {number} of {}", expected.client);
        let Some(found) = logged.get(number) else {
            return Err(failed(format!("{place}: there is none; before it {:?}", shown())));
        };
        matches(wanted, found, entities)
            .map_err(|fault| fault.at(&format!("{place}, among {:?}", shown())))?;
    }
    match logged.get(expected.messages.len()) {
        Some(extra) if !expected.ignore_extra_messages => Err(failed(format!(
            "{} has logged what is not expected: {extra:?}; before it {:?}",
            expected.client,
            shown()
        ))),
        Some(_) | None => Ok(()),
    }
}

fn matches(wanted: &ExpectedMessage, found: &LogMessage, entities: &EntityMap) -> Result<(), Fault> {
    let pairs = [(&wanted.level, found.level), (&wanted.component, found.component)];
    if let Some((wanted, is)) = pairs.into_iter().find(|(wanted, is)| *wanted != is) {
        return Err(failed(format!("expected {wanted}, not {is}: {found:?}")));
    }
    let data = to_bson(&wanted.data).map_err(failed)?;
    let is = Bson::Document(found.data.clone());
    matcher::matches_root(&data, Some(&is), entities)
        .map_err(|reason| failed(format!("data{reason}: {found:?}")))?;
    // What a server said is left out of the failures that may hold secrets, and that it is is said.
    let is_redacted = found
        .data
        .get_str("failure")
        .is_ok_and(|failure| failure.contains("without a message"));
    match wanted.failure_is_redacted {
        Some(wanted) if wanted != is_redacted => {
            Err(failed(format!("expected failureIsRedacted {wanted}: {found:?}")))
        }
        Some(_) | None => Ok(()),
    }
}

fn severity(level: &str) -> usize {
    LEVELS
        .iter()
        .position(|known| *known == level)
        .unwrap_or(LEVELS.len())
}

/// Whether there is a level of that name.
pub(super) fn is_level(level: &str) -> bool {
    LEVELS.contains(&level)
}

/// The levels of the Logging specification, of which `tracing` has some.
const LEVELS: [&str; 9] = [
    "emergency",
    "alert",
    "critical",
    "error",
    "warning",
    "notice",
    "info",
    "debug",
    "trace",
];

fn component(target: &str) -> Option<&'static str> {
    Some(match target {
        "changestream::command" => "command",
        "changestream::connection" => "connection",
        "changestream::server_selection" => "serverSelection",
        "changestream::topology" => "topology",
        _ => return None,
    })
}

/// Longer than any document that a test looks at.
pub(super) const LONGEST: usize = 10_000;

thread_local! {
    static CAUGHT: RefCell<Option<Vec<LogMessage>>> = const { RefCell::new(None) };
}

/// Hears everything, and keeps what a thread wants of its own.
struct Catcher;

impl tracing::Subscriber for Catcher {
    /// Each thread says for itself.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_listening() && component(metadata.target()).is_some()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let metadata = event.metadata();
        let Some(component) = component(metadata.target()) else {
            return;
        };
        let mut data = Fields::default();
        event.record(&mut data);
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let message = LogMessage {
            source: data.0.get_i64("topologyId").unwrap_or_default().unsigned_abs(),
            component,
            level,
            data: data.0,
        };
        CAUGHT.with_borrow_mut(|caught| {
            if let Some(caught) = caught {
                caught.push(message);
            }
        });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields(Document);

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Bson>) {
        self.0.insert(field.name(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.insert(field, format!("{value:?}"));
    }
}
