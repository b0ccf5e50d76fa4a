//! Connection strings beyond what the specifications' test files hold: secrets, hostile text, options by code.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use changestream_core::uri::{
    Acknowledgment, Compressor, MechanismProperties, Secret, ServerMonitoringMode, UriError,
};
use changestream_core::{
    AuthMechanism, ClientOptions, ConnectionString, Credential, ReadPreference, ReadPreferenceMode,
    ServerAddress,
};

fn parse(text: &str) -> ConnectionString {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> UriError {
    match text.parse::<ConnectionString>() {
        Ok(parsed) => panic!("{text} was accepted: {parsed:?}"),
        Err(error) => error,
    }
}

fn warnings(text: &str) -> Vec<String> {
    parse(text)
        .warnings
        .iter()
        .map(|warning| warning.option.clone())
        .collect()
}

#[test]
fn what_is_shown_reads_the_same_also_where_pieces_are_empty() {
    for text in [
        "mongodb://h/?connectTimeoutMS=5;appName=x&",
        "mongodb://h/?&w=1&&journal=true",
        "mongodb://h/?",
    ] {
        let parsed: ConnectionString = text.parse().unwrap();
        assert_eq!(parsed.to_string(), text);
        assert_eq!(
            parsed.to_string().parse::<ConnectionString>().unwrap().options,
            parsed.options
        );
    }
}

#[test]
fn a_string_that_says_nothing_gives_the_defaults_of_the_specifications() {
    let parsed = parse("mongodb://localhost");
    assert_eq!(parsed.options, ClientOptions::default());
    assert!(parsed.warnings.is_empty());
    let options = ClientOptions::default();
    assert_eq!(options.hosts, [ServerAddress::tcp("localhost", 27017)]);
    assert_eq!(options.connect_timeout, Some(Duration::from_secs(10)));
    assert_eq!(options.server_selection_timeout, Duration::from_secs(30));
    assert_eq!(options.local_threshold, Duration::from_millis(15));
    assert_eq!(options.heartbeat_frequency(), Duration::from_secs(60));
    assert_eq!((options.socket_timeout, options.timeout), (None, None));
    assert!(options.retry_reads && options.retry_writes && !options.load_balanced && !options.tls_enabled());
    assert_eq!(options.validate(), Ok(()));
}

#[test]
fn zero_is_no_limit_where_the_specification_says_so() {
    let options =
        parse("mongodb://h/?connectTimeoutMS=0&socketTimeoutMS=0&timeoutMS=0&localThresholdMS=0").options;
    assert_eq!((options.connect_timeout, options.socket_timeout), (None, None));
    assert_eq!(options.timeout, Some(Duration::ZERO));
    assert_eq!(options.local_threshold, Duration::ZERO);
}

#[test]
fn every_option_that_is_only_kept_is_kept() {
    let options = parse(
        "mongodb://h/?maxPoolSize=5&minPoolSize=2&maxIdleTimeMS=3&waitQueueTimeoutMS=4&maxConnecting=1\
         &serverMonitoringMode=poll&serverSelectionTryOnce=false&proxyHost=p&proxyPort=1081&proxyUsername=u\
         &proxyPassword=pw&compressors=zstd,snappy,zlib,zstd&zlibCompressionLevel=-1&w=2&wTimeoutMS=5000000000",
    )
    .options;
    assert_eq!((options.pool.max_size, options.pool.min_size), (Some(5), Some(2)));
    assert_eq!(options.pool.max_idle_time, Some(Duration::from_millis(3)));
    assert_eq!(options.pool.wait_queue_timeout, Some(Duration::from_millis(4)));
    assert_eq!(options.pool.max_connecting, Some(1));
    assert_eq!(options.server_monitoring_mode, Some(ServerMonitoringMode::Poll));
    assert_eq!(options.server_selection_try_once, Some(false));
    assert_eq!(options.proxy.host.as_deref(), Some("p"));
    assert_eq!(options.proxy.port, Some(1081));
    assert_eq!(options.proxy.password, Some(Secret::from("pw")));
    let order = [Compressor::Zstd, Compressor::Snappy, Compressor::Zlib];
    assert_eq!(options.compressors, order);
    assert_eq!(options.zlib_compression_level, Some(-1));
    assert_eq!(options.write_concern.w, Some(Acknowledgment::Nodes(2)));
    assert_eq!(
        options.write_concern.w_timeout,
        Some(Duration::from_secs(5_000_000))
    );
}

#[test]
fn a_value_that_is_invalid_is_ignored_with_a_warning() {
    for pair in [
        "connectTimeoutMS=-1",
        "connectTimeoutMS=1e3",
        "connectTimeoutMS=%2B5",
        "connectTimeoutMS=2147483648",
        "heartbeatFrequencyMS=499",
        "maxStalenessSeconds=0",
        "maxConnecting=0",
        "waitQueueTimeoutMS=0",
        "zlibCompressionLevel=10",
        "compressors=lz4",
        "compressors=",
        "serverMonitoringMode=push",
        "readPreference=fastest",
        "readPreferenceTags=dc",
        "readPreferenceTags=:ny",
        "replicaSet=",
        "readConcernLevel=",
        "w=",
        "proxyPort=65536",
        "proxyUsername=",
        "maxPoolSize=many",
        "retryReads=perhaps",
        "tlsCAFile=",
        "authMechanismProperties=SERVICE_NAME:x",
    ] {
        let parsed = parse(&format!("mongodb://localhost/?{pair}"));
        let name = pair.split('=').next().unwrap();
        assert_eq!(parsed.warnings.len(), 1, "{pair}: {:?}", parsed.warnings);
        assert_eq!(parsed.warnings[0].option, name);
        assert_eq!(parsed.options, ClientOptions::default(), "{pair}");
    }
    let long = "n".repeat(129);
    assert_eq!(warnings(&format!("mongodb://h/?appName={long}")), ["appName"]);
}

#[test]
fn legacy_spellings_of_true_and_false_are_read_with_a_warning() {
    for (text, value) in [
        ("1", true),
        ("yes", true),
        ("True", true),
        ("-1", false),
        ("f", false),
        ("No", false),
    ] {
        let parsed = parse(&format!("mongodb://h/?retryReads={text}"));
        assert_eq!(parsed.options.retry_reads, value, "{text}");
        assert_eq!(parsed.warnings.len(), 1, "{text}");
    }
}

#[test]
fn a_repeated_option_takes_its_last_valid_value_and_warns() {
    let parsed = parse("mongodb://h/?appName=a&APPNAME=b&connectTimeoutMS=5&connectTimeoutMS=x");
    assert_eq!(parsed.options.app_name.as_deref(), Some("b"));
    assert_eq!(parsed.options.connect_timeout, Some(Duration::from_millis(5)));
    assert_eq!(
        parsed
            .warnings
            .iter()
            .map(|w| w.option.as_str())
            .collect::<Vec<_>>(),
        ["appName", "connectTimeoutMS", "connectTimeoutMS"]
    );
}

#[test]
fn the_deprecated_write_timeout_counts_only_without_its_successor() {
    for (query, milliseconds) in [
        ("wtimeout=5", 5),
        ("wtimeout=5&wTimeoutMS=10", 10),
        ("wTimeoutMS=10&wtimeout=5", 10),
    ] {
        let query = query.replace("wtimeout=", "WTIMEOUT=");
        let parsed = parse(&format!("mongodb://h/?{query}"));
        let timeout = parsed.options.write_concern.w_timeout;
        assert_eq!(timeout, Some(Duration::from_millis(milliseconds)), "{query}");
        assert_eq!(parsed.warnings.len(), 1, "{query}");
    }
}

#[test]
fn semicolons_separate_only_where_there_is_no_ampersand() {
    let parsed = parse("mongodb://h/?replicaSet=rs0;tls=true");
    assert_eq!(
        (parsed.options.replica_set.as_deref(), parsed.options.tls),
        (Some("rs0"), Some(true))
    );
    assert_eq!(parsed.warnings.len(), 1);
    assert_eq!(
        parse("mongodb://h/?appName=a;b").options.app_name.as_deref(),
        Some("a;b")
    );
    let parsed = parse("mongodb://h/?appName=a;b&tls=true&");
    assert_eq!(parsed.options.app_name.as_deref(), Some("a;b"));
    assert!(parsed.warnings.is_empty());
}

#[test]
fn lists_may_be_percent_encoded_as_a_whole() {
    let options = parse(
        "mongodb://h/?readPreference=nearest&readPreferenceTags=dc%3Any%2Crack%3A1&readPreferenceTags=&compressors=zlib%2Czstd",
    )
    .options;
    let tags = &options.read_preference.tag_sets;
    assert_eq!(tags.len(), 2);
    assert_eq!((tags[0]["dc"].as_str(), tags[0]["rack"].as_str()), ("ny", "1"));
    assert!(tags[1].is_empty());
    assert_eq!(options.compressors, [Compressor::Zlib, Compressor::Zstd]);
}

#[test]
fn hosts_of_every_kind_are_read() {
    let parsed = parse(
        "mongodb://DB.Example.COM,10.0.0.1:27018,[FE80::1%25eth0]:1,[::1],b%C3%BCcher.example,bücher,\
         %2FTmp%2Fa.sock,rel%2Fa%3Ab.sock,x.sock",
    );
    let hosts: Vec<_> = parsed
        .hosts()
        .iter()
        .map(|host| (host.host(), host.port()))
        .collect();
    assert_eq!(
        hosts,
        [
            ("db.example.com", Some(27017)),
            ("10.0.0.1", Some(27018)),
            ("fe80::1%eth0", Some(1)),
            ("::1", Some(27017)),
            ("bücher.example", Some(27017)),
            ("bücher", Some(27017)),
            ("/Tmp/a.sock", None),
            ("rel/a:b.sock", None),
            ("x.sock", Some(27017)),
        ]
    );
}

#[test]
fn an_error_names_the_place() {
    let host = |number| format!("host {number}");
    for (text, place) in [
        ("", "scheme".to_owned()),
        ("localhost:27017", "scheme".to_owned()),
        (" mongodb://h", "the string".to_owned()),
        ("mongodb://h\n", "the string".to_owned()),
        ("mongodb+srw://cluster.example.com", "scheme".to_owned()),
        ("mongodb+srv://", host(1)),
        ("mongodb+srv://.", host(1)),
        ("mongodb+srv://a.b.c,d.e.f", host(2)),
        ("mongodb+srv://a.b.c:27017", host(1)),
        ("mongodb+srv://a..c", host(1)),
        ("mongodb+srv://a b.c", host(1)),
        ("mongodb+srv://192.0.2.1", host(1)),
        ("mongodb+srv://[::1]", host(1)),
        ("mongodb+srv://%2Ftmp%2Fmongodb-27017.sock", host(1)),
        ("mongodb+srv://b\u{fc}cher.example.com", host(1)),
        (
            "mongodb+srv://a.b.c/?directConnection=true",
            "option directConnection".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?srvMaxHosts=1&replicaSet=rs",
            "option srvMaxHosts".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?srvMaxHosts=1&loadBalanced=true",
            "option srvMaxHosts".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?loadBalanced=true&replicaSet=rs",
            "option loadBalanced".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?srvServiceName=a--b",
            "option srvServiceName".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?srvAllowedHostsSuffix=.com",
            "option srvAllowedHostsSuffix".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?srvAllowedHostsSuffix=COM",
            "option srvAllowedHostsSuffix".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?srvAllowedHostsSuffix=.",
            "option srvAllowedHostsSuffix".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?srvAllowedHostsSuffix=..b.c",
            "option srvAllowedHostsSuffix".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?srvServiceName=1",
            "option srvServiceName".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?srvServiceName=-a",
            "option srvServiceName".to_owned(),
        ),
        (
            "mongodb+srv://a.b.c/?srvServiceName=a.b",
            "option srvServiceName".to_owned(),
        ),
        ("mongodb://", host(1)),
        ("mongodb://?w=1", host(1)),
        ("mongodb://a,,b", host(2)),
        ("mongodb://a,b,", host(3)),
        ("mongodb://a,:27017", host(2)),
        ("mongodb://a:", host(1)),
        ("mongodb://a:+1", host(1)),
        ("mongodb://a b", host(1)),
        ("mongodb://a%2", host(1)),
        ("mongodb://a%3A1", host(1)),
        ("mongodb://%ff", host(1)),
        ("mongodb://[::1", host(1)),
        ("mongodb://[::1]x", host(1)),
        ("mongodb://[]", host(1)),
        ("mongodb://[localhost]", host(1)),
        ("mongodb://[fe80::1%eth0]", host(1)),
        ("mongodb://[fe80::1%25]", host(1)),
        ("mongodb://::1", host(1)),
        ("mongodb://%2Ftmp%2Fmongo", host(1)),
        ("mongodb://%2Ftmp%2Fa.sock:27017", host(1)),
        ("mongodb://%2Ftmp%2F%00.sock", host(1)),
        ("mongodb://u ser@h", "user name and password".to_owned()),
        ("mongodb://@h", "user name and password".to_owned()),
        ("mongodb://:pw@h", "user name and password".to_owned()),
        ("mongodb://u:%zz@h", "user name and password".to_owned()),
        ("mongodb://u:%c3@h", "user name and password".to_owned()),
        ("mongodb://h/a/b", "database name".to_owned()),
        ("mongodb://h/a%24b", "database name".to_owned()),
        ("mongodb://h/a%", "database name".to_owned()),
        ("mongodb://h/?a", "pair 1 behind the question mark".to_owned()),
        (
            "mongodb://h/?w=1&=2",
            "pair 2 behind the question mark".to_owned(),
        ),
        (
            "mongodb://h/?w=1&%zz=2",
            "pair 2 behind the question mark".to_owned(),
        ),
        ("mongodb://h/?appname=%", "option appName".to_owned()),
        (
            "mongodb://h/?authMechanism=plain",
            "option authMechanism".to_owned(),
        ),
        ("mongodb://h/?w=-1", "option w".to_owned()),
        ("mongodb://h/?w=99999999999999999999", "option w".to_owned()),
        ("mongodb://h/?w=0&journal=true", "option journal".to_owned()),
        ("mongodb://h/?tls=1&ssl=false", "option ssl".to_owned()),
        (
            "mongodb://h/?tlsInsecure=x&tlsAllowInvalidHostnames=",
            "option tlsInsecure".to_owned(),
        ),
        ("mongodb://h/?srvMaxHosts=0", "option srvMaxHosts".to_owned()),
        (
            "mongodb://h/?srvAllowedHostsSuffix=b.c",
            "option srvAllowedHostsSuffix".to_owned(),
        ),
        (
            "mongodb://h/?srvServiceName=x",
            "option srvServiceName".to_owned(),
        ),
        ("mongodb://h/?proxyPort=1", "option proxyPort".to_owned()),
        (
            "mongodb://h/?proxyHost=a&proxyHost=a",
            "option proxyHost".to_owned(),
        ),
        (
            "mongodb://h/?proxyHost=a&proxyUsername=b",
            "option proxyUsername".to_owned(),
        ),
        (
            "mongodb://h/?proxyHost=a&proxyPassword=b",
            "option proxyPassword".to_owned(),
        ),
        (
            "mongodb://h/?maxStalenessSeconds=120",
            "option maxStalenessSeconds".to_owned(),
        ),
        (
            "mongodb://h/?readPreferenceTags=a:b",
            "option readPreferenceTags".to_owned(),
        ),
        (
            "mongodb://h/?minPoolSize=2&maxPoolSize=1",
            "option minPoolSize".to_owned(),
        ),
        (
            "mongodb://u@h/?authMechanism=SCRAM-SHA-256",
            "option authMechanism".to_owned(),
        ),
        (
            "mongodb://u:p@h/?authMechanismProperties=A:b",
            "option authMechanismProperties".to_owned(),
        ),
    ] {
        let error = refused(text);
        assert!(
            error.to_string().starts_with(&format!("{place}: ")),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_string_that_leaves_the_servers_to_dns_names_one_host_and_turns_tls_on() {
    let parsed =
        parse("mongodb+srv://alice:hunter2@Cluster.Example.COM./shop?srvMaxHosts=3&srvServiceName=custom");
    let options = &parsed.options;
    assert_eq!(options.srv_host.as_deref(), Some("cluster.example.com"));
    assert!(parsed.hosts().is_empty());
    assert!(options.tls_enabled());
    assert_eq!(options.srv_max_hosts, Some(3));
    assert_eq!(options.srv_service_name.as_deref(), Some("custom"));
    assert_eq!(parsed.default_database(), Some("shop"));
    for options in ["tls=false", "ssl=false"] {
        assert!(
            !parse(&format!("mongodb+srv://localhost/?{options}"))
                .options
                .tls_enabled()
        );
    }
    parse("mongodb+srv://a.b.c/?srvMaxHosts=0&replicaSet=rs&directConnection=false");
}

#[test]
fn a_host_that_is_too_long_to_be_looked_up_is_refused() {
    let label = "a".repeat(63);
    let host = format!("{label}.{label}.{label}.{}", "a".repeat(47));
    parse(&format!("mongodb+srv://{host}"));
    let error = refused(&format!("mongodb+srv://{host}a"));
    assert_eq!(error.reason(), "it is too long");
    refused(&format!("mongodb+srv://{label}a.example.com"));
}

#[test]
fn options_made_by_code_may_leave_the_servers_to_dns() {
    let mut options = ClientOptions::default();
    options.srv_host = Some("cluster.example.com".to_owned());
    options.validate().unwrap();
    options.srv_host = Some("cluster.example.com:27017".to_owned());
    assert!(
        options
            .validate()
            .unwrap_err()
            .to_string()
            .starts_with("host 1: ")
    );
}

#[test]
fn no_secret_is_in_what_is_printed() {
    let parsed = parse(
        "mongodb://alice:hunter2@h/db?authMechanism=MONGODB-AWS\
         &AUTHMECHANISMPROPERTIES=aws_session_token:hunter2&tlsCertificateKeyFilePassword=hunter2\
         &proxyHost=p&proxyUsername=u&proxyPassword=hunter2&proxyPasswort=hunter2&%40hunter2=x&a%20hunter2=hunter2",
    );
    let properties = &parsed.options.credential.as_ref().unwrap().mechanism_properties;
    assert_eq!(properties.get("AWS_SESSION_TOKEN"), Some("hunter2"));
    let warnings: Vec<_> = parsed.warnings.iter().map(ToString::to_string).collect();
    for printed in [
        parsed.to_string(),
        format!("{parsed:?}{parsed:#?}"),
        format!("{:?}", parsed.options),
        warnings.concat(),
    ] {
        assert!(!printed.contains("hunter2"), "{printed}");
    }
    assert_eq!(
        parsed.to_string(),
        "mongodb://alice:***@h/db?authMechanism=MONGODB-AWS&authMechanismProperties=***\
         &tlsCertificateKeyFilePassword=***&proxyHost=p&proxyUsername=u&proxyPassword=***&proxypasswort=***\
         &***=***&***=***"
    );
}

#[test]
fn no_error_repeats_a_password_however_badly_it_is_encoded() {
    let characters = [
        ":", "/", "?", "@", "%", "#", "[", "]", " ", "&", "=", ",", ";", "\\", "\"", "%2", "\u{7f}",
    ];
    for first in characters {
        for second in characters {
            for scheme in ["mongodb", "mongodb+srv"] {
                let text = format!("{scheme}://alice:hun{first}ter{second}wxyz@localhost:99999/db?w=-1");
                let Err(error) = text.parse::<ConnectionString>() else {
                    panic!("{text} was accepted");
                };
                let printed = format!("{error} {error:?}");
                for piece in ["hun", "wxyz", "alice"] {
                    assert!(!printed.contains(piece), "{text}: {printed}");
                }
            }
        }
    }
}

#[test]
fn mangled_strings_are_answered_and_never_panic() {
    let seeds = [
        "mongodb://alice:p%40ss@db1:27017,[::1]:27018,%2Ftmp%2Fa.sock/shop?replicaSet=rs0&readPreferenceTags=dc:ny,a:b",
        "mongodb://h/?authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:azure,TOKEN_RESOURCE:mongodb://x",
        "mongodb+srv://h.example.com/?w=majority;wtimeoutMS=5",
    ];
    let pieces = [
        "%",
        "@",
        ":",
        "/",
        "?",
        "&",
        "=",
        ",",
        "[",
        "]",
        "\u{0}",
        "é",
        "%00",
        "%ff",
        "-",
        "9",
        ";",
        "mongodb://",
    ];
    let mut state = 0x2545_f491_u64;
    let mut random = move |bound: usize| {
        // A linear congruential generator: the same strings in each run.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound
    };
    let mut accepted = 0;
    for round in 0..30_000 {
        let mut characters: Vec<char> = seeds[round % seeds.len()].chars().collect();
        for _ in 0..=random(4) {
            let at = random(characters.len() + 1);
            let to = (at + random(6)).min(characters.len());
            characters.splice(at..to, pieces[random(pieces.len())].chars());
        }
        let text: String = characters.into_iter().collect();
        if let Ok(parsed) = text.parse::<ConnectionString>() {
            accepted += 1;
            let again: ConnectionString = text.parse().unwrap();
            assert_eq!((&again, again.to_string()), (&parsed, parsed.to_string()));
            assert_eq!(parsed.options.validate(), Ok(()), "{text}");
        }
    }
    assert!(
        (100..29_000).contains(&accepted),
        "{accepted} strings were accepted: the loop tests nothing"
    );
}

#[test]
fn options_made_by_code_are_checked_like_those_of_a_string() {
    type Change = fn(&mut ClientOptions);
    let changes: [(&str, Change); 14] = [
        ("the string", |o| o.hosts.clear()),
        ("option directConnection", |o| {
            o.direct_connection = Some(true);
            o.hosts.push(ServerAddress::tcp("b", 1));
        }),
        ("option loadBalanced", |o| {
            o.load_balanced = true;
            o.replica_set = Some("rs0".into());
        }),
        ("option heartbeatFrequencyMS", |o| {
            o.heartbeat_frequency = Some(Duration::from_millis(499))
        }),
        ("option appName", |o| o.app_name = Some("é".repeat(65))),
        ("option replicaSet", |o| o.replica_set = Some(String::new())),
        ("option zlibCompressionLevel", |o| {
            o.zlib_compression_level = Some(10)
        }),
        ("option maxConnecting", |o| o.pool.max_connecting = Some(0)),
        ("option tlsInsecure", |o| {
            o.tls_options.insecure = Some(false);
            o.tls_options.disable_ocsp_endpoint_check = Some(false);
        }),
        ("option proxyHost", |o| o.proxy.host = Some(String::new())),
        ("option maxStalenessSeconds", |o| {
            o.read_preference.max_staleness = Some(Duration::from_secs(120))
        }),
        ("option authSource", |o| {
            let mut credential = Credential::new("u", "p");
            credential.source = String::new();
            o.credential = Some(credential);
        }),
        ("option authMechanism", |o| {
            o.credential = Some(Credential::with_mechanism(AuthMechanism::Plain))
        }),
        ("option authMechanismProperties", |o| {
            o.credential = Some(Credential::with_mechanism(AuthMechanism::MongoDbOidc));
        }),
    ];
    for (place, change) in changes {
        let mut options = ClientOptions::default();
        change(&mut options);
        let error = options.validate().unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("{place}: ")),
            "{place}: {error}"
        );
    }
}

#[test]
fn options_made_by_code_that_make_sense_pass() {
    let mut options = ClientOptions::default();
    options.read_preference = ReadPreference::new(ReadPreferenceMode::Secondary);
    // Too low for a replica set, which the selection of a server says; a sharded cluster judges for itself.
    options.read_preference.max_staleness = Some(Duration::from_secs(1));
    let mut credential = Credential::with_mechanism(AuthMechanism::MongoDbAws);
    credential.username = Some("id".into());
    credential.password = Some("key".into());
    credential.mechanism_properties.insert("aws_session_token", "t");
    options.credential = Some(credential);
    assert_eq!(options.validate(), Ok(()));
}

#[test]
fn naming_a_certificate_turns_tls_on_unless_it_is_turned_off() {
    assert!(parse("mongodb://h/?tlsCAFile=ca.pem").options.tls_enabled());
    assert!(parse("mongodb://h/?tls=true").options.tls_enabled());
    let parsed = parse("mongodb://h/?tls=false&tlsCAFile=ca.pem");
    assert!(!parsed.options.tls_enabled());
    assert_eq!(parsed.warnings.len(), 1);
    let tls = parse("mongodb://h/?tlsInsecure=true").options.tls_options;
    assert!(tls.accepts_invalid_certificates() && tls.accepts_invalid_hostnames());
    let tls = parse("mongodb://h/?tlsAllowInvalidHostnames=true")
        .options
        .tls_options;
    assert!(!tls.accepts_invalid_certificates() && tls.accepts_invalid_hostnames());
}

#[test]
fn mechanism_properties_compare_their_names_without_case_and_print_no_value() {
    let mut properties = MechanismProperties::default();
    assert_eq!(properties.insert("service_name", "a"), None);
    assert_eq!(properties.insert("SERVICE_NAME", "b").as_deref(), Some("a"));
    assert_eq!(properties.get("Service_Name"), Some("b"));
    assert_eq!(format!("{properties:?}"), r#"{"SERVICE_NAME": ***}"#);
}

#[test]
fn an_error_becomes_the_error_of_a_client() {
    let error = changestream_core::Error::from(refused("mongodb://h/?w=-1"));
    assert!(error.to_string().contains("option w"), "{error}");
}
