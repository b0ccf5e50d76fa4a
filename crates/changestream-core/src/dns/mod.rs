//! The list of servers that a `mongodb+srv://` connection string leaves to DNS.
//!
//! The rules are those of the Initial DNS Seedlist Discovery and Polling SRV Records for mongos Discovery
//! specifications. Asking a name server is the adapter's business: the machine puts out a [`Question`]
//! ([`Output::Resolve`](crate::client::Output::Resolve)) and gets an [`Answer`] or a [`DnsFault`]
//! ([`Input::Resolved`](crate::client::Input::Resolved)); what it makes of the records is decided here.

mod fault;
mod question;
mod seedlist;

pub use fault::DnsFault;
pub use question::{Answer, Question, RecordType, SrvRecord, TxtRecord};
pub(crate) use seedlist::{SrvName, choose, is_host_name, rescan_interval, txt_options, without_dots};
