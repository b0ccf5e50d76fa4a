//! Which server has the cursors that commands have opened.

use std::collections::VecDeque;

use bson::RawDocument;

use super::RunCommand;
use crate::ServerAddress;
use crate::stream::CommandReply;

/// The cursors that were opened last, with their servers: a cursor is known to no other one.
#[derive(Debug, Default)]
pub(super) struct Cursors(VecDeque<(i64, ServerAddress)>);

impl Cursors {
    /// Takes in what the reply to a command says.
    pub(super) fn learn(&mut self, command: &RunCommand, reply: &CommandReply, server: &ServerAddress) {
        let asked = asked_for(command);
        let Some(id) = cursor_in(reply) else { return };
        if id == 0 {
            self.0.retain(|(known, _)| Some(*known) != asked);
        } else if asked != Some(id) {
            self.0.retain(|(known, _)| *known != id);
            if self.0.len() == MOST {
                self.0.pop_front();
            }
            self.0.push_back((id, server.clone()));
        }
    }

    /// The server of the cursor that a command is about; none if it is about none, or that is not known.
    pub(super) fn server_for(&self, command: &RunCommand) -> Option<&ServerAddress> {
        let asked = asked_for(command)?;
        let found = self.0.iter().find(|(id, _)| *id == asked);
        found.map(|(_, server)| server)
    }
}

/// The cursor that a getMore or a killCursors is about.
fn asked_for(command: &RunCommand) -> Option<i64> {
    let body = command.as_raw();
    match command.name() {
        "getMore" => body.get("getMore").ok()??.as_i64(),
        "killCursors" => {
            let ids = body.get("cursors").ok()??.as_array()?;
            ids.into_iter().next()?.ok()?.as_i64()
        }
        _ => None,
    }
}

/// The id of the cursor in a reply; zero if it says that there is none any more.
fn cursor_in(reply: &CommandReply) -> Option<i64> {
    let body = RawDocument::from_bytes(&reply.body).ok()?;
    let cursor = body.get("cursor").ok()??.as_document()?;
    cursor.get("id").ok()??.as_i64()
}

/// How many are remembered. One that is forgotten is looked for as any server is.
const MOST: usize = 32;
