//! Trees of the library's own types, made from bytes that came from elsewhere.
//!
//! The library's own conversion goes as deep as the bytes say, and copies what is left of them at each level: a message that
//! nests would take the stack, and memory by the square of its depth. Here a level takes little of the stack, nothing is
//! copied but what is kept, and what is wrong is told with its place.

mod room;

use std::fmt;

use bson::{Bson, Document, JavaScriptCodeWithScope, RawBsonRef, RawDocument};

use crate::depth::MAX_DEPTH;
use crate::walk::{self, Element};

/// The document that these bytes are.
pub(crate) fn document(bytes: &[u8]) -> Result<Document, Broken> {
    document_at(bytes, 0)
}

/// The value, whatever it is.
pub(crate) fn value(raw: RawBsonRef<'_>) -> Result<Bson, Broken> {
    if let Some(raw) = raw.as_document() {
        return document(raw.as_bytes()).map(Bson::Document);
    }
    if let Some(raw) = raw.as_array() {
        return array(raw.as_bytes(), 0);
    }
    if let Some(raw) = raw.as_javascript_with_scope() {
        return with_scope(raw.code, raw.scope.as_bytes(), 0);
    }
    Bson::try_from(raw).map_err(|_| Broken::new(MALFORMED))
}

/// Why bytes are no tree, and where.
#[derive(Debug)]
pub(crate) struct Broken(Box<Inner>);

#[derive(Debug)]
struct Inner {
    /// From the inside out.
    path: Vec<String>,
    what: &'static str,
}

impl Broken {
    fn new(what: &'static str) -> Self {
        let path = Vec::new();
        Self(Box::new(Inner { path, what }))
    }

    fn within(mut self, key: &[u8]) -> Self {
        self.0.path.push(String::from_utf8_lossy(key).into_owned());
        self
    }

    /// Dotted; none if it is the whole.
    pub(crate) fn path(&self) -> Option<String> {
        let names: Vec<&str> = self.0.path.iter().rev().map(String::as_str).collect();
        (!names.is_empty()).then(|| names.join("."))
    }

    /// What is wrong there.
    pub(crate) fn what(&self) -> &'static str {
        self.0.what
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            Some(path) => write!(f, "`{path}` {}", self.what()),
            None => write!(f, "it {}", self.what()),
        }
    }
}

fn document_at(bytes: &[u8], depth: usize) -> Result<Document, Broken> {
    let mut made = room::document_for(walk::count(bytes));
    let mut elements = walk::elements(bytes);
    loop {
        // Most values are texts, and a text is less to move than what can be anything.
        if let Some((key, text)) = elements.next_text() {
            made.insert(key, text);
            continue;
        }
        let Some(element) = elements.next() else { break };
        let wrong = |broken: Broken| broken.within(element.key());
        let key = str::from_utf8(element.key()).map_err(|_| wrong(Broken::new(MALFORMED)))?;
        made.insert(key, value_of(element, depth).map_err(wrong)?);
    }
    ended(elements).map(|()| made)
}

fn array(bytes: &[u8], depth: usize) -> Result<Bson, Broken> {
    let mut made = Vec::new();
    let mut elements = walk::elements(bytes);
    for element in &mut elements {
        made.push(value_of(element, depth).map_err(|broken| broken.within(element.key()))?);
    }
    ended(elements).map(|()| Bson::Array(made))
}

fn value_of(element: Element<'_>, depth: usize) -> Result<Bson, Broken> {
    if depth == MAX_DEPTH && element.nested().is_some() {
        return Err(Broken::new(TOO_DEEP));
    }
    match element.kind() {
        walk::DOCUMENT => document_at(element.bytes(), depth + 1).map(Bson::Document),
        walk::ARRAY => array(element.bytes(), depth + 1),
        walk::STRING => text(element).map(|text| Bson::String(text.to_owned())),
        walk::CODE_WITH_SCOPE => {
            let (code, scope) = element
                .code_with_scope()
                .and_then(|(code, scope)| Some((walk::text(code)?, scope)))
                .ok_or_else(|| Broken::new(MALFORMED))?;
            with_scope(code, scope, depth)
        }
        _ => match element.value() {
            Some(value) => Bson::try_from(value).map_err(|_| Broken::new(MALFORMED)),
            None => by_library(element).ok_or_else(|| Broken::new(MALFORMED)),
        },
    }
}

fn text(element: Element<'_>) -> Result<&str, Broken> {
    element.text().ok_or_else(|| Broken::new(NO_TEXT))
}

fn with_scope(code: &str, scope: &[u8], depth: usize) -> Result<Bson, Broken> {
    let scope = document_at(scope, depth + 1).map_err(|broken| broken.within(b"$scope"))?;
    let code = code.to_owned();
    Ok(Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
        code,
        scope,
    }))
}

fn ended(elements: walk::Elements<'_>) -> Result<(), Broken> {
    match elements.ended_well() {
        true => Ok(()),
        false => Err(Broken::new(MALFORMED)),
    }
}

/// A value of a kind that is seldom, and in which nothing nests: as the library reads it in a document of its own.
fn by_library(element: Element<'_>) -> Option<Bson> {
    let value = element.bytes();
    // Length, type, an empty name, and the end.
    let len = value.len().checked_add(4 + 1 + 1 + 1)?;
    let mut alone = Vec::with_capacity(len);
    alone.extend_from_slice(&i32::try_from(len).ok()?.to_le_bytes());
    alone.extend_from_slice(&[element.kind(), 0]);
    alone.extend_from_slice(value);
    alone.push(0);
    let alone = RawDocument::from_bytes(&alone).ok()?;
    let (_, value) = alone.iter().next()?.ok()?;
    Bson::try_from(value).ok()
}

const MALFORMED: &str = "is not valid BSON";
const NO_TEXT: &str = "is not valid BSON: a string that is not UTF-8";
const TOO_DEEP: &str = "nests deeper than 250 levels, which no server does";
