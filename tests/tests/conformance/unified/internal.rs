//! The internal client of the test format: it fills collections, sets fail points, and looks at what is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, RawDocumentBuf};
use bytes::Bytes;
use changestream_core::ServerAddress;
use changestream_core::auth::Credential;
use changestream_core::client::Disconnected;
use changestream_core::connection::{
    ClientMetadata, Connection, ConnectionOutput, ConnectionSettings, PART_SIZE, Request,
};
use changestream_core::random::Random;

use super::environment::{Environment, PASSWORD, Topology, USER};

/// One connection of the internal client.
pub(super) struct InternalConnection(Connection);

/// What its bytes travel on.
pub(super) trait Wire {
    fn now(&self) -> Instant;
    fn send(&mut self, bytes: Bytes);
    /// The next bytes that come, however long it takes; none at the end.
    fn receive(&mut self) -> Option<Bytes>;
}

impl InternalConnection {
    /// A connection to a server of that deployment.
    pub(super) fn new(server: ServerAddress, environment: &Environment, now: Instant) -> Self {
        let user = environment.users.are_there().then_some((USER, PASSWORD));
        let settings = ConnectionSettings {
            app_name: Some("internal client".to_owned()),
            credential: user.map(|(name, password)| Credential::new(name, password, "admin", None)),
            load_balanced: environment.topology == Topology::LoadBalanced,
            tls: false,
            connect_timeout: Duration::ZERO,
            metadata: ClientMetadata::new().into(),
            compressors: Vec::new(),
            zlib_level: None,
            part_size: PART_SIZE,
            server_api: None,
        };
        let mut connection = Connection::new(Arc::new(settings), server, false, Random::new([9; 32]), now);
        connection.handle_connected(now);
        Self(connection)
    }

    /// Runs a command.
    pub(super) fn run(
        &mut self,
        wire: &mut dyn Wire,
        database: &str,
        mut command: Document,
    ) -> Result<Document, String> {
        command.insert("$db", database);
        let request = Request {
            body: RawDocumentBuf::try_from(&command).map_err(|error| error.to_string())?,
            exhaust_allowed: false,
            in_parts: false,
            reply_timeout: None,
        };
        let id = self.0.send(wire.now(), request);
        loop {
            while let Some(output) = self.0.poll_output() {
                match output {
                    ConnectionOutput::Transmit(bytes) => wire.send(bytes),
                    ConnectionOutput::Hello { .. } => self.0.authenticate(wire.now()),
                    ConnectionOutput::Ready => {}
                    ConnectionOutput::Reply(reply) if reply.request_id == id => {
                        let raw = RawDocumentBuf::from_bytes(reply.body.to_vec());
                        let raw = raw.map_err(|error| error.to_string())?;
                        return raw
                            .try_into()
                            .map_err(|error: bson::error::Error| error.to_string());
                    }
                    // Another answer follows a refusal.
                    ConnectionOutput::Reply(_)
                    | ConnectionOutput::Refused(_)
                    | ConnectionOutput::Events { .. } => {}
                    ConnectionOutput::Failed(error) => {
                        return Err(error.to_string());
                    }
                    ConnectionOutput::Credentials(_) => return Err("a password needs nobody else".to_owned()),
                }
            }
            match wire.receive() {
                Some(bytes) => self.receive(wire.now(), &bytes),
                None => self.0.handle_disconnected(
                    wire.now(),
                    Disconnected {
                        message: "the connection is closed".to_owned(),
                        timed_out: false,
                    },
                ),
            }
        }
    }

    fn receive(&mut self, now: Instant, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let buffer = self.0.read_buffer();
            let len = buffer.len().min(bytes.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            self.0.handle_received(now, len);
            bytes = &bytes[len..];
        }
    }
}
