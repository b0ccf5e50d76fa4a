//! What a program pays for: crates in its tree, processor time of a clean build, size of its binary; beside the
//! official driver, in the same run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tidy;

/// Builds each program from nothing and prints a table of all of them.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let mut rows = Vec::new();
    for (index, program) in PROGRAMS.iter().enumerate() {
        println!("weight [{}/{}] {}", index + 1, PROGRAMS.len(), program.name);
        let folder = program.write(root)?;
        let crates = crates(&folder)?;
        rows.push(program.build(&folder, crates)?);
    }
    print_table(&rows);
    check_bounds(
        &rows
            .iter()
            .map(|row| (row.program, row.crates))
            .collect::<Vec<_>>(),
    )
}

/// Only the trees, which takes no build: an error if one has outgrown its bound.
pub(crate) fn count(root: &Path) -> Result<(), String> {
    let mut counted = Vec::new();
    for program in PROGRAMS.iter().filter(|program| program.bound.is_some()) {
        let crates = crates(&program.write(root)?)?;
        println!("weight: {}: {crates} crates", program.name);
        counted.push((program, crates));
    }
    check_bounds(&counted)
}

/// A minimal program of its own workspace: it opens a stream and prints what it sees.
struct Program {
    name: &'static str,
    /// The folder's and the binary's name.
    id: &'static str,
    /// The dependency that is weighed, as its line in Cargo.toml; `{root}` is the project's folder.
    dependencies: &'static str,
    main: &'static str,
    /// How many crates there may be in the tree.
    bound: Option<usize>,
    /// Whether the binary does what a user's would.
    has_binary: bool,
}

impl Program {
    /// Writes it to the target folder. What was built of it before is deleted.
    fn write(&self, root: &Path) -> Result<PathBuf, String> {
        let folder = root.join("target/weight").join(self.id);
        let told = |error: std::io::Error| format!("{}: {error}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(told)?;
        }
        fs::create_dir_all(folder.join("src")).map_err(told)?;
        let dependencies = self.dependencies.replace("{root}", &root.display().to_string());
        let manifest = format!(
            "[package]\nname = \"{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
             [profile.release]\nstrip = true\n\n[dependencies]\n{dependencies}\n",
            self.id
        );
        fs::write(folder.join("Cargo.toml"), manifest).map_err(told)?;
        fs::write(folder.join("src/main.rs"), self.main).map_err(told)?;
        // The same versions as in the project, wherever both have a crate.
        fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).map_err(told)?;
        Ok(folder)
    }

    /// The shell counts the processor time of all that it waited for.
    fn build(&self, folder: &Path, crates: usize) -> Result<Row<'_>, String> {
        run_in(folder, &["fetch", "--quiet"])?;
        let output = Command::new("sh")
            .args(["-c", "\"$CARGO\" build --release --offline --quiet && times"])
            .env("CARGO", tidy::cargo())
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .env_remove("RUSTFLAGS")
            .current_dir(folder)
            .output()
            .map_err(|error| format!("sh does not start: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(format!(
                "{} does not build:\n{}",
                self.name,
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        let processor = children_seconds(&said).ok_or_else(|| format!("`times` says {said:?}"))?;
        let binary = folder.join("target/release").join(self.id);
        let bytes = fs::metadata(&binary)
            .map_err(|error| format!("{}: {error}", binary.display()))?
            .len();
        // A gigabyte each is not worth keeping.
        let _ = fs::remove_dir_all(folder.join("target"));
        Ok(Row {
            program: self,
            crates,
            processor,
            bytes,
        })
    }
}

struct Row<'a> {
    program: &'a Program,
    crates: usize,
    /// Seconds, user and system.
    processor: f64,
    bytes: u64,
}

/// The crates that a build for Linux links or runs as a macro, but for the program itself.
fn crates(folder: &Path) -> Result<usize, String> {
    let arguments = [
        "tree",
        "--edges",
        "normal",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let tree = run_in(folder, &arguments)?;
    let crates: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?))
        })
        .collect();
    Ok(crates.len().saturating_sub(1))
}

fn run_in(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(tidy::cargo())
        .args(arguments)
        .current_dir(folder)
        .output()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "`cargo {}` in {}:\n{}",
        arguments.join(" "),
        folder.display(),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The second line of the shell's `times`: user and system time of its children, as `1m2.345s 0m6.789s`.
fn children_seconds(times: &str) -> Option<f64> {
    let children = times.trim().lines().last()?;
    let mut total = 0.0;
    for time in children.split_whitespace() {
        let (minutes, seconds) = time.strip_suffix('s')?.split_once('m')?;
        total += minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?;
    }
    Some(total)
}

fn check_bounds(counted: &[(&Program, usize)]) -> Result<(), String> {
    for (program, crates) in counted {
        if let Some(bound) = program.bound.filter(|bound| crates > bound) {
            return Err(format!(
                "weight: {} has {crates} crates in its tree; at most {bound} are wanted: which one came?",
                program.name
            ));
        }
    }
    Ok(())
}

/// As the README has it; the last program is what the others are compared with.
fn print_table(rows: &[Row<'_>]) {
    let peer = rows.last();
    println!("| program | crates | clean build, CPU s | stripped binary |");
    println!("|---|---|---|---|");
    for row in rows {
        let of = |own: f64, other: Option<f64>| match other {
            Some(other) if other > 0.0 => format!(" ({:.0} %)", own / other * 100.0),
            _ => String::new(),
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "sizes of files, shown in tenths of megabytes"
        )]
        let (own, other) = (row.bytes as f64, peer.map(|peer| peer.bytes as f64));
        let binary = if row.program.has_binary {
            format!("{:.1} MB{}", own / 1e6, of(own, other))
        } else {
            "—".to_owned()
        };
        println!(
            "| {} | {} | {:.0}{} | {binary} |",
            row.program.name,
            row.crates,
            row.processor,
            of(row.processor, peer.map(|peer| peer.processor)),
        );
    }
}

/// From the lightest to the peer.
const PROGRAMS: [Program; 6] = [
    Program {
        name: "`changestream-core` alone",
        id: "core",
        dependencies: "changestream-core = { path = \"{root}/crates/changestream-core\" }",
        main: "fn main() {\n    \
               println!(\"{:?}\", \"mongodb://localhost\".parse::<changestream_core::uri::ConnectionString>().is_ok());\n}\n",
        bound: Some(65),
        has_binary: false,
    },
    Program {
        name: "`changestream-blocking`",
        id: "blocking",
        dependencies: "changestream-blocking = { path = \"{root}/crates/changestream-blocking\" }",
        main: BLOCKING,
        bound: None,
        has_binary: true,
    },
    Program {
        name: "`changestream-tokio` without features",
        id: "tokio-plain",
        dependencies: "changestream-tokio = { path = \"{root}/crates/changestream-tokio\", default-features = false }\n\
                       tokio = { version = \"1\", features = [\"rt\"] }",
        main: TOKIO,
        bound: Some(75),
        has_binary: true,
    },
    Program {
        name: "`changestream-tokio`",
        id: "tokio-default",
        dependencies: "changestream-tokio = { path = \"{root}/crates/changestream-tokio\" }\n\
                       tokio = { version = \"1\", features = [\"rt\"] }",
        main: TOKIO,
        bound: None,
        has_binary: true,
    },
    Program {
        name: "`changestream-tokio` with every feature",
        id: "tokio-all",
        dependencies: "changestream-tokio = { path = \"{root}/crates/changestream-tokio\", features = [\"snappy\", \"zlib\", \"zstd\"] }\n\
                       tokio = { version = \"1\", features = [\"rt\"] }",
        main: TOKIO,
        bound: Some(130),
        has_binary: true,
    },
    Program {
        name: "`mongodb` 3.9",
        id: "mongodb",
        dependencies: "mongodb = \"3.9\"\ntokio = { version = \"1\", features = [\"rt\"] }\nfutures-util = \"0.3\"",
        main: MONGODB,
        bound: None,
        has_binary: true,
    },
];

const BLOCKING: &str = r#"
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args().nth(1).ok_or("which deployment?")?;
    let client = changestream_blocking::Client::new(uri)?;
    for event in client.database("shop").watch().open()? {
        println!("{:?}", event?);
    }
    Ok(())
}
"#;

const TOKIO: &str = r#"
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args().nth(1).ok_or("which deployment?")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = changestream_tokio::Client::new(uri)?;
        let mut stream = client.database("shop").watch().open().await?;
        while let Some(event) = stream.next().await {
            println!("{:?}", event?);
        }
        Ok(())
    })
}
"#;

const MONGODB: &str = r#"
use futures_util::StreamExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args().nth(1).ok_or("which deployment?")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = mongodb::Client::with_uri_str(uri).await?;
        let mut stream = client.database("shop").watch().await?;
        while let Some(event) = stream.next().await {
            println!("{:?}", event?);
        }
        Ok(())
    })
}
"#;

#[cfg(test)]
mod tests {
    use super::children_seconds;

    #[test]
    fn the_processor_time_of_children_is_the_second_line_of_times() {
        assert_eq!(
            children_seconds("0m0.001s 0m0.002s\n1m2.500s 0m6.250s\n"),
            Some(68.75)
        );
        assert_eq!(children_seconds(""), None);
        assert_eq!(children_seconds("a\nb c"), None);
    }
}
