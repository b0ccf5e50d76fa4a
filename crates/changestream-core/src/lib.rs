//! A MongoDB change-stream client as a pure state machine.

pub mod address;
pub mod auth;
pub mod client;
pub mod connection;
mod depth;
pub mod error;
pub mod event;
pub mod options;
pub mod random;
pub mod read_preference;
pub mod session;
pub mod stream;
pub mod token;
pub mod uri;
pub mod topology;
pub mod wire;

pub use address::ServerAddress;
pub use client::Update;
pub use error::{Error, ErrorKind, ServerError};
pub use event::ChangeEvent;
pub use options::{FullDocument, FullDocumentBeforeChange, ResumePolicy, Scope, WatchOptions};
pub use read_preference::{ReadConcern, ReadPreference, ReadPreferenceMode};
pub use session::Session;
pub use token::ResumeToken;
pub use uri::{AuthMechanism, ClientOptions, ConnectionString, Credential};
