//! The scenarios. Each is one function over any adapter.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use bson::doc;
use changestream_driver::{ChangeEvent, Client, ErrorKind, ResumeToken, Update};
use changestream_sim::{Deployment, RunningDeployment};
use changestream_tests::writer::{insert, run};

use crate::adapter::{Adapter, Follow};

pub async fn a_collection_a_database_and_a_deployment_are_watched<A: Adapter>() {
    let deployment = replica_set();
    let client = client::<A>(&deployment);
    let mut collection = A::open(client.collection("shop", "orders").watch())
        .await
        .unwrap();
    let mut database = A::open(client.database("shop").watch()).await.unwrap();
    let mut cluster = A::open(client.watch()).await.unwrap();
    insert(&deployment, "garden", "trees", 1..2);
    insert(&deployment, "shop", "guests", 2..3);
    insert(&deployment, "shop", "orders", 3..4);
    assert_eq!(take(&mut collection, 1).await, [3]);
    assert_eq!(take(&mut database, 2).await, [2, 3]);
    assert_eq!(take(&mut cluster, 3).await, [1, 2, 3]);
}

pub async fn an_election_loses_and_repeats_nothing<A: Adapter>() {
    follow_through_an_election::<A>(replica_set()).await;
}

/// Every event once and in order, with an election in the middle.
pub async fn follow_through_an_election<A: Adapter>(deployment: RunningDeployment) {
    let deployment = Arc::new(deployment);
    let mut stream = A::open(orders::<A>(&deployment)).await.unwrap();
    let writing = Writing::start(&deployment, 0..200);
    let mut seen = writing.take(&mut stream, 30).await;
    let old = deployment.primary().unwrap();
    // A server keeps the connections of its clients when it steps down: they are cut, so that the stream has to move.
    deployment.with(|d, now| {
        d.step_down(now);
        d.drop_connections(now, old);
    });
    seen.extend(writing.take(&mut stream, 170).await);
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    assert!(stream.stats().resumes >= 1, "{:?}", stream.stats());
    assert_ne!(deployment.primary(), Some(old));
}

pub async fn a_crash_of_the_primary_loses_and_repeats_nothing<A: Adapter>() {
    let deployment = Arc::new(replica_set());
    let mut stream = A::open(orders::<A>(&deployment)).await.unwrap();
    let writing = Writing::start(&deployment, 0..200);
    let mut seen = writing.take(&mut stream, 30).await;
    deployment.crash(deployment.primary().unwrap());
    seen.extend(writing.take(&mut stream, 170).await);
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    assert_eq!(stream.stats().resumes, 1);
    assert_eq!(stream.stats().events, 200);
}

pub async fn a_try_comes_back_and_an_idle_stream_tells_where_it_stands<A: Adapter>() {
    let deployment = replica_set();
    let quick = orders::<A>(&deployment).max_await_time(Duration::from_millis(10));
    let mut stream = A::open(quick.prefetch_batches(0)).await.unwrap();
    assert!(stream.try_next().await.unwrap().is_none());
    assert_eq!(count(&deployment, "getMore"), 1);
    let Some(Ok(Update::Idle(idle))) = stream.next_update().await else {
        panic!("an idle stream says that it is idle");
    };
    assert!(idle.token.is_some());
    assert_eq!(idle.token.as_ref(), stream.resume_token());

    insert(&deployment, "shop", "orders", 0..5);
    assert_eq!(id(&stream.try_next().await.unwrap().unwrap()), 0);
    let batch = stream.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.iter().map(id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(stream.resume_token(), batch.last().map(ChangeEvent::resume_token));
}

pub async fn an_invalidated_stream_ends<A: Adapter>() {
    let deployment = replica_set();
    insert(&deployment, "shop", "orders", 0..1);
    let mut stream = A::open(orders::<A>(&deployment)).await.unwrap();
    run(&deployment, &doc! { "drop": "orders", "$db": "shop" });
    let mut kinds = Vec::new();
    while let Some(event) = stream.next().await {
        kinds.push(event.unwrap().operation_type().unwrap().as_str().to_owned());
    }
    assert_eq!(kinds, ["drop", "invalidate"]);
    assert!(!stream.is_alive());
    let error = stream.try_next().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
}

pub async fn closing_kills_the_cursor<A: Adapter>() {
    let deployment = replica_set();
    let mut stream = A::open(orders::<A>(&deployment)).await.unwrap();
    insert(&deployment, "shop", "orders", 0..1);
    let event = stream.next().await.unwrap().unwrap();
    let primary = deployment.primary().unwrap();
    let cursors = deployment.with(|d, _| d.cursors(primary));
    assert_eq!(cursors.len(), 1);
    let token = stream.close().await.unwrap().unwrap();
    assert!(data(&token) >= data(event.resume_token()));
    assert!(!stream.is_alive());
    assert!(stream.next().await.is_none());

    let killed = deployment
        .commands()
        .into_iter()
        .find(|c| c.name == "killCursors")
        .expect("it is killed");
    assert_eq!(killed.member, primary);
    let named: Vec<_> = killed
        .body
        .get_array("cursors")
        .unwrap()
        .iter()
        .filter_map(|id| id.as_i64())
        .collect();
    assert_eq!(named, cursors);
    assert!(deployment.with(|d, _| d.cursors(primary)).is_empty());
}

pub async fn a_reply_that_never_comes_is_resumed_from<A: Adapter>() {
    let deployment = replica_set();
    let uri = format!("{}&socketTimeoutMS=150", deployment.uri());
    let watch = Client::<A::Mode>::new(uri)
        .unwrap()
        .collection("shop", "orders")
        .watch();
    let watch = watch
        .max_await_time(Duration::from_millis(10))
        .prefetch_batches(0);
    let mut stream = A::open(watch).await.unwrap();
    let hang = doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": 1 },
        "data": { "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 60_000 },
    };
    deployment
        .fail_command(deployment.primary().unwrap(), &hang)
        .unwrap();
    insert(&deployment, "shop", "orders", 0..2);
    let started = Instant::now();
    let mut updates = Vec::new();
    while updates.len() < 4 {
        match stream.next_update().await.unwrap().unwrap() {
            Update::Idle(_) => {}
            Update::Resuming(resuming) => {
                let timed_out = matches!(resuming.cause.kind(), ErrorKind::Network { timed_out: true, .. });
                assert!(timed_out, "{}", resuming.cause);
                updates.push("resuming".to_owned());
            }
            Update::Resumed { .. } => updates.push("resumed".to_owned()),
            Update::Change(event) => updates.push(id(&event).to_string()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(updates, ["resuming", "resumed", "0", "1"]);
    assert!(
        started.elapsed() < MUCH,
        "the timer was late: {:?}",
        started.elapsed()
    );
}

pub async fn a_member_cut_off_from_the_others_falls_silent_and_goes_on<A: Adapter>() {
    let deployment = replica_set();
    let watch = orders::<A>(&deployment).max_await_time(Duration::from_millis(10));
    let mut stream = A::open(watch).await.unwrap();
    insert(&deployment, "shop", "orders", 0..1);
    assert_eq!(take(&mut stream, 1).await, [0]);
    let old = deployment.primary().unwrap();
    deployment.partition(&[old]);
    while deployment.primary().is_none_or(|primary| primary == old) {
        thread::yield_now();
    }
    insert(&deployment, "shop", "orders", 1..3);
    assert!(stream.try_next().await.unwrap().is_none());
    deployment.heal();
    assert_eq!(take(&mut stream, 2).await, [1, 2]);
}

pub async fn a_server_that_says_nothing_is_given_up<A: Adapter>() {
    // The system completes connections to it; nobody ever takes one.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let uri = format!("mongodb://{address}/?connectTimeoutMS=50&serverSelectionTimeoutMS=100");
    let started = Instant::now();
    let error = A::open(Client::<A::Mode>::new(uri).unwrap().watch())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::ServerSelection { .. }),
        "{error}"
    );
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let waited = started.elapsed();
    assert!((Duration::from_millis(100)..MUCH).contains(&waited), "{waited:?}");
}

pub async fn nobody_listening_is_an_error_after_the_selection_time<A: Adapter>() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let uri = format!("mongodb://{address}/?serverSelectionTimeoutMS=30");
    let error = A::open(Client::<A::Mode>::new(uri).unwrap().watch())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::ServerSelection { .. }),
        "{error}"
    );
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

pub async fn a_wrong_password_is_told_without_the_password<A: Adapter>() {
    let deployment = Deployment::replica_set(1).user("ada", "pencil").start().unwrap();
    let with = |password: &str| {
        let login = format!("mongodb://ada:{password}@");
        let uri = deployment.uri().replace("mongodb://", &login) + "&authSource=admin";
        Client::<A::Mode>::new(uri).unwrap().watch()
    };
    let error = A::open(with("crayon")).await.err().unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::Authentication { .. }),
        "{error}"
    );
    for told in [
        error.to_string(),
        format!("{error:?}"),
        format!("{:?}", with("crayon")),
    ] {
        assert!(!told.contains("crayon"), "{told}");
    }
    A::open(with("pencil")).await.unwrap();
}

pub async fn a_standalone_is_told_what_it_takes<A: Adapter>() {
    let deployment = Deployment::standalone().start().unwrap();
    let error = A::open(client::<A>(&deployment).watch()).await.err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::NotAReplicaSet(_)), "{error}");
    assert_eq!(error.code(), Some(40573));
    assert!(error.to_string().contains("rs.initiate()"), "{error}");
}

pub async fn streams_of_one_client_share_what_they_learned<A: Adapter>() {
    let deployment = replica_set();
    let client = client::<A>(&deployment);
    let mut first = A::open(client.watch()).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..10 {
        others.push(A::open(client.watch()).await.unwrap());
    }
    let primary = deployment.primary().unwrap();
    for member in 0..3 {
        // The first looked at every member; the others went straight to the primary.
        let hellos = hellos(&deployment, member);
        assert!(
            if member == primary {
                hellos == 11
            } else {
                hellos <= 1
            },
            "{hellos} at {member}"
        );
    }
    insert(&deployment, "shop", "orders", 0..1);
    assert_eq!(take(&mut first, 1).await, [0]);
    assert_eq!(take(&mut others[9], 1).await, [0]);
}

pub async fn servers_are_told_of_the_executor<A: Adapter>() {
    let deployment = replica_set();
    A::open(client::<A>(&deployment).watch()).await.unwrap();
    let hello = deployment
        .commands()
        .into_iter()
        .find(|c| c.body.contains_key("client"))
        .unwrap();
    let platform = hello
        .body
        .get_document("client")
        .unwrap()
        .get_str("platform")
        .unwrap();
    assert!(platform.contains(A::PLATFORM), "{platform}");
}

/// Most systems give `localhost` an IPv6 address first, and nobody listens there.
pub async fn the_addresses_of_a_name_are_tried_in_turn<A: Adapter>() {
    let deployment = Deployment::replica_set(1).start().unwrap();
    let uri = deployment.uri().replace("127.0.0.1", "localhost") + "&directConnection=true";
    A::open(Client::<A::Mode>::new(uri).unwrap().watch())
        .await
        .unwrap();
}

#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
pub async fn an_ipv6_literal_serves_as_well<A: Adapter>() {
    let deployment = Deployment::replica_set(1).start().unwrap();
    let Some(port) = crate::ipv6_proxy::start(deployment.address(0).unwrap()) else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let uri = format!("mongodb://[::1]:{port}/?directConnection=true");
    let mut stream = A::open(Client::<A::Mode>::new(uri).unwrap().watch())
        .await
        .unwrap();
    insert(&deployment, "shop", "orders", 0..2);
    assert_eq!(take(&mut stream, 2).await, [0, 1]);
    stream.close().await.unwrap();
}

pub async fn a_call_that_runs_out_of_time_leaves_the_stream_alive<A: Adapter>() {
    let deployment = Deployment::replica_set(1).start().unwrap();
    let watch = client::<A>(&deployment)
        .database("shop")
        .with_timeout(Duration::from_millis(1))
        .collection("orders")
        .with_timeout(Duration::from_millis(700))
        .watch()
        .max_await_time(Duration::from_millis(100));
    let mut stream = A::open(watch).await.unwrap();
    for round in 0..2 {
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(stream.is_alive());
        insert(&deployment, "shop", "orders", round..round + 1);
        assert_eq!(take(&mut stream, 1).await, [round]);
    }
    stream.close().await.unwrap();
}

#[cfg(unix)]
pub async fn a_unix_socket_serves_as_well<A: Adapter>() {
    let deployment = Deployment::replica_set(1).start().unwrap();
    let socket = crate::unix_proxy::UnixProxy::start(deployment.address(0).unwrap());
    let uri = format!(
        "mongodb://{}/?directConnection=true",
        socket.path().replace('/', "%2F")
    );
    let mut stream = A::open(Client::<A::Mode>::new(uri).unwrap().watch())
        .await
        .unwrap();
    insert(&deployment, "shop", "orders", 0..2);
    assert_eq!(take(&mut stream, 2).await, [0, 1]);
    stream.close().await.unwrap();
}

/// Elections take a moment instead of seconds.
pub fn replica_set() -> RunningDeployment {
    quick_to_elect().start().unwrap()
}

pub fn quick_to_elect() -> changestream_sim::Config {
    Deployment::replica_set(3)
        .election_timeout(Duration::from_millis(50))
        .handoff(Duration::from_millis(20))
}

pub fn client<A: Adapter>(deployment: &RunningDeployment) -> Client<A::Mode> {
    Client::new(deployment.uri()).unwrap()
}

fn orders<A: Adapter>(deployment: &RunningDeployment) -> changestream_driver::Watch<A::Mode> {
    client::<A>(deployment).collection("shop", "orders").watch()
}

/// A writer at work, which is never far ahead of the stream: so whatever a test does, it does it in the middle.
struct Writing {
    pace: Receiver<()>,
}

impl Writing {
    fn start(deployment: &Arc<RunningDeployment>, ids: Range<i32>) -> Self {
        let deployment = Arc::clone(deployment);
        let (ahead, pace) = mpsc::sync_channel(20);
        // Once the test is over nobody asks for the rest.
        let paced = ids.take_while(move |_| ahead.send(()).is_ok());
        thread::spawn(move || insert(&deployment, "shop", "orders", paced));
        Self { pace }
    }

    async fn take(&self, stream: &mut impl Follow, events: usize) -> Vec<i32> {
        let mut seen = Vec::new();
        while seen.len() < events {
            seen.extend(take(stream, 1).await);
            self.pace.recv().unwrap();
        }
        seen
    }
}

pub async fn take(stream: &mut impl Follow, events: usize) -> Vec<i32> {
    let mut seen = Vec::new();
    while seen.len() < events {
        seen.push(id(&stream.next().await.unwrap().unwrap()));
    }
    seen
}

fn id(event: &ChangeEvent) -> i32 {
    event.document_key().unwrap().get_i32("_id").unwrap()
}

/// Tokens of one deployment sort as the changes do.
pub fn data(token: &ResumeToken) -> &str {
    token.as_document().unwrap().get_str("_data").unwrap()
}

fn count(deployment: &RunningDeployment, command: &str) -> usize {
    deployment.commands().iter().filter(|c| c.name == command).count()
}

fn hellos(deployment: &RunningDeployment, member: usize) -> usize {
    let commands = deployment.commands().into_iter().filter(|c| c.member == member);
    let names = commands.map(|c| c.name.to_lowercase());
    names.filter(|name| name == "hello" || name == "ismaster").count()
}

/// Far longer than any of the time limits in these scenarios, on any machine, and far shorter than the defaults.
const MUCH: Duration = Duration::from_secs(5);
