//! Clients with settings of their own: streams that are watched, and commands.

use std::sync::Arc;
use std::time::Duration;

use changestream_core::client::{ClientMachine, ClientSettings, Demand, Input, Snapshot};
use changestream_core::command::RunCommand;
use changestream_core::monitoring::Event;
use changestream_core::stream::CommandReply;
use changestream_core::{ChangeEvent, Error, Scope, Update, WatchOptions};

use super::{StreamId, World};

impl World {
    /// A stream of that client: what streams of one client share, they share.
    ///
    /// # Errors
    /// As [`ClientMachine::new`].
    pub fn watch_with(
        &mut self,
        settings: &Arc<ClientSettings>,
        snapshot: Option<Snapshot>,
        scope: &Scope,
        options: WatchOptions,
    ) -> Result<StreamId, Error> {
        let settings = Arc::clone(settings);
        let mut seed = [0; 32];
        self.random.fill(&mut seed);
        let machine = ClientMachine::new(settings, snapshot, scope, options, seed, self.now)?;
        Ok(self.add(machine, false))
    }

    /// What runs commands of a client with these settings.
    ///
    /// # Errors
    /// As [`ClientMachine::for_commands`].
    pub fn commands_with(
        &mut self,
        settings: Arc<ClientSettings>,
        snapshot: Option<Snapshot>,
    ) -> Result<StreamId, Error> {
        let mut seed = [0; 32];
        self.random.fill(&mut seed);
        let machine = ClientMachine::for_commands(settings, snapshot, seed, self.now)?;
        Ok(self.add(machine, true))
    }

    /// Begins to run a command, without stepping the world.
    pub fn start_command(&mut self, id: StreamId, command: RunCommand) {
        self.input(id, Input::Command(Box::new(command)));
    }

    /// The reply to the oldest command that has none yet.
    ///
    /// # Errors
    /// As the client's user is told.
    pub fn reply(&mut self, id: StreamId) -> Result<CommandReply, Error> {
        self.run_until(|world| {
            let stream = &world.streams[id.0];
            !stream.replies.is_empty() || stream.closed.is_some()
        });
        let stream = &mut self.streams[id.0];
        match (stream.replies.pop_front(), &stream.closed) {
            (Some(reply), _) => reply,
            (None, Some(Err(error))) => Err(error.clone()),
            (None, Some(Ok(())) | None) => Err(Error::invalid_argument("the client is closed")),
        }
    }

    /// The next event, none after the end, by one call. Not to get any within this time is a failure.
    #[track_caller]
    pub fn next_soon(&mut self, id: StreamId, time: Duration) -> Option<Result<ChangeEvent, Error>> {
        self.input(id, Input::Begin);
        let end = self.now + time;
        loop {
            if !self.has_something(id) {
                self.demand(id, Demand::Next);
            }
            self.run_until(|world| world.has_something(id) || world.now >= end);
            assert!(self.has_something(id), "no event comes within {time:?}");
            match self.take(id)? {
                Ok(Update::Change(event)) => return Some(Ok(event)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// What watched machines have published since the last call, in order.
    pub fn take_events(&mut self) -> Vec<(StreamId, Event)> {
        std::mem::take(&mut self.events)
    }
}
