//! The servers of a `mongodb+srv://` connection string: the first look-up (Initial DNS Seedlist Discovery specification).

use std::time::Duration;

use bson::doc;
use changestream_core::client::DeadlineReason;
use changestream_core::dns::{Answer, DnsFault, SrvRecord, TxtRecord};
use changestream_core::{CommandOptions, ErrorKind};

use super::network::{Network, mongos, primary, without_prefetch};

/// SRV records of these hosts and ports, which hold for a day.
pub(crate) fn srv(records: &[(&str, u16)]) -> Result<Answer, DnsFault> {
    srv_for(records, 86400)
}

pub(crate) fn srv_for(records: &[(&str, u16)], seconds: u64) -> Result<Answer, DnsFault> {
    let records = records.iter().map(|(target, port)| SrvRecord {
        target: (*target).to_owned(),
        port: *port,
        time_to_live: Duration::from_secs(seconds),
    });
    Ok(Answer::Srv(records.collect()))
}

fn txt(texts: &[&str]) -> Result<Answer, DnsFault> {
    let records = texts.iter().map(|text| TxtRecord {
        text: (*text).to_owned(),
    });
    Ok(Answer::Txt(records.collect()))
}

/// Answers both look-ups for that host.
pub(crate) fn resolve(
    network: &mut Network,
    host: &str,
    servers: Result<Answer, DnsFault>,
    options: Result<Answer, DnsFault>,
) {
    network.resolve(&format!("SRV records of _mongodb._tcp.{host}"), servers);
    if network.closed.is_none() {
        network.resolve(&format!("TXT records of {host}"), options);
    }
}

pub(crate) const NO_TXT: Result<Answer, DnsFault> = Err(DnsFault::NoRecords);

/// What the look-ups for that host end with, by that connection string.
#[track_caller]
fn fault_of(
    uri: &str,
    host: &str,
    servers: Result<Answer, DnsFault>,
    options: Result<Answer, DnsFault>,
) -> DnsFault {
    let mut network = Network::new(uri);
    resolve(&mut network, host, servers, options);
    let error = network.expect_error();
    assert!(
        error.to_string().contains(&format!("mongodb+srv://{host} ")),
        "{error}"
    );
    match error.kind() {
        ErrorKind::Dns { fault, .. } => fault.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_connected_to_before_both_look_ups_are_answered() {
    let mut network = Network::new("mongodb+srv://cluster.example.com/?tls=false");
    assert_eq!(network.lookups.len(), 2);
    network.resolve("TXT records of cluster.example.com", txt(&["replicaSet=rs"]));
    assert!(network.links.is_empty());
    network.resolve(
        "SRV records of _mongodb._tcp.cluster.example.com",
        srv(&[("A.example.com.", 1), ("b.example.com", 2), ("a.example.com", 1)]),
    );
    assert_eq!(network.addresses(), ["a.example.com:1", "b.example.com:2"]);
    assert_eq!(network.machine.options().replica_set.as_deref(), Some("rs"));
}

#[test]
fn a_stream_goes_on_from_the_seeds_to_the_members_that_they_name() {
    let mut network = Network::new("mongodb+srv://cluster.example.com/?tls=false&replicaSet=rs");
    resolve(
        &mut network,
        "cluster.example.com",
        srv(&[("s.example.com", 9)]),
        NO_TXT,
    );
    let mut reply = primary("a:1", 1);
    reply.remove("me");
    network.answer_hello("s.example.com:9", &reply);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network.sleep(3_600_000);
    network.disconnect("a:1");
    assert!(
        network.lookups.is_empty(),
        "a replica set names its members itself"
    );
}

fn ping(network: &mut Network) {
    network.run(doc! { "ping": 1 }, CommandOptions::default());
}

#[test]
fn commands_too_short_for_dns_get_there_together() {
    let uri = "mongodb+srv://cluster.example.com/?tls=false&replicaSet=rs&timeoutMS=50";
    let mut network = Network::for_commands(uri, |_| {});
    ping(&mut network);
    network.pass(40);
    network.resolve("TXT records of cluster.example.com", NO_TXT);
    network.pass(10);
    assert!(network.replies.remove(0).unwrap_err().is_timeout());
    ping(&mut network);
    network.pass(50);
    assert!(network.replies.remove(0).unwrap_err().is_timeout());
    assert_eq!(network.lookups.len(), 1, "nothing is asked twice");
    // It may be answered when nobody waits.
    network.resolve(
        "SRV records of _mongodb._tcp.cluster.example.com",
        srv(&[("a.example.com", 1)]),
    );
    assert!(network.links.is_empty());
    ping(&mut network);
    assert!(network.lookups.is_empty());
    assert_eq!(network.addresses(), ["a.example.com:1"]);
}

#[test]
fn a_look_up_that_fails_between_commands_is_made_again_by_the_next() {
    let uri = "mongodb+srv://cluster.example.com/?tls=false&replicaSet=rs&timeoutMS=50";
    let mut network = Network::for_commands(uri, |_| {});
    ping(&mut network);
    network.pass(50);
    assert!(network.replies.remove(0).unwrap_err().is_timeout());
    network.resolve(
        "SRV records of _mongodb._tcp.cluster.example.com",
        Err(DnsFault::NoSuchName),
    );
    network.lookups.clear();
    ping(&mut network);
    resolve(
        &mut network,
        "cluster.example.com",
        srv(&[("a.example.com", 1)]),
        NO_TXT,
    );
    assert_eq!(network.addresses(), ["a.example.com:1"]);
}

#[test]
fn a_look_up_that_is_never_answered_is_made_again_some_time() {
    let uri = "mongodb+srv://cluster.example.com/?tls=false&replicaSet=rs&timeoutMS=50";
    let mut network = Network::for_commands(uri, |_| {});
    for (after, lookups) in [(0, 2), (58_000, 2), (2_000, 4)] {
        network.pass(after);
        ping(&mut network);
        network.pass(50);
        assert!(network.replies.remove(0).unwrap_err().is_timeout());
        assert_eq!(network.lookups.len(), lookups);
    }
}

#[test]
fn the_service_is_asked_for_by_its_name() {
    let mut network = Network::new("mongodb+srv://cluster.example.com/?srvServiceName=custom");
    network.resolve(
        "SRV records of _custom._tcp.cluster.example.com",
        srv(&[("a.example.com", 1)]),
    );
    network.resolve("TXT records of cluster.example.com", NO_TXT);
    assert_eq!(network.addresses(), ["a.example.com:1"]);
}

/// DNS prose tests, 1: "Allow SRVs with fewer than 3 `.` separated parts".
#[test]
fn hosts_of_one_and_two_parts_are_allowed() {
    for (host, target) in [("localhost", "test.localhost"), ("mongo.local", "db.mongo.local")] {
        let mut network = Network::new(&format!("mongodb+srv://{host}"));
        resolve(&mut network, host, srv(&[(target, 27017)]), NO_TXT);
        assert_eq!(network.addresses(), [format!("{target}:27017")]);
    }
}

/// DNS prose tests, 2: "Throw when return address does not end with SRV domain"; 3: "is identical to SRV hostname";
/// 4: "does not contain `.` separating shared part of domain".
#[test]
fn a_server_that_is_not_below_the_domain_is_not_connected_to() {
    for (host, target, domain) in [
        ("localhost", "localhost.mongodb", "localhost"),
        ("mongo.local", "test_1.evil.local", "mongo.local"),
        ("blogs.mongodb.com", "blogs.evil.com", "mongodb.com"),
        ("localhost", "localhost", "localhost"),
        ("mongo.local", "mongo.local", "mongo.local"),
        ("localhost", "test_1.cluster_1localhost", "localhost"),
        ("mongo.local", "test_1.my_hostmongo.local", "mongo.local"),
        ("blogs.mongodb.com", "cluster.testmongodb.com", "mongodb.com"),
        ("blogs.mongodb.com", "mongodb.com", "mongodb.com"),
        ("a.b.c.d", "x.c.d", "b.c.d"),
    ] {
        let uri = format!("mongodb+srv://{host}");
        let good = format!("good.{domain}");
        let fault = fault_of(&uri, host, srv(&[(&good, 1), (target, 1)]), NO_TXT);
        let DnsFault::ForeignHost {
            host, domain: below, ..
        } = fault
        else {
            panic!("{target}: {fault:?}")
        };
        assert_eq!((host.as_str(), below.as_str()), (target, domain));
    }
}

/// srvAllowedHostsSuffix: servers may be elsewhere, but below the domain that the user names.
#[test]
fn servers_may_be_below_another_domain_that_the_user_allows() {
    for suffix in [
        "example.com",
        ".example.com",
        ".EXAMPLE.com.",
        "mongo.example.com",
    ] {
        let mut network = Network::new(&format!(
            "mongodb+srv://db.corp.test/?srvAllowedHostsSuffix={suffix}"
        ));
        resolve(
            &mut network,
            "db.corp.test",
            srv(&[("a.Mongo.example.com.", 1)]),
            NO_TXT,
        );
        assert_eq!(network.addresses(), ["a.mongo.example.com:1"], "{suffix}");
    }
    // The host's own domain is not allowed any more, nor is what only ends alike.
    for target in ["a.corp.test", "a.evilexample.com", "example.com"] {
        let uri = "mongodb+srv://db.corp.test/?srvAllowedHostsSuffix=example.com";
        let fault = fault_of(uri, "db.corp.test", srv(&[(target, 1)]), NO_TXT);
        let DnsFault::ForeignHost { host, domain, .. } = fault else {
            panic!("{target}: {fault:?}")
        };
        assert_eq!((host.as_str(), domain.as_str()), (target, "example.com"));
    }
}

#[test]
fn the_host_itself_may_be_among_the_servers_where_it_has_three_parts() {
    let mut network = Network::new("mongodb+srv://blogs.mongodb.com");
    let servers = srv(&[("blogs.mongodb.com", 1), ("deep.down.MONGODB.com", 2)]);
    resolve(&mut network, "blogs.mongodb.com", servers, NO_TXT);
    assert_eq!(
        network.addresses(),
        ["blogs.mongodb.com:1", "deep.down.mongodb.com:2"]
    );
}

#[test]
fn targets_that_are_no_host_names_are_told() {
    for target in [
        "",
        ".",
        "a b.example.com",
        "a..example.com",
        "a\u{e9}.example.com",
    ] {
        let fault = fault_of(
            "mongodb+srv://c.example.com",
            "c.example.com",
            srv(&[(target, 1)]),
            NO_TXT,
        );
        assert!(
            matches!(fault, DnsFault::Malformed { .. }),
            "{target:?}: {fault:?}"
        );
    }
    let fault = fault_of(
        "mongodb+srv://c.example.com",
        "c.example.com",
        srv(&[("a.example.com", 0)]),
        NO_TXT,
    );
    assert!(fault.to_string().contains("port"), "{fault}");
}

#[test]
fn each_fault_is_told_with_its_look_up_and_what_to_do() {
    for (fault, words) in [
        (DnsFault::no_server("no settings"), "no settings"),
        (DnsFault::NoSuchName, "NXDOMAIN"),
        (DnsFault::NoRecords, "no such records"),
        (DnsFault::refused("SERVFAIL"), "SERVFAIL"),
        (DnsFault::TimedOut, "in time"),
        (DnsFault::malformed("cut"), "malformed"),
        (DnsFault::network("refused"), "cannot be reached"),
    ] {
        let mut network = Network::new("mongodb+srv://c.example.com");
        resolve(&mut network, "c.example.com", Err(fault), NO_TXT);
        let error = network.expect_error().to_string();
        assert!(
            error.contains("SRV records of _mongodb._tcp.c.example.com"),
            "{error}"
        );
        assert!(error.contains(words) && error.contains("; "), "{error}");
        assert!(!network.expect_error().is_resumable());
    }
}

#[test]
fn a_txt_record_that_cannot_be_had_is_an_error_and_one_that_is_not_there_is_none() {
    let servers = || srv(&[("a.example.com", 1)]);
    let (uri, host) = ("mongodb+srv://c.example.com", "c.example.com");
    for fault in [DnsFault::TimedOut, DnsFault::refused("SERVFAIL")] {
        assert_eq!(fault_of(uri, host, servers(), Err(fault.clone())), fault);
    }
    for fault in [DnsFault::NoRecords, DnsFault::NoSuchName] {
        let mut network = Network::new(uri);
        resolve(&mut network, host, servers(), Err(fault));
        assert_eq!(network.addresses(), ["a.example.com:1"]);
    }
}

#[test]
fn a_txt_record_sets_three_options_and_no_other() {
    let servers = || srv(&[("a.example.com", 1)]);
    let (uri, host) = ("mongodb+srv://alice:secret@c.example.com/shop", "c.example.com");
    for text in [
        "ssl=false",
        "authSource=a&readPreference=secondary",
        "authSource",
        "x",
        "socketTimeoutMS=500",
    ] {
        let fault = fault_of(uri, host, servers(), txt(&[text]));
        assert!(matches!(fault, DnsFault::TxtOptions { .. }), "{text}: {fault:?}");
    }
    let fault = fault_of(uri, host, servers(), txt(&["replicaSet=rs", "authSource=a"]));
    assert_eq!(fault, DnsFault::SeveralTxtRecords);

    let mut network = Network::new(uri);
    resolve(
        &mut network,
        host,
        servers(),
        txt(&["authSource=users&replicaSet=rs"]),
    );
    let options = network.machine.options();
    assert_eq!(options.credential.as_ref().unwrap().source, "users");
    assert_eq!(options.replica_set.as_deref(), Some("rs"));
    network.connect("a.example.com:1");
    let hello = network.expect("a.example.com:1", "isMaster");
    assert_eq!(
        hello.command.get_str("saslSupportedMechs").unwrap(),
        "users.alice"
    );
}

#[test]
fn the_connection_string_overrides_the_txt_record() {
    let text = "authSource=users&replicaSet=rs&loadBalanced=true";
    let uri = "mongodb+srv://alice:secret@c.example.com/?authSource=admin&loadBalanced=false&replicaSet=mine";
    let mut network = Network::new(uri);
    resolve(
        &mut network,
        "c.example.com",
        srv(&[("a.example.com", 1)]),
        txt(&[text]),
    );
    let options = network.machine.options();
    assert_eq!(options.credential.as_ref().unwrap().source, "admin");
    assert_eq!(options.replica_set.as_deref(), Some("mine"));
    assert!(!options.load_balanced);
}

#[test]
fn a_load_balancer_may_be_told_by_the_txt_record_alone() {
    let mut network = Network::new("mongodb+srv://c.example.com");
    resolve(
        &mut network,
        "c.example.com",
        srv(&[("a.example.com", 1)]),
        txt(&["loadBalanced=true"]),
    );
    network.connect("a.example.com:1");
    let hello = network.expect("a.example.com:1", "hello");
    assert!(hello.command.get_bool("loadBalanced").unwrap());
}

#[test]
fn what_contradicts_itself_is_told() {
    let two = || srv(&[("a.example.com", 1), ("b.example.com", 1)]);
    for (options, text) in [
        ("", "loadBalanced=true"),
        ("?srvMaxHosts=1", "loadBalanced=true"),
        ("?srvMaxHosts=1", "replicaSet=rs"),
        ("?replicaSet=rs", "loadBalanced=true"),
    ] {
        let uri = format!("mongodb+srv://c.example.com/{options}");
        let fault = fault_of(&uri, "c.example.com", two(), txt(&[text]));
        assert!(
            matches!(fault, DnsFault::Contradiction { .. }),
            "{options} {text}: {fault:?}"
        );
    }
}

#[test]
fn as_many_servers_are_used_as_are_allowed_chosen_by_the_seed() {
    let records: Vec<_> = (1..=20).map(|port| ("a.example.com", port)).collect();
    let mut network = Network::new("mongodb+srv://c.example.com/?srvMaxHosts=5");
    resolve(&mut network, "c.example.com", srv(&records), NO_TXT);
    let chosen: Vec<_> = network.addresses().into_iter().map(str::to_owned).collect();
    assert_eq!(chosen.len(), 5);
    let mut again = Network::new("mongodb+srv://c.example.com/?srvMaxHosts=5");
    resolve(&mut again, "c.example.com", srv(&records), NO_TXT);
    assert_eq!(again.addresses(), chosen);
    let first: Vec<_> = (1..=5).map(|port| format!("a.example.com:{port}")).collect();
    assert_ne!(chosen, first, "the order of the records says nothing");
}

#[test]
fn a_look_up_that_is_not_answered_ends_with_the_selection() {
    let mut network = Network::new("mongodb+srv://c.example.com/?serverSelectionTimeoutMS=2000");
    assert_eq!(network.deadline.unwrap().reason, DeadlineReason::Resolve);
    network.resolve("TXT records of c.example.com", NO_TXT);
    network.pass(2000);
    let ErrorKind::Dns { fault, .. } = network.expect_error().kind() else {
        panic!("{:?}", network.expect_error())
    };
    assert_eq!(*fault, DnsFault::TimedOut);
    network.resolve(
        "SRV records of _mongodb._tcp.c.example.com",
        srv(&[("a.example.com", 1)]),
    );
    assert!(network.links.is_empty());
}

#[test]
fn looking_up_and_selecting_share_their_time() {
    let mut network = Network::new("mongodb+srv://c.example.com/?serverSelectionTimeoutMS=2000");
    network.pass(1500);
    resolve(
        &mut network,
        "c.example.com",
        srv(&[("a.example.com", 1)]),
        NO_TXT,
    );
    network.pass(500);
    assert!(matches!(
        network.expect_error().kind(),
        ErrorKind::ServerSelection { .. }
    ));
}

#[test]
fn a_selection_that_looks_once_has_the_time_of_connecting_for_dns() {
    let uri = "mongodb+srv://c.example.com/?serverSelectionTimeoutMS=0&connectTimeoutMS=3000&tls=false";
    let mut network = Network::new(uri);
    network.pass(2900);
    resolve(
        &mut network,
        "c.example.com",
        srv(&[("a.example.com", 1)]),
        NO_TXT,
    );
    network.answer_hello("a.example.com:1", &mongos());
    network.open_at("a.example.com:1");
    let mut network = Network::new(uri);
    network.pass(3000);
    assert!(matches!(network.expect_error().kind(), ErrorKind::Dns { .. }));
}

#[test]
fn a_stream_that_is_closed_while_names_are_looked_up_is_closed() {
    let mut network = Network::new("mongodb+srv://c.example.com");
    network.close(1000);
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn the_other_streams_of_a_client_look_nothing_up() {
    let uri = "mongodb+srv://c.example.com/?replicaSet=rs";
    let mut network = Network::new(uri);
    resolve(
        &mut network,
        "c.example.com",
        srv(&[("a.example.com", 1), ("b.example.com", 1)]),
        NO_TXT,
    );
    let other = Network::at(
        network.now,
        uri,
        Some(network.machine.snapshot()),
        without_prefetch(),
    );
    assert!(other.lookups.is_empty());
    assert_eq!(other.addresses(), ["a.example.com:1", "b.example.com:1"]);
}

#[test]
fn answers_that_nobody_asked_for_and_of_the_wrong_kind_do_no_harm() {
    let mut network = Network::new("mongodb+srv://c.example.com");
    network.resolve("TXT records of c.example.com", srv(&[("a.example.com", 1)]));
    let ErrorKind::Dns { fault, .. } = network.expect_error().kind() else {
        panic!("{:?}", network.expect_error())
    };
    assert!(matches!(fault, DnsFault::Malformed { .. }), "{fault:?}");
}
