//! Documents of read and write concerns: what a concern looks like in a command.

use bson::Document;
use changestream_core::{ReadConcern, WatchOptions};
use serde_json::{Value, json};

use crate::by_hand::ByHand;
use crate::judgement::Verdict;

/// Runs one case.
pub(crate) fn run(case: &Value) -> Verdict {
    if case.get("writeConcernDocument").is_some() {
        return Verdict::Skipped("a change-stream client sends no write concern".to_owned());
    }
    run_read_concern(case).into()
}

fn run_read_concern(case: &Value) -> Result<(), String> {
    let mut options = WatchOptions::default();
    options.read_concern = case["readConcern"]["level"].as_str().map(ReadConcern::new);
    let by_hand = ByHand::new(&options).map_err(|error| error.to_string())?;
    let sent = by_hand.aggregate.get_document("readConcern").ok();
    let document = bson::Bson::from(sent.cloned().unwrap_or_else(Document::new)).into_relaxed_extjson();
    if document != case["readConcernDocument"] {
        return Err(format!("{document} is not {}", case["readConcernDocument"]));
    }
    if case["isServerDefault"] != json!(sent.is_none()) {
        return Err("only no read concern is the server's default".to_owned());
    }
    Ok(())
}
