//! Operators as a tree by path, applied to a document in one walk, in the order in which a server does so.

use std::collections::BTreeMap;

use bson::{Bson, Document};

use super::modifier::{Effect, Modifier, Site};
use super::{Change, Dialect, Operators, UpdateContext, UpdateDescription, Updated};
use crate::error::CommandError;
use crate::query::compare;
use crate::query::path;
use crate::query::show;

enum Node<'a> {
    Leaf(&'a Modifier),
    /// By field name, or by array index.
    Fields(BTreeMap<Key, Self>),
    /// By array filter identifier; the empty one means all elements.
    Elements(BTreeMap<&'a str, Self>),
}

/// A field's name, in the order of application: numbers by their value, then names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    number: usize,
    name: String,
}

impl Key {
    fn new(name: &str, dialect: Dialect) -> Self {
        let number = match dialect {
            Dialect::Delta => path::index(name).unwrap_or(usize::MAX),
            // Up to 4.4 all names, numbers too, are taken in lexicographic order.
            Dialect::Legacy => usize::MAX,
        };
        Self {
            number,
            name: name.to_owned(),
        }
    }
}

/// The identifier of `$[identifier]`; empty for `$[]`.
pub(super) fn identifier(part: &str) -> Option<&str> {
    part.strip_prefix("$[")?.strip_suffix(']')
}

/// Finds the conflicts that do not depend on a document.
pub(super) fn check(operators: &Operators) -> Result<(), CommandError> {
    build(operators, Dialect::Legacy, None).map(drop)
}

pub(super) fn apply(
    operators: &Operators,
    document: &Document,
    context: &UpdateContext,
) -> Result<Updated, CommandError> {
    let positional = operators
        .modifiers
        .iter()
        .any(|(path, _)| path.parts().iter().any(|part| part == "$"));
    if positional && context.position.is_none() {
        return Err(CommandError::bad_value(
            "The positional operator did not find the match needed from the query.",
        ));
    }
    let root = build(operators, context.dialect, context.position)?;
    let mut walk = Walk {
        operators,
        document,
        context,
        log: UpdateDescription::default(),
        muted: false,
    };
    let updated = match &root {
        Node::Fields(children) => walk.in_document(children, document, "")?,
        Node::Leaf(_) | Node::Elements(_) => None,
    };
    let Some(updated) = updated else {
        return Ok(Updated {
            document: document.clone(),
            change: Change::None,
        });
    };
    check_id(document, &updated)?;
    Ok(Updated {
        document: updated,
        change: Change::Update(walk.log),
    })
}

fn check_id(old: &Document, new: &Document) -> Result<(), CommandError> {
    let same = match (old.get("_id"), new.get("_id")) {
        (None, _) => true,
        (Some(old), Some(new)) => compare::identical(old, new),
        (Some(_), None) => false,
    };
    if same {
        return Ok(());
    }
    Err(CommandError::immutable_field(
        "Performing an update on the path '_id' would modify the immutable field '_id'",
    ))
}

fn build(operators: &Operators, dialect: Dialect, position: Option<usize>) -> Result<Node<'_>, CommandError> {
    let mut root = Node::Fields(BTreeMap::new());
    for (path, modifier) in &operators.modifiers {
        insert(&mut root, path.parts(), 0, modifier, dialect, position)?;
    }
    Ok(root)
}

fn insert<'a>(
    node: &mut Node<'a>,
    parts: &'a [String],
    at: usize,
    modifier: &'a Modifier,
    dialect: Dialect,
    position: Option<usize>,
) -> Result<(), CommandError> {
    let Some(part) = parts.get(at) else {
        return Err(conflict(parts, parts.len()));
    };
    let last = at + 1 == parts.len();
    // What the next part says decides what the node below is made of.
    let below = || match parts.get(at + 1) {
        None => Node::Leaf(modifier),
        Some(next) if identifier(next).is_some() => Node::Elements(BTreeMap::new()),
        Some(_) => Node::Fields(BTreeMap::new()),
    };
    let child = match (node, identifier(part)) {
        (Node::Elements(children), Some(identifier)) => {
            if last && children.contains_key(identifier) {
                return Err(conflict(parts, at + 1));
            }
            children.entry(identifier).or_insert_with(below)
        }
        (Node::Fields(children), None) => {
            let name = match position {
                Some(position) if part == "$" => position.to_string(),
                Some(_) | None => part.clone(),
            };
            let key = Key::new(&name, dialect);
            if last && children.contains_key(&key) {
                return Err(conflict(parts, at + 1));
            }
            children.entry(key).or_insert_with(below)
        }
        (Node::Leaf(_) | Node::Elements(_) | Node::Fields(_), _) => {
            return Err(conflict(parts, at));
        }
    };
    if last {
        Ok(())
    } else {
        insert(child, parts, at + 1, modifier, dialect, position)
    }
}

fn conflict(parts: &[String], length: usize) -> CommandError {
    CommandError::conflicting_update_operators(format!(
        "Updating the path '{}' would create a conflict at '{}'",
        parts.join("."),
        parts.get(..length).unwrap_or(parts).join(".")
    ))
}

/// What happens to the value of a field.
enum Step {
    Same,
    Set(Bson),
    Remove,
}

/// One application: what it needs, and what it has logged.
struct Walk<'a> {
    operators: &'a Operators,
    document: &'a Document,
    context: &'a UpdateContext,
    log: UpdateDescription,
    /// While an array's elements are updated whose array is logged as a whole.
    muted: bool,
}

impl Walk<'_> {
    fn existing(
        &mut self,
        node: &Node<'_>,
        value: &Bson,
        path: &str,
        in_array: bool,
    ) -> Result<Step, CommandError> {
        match node {
            Node::Leaf(modifier) => self.leaf(modifier, value, path, in_array),
            Node::Fields(children) => {
                if let Bson::Document(document) = value {
                    let updated = self.in_document(children, document, path)?;
                    return Ok(updated.map_or(Step::Same, |new| Step::Set(Bson::Document(new))));
                }
                if let Bson::Array(items) = value {
                    let updated = self.in_array(children, items, path)?;
                    return Ok(updated.map_or(Step::Same, |new| Step::Set(Bson::Array(new))));
                }
                self.in_scalar(children, value, path)
            }
            Node::Elements(children) => {
                let Bson::Array(items) = value else {
                    return Err(CommandError::bad_value(format!(
                        "Cannot apply array updates to non-array element {}",
                        show::element(last_part(path), value)
                    )));
                };
                Ok(self
                    .elements(children, items, path)?
                    .map_or(Step::Same, |items| Step::Set(Bson::Array(items))))
            }
        }
    }

    fn leaf(
        &mut self,
        modifier: &Modifier,
        value: &Bson,
        path: &str,
        in_array: bool,
    ) -> Result<Step, CommandError> {
        match modifier.apply(Some(value), self.site(path))? {
            Effect::Nothing => Ok(Step::Same),
            Effect::Value(new) => {
                self.log_set(path, &new);
                Ok(Step::Set(new))
            }
            Effect::Appended { items, from } => {
                for (index, item) in items.iter().enumerate().skip(from) {
                    self.log_set(&format!("{path}.{index}"), item);
                }
                Ok(Step::Set(Bson::Array(items)))
            }
            Effect::Removed => {
                // An element leaves a null behind. Up to 4.4 the log says removed all the same.
                match (in_array, self.context.dialect) {
                    (true, Dialect::Delta) => self.log_set(path, &Bson::Null),
                    (true, Dialect::Legacy) | (false, _) => self.log_removed(path),
                }
                Ok(Step::Remove)
            }
        }
    }

    fn in_document(
        &mut self,
        children: &BTreeMap<Key, Node<'_>>,
        document: &Document,
        path: &str,
    ) -> Result<Option<Document>, CommandError> {
        let mut updated = None;
        for (key, child) in children {
            let below = join(path, &key.name);
            match document.get(&key.name) {
                Some(value) => match self.existing(child, value, &below, false)? {
                    Step::Same => {}
                    Step::Set(value) => {
                        updated
                            .get_or_insert_with(|| document.clone())
                            .insert(&key.name, value);
                    }
                    Step::Remove => {
                        updated.get_or_insert_with(|| document.clone()).remove(&key.name);
                    }
                },
                None => {
                    if let Some(value) = self.created(child, &below)? {
                        updated
                            .get_or_insert_with(|| document.clone())
                            .insert(&key.name, value);
                    }
                }
            }
        }
        Ok(updated)
    }

    fn in_array(
        &mut self,
        children: &BTreeMap<Key, Node<'_>>,
        items: &[Bson],
        path: &str,
    ) -> Result<Option<Vec<Bson>>, CommandError> {
        let mut updated: Option<Vec<Bson>> = None;
        for (key, child) in children {
            let below = join(path, &key.name);
            let Some(index) = path::index(&key.name) else {
                if self.would_create(child, &below)? {
                    return Err(not_viable(&key.name, path, &Bson::Array(items.to_vec())));
                }
                continue;
            };
            let length = updated.as_ref().map_or(items.len(), Vec::len);
            match items.get(index) {
                Some(value) => {
                    let new = match self.existing(child, value, &below, true)? {
                        Step::Same => continue,
                        Step::Set(value) => value,
                        Step::Remove => Bson::Null,
                    };
                    if let Some(slot) = updated.get_or_insert_with(|| items.to_vec()).get_mut(index) {
                        *slot = new;
                    }
                }
                None => {
                    if index.saturating_sub(length) > MAX_PADDING {
                        return Err(CommandError::new(
                            33,
                            format!("can't backfill more than {MAX_PADDING} elements"),
                        ));
                    }
                    if let Some(value) = self.created(child, &below)? {
                        let array = updated.get_or_insert_with(|| items.to_vec());
                        if array.len() <= index {
                            array.resize(index + 1, Bson::Null);
                        }
                        if let Some(slot) = array.get_mut(index) {
                            *slot = value;
                        }
                    }
                }
            }
        }
        Ok(updated)
    }

    /// A path cannot go on below a scalar; operators that create nothing do not mind.
    fn in_scalar(
        &mut self,
        children: &BTreeMap<Key, Node<'_>>,
        value: &Bson,
        path: &str,
    ) -> Result<Step, CommandError> {
        for (key, child) in children {
            if self.would_create(child, &join(path, &key.name))? {
                return Err(not_viable(&key.name, path, value));
            }
        }
        Ok(Step::Same)
    }

    fn would_create(&mut self, node: &Node<'_>, path: &str) -> Result<bool, CommandError> {
        Ok(self.quietly(|walk| walk.new_value(node, path))?.is_some())
    }

    /// The value of a field that is not there yet, logged; none if the operators create nothing.
    fn created(&mut self, node: &Node<'_>, path: &str) -> Result<Option<Bson>, CommandError> {
        match self.context.dialect {
            Dialect::Legacy => self.new_value(node, path),
            Dialect::Delta => {
                let value = self.quietly(|walk| walk.new_value(node, path))?;
                if let Some(value) = &value {
                    self.log_set(path, value);
                }
                Ok(value)
            }
        }
    }

    fn new_value(&mut self, node: &Node<'_>, path: &str) -> Result<Option<Bson>, CommandError> {
        match node {
            Node::Leaf(modifier) => {
                let value = match modifier.apply(None, self.site(path))? {
                    Effect::Nothing | Effect::Removed => return Ok(None),
                    Effect::Value(value) => value,
                    Effect::Appended { items, .. } => Bson::Array(items),
                };
                self.log_set(path, &value);
                Ok(Some(value))
            }
            Node::Fields(children) => {
                let mut document = Document::new();
                for (key, child) in children {
                    if let Some(value) = self.new_value(child, &join(path, &key.name))? {
                        document.insert(&key.name, value);
                    }
                }
                Ok((!document.is_empty()).then_some(Bson::Document(document)))
            }
            Node::Elements(_) => Err(CommandError::bad_value(format!(
                "The path '{path}' must exist in the document in order to apply array updates."
            ))),
        }
    }

    /// The elements that identifiers name. Where several are concerned, what is logged is the one that changed, or
    /// else the whole array.
    fn elements(
        &mut self,
        children: &BTreeMap<&str, Node<'_>>,
        items: &[Bson],
        path: &str,
    ) -> Result<Option<Vec<Bson>>, CommandError> {
        let matching: Vec<(usize, Vec<&Node<'_>>)> = items
            .iter()
            .enumerate()
            .map(|(index, item)| (index, self.matching(children, item)))
            .filter(|(_, nodes)| !nodes.is_empty())
            .collect();
        let alone = matching.len() <= 1;
        let mut updated = items.to_vec();
        let mut modified = Vec::new();
        for (index, nodes) in matching {
            let below = join(path, &index.to_string());
            let Some(slot) = updated.get_mut(index) else {
                continue;
            };
            for node in nodes {
                let step = if alone {
                    self.existing(node, slot, &below, true)?
                } else {
                    self.quietly(|walk| walk.existing(node, slot, &below, true))?
                };
                *slot = match step {
                    Step::Same => continue,
                    Step::Set(value) => value,
                    Step::Remove => Bson::Null,
                };
                if modified.last() != Some(&index) {
                    modified.push(index);
                }
            }
        }
        match (modified.as_slice(), alone) {
            ([], _) => return Ok(None),
            (_, true) => {}
            ([only], false) => {
                let value = updated.get(*only).cloned().unwrap_or(Bson::Null);
                self.log_set(&join(path, &only.to_string()), &value);
            }
            (_, false) => self.log_set(path, &Bson::Array(updated.clone())),
        }
        Ok(Some(updated))
    }

    fn matching<'n, 'm>(&self, children: &'n BTreeMap<&str, Node<'m>>, item: &Bson) -> Vec<&'n Node<'m>> {
        let names = |name: &str| {
            name.is_empty()
                || self.operators.array_filters.get(name).is_some_and(|filter| {
                    filter.matches(&[(name.to_owned(), item.clone())].into_iter().collect())
                })
        };
        children
            .iter()
            .filter(|(name, _)| names(name))
            .map(|(_, node)| node)
            .collect()
    }

    fn quietly<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.muted, true);
        let result = act(self);
        self.muted = before;
        result
    }

    fn site<'s>(&'s self, path: &'s str) -> Site<'s> {
        Site {
            document: self.document,
            context: self.context,
            path,
        }
    }

    fn log_set(&mut self, path: &str, value: &Bson) {
        if !self.muted {
            self.log.updated_fields.insert(path, value.clone());
        }
    }

    fn log_removed(&mut self, path: &str) {
        if !self.muted {
            self.log.removed_fields.push(path.to_owned());
        }
    }
}

fn not_viable(field: &str, path: &str, value: &Bson) -> CommandError {
    CommandError::path_not_viable(format!(
        "Cannot create field '{field}' in element {{{}}}",
        show::element(last_part(path), value)
    ))
}

fn join(path: &str, part: &str) -> String {
    if path.is_empty() {
        part.to_owned()
    } else {
        format!("{path}.{part}")
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The server's own limit to how many nulls an index beyond an array's end may bring.
const MAX_PADDING: usize = 1_500_000;
