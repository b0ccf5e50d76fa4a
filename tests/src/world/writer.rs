//! Whoever writes to the deployment: the streams' counterpart.

use bson::{Document, RawDocumentBuf};
use changestream_core::wire::{self, FrameReader, Message};
use changestream_sim as sim;

use super::World;

impl World {
    /// Runs a command at the primary, as an ordinary client would, and returns the reply, whatever it says.
    ///
    /// Time stands still for the streams meanwhile, unless the command waits.
    pub fn command(&mut self, db: &str, command: Document) -> Document {
        self.try_command(db, command)
            .expect("the deployment keeps the writer's connection")
    }

    /// As [`command`](Self::command); none if the connection ends before the reply comes.
    pub fn try_command(&mut self, db: &str, mut command: Document) -> Option<Document> {
        self.settle();
        let primary = loop {
            match self.deployment.primary() {
                Some(member) => break member,
                None => self.step(),
            }
        };
        if self.writer.as_ref().is_none_or(|writer| writer.member != primary) {
            let connection = self.deployment.new_connection();
            self.deployment.handle_input(
                self.now,
                sim::Input::Accepted {
                    member: primary,
                    connection,
                },
            );
            if self.deployment.is_guarded() {
                self.deployment.log_in(connection, "writer");
            }
            self.writers.insert(connection);
            self.writer = Some(Writer {
                member: primary,
                connection,
                reader: FrameReader::new(),
                next_request: 1,
            });
        }
        command.insert("$db", db);
        let body = RawDocumentBuf::try_from(&command).expect("the test's command is BSON");
        let writer = self.writer.as_mut()?;
        writer.next_request += 1;
        let bytes = wire::encode_op_msg(writer.next_request, 0, wire::Flags::NONE, &body, &[]);
        let connection = writer.connection;
        self.deployment.handle_input(
            self.now,
            sim::Input::Received {
                connection,
                bytes: &bytes,
            },
        );
        loop {
            self.settle();
            let writer = self.writer.as_mut()?;
            if let Some(frame) = writer
                .reader
                .next_frame()
                .expect("the deployment speaks the protocol")
            {
                let Ok(Message::Msg(reply)) = Message::decode(&frame) else {
                    panic!("the deployment answers OP_MSG with OP_MSG")
                };
                let reply = RawDocumentBuf::from_bytes(reply.body.to_vec()).expect("a document");
                return Some(reply.try_into().expect("a document"));
            }
            self.step();
        }
    }

    /// As [`command`](Self::command); the reply has to say ok.
    #[track_caller]
    pub fn run(&mut self, db: &str, command: Document) -> Document {
        let shown = command.to_string();
        let reply = self.command(db, command);
        assert_eq!(
            reply.get("ok"),
            Some(&bson::Bson::Double(1.0)),
            "{shown}: {reply}"
        );
        reply
    }

    /// Inserts documents.
    #[track_caller]
    pub fn insert(&mut self, db: &str, collection: &str, documents: impl IntoIterator<Item = Document>) {
        let documents: Vec<_> = documents.into_iter().collect();
        self.run(db, bson::doc! { "insert": collection, "documents": documents });
    }
}

/// A connection straight into the deployment, for tests that write.
#[derive(Debug)]
pub(super) struct Writer {
    member: usize,
    pub(super) connection: sim::ConnectionId,
    reader: FrameReader,
    next_request: i32,
}

impl Writer {
    /// Takes what the deployment says to the writer.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let buffer = self.reader.buffer();
            let len = buffer.len().min(bytes.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            self.reader.filled(len);
            bytes = &bytes[len..];
        }
    }
}
