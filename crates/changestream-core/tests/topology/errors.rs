//! Errors in use, and what they change.

use bson::oid::ObjectId;
use changestream_core::ServerError;
use changestream_core::topology::{
    ApplicationError, ApplicationErrorKind, Changes, ConnectionPhase, ServerType, TopologyType,
    TopologyVersion,
};

use crate::world::{World, address, primary, refusal, settings};

fn with_primary() -> World {
    let mut world = World::new(&["a"]);
    world.checks();
    world.hello("a", &primary("a:27017", &["a:27017"]));
    world
}

fn network(phase: ConnectionPhase, timed_out: bool) -> ApplicationError {
    let message = "connection reset".to_owned();
    error(phase, ApplicationErrorKind::Network { message, timed_out })
}

fn command(phase: ConnectionPhase, code: i32, message: &str, labels: &[&str]) -> ApplicationError {
    let mut said = ServerError::new(code, "", message);
    said.labels = labels.iter().map(ToString::to_string).collect();
    let kind = ApplicationErrorKind::Command {
        error: said,
        topology_version: None,
    };
    error(phase, kind)
}

fn error(phase: ConnectionPhase, kind: ApplicationErrorKind) -> ApplicationError {
    ApplicationError {
        kind,
        phase,
        generation: 0,
        service_id: None,
        max_wire_version: Some(25),
    }
}

fn handle(world: &mut World, error: &ApplicationError) -> Changes {
    world
        .topology
        .handle_application_error(world.now, &address("a"), error)
}

/// Whether the server became Unknown, the pool was cleared, and the topology stale.
fn effects(error: &ApplicationError) -> (bool, bool, bool) {
    let mut world = with_primary();
    let changes = handle(&mut world, error);
    let unknown = world.server_type("a") == ServerType::Unknown;
    assert_eq!(changes.description, unknown);
    assert_eq!(
        changes.pool_cleared,
        world.topology.generation(&address("a"), None) == 1
    );
    (unknown, changes.pool_cleared, world.topology.is_stale(world.now))
}

#[test]
fn state_changes_are_told_by_their_code() {
    use ConnectionPhase::Ready;
    for code in [10107, 13435, 10058] {
        assert_eq!(
            effects(&command(Ready, code, "", &[])),
            (true, false, true),
            "{code}"
        );
    }
    for code in [11602, 13436, 189] {
        assert_eq!(
            effects(&command(Ready, code, "", &[])),
            (true, false, false),
            "{code}"
        );
    }
    for code in [11600, 91] {
        assert_eq!(
            effects(&command(Ready, code, "", &[])),
            (true, true, true),
            "{code}"
        );
    }
    for code in [1, 6, 43, 286, -1] {
        let error = command(Ready, code, "not master", &[]);
        assert_eq!(effects(&error), (false, false, false), "{code}");
    }
}

#[test]
fn state_changes_without_a_code_are_told_by_their_message() {
    use ConnectionPhase::Ready;
    let of = |message| effects(&command(Ready, 0, message, &[]));
    assert_eq!(
        of("replicatedToNum called but not master anymore"),
        (true, false, true)
    );
    assert_eq!(of("the node is recovering"), (true, false, false));
    assert_eq!(of("not master or secondary; cannot read"), (true, false, false));
    assert_eq!(of("anything else"), (false, false, false));
}

#[test]
fn servers_before_4_2_lose_their_connections_with_a_state_change() {
    let mut error = command(ConnectionPhase::Ready, 10107, "", &[]);
    error.max_wire_version = Some(7);
    assert_eq!(effects(&error), (true, true, true));
    error.max_wire_version = Some(8);
    assert_eq!(effects(&error), (true, false, true));
    error.max_wire_version = None;
    assert_eq!(effects(&error), (true, false, true));
}

#[test]
fn network_errors_count_by_how_far_the_connection_was() {
    use ConnectionPhase::{Authenticating, Establishing, Ready};
    assert_eq!(effects(&network(Establishing, false)), (false, false, false));
    assert_eq!(effects(&network(Establishing, true)), (false, false, false));
    assert_eq!(effects(&network(Authenticating, false)), (true, true, false));
    assert_eq!(effects(&network(Authenticating, true)), (true, true, false));
    assert_eq!(effects(&network(Ready, false)), (true, true, false));
    assert_eq!(effects(&network(Ready, true)), (false, false, false));
}

#[test]
fn other_errors_count_before_the_handshake_is_complete_unless_the_server_is_overloaded() {
    use ConnectionPhase::{Authenticating, Establishing, Ready};
    let message = "no address".to_owned();
    let no_address = error(Establishing, ApplicationErrorKind::Other { message });
    assert_eq!(effects(&no_address), (true, true, false));
    assert_eq!(
        effects(&command(Authenticating, 18, "", &[])),
        (true, true, false)
    );
    let overloaded = command(Authenticating, 462, "", &["SystemOverloadedError"]);
    assert_eq!(effects(&overloaded), (false, false, false));
    assert_eq!(effects(&command(Ready, 18, "", &[])), (false, false, false));
}

#[test]
fn an_error_of_an_older_generation_or_of_no_member_changes_nothing() {
    let mut world = with_primary();
    handle(&mut world, &network(ConnectionPhase::Ready, false));
    world.hello("a", &primary("a:27017", &["a:27017"]));
    assert_eq!(
        handle(&mut world, &network(ConnectionPhase::Ready, false)),
        Changes::default()
    );
    assert_eq!(world.server_type("a"), ServerType::RsPrimary);
    let error = network(ConnectionPhase::Ready, false);
    let changes = world
        .topology
        .handle_application_error(world.now, &address("z"), &error);
    assert_eq!(changes, Changes::default());
}

#[test]
fn an_overloaded_reply_to_a_check_leaves_a_known_server_as_it_is() {
    let mut world = with_primary();
    world.pass(60_000);
    world.checks();
    let changes = world.hello("a", &refusal(462, &["SystemOverloadedError"]));
    assert_eq!(changes, Changes::default());
    assert_eq!(world.server_type("a"), ServerType::RsPrimary);
    assert!(!world.topology.is_scanning());
}

#[test]
fn an_error_in_use_starts_no_cooldown() {
    let mut world = with_primary();
    world.pass(1_000);
    handle(&mut world, &network(ConnectionPhase::Ready, false));
    world.topology.mark_stale();
    assert_eq!(world.checks(), ["a:27017"]);
}

#[test]
fn behind_a_load_balancer_an_error_clears_the_pool_of_its_service_only() {
    let mut settings = settings(&["a"]);
    settings.load_balanced = true;
    let mut world = World::with(settings);
    let (one, two) = (ObjectId::from_bytes([1; 12]), ObjectId::from_bytes([2; 12]));
    let generation = |world: &World, service| world.topology.generation(&address("a"), service);

    let mut error = network(ConnectionPhase::Authenticating, false);
    assert_eq!(handle(&mut world, &error), Changes::default());
    error.service_id = Some(one);
    assert!(handle(&mut world, &error).pool_cleared);
    assert_eq!(generation(&world, Some(one)), 1);
    assert_eq!(generation(&world, Some(two)), 0);
    assert_eq!(generation(&world, None), 0);
    assert!(!handle(&mut world, &error).pool_cleared, "it is stale now");
    assert_eq!(world.server_type("a"), ServerType::LoadBalancer);
    assert_eq!(
        world.topology.description().topology_type,
        TopologyType::LoadBalanced
    );
}

#[test]
fn generations_never_fall_however_many_services_a_load_balancer_names() {
    let mut settings = settings(&["a"]);
    settings.load_balanced = true;
    let mut world = World::with(settings);
    let first = ObjectId::from_bytes([0; 12]);
    let mut last = 0;
    for number in 0..2_000u32 {
        let mut id = [9; 12];
        id[..4].copy_from_slice(&(number % 700).to_be_bytes());
        let service = Some(ObjectId::from_bytes(id));
        let mut error = network(ConnectionPhase::Ready, false);
        error.service_id = service;
        error.generation = world.topology.generation(&address("a"), service);
        handle(&mut world, &error);
        assert!(world.topology.generation(&address("a"), service) > error.generation);
        let now = world.topology.generation(&address("a"), Some(first));
        assert!(now >= last);
        last = now;
    }
    assert!(last > 0);
}

#[test]
fn up_to_a_bound_each_service_is_counted_alone_and_beyond_it_all_connections_are_cleared() {
    let mut settings = settings(&["a"]);
    settings.load_balanced = true;
    let mut world = World::with(settings);
    let service = |number: u16| {
        let mut id = [0; 12];
        id[..2].copy_from_slice(&number.to_be_bytes());
        Some(ObjectId::from_bytes(id))
    };
    let fail = |world: &mut World, number: u16| {
        let mut error = network(ConnectionPhase::Ready, false);
        error.service_id = service(number);
        error.generation = world.topology.generation(&address("a"), error.service_id);
        assert!(handle(world, &error).pool_cleared);
    };
    let generation = |world: &World, number| world.topology.generation(&address("a"), service(number));
    // The first fails three times, the others once.
    for number in [0, 0].into_iter().chain(0..256) {
        fail(&mut world, number);
    }
    assert_eq!(generation(&world, 0), 3);
    assert_eq!(generation(&world, 255), 1);
    assert_eq!(generation(&world, 256), 0, "of another service nothing is known");
    let before: Vec<_> = (0..300).map(|number| generation(&world, number)).collect();
    fail(&mut world, 256);
    for (number, before) in (0..300).zip(before) {
        assert!(generation(&world, number) > before, "service {number} is cleared");
    }
}

#[test]
fn a_server_that_an_error_made_unknown_says_what_the_error_was() {
    let said = |error: &ApplicationError| {
        let mut world = with_primary();
        handle(&mut world, error);
        let server = world.topology.server(&address("a")).unwrap();
        server.error.clone().unwrap()
    };
    assert_eq!(said(&network(ConnectionPhase::Ready, false)), "connection reset");
    let refused = said(&command(ConnectionPhase::Ready, 91, "shutting down", &[]));
    assert!(
        refused.contains("shutting down") && refused.contains("91"),
        "{refused}"
    );
}

#[test]
fn a_state_change_that_the_server_counts_as_old_changes_nothing() {
    let process_id = ObjectId::from_bytes([1; 12]);
    let version = |process_id, counter| TopologyVersion { process_id, counter };
    let changes = |known: i64, told: Option<TopologyVersion>| {
        let mut world = World::new(&["a"]);
        world.checks();
        let mut hello = primary("a:27017", &["a:27017"]);
        let counted = bson::rawdoc! { "processId": process_id, "counter": known };
        hello.append(bson::cstr!("topologyVersion"), counted);
        world.hello("a", &hello);
        let mut error = command(ConnectionPhase::Ready, 10107, "", &[]);
        if let ApplicationErrorKind::Command { topology_version, .. } = &mut error.kind {
            *topology_version = told;
        }
        let changed = handle(&mut world, &error).description;
        let server = world.topology.server(&address("a")).unwrap();
        assert_eq!(changed, server.server_type == ServerType::Unknown);
        if changed {
            assert_eq!(
                server.topology_version, told,
                "what comes next is held against it"
            );
        }
        changed
    };
    assert!(!changes(5, Some(version(process_id, 4))));
    assert!(!changes(5, Some(version(process_id, 5))));
    assert!(changes(5, Some(version(process_id, 6))));
    assert!(
        changes(5, Some(version(ObjectId::from_bytes([2; 12]), 0))),
        "it was restarted"
    );
    assert!(changes(5, None));
}
