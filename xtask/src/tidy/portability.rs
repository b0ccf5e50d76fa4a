//! Nothing in the repository names a machine: no absolute path of somebody's disk, no host of a package registry.

use super::{Breach, File};

pub(super) fn check(files: &[File]) -> Vec<Breach> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for path in PATHS.iter().filter(|path| names_path(line, path)) {
            let message = format!("`{path}`: an absolute path of one machine");
            breaches.push(Breach::new(&file.path, index + 1, message));
        }
        for host in HOSTS.iter().filter(|host| names_host(line, host)) {
            let message = format!("`{host}`: a package registry's host name");
            breaches.push(Breach::new(&file.path, index + 1, message));
        }
    }
    breaches
}

/// Whether the path starts here: not inside a longer path, and not the server's default socket, which examples need.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let inside = line[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || "._-/}".contains(c));
        !inside && !line[at..].starts_with(DEFAULT_SOCKET)
    })
}

/// Whether the host is named: the registry's index has a name of its own by which lock files call it.
fn names_host(line: &str, host: &str) -> bool {
    line.match_indices(host)
        .any(|(at, _)| !line[at + host.len()..].starts_with("-index"))
}

/// Where a server's Unix domain socket lies by default: the same on every machine.
const DEFAULT_SOCKET: &str = concat!("/", "tmp/mongodb-");

/// Taken apart, so that this file does not break its own rule.
const PATHS: &[&str] = &[
    concat!("/", "work/"),
    concat!("/", "tmp/"),
    concat!("/", "home/"),
    concat!("/", "root/"),
    concat!("/", "Users/"),
    concat!("C:", "\\"),
];

const HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("npmjs", ".org"),
    concat!("proxy.golang", ".org"),
];
