//! The test files of the Initial DNS Seedlist Discovery specification.
//!
//! The records that the files speak of are those of its README, as [`records`] has them. What a client makes of them is
//! checked without a network, on a machine whose look-ups are answered by that table. That adapters read such answers from
//! a name server is among their scenarios.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use changestream_core::client::{ClientMachine, ClientSettings, Input, Output};
use changestream_core::connection::ClientMetadata;
use changestream_core::{ClientOptions, ConnectionString, Scope, WatchOptions};
use changestream_tests::name_service::Zone;
use serde_json::{Value, json};

use crate::connection_string;

/// Runs a file.
pub(crate) fn run(file: &Value) -> Result<(), String> {
    let uri = file["uri"].as_str().expect("a uri");
    let found = find(uri);
    if file["error"] == true {
        return match found {
            Ok(found) => Err(format!("must fail, and finds {:?}", found.seeds)),
            Err(_) => Ok(()),
        };
    }
    let found = found?;
    let seeds: BTreeSet<_> = texts(&file["seeds"]);
    if let Some(count) = file["numSeeds"].as_u64() {
        same("number of seeds", &json!(found.seeds.len()), &json!(count))?;
    }
    if file["seeds"].is_array() && found.seeds != seeds {
        return Err(format!("finds {:?}, not {seeds:?}", found.seeds));
    }
    for (name, value) in file["options"].as_object().into_iter().flatten() {
        same(name, &option(uri, &found.options, name)?, value)?;
    }
    for (name, value) in file["parsed_options"].as_object().into_iter().flatten() {
        same(name, &option(uri, &found.options, name)?, value)?;
    }
    Ok(())
}

/// What a machine has found when it begins to connect.
struct Found {
    seeds: BTreeSet<String>,
    options: ClientOptions,
}

fn find(uri: &str) -> Result<Found, String> {
    let uri: ConnectionString = uri.parse().map_err(|error| format!("{error}"))?;
    let settings = ClientSettings::new(uri.options, ClientMetadata::new()).map_err(|e| e.to_string())?;
    let (zone, now, watch) = (records(), Instant::now(), WatchOptions::default());
    let mut machine =
        ClientMachine::new(Arc::new(settings), None, &Scope::Cluster, watch, [1; 32], now).unwrap();
    let mut seeds = BTreeSet::new();
    loop {
        match machine.poll_output() {
            Output::Resolve { lookup, question } => {
                assert!(
                    seeds.is_empty(),
                    "a server is connected to before all is looked up"
                );
                let result = zone.answer(&question);
                machine.handle_input(now, Input::Resolved { lookup, result });
            }
            Output::Connect { address, .. } => {
                seeds.insert(address.to_string());
            }
            Output::Wait(_) => break,
            Output::Closed(result) => return Err(result.unwrap_err().to_string()),
            other => panic!("{other:?}"),
        }
    }
    Ok(Found {
        seeds,
        options: machine.options().clone(),
    })
}

fn option(uri: &str, options: &ClientOptions, name: &str) -> Result<Value, String> {
    let credential = options.credential.as_ref();
    Ok(match name {
        "ssl" => json!(options.tls_enabled()),
        "replicaSet" => json!(options.replica_set),
        "loadBalanced" => json!(options.load_balanced),
        "directConnection" => json!(options.direct_connection),
        "srvMaxHosts" => json!(options.srv_max_hosts),
        "db" | "defaultDatabase" | "auth_database" => json!(options.default_database),
        "user" => json!(credential.and_then(|c| c.username.clone())),
        "password" => json!(credential.and_then(|c| c.password.as_ref()).map(|p| p.reveal())),
        // Without a user there is nobody to have a source. Whether it came is seen on one who is added.
        "authSource" if credential.is_none() => return with_user(uri),
        "authSource" => json!(credential.map(|c| c.source.clone())),
        _ => return connection_string::option(options, name),
    })
}

/// The source that a user would have, by the same connection string.
fn with_user(uri: &str) -> Result<Value, String> {
    let found = find(&uri.replacen("://", "://alice:secret@", 1))?;
    Ok(json!(found.options.credential.unwrap().source))
}

fn texts(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn same(what: &str, actual: &Value, wanted: &Value) -> Result<(), String> {
    if actual == wanted {
        return Ok(());
    }
    Err(format!("{what} is {actual}, not {wanted}"))
}

/// The records of test.build.10gen.cc, as the README of the test files lists them.
fn records() -> Zone {
    const LOCALHOST: &str = "localhost.test.build.10gen.cc";
    let servers = [
        (1, LOCALHOST, 27017),
        (1, LOCALHOST, 27018),
        (2, LOCALHOST, 27018),
        (2, LOCALHOST, 27019),
        (3, LOCALHOST, 27017),
        (5, LOCALHOST, 27017),
        (6, LOCALHOST, 27017),
        (7, LOCALHOST, 27017),
        (8, LOCALHOST, 27017),
        (10, LOCALHOST, 27017),
        (11, LOCALHOST, 27017),
        (12, "localhost.build.10gen.cc", 27017),
        (13, "test.build.10gen.cc", 27017),
        (14, "localhost.not-test.build.10gen.cc", 27017),
        (15, "localhost.test.not-build.10gen.cc", 27017),
        (16, "localhost.test.build.not-10gen.cc", 27017),
        (17, "localhost.test.build.10gen.not-cc", 27017),
        (18, "localhost.sub.test.build.10gen.cc", 27017),
        (19, "localhost.evil.build.10gen.cc", 27017),
        (19, LOCALHOST, 27017),
        (20, LOCALHOST, 27017),
        (21, LOCALHOST, 27017),
        (23, LOCALHOST, 8000),
        (24, LOCALHOST, 8000),
    ];
    let options: [(u32, &[&str]); 9] = [
        (5, &["replicaSet=repl0&authSource=thisDB"]),
        (6, &["replicaSet=repl0"]),
        (6, &["authSource=otherDB"]),
        (7, &["ssl=false"]),
        (8, &["authSource"]),
        (10, &["socketTimeoutMS=500"]),
        (11, &["replicaS", "et=rep", "l0"]),
        (21, &["loadBalanced=false"]),
        (24, &["loadBalanced=true"]),
    ];
    let mut zone = Zone::default()
        .srv("_customname._tcp.test22.test.build.10gen.cc", LOCALHOST, 27017)
        .srv("_customname._tcp.test22.test.build.10gen.cc", LOCALHOST, 27018)
        .srv("_mongodb._tcp.test.build.10gen.cc", "test.build.10gen.cc", 27017)
        .srv("_mongodb._tcp.build.10gen.cc", "build.10gen.cc", 27017)
        .txt("test20.test.build.10gen.cc", &["loadBalanced=true"]);
    for (number, target, port) in servers {
        zone = zone.srv(
            &format!("_mongodb._tcp.test{number}.test.build.10gen.cc"),
            target,
            port,
        );
    }
    for (number, strings) in options {
        zone = zone.txt(&format!("test{number}.test.build.10gen.cc"), strings);
    }
    zone
}
