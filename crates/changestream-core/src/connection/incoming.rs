//! A message from the server, as far as it is a reply.

use bytes::Bytes;

use super::exchange::{Exchange, Purpose};
use crate::wire::{Flags, Message};

/// A reply, whichever operation brought it.
pub(super) struct Incoming {
    pub(super) request_id: i32,
    pub(super) response_to: i32,
    pub(super) body: Bytes,
    pub(super) more_to_come: bool,
    pub(super) is_legacy: bool,
}

impl Incoming {
    pub(super) fn from_message(message: Message) -> Result<Self, String> {
        match message {
            Message::Msg(m) if m.sequences.is_empty() => Ok(Self {
                request_id: m.request_id,
                response_to: m.response_to,
                body: m.body,
                more_to_come: m.flags.contains(Flags::MORE_TO_COME),
                is_legacy: false,
            }),
            Message::Msg(_) => Err("a reply with document sequences".to_owned()),
            Message::Reply(m) => Ok(Self {
                request_id: m.request_id,
                response_to: m.response_to,
                body: m.document,
                more_to_come: false,
                is_legacy: true,
            }),
            Message::Query(_) => Err("the server sent a request".to_owned()),
        }
    }

    /// What is wrong with this as a reply in that exchange.
    pub(super) fn contradicts(&self, exchange: &Exchange) -> Option<&'static str> {
        let (legacy_allowed, exhaust_allowed) = match exchange.purpose {
            Purpose::Handshake | Purpose::Check => (true, false),
            Purpose::Authentication => (false, false),
            Purpose::Command { exhaust_allowed, .. } => (false, exhaust_allowed),
        };
        if self.is_legacy && !legacy_allowed {
            return Some("an OP_REPLY to an OP_MSG");
        }
        if self.more_to_come && !exhaust_allowed {
            return Some("moreToCome in the reply to a request without exhaustAllowed");
        }
        None
    }
}
