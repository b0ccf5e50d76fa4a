//! The driver's examples, run as their users would.

use std::thread;

use changestream_tests::writer::insert;

use crate::adapter::bounded;

#[allow(dead_code, reason = "an example's main")]
#[path = "../../../crates/changestream-driver/examples/bare_core.rs"]
mod bare_core;

#[allow(dead_code, reason = "an example's main")]
#[path = "../../../crates/changestream-driver/examples/compio.rs"]
pub mod compio;

#[allow(dead_code, reason = "an example's main")]
#[path = "../../../crates/changestream-driver/examples/std_threads.rs"]
pub mod std_threads;

type Follow = fn(&str, usize, &mut dyn std::io::Write) -> Result<(), Box<dyn std::error::Error>>;

#[test]
fn the_bare_core_driven_by_hand_survives_a_crash() {
    bounded(|| follows_through_a_crash(bare_core::follow));
}

#[test]
fn an_executor_of_threads_survives_a_crash() {
    bounded(|| follows_through_a_crash(std_threads::follow));
}

#[test]
fn an_executor_by_completion_survives_a_crash() {
    bounded(|| follows_through_a_crash(compio::follow));
}

fn follows_through_a_crash(follow: Follow) {
    let deployment = crate::scenarios::replica_set();
    let uri = deployment.uri();
    thread::scope(|scope| {
        let following = scope.spawn(|| {
            let mut lines = Vec::new();
            follow(&uri, 40, &mut lines).unwrap();
            String::from_utf8(lines).unwrap()
        });
        // Only what is written after the stream was opened is seen.
        while !deployment
            .commands()
            .iter()
            .any(|command| command.name == "getMore")
        {
            thread::yield_now();
        }
        insert(&deployment, "shop", "orders", 0..20);
        deployment.crash(deployment.primary().unwrap());
        insert(&deployment, "shop", "orders", 20..60);
        let lines = following.join().unwrap();
        assert_eq!(lines.lines().count(), 40, "{lines}");
        for (n, line) in lines.lines().enumerate() {
            assert!(line.contains(&format!("\"_id\": {n} ")), "{line}");
        }
    });
    assert!(
        deployment
            .commands()
            .iter()
            .any(|command| command.name == "killCursors")
    );
}
