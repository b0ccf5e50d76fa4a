//! Why a value does not fit a type, and where it stands.

use std::fmt::{self, Write};

use serde::de;

use crate::depth::MAX_DEPTH;

pub(in crate::event) type Result<T> = std::result::Result<T, Failure>;

/// A pointer, so that every step of a decoding that succeeds moves little.
#[derive(Debug)]
pub(in crate::event) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    message: String,
    /// From the inside out.
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Field(String),
    Element(usize),
}

impl Failure {
    #[cold]
    pub(super) fn malformed(what: &str) -> Self {
        de::Error::custom(format_args!("{what} is malformed"))
    }

    #[cold]
    pub(super) fn too_deep() -> Self {
        de::Error::custom(format_args!("it nests deeper than {MAX_DEPTH} levels"))
    }

    /// It stands in that field.
    #[cold]
    pub(in crate::event) fn in_field(self, key: &[u8]) -> Self {
        self.within(Step::Field(String::from_utf8_lossy(key).into_owned()))
    }

    /// It stands in that element of an array.
    #[cold]
    pub(super) fn in_element(self, index: usize) -> Self {
        self.within(Step::Element(index))
    }

    fn within(mut self, step: Step) -> Self {
        self.0.steps.push(step);
        self
    }

    /// Where, such as `items[2].price`; none if it is the whole that does not fit.
    pub(in crate::event) fn path(&self) -> Option<String> {
        let mut path = String::new();
        for step in self.0.steps.iter().rev() {
            // Writing to a string does not fail.
            let _ = match step {
                Step::Field(name) if path.is_empty() => write!(path, "{name}"),
                Step::Field(name) => write!(path, ".{name}"),
                Step::Element(index) => write!(path, "[{index}]"),
            };
        }
        (!self.0.steps.is_empty()).then_some(path)
    }

    pub(in crate::event) fn into_message(self) -> String {
        self.0.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Box::new(Inner {
            message: message.to_string(),
            steps: Vec::new(),
        }))
    }
}

/// Without the library's own frame of words, where its message can be had.
impl From<bson::error::Error> for Failure {
    #[cold]
    fn from(error: bson::error::Error) -> Self {
        let message = error.message.clone().unwrap_or_else(|| error.to_string());
        de::Error::custom(message)
    }
}
