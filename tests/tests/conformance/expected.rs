//! The fields that a file expects, held to account.

use serde_json::Value;

/// The fields that a file expects. A field that is absent asserts nothing; one that nobody asked about is an error.
pub(crate) struct Expected {
    fields: serde_json::Map<String, Value>,
    complaints: Vec<String>,
}

impl Expected {
    pub(crate) fn new(fields: &Value) -> Self {
        Self {
            fields: fields.as_object().unwrap().clone(),
            complaints: Vec::new(),
        }
    }

    pub(crate) fn value(&mut self, name: &str, found: Value) {
        if let Some(expected) = self.fields.remove(name)
            && expected != found
        {
            self.complaints
                .push(format!("expected {name} {expected}, not {found}"));
        }
    }

    /// The field, null if it is absent, for the caller to judge.
    pub(crate) fn take(&mut self, name: &str) -> Value {
        self.fields.remove(name).unwrap_or(Value::Null)
    }

    pub(crate) fn finish(self) -> Result<(), String> {
        let mut complaints = self.complaints;
        for name in self.fields.keys() {
            complaints.push(format!("the test does not look at {name}"));
        }
        if complaints.is_empty() {
            return Ok(());
        }
        Err(complaints.join("; "))
    }
}
