//! Which servers a stream may read from, and how sure what they return must be.

use std::collections::BTreeMap;
use std::time::Duration;

/// A server's tags, or a set of tags that a server must carry: `{dc: "ny", rack: "1"}`.
pub type TagSet = BTreeMap<String, String>;

/// Which members of a deployment a stream may read from (Server Selection specification, "Read Preference").
///
/// The default is [`ReadPreferenceMode::Primary`]. Choosing the mode, tag sets and maximum staleness is for the
/// user; whether the combination is legal is checked when the client is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadPreference {
    /// Which kinds of member are eligible, in which order.
    pub mode: ReadPreferenceMode,
    /// Tag sets, tried in order; an empty list, or an empty set in it, matches every member.
    pub tag_sets: Vec<TagSet>,
    /// The longest estimated lag behind the primary that a secondary may have. At least 90 seconds; `None` is no
    /// limit.
    pub max_staleness: Option<Duration>,
}

impl ReadPreference {
    /// A read preference of this mode, without tag sets and staleness limit.
    pub fn new(mode: ReadPreferenceMode) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }
}

/// The five modes of a read preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadPreferenceMode {
    /// Only the primary. The default.
    #[default]
    Primary,
    /// The primary, a secondary where there is none.
    PrimaryPreferred,
    /// Only secondaries.
    Secondary,
    /// A secondary, the primary where there is none.
    SecondaryPreferred,
    /// Whichever member answers fastest.
    Nearest,
}

impl ReadPreferenceMode {
    /// The mode's name in commands and connection strings, such as `secondaryPreferred`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::PrimaryPreferred => "primaryPreferred",
            Self::Secondary => "secondary",
            Self::SecondaryPreferred => "secondaryPreferred",
            Self::Nearest => "nearest",
        }
    }

    /// The mode of that name; names compare without case.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Primary,
            Self::PrimaryPreferred,
            Self::Secondary,
            Self::SecondaryPreferred,
            Self::Nearest,
        ]
        .into_iter()
        .find(|mode| mode.as_str().eq_ignore_ascii_case(name))
    }
}

/// A read concern. Change streams accept `majority` only; any other level is sent and refused by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadConcern {
    /// The level, such as `majority`.
    pub level: String,
}

impl ReadConcern {
    /// A read concern of that level.
    pub fn new(level: impl Into<String>) -> Self {
        Self { level: level.into() }
    }
}
