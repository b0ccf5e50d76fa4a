//! The pure crates know no clock, socket, thread, executor and no randomness of the operating system, and nothing in
//! them depends on an order that differs from run to run.

use super::source::{self, Source};
use super::{Breach, File};

/// The crates that compute and do nothing else.
pub(super) const PURE_CRATES: [&str; 2] = ["changestream-core", "changestream-sim"];

pub(super) fn check(files: &[File]) -> Vec<Breach> {
    files
        .iter()
        .filter(|file| file.is_rust() && is_pure(&file.path))
        .flat_map(check_file)
        .collect()
}

fn check_file(file: &File) -> Vec<Breach> {
    let code = Source::new(&file.text).code;
    FORBIDDEN
        .iter()
        .flat_map(|(words, why)| {
            source::find(&code, words).into_iter().map(move |(line, word)| {
                Breach::new(&file.path, line, format!("`{word}` in a pure crate: {why}"))
            })
        })
        .collect()
}

fn is_pure(path: &str) -> bool {
    let Some((name, rest)) = path.strip_prefix("crates/").and_then(|p| p.split_once("/src/")) else {
        return false;
    };
    // The simulated deployment's TCP listener is its one part that touches the system.
    let is_listener = name == "changestream-sim" && (rest == "listener.rs" || rest.starts_with("listener/"));
    PURE_CRATES.contains(&name) && !is_listener
}

const FORBIDDEN: &[(&[&str], &str)] = &[
    (
        &["Instant::now", "SystemTime", "DateTime::now", ".elapsed"],
        "time comes in as an argument",
    ),
    (
        &[
            // Addresses are values, and what the program was built for is a constant: both are pure.
            "std::os",
            "std::fs",
            "std::io::stdin",
            "std::process",
            "env::var",
            "env::var_os",
            "env::vars",
            "env::args",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "UnixListener",
            "ToSocketAddrs",
            "lookup_host",
        ],
        "input and output are the adapter's",
    ),
    (
        &["std::thread", "thread::spawn", "thread::sleep", "thread_local!"],
        "a machine has no threads",
    ),
    (
        &[
            "async fn",
            "async move",
            ".await",
            "std::task",
            "task::Context",
            "futures::",
            "std::future",
        ],
        "a machine knows no executor",
    ),
    (
        &[
            "ObjectId::new",
            "Uuid::new",
            "Uuid::new_v4",
            "thread_rng",
            "OsRng",
            "getrandom",
            "from_os_rng",
            "rand::rng",
        ],
        "randomness comes from changestream_core::random",
    ),
    (
        &["HashMap", "HashSet", "RandomState"],
        "their order differs from run to run: use BTreeMap and BTreeSet",
    ),
];
