//! One look-up: server after server, until one knows.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::vec;

use changestream_core::dns::{Answer, DnsFault, Question, SrvRecord};

use super::datagram::Datagram;
use super::message::{self, MAX_ALIASES, Reply};
use super::servers::{DnsServers, Settings};
use super::tcp::Exchange;
use crate::Runtime;

/// A look-up. A server that fails is no reason to give up, one that says there is nothing is.
pub(super) struct Lookup<R: Runtime> {
    plan: Result<Plan, DnsFault>,
    question: Question,
    aliases: usize,
    /// The shortest time that an alias on the way holds.
    alias_limit: Duration,
    attempt: Option<Attempt<R>>,
    /// What the last server did wrong.
    fault: DnsFault,
}

struct Plan {
    servers: vec::IntoIter<SocketAddr>,
    timeout: Duration,
    tcp_only: bool,
}

/// One server is being asked.
struct Attempt<R: Runtime> {
    server: SocketAddr,
    id: u16,
    edns: bool,
    deadline: Instant,
    wire: Wire<R>,
    alarm: Option<(Instant, R::Timer)>,
}

enum Wire<R: Runtime> {
    Udp(Datagram),
    Tcp(Exchange<R>),
}

impl<R: Runtime> Lookup<R> {
    pub(super) fn new(servers: &DnsServers, question: &Question) -> Self {
        Self {
            plan: servers.settings().map(Plan::new),
            question: question.clone(),
            aliases: 0,
            alias_limit: Duration::MAX,
            attempt: None,
            fault: DnsFault::TimedOut,
        }
    }

    /// What is looked up: the name asked for, or what that is an alias of.
    pub(super) fn question(&self) -> &Question {
        &self.question
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.attempt.as_ref().map(Attempt::wake_at)
    }

    pub(super) fn poll(&mut self, runtime: &R, cx: &mut Context<'_>) -> Poll<Result<Answer, DnsFault>> {
        loop {
            let Some(attempt) = &mut self.attempt else {
                if let Err(fault) = self.ask_next(runtime) {
                    return Poll::Ready(Err(fault));
                }
                continue;
            };
            match attempt.poll(runtime, cx, &self.question) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(reply) => {
                    if let Some(result) = self.take(runtime, reply) {
                        return Poll::Ready(result);
                    }
                }
            }
        }
    }

    /// Turns to the next server; fails when there is none.
    fn ask_next(&mut self, runtime: &R) -> Result<(), DnsFault> {
        let plan = self.plan.as_mut().map_err(|fault| fault.clone())?;
        let server = plan.servers.next().ok_or_else(|| self.fault.clone())?;
        let (timeout, tcp) = (plan.timeout, plan.tcp_only);
        self.ask(runtime, server, timeout, tcp, true);
        Ok(())
    }

    fn ask(&mut self, runtime: &R, server: SocketAddr, timeout: Duration, tcp: bool, edns: bool) {
        match Attempt::start(runtime, server, &self.question, timeout, tcp, edns) {
            Ok(attempt) => self.attempt = Some(attempt),
            Err(fault) => {
                self.attempt = None;
                self.fault = fault;
            }
        }
    }

    /// What a server has said; the result if that settles it.
    fn take(&mut self, runtime: &R, reply: io::Result<Reply>) -> Option<Result<Answer, DnsFault>> {
        let attempt = self.attempt.take()?;
        let timeout = self.plan.as_ref().map_or(Duration::ZERO, |plan| plan.timeout);
        let over_tcp = matches!(attempt.wire, Wire::Tcp(_));
        match reply {
            Ok(Reply::Records(answer)) => return Some(Ok(self.limited(answer))),
            Ok(Reply::Fault(fault @ (DnsFault::NoSuchName | DnsFault::NoRecords))) => {
                return Some(Err(fault));
            }
            Ok(Reply::Fault(fault)) => self.fault = fault,
            Ok(Reply::Truncated) if !over_tcp => {
                self.ask(runtime, attempt.server, timeout, true, attempt.edns);
            }
            Ok(Reply::Truncated) => self.fault = DnsFault::malformed("it is cut off, over TCP"),
            Ok(Reply::NotUnderstood) if attempt.edns => {
                self.ask(runtime, attempt.server, timeout, over_tcp, false);
            }
            Ok(Reply::NotUnderstood) => self.fault = DnsFault::refused("FORMERR or NOTIMP"),
            Ok(Reply::Alias { name, time_to_live }) => {
                self.aliases += 1;
                if self.aliases > MAX_ALIASES {
                    return Some(Err(DnsFault::malformed("a chain of aliases has no end")));
                }
                if name.eq_ignore_ascii_case(&self.question.name) {
                    return Some(Err(DnsFault::malformed("a name is an alias of itself")));
                }
                self.alias_limit = self.alias_limit.min(time_to_live);
                self.question = Question::new(self.question.record, name);
                self.ask(runtime, attempt.server, timeout, false, attempt.edns);
            }
            Ok(Reply::Foreign) => self.fault = DnsFault::malformed("it answers another question"),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => self.fault = DnsFault::TimedOut,
            Err(error) => self.fault = DnsFault::network(format!("{}: {error}", attempt.server)),
        }
        None
    }

    /// The records hold no longer than the aliases that led to them.
    fn limited(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Srv(records) => Answer::Srv(
                records
                    .into_iter()
                    .map(|record| SrvRecord {
                        time_to_live: record.time_to_live.min(self.alias_limit),
                        ..record
                    })
                    .collect(),
            ),
            Answer::Txt(records) => Answer::Txt(records),
        }
    }
}

impl Plan {
    fn new(settings: Settings) -> Self {
        let rounds = usize::try_from(settings.attempts).unwrap_or(1);
        let len = settings.servers.len().saturating_mul(rounds);
        let servers: Vec<_> = settings.servers.into_iter().cycle().take(len).collect();
        Self {
            servers: servers.into_iter(),
            timeout: settings.timeout,
            tcp_only: settings.tcp_only,
        }
    }
}

impl<R: Runtime> Attempt<R> {
    fn start(
        runtime: &R,
        server: SocketAddr,
        question: &Question,
        timeout: Duration,
        tcp: bool,
        edns: bool,
    ) -> Result<Self, DnsFault> {
        let mut id = [0; 2];
        getrandom::fill(&mut id)
            .map_err(|error| DnsFault::network(format!("the system gives no randomness: {error}")))?;
        let id = u16::from_be_bytes(id);
        let bytes = message::encode(id, question, edns)?;
        let now = runtime.now();
        let wire = if tcp {
            let exchange = Exchange::new(runtime, server, &bytes);
            Wire::Tcp(exchange.ok_or_else(|| DnsFault::malformed("the question is too long"))?)
        } else {
            let datagram = Datagram::send(server, &bytes, now);
            Wire::Udp(datagram.map_err(|error| DnsFault::network(format!("{server}: {error}")))?)
        };
        Ok(Self {
            server,
            id,
            edns,
            deadline: now + timeout,
            wire,
            alarm: None,
        })
    }

    fn wake_at(&self) -> Instant {
        match &self.wire {
            Wire::Udp(datagram) => datagram.look_at().min(self.deadline),
            Wire::Tcp(_) => self.deadline,
        }
    }

    /// What the server says. A datagram that is not meant is passed over: anyone can send one.
    fn poll(&mut self, runtime: &R, cx: &mut Context<'_>, question: &Question) -> Poll<io::Result<Reply>> {
        loop {
            let now = runtime.now();
            match &mut self.wire {
                Wire::Udp(datagram) => {
                    for _ in 0..MAX_FOREIGN {
                        let Some(bytes) = datagram.receive(now)? else {
                            break;
                        };
                        let reply = message::decode(&bytes, self.id, question);
                        if reply != Reply::Foreign {
                            return Poll::Ready(Ok(reply));
                        }
                        tracing::debug!(server = %self.server, "a datagram that answers nothing");
                    }
                }
                Wire::Tcp(exchange) => {
                    if let Poll::Ready(bytes) = exchange.poll(cx) {
                        return Poll::Ready(bytes.map(|bytes| message::decode(&bytes, self.id, question)));
                    }
                }
            }
            if self.deadline <= now {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if self.poll_alarm(runtime, cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Ready when it is time to look again. The clock decides: a timer may fire late, or never, as where the wait for the
    /// sockets ends at the deadline by itself.
    fn poll_alarm(&mut self, runtime: &R, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.wake_at();
        let (set, timer) = self.alarm.get_or_insert_with(|| (at, runtime.sleep_until(at)));
        if *set != at {
            *set = at;
            runtime.reset(timer, at);
        }
        if Pin::new(timer).poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.alarm = None;
        Poll::Ready(())
    }
}

/// How many datagrams that are not meant are read at once.
const MAX_FOREIGN: usize = 64;
