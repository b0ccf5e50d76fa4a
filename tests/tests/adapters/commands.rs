//! Commands of the user's own.

use std::sync::{Arc, Mutex};

use bson::doc;
use changestream_driver::monitoring::{CommandStage, ConnectionEvent, Event, EventKind};
use changestream_driver::{CommandOptions, ErrorKind, FullDocumentBeforeChange};
use changestream_tests::writer::{insert, run};

use crate::adapter::{Adapter, Follow};
use crate::scenarios::{client, quick_to_elect, replica_set};

pub async fn commands_are_run_over_one_connection_and_told_of<A: Adapter>() {
    let deployment = quick_to_elect().server_version("7.0").start().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let client = {
        let told = told.clone();
        client::<A>(&deployment).monitor(move |event: &Event| told.lock().unwrap().push(event.clone()))
    };
    let shop = client.database("shop");
    let images = doc! { "create": "orders", "changeStreamPreAndPostImages": { "enabled": true } };
    A::run(shop.run_command(images)).await.unwrap();
    let reply = A::run(shop.run_command(doc! { "ping": 1 })).await.unwrap();
    assert!(reply.contains_key("$clusterTime"), "{reply}");

    // What the command was for.
    insert(&deployment, "shop", "orders", 0..1);
    let watch = shop.collection("orders").watch();
    let watch = watch.full_document_before_change(FullDocumentBeforeChange::Required);
    let mut stream = A::open(watch).await.unwrap();
    run(
        &deployment,
        &doc! { "delete": "orders", "deletes": [{ "q": {}, "limit": 1 }], "$db": "shop" },
    );
    let event = stream.next().await.unwrap().unwrap();
    assert!(event.full_document_before_change().present().is_some());

    let told = told.lock().unwrap();
    let started: Vec<_> = told
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Command(command) => match &command.stage {
                CommandStage::Started { command: body, .. } => {
                    let lsid = body.as_raw().get_document("lsid").unwrap().to_owned();
                    Some((event.source, command.command_name.as_str(), lsid))
                }
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(
        (started[0].1, started[1].1, started[2].1),
        ("create", "ping", "aggregate")
    );
    assert_eq!((started[0].0, &started[0].2), (started[1].0, &started[1].2));
    assert_ne!((started[1].0, &started[1].2), (started[2].0, &started[2].2));
    let created = |source: u64| {
        let ready = told.iter().filter(|event| match &event.kind {
            EventKind::Connection(connection) => {
                event.source == source && matches!(connection, ConnectionEvent::Ready { .. })
            }
            _ => false,
        });
        ready.count()
    };
    assert_eq!((created(started[0].0), created(started[2].0)), (1, 1));
}

pub async fn a_refused_command_is_told_with_the_servers_words<A: Adapter>() {
    let deployment = replica_set();
    let shop = client::<A>(&deployment).database("shop");
    let error = A::run(shop.run_command(doc! { "noSuchCommand": 1 }))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(59), "{error}");
    let error = A::run(shop.run_command(doc! { "ping": 1, "$db": "other" }))
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::InvalidArgument { .. }),
        "{error}"
    );
    A::run(shop.run_command(doc! { "ping": 1 })).await.unwrap();
}

pub async fn a_command_outlives_the_connection_of_the_one_before<A: Adapter>() {
    let deployment = replica_set();
    let shop = client::<A>(&deployment).database("shop");
    A::run(shop.run_command(doc! { "ping": 1 })).await.unwrap();
    deployment.crash(deployment.primary().unwrap());
    let read = CommandOptions::default().retryable_read(true);
    A::run(shop.run_command_with(doc! { "ping": 1 }, read))
        .await
        .unwrap();
}

pub async fn a_command_given_up_leaves_the_next_ones_alone<A: Adapter>() {
    let deployment = replica_set();
    let shop = client::<A>(&deployment).database("shop");
    let session = client::<A>(&deployment).start_session().unwrap();
    drop(shop.run_command(doc! { "ping": 1 }));
    A::run(shop.run_command(doc! { "ping": 1 })).await.unwrap();
    drop(shop.run_command(doc! { "ping": 1 }));
    let options = CommandOptions::default().session(session);
    A::run(shop.run_command_with(doc! { "ping": 1 }, options))
        .await
        .unwrap();
}
