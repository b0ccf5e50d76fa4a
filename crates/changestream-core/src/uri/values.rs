//! Reading the values of options by their data types (Connection String specification, "Values").

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{UriError, Warning};

/// The value of an option, decoded, and the option's name as the specification writes it.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) name: &'static str,
    pub(super) text: &'a str,
}

/// What keeps an option from being set.
pub(super) enum Problem {
    /// The value is invalid: ignored with a warning, as the specification demands.
    Ignored(String),
    /// The connection string must not be used.
    Fatal(UriError),
}

impl From<UriError> for Problem {
    fn from(error: UriError) -> Self {
        Self::Fatal(error)
    }
}

impl Value<'_> {
    /// A value that is ignored because it is not what is expected.
    pub(super) fn expected(self, what: &str) -> Problem {
        Problem::Ignored(if self.text.is_empty() {
            "was ignored: it has no value".to_owned()
        } else {
            format!("was ignored: its value must be {what}")
        })
    }

    pub(super) fn string(self) -> Result<String, Problem> {
        if self.text.is_empty() {
            return Err(self.expected("text"));
        }
        Ok(self.text.to_owned())
    }

    /// `true`, `false`, and with a warning the legacy spellings of both.
    pub(super) fn boolean(self, warnings: &mut Vec<Warning>) -> Result<bool, Problem> {
        let value = match self.text {
            "true" => return Ok(true),
            "false" => return Ok(false),
            text => match text.to_ascii_lowercase().as_str() {
                "1" | "yes" | "y" | "t" | "true" => true,
                "0" | "-1" | "no" | "n" | "f" | "false" => false,
                _ => return Err(self.expected("true or false")),
            },
        };
        let text = format!("has a deprecated value; write {}={value}", self.name);
        warnings.push(Warning::new(self.name, text));
        Ok(value)
    }

    pub(super) fn integer(self, range: RangeInclusive<i64>, what: &str) -> Result<i64, Problem> {
        if self.text.starts_with('+') {
            return Err(self.expected(what));
        }
        match self.text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(self.expected(what)),
        }
    }

    /// A non-negative 32-bit integer, the URI Options specification's default for integers.
    pub(super) fn count(self) -> Result<u32, Problem> {
        let number = self.integer(0..=MAX_INTEGER, "a whole number from 0")?;
        u32::try_from(number).map_err(|_| self.expected("a whole number from 0"))
    }

    pub(super) fn milliseconds(self) -> Result<Duration, Problem> {
        self.milliseconds_from(0)
    }

    pub(super) fn milliseconds_from(self, least: u32) -> Result<Duration, Problem> {
        match self.count() {
            Ok(count) if count >= least => Ok(Duration::from_millis(count.into())),
            Ok(_) | Err(_) => Err(self.expected(&format!("a whole number of milliseconds from {least}"))),
        }
    }

    /// Comma-separated `key:value` pairs; a pair without a key or a colon is an error of its own.
    pub(super) fn key_values(self) -> impl Iterator<Item = Result<(String, String), ()>> {
        self.text.split(',').map(|pair| match pair.split_once(':') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            Some(_) | None => Err(()),
        })
    }
}

/// URI Options specification: integers are 32-bit unless said otherwise.
pub(super) const MAX_INTEGER: i64 = i32::MAX as i64;
