//! The simulated deployment lives through what the recorded server lived through, is asked what that one was asked, and
//! answers in the same form: the same fields in the same order, types, codes, names, texts and labels; the same batches
//! with the same events; cursors that end at the same point. Every difference of all scenarios is told at once.
//!
//! Recorded requests carry values of their run: `replayer` translates them. Nobody recorded the writes: `director` makes
//! them of the recorded events, and lets them be committed when the recorded server had them. What remains different
//! stands in `explained`, with the reason.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod director;
mod explained;
mod replayer;
mod server;
mod shape;

use bson::doc;
use changestream_tests::capture::Scenario;

use replayer::Replayer;

#[test]
fn recorded_requests_are_answered_in_the_recorded_form() {
    let Some(folder) = changestream_tests::captures() else {
        return;
    };
    let (mut compared, mut left, mut found) = (0, 0, Vec::new());
    for scenario in Scenario::all(&folder).unwrap().values() {
        let outcome = Replayer::new(scenario).run();
        compared += outcome.compared;
        left += outcome.left;
        found.extend(outcome.differences);
    }
    let verdict = explained::judge(&found);
    assert!(
        verdict.is_empty(),
        "{} wrong:\n{}",
        verdict.len(),
        verdict.join("\n")
    );
    assert!(compared > 300, "only {compared} replies were compared");
    assert_eq!(left, 0, "recorded replies that nothing was compared with");
}

#[test]
fn differences_of_every_kind_are_told_at_once() {
    let recorded = doc! {
        "cursor": { "nextBatch": [{ "operationType": "insert" }], "id": 5_i64, "ns": "d.c" },
        "ok": 1.0, "n": 1, "errorLabels": ["A"],
    };
    let ours = doc! {
        "cursor": { "nextBatch": [], "ns": "d.c", "id": 0_i64 },
        "ok": 0.0, "n": 1_i64, "errorLabels": ["B"], "more": true,
    };
    let found = shape::differences(&recorded, &ours);
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    let expected = [
        "",
        "cursor",
        "cursor.nextBatch",
        "cursor.id",
        "ok",
        "n",
        "errorLabels[]",
    ];
    assert_eq!(paths, expected, "{found:#?}");
    assert_eq!(shape::differences(&recorded, &recorded), []);
}

#[test]
fn an_explanation_that_explains_nothing_is_wrong_itself() {
    let verdict = explained::judge(&[]);
    assert_eq!(verdict.len(), explained::COUNT);
}
