//! Each rule is shown to fire on a sample that breaks it, and to be silent on one that does not.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::dependencies::{compare, linked};
use super::source::{self, Source};
use super::{Breach, File, layout, manifests, portability, purity};

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn lines(breaches: &[Breach]) -> Vec<usize> {
    breaches.iter().map(|breach| breach.line).collect()
}

fn pure(text: &str) -> Vec<Breach> {
    purity::check(&[file("crates/changestream-core/src/a.rs", text)])
}

#[test]
fn comments_strings_and_characters_are_no_code() {
    let text = "let a = \"x // y\"; // one\n/* two /* deep */ still */ let b = r#\"z\"q\"#;\nlet c = '\"'; let d = b\"\\\"\"; fn e<'a>() {}\n";
    let source = Source::new(text);
    assert_eq!(source.code.lines().count(), 3);
    assert_eq!(
        source.code.split_whitespace().collect::<String>(),
        "leta=;letb=;letc=;letd=;fne<'a>(){}"
    );
    assert_eq!(
        source.comments.split_whitespace().collect::<Vec<_>>().join(" "),
        "// one /* two /* deep */ still */"
    );
}

#[test]
fn a_file_that_ends_inside_a_literal_or_a_comment_is_read_to_its_end() {
    for text in [
        "\"open",
        "/* open /* deeper */",
        "r#\"open\"",
        "'\\",
        "'",
        "b\"\\",
        "é\"é",
    ] {
        let source = Source::new(text);
        assert_eq!(source.code.chars().count(), text.chars().count(), "{text}");
    }
}

#[test]
fn a_word_inside_a_longer_name_is_another_word() {
    assert!(source::find("MyHashMapLike, hash_map, XHashMap", &["HashMap"]).is_empty());
    assert_eq!(
        source::find("a\nlet m: HashMap<A, B>;", &["HashMap"]),
        [(2, "HashMap")]
    );
    assert_eq!(source::find("f.await?", &[".await"]), [(1, ".await")]);
    assert!(source::find("f.awaited()", &[".await"]).is_empty());
}

#[test]
fn each_impure_word_is_found_in_a_pure_crate() {
    for word in [
        "Instant::now()",
        "std::time::SystemTime::now()",
        "bson::DateTime::now()",
        "use std::net::{IpAddr, TcpStream};",
        "std::net::ToSocketAddrs",
        "std::env::var(a)",
        "started.elapsed()",
        "std::thread::sleep(d)",
        "async fn f() {}",
        "f().await",
        "cx: &mut task::Context<'_>",
        "std::task::Poll",
        "ObjectId::new()",
        "Uuid::new()",
        "thread_rng()",
        "OsRng",
        "getrandom::fill(b)",
        "HashMap::new()",
        "HashSet<u8>",
    ] {
        assert!(!pure(&format!("fn a() {{}}\n{word}\n")).is_empty(), "{word}");
    }
}

#[test]
fn comments_docs_and_strings_may_speak_of_what_is_impure() {
    let text = "//! Never calls Instant::now.\n/// Not a HashMap. ```let x = f().await;```\nconst A: &str = \"TcpStream\";\n/* OsRng */\n";
    assert_eq!(pure(text), []);
}

#[test]
fn addresses_and_build_constants_are_pure() {
    assert_eq!(
        pure("use std::net::{IpAddr, Ipv6Addr};\nlet os = std::env::consts::OS;\n"),
        []
    );
}

#[test]
fn the_listener_and_the_other_crates_may_touch_the_system() {
    let text = "use std::net::TcpListener; fn a() { std::thread::spawn(b); }";
    for path in [
        "crates/changestream-sim/src/listener.rs",
        "crates/changestream-sim/src/listener/accept.rs",
        "crates/changestream-tokio/src/lib.rs",
        "crates/changestream-core/tests/a.rs",
    ] {
        assert_eq!(purity::check(&[file(path, text)]), [], "{path}");
    }
    for path in [
        "crates/changestream-core/src/listener.rs",
        "crates/changestream-sim/src/listeners.rs",
    ] {
        assert!(!purity::check(&[file(path, text)]).is_empty(), "{path}");
    }
}

#[test]
fn a_breach_tells_file_and_line() {
    let breaches = pure("\n\nlet t = Instant::now();\n");
    assert_eq!(lines(&breaches), [3]);
    assert!(
        breaches[0]
            .to_string()
            .starts_with("crates/changestream-core/src/a.rs:3: `Instant::now`")
    );
}

fn of_layout(path: &str, text: &str) -> Vec<Breach> {
    layout::check(&[file(path, text)])
        .into_iter()
        .filter(|breach| breach.path == path)
        .collect()
}

#[test]
fn long_files_fail_and_their_tests_do_not_count() {
    let long = "a;\n".repeat(601);
    assert_eq!(of_layout("crates/a/src/b.rs", &long).len(), 1);
    assert_eq!(of_layout("crates/a/src/b.rs", &"a;\n".repeat(600)), []);
    let tested = format!("a;\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(of_layout("crates/a/src/b.rs", &tested), []);
    assert_eq!(of_layout("crates/a/tests/b.rs", &long), []);
}

#[test]
fn what_is_unfinished_is_found_where_it_means_that() {
    assert_eq!(
        of_layout("a.rs", "fn a() { todo!() }\nfn b() { unimplemented!(\"b\") }\n").len(),
        2
    );
    assert_eq!(
        lines(&of_layout(
            "a.rs",
            "// FIXME later\n/* XXX */\nlet a = 1; // TODO: b\n"
        )),
        [1, 2, 3]
    );
    assert_eq!(of_layout("a.rs", "let a = \"FIXME todo!()\"; let xxx = 1;\n"), []);
}

#[test]
fn each_paper_is_missed() {
    let missing: Vec<_> = layout::check(&[]).into_iter().map(|breach| breach.path).collect();
    assert!(missing.contains(&"README.md".to_owned()) && missing.contains(&"CHANGELOG.md".to_owned()));
    assert!(
        layout::check(&[file("README.md", " \n")])
            .iter()
            .any(|b| b.path == "README.md")
    );
    assert!(
        !layout::check(&[file("README.md", "text")])
            .iter()
            .any(|b| b.path == "README.md")
    );
}

const ROOT: &str = "[workspace.package]\nrust-version = \"1.88\"\n";

#[test]
fn a_crate_without_the_workspace_lints_is_found() {
    let of =
        |text: &str| manifests::check(&[file("Cargo.toml", ROOT), file("crates/a/Cargo.toml", text)]).len();
    assert_eq!(of("[package]\n[lints]\nworkspace = true\n"), 0);
    assert_eq!(of("[package]\n[lints.rust]\nunsafe_code = \"allow\"\n"), 1);
    assert_eq!(of("[package]\n[lints]\n[dependencies]\nworkspace = true\n"), 1);
    assert_eq!(of("[package]\n"), 1);
}

#[test]
fn the_oldest_rust_stands_in_one_place() {
    let of = |path: &str, text: &str| lines(&manifests::check(&[file("Cargo.toml", ROOT), file(path, text)]));
    assert_eq!(of("a/Cargo.toml", "rust-version.workspace = true\n"), []);
    assert_eq!(of("a/Cargo.toml", "\nrust-version = \"1.90\"\n"), [2]);
    assert_eq!(of("a/clippy.toml", "msrv = \"1.88\"\n"), [1]);
    assert_eq!(of("README.md", "needs Rust 1.88 or newer\n"), []);
    assert_eq!(of("README.md", "needs Rust 1.80 or newer\n"), [1]);
    assert_eq!(manifests::check(&[file("Cargo.toml", "[workspace]\n")]).len(), 1);
}

#[test]
fn machine_paths_and_registry_hosts_are_found() {
    let slash = "/";
    let of = |text: &str| portability::check(&[file("a.md", text)]).len();
    assert_eq!(of(&format!("cd {slash}work/main")), 1);
    assert_eq!(of(&format!("\"{slash}tmp/x\"")), 1);
    assert_eq!(of(&format!("{slash}home/me/a")), 1);
    assert_eq!(of(&format!("https://crates{}/crates/a", ".io")), 1);
    assert_eq!(of(&format!("registry+https://example/crates{}-index", ".io")), 0);
    assert_eq!(
        of(&format!(
            "{slash}tmp/mongodb-27017.sock, target{slash}tmp/x, ../home/x, $HOME/work/a"
        )),
        0
    );
}

#[test]
fn the_linked_crates_must_equal_the_list() {
    let tree = "core v0.1.0 (path)\nbson v3.1.0\nserde v1.0.0\nserde v1.0.0 (*)\n";
    let linked = linked(tree, "core");
    assert_eq!(linked.iter().collect::<Vec<_>>(), ["bson", "serde"]);
    assert_eq!(
        compare("l", "# head\nbson  # documents\nserde # types\n", &linked),
        []
    );
    let unlisted = compare("l", "bson # documents\n", &linked);
    assert!(unlisted[0].message.contains("`serde` is linked but not allowed"));
    let stale = compare("l", "bson # d\nserde # t\nmio # s\n", &linked);
    assert!(stale[0].message.contains("`mio` is not linked any more"));
    assert_eq!(lines(&compare("l", "bson\nserde # t\n", &linked)), [1]);
}
