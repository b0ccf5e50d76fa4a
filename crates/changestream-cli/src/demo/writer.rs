//! The other side of the demonstration: an application that writes, and that survives an election as well.

use std::io;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};

use super::connection::Connection;

/// Writes to whichever member is primary.
pub(super) struct Writer {
    members: Vec<String>,
    primary: Option<Connection>,
}

impl Writer {
    pub(super) fn new(members: Vec<String>) -> Self {
        Self {
            members,
            primary: None,
        }
    }

    /// Inserts the document of that number, once, and returns when a majority has it. An election in between is waited
    /// for.
    pub(super) fn insert(&mut self, number: u32) -> Result<(), String> {
        let command = doc! {
            "insert": super::COLLECTION,
            "documents": [{ "_id": i64::from(number), "note": format!("document {number}") }],
            "writeConcern": { "w": "majority" },
            "$db": super::DATABASE,
        };
        self.until_done(&command, |reply| {
            let duplicate = first_write_error(reply).is_some_and(|code| code == DUPLICATE_KEY);
            // An earlier try got through, though its reply did not.
            duplicate
                || (is_ok(reply)
                    && !reply.contains_key("writeErrors")
                    && !reply.contains_key("writeConcernError"))
        })
    }

    /// Sends the command to one primary after another until one does what was asked.
    fn until_done(&mut self, command: &Document, is_done: impl Fn(&Document) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.primary(deadline)?.run(command);
            let why = match reply {
                Ok(reply) if is_done(&reply) => return Ok(()),
                Ok(reply) => reply.to_string(),
                Err(error) => error.to_string(),
            };
            self.primary = None;
            if Instant::now() >= deadline {
                return Err(format!("no primary took the write: {why}"));
            }
        }
    }

    /// The primary, as soon as there is one.
    fn primary(&mut self, deadline: Instant) -> Result<&mut Connection, String> {
        while self.primary.is_none() {
            self.primary = self
                .members
                .iter()
                .find_map(|address| primary_at(address).ok().flatten());
            if self.primary.is_none() {
                if Instant::now() >= deadline {
                    return Err("no member became primary".to_owned());
                }
                std::thread::sleep(BETWEEN_LOOKS);
            }
        }
        Ok(self.primary.as_mut().expect("the loop ends with one"))
    }
}

/// A connection to that member, if it is primary.
fn primary_at(address: &str) -> io::Result<Option<Connection>> {
    let mut connection = Connection::open(address)?;
    // The command's old name, which every version knows.
    let hello = connection.run(&doc! { "isMaster": 1, "$db": "admin" })?;
    Ok((hello.get_bool("ismaster").unwrap_or(false)).then_some(connection))
}

fn is_ok(reply: &Document) -> bool {
    match reply.get("ok") {
        Some(Bson::Double(ok)) => *ok == 1.0,
        Some(ok) => ok.as_i64() == Some(1) || ok.as_i32() == Some(1),
        None => false,
    }
}

fn first_write_error(reply: &Document) -> Option<i32> {
    reply
        .get_array("writeErrors")
        .ok()?
        .first()?
        .as_document()?
        .get_i32("code")
        .ok()
}

const DUPLICATE_KEY: i32 = 11000;
const PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
