//! Where the tests find the data that they run: conformance files and recorded conversations. Neither is part of the
//! project; where they are not there, a test says so and passes.

pub mod capture;
pub mod fuzzing;
pub mod name_service;
pub mod recorded_stream;
pub mod replay;
pub mod simulation;
pub mod world;
pub mod writer;

use std::path::PathBuf;

/// The conformance files of the driver specifications: `CHANGESTREAM_SPECS`, else `../shared/specs` beside the
/// checkout. None, said on one line, where there are none.
pub fn specs() -> Option<PathBuf> {
    data("CHANGESTREAM_SPECS", "specs")
}

/// The conversations with a real server: `CHANGESTREAM_CAPTURES`, else `../shared/captures` beside the checkout.
/// None, said on one line, where there are none.
pub fn captures() -> Option<PathBuf> {
    data("CHANGESTREAM_CAPTURES", "captures")
}

#[expect(clippy::print_stderr, reason = "a skipped test must never be silent")]
fn data(variable: &str, folder: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../shared")
                .join(folder)
        },
        PathBuf::from,
    );
    if path.is_dir() {
        return Some(path);
    }
    eprintln!(
        "skipped: no {}; set {variable} to where the files are",
        path.display()
    );
    None
}

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
