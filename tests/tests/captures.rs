//! Conversations with a real server: read, and played against clients.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Instant;

use bson::{Document, RawDocumentBuf, doc};
use changestream_core::wire::{
    Compressor, DEFAULT_MAX_MESSAGE_SIZE, Flags, Message, compress, compressor_of, decompress, encode_op_msg,
};
use changestream_core::{FullDocument, Scope};
use changestream_tests::capture::{Entry, Happening, Scenario, parse_expected, parse_wire};
use changestream_tests::recorded_stream::{Exchange, Outcome, RecordedStream, exchanges, streams};
use changestream_tests::replay::{Answer, Peer, ScramServer, differences, play, uri, waits_for};

fn all() -> BTreeMap<String, Scenario> {
    changestream_tests::captures().map_or_else(BTreeMap::new, |folder| Scenario::all(&folder).unwrap())
}

fn one(name: &str) -> Option<Scenario> {
    changestream_tests::captures().map(|folder| Scenario::load(&folder, name).unwrap())
}

#[test]
fn capture_files_are_all_read_and_their_streams_found() {
    for (name, scenario) in all() {
        assert!(!scenario.records.is_empty(), "{name}: no records");
        let streams = streams(&scenario);
        println!(
            "capture {name}: {} records, {} streams, {}",
            scenario.records.len(),
            streams.len(),
            uri(&scenario)
        );
        let shared: usize = streams.iter().map(|stream| stream.log.len()).sum();
        assert_eq!(
            shared,
            scenario.log.len(),
            "{name}: every entry of the log belongs to one stream"
        );
    }
}

#[test]
fn capture_events_of_the_log_are_the_events_on_the_wire() {
    for (name, scenario) in all() {
        if waits_for(&scenario).is_some() {
            continue;
        }
        for stream in streams(&scenario) {
            let mut sent: Vec<&Exchange> = stream.aggregates.iter().chain(&stream.get_mores).collect();
            sent.sort_by_key(|exchange| exchange.at);
            let sent: Vec<&Document> = sent.iter().flat_map(|exchange| exchange.batch()).collect();
            let logged: Vec<&Document> = stream
                .log
                .iter()
                .filter_map(|entry| match entry {
                    Entry::Event { event, .. } => Some(event),
                    Entry::Idle { .. } | Entry::Error(_) | Entry::Mark(_) => None,
                })
                .collect();
            assert!(sent.len() >= logged.len(), "{name}");
            assert_eq!(sent[..logged.len()], logged, "{name}");
        }
    }
}

#[test]
fn capture_replays_of_the_recorded_client_itself_differ_in_nothing() {
    for (name, scenario) in all() {
        match waits_for(&scenario) {
            Some(what) => println!("capture {name}: waiting for {what}"),
            None => {
                for stream in &streams(&scenario) {
                    assert_eq!(
                        play_the_recorded_client(&scenario, stream),
                        [] as [String; 0],
                        "{name}"
                    );
                }
            }
        }
    }
}

/// Sends what the recorded client sent on its streams' connections, under request numbers of our own, and checks that
/// each answer is the recorded one.
fn play_the_recorded_client(scenario: &Scenario, stream: &RecordedStream) -> Vec<String> {
    let mut peer = Peer::new(scenario, stream);
    let own = |e: &Exchange| {
        stream
            .aggregates
            .iter()
            .chain(&stream.get_mores)
            .chain(&stream.kill_cursors)
            .any(|o| o.at == e.at)
    };
    let all = exchanges(scenario);
    let connections: Vec<u64> = all.iter().filter(|e| own(e)).map(|e| e.connection).collect();
    let mut opened = Vec::new();
    for (number, exchange) in (1..).zip(&all) {
        let prepares = matches!(
            exchange.command(),
            "ismaster" | "hello" | "saslStart" | "saslContinue"
        );
        if !connections.contains(&exchange.connection) || !(prepares || own(exchange)) {
            continue;
        }
        if !opened.contains(&exchange.connection) {
            assert!(peer.connect(exchange.connection, exchange.member));
            opened.push(exchange.connection);
        }
        let request = RawDocumentBuf::try_from(&exchange.request).unwrap();
        let plain = encode_op_msg(number, 0, Flags::NONE, &request, &[]);
        let compressed = exchange.compressor.and_then(|by| compress(&plain, by, None));
        let bytes = compressed.unwrap_or(plain);
        let (head, tail) = bytes.split_at(bytes.len() / 3);
        assert_eq!(peer.receive(exchange.connection, head), []);
        let answers = peer.receive(exchange.connection, tail);
        match &exchange.outcome {
            Outcome::Reply { body, .. } if prepares && !exchange.request.contains_key("saslContinue") => {
                assert!(sent(&answers, number).contains_key("ok") && body.contains_key("ok"));
            }
            Outcome::Reply { body, .. } => assert_eq!(sent(&answers, number), *body),
            Outcome::Disconnected { .. } => assert!(matches!(answers[..], [Answer::Close { .. }])),
            Outcome::Unanswered => assert_eq!(answers, []),
        }
    }
    peer.differences()
        .iter()
        .cloned()
        .chain(peer.left_over())
        .collect()
}

fn sent(answers: &[Answer], response_to: i32) -> Document {
    let [Answer::Send { bytes, .. }] = answers else {
        panic!("not one reply: {answers:?}");
    };
    let inflated = compressor_of(bytes).map(|_| decompress(bytes, DEFAULT_MAX_MESSAGE_SIZE).unwrap());
    let message = Message::decode(inflated.as_ref().unwrap_or(bytes)).unwrap();
    assert_eq!(message.response_to(), response_to);
    let Message::Msg(message) = message else {
        panic!("not an OP_MSG");
    };
    Document::from_reader(&message.body[..]).unwrap()
}

/// Plays the scenarios that `chosen` takes with the client machine, under several ways to cut the bytes.
fn play_all(chosen: impl Fn(&str) -> bool) {
    #[allow(clippy::disallowed_methods, reason = "the epoch of the fake clock")]
    let epoch = Instant::now();
    let mut failures = Vec::new();
    for (name, scenario) in all().iter().filter(|(name, _)| chosen(name)) {
        if let Some(what) = waits_for(scenario) {
            println!("capture {name}: waiting for {what}");
            continue;
        }
        for seed in 0..SEEDS {
            let failed = play(scenario, [seed; 32], epoch);
            failures.extend(
                failed
                    .into_iter()
                    .map(|why| format!("{name}, seed {seed}: {why:.900}")),
            );
        }
        println!("capture {name}: {}", scenario.note);
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

const SEEDS: u8 = 4;

/// The families that have a test of their own; all else is played by the last one.
const FAMILIES: [&[&str]; 6] = [
    &["auth-"],
    &["batches", "default-batches", "large-documents"],
    &["getmore-errors", "cursor-killed"],
    &["step-down"],
    &["sharded-", "exhaust"],
    &["compressed-"],
];

fn belongs(name: &str, family: &[&str]) -> bool {
    family.iter().any(|prefix| name.starts_with(prefix))
}

#[test]
fn capture_of_each_authentication_ends_as_recorded() {
    play_all(|name| belongs(name, FAMILIES[0]));
}

#[test]
fn capture_of_full_batches_and_large_documents_is_delivered_as_recorded() {
    play_all(|name| belongs(name, FAMILIES[1]));
}

#[test]
fn capture_of_resumes_delivers_every_event_once() {
    play_all(|name| belongs(name, FAMILIES[2]));
}

#[test]
fn capture_of_a_step_down_is_followed_through_the_set() {
    play_all(|name| belongs(name, FAMILIES[3]));
}

#[test]
fn capture_of_sharded_and_exhaust_streams_is_delivered_or_waits_visibly() {
    play_all(|name| belongs(name, FAMILIES[4]));
}

#[test]
fn capture_of_compressed_streams_is_delivered_by_compressing_as_recorded() {
    play_all(|name| belongs(name, FAMILIES[5]));
}

/// Whatever file is put there is played, so that a new scenario needs no code.
#[test]
fn capture_of_every_other_scenario_is_delivered_as_recorded() {
    play_all(|name| !FAMILIES.iter().any(|family| belongs(name, family)));
}

#[test]
fn capture_getmore_errors_are_one_stream_with_thirteen_resumes() {
    let Some(scenario) = one("getmore-errors-resumable") else {
        return;
    };
    let streams = streams(&scenario);
    let [stream] = &streams[..] else {
        panic!("{} streams", streams.len())
    };
    assert_eq!(stream.aggregates.len(), 14);
    let lost = stream
        .get_mores
        .iter()
        .filter(|e| matches!(e.outcome, Outcome::Disconnected { .. }))
        .count();
    assert_eq!(lost, 1);
    assert_eq!(stream.options().max_await_time.unwrap().as_millis(), 100);
    assert!(stream.options().resume_after.is_none());
}

#[test]
fn capture_bogus_tokens_are_three_streams_with_an_error_each() {
    let Some(scenario) = one("bogus-token") else {
        return;
    };
    let codes: Vec<_> = streams(&scenario)
        .iter()
        .map(|stream| {
            let [Entry::Error(error)] = &stream.log[..] else {
                panic!("{:?}", stream.log)
            };
            assert!(stream.options().resume_after.is_some());
            error.code.unwrap()
        })
        .collect();
    assert_eq!(codes, [9, 50796, 40647]);
}

#[test]
fn capture_options_are_deduced_from_the_commands() {
    let Some(scenario) = one("options-on-the-wire") else {
        return;
    };
    let streams = streams(&scenario);
    let options = streams[0].options();
    assert_eq!(options.full_document, Some(FullDocument::UpdateLookup));
    assert_eq!(options.pipeline, [doc! { "$match": {} }]);
    assert_eq!((options.batch_size, options.prefetch_batches), (Some(3), 0));
    assert_eq!(options.max_await_time.unwrap().as_millis(), 150);
    assert!(options.comment.is_some() && options.collation.is_none());
    assert_eq!(
        streams[0].scope(),
        Scope::Collection {
            database: "capdb".into(),
            collection: "c".into()
        }
    );
    assert_eq!(streams[1].options().batch_size, None);
    assert_eq!(
        streams.iter().map(|stream| stream.log.len()).collect::<Vec<_>>(),
        [1, 1]
    );
    let Some(cluster) = one("cluster-scope") else {
        return;
    };
    assert_eq!(
        changestream_tests::recorded_stream::streams(&cluster)[0].scope(),
        Scope::Cluster
    );
}

#[test]
fn capture_step_down_is_reached_as_a_set_and_the_others_directly() {
    let Some(scenario) = one("step-down") else { return };
    assert_eq!(
        uri(&scenario),
        "mongodb://127.0.0.1:28311,127.0.0.1:28312,127.0.0.1:28313/?replicaSet=rs0"
    );
    assert_eq!(
        uri(&one("auth-wrong-mechanism").unwrap()),
        "mongodb://sha1:pencil@127.0.0.1:28999/?directConnection=true&authMechanism=SCRAM-SHA-256"
    );
}

#[test]
fn capture_exhaust_replies_belong_to_the_one_request() {
    let Some(scenario) = one("exhaust") else { return };
    let [stream] = &streams(&scenario)[..] else {
        panic!()
    };
    let [
        Exchange {
            outcome: Outcome::Reply { more, .. },
            exhaust: true,
            ..
        },
    ] = &stream.get_mores[..]
    else {
        panic!()
    };
    assert_eq!(more.len(), 13);
    assert_eq!(stream.last_cursor(), None);
}

#[test]
fn a_command_that_differs_is_told_field_by_field() {
    let recorded = doc! { "aggregate": "c", "pipeline": [{ "$changeStream": {} }], "cursor": { "batchSize": 3_i32 }, "lsid": 1, "$db": "d" };
    let same = doc! { "aggregate": "c", "$db": "d", "pipeline": [{ "$changeStream": {} }], "cursor": { "batchSize": 3_i64 } };
    assert_eq!(differences(&same, &recorded, &["lsid"]), [] as [String; 0]);
    let ours = doc! { "aggregate": "c", "pipeline": [{ "$changeStream": { "a": 1 } }, {}], "cursor": { "batchSize": 4 }, "comment": 1 };
    let found = differences(&ours, &recorded, &["lsid"]).join("\n");
    for part in [
        "pipeline: ours is",
        "cursor.batchSize: ours is 4, recorded is 3",
        "$db: not in ours",
        "comment: ours is 1, not in",
    ] {
        assert!(found.contains(part), "{part} in {found}");
    }
    assert!(
        differences(&doc! { "$db": 1, "ping": 1 }, &doc! { "ping": 1, "$db": 1 }, &[])[0]
            .starts_with("command")
    );
}

#[test]
fn a_client_that_asks_otherwise_is_found_out() {
    let Some(scenario) = one("collection-crud") else {
        return;
    };
    let streams = streams(&scenario);
    let mut peer = Peer::new(&scenario, &streams[0]);
    assert!(!peer.connect(1, 1), "no such member");
    assert!(peer.connect(2, 28999));
    let mut request = streams[0].aggregates[0].request.clone();
    request.insert("comment", "mine");
    let bytes = encode_op_msg(
        1,
        0,
        Flags::NONE,
        &RawDocumentBuf::try_from(&request).unwrap(),
        &[],
    );
    assert_eq!(peer.receive(2, &bytes).len(), 1, "it is answered all the same");
    assert_eq!(peer.receive(2, &bytes), [], "more than was recorded is not");
    assert_eq!(peer.differences().len(), 3, "{:?}", peer.differences());
    assert_eq!(peer.left_over().len(), streams[0].get_mores.len());
}

#[test]
fn the_scram_server_gives_the_signature_of_rfc_7677_and_refuses_a_wrong_password() {
    let first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let client = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    let server = ScramServer::new("SCRAM-SHA-256", client, client, first).unwrap();
    assert_eq!(server.server_first(), first);
    let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    assert_eq!(
        server.server_final(last, "user", "pencil").unwrap(),
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
    assert_eq!(server.server_final(last, "user", "wrong"), None);
}

#[test]
fn a_line_that_is_not_of_the_form_is_named() {
    let good = "{\"member\": 1, \"conn\": 1, \"dir\": \"c2s\", \"event\": \"open\", \"t\": 0.5}";
    assert!(matches!(
        parse_wire(good).unwrap()[0].happening,
        Happening::Opened
    ));
    for bad in [
        "{}",
        "x",
        "{\"member\": 1, \"conn\": 1, \"event\": \"dance\", \"t\": 0}",
        "{\"member\": 1, \"conn\": 1, \"bytes\": \"AAAA\", \"t\": 0}",
    ] {
        assert_eq!(parse_wire(&format!("{good}\n\n{bad}")).unwrap_err().0, 3, "{bad}");
    }
    assert!(
        parse_expected("{\"log\": [{\"idle\": true}, {\"dance\": 1}]}")
            .unwrap_err()
            .contains("log entry 1")
    );
    assert!(parse_expected("{}").is_err());
}

#[test]
fn capture_compressed_messages_are_inflated_and_those_of_the_handshake_are_not_compressed() {
    for compressor in [Compressor::Zlib, Compressor::Zstd] {
        let Some(scenario) = one(&format!("compressed-{}", compressor.as_str())) else {
            return;
        };
        assert_eq!(scenario.compressors(), [compressor].into());
        assert_eq!(waits_for(&scenario), None);
        assert!(uri(&scenario).ends_with(&format!("&compressors={}", compressor.as_str())));
        for exchange in exchanges(&scenario) {
            let greets = exchange.command() == "ismaster";
            assert_eq!(
                exchange.compressor,
                (!greets).then_some(compressor),
                "{}",
                exchange.request
            );
        }
        let [stream] = &streams(&scenario)[..] else {
            panic!("not one stream")
        };
        assert_eq!(stream.aggregates.len(), 1);
        assert!(stream.log.len() > 10, "{} entries", stream.log.len());
    }
}
