//! The simulation over a few seeds, each time; `cargo xtask sim` runs more.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;

use changestream_tests::simulation::{self, Report};
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[test]
fn nothing_is_lost_or_repeated_in_a_storm_of_faults() {
    let mut total = Report::default();
    for seed in 1_000_000..1_000_020 {
        total.add(&simulation::run(seed));
    }
    let hardly_felt = total.resumes < 50 || total.delivered < 500;
    assert!(!hardly_felt, "the faults have hardly been felt: {total}");
    assert!(total.fault_count() >= 20 * 30, "too few faults: {total}");
}

#[test]
fn seeds_that_failed_once_pass() {
    for line in include_str!("../seeds.txt").lines() {
        if let Some(seed) = line.split(' ').next().and_then(|seed| seed.parse().ok()) {
            simulation::run(seed);
        }
    }
}

#[test]
fn equal_seeds_give_equal_bytes() {
    for seed in [3, 14, 159] {
        assert_eq!(simulation::run(seed), simulation::run(seed));
    }
    assert_ne!(simulation::run(3).fingerprint, simulation::run(4).fingerprint);
}

/// What fails is made shorter until nothing more can be left out.
#[test]
fn nothing_is_lost_or_repeated_by_any_script() {
    let config = Config {
        cases: 32,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let scripts = proptest::collection::vec(any::<u8>(), 0..LONGEST_SCRIPT);
    let total = RefCell::new(Report::default());
    TestRunner::new_with_rng(config, random)
        .run(&scripts, |script| {
            total.borrow_mut().add(&simulation::play(&script));
            Ok(())
        })
        .unwrap();
    let total = total.into_inner();
    for kind in simulation::OFTEN_MET {
        assert!(total.met.contains_key(kind), "no script has {kind}: {total}");
    }
}

const LONGEST_SCRIPT: usize = 400;
