//! Tests that measure time, over sockets and by the real clock: a busy machine may be later than the few milliseconds that
//! such a test allows.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::environment::Environment;
use super::fault::Fault;
use super::schema::{EntityDefinition, Operation, Test, TestFile};
use super::{BUSY, over_sockets};

/// How many tests were repeated, so far.
pub(crate) fn repeated() -> usize {
    REPEATED.load(Ordering::Relaxed)
}

/// Whether a test measures time.
pub(super) fn is_about_time(file: &TestFile, test: &Test) -> bool {
    let is_timed = |entity: &EntityDefinition| match entity {
        EntityDefinition::Client(client) => client.uri_options.contains_key("timeoutMS"),
        _ => false,
    };
    if file.create_entities.iter().any(is_timed) {
        return true;
    }
    let of = |operation: &Operation| serde_json::to_string(&operation.arguments).unwrap_or_default();
    test.operations.iter().map(of).any(|arguments| {
        ["timeoutMS", "blockTimeMS", "TimeoutMS"]
            .iter()
            .any(|word| arguments.contains(word))
    })
}

/// Runs a test on every adapter while nothing else runs; if it fails once more, with all its times longer alike: what
/// they are to each other is what it is about.
pub(super) fn over_sockets_alone(
    environment: Environment,
    content: &Value,
    index: usize,
) -> Result<(), Fault> {
    let _alone = BUSY.write().unwrap_or_else(PoisonError::into_inner);
    let (file, test) = TestFile::parse(content, index)?;
    let reason = match over_sockets(environment, &file, &test) {
        Err(Fault::Failed(reason) | Fault::Beyond(_, reason)) => reason,
        other => return other,
    };
    REPEATED.fetch_add(1, Ordering::Relaxed);
    let description = content["tests"][index]["description"]
        .as_str()
        .unwrap_or_default();
    eprintln!("repeated with times {FACTOR} x as long, since it is about time: {description}: {reason}");
    let mut longer = content.clone();
    lengthen(&mut longer);
    let (file, test) = TestFile::parse(&longer, index)?;
    over_sockets(environment, &file, &test)
}

/// Multiplies every time: numbers whose names say that they are milliseconds, and what such numbers are compared with.
fn lengthen(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name.ends_with("MS") || name == "ms" {
                    multiply(value);
                } else {
                    lengthen(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(lengthen),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn multiply(value: &mut Value) {
    if let Some(bound) = value.get_mut("$$lte") {
        return multiply(bound);
    }
    if let Some(number) = value.as_u64() {
        *value = number.saturating_mul(FACTOR).into();
    }
}

/// How much longer.
const FACTOR: u64 = 5;

static REPEATED: AtomicUsize = AtomicUsize::new(0);
