//! What a handshake says: the client document, its environment and its size.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use bson::{Document, doc};
use changestream_core::connection::{ClientMetadata, Environment, OperatingSystem};

#[test]
fn the_environments_of_the_handshake_specification() {
    let lambda = ("AWS_EXECUTION_ENV", "AWS_Lambda_java8");
    let long = "a".repeat(512);
    let cases = [
        (
            "1 valid AWS",
            vec![
                lambda,
                ("AWS_REGION", "us-east-2"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024"),
            ],
            Some(doc! { "name": "aws.lambda", "memory_mb": 1024, "region": "us-east-2" }),
        ),
        (
            "2 valid Azure",
            vec![("FUNCTIONS_WORKER_RUNTIME", "node")],
            Some(doc! { "name": "azure.func" }),
        ),
        (
            "3 valid GCP",
            vec![
                ("K_SERVICE", "servicename"),
                ("FUNCTION_MEMORY_MB", "1024"),
                ("FUNCTION_TIMEOUT_SEC", "60"),
                ("FUNCTION_REGION", "us-central1"),
            ],
            Some(doc! { "name": "gcp.func", "timeout_sec": 60, "memory_mb": 1024, "region": "us-central1" }),
        ),
        (
            "4 valid Vercel",
            vec![("VERCEL", "1"), ("VERCEL_REGION", "cdg1")],
            Some(doc! { "name": "vercel", "region": "cdg1" }),
        ),
        (
            "5 multiple providers",
            vec![lambda, ("FUNCTIONS_WORKER_RUNTIME", "node")],
            None,
        ),
        (
            "6 long string",
            vec![lambda, ("AWS_REGION", &long)],
            Some(doc! { "name": "aws.lambda" }),
        ),
        (
            "7 wrong types",
            vec![lambda, ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "big")],
            Some(doc! { "name": "aws.lambda" }),
        ),
        ("8 not AWS_Lambda_", vec![("AWS_EXECUTION_ENV", "EC2")], None),
        (
            "9 container and provider",
            vec![
                lambda,
                ("AWS_REGION", "us-east-2"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024"),
                ("KUBERNETES_SERVICE_HOST", "1"),
            ],
            Some(doc! {
                "name": "aws.lambda", "memory_mb": 1024, "region": "us-east-2",
                "container": { "orchestrator": "kubernetes" },
            }),
        ),
        // And what the specification's text says beside its tests.
        (
            "Vercel wins over AWS",
            vec![
                lambda,
                ("AWS_REGION", "us-east-2"),
                ("VERCEL", "1"),
                ("VERCEL_REGION", "cdg1"),
            ],
            Some(doc! { "name": "vercel", "region": "cdg1" }),
        ),
        (
            "Vercel and GCP",
            vec![("VERCEL", "1"), ("FUNCTION_NAME", "f")],
            None,
        ),
        (
            "Vercel, AWS and Azure",
            vec![lambda, ("VERCEL", "1"), ("FUNCTIONS_WORKER_RUNTIME", "node")],
            None,
        ),
        (
            "AWS by its API",
            vec![("AWS_LAMBDA_RUNTIME_API", "x")],
            Some(doc! { "name": "aws.lambda" }),
        ),
        (
            "GCP by its function",
            vec![("FUNCTION_NAME", "f")],
            Some(doc! { "name": "gcp.func" }),
        ),
        (
            "empty is not populated",
            vec![("VERCEL", ""), ("KUBERNETES_SERVICE_HOST", "")],
            None,
        ),
        (
            "too large a number",
            vec![("K_SERVICE", "s"), ("FUNCTION_TIMEOUT_SEC", "2147483648")],
            Some(doc! { "name": "gcp.func" }),
        ),
        (
            "a region without a provider",
            vec![("AWS_REGION", "us-east-2"), ("FUNCTION_MEMORY_MB", "1024")],
            None,
        ),
    ];
    for (case, variables, expected) in cases {
        let client = client(&metadata(&variables, false), None);
        assert_eq!(client.get_document("env").ok().cloned(), expected, "{case}");
    }
}

#[test]
fn a_docker_container_is_told_with_and_without_a_provider() {
    let alone = client(&metadata(&[], true), None);
    assert_eq!(
        alone.get_document("env").unwrap(),
        &doc! { "container": { "runtime": "docker" } }
    );
    let both = client(
        &metadata(&[("KUBERNETES_SERVICE_HOST", "1"), ("VERCEL", "1")], true),
        None,
    );
    assert_eq!(
        both.get_document("env").unwrap(),
        &doc! { "name": "vercel", "container": { "runtime": "docker", "orchestrator": "kubernetes" } }
    );
}

#[test]
fn the_client_document_names_driver_system_and_platform() {
    let metadata = ClientMetadata::new()
        .with_os(OperatingSystem {
            kind: "Linux".to_owned(),
            name: Some("Debian".to_owned()),
            architecture: Some("x86_64".to_owned()),
            version: Some("12".to_owned()),
        })
        .with_platform("Rust, tokio");
    assert_eq!(
        client(&metadata, Some("billing")),
        doc! {
            "application": { "name": "billing" },
            "driver": { "name": "changestream", "version": env!("CARGO_PKG_VERSION") },
            "os": { "type": "Linux", "name": "Debian", "architecture": "x86_64", "version": "12" },
            "platform": "Rust, tokio",
        }
    );
    let bare = client(&ClientMetadata::new(), None);
    assert!(!bare.contains_key("application") && !bare.contains_key("platform") && !bare.contains_key("env"));
    assert!(
        !bare
            .get_document("os")
            .unwrap()
            .get_str("type")
            .unwrap()
            .is_empty()
    );
    let mut unknown = OperatingSystem::default();
    unknown.kind.clear();
    let unknown = client(&ClientMetadata::new().with_os(unknown), None);
    assert_eq!(
        unknown.get_document("os").unwrap().get_str("type").unwrap(),
        "unknown"
    );
}

#[test]
fn wrapping_libraries_are_appended_once() {
    let library = |m: ClientMetadata| {
        m.append("library", Some("1.2"), Some("Library Platform"))
            .unwrap()
    };
    let base = library(ClientMetadata::new().with_platform("own"));
    let version = env!("CARGO_PKG_VERSION");
    let of = |m: &ClientMetadata| {
        let client = client(m, None);
        let driver = client.get_document("driver").unwrap().clone();
        [
            driver.get_str("name").unwrap(),
            driver.get_str("version").unwrap(),
            client.get_str("platform").unwrap(),
        ]
        .map(str::to_owned)
    };
    let names = [
        "changestream|library",
        &format!("{version}|1.2"),
        "own|Library Platform",
    ]
    .map(str::to_owned);
    assert_eq!(of(&base), names);
    assert_eq!(
        of(&library(base.clone())),
        names,
        "the same again changes nothing"
    );
    for (v, p) in [
        (Some("2.0"), Some("Framework Platform")),
        (Some("2.0"), None),
        (None, Some("P")),
        (None, None),
    ] {
        let appended = of(&base.clone().append("framework", v, p).unwrap());
        let with = |base: &String, part: Option<&str>| {
            part.map_or_else(|| base.clone(), |part| format!("{base}|{part}"))
        };
        assert_eq!(
            appended,
            [
                format!("{}|framework", names[0]),
                with(&names[1], v),
                with(&names[2], p)
            ]
        );
    }
    for (n, v, p) in [
        ("a|b", None, None),
        ("a", Some("|"), None),
        ("a", None, Some("x|")),
    ] {
        assert!(base.clone().append(n, v, p).is_err());
    }
}

#[test]
fn what_does_not_fit_in_512_bytes_is_left_out_in_the_specified_order() {
    // Grow the platform byte by byte, and see what gives way, when.
    let mut seen = Vec::new();
    for len in 0..700 {
        let client = metadata(&[("VERCEL", "1"), ("VERCEL_REGION", "cdg1")], true)
            .with_os(OperatingSystem {
                kind: "Linux".to_owned(),
                name: Some("n".repeat(20)),
                architecture: Some("x86_64".to_owned()),
                version: Some("1".to_owned()),
            })
            .with_platform("p".repeat(len))
            .to_document(Some("app"));
        assert!(client.as_bytes().len() <= 512, "{len}");
        let client = Document::try_from(&*client).unwrap();
        let stage = (
            client.get_document("env").ok().map(Document::len),
            client.get_document("os").unwrap().len(),
            client.get_str("platform").unwrap().len() == len,
        );
        if seen.last() != Some(&stage) {
            seen.push(stage);
        }
    }
    assert_eq!(
        seen,
        [
            (Some(3), 4, true),
            (Some(1), 4, true),
            (Some(1), 1, true),
            (None, 1, true),
            (None, 1, false),
        ]
    );
}

#[test]
fn the_limit_is_used_to_the_last_byte() {
    let client = ClientMetadata::new()
        .with_platform("p".repeat(1000))
        .to_document(None);
    assert_eq!(client.as_bytes().len(), 512);
}

#[test]
fn texts_are_cut_between_characters() {
    for shift in 0..4 {
        let text = format!("{}{}", "x".repeat(shift), "\u{1f980}".repeat(300));
        let client = ClientMetadata::new()
            .with_platform(&text)
            .to_document(Some(&text));
        assert!(client.as_bytes().len() <= 512 && client.as_bytes().len() > 508);
        let client = Document::try_from(&*client).unwrap();
        let name = client
            .get_document("application")
            .unwrap()
            .get_str("name")
            .unwrap();
        assert!(name.len() <= 128 && name.len() > 124 && text.starts_with(name));
        assert!(text.starts_with(client.get_str("platform").unwrap()));
    }
}

#[test]
fn no_input_makes_the_client_document_too_large() {
    let long = "\u{fc}".repeat(5000);
    let metadata = metadata(&[("VERCEL", "1"), ("VERCEL_REGION", &long)], true)
        .with_os(OperatingSystem {
            kind: long.clone(),
            name: Some(long.clone()),
            architecture: Some(long.clone()),
            version: Some(long.clone()),
        })
        .with_platform(&long)
        .append(&long, Some(&long), Some(&long))
        .unwrap();
    let client = metadata.to_document(Some(&long));
    assert!(client.as_bytes().len() <= 512);
    let client = Document::try_from(&*client).unwrap();
    assert_eq!(
        client.get_document("driver").unwrap().get_str("name").unwrap(),
        "changestream"
    );
}

fn metadata(variables: &[(&str, &str)], docker: bool) -> ClientMetadata {
    let variables: BTreeMap<String, String> = variables
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    ClientMetadata::new().with_environment(Environment::detect(&variables, docker))
}

fn client(metadata: &ClientMetadata, app_name: Option<&str>) -> Document {
    Document::try_from(&*metadata.to_document(app_name)).unwrap()
}
