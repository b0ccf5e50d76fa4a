//! Query filters: parsed once, matched against documents.

mod matching;
mod parse;
mod types;

use bson::{Bson, Document};

use super::expression::Expression;
use super::needs::Needs;
use super::path::{self, Path};
use crate::error::CommandError;

/// A parsed filter, as of `find`, `$match`, `delete` and `update`.
///
/// ```
/// use bson::doc;
/// use changestream_sim::query::filter::Filter;
///
/// let filter = Filter::parse(&doc! { "a.b": { "$gt": 1 } })?;
/// assert!(filter.matches(&doc! { "a": [{ "b": 1 }, { "b": 2 }] }));
/// # Ok::<(), changestream_sim::error::CommandError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Filter(Vec<Clause>);

/// One condition upon a document.
#[derive(Clone, Debug)]
enum Clause {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Nor(Vec<Filter>),
    Field { path: Path, predicate: Predicate },
    Expression(Box<Expression>),
    Constant(bool),
}

/// One condition upon what stands at a path.
#[derive(Clone, Debug)]
enum Predicate {
    Equal(Bson),
    Compare(Comparison, Bson),
    In {
        values: Vec<Bson>,
        patterns: Vec<regex::Regex>,
    },
    Exists,
    Type(Vec<types::TypeSet>),
    Modulo {
        divisor: i64,
        remainder: i64,
    },
    Pattern(regex::Regex),
    Size(i64),
    Bits {
        test: BitTest,
        mask: u64,
    },
    /// Every one of them, each by whatever element satisfies it.
    All(Vec<Self>),
    /// One array element, a document, that matches the whole filter.
    ElementMatches(Box<Filter>),
    /// One array element that satisfies all of them.
    ElementSatisfies(Vec<Self>),
    Not(Box<Self>),
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum BitTest {
    AllSet,
    AllClear,
    AnySet,
    AnyClear,
}

impl Filter {
    /// The filter that this document writes.
    ///
    /// # Errors
    /// BadValue (2) for unknown operators and bad arguments, in the server's words; 51091 for a regular expression
    /// that is invalid or that the `regex` crate cannot run (look-around, back-references).
    pub fn parse(filter: &Document) -> Result<Self, CommandError> {
        if !path::within_depth(filter, path::MAX_DEPTH) {
            return Err(CommandError::bad_value("the filter is nested too deeply"));
        }
        parse::filter(filter)
    }

    /// Whether the document satisfies the filter. An `$expr` that fails on this document counts as no match.
    pub fn matches(&self, document: &Document) -> bool {
        matching::matches(self, document, &mut None)
    }

    /// Whether the document satisfies the filter, and the array index by which it did, for the positional operator:
    /// the first array element that the last array condition found.
    pub fn match_position(&self, document: &Document) -> Option<Option<usize>> {
        let mut position = None;
        matching::matches(self, document, &mut position).then_some(position)
    }

    /// The equalities that every matching document satisfies, path and value: what an upsert starts from, and what
    /// routes a write by its shard key.
    pub fn equalities(&self) -> Vec<(String, Bson)> {
        let mut found = Vec::new();
        self.collect_equalities(&mut found);
        found
    }

    /// Adds what the filter looks at; false if that is not known beforehand.
    pub(crate) fn collect_needs(&self, needs: &mut Needs) -> bool {
        self.0.iter().all(|clause| match clause {
            Clause::And(filters) | Clause::Or(filters) | Clause::Nor(filters) => {
                filters.iter().all(|filter| filter.collect_needs(needs))
            }
            Clause::Field { path, .. } => {
                needs.add(path.parts());
                true
            }
            Clause::Constant(_) => true,
            Clause::Expression(_) => false,
        })
    }

    fn collect_equalities(&self, found: &mut Vec<(String, Bson)>) {
        for clause in &self.0 {
            match clause {
                Clause::And(filters) => filters.iter().for_each(|filter| filter.collect_equalities(found)),
                // A disjunction of one is a conjunction.
                Clause::Or(filters) => {
                    if let [only] = filters.as_slice() {
                        only.collect_equalities(found);
                    }
                }
                Clause::Field { path, predicate } => {
                    if let Some(value) = predicate.only_value() {
                        found.push((path.parts().join("."), value.clone()));
                    }
                }
                Clause::Nor(_) | Clause::Expression(_) | Clause::Constant(_) => {}
            }
        }
    }
}

impl Predicate {
    /// The one value that satisfies it, if there is but one.
    fn only_value(&self) -> Option<&Bson> {
        if let Self::Equal(value) = self {
            return Some(value);
        }
        if let Self::In { values, patterns } = self
            && let ([only], []) = (values.as_slice(), patterns.as_slice())
        {
            return Some(only);
        }
        let Self::All(all) = self else {
            return None;
        };
        match all.as_slice() {
            [only] => only.only_value(),
            _ => None,
        }
    }
}
