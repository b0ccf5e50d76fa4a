//! Replies, and the fields that every reply ends with.

use bson::raw::{CString, RawArrayBuf, RawBson, RawDocumentBuf, cstr};
use bson::{Document, Timestamp, rawdoc};

use crate::connection::HEADROOM;
use crate::cursors::CursorReply;
use crate::error::CommandError;
use crate::profile::Profile;

/// What a command answers, before the common fields.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// It succeeded, with these fields.
    Success(RawDocumentBuf),
    /// It succeeded, with a batch of a cursor.
    Cursor(Box<CursorReply>),
    /// It failed.
    Failure(Box<Failure>),
}

/// What a failed command answers.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) error: CommandError,
    /// The command reported the failure itself, rather than by an exception: the fields' order differs.
    pub(crate) reported: bool,
    pub(crate) topology_version: Option<Document>,
}

/// What stands at the end of a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) cluster: Timestamp,
    pub(crate) operation: Timestamp,
}

impl Reply {
    /// A success without fields of its own.
    pub(crate) fn ok() -> Self {
        Self::Success(RawDocumentBuf::new())
    }

    /// A success with these fields.
    pub(crate) fn fields(document: &Document) -> Self {
        Self::Success(raw(document))
    }

    /// The same with what a client of a mongos needs to recover its transaction's outcome.
    pub(crate) fn with_recovery(mut self, token: &Document) -> Self {
        match &mut self {
            Self::Success(body) => body.append(cstr!("recoveryToken"), raw(token)),
            Self::Cursor(_) | Self::Failure(_) => {}
        }
        self
    }

    /// The message to send, still without its header. A standalone's has no times.
    pub(crate) fn message(self, profile: &Profile, times: Option<Times>) -> Vec<u8> {
        match self {
            Self::Success(mut body) => {
                append_success(&mut body, times);
                with_headroom(&body)
            }
            Self::Cursor(cursor) => {
                let mut last = RawDocumentBuf::new();
                append_success(&mut last, times);
                cursor.message(&last)
            }
            Self::Failure(failure) => with_headroom(&failure.finish(profile, times)),
        }
    }

    /// The same, as a mongos lays it out.
    pub(crate) fn merged_message(self, times: Option<Times>) -> Vec<u8> {
        match self {
            Self::Success(mut body) => {
                append_merged_success(&mut body, times);
                with_headroom(&body)
            }
            Self::Cursor(cursor) => {
                let mut last = RawDocumentBuf::new();
                append_merged_success(&mut last, times);
                cursor.message(&last)
            }
            Self::Failure(failure) => {
                let mut body = raw(&failure.error.to_reply());
                append_merged_times(&mut body, times);
                with_headroom(&body)
            }
        }
    }
}

fn with_headroom(body: &RawDocumentBuf) -> Vec<u8> {
    let mut message = vec![0; HEADROOM];
    message.extend_from_slice(body.as_bytes());
    message
}

impl Failure {
    fn finish(self, profile: &Profile, times: Option<Times>) -> RawDocumentBuf {
        let Self {
            error,
            reported,
            topology_version,
        } = self;
        let times_last = reported || profile.error_starts_with_ok;
        let mut body = RawDocumentBuf::new();
        if !error.labels.is_empty() {
            body.append(
                cstr!("errorLabels"),
                error.labels.into_iter().collect::<RawArrayBuf>(),
            );
        }
        if let Some(version) = topology_version {
            body.append(cstr!("topologyVersion"), raw(&version));
        }
        if let (Some(times), false) = (times, times_last) {
            body.append(cstr!("operationTime"), times.operation);
        }
        body.append(cstr!("ok"), 0.0);
        body.append(cstr!("errmsg"), error.message.as_str());
        body.append(cstr!("code"), error.code);
        body.append(cstr!("codeName"), error.code_name.as_ref());
        for (key, value) in error.extra.iter().flat_map(|extra| extra.iter()) {
            if let (Ok(key), Ok(value)) = (CString::try_from(key.as_str()), RawBson::try_from(value.clone()))
            {
                body.append(key, value);
            }
        }
        if let Some(times) = times {
            append_cluster_time(&mut body, times.cluster);
            if times_last {
                body.append(cstr!("operationTime"), times.operation);
            }
        }
        body
    }
}

/// The same document, encoded. What came in as BSON goes out as BSON; a key with a NUL cannot have come in.
pub(crate) fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap_or_default()
}

fn append_success(body: &mut RawDocumentBuf, times: Option<Times>) {
    body.append(cstr!("ok"), 1.0);
    if let Some(times) = times {
        append_cluster_time(body, times.cluster);
        body.append(cstr!("operationTime"), times.operation);
    }
}

fn append_merged_success(body: &mut RawDocumentBuf, times: Option<Times>) {
    body.append(cstr!("ok"), 1.0);
    append_merged_times(body, times);
}

fn append_merged_times(body: &mut RawDocumentBuf, times: Option<Times>) {
    if let Some(times) = times {
        body.append(cstr!("operationTime"), times.operation);
        append_cluster_time(body, times.cluster);
    }
}

fn append_cluster_time(body: &mut RawDocumentBuf, ts: Timestamp) {
    // A deployment without keys signs with zeroes, and so do clients of one.
    let hash = bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: vec![0; 20],
    };
    body.append(
        cstr!("$clusterTime"),
        rawdoc! { "clusterTime": ts, "signature": { "hash": hash, "keyId": 0_i64 } },
    );
}
