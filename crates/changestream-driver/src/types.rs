//! What goes in and comes out of a stream, whatever drives it: the names that every adapter passes on.

pub use bson;
pub use changestream_core::client::{Idle, Resuming, StreamStats};
pub use changestream_core::uri::{ClientOptions, ConnectionString};
pub use changestream_core::{
    ChangeEvent, Error, ErrorKind, FullDocument, FullDocumentBeforeChange, ReadConcern,
    ReadPreference, ReadPreferenceMode, ResumePolicy, ResumeToken, Scope, ServerAddress,
    ServerError, Session, Update, WatchOptions,
};
