//! A topology, a clock that stands still until told otherwise, and servers that answer what they are told to.

use std::time::{Duration, Instant};

use bson::{RawDocumentBuf, rawdoc};
use changestream_core::ServerAddress;
use changestream_core::topology::{Changes, HelloReply, ServerType, Snapshot, Topology, TopologySettings};

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) topology: Topology,
}

impl World {
    /// A topology with these seeds and otherwise default settings.
    pub(crate) fn new(seeds: &[&str]) -> Self {
        Self::with(settings(seeds))
    }

    pub(crate) fn with(settings: TopologySettings) -> Self {
        Self {
            now: Instant::now(),
            topology: Topology::new(settings).unwrap(),
        }
    }

    pub(crate) fn from_snapshot(now: Instant, seeds: &[&str], snapshot: &Snapshot) -> Self {
        let topology = Topology::with_snapshot(settings(seeds), snapshot).unwrap();
        Self { now, topology }
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// All servers that may be checked now; their checks have begun.
    pub(crate) fn checks(&mut self) -> Vec<String> {
        let now = self.now;
        std::iter::from_fn(|| self.topology.poll_check(now))
            .map(|address| address.to_string())
            .collect()
    }

    pub(crate) fn hello(&mut self, name: &str, reply: &RawDocumentBuf) -> Changes {
        let round_trip = Some(Duration::from_millis(5));
        let reply = HelloReply::parse(reply).unwrap();
        self.topology
            .handle_hello(self.now, &address(name), reply, round_trip)
    }

    pub(crate) fn refuse(&mut self, name: &str) -> Changes {
        self.topology
            .handle_check_failure(self.now, &address(name), "connection refused", true)
    }

    pub(crate) fn next_check_in(&self) -> Option<u128> {
        let at = self.topology.next_check_at(self.now)?;
        Some(at.duration_since(self.now).as_millis())
    }

    pub(crate) fn server_type(&self, name: &str) -> ServerType {
        self.topology.server(&address(name)).unwrap().server_type
    }

    pub(crate) fn servers(&self) -> Vec<String> {
        let servers = self.topology.description().servers.keys();
        servers.map(ToString::to_string).collect()
    }
}

pub(crate) fn settings(seeds: &[&str]) -> TopologySettings {
    TopologySettings::new(seeds.iter().map(|seed| address(seed)))
}

pub(crate) fn address(name: &str) -> ServerAddress {
    name.parse().unwrap()
}

/// The primary of a replica set of these members.
pub(crate) fn primary(me: &str, hosts: &[&str]) -> RawDocumentBuf {
    elected(me, hosts, 1)
}

/// A primary by that election.
pub(crate) fn elected(me: &str, hosts: &[&str], election: u8) -> RawDocumentBuf {
    let mut id = [0; 12];
    id[11] = election;
    let election_id = bson::oid::ObjectId::from_bytes(id);
    rawdoc! { "ok": 1, "isWritablePrimary": true, "setName": "rs", "setVersion": 1, "electionId": election_id,
    "hosts": list(hosts), "me": me, "minWireVersion": 0, "maxWireVersion": 25 }
}

/// A secondary that follows that primary.
pub(crate) fn secondary(me: &str, hosts: &[&str], primary: Option<&str>) -> RawDocumentBuf {
    let mut reply = rawdoc! { "ok": 1, "secondary": true, "setName": "rs", "setVersion": 1, "hosts": list(hosts),
    "me": me, "minWireVersion": 0, "maxWireVersion": 25 };
    if let Some(primary) = primary {
        reply.append(bson::cstr!("primary"), primary);
    }
    reply
}

pub(crate) fn standalone() -> RawDocumentBuf {
    rawdoc! { "ok": 1, "isWritablePrimary": true, "maxWireVersion": 25 }
}

pub(crate) fn mongos() -> RawDocumentBuf {
    rawdoc! { "ok": 1, "isWritablePrimary": true, "msg": "isdbgrid", "maxWireVersion": 25 }
}

pub(crate) fn refusal(code: i32, labels: &[&str]) -> RawDocumentBuf {
    rawdoc! { "ok": 0, "code": code, "errmsg": "not now", "errorLabels": list(labels) }
}

fn list(texts: &[&str]) -> bson::RawArrayBuf {
    texts.iter().copied().collect()
}
