//! The scenarios as they stand in `scenarios.json`.

use serde_json::Value;

/// A scenario.
pub(crate) struct Scenario(Value);

/// Every scenario there is.
pub(crate) fn all() -> Vec<Scenario> {
    let path = super::drivers().join("scenarios.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let scenarios: Vec<Value> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    scenarios.into_iter().map(Scenario).collect()
}

impl Scenario {
    pub(crate) fn json(&self) -> &Value {
        &self.0
    }

    pub(crate) fn name(&self) -> &str {
        self.0["name"].as_str().expect("a scenario has a name")
    }

    pub(crate) fn watch(&self) -> &Value {
        &self.0["watch"]
    }

    pub(crate) fn is_known_to(&self, version: &str) -> bool {
        let bound = |name| self.0.get(name).and_then(Value::as_str);
        bound("since_version").is_none_or(|since| version >= since)
            && bound("before_version").is_none_or(|before| version < before)
    }

    /// Whether it needs shards.
    pub(crate) fn is_sharded(&self) -> bool {
        self.0.get("sharded").is_some_and(|sharded| sharded == true)
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.0.get("slow").is_some_and(|slow| slow == true)
    }

    pub(crate) fn events(&self) -> Events<'_> {
        Events(&self.0["events"])
    }

    /// The code with which the server ends the stream.
    pub(crate) fn error(&self) -> Option<i64> {
        self.0.get("error").and_then(Value::as_i64)
    }

    /// Whether the stream ends by itself, being invalidated.
    pub(crate) fn ends(&self) -> bool {
        self.0.get("ends").is_some_and(|ends| ends == true)
    }

    /// How often the streams are to resume: the driver's, and tail's.
    pub(crate) fn resumes(&self) -> (u64, u64) {
        let resumes = &self.0["resumes"];
        let of = |who: &str| resumes.get(who).unwrap_or(resumes).as_u64().unwrap_or(0);
        (of("driver"), of("tail"))
    }
}

/// The events' operation types: in order, or how many of each come one after another.
pub(crate) struct Events<'a>(&'a Value);

impl Events<'_> {
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.kinds().len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn is_met_by(&self, kinds: &[Value]) -> bool {
        self.kinds() == kinds
    }

    fn kinds(&self) -> Vec<Value> {
        match self.0 {
            Value::Array(kinds) => kinds.clone(),
            Value::Object(counts) => counts
                .iter()
                .flat_map(|(kind, count)| {
                    let count = usize::try_from(count.as_u64().unwrap_or(0)).unwrap_or(0);
                    std::iter::repeat_n(Value::from(kind.as_str()), count)
                })
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                panic!("a scenario's events are a list, or counts")
            }
        }
    }
}

/// The exit code of `changestream tail` for a server's error.
pub(crate) fn exit_code_of(error: i64) -> i32 {
    match error {
        260 => 5,
        280 => 4,
        286 => 3,
        47 => 8,
        10334 => 6,
        _ => 14,
    }
}
