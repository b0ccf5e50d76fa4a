//! The program as a shell sees it, where no server is needed.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn changestream(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_changestream"))
        .args(arguments)
        .env_remove("CHANGESTREAM_URI")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn explained(argument: &str) -> Value {
    let output = changestream(&["token", argument]);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A file of that content, whose name no other test uses.
fn file(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).unwrap();
    path
}

const EVENT: &str =
    "826B030F15000000012B022C0100296E5A100440F9A34BB4064C96A38F06AB76E96584461E5F6964002B020004";

#[test]
fn a_token_is_explained_as_json() {
    let info = explained(EVENT);
    assert_eq!(info["kind"], "event");
    assert_eq!(info["version"], 1);
    assert_eq!(
        info["clusterTime"],
        json!({ "$timestamp": { "t": 1_795_362_581, "i": 1 } })
    );
    assert_eq!(info["date"], json!({ "$date": "2026-11-22T15:49:41Z" }));
    assert_eq!(info["documentKey"], json!({ "_id": 1 }));
    assert_eq!(info["collectionUUID"], "40f9a34b-b406-4c96-a38f-06ab76e96584");
    assert_eq!(info["fromInvalidate"], false);
}

#[test]
fn a_token_is_taken_in_every_form_in_which_it_is_given() {
    let document = format!(r#"{{"_data":"{EVENT}"}}"#);
    let checkpoint = file("every-form.json", &format!("{{\"startAfter\":{document}}}\n"));
    for argument in [
        document,
        EVENT.to_lowercase(),
        format!("@{}", checkpoint.display()),
    ] {
        assert_eq!(explained(&argument), explained(EVENT), "{argument}");
    }
}

#[test]
fn a_token_of_another_database_is_not_explained() {
    let output = changestream(&["token", "0163A1F2"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("known layout"), "{}", stderr(&output));
}

#[test]
fn wrong_arguments_are_usage_errors_that_name_the_place() {
    let uri = "mongodb://localhost";
    for (arguments, named) in [
        (&["tail"][..], "URI"),
        (&["tail", "localhost:27017"], "mongodb://"),
        (&["tail", uri, "--coll", "c"], "--db"),
        (&["tail", uri, "--pipeline", "[1]"], "stage 1"),
        (&["tail", uri, "--pipeline", "{"], "--pipeline"),
        (&["tail", uri, "--resume-after", "not a token"], "resume token"),
        (&["tail", uri, "--start-at", "yesterday"], "--start-at"),
        (&["tail", uri, "--read-preference", "fastest"], "nearest"),
        (&["tail", uri, "--format", "xml"], "canonical"),
        (&["tail", uri, "--max-events", "0"], "--max-events"),
        (&["token", "{"], "extended JSON"),
        (&["frobnicate"], "frobnicate"),
        (&["sim", "--server-version", "9"], "modelled"),
        (&["sim", "--port", "65535"], "65535"),
        (&["sim", "--user", "u"], "--password"),
        (&["sim", "--mongos", "3"], "--sharded"),
        (&["sim", "--sharded", "--standalone"], "--standalone"),
    ] {
        let output = changestream(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(named),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn files_that_cannot_be_read_have_their_own_exit_code() {
    let uri = "mongodb://localhost";
    let broken = file("broken-checkpoint.json", "half a tok");
    let broken = broken.to_str().unwrap();
    for (arguments, named) in [
        (&["token", "@/nonexistent/token"][..], "/nonexistent/token"),
        (
            &["tail", uri, "--start-after", "@/nonexistent/token"],
            "/nonexistent/token",
        ),
        (&["tail", uri, "--checkpoint", broken], "broken-checkpoint.json"),
        (
            &["tail", uri, "--checkpoint", env!("CARGO_TARGET_TMPDIR")],
            "checkpoint",
        ),
    ] {
        let output = changestream(arguments);
        assert_eq!(
            output.status.code(),
            Some(15),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(named),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn help_lists_the_exit_codes_and_the_form_of_update_lines() {
    for arguments in [&["--help"][..], &["tail", "--help"], &["token", "--help"]] {
        let help = stdout(&changestream(arguments));
        assert!(
            help.contains("Exit codes:") && help.contains("history lost"),
            "{help}"
        );
    }
    assert!(stdout(&changestream(&["tail", "--help"])).contains(r#"{"update":"idle""#));
}

#[test]
fn no_password_is_ever_printed() {
    for uri in [
        "mongodb://alice:s3cr3t@localhost:port/",
        "mongodb://alice:s3cr3t@localhost/?readPreference=fastest",
        "mongodb://alice:s3cr3t@local/host:1/",
        "mongodb//alice:s3cr3t@localhost",
        "mongodb://alice:s3cr3t@%zz/",
    ] {
        let output = changestream(&["tail", uri, "--max-await-ms", "x"]);
        assert!(!(stdout(&output) + &stderr(&output)).contains("s3cr3t"), "{uri}");
        let output = changestream(&["tail", uri, "--start-after", "@/nonexistent"]);
        assert!(
            !(stdout(&output) + &stderr(&output)).contains("s3cr3t"),
            "{uri}: {}",
            stderr(&output)
        );
    }
    let by_environment = Command::new(env!("CARGO_BIN_EXE_changestream"))
        .args(["tail", "--help"])
        .env("CHANGESTREAM_URI", "mongodb://alice:s3cr3t@localhost")
        .output()
        .unwrap();
    assert!(!stdout(&by_environment).contains("s3cr3t"));
}
