//! A stream and a server played by hand, for cases that are about one command or one reply.

use std::time::{Duration, Instant};

use bson::{Document, RawDocumentBuf};
use bytes::Bytes;
use changestream_core::client::Demand;
use changestream_core::random::Random;
use changestream_core::stream::{
    CommandReply, Patience, Retries, Role, Server, StreamInput, StreamMachine, StreamOutput,
};
use changestream_core::wire::{self, Flags, FrameReader, Message};
use changestream_core::{ChangeEvent, Error, Scope, Update, WatchOptions};

/// A stream that has sent its aggregate.
pub(crate) struct ByHand {
    stream: StreamMachine,
    now: Instant,
    /// The aggregate.
    pub(crate) aggregate: Document,
}

impl ByHand {
    pub(crate) fn new(options: &WatchOptions) -> Result<Self, Error> {
        let now = Instant::now();
        let scope = Scope::Collection {
            database: "shop".to_owned(),
            collection: "orders".to_owned(),
        };
        let mut stream = StreamMachine::new(&scope, options, RETRIES, PATIENCE, Random::new([7; 32]), now)?;
        assert!(matches!(
            stream.poll_output(now),
            Some(StreamOutput::SelectServer { .. })
        ));
        let server = Server {
            address: "a:1".parse().unwrap(),
            max_wire_version: 9,
            supports_sessions: true,
            role: Role::Member,
            min_round_trip: Duration::ZERO,
        };
        stream.handle_input(now, StreamInput::Ready(server));
        let Some(StreamOutput::Send(command)) = stream.poll_output(now) else {
            panic!("the stream sends no aggregate")
        };
        let aggregate = command.body.try_into().unwrap();
        Ok(Self {
            stream,
            now,
            aggregate,
        })
    }

    /// The event that comes of these bytes as a reply, from the frame on.
    pub(crate) fn event(&mut self, body: &[u8]) -> Result<ChangeEvent, Error> {
        let protocol = |error: &dyn std::fmt::Display| Error::protocol(error.to_string());
        let body = RawDocumentBuf::from_bytes(body.to_vec()).map_err(|error| protocol(&error))?;
        let frame = wire::encode_op_msg(1, 1, Flags::NONE, &body, &[]);
        let frame = reframed(&frame);
        let Message::Msg(message) = Message::decode(&frame).map_err(|error| protocol(&error))? else {
            panic!("an OP_MSG is none")
        };
        let reply = CommandReply::parse(message.body)?;
        self.stream.handle_input(self.now, StreamInput::Reply(reply));
        self.stream
            .handle_input(self.now, StreamInput::Demand(Demand::Next));
        loop {
            match self.stream.poll_output(self.now) {
                Some(StreamOutput::Update(Update::Change(event))) => return Ok(event),
                Some(StreamOutput::End(Err(error), _)) => return Err(error),
                // The batch is read while the next one is under way.
                Some(StreamOutput::Send(_)) => {}
                other => panic!("neither an event nor an error: {other:?}"),
            }
        }
    }
}

/// The frame as it is read from a socket.
fn reframed(mut frame: &[u8]) -> Bytes {
    let mut reader = FrameReader::new();
    while !frame.is_empty() {
        let buffer = reader.buffer();
        let len = buffer.len().min(frame.len());
        buffer[..len].copy_from_slice(&frame[..len]);
        reader.filled(len);
        frame = &frame[len..];
    }
    reader.next_frame().unwrap().expect("the frame is complete")
}

const RETRIES: Retries = Retries {
    reads: true,
    overloads: 2,
    retargets: false,
};

const PATIENCE: Patience = Patience {
    open: Duration::from_secs(30),
    scan: Duration::from_secs(30),
    get_more: Duration::from_secs(10),
};
