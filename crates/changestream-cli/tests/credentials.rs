//! `changestream tail` as users whose credentials come from elsewhere than the connection string.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use changestream_sim::{Deployment, RunningDeployment};

/// What `tail` says first: that the stream is idle, or what is wrong.
fn first_words(
    deployment: &RunningDeployment,
    more: &str,
    arguments: &[&str],
    set: &[(&str, &str)],
) -> String {
    let uri = deployment.uri() + more;
    let mut command = Command::new(env!("CARGO_BIN_EXE_changestream"));
    command
        .args(["tail", &uri, "--updates", "--max-await-ms", "10"])
        .args(arguments);
    for variable in [
        "CHANGESTREAM_URI",
        "CHANGESTREAM_OIDC_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "OIDC_TOKEN_FILE",
    ] {
        command.env_remove(variable);
    }
    command.envs(set.iter().copied());
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut words = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut words)
        .unwrap();
    if words.is_empty() {
        process.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    }
    let _ = process.kill();
    let _ = process.wait();
    assert!(!words.contains("secret-"), "{words}");
    words
}

const IDLE: &str = "{\"update\":\"idle\"";

#[test]
fn a_token_lies_in_a_file_or_a_variable() {
    let deployment = Deployment::replica_set(1)
        .oidc_token("secret-token", "ada")
        .start()
        .unwrap();
    let path = std::env::temp_dir().join(format!("changestream-token-{}", std::process::id()));
    std::fs::write(&path, "secret-token\n").unwrap();
    let file = path.to_str().unwrap();
    let oidc = "&authMechanism=MONGODB-OIDC";
    let test = &format!("{oidc}&authMechanismProperties=ENVIRONMENT:test");
    let by_file = first_words(&deployment, oidc, &["--oidc-token-file", file], &[]);
    let by_variable = first_words(
        &deployment,
        oidc,
        &[],
        &[("CHANGESTREAM_OIDC_TOKEN", "secret-token")],
    );
    let by_environment = first_words(&deployment, test, &[], &[("OIDC_TOKEN_FILE", file)]);
    let wrong = first_words(
        &deployment,
        oidc,
        &[],
        &[("CHANGESTREAM_OIDC_TOKEN", "secret-other")],
    );
    let without = first_words(&deployment, oidc, &[], &[]);
    let no_file = first_words(&deployment, test, &[], &[("OIDC_TOKEN_FILE", "/nowhere/token")]);
    let misplaced = first_words(&deployment, "", &["--oidc-token-file", file], &[]);
    std::fs::remove_file(&path).unwrap();
    for words in [by_file, by_variable, by_environment] {
        assert!(words.starts_with(IDLE), "{words}");
    }
    assert!(wrong.contains("MONGODB-OIDC"), "{wrong}");
    assert!(without.contains("needs ENVIRONMENT"), "{without}");
    assert!(no_file.contains("/nowhere/token"), "{no_file}");
    assert!(misplaced.contains("--oidc-token-file"), "{misplaced}");
}

#[test]
fn keys_of_aws_stand_in_variables() {
    let deployment = Deployment::replica_set(1)
        .aws_user(
            "arn:aws:iam::1:user/ada",
            "AKID",
            "secret-key",
            Some("secret-session"),
        )
        .start()
        .unwrap();
    let id = ("AWS_ACCESS_KEY_ID", "AKID");
    let key = ("AWS_SECRET_ACCESS_KEY", "secret-key");
    let session = ("AWS_SESSION_TOKEN", "secret-session");
    for (set, expected) in [
        (&[id, key, session][..], IDLE),
        (&[id, key], "MONGODB-AWS"),
        (&[id], "both environment variables"),
        (&[], "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ] {
        let words = first_words(&deployment, "&authMechanism=MONGODB-AWS", &[], set);
        assert!(words.contains(expected), "{expected} is not in: {words}");
    }
}
