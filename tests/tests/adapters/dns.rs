//! Finding the servers of `mongodb+srv://`, with a name server on the loopback.
//!
//! The names of the servers are `127.0.0.1`, below the domain `0.0.1`: so nobody has to look up their addresses.

use std::net::{SocketAddr, UdpSocket};

use changestream_driver::{Client, Error, ErrorKind};
use changestream_sim::{Deployment, RunningDeployment};
use changestream_tests::name_service::{Habit, NameServer, Zone};
use changestream_tests::writer::insert;

use crate::adapter::Adapter;
use crate::scenarios::take;

const HOST: &str = "cluster.0.0.1";
const SERVERS: &str = "_mongodb._tcp.cluster.0.0.1";
const LOOPBACK: &str = "127.0.0.1";

/// A deployment, and the records that lead to it.
fn deployment() -> (RunningDeployment, Zone) {
    let deployment = Deployment::replica_set(3).start().unwrap();
    let mut zone = Zone::default().txt(HOST, &["replicaSet=", "rs0"]);
    for member in 0..3 {
        zone = zone.srv(SERVERS, LOOPBACK, port(&deployment, member));
    }
    (deployment, zone)
}

fn port(deployment: &RunningDeployment, member: usize) -> u16 {
    let address = deployment.with(|deployment, _| deployment.address(member).unwrap().to_owned());
    address.parse::<SocketAddr>().unwrap().port()
}

fn client<A: Adapter>(options: &str, servers: impl IntoIterator<Item = SocketAddr>) -> Client<A::Mode> {
    let client = Client::<A::Mode>::new(format!("mongodb+srv://{HOST}/?tls=false{options}")).unwrap();
    client.with_dns_servers(servers)
}

/// A stream opens by that client, and follows.
async fn follows<A: Adapter>(client: &Client<A::Mode>, deployment: &RunningDeployment) {
    let mut stream = A::open(client.collection("shop", "orders").watch())
        .await
        .unwrap();
    let next = deployment
        .commands()
        .iter()
        .filter(|c| c.name == "insert")
        .count();
    let next = i32::try_from(next).unwrap();
    insert(deployment, "shop", "orders", next..next + 1);
    assert_eq!(take(&mut stream, 1).await, [next]);
}

/// What opening fails with, where DNS says that.
async fn error_of<A: Adapter>(options: &str, zone: Zone) -> Error {
    let server = NameServer::start(zone);
    let client = client::<A>(options, [server.address()]);
    let Err(error) = A::open(client.watch()).await else {
        panic!("a stream opens")
    };
    error
}

pub async fn servers_and_their_options_are_found_in_dns<A: Adapter>() {
    let (deployment, zone) = deployment();
    let server = NameServer::start(zone);
    let client = client::<A>("", [server.address()]);
    follows::<A>(&client, &deployment).await;
    let mut asked = server.asked();
    asked.sort();
    assert_eq!(asked, [format!("udp SRV {SERVERS}"), format!("udp TXT {HOST}")]);
    // Other streams of the client know it.
    follows::<A>(&client, &deployment).await;
    assert_eq!(server.asked().len(), 2);

    // What the TXT record says counts: there is no set of that name.
    let other = Zone::default()
        .srv(SERVERS, LOOPBACK, port(&deployment, 0))
        .txt(HOST, &["replicaSet=other"]);
    let error = error_of::<A>("&serverSelectionTimeoutMS=300", other).await;
    assert!(error.to_string().contains("\"other\""), "{error}");
}

pub async fn an_answer_that_does_not_fit_is_asked_for_over_tcp<A: Adapter>() {
    let (deployment, zone) = deployment();
    let server = NameServer::start(
        zone.habit(SERVERS, Habit::Truncates)
            .habit(HOST, Habit::Truncates),
    );
    follows::<A>(&client::<A>("", [server.address()]), &deployment).await;
    let mut asked = server.asked();
    asked.sort();
    let expected = ["tcp SRV ", "tcp TXT ", "udp SRV ", "udp TXT "];
    assert!(
        asked.len() == 4
            && asked
                .iter()
                .zip(expected)
                .all(|(asked, begin)| asked.starts_with(begin)),
        "{asked:?}"
    );
}

pub async fn aliases_are_followed<A: Adapter>() {
    let (deployment, zone) = deployment();
    let zone = zone
        .alias("_mongodb._tcp.alias.0.0.1", "again.0.0.1", 60)
        .alias("again.0.0.1", SERVERS, 60)
        .alias("alias.0.0.1", HOST, 60);
    for habit in [Habit::Answers, Habit::DoesNotFollow] {
        let zone = zone
            .clone()
            .habit("_mongodb._tcp.alias.0.0.1", habit)
            .habit("again.0.0.1", habit)
            .habit("alias.0.0.1", habit);
        let server = NameServer::start(zone);
        let client = Client::<A::Mode>::new("mongodb+srv://alias.0.0.1/?tls=false")
            .unwrap()
            .with_dns_servers([server.address()]);
        follows::<A>(&client, &deployment).await;
        let asked = server.asked().len();
        assert_eq!(asked, if habit == Habit::Answers { 2 } else { 5 });
    }
}

pub async fn a_server_that_knows_no_extension_is_asked_without<A: Adapter>() {
    let (deployment, zone) = deployment();
    let server = NameServer::start(zone.habit(SERVERS, Habit::IsOld).habit(HOST, Habit::IsOld));
    follows::<A>(&client::<A>("", [server.address()]), &deployment).await;
    assert_eq!(server.asked().len(), 4);
}

pub async fn answers_of_others_are_passed_over<A: Adapter>() {
    let (deployment, zone) = deployment();
    let server = NameServer::start(
        zone.habit(SERVERS, Habit::IsSpoofed)
            .habit(HOST, Habit::IsSpoofed),
    );
    follows::<A>(&client::<A>("", [server.address()]), &deployment).await;
    assert_eq!(server.asked().len(), 2);
}

pub async fn the_next_name_server_is_asked_where_one_fails<A: Adapter>() {
    let (deployment, zone) = deployment();
    let good = NameServer::start(zone.clone());
    for habit in [Habit::Fails, Habit::Mangles] {
        let bad = NameServer::start(zone.clone().habit(SERVERS, habit).habit(HOST, habit));
        let client = client::<A>("", [bad.address(), good.address()]);
        follows::<A>(&client, &deployment).await;
        assert_eq!(bad.asked().len(), 2, "{habit:?}");
    }
    // Nobody is there, and the system says so.
    let nobody = UdpSocket::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap();
    follows::<A>(&client::<A>("", [nobody, good.address()]), &deployment).await;
}

pub async fn what_dns_lacks_is_told_with_the_name<A: Adapter>() {
    let here = || Zone::default().txt(HOST, &["replicaSet=rs0"]);
    let there = || Zone::default().srv(SERVERS, LOOPBACK, 1);
    for (zone, fault) in [
        (Zone::default(), "NXDOMAIN"),
        (here(), "NXDOMAIN"),
        (here().txt(SERVERS, &["x"]), "no such records"),
        (there().habit(SERVERS, Habit::Fails), "SERVFAIL"),
        (there().habit(SERVERS, Habit::Mangles), "malformed"),
        (there().habit(HOST, Habit::Fails), "SERVFAIL"),
        (
            there().txt(HOST, &["replicaSet=a"]).txt(HOST, &["authSource=b"]),
            "more than one TXT",
        ),
        (there().txt(HOST, &["tls=false"]), "option tls"),
        (
            there().txt(HOST, &["loadBalanced=true&replicaSet=rs"]),
            "loadBalanced",
        ),
    ] {
        let error = error_of::<A>("", zone).await;
        assert!(matches!(error.kind(), ErrorKind::Dns { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(fault) && text.contains(HOST), "{fault}: {text}");
    }
    let client = client::<A>("", []);
    let Err(error) = A::open(client.watch()).await else {
        panic!("a stream opens")
    };
    assert!(error.to_string().contains("no DNS server to ask"), "{error}");
}

pub async fn a_server_of_another_domain_is_not_connected_to<A: Adapter>() {
    let (deployment, _) = deployment();
    let zone = Zone::default()
        .srv(SERVERS, "127.0.0.2", 27017)
        .srv(SERVERS, LOOPBACK, port(&deployment, 0));
    let error = error_of::<A>("", zone).await;
    assert!(error.to_string().contains("127.0.0.2"), "{error}");
    assert!(error.to_string().contains("not below 0.0.1"), "{error}");
    assert!(deployment.commands().is_empty(), "somebody came to a server");
}

pub async fn a_name_server_that_says_nothing_is_waited_for_as_long_as_for_a_server<A: Adapter>() {
    let zone = Zone::default()
        .habit(SERVERS, Habit::Silent)
        .habit(HOST, Habit::Silent);
    let error = error_of::<A>("&serverSelectionTimeoutMS=200", zone).await;
    assert!(error.to_string().contains("in time"), "{error}");
}
