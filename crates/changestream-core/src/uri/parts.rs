//! Taking a connection string apart (Connection String specification), before any option is understood.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::error::{UriError, UriPlace};
use super::option_table;
use super::secret::{MASK, Secret};

/// What stands where in a connection string, still percent-encoded.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) scheme: Scheme,
    user_info: Option<&'a str>,
    pub(super) hosts: &'a str,
    /// From the first slash or question mark on.
    path: &'a str,
    query: Option<&'a str>,
    /// Whether an at-sign stands behind the hosts: they may then be part of a password that holds an unescaped slash
    /// or question mark, and must not be repeated in an error.
    pub(super) may_leak: bool,
}

/// How the hosts are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `mongodb`: a list of hosts.
    Hosts,
    /// `mongodb+srv`: a name whose SRV records list the hosts.
    Srv,
}

/// User name and password, decoded.
pub(super) struct UserInfo {
    pub(super) username: String,
    pub(super) password: Option<Secret>,
}

/// One `key=value` of the options.
pub(super) struct Pair<'a> {
    /// Position, counted from 1.
    pub(super) number: usize,
    /// Decoded, ASCII letters in lower case.
    pub(super) key: String,
    /// Decoded.
    pub(super) value: String,
    raw: &'a str,
}

/// All pairs, and whether they were separated by semicolons.
pub(super) struct Pairs<'a> {
    pub(super) list: Vec<Pair<'a>>,
    pub(super) semicolons: bool,
}

impl<'a> Parts<'a> {
    pub(super) fn split(text: &'a str) -> Result<Self, UriError> {
        if text.trim() != text {
            return Err(UriError::new(UriPlace::Whole, "remove the white space around it"));
        }
        let (scheme, rest) = if let Some(rest) = text.strip_prefix(SCHEME) {
            (Scheme::Hosts, rest)
        } else if let Some(rest) = text.strip_prefix(SRV_SCHEME) {
            (Scheme::Srv, rest)
        } else {
            return Err(UriError::new(
                UriPlace::Scheme,
                "it must begin with mongodb:// or mongodb+srv://",
            ));
        };
        let (authority, tail) = match rest.find(['/', '?']) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        let (path, query) = match tail.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (tail, None),
        };
        if path.contains('@') {
            return Err(UriError::new(UriPlace::UserInfo, ENCODE_USER_INFO));
        }
        let (user_info, hosts) = match authority.rsplit_once('@') {
            Some((user_info, hosts)) => (Some(user_info), hosts),
            None => (None, authority),
        };
        Ok(Self {
            scheme,
            user_info,
            hosts,
            path,
            query,
            may_leak: tail.contains('@'),
        })
    }

    pub(super) fn user_info(&self) -> Result<Option<UserInfo>, UriError> {
        let Some(text) = self.user_info else {
            return Ok(None);
        };
        let invalid = || UriError::new(UriPlace::UserInfo, ENCODE_USER_INFO);
        if text.chars().any(is_forbidden_in_user_info) {
            return Err(invalid());
        }
        let (username, password) = match text.split_once(':') {
            Some((username, password)) => (username, Some(password)),
            None => (text, None),
        };
        let password = match password {
            Some(password) if password.contains(':') => return Err(invalid()),
            Some(password) => Some(Secret::from(decode(password).map_err(|_| invalid())?)),
            None => None,
        };
        let username = decode(username).map_err(|_| invalid())?;
        Ok(Some(UserInfo { username, password }))
    }

    pub(super) fn database(&self) -> Result<Option<String>, UriError> {
        let invalid = |reason: String| UriError::new(UriPlace::Database, reason);
        let raw = self.path.strip_prefix('/').unwrap_or(self.path);
        if raw.is_empty() {
            return Ok(None);
        }
        let name = decode(raw).map_err(|reason| invalid(reason.to_owned()))?;
        match name.chars().find(|c| FORBIDDEN_IN_DATABASE.contains(c)) {
            Some('/') => Err(invalid(
                "it must not hold a slash; in the path of a Unix domain socket, write %2F for each slash"
                    .to_owned(),
            )),
            Some(character) => Err(invalid(format!("it must not hold {character:?}"))),
            None => Ok(Some(name)),
        }
    }

    pub(super) fn pairs(&self) -> Result<Pairs<'a>, UriError> {
        Pairs::parse(self.query.unwrap_or_default())
    }

    /// The string without its secrets.
    pub(super) fn redacted(&self, pairs: &Pairs<'_>) -> String {
        let mut text = match self.scheme {
            Scheme::Hosts => SCHEME.to_owned(),
            Scheme::Srv => SRV_SCHEME.to_owned(),
        };
        if let Some(user_info) = self.user_info {
            match user_info.split_once(':') {
                Some((username, _)) => text.extend([username, ":", MASK, "@"]),
                None => text.extend([user_info, "@"]),
            }
        }
        text.extend([self.hosts, self.path]);
        let Some(query) = self.query else { return text };
        text.push('?');
        let separator = if pairs.semicolons { ";" } else { "&" };
        let mut list = pairs.list.iter();
        // Empty pieces stay: without them a semicolon might separate what it does not separate now.
        for (index, raw) in query.split(separator).enumerate() {
            text.push_str(if index > 0 { separator } else { "" });
            if !raw.is_empty()
                && let Some(pair) = list.next()
            {
                text.push_str(&pair.redacted());
            }
        }
        text
    }
}

impl<'a> Pairs<'a> {
    /// The pairs of what stands behind the question mark.
    pub(super) fn parse(query: &'a str) -> Result<Self, UriError> {
        // Legacy support: only where every piece is a pair of its own, else the semicolon is part of a value.
        let semicolons = !query.contains('&')
            && query.contains(';')
            && query.split(';').all(|raw| raw.is_empty() || raw.contains('='));
        let list = query
            .split(if semicolons { ';' } else { '&' })
            .enumerate()
            .filter(|(_, raw)| !raw.is_empty())
            .map(|(index, raw)| Pair::parse(raw, index + 1))
            .collect::<Result<_, _>>()?;
        Ok(Self { list, semicolons })
    }
}

impl<'a> Pair<'a> {
    fn parse(raw: &'a str, number: usize) -> Result<Self, UriError> {
        let invalid = |reason: &str| UriError::new(UriPlace::Pair { number }, reason);
        let (key, value) = match raw.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (raw, None),
        };
        if key.contains('@') {
            // No option is called so: the question mark in front of it is part of a password.
            return Err(UriError::new(UriPlace::UserInfo, ENCODE_USER_INFO));
        }
        let value = value.ok_or_else(|| invalid("it must have the form option=value"))?;
        let key = decode(key).map_err(invalid)?.to_ascii_lowercase();
        if key.is_empty() {
            return Err(invalid("the option's name is missing"));
        }
        let value = decode(value).map_err(|reason| match option_table::canonical_name(&key) {
            Some(name) => UriError::option(name, reason),
            None => invalid(reason),
        })?;
        Ok(Self {
            number,
            key,
            value,
            raw,
        })
    }

    /// What an unknown option may be called in a warning: its name, if that looks like one.
    pub(super) fn printable_key(&self) -> Cow<'_, str> {
        if self.key.len() <= MAX_PRINTED_NAME
            && self.key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            Cow::Borrowed(&self.key)
        } else {
            Cow::Owned(format!("in pair {}", self.number))
        }
    }

    fn redacted(&self) -> Cow<'_, str> {
        if option_table::is_printable(&self.key) {
            return Cow::Borrowed(self.raw);
        }
        match (option_table::canonical_name(&self.key), self.printable_key()) {
            (Some(name), _) => Cow::Owned(format!("{name}={MASK}")),
            (None, Cow::Borrowed(key)) => Cow::Owned(format!("{key}={MASK}")),
            (None, Cow::Owned(_)) => Cow::Owned(format!("{MASK}={MASK}")),
        }
    }
}

/// Decodes percent-encoding; a percent sign that begins no escape, and a result that is not UTF-8, are errors.
pub(super) fn decode(text: &str) -> Result<String, &'static str> {
    let complete = text.split('%').skip(1).all(|rest| {
        let mut digits = rest.bytes();
        digits.next().is_some_and(|b| b.is_ascii_hexdigit())
            && digits.next().is_some_and(|b| b.is_ascii_hexdigit())
    });
    if !complete {
        return Err(
            "a percent sign must be followed by two hexadecimal digits; write %25 for a percent sign",
        );
    }
    percent_decode_str(text)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| "what is percent-encoded must be UTF-8")
}

/// RFC 3986 section 3.2.1, but for the reserved characters and the letters beyond ASCII that the Connection String
/// specification lets pass.
fn is_forbidden_in_user_info(character: char) -> bool {
    character.is_control() || character.is_whitespace() || "@\"<>\\^`{|}".contains(character)
}

const SCHEME: &str = "mongodb://";
const SRV_SCHEME: &str = "mongodb+srv://";
const ENCODE_USER_INFO: &str = "reserved characters must be percent-encoded in user name and password: \
    %3A for a colon, %40 for an at-sign, %2F for a slash, %25 for a percent sign and so on";
/// Connection String specification, "Auth Database"; NUL can stand in no name at all.
const FORBIDDEN_IN_DATABASE: [char; 6] = ['/', '\\', ' ', '"', '$', '\0'];
/// Longer than any option's name.
const MAX_PRINTED_NAME: usize = 64;
