//! What must not be told (Command Logging And Monitoring specification, "Security").

use bson::{RawDocument, RawDocumentBuf};
use bytes::Bytes;

use super::MonitoredDocument;
use crate::{Error, ErrorKind, ServerError};

/// Whether a command or its reply may hold secrets.
pub(crate) fn is_sensitive(name: &str, command: &RawDocument) -> bool {
    let is_any_of = |names: &[&str]| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    if is_any_of(&SENSITIVE) {
        return true;
    }
    // An element that cannot be read might be it.
    is_any_of(&HELLO) && !matches!(command.get("speculativeAuthenticate"), Ok(None))
}

/// A failure without the server's words: its code, the code's name and the labels may be told.
pub(crate) fn redacted(error: &Error) -> Error {
    let Some(said) = error.server_error() else {
        return error.clone();
    };
    let mut bare = ServerError::new(said.code, said.code_name.clone(), "");
    bare.labels.clone_from(&said.labels);
    let bare = Error::new(ErrorKind::Server(bare));
    match error.server() {
        Some(server) => bare.at(server.clone()),
        None => bare,
    }
}

/// An answer to hello without the server's first word in a conversation that the handshake has begun.
pub(crate) fn without_authentication(hello: &Bytes) -> MonitoredDocument {
    let Ok(document) = RawDocument::from_bytes(hello) else {
        return MonitoredDocument::empty();
    };
    if matches!(document.get("speculativeAuthenticate"), Ok(None)) {
        return MonitoredDocument::new(hello.clone());
    }
    let mut rest = RawDocumentBuf::new();
    for element in document.iter_elements() {
        let Ok(element) = element else {
            return MonitoredDocument::empty();
        };
        if let Ok(value) = element.value()
            && element.key() != "speculativeAuthenticate"
        {
            rest.append(element.key(), value);
        }
    }
    MonitoredDocument::new(rest.into_bytes().into())
}

const SENSITIVE: [&str; 9] = [
    "authenticate",
    "saslStart",
    "saslContinue",
    "getnonce",
    "createUser",
    "updateUser",
    "copydbgetnonce",
    "copydbsaslstart",
    "copydb",
];

/// Hello by all of its names.
const HELLO: [&str; 2] = ["hello", "isMaster"];
