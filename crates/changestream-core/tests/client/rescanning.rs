//! Looking whether the list of mongos in DNS has changed (Polling SRV Records for mongos Discovery, prose tests).

use changestream_core::client::{DeadlineReason, Demand};
use changestream_core::dns::{Answer, DnsFault, TxtRecord};

use super::network::{Network, Request, first_batch, mongos, next_batch, ok, standalone, without_prefetch};
use super::seedlist::{NO_TXT, resolve, srv, srv_for};

const HOST: &str = "test1.test.build.10gen.cc";
const QUESTION: &str = "SRV records of _mongodb._tcp.test1.test.build.10gen.cc";
const LOCAL: &str = "localhost.test.build.10gen.cc";

fn uri(options: &str) -> String {
    format!("mongodb+srv://{HOST}/?tls=false{options}")
}

fn ports(ports: &[u16]) -> Result<Answer, DnsFault> {
    let records: Vec<_> = ports.iter().map(|port| (LOCAL, *port)).collect();
    srv(&records)
}

/// The ports of the servers that the topology holds.
fn known(network: &Network) -> Vec<u16> {
    let servers = network.machine.topology().servers.keys();
    servers.filter_map(|address| address.port()).collect()
}

/// A stream that reads from one of the mongos at these ports, and waits for a change.
fn reading(options: &str, first: Result<Answer, DnsFault>) -> Network {
    let mut network = Network::new(&uri(options));
    resolve(&mut network, HOST, first, NO_TXT);
    attach(&mut network);
    network
}

fn attach(network: &mut Network) {
    let addresses: Vec<_> = network.addresses().into_iter().map(str::to_owned).collect();
    for address in addresses {
        network.answer_hello(&address, &mongos());
    }
    network.pass(30);
    // The cursor that a lost connection has left behind is killed where the stream comes back.
    while let Some(request) = network.take_request() {
        let reply = match request.name() {
            "killCursors" => ok(),
            name => {
                assert_eq!(name, "aggregate");
                first_batch(7)
            }
        };
        network.answer(&request, &reply);
        if request.name() == "aggregate" {
            return;
        }
    }
    panic!("nothing is opened");
}

/// Has the stream look for a server again, so many seconds later.
fn lose(network: &mut Network, seconds: u64) {
    let address = network.addresses()[0].to_owned();
    // One getMore that succeeds, so that the loss is the first in a row: then the stream resumes at once.
    let get_more = next_request(network);
    network.answer(&get_more, &next_batch(7, &["e"]));
    next_request(network);
    network.pass(1);
    network.sleep(seconds * 1000 - 1);
    network.disconnect(&address);
    network.demand(Demand::Next);
}

/// The next request, for which the stream has to be asked for more than what it has to tell.
fn next_request(network: &mut Network) -> Request {
    loop {
        if let Some(request) = network.take_request() {
            return request;
        }
        network.demand(Demand::Next);
    }
}

/// The ports that are known after the list has been read anew, over a day later than the first time.
fn after(options: &str, first: &[u16], second: Result<Answer, DnsFault>) -> Vec<u16> {
    let mut network = reading(options, ports(first));
    lose(&mut network, 86_500);
    network.resolve(QUESTION, second);
    known(&network)
}

/// Prose test 1.
#[test]
fn a_new_record_is_a_new_mongos() {
    assert_eq!(
        after("", &[27017, 27018], ports(&[27017, 27018, 27019])),
        [27017, 27018, 27019]
    );
}

/// Prose test 2.
#[test]
fn a_record_that_is_gone_is_a_mongos_less() {
    assert_eq!(after("", &[27017, 27018], ports(&[27017])), [27017]);
}

/// Prose test 3.
#[test]
fn a_record_is_replaced() {
    assert_eq!(after("", &[27017, 27018], ports(&[27017, 27019])), [27017, 27019]);
}

/// Prose tests 4 and 5.
#[test]
fn all_records_are_replaced() {
    assert_eq!(after("", &[27017, 27018], ports(&[27019])), [27019]);
    assert_eq!(after("", &[27017, 27018], ports(&[27019, 27020])), [27019, 27020]);
}

/// Prose tests 6 and 7.
#[test]
fn a_look_up_that_fails_changes_nothing() {
    for fault in [
        DnsFault::TimedOut,
        DnsFault::NoSuchName,
        DnsFault::refused("SERVFAIL"),
        DnsFault::malformed("x"),
    ] {
        assert_eq!(after("", &[27017, 27018], Err(fault)), [27017, 27018]);
    }
}

/// Prose test 8.
#[test]
fn an_empty_list_changes_nothing() {
    assert_eq!(
        after("", &[27017, 27018], Err(DnsFault::NoRecords)),
        [27017, 27018]
    );
    assert_eq!(after("", &[27017, 27018], ports(&[])), [27017, 27018]);
}

/// Prose test 9.
#[test]
fn the_list_is_not_read_again_behind_a_load_balancer() {
    let mut network = Network::new(&uri(""));
    let txt = Answer::Txt(vec![TxtRecord {
        text: "loadBalanced=true".to_owned(),
    }]);
    resolve(&mut network, HOST, ports(&[27017]), Ok(txt));
    let mut hello = mongos();
    hello.insert("serviceId", bson::oid::ObjectId::from_bytes([1; 12]));
    network.answer_hello(&format!("{LOCAL}:27017"), &hello);
    network.open_at(&format!("{LOCAL}:27017"));
    lose(&mut network, 86_500);
    assert!(network.lookups.is_empty());
    assert_eq!(network.addresses(), [format!("{LOCAL}:27017")]);
}

/// Prose test 10.
#[test]
fn all_records_are_taken_without_a_limit() {
    assert_eq!(
        after("&srvMaxHosts=0", &[27017, 27018], ports(&[27017, 27019, 27020])),
        [27017, 27019, 27020]
    );
}

/// Prose test 11.
#[test]
fn all_records_are_taken_within_the_limit() {
    assert_eq!(
        after("&srvMaxHosts=2", &[27017, 27018], ports(&[27019, 27020])),
        [27019, 27020]
    );
}

/// Prose test 12.
#[test]
fn new_records_fill_up_to_the_limit_at_random() {
    let known = after("&srvMaxHosts=2", &[27017, 27018], ports(&[27017, 27019, 27020]));
    assert_eq!(known.len(), 2);
    assert_eq!(known[0], 27017, "what was in use stays in use");
    assert!([27019, 27020].contains(&known[1]), "{known:?}");
}

/// Prose test 13.
#[test]
fn the_service_is_asked_for_by_its_name_again() {
    let mut network = Network::new(&uri("&srvServiceName=customname"));
    network.resolve(
        &format!("SRV records of _customname._tcp.{HOST}"),
        ports(&[27017, 27018]),
    );
    network.resolve(&format!("TXT records of {HOST}"), NO_TXT);
    attach(&mut network);
    lose(&mut network, 86_500);
    network.resolve(
        &format!("SRV records of _customname._tcp.{HOST}"),
        ports(&[27019, 27020]),
    );
    assert_eq!(known(&network), [27019, 27020]);
}

/// "the driver MUST NOT add" them; the rest counts.
#[test]
fn records_that_lead_elsewhere_are_passed_over() {
    let mixed = srv(&[(LOCAL, 27018), ("localhost.evil.build.10gen.cc", 27017)]);
    assert_eq!(after("", &[27017], mixed), [27018]);
    let foreign = srv(&[("localhost.evil.build.10gen.cc", 27017)]);
    assert_eq!(after("", &[27017], foreign), [27017]);
}

/// "rescanSRVIntervalMS": the shortest time to live, and a minute at least.
#[test]
fn the_list_is_read_again_when_its_records_have_run_out_and_not_before() {
    for (time_to_live, too_early, due) in [(0, 59, 61), (60, 59, 61), (300, 299, 301)] {
        let mut network = reading("", srv_for(&[(LOCAL, 27017)], time_to_live));
        lose(&mut network, too_early);
        assert!(network.lookups.is_empty(), "{time_to_live}");
        attach(&mut network);
        lose(&mut network, due - too_early);
        assert_eq!(network.lookups.len(), 1, "{time_to_live}");
    }
}

/// "temporarily set rescanSRVIntervalMS to heartbeatFrequencyMS".
#[test]
fn a_look_up_that_failed_is_tried_again_after_the_heartbeat_frequency() {
    let mut network = reading("&heartbeatFrequencyMS=10000", ports(&[27017]));
    lose(&mut network, 86_500);
    network.resolve(QUESTION, Err(DnsFault::TimedOut));
    attach(&mut network);
    lose(&mut network, 9);
    assert!(network.lookups.is_empty());
    attach(&mut network);
    lose(&mut network, 2);
    network.resolve(QUESTION, ports(&[27018]));
    assert_eq!(known(&network), [27018]);
}

#[test]
fn servers_are_scanned_once_the_list_is_there_or_after_a_moment_without_it() {
    let mut network = reading("", ports(&[27017]));
    lose(&mut network, 86_500);
    assert!(network.links.is_empty(), "the list comes first");
    assert_eq!(network.deadline.unwrap().reason, DeadlineReason::Resolve);
    network.pass(999);
    assert!(network.links.is_empty());
    network.pass(1);
    assert_eq!(network.addresses(), [format!("{LOCAL}:27017")]);
    // What comes late counts all the same.
    network.resolve(QUESTION, ports(&[27018]));
    assert_eq!(network.addresses(), [format!("{LOCAL}:27018")]);
    network.answer_hello(&format!("{LOCAL}:27018"), &mongos());
    network.open_at(&format!("{LOCAL}:27018"));
}

#[test]
fn an_open_stream_asks_nothing_however_long_it_reads() {
    let mut network = reading("", ports(&[27017]));
    network.demand(Demand::Next);
    for _ in 0..100 {
        let get_more = network.expect(&format!("{LOCAL}:27017"), "getMore");
        network.sleep(5_000);
        network.answer(&get_more, &next_batch(7, &["e"]));
        network.demand(Demand::Next);
    }
    assert!(network.lookups.is_empty());
}

#[test]
fn a_list_for_a_standalone_is_not_read_again() {
    let mut network = Network::new(&uri(""));
    resolve(&mut network, HOST, ports(&[27017]), NO_TXT);
    network.answer_hello(&format!("{LOCAL}:27017"), &standalone());
    network.open_at(&format!("{LOCAL}:27017"));
    lose(&mut network, 86_500);
    assert!(network.lookups.is_empty());
}

/// Unknown, as sharded: none of the servers has ever answered.
#[test]
fn the_list_is_read_again_while_no_server_was_ever_reached() {
    let mut network = Network::new(&uri("&serverSelectionTimeoutMS=200000&connectTimeoutMS=1000"));
    resolve(&mut network, HOST, srv_for(&[(LOCAL, 27017)], 60), NO_TXT);
    network.pass(70_000);
    network.resolve(QUESTION, ports(&[27018]));
    assert_eq!(known(&network), [27018]);
    network.pass(1_000);
}

#[test]
fn other_streams_of_the_client_start_with_the_newest_list() {
    let mut network = reading("", ports(&[27017, 27018]));
    let mut shared = network.machine.snapshot();
    let other = reading("", ports(&[27017, 27018]));
    lose(&mut network, 86_500);
    network.resolve(QUESTION, ports(&[27018, 27019]));
    shared.merge(network.machine.snapshot());
    shared.merge(other.machine.snapshot());
    let third = Network::at(network.now, &uri(""), Some(shared), without_prefetch());
    assert!(third.lookups.is_empty());
    assert_eq!(known(&third), [27018, 27019]);
}
