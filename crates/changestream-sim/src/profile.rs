//! What distinguishes one server version from another, as data.

use std::borrow::Cow;

use crate::query::update::Dialect;
use crate::token::TokenVersion;

/// A server version: its wire versions, and which options, fields and texts it knows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// The full version that buildInfo reports.
    pub version: Cow<'static, str>,
    /// `maxWireVersion` of its hello.
    pub max_wire_version: i32,
    /// The version written into resume tokens.
    pub token_version: TokenVersion,
    /// A stream can begin with `startAfter` (4.2 and later).
    pub start_after: bool,
    /// Replies with a batch of a change stream carry `postBatchResumeToken` (4.0.7 and later).
    pub post_batch_token: bool,
    /// Transactions can be run through a mongos (4.2 and later).
    pub sharded_transactions: bool,
    /// It knows the command `hello` and answers `helloOk` (4.2.10, 4.4.2 and later; the profile 4.4 is a 4.4.1).
    pub hello: bool,
    /// The fail point `failCommand` heeds the application's name that a handshake itself tells (4.4.7 and later).
    pub fails_handshakes_by_name: bool,
    /// Its texts and code names say "primary" (5.0 and later).
    pub says_primary: bool,
    /// An error begins with `ok` instead of `operationTime` (5.0 and later).
    pub error_starts_with_ok: bool,
    /// It streams hello replies and sends `topologyVersion` (4.4 and later).
    pub streams_hello: bool,
    /// It labels resumable change-stream errors and retryable writes (4.4 and later).
    pub labels_errors: bool,
    /// It labels what is *not* resumable too, for the clients of 4.2 (4.2 and later).
    pub labels_non_resumable: bool,
    /// It answers exhaust getMore by `moreToCome` (4.4 and later).
    pub exhaust: bool,
    /// Update descriptions carry `truncatedArrays` (5.0 and later).
    pub truncated_arrays: bool,
    /// A retried statement is reported by `retriedStmtIds` (5.0 and later).
    pub retried_stmt_ids: bool,
    /// Events carry `wallTime`; pre- and post-images and expanded events exist (6.0 and later).
    pub images: bool,
    /// Expanded events explain ambiguous paths in `disambiguatedPaths` (6.1 and later).
    pub disambiguated_paths: bool,
    /// `comment` is a field of every command, getMore included (4.4 and later).
    pub generic_comment: bool,
    /// `fullDocument` is an enumeration, of which unknown values are told so (4.4 and later).
    pub enumerated_full_document: bool,
    /// `$changeStreamSplitLargeEvent` exists (6.0.9 and later, but for 6.1 to 6.3).
    pub split_large_event: bool,
    /// Expanded create events say what was created in `nsType` (8.1 and later, and 8.0.5).
    pub ns_type: bool,
    /// Commands may declare the version of the API that they are of (5.0 and later).
    pub versioned_api: bool,
    /// Reads outside of transactions may be as of a moment (5.0 and later).
    pub snapshot_reads: bool,
    /// The write concern where neither command nor client says one is majority (5.0 and later).
    pub default_majority: bool,
}

impl Profile {
    /// The profile of a version such as `4.4` or `6.0.8`. Without a third number it is that of a late patch release
    /// (of 4.4, the 4.4.1 that the recorded conversations are with).
    ///
    /// Of 4.0, which is older than what today's drivers support, the change streams are modelled; its resume tokens are
    /// laid out as those of 4.2.
    ///
    /// None for a version that is not modelled; modelled are 4.0, 4.2, 4.4, 5.0, 6.0, 6.1, 6.2, 6.3, 7.0, 8.0,
    /// 8.1 and 8.2.
    pub fn for_version(version: &str) -> Option<Self> {
        let mut numbers = version.split('.');
        let (major, minor) = (numbers.next()?, numbers.next().unwrap_or("0"));
        let mut profile = PROFILES.into_iter().find(|p| {
            let mut known = p.version.split('.');
            known.next() == Some(major) && known.next() == Some(minor)
        })?;
        let Some(patch) = numbers.next() else {
            return Some(profile);
        };
        let patch: u16 = patch.parse().ok()?;
        if numbers.next().is_some() {
            return None;
        }
        profile.version = format!("{major}.{minor}.{patch}").into();
        match (major, minor) {
            ("4", "0") => profile.post_batch_token = patch >= 7,
            ("4", "2") => profile.hello = patch >= 10,
            ("4", "4") => {
                profile.hello = patch >= 2;
                profile.fails_handshakes_by_name = patch >= 7;
            }
            ("6", "0") => profile.split_large_event = patch >= 9,
            ("8", "0") => profile.ns_type = patch >= 5,
            _ => {}
        }
        Some(profile)
    }

    /// The numbers of the version, for `versionArray`.
    pub(crate) fn version_array(&self) -> [i32; 4] {
        let mut numbers = self.version.split('.').map(|n| n.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        [next(), next(), next(), 0]
    }

    /// How it logs updates.
    pub(crate) fn dialect(&self) -> Dialect {
        if self.truncated_arrays {
            Dialect::Delta
        } else {
            Dialect::Legacy
        }
    }

    /// The feature compatibility version.
    pub(crate) fn fcv(&self) -> &str {
        self.version
            .rsplit_once('.')
            .map_or(&self.version, |(fcv, _)| fcv)
    }
}

impl Default for Profile {
    /// The profile 4.4, the version that the recorded conversations are with.
    fn default() -> Self {
        V4_4
    }
}

const V4_0: Profile = Profile {
    version: Cow::Borrowed("4.0.28"),
    max_wire_version: 7,
    start_after: false,
    sharded_transactions: false,
    ..V4_2
};
const V4_2: Profile = Profile {
    version: Cow::Borrowed("4.2.24"),
    max_wire_version: 8,
    streams_hello: false,
    labels_errors: false,
    exhaust: false,
    generic_comment: false,
    enumerated_full_document: false,
    ..V4_4
};
const V4_4: Profile = Profile {
    version: Cow::Borrowed("4.4.1"),
    max_wire_version: 9,
    token_version: TokenVersion::V1,
    start_after: true,
    post_batch_token: true,
    sharded_transactions: true,
    hello: false,
    fails_handshakes_by_name: false,
    says_primary: false,
    error_starts_with_ok: false,
    streams_hello: true,
    labels_errors: true,
    labels_non_resumable: true,
    exhaust: true,
    truncated_arrays: false,
    retried_stmt_ids: false,
    images: false,
    disambiguated_paths: false,
    generic_comment: true,
    enumerated_full_document: true,
    split_large_event: false,
    ns_type: false,
    versioned_api: false,
    snapshot_reads: false,
    default_majority: false,
};
const V5_0: Profile = Profile {
    version: Cow::Borrowed("5.0.31"),
    max_wire_version: 13,
    hello: true,
    fails_handshakes_by_name: true,
    says_primary: true,
    error_starts_with_ok: true,
    truncated_arrays: true,
    retried_stmt_ids: true,
    versioned_api: true,
    snapshot_reads: true,
    default_majority: true,
    ..V4_4
};
const V6_0: Profile = Profile {
    version: Cow::Borrowed("6.0.20"),
    max_wire_version: 17,
    token_version: TokenVersion::V2,
    images: true,
    split_large_event: true,
    ..V5_0
};
const V6_1: Profile = Profile {
    version: Cow::Borrowed("6.1.1"),
    max_wire_version: 18,
    disambiguated_paths: true,
    split_large_event: false,
    ..V6_0
};
const V6_2: Profile = Profile {
    version: Cow::Borrowed("6.2.1"),
    max_wire_version: 19,
    ..V6_1
};
const V6_3: Profile = Profile {
    version: Cow::Borrowed("6.3.2"),
    max_wire_version: 20,
    ..V6_1
};
const V7_0: Profile = Profile {
    version: Cow::Borrowed("7.0.16"),
    max_wire_version: 21,
    split_large_event: true,
    ..V6_1
};
const V8_0: Profile = Profile {
    version: Cow::Borrowed("8.0.4"),
    max_wire_version: 25,
    ..V7_0
};
const V8_1: Profile = Profile {
    version: Cow::Borrowed("8.1.2"),
    max_wire_version: 26,
    ns_type: true,
    ..V8_0
};
const V8_2: Profile = Profile {
    version: Cow::Borrowed("8.2.3"),
    max_wire_version: 27,
    ..V8_1
};
const PROFILES: [Profile; 12] = [
    V4_0, V4_2, V4_4, V5_0, V6_0, V6_1, V6_2, V6_3, V7_0, V8_0, V8_1, V8_2,
];
