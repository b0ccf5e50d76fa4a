//! Builds the measured programs and installs the peers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tidy::cargo;

/// Where the measured programs are. A peer that cannot be had is none.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) replay: PathBuf,
    pub(super) limit: PathBuf,
    /// The same over TLS and with codecs: a larger program.
    pub(super) limit_layers: PathBuf,
    pub(super) tokio: PathBuf,
    pub(super) blocking: PathBuf,
    pub(super) mongodb: Option<PathBuf>,
    /// The same with the newer one of the two libraries for documents that it can be built with.
    pub(super) mongodb_bson_3: Option<PathBuf>,
    pub(super) python: Option<PathBuf>,
    /// The folder with `node_modules`.
    pub(super) node: Option<PathBuf>,
    /// The folder of the peers' scripts.
    pub(super) scripts: PathBuf,
    /// Where all this is, and what the programs leave.
    pub(super) folder: PathBuf,
}

impl Programs {
    /// What an earlier run has left.
    pub(super) fn built(root: &Path) -> Self {
        let folder = root.join("target/bench");
        let there = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        Self {
            replay: folder.join("replay"),
            limit: folder.join("limit"),
            limit_layers: folder.join("limit-layers"),
            tokio: folder.join("tokio"),
            blocking: folder.join("blocking"),
            mongodb: there("peer-rust-bson-2"),
            mongodb_bson_3: there("peer-rust-bson-3"),
            python: there("python/bin/python"),
            node: there("node"),
            scripts: root.join("benches/peers"),
            folder,
        }
    }

    pub(super) fn prepare(root: &Path) -> Result<Self, String> {
        let folder = root.join("target/bench");
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let scripts = root.join("benches/peers");
        let [replay, limit, limit_layers] = tools(root, &folder)?;
        Ok(Self {
            replay,
            limit,
            limit_layers,
            tokio: client(root, &folder, "tokio", &CODECS)?,
            blocking: client(root, &folder, "blocking", &CODECS)?,
            mongodb: or_without("the peer mongodb (Rust)", rust_peer(root, &folder, "bson-2")),
            mongodb_bson_3: or_without(
                "the peer mongodb (Rust, bson 3)",
                rust_peer(root, &folder, "bson-3"),
            ),
            python: or_without("the peer PyMongo", python(&folder)),
            node: or_without("the peer mongodb (npm)", node(&folder)),
            scripts,
            folder,
        })
    }
}

/// The replaying server and the bare loops.
pub(super) fn tools(root: &Path, folder: &Path) -> Result<[PathBuf; 3], String> {
    say("building the replaying server and the bare loops");
    run(Command::new(cargo())
        .args(["build", "--quiet", "--release", "-p", "changestream-benches"])
        .args(["--features", "layers"])
        .current_dir(root))?;
    Ok([
        keep(&root.join("target/release/replay"), folder, "replay")?,
        keep(&root.join("target/release/limit"), folder, "limit")?,
        keep(&root.join("target/release/limit-layers"), folder, "limit-layers")?,
    ])
}

/// The measured example of an adapter. They all have the same name, so each is copied before the next is built.
pub(super) fn client(
    root: &Path,
    folder: &Path,
    adapter: &str,
    features: &[&str],
) -> Result<PathBuf, String> {
    say(&format!("building changestream-{adapter}"));
    let package = format!("changestream-{adapter}");
    run(Command::new(cargo())
        .args([
            "build",
            "--quiet",
            "--release",
            "-p",
            &package,
            "--example",
            "bench_client",
            "--features",
            &features.join(","),
        ])
        .current_dir(root))?;
    keep(
        &root.join("target/release/examples/bench_client"),
        folder,
        adapter,
    )
}

/// The codecs that the measured clients can read.
const CODECS: [&str; 3] = ["snappy", "zlib", "zstd"];

fn rust_peer(root: &Path, folder: &Path, documents: &str) -> Result<PathBuf, String> {
    say(&format!("building the official Rust driver with {documents}"));
    let target = folder.join("peer-rust");
    run(Command::new(cargo())
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--no-default-features",
        ])
        .args(["--features", documents, "--manifest-path"])
        .arg(root.join("benches/peers/rust/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target))?;
    keep(
        &target.join("release/peer-rust"),
        folder,
        &format!("peer-rust-{documents}"),
    )
}

fn python(folder: &Path) -> Result<PathBuf, String> {
    let home = folder.join("python");
    let python = home.join("bin/python");
    let has_it = Command::new(&python)
        .args(["-c", "import pymongo"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_it {
        say("installing PyMongo");
        run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        run(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "pymongo",
        ]))?;
    }
    Ok(python)
}

fn node(folder: &Path) -> Result<PathBuf, String> {
    let home = folder.join("node");
    if !home.join("node_modules/mongodb/package.json").exists() {
        say("installing npm mongodb");
        fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        run(Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"])
            .arg(&home)
            .arg("mongodb")
            .stdout(Stdio::null()))?;
    }
    Ok(home)
}

fn keep(built: &Path, folder: &Path, name: &str) -> Result<PathBuf, String> {
    let place = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::copy(built, &place))
        .map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(place)
}

fn or_without<T>(what: &str, result: Result<T, String>) -> Option<T> {
    result
        .map_err(|why| say(&format!("{what} cannot be had and is left out: {why}")))
        .ok()
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{:?}", command.get_program());
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("{shown} does not start: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{shown} ended with {status}"))
    }
}

pub(super) fn say(text: &str) {
    println!("bench: {text}");
}
