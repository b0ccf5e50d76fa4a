//! Projections: of `$project` and `find`, and the field setting of `$addFields`.

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, RawDocument};

use super::expression::{Expression, Scope};
use super::number::Number;
use super::path::Path;
use crate::error::CommandError;

/// A parsed projection.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    mode: Mode,
    fields: Tree,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Include,
    Exclude,
}

/// What happens to the fields of one level, in the order of the specification.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tree(Vec<(String, Action)>);

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Keep,
    Drop,
    Compute(Expression),
    Below(Tree),
}

impl Projection {
    /// The projection of a `$project` stage.
    ///
    /// # Errors
    /// 51272 for an empty one, 31253 and 31254 for mixing inclusion and exclusion, 31249 and 31250 for colliding
    /// paths, and those of bad paths and expressions.
    pub fn parse(spec: &Document) -> Result<Self, CommandError> {
        if spec.is_empty() {
            return Err(CommandError::new(
                51272,
                "projection specification must have at least one field",
            ));
        }
        let mut leaves = Vec::new();
        flatten(spec, "", &mut leaves)?;
        let mode = mode_of(&leaves)?;
        let mut fields = Tree::default();
        for (path, action) in leaves {
            fields.insert(&Path::checked(&path)?, action)?;
        }
        if mode == Mode::Include && !fields.0.iter().any(|(name, _)| name == "_id") {
            fields.0.insert(0, ("_id".to_owned(), Action::Keep));
        }
        Ok(Self { mode, fields })
    }

    /// The projection of a `find`: an empty one keeps everything.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
    pub fn parse_find(spec: &Document) -> Result<Self, CommandError> {
        if spec.is_empty() {
            return Ok(Self {
                mode: Mode::Exclude,
                fields: Tree::default(),
            });
        }
        Self::parse(spec)
    }

    /// The projection that removes these fields: `$unset`.
    ///
    /// # Errors
    /// Those of bad and colliding paths.
    pub fn excluding<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<Self, CommandError> {
        let mut fields = Tree::default();
        for path in paths {
            fields.insert(&Path::checked(path)?, Action::Drop)?;
        }
        Ok(Self {
            mode: Mode::Exclude,
            fields,
        })
    }

    /// The projected event, still encoded, of a projection that [is plain](Self::is_plain); none of what is malformed.
    pub(crate) fn apply_encoded(&self, event: &RawDocument) -> Option<RawDocumentBuf> {
        let mut out = RawDocumentBuf::new();
        for element in event.iter_elements() {
            let element = element.ok()?;
            let kept = match (self.mode, self.fields.action(element.key().as_str())) {
                (Mode::Include, action) => action.is_some(),
                (Mode::Exclude, action) => action.is_none(),
            };
            if kept {
                out.append(element.key(), element.value().ok()?);
            }
        }
        Some(out)
    }

    /// Whether it keeps or drops whole fields, and keeps `_id`.
    pub(crate) fn is_plain(&self) -> bool {
        let all = |wanted: &Action| self.fields.0.iter().all(|(_, action)| action == wanted);
        match self.mode {
            Mode::Include => all(&Action::Keep),
            Mode::Exclude => all(&Action::Drop) && self.fields.action("_id").is_none(),
        }
    }

    /// The projected document.
    ///
    /// # Errors
    /// Those of computed fields.
    pub fn apply(&self, document: &Document, scope: Scope<'_>) -> Result<Document, CommandError> {
        match self.mode {
            Mode::Include => self.fields.include(document, scope),
            Mode::Exclude => Ok(self.fields.exclude(document)),
        }
    }
}

/// The fields that `$addFields` and `$set` compute.
#[derive(Clone, Debug, PartialEq)]
pub struct AddFields(Tree);

impl AddFields {
    /// The stage that this document specifies.
    ///
    /// # Errors
    /// 40177 for an empty one, and those of bad or colliding paths and of expressions.
    pub fn parse(spec: &Document) -> Result<Self, CommandError> {
        if spec.is_empty() {
            return Err(CommandError::new(
                40177,
                "specification must have at least one field",
            ));
        }
        let mut leaves = Vec::new();
        for (name, value) in spec {
            flatten_computed(value, name, &mut leaves)?;
        }
        let mut fields = Tree::default();
        for (path, action) in leaves {
            fields.insert(&Path::checked(&path)?, action)?;
        }
        Ok(Self(fields))
    }

    /// The document with the fields set.
    ///
    /// # Errors
    /// Those of the expressions.
    pub fn apply(&self, document: &Document, scope: Scope<'_>) -> Result<Document, CommandError> {
        let mut out = document.clone();
        self.0.set(&mut out, scope)?;
        Ok(out)
    }
}

impl Tree {
    fn insert(&mut self, path: &Path, action: Action) -> Result<(), CommandError> {
        self.insert_at(path.parts(), action, &path.parts().join("."))
    }

    fn insert_at(&mut self, parts: &[String], action: Action, whole: &str) -> Result<(), CommandError> {
        let Some((first, rest)) = parts.split_first() else {
            return Ok(());
        };
        let existing = self.0.iter_mut().find(|(name, _)| name == first);
        let collision = || CommandError::new(31249, format!("Path collision at {whole}"));
        match (existing, rest.is_empty()) {
            (Some(_), true) => Err(collision()),
            (Some((_, Action::Below(below))), false) => below.insert_at(rest, action, whole),
            (Some((_, Action::Keep | Action::Drop | Action::Compute(_))), false) => Err(CommandError::new(
                31250,
                format!("Path collision at {whole} remaining portion {}", rest.join(".")),
            )),
            (None, true) => {
                self.0.push((first.clone(), action));
                Ok(())
            }
            (None, false) => {
                let mut below = Self::default();
                below.insert_at(rest, action, whole)?;
                self.0.push((first.clone(), Action::Below(below)));
                Ok(())
            }
        }
    }

    fn action(&self, name: &str) -> Option<&Action> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, action)| action)
    }

    /// Kept fields in the document's order, then computed ones in the specification's.
    fn include(&self, document: &Document, scope: Scope<'_>) -> Result<Document, CommandError> {
        let mut out = Document::new();
        for (name, value) in document {
            match self.action(name) {
                Some(Action::Keep) => {
                    out.insert(name, value.clone());
                }
                Some(Action::Below(below)) => {
                    if let Some(kept) = below.include_value(value, scope)? {
                        out.insert(name, kept);
                    }
                }
                Some(Action::Drop | Action::Compute(_)) | None => {}
            }
        }
        self.compute(document, &mut out, scope)?;
        Ok(out)
    }

    fn include_value(&self, value: &Bson, scope: Scope<'_>) -> Result<Option<Bson>, CommandError> {
        if let Bson::Document(document) = value {
            return Ok(Some(Bson::Document(self.include(document, scope)?)));
        }
        if let Bson::Array(items) = value {
            let mut kept = Vec::new();
            for item in items {
                kept.extend(self.include_value(item, scope)?);
            }
            return Ok(Some(Bson::Array(kept)));
        }
        if self.computes() {
            return Ok(Some(Bson::Document(self.include(&Document::new(), scope)?)));
        }
        Ok(None)
    }

    fn compute(&self, document: &Document, out: &mut Document, scope: Scope<'_>) -> Result<(), CommandError> {
        for (name, action) in &self.0 {
            match action {
                Action::Compute(expression) => {
                    if let Some(value) = expression.evaluate(scope)? {
                        out.insert(name, value);
                    }
                }
                Action::Below(below) if !document.contains_key(name) && below.computes() => {
                    out.insert(name, below.include(&Document::new(), scope)?);
                }
                Action::Below(_) | Action::Keep | Action::Drop => {}
            }
        }
        Ok(())
    }

    fn computes(&self) -> bool {
        self.0.iter().any(|(_, action)| match action {
            Action::Compute(_) => true,
            Action::Below(below) => below.computes(),
            Action::Keep | Action::Drop => false,
        })
    }

    fn exclude(&self, document: &Document) -> Document {
        let mut out = Document::new();
        for (name, value) in document {
            match self.action(name) {
                Some(Action::Drop) => {}
                Some(Action::Below(below)) => {
                    out.insert(name, below.exclude_value(value));
                }
                Some(Action::Keep | Action::Compute(_)) | None => {
                    out.insert(name, value.clone());
                }
            }
        }
        out
    }

    fn exclude_value(&self, value: &Bson) -> Bson {
        if let Bson::Document(document) = value {
            return Bson::Document(self.exclude(document));
        }
        if let Bson::Array(items) = value {
            return Bson::Array(items.iter().map(|item| self.exclude_value(item)).collect());
        }
        value.clone()
    }

    fn set(&self, out: &mut Document, scope: Scope<'_>) -> Result<(), CommandError> {
        for (name, action) in &self.0 {
            match action {
                Action::Compute(expression) => match expression.evaluate(scope)? {
                    Some(value) => {
                        out.insert(name, value);
                    }
                    None => {
                        out.remove(name);
                    }
                },
                Action::Below(below) => {
                    let value = match out.get(name) {
                        Some(value) => below.set_value(value, scope)?,
                        None => below.set_value(&Bson::Null, scope)?,
                    };
                    out.insert(name, value);
                }
                Action::Keep | Action::Drop => {}
            }
        }
        Ok(())
    }

    /// The value with the fields below it set; a scalar makes way for a document.
    fn set_value(&self, value: &Bson, scope: Scope<'_>) -> Result<Bson, CommandError> {
        if let Bson::Array(items) = value {
            let set: Result<_, _> = items.iter().map(|item| self.set_value(item, scope)).collect();
            return Ok(Bson::Array(set?));
        }
        let mut document = value.as_document().cloned().unwrap_or_default();
        self.set(&mut document, scope)?;
        Ok(Bson::Document(document))
    }
}

/// The leaves of a projection: dotted path and what it says.
fn flatten(spec: &Document, prefix: &str, leaves: &mut Vec<(String, Action)>) -> Result<(), CommandError> {
    for (name, value) in spec {
        let path = format!("{prefix}{name}");
        if let Some(number) = Number::of(value) {
            let keep = number.compare(Number::Int(0)).is_ne();
            leaves.push((path, if keep { Action::Keep } else { Action::Drop }));
        } else if let Bson::Boolean(keep) = value {
            leaves.push((path, if *keep { Action::Keep } else { Action::Drop }));
        } else if let Bson::Document(inner) = value
            && !inner.keys().next().is_some_and(|first| first.starts_with('$'))
        {
            if inner.is_empty() {
                return Err(CommandError::new(
                    51270,
                    "An empty sub-projection is not a valid value. Found empty object at path",
                ));
            }
            flatten(inner, &format!("{path}."), leaves)?;
        } else {
            leaves.push((path, Action::Compute(Expression::parse(value)?)));
        }
    }
    Ok(())
}

/// The leaves of `$addFields`: numbers and booleans are values there.
fn flatten_computed(
    value: &Bson,
    path: &str,
    leaves: &mut Vec<(String, Action)>,
) -> Result<(), CommandError> {
    if let Bson::Document(inner) = value
        && !inner.is_empty()
        && !inner.keys().any(|name| name.starts_with('$'))
    {
        for (name, value) in inner {
            if name.contains('.') {
                return Err(CommandError::new(
                    40183,
                    format!("FieldPath field names may not contain '.' in nested object: {name}"),
                ));
            }
            flatten_computed(value, &format!("{path}.{name}"), leaves)?;
        }
        return Ok(());
    }
    leaves.push((path.to_owned(), Action::Compute(Expression::parse(value)?)));
    Ok(())
}

/// Whether a projection includes or excludes: its first leaf other than `_id` decides.
fn mode_of(leaves: &[(String, Action)]) -> Result<Mode, CommandError> {
    let mut decided = None;
    for (path, action) in leaves {
        let wants = match action {
            Action::Keep | Action::Compute(_) | Action::Below(_) => Mode::Include,
            Action::Drop => Mode::Exclude,
        };
        if path == "_id" {
            continue;
        }
        match (decided.unwrap_or(wants), wants) {
            (Mode::Include, Mode::Exclude) => {
                return Err(CommandError::new(
                    31254,
                    format!("Cannot do exclusion on field {path} in inclusion projection"),
                ));
            }
            (Mode::Exclude, Mode::Include) => {
                return Err(CommandError::new(
                    31253,
                    format!("Cannot do inclusion on field {path} in exclusion projection"),
                ));
            }
            (Mode::Include, Mode::Include) | (Mode::Exclude, Mode::Exclude) => decided = Some(wants),
        }
    }
    let id_alone = || leaves.iter().all(|(_, action)| *action == Action::Drop);
    Ok(decided.unwrap_or_else(|| if id_alone() { Mode::Exclude } else { Mode::Include }))
}
