//! What a server says when it refuses a command.

use std::borrow::Cow;
use std::fmt;

use bson::{Bson, Document, doc};

/// A command's refusal: code, its name, the sentence, labels, and whatever else belongs to the reply.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CommandError {
    /// The number that clients decide by.
    pub code: i32,
    /// The number's name; `LocationNNN` for one that has none.
    pub code_name: Cow<'static, str>,
    /// The sentence for people.
    pub message: String,
    /// `errorLabels`.
    pub labels: Vec<String>,
    /// Further fields of the reply (`keyPattern` of a duplicate key, ...).
    pub extra: Option<Box<Document>>,
}

impl CommandError {
    /// A refusal with that code, named by the table of the server's codes.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            code_name: code_name(code),
            message: message.into(),
            labels: Vec::new(),
            extra: None,
        }
    }

    /// The same refusal with one more label.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.labels.push(label.into());
        self
    }

    /// The same refusal with one more field in its reply.
    #[must_use]
    pub fn with_field(mut self, name: impl Into<String>, value: impl Into<Bson>) -> Self {
        self.extra.get_or_insert_default().insert(name, value);
        self
    }

    /// The same refusal, its message preceded by what was being done.
    #[must_use]
    pub fn caused(mut self, what: &str) -> Self {
        self.message = format!("{what} :: caused by :: {}", self.message);
        self
    }

    /// The reply's fields, in the server's order: `ok`, `errmsg`, `code`, `codeName`, the extra ones, `errorLabels`.
    pub fn to_reply(&self) -> Document {
        let mut reply = doc! {
            "ok": 0.0,
            "errmsg": &self.message,
            "code": self.code,
            "codeName": self.code_name.as_ref(),
        };
        for (name, value) in self.extra.iter().flat_map(|extra| extra.iter()) {
            reply.insert(name, value.clone());
        }
        if !self.labels.is_empty() {
            reply.insert("errorLabels", self.labels.clone());
        }
        reply
    }

    /// An entry of a write command's `writeErrors`, for the statement at that index.
    pub fn to_write_error(&self, index: usize) -> Document {
        let mut entry = doc! {
            "index": i32::try_from(index).unwrap_or(i32::MAX),
            "code": self.code,
        };
        for (name, value) in self.extra.iter().flat_map(|extra| extra.iter()) {
            entry.insert(name, value.clone());
        }
        entry.insert("errmsg", &self.message);
        entry
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl CommandError {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Self::new($code, message) })*
        }
    };
}

constructors! {
    /// BadValue: an argument has a value that makes no sense.
    bad_value = 2;
    /// FailedToParse: an argument could not be read.
    failed_to_parse = 9;
    /// Unauthorized: not authenticated, or not allowed to.
    unauthorized = 13;
    /// TypeMismatch: an argument is of the wrong BSON type.
    type_mismatch = 14;
    /// AuthenticationFailed.
    authentication_failed = 18;
    /// IllegalOperation: the deployment or the place does not allow it.
    illegal_operation = 20;
    /// NamespaceNotFound.
    namespace_not_found = 26;
    /// IndexNotFound.
    index_not_found = 27;
    /// PathNotViable: a field cannot be created in a value that is no document.
    path_not_viable = 28;
    /// ConflictingUpdateOperators: two operators touch the same path.
    conflicting_update_operators = 40;
    /// CursorNotFound.
    cursor_not_found = 43;
    /// NamespaceExists.
    namespace_exists = 48;
    /// DollarPrefixedFieldName.
    dollar_prefixed_field_name = 52;
    /// CommandNotFound.
    command_not_found = 59;
    /// ImmutableField: `_id` or a shard key would change.
    immutable_field = 66;
    /// CannotCreateIndex.
    cannot_create_index = 67;
    /// InvalidOptions.
    invalid_options = 72;
    /// InvalidNamespace.
    invalid_namespace = 73;
    /// ShutdownInProgress.
    shutdown_in_progress = 91;
    /// WriteConflict.
    write_conflict = 112;
    /// CommandNotSupported.
    command_not_supported = 115;
    /// InvalidPipelineOperator: an expression that does not exist, or that the simulated server has not.
    invalid_pipeline_operator = 168;
    /// TransactionTooOld.
    transaction_too_old = 225;
    /// CursorKilled.
    cursor_killed = 237;
    /// NoSuchTransaction.
    no_such_transaction = 251;
    /// InvalidResumeToken.
    invalid_resume_token = 260;
    /// ChangeStreamFatalError.
    change_stream_fatal_error = 280;
    /// ChangeStreamHistoryLost.
    change_stream_history_lost = 286;
    /// NotWritablePrimary.
    not_writable_primary = 10107;
    /// BSONObjectTooLarge.
    bson_object_too_large = 10334;
    /// DuplicateKey.
    duplicate_key = 11000;
    /// InterruptedAtShutdown.
    interrupted_at_shutdown = 11600;
    /// Interrupted.
    interrupted = 11601;
    /// InterruptedDueToReplStateChange.
    interrupted_due_to_repl_state_change = 11602;
    /// NotPrimaryNoSecondaryOk.
    not_primary_no_secondary_ok = 13435;
    /// NotPrimaryOrSecondary.
    not_primary_or_secondary = 13436;
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code_name, self.code, self.message)
    }
}

impl std::error::Error for CommandError {}

/// The name of a server's error code; `LocationNNN` for one without a name, as the server says it.
pub fn code_name(code: i32) -> Cow<'static, str> {
    let position = CODE_NAMES.binary_search_by_key(&code, |(known, _)| *known);
    match position.ok().and_then(|at| CODE_NAMES.get(at)) {
        Some((_, name)) => Cow::Borrowed(name),
        None => Cow::Owned(format!("Location{code}")),
    }
}

/// The codes that have names, by number. Names are those of 4.4 and later; 10107, 13435 and 13436 carry the ones
/// of 5.0, which 4.4 spelled otherwise: a caller that plays 4.4 overrides `code_name`.
const CODE_NAMES: &[(i32, &str)] = &[
    (1, "InternalError"),
    (2, "BadValue"),
    (4, "NoSuchKey"),
    (5, "GraphContainsCycle"),
    (6, "HostUnreachable"),
    (7, "HostNotFound"),
    (8, "UnknownError"),
    (9, "FailedToParse"),
    (11, "UserNotFound"),
    (13, "Unauthorized"),
    (14, "TypeMismatch"),
    (15, "Overflow"),
    (16, "InvalidLength"),
    (17, "ProtocolError"),
    (18, "AuthenticationFailed"),
    (20, "IllegalOperation"),
    (26, "NamespaceNotFound"),
    (27, "IndexNotFound"),
    (28, "PathNotViable"),
    (31, "RoleNotFound"),
    (33, "CannotBackfillArray"),
    (34, "ConflictingOperationInProgress"),
    (40, "ConflictingUpdateOperators"),
    (43, "CursorNotFound"),
    (46, "LockTimeout"),
    (47, "RemoteValidationError"),
    (48, "NamespaceExists"),
    (50, "MaxTimeMSExpired"),
    (52, "DollarPrefixedFieldName"),
    (53, "InvalidIdField"),
    (54, "NotSingleValueField"),
    (56, "EmptyFieldName"),
    (57, "DottedFieldName"),
    (59, "CommandNotFound"),
    (61, "ShardKeyNotFound"),
    (62, "OplogOperationUnsupported"),
    (63, "StaleShardVersion"),
    (64, "WriteConcernFailed"),
    (66, "ImmutableField"),
    (67, "CannotCreateIndex"),
    (70, "ShardNotFound"),
    (72, "InvalidOptions"),
    (73, "InvalidNamespace"),
    (74, "NodeNotFound"),
    (79, "UnknownReplWriteConcern"),
    (85, "IndexOptionsConflict"),
    (86, "IndexKeySpecsConflict"),
    (89, "NetworkTimeout"),
    (91, "ShutdownInProgress"),
    (94, "NotYetInitialized"),
    (96, "OperationFailed"),
    (100, "UnsatisfiableWriteConcern"),
    (103, "NewReplicaSetConfigurationIncompatible"),
    (112, "WriteConflict"),
    (115, "CommandNotSupported"),
    (121, "DocumentValidationFailure"),
    (123, "NotAReplicaSet"),
    (125, "CommandFailed"),
    (131, "InvalidUUID"),
    (133, "FailedToSatisfyReadPreference"),
    (134, "ReadConcernMajorityNotAvailableYet"),
    (136, "CappedPositionLost"),
    (148, "ReadConcernMajorityNotEnabled"),
    (150, "StaleEpoch"),
    (166, "CommandNotSupportedOnView"),
    (168, "InvalidPipelineOperator"),
    (175, "QueryPlanKilled"),
    (186, "MechanismUnavailable"),
    (189, "PrimarySteppedDown"),
    (190, "MasterSlaveConnectionFailure"),
    (191, "FailPointSetFailed"),
    (193, "SSLHandshakeFailed"),
    (206, "NoSuchSession"),
    (211, "KeyNotFound"),
    (217, "IncompleteTransactionHistory"),
    (225, "TransactionTooOld"),
    (226, "AtomicityFailure"),
    (228, "ConversionFailure"),
    (234, "RetryChangeStream"),
    (235, "InternalErrorNotSupported"),
    (237, "CursorKilled"),
    (239, "SnapshotTooOld"),
    (244, "TransactionAborted"),
    (246, "SnapshotUnavailable"),
    (249, "TransactionCoordinatorSteppingDown"),
    (251, "NoSuchTransaction"),
    (256, "TransactionCommitted"),
    (260, "InvalidResumeToken"),
    (261, "TooManyLogicalSessions"),
    (262, "ExceededTimeLimit"),
    (263, "OperationNotSupportedInTransaction"),
    (264, "TooManyFilesOpen"),
    (267, "PreparedTransactionInProgress"),
    (280, "ChangeStreamFatalError"),
    (286, "ChangeStreamHistoryLost"),
    (290, "TransactionExceededLifetimeLimitSeconds"),
    (314, "ChangeStreamInvalidationError"),
    (317, "ConnectionPoolExpired"),
    (322, "APIVersionError"),
    (323, "APIStrictError"),
    (324, "APIDeprecationError"),
    (391, "ReauthenticationRequired"),
    (462, "IngressRequestRateLimitExceeded"),
    (9001, "SocketException"),
    (10107, "NotWritablePrimary"),
    (10334, "BSONObjectTooLarge"),
    (11000, "DuplicateKey"),
    (11600, "InterruptedAtShutdown"),
    (11601, "Interrupted"),
    (11602, "InterruptedDueToReplStateChange"),
    (13388, "StaleConfig"),
    (13435, "NotPrimaryNoSecondaryOk"),
    (13436, "NotPrimaryOrSecondary"),
];
