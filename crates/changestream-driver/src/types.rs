//! What goes in and comes out of a stream, whatever drives it: the names that every adapter passes on.

pub use bson;
pub use changestream_core::auth::{AwsCredentials, IdpInfo, OidcRequest, OidcToken};
pub use changestream_core::client::{ClientSettings, Idle, Resuming};
pub use changestream_core::connection::{ClientMetadata, DriverInfo};
pub use changestream_core::event::{
    ChangeStreamDocument, DecodeError, FieldState, Namespace, NamespaceRef, OperationType, UpdateDescription,
    UpdateDocument,
};
pub use changestream_core::monitoring;
pub use changestream_core::stream::StreamStats;
pub use changestream_core::uri::{ClientOptions, ConnectionString, Secret, Warning};
pub use changestream_core::{
    ChangeEvent, ClusterTime, CommandOptions, Error, ErrorKind, FullDocument, FullDocumentBeforeChange,
    ReadConcern, ReadPreference, ReadPreferenceMode, ResumePolicy, ResumeToken, Scope, ServerAddress,
    ServerApi, ServerApiVersion, ServerError, Session, Update, WatchOptions,
};
