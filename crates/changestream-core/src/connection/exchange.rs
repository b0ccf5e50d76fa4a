//! Requests that wait for their replies.

use std::time::{Duration, Instant};

use bytes::Bytes;

/// A request that is on its way, or whose further replies are.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The number of the request.
    pub(super) request_id: i32,
    /// Of what kind.
    pub(super) purpose: Purpose,
    /// When the request was sent, or the reply before the one that is awaited came.
    pub(super) since: Instant,
    /// The `responseTo` of the reply that is awaited.
    answers: i32,
    /// How long the connection may be silent; judged by `silent_until`.
    pub(super) timeout: Option<Duration>,
    silent_until: Option<Instant>,
    /// The message, uncompressed, where it would be sent again once the connection has authenticated anew; and whether
    /// it may be compressed.
    pub(super) repeat: Option<(Bytes, bool)>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The first hello.
    Handshake,
    /// A later hello.
    Check,
    /// A step of authentication.
    Authentication,
    /// The user's.
    Command {
        /// Whether its replies may announce further ones.
        exhaust_allowed: bool,
        /// Whether anyone still wants them.
        wanted: bool,
        /// Whether events may be handed over while the rest of a reply is on its way.
        in_parts: bool,
    },
}

impl Exchange {
    fn comes_in_parts(&self) -> bool {
        matches!(
            self.purpose,
            Purpose::Command {
                in_parts: true,
                wanted: true,
                ..
            }
        )
    }
}

/// All of a connection's, oldest first. There are few: requests are not pipelined deeply.
#[derive(Debug, Default)]
pub(super) struct Exchanges(Vec<Exchange>);

impl Exchanges {
    pub(super) fn open(
        &mut self,
        now: Instant,
        request_id: i32,
        purpose: Purpose,
        timeout: Option<Duration>,
    ) {
        // In the steady state there is one.
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        self.0.push(Exchange {
            request_id,
            purpose,
            since: now,
            answers: request_id,
            timeout,
            silent_until: after(now, timeout),
            repeat: None,
        });
    }

    /// Whether any reply may come in parts.
    pub(super) fn expects_parts(&self) -> bool {
        self.0.iter().any(Exchange::comes_in_parts)
    }

    /// The request that a reply with this `responseTo` belongs to, if it may come in parts.
    pub(super) fn in_parts(&self, response_to: i32) -> Option<i32> {
        let mut answered = self.0.iter().filter(|e| e.answers == response_to);
        let exchange = answered.next().filter(|e| e.comes_in_parts())?;
        Some(exchange.request_id)
    }

    /// Keeps a request's message, to be sent again.
    pub(super) fn keep(&mut self, request_id: i32, message: &Bytes, may_be_compressed: bool) {
        for exchange in self.0.iter_mut().filter(|e| e.request_id == request_id) {
            exchange.repeat = Some((message.clone(), may_be_compressed));
        }
    }

    /// Takes out the one that a reply with this `responseTo` belongs to. A further reply of an exhaust answers the
    /// reply before it; one that answers the request again is accepted as well.
    pub(super) fn take(&mut self, response_to: i32) -> Option<Exchange> {
        let by_reply = self.0.iter().position(|e| e.answers == response_to);
        let index = by_reply.or_else(|| self.0.iter().position(|e| e.request_id == response_to))?;
        Some(self.0.remove(index))
    }

    /// Puts one back whose next reply will answer the reply numbered `reply_id`.
    pub(super) fn reopen(&mut self, now: Instant, exchange: Exchange, reply_id: i32) {
        self.0.push(Exchange {
            since: now,
            answers: reply_id,
            silent_until: after(now, exchange.timeout),
            ..exchange
        });
    }

    /// Something arrived: the peer lives, and replies come one after the other.
    pub(super) fn heard(&mut self, now: Instant) {
        for exchange in &mut self.0 {
            exchange.silent_until = after(now, exchange.timeout);
        }
    }

    /// Gives a command's reply this long from now.
    pub(super) fn set_timeout(&mut self, now: Instant, request_id: i32, timeout: Option<Duration>) {
        for exchange in self.0.iter_mut().filter(|e| e.request_id == request_id) {
            exchange.timeout = timeout;
            exchange.silent_until = after(now, timeout);
        }
    }

    /// Gives every later hello that much more time, and counts it for no hello's round trip: nobody has looked.
    pub(super) fn postpone_checks(&mut self, by: Duration) {
        let of_hello = |e: &&mut Exchange| matches!(e.purpose, Purpose::Handshake | Purpose::Check);
        for exchange in self.0.iter_mut().filter(of_hello) {
            exchange.since = exchange.since.checked_add(by).unwrap_or(exchange.since);
            exchange.silent_until = exchange.silent_until.and_then(|at| at.checked_add(by));
        }
    }

    /// Lets a command's replies come without anyone waiting for them.
    pub(super) fn forget(&mut self, request_id: i32) {
        for exchange in self.0.iter_mut().filter(|e| e.request_id == request_id) {
            if let Purpose::Command { wanted, .. } = &mut exchange.purpose {
                *wanted = false;
                exchange.timeout = None;
                exchange.silent_until = None;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the connection has been silent for too long, and how long that was for the request.
    pub(super) fn deadline(&self) -> Option<(Instant, Duration)> {
        self.0
            .iter()
            .filter_map(|e| Some((e.silent_until?, e.timeout?)))
            .min()
    }
}

/// That long after now; never, where that is beyond time itself.
pub(super) fn after(now: Instant, timeout: Option<Duration>) -> Option<Instant> {
    now.checked_add(timeout?)
}
