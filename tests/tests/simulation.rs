//! The simulation over a few seeds, each time; `cargo xtask sim` runs more.

use changestream_tests::simulation;

#[test]
fn nothing_is_lost_or_repeated_in_a_storm_of_faults() {
    let mut resumes = 0;
    for seed in 0..150 {
        resumes += simulation::run(seed).resumes;
    }
    assert!(
        resumes > 100,
        "the faults have hardly been felt: {resumes} resumes"
    );
}

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in [3, 14, 159] {
        assert_eq!(simulation::run(seed), simulation::run(seed));
    }
}
