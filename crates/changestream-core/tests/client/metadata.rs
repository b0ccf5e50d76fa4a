//! What servers are told of the client, and of the libraries that wrap it: the Handshake specification's "Client Metadata
//! Update Prose Tests".

use std::sync::Arc;

use bson::{Document, doc};
use changestream_core::client::ClientSettings;
use changestream_core::connection::{ClientMetadata, DriverInfo};
use changestream_core::{CommandOptions, ConnectionString};

use super::network::{Network, ok, standalone};

struct Client {
    settings: Arc<ClientSettings>,
    network: Network,
}

impl Client {
    /// A client of a library that has said this of itself when it made it.
    fn new(initial: Option<&DriverInfo>) -> Self {
        let uri: ConnectionString = "mongodb://a:1/?directConnection=true".parse().unwrap();
        let settings = Arc::new(ClientSettings::new(uri.options, ClientMetadata::new()).unwrap());
        if let Some(info) = initial {
            settings.append_metadata(info).unwrap();
        }
        let network = Network::for_commands_of(settings.clone());
        Self { settings, network }
    }

    /// What the handshake of a new connection tells, by which a ping is sent.
    fn told(&mut self) -> Document {
        let network = &mut self.network;
        if !network.links.is_empty() {
            network.disconnect("a:1");
            network.pass(10_000);
        }
        network.run(doc! { "ping": 1 }, CommandOptions::default());
        network.connect("a:1");
        let hello = network.take_request().unwrap();
        network.answer(&hello, &standalone());
        let ping = network.expect("a:1", "ping");
        network.answer(&ping, &ok());
        assert!(network.replies.remove(0).is_ok());
        hello.command.get_document("client").unwrap().clone()
    }
}

fn library() -> DriverInfo {
    DriverInfo::new("library")
        .version("1.2")
        .platform("Library Platform")
}

fn framework(version: Option<&str>, platform: Option<&str>) -> DriverInfo {
    let mut info = DriverInfo::new("framework");
    info.version = version.map(str::to_owned);
    info.platform = platform.map(str::to_owned);
    info
}

/// Name, version and platform, without what the client itself is called.
fn wrapping(client: &Document) -> (String, String, String) {
    let driver = client.get_document("driver").unwrap();
    let without_own = |text: &str| text.split('|').skip(1).collect::<Vec<_>>().join("|");
    (
        without_own(driver.get_str("name").unwrap()),
        without_own(driver.get_str("version").unwrap()),
        client.get_str("platform").unwrap_or_default().to_owned(),
    )
}

fn rest(mut client: Document) -> Document {
    client.remove("driver");
    client.remove("platform");
    client
}

fn joined(first: &str, second: Option<&str>) -> String {
    second.map_or_else(|| first.to_owned(), |second| format!("{first}|{second}"))
}

/// Tests 1 and 2: what is added is told after what was told before, whether that was said at the start or later.
#[test]
fn what_is_added_is_told_by_new_connections_after_what_was_there() {
    for at_the_start in [true, false] {
        for (version, platform) in [
            (Some("2.0"), Some("Framework Platform")),
            (Some("2.0"), None),
            (None, Some("Framework Platform")),
            (None, None),
        ] {
            let library = library();
            let mut client = Client::new(at_the_start.then_some(&library));
            if !at_the_start {
                client.settings.append_metadata(&library).unwrap();
            }
            let before = client.told();
            client
                .settings
                .append_metadata(&framework(version, platform))
                .unwrap();
            let after = client.told();
            let expected = (
                "library|framework".to_owned(),
                joined("1.2", version),
                joined("Library Platform", platform),
            );
            assert_eq!(wrapping(&after), expected);
            assert_eq!(rest(after), rest(before));
        }
    }
}

/// Test 3.
#[test]
fn what_is_the_same_in_part_is_added_and_what_is_the_same_is_not() {
    for (name, version, platform) in [
        ("library", "1.2", "Library Platform"),
        ("framework", "1.2", "Library Platform"),
        ("library", "2.0", "Library Platform"),
        ("library", "1.2", "Framework Platform"),
        ("framework", "2.0", "Library Platform"),
        ("framework", "1.2", "Framework Platform"),
        ("library", "2.0", "Framework Platform"),
        ("framework", "2.0", "Framework Platform"),
    ] {
        let mut client = Client::new(None);
        client.settings.append_metadata(&library()).unwrap();
        let before = client.told();
        let info = DriverInfo::new(name).version(version).platform(platform);
        client.settings.append_metadata(&info).unwrap();
        let after = client.told();
        if info == library() {
            assert_eq!(after, before);
            continue;
        }
        let expected = (
            format!("library|{name}"),
            format!("1.2|{version}"),
            format!("Library Platform|{platform}"),
        );
        assert_eq!(wrapping(&after), expected);
        assert_eq!(rest(after), rest(before));
    }
}

/// Test 4.
#[test]
fn what_was_said_at_the_start_is_not_added_again() {
    let mut client = Client::new(Some(&library()));
    let before = client.told();
    client.settings.append_metadata(&library()).unwrap();
    assert_eq!(client.told(), before);
}

#[test]
fn what_would_blur_the_borders_is_refused_and_changes_nothing() {
    let mut client = Client::new(Some(&library()));
    let before = client.told();
    let error = client
        .settings
        .append_metadata(&DriverInfo::new("one|two"))
        .unwrap_err();
    assert!(error.to_string().contains('|'), "{error}");
    assert_eq!(client.told(), before);
}
