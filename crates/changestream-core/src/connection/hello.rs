//! The commands that a connection says for itself: the handshake, and hello on an established connection.

use bson::raw::cstr;
use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use bytes::Bytes;

use super::ConnectionSettings;
use crate::ServerAddress;
use crate::auth::{Conversation, Mechanism, Parties};
use crate::random::Random;
use crate::wire::{self, Compressor, Flags};

/// Which hello a server is spoken to with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `isMaster` as OP_QUERY, understood by every server.
    LegacyQuery,
    /// `isMaster` as OP_MSG, for a server that has OP_MSG (wire version 6) but not hello.
    LegacyMsg,
    /// `hello`, always OP_MSG.
    Modern,
}

impl Dialect {
    /// The first message of a connection (the Handshake specification, "Connection handshake").
    pub(super) fn of_handshake(settings: &ConnectionSettings, hello_ok: bool) -> Self {
        // "If a version is declared, clients MUST use hello": servers that know versions know it.
        if settings.load_balanced || settings.server_api.is_some() || hello_ok {
            Self::Modern
        } else {
            Self::LegacyQuery
        }
    }

    /// Later ones: the modern name once the server has said `helloOk` or understood it.
    pub(super) fn of_check(self, hello_ok: bool, max_wire_version: Option<i32>) -> Self {
        if hello_ok || self == Self::Modern {
            Self::Modern
        } else if max_wire_version >= Some(OP_MSG_WIRE_VERSION) {
            Self::LegacyMsg
        } else {
            Self::LegacyQuery
        }
    }

    pub(super) fn encode(self, request_id: i32, mut command: RawDocumentBuf) -> Bytes {
        match self {
            Self::LegacyQuery => wire::encode_op_query(request_id, "admin.$cmd", &command),
            Self::LegacyMsg | Self::Modern => {
                command.append(cstr!("$db"), "admin");
                wire::encode_op_msg(request_id, 0, Flags::NONE, &command, &[])
            }
        }
    }
}

/// The handshake command, and the conversation that it starts speculatively.
pub(super) fn handshake(
    settings: &ConnectionSettings,
    server: &ServerAddress,
    dialect: Dialect,
    random: &mut Random,
) -> (RawDocumentBuf, Option<Conversation>) {
    let mut command = check(settings, dialect);
    command.append(
        cstr!("client"),
        settings.metadata.get().to_document(settings.app_name.as_deref()),
    );
    let mut compression = RawArrayBuf::new();
    for compressor in offered(settings) {
        compression.push(compressor.as_str());
    }
    command.append(cstr!("compression"), compression);
    if settings.load_balanced {
        command.append(cstr!("loadBalanced"), true);
    }
    let Some(credential) = &settings.credential else {
        return (command, None);
    };
    if credential.mechanism().is_none() {
        let user = format!("{}.{}", credential.source(), credential.username());
        command.append(cstr!("saslSupportedMechs"), user);
    }
    let mechanism = credential.mechanism().unwrap_or(Mechanism::ScramSha256);
    let parties = Parties { credential, server };
    let Some((conversation, mut start)) = Conversation::speculate(parties, mechanism, random) else {
        return (command, None);
    };
    start.append(cstr!("db"), credential.source());
    command.append(cstr!("speculativeAuthenticate"), start);
    (command, Some(conversation))
}

/// The compressors that the handshake offers, in order of preference.
fn offered(settings: &ConnectionSettings) -> impl Iterator<Item = Compressor> {
    let all = settings.compressors.iter().copied();
    all.filter(|compressor| compressor.is_built_in())
}

/// The first of those offered that the server's answer lists: the client's order counts (OP_COMPRESSED specification).
pub(super) fn agreed_compressor(settings: &ConnectionSettings, answer: &RawDocument) -> Option<Compressor> {
    let listed = answer.get_array("compression").ok()?;
    let known = |compressor: &Compressor| {
        let mut names = listed.into_iter().filter_map(|name| name.ok()?.as_str());
        names.any(|name| name == compressor.as_str())
    };
    offered(settings).find(known)
}

/// Hello without the arguments that only a handshake may have.
pub(super) fn check(settings: &ConnectionSettings, dialect: Dialect) -> RawDocumentBuf {
    let mut command = match dialect {
        Dialect::LegacyQuery | Dialect::LegacyMsg => rawdoc! { "isMaster": 1 },
        Dialect::Modern => rawdoc! { "hello": 1 },
    };
    command.append(cstr!("helloOk"), true);
    // The Handshake specification, as extended by Client Backpressure: overload errors are understood.
    command.append(cstr!("backpressure"), "2");
    if let Some(api) = &settings.server_api {
        api.declare(&mut command);
    }
    command
}

/// The first wire version with OP_MSG (the OP_MSG specification): server 3.6.
const OP_MSG_WIRE_VERSION: i32 = 6;
