//! MONGODB-OIDC in the simulated world: the prose tests of the specification, with an aggregate or a getMore for their
//! find.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use changestream_core::auth::{CredentialAnswer, CredentialRequest, OidcFlow, OidcRequest, OidcToken};
use changestream_core::client::ClientSettings;
use changestream_core::connection::ClientMetadata;
use changestream_core::{ConnectionString, Error, ErrorKind, WatchOptions};
use changestream_sim::{Config, Deployment};
use changestream_tests::world::{StreamId, World, collection};

/// A world, one client, and the calls of its callback.
struct Scene {
    world: World,
    client: Arc<ClientSettings>,
    calls: Rc<RefCell<Vec<OidcRequest>>>,
}

const GOOD: &str = "good-token-of-ada";

fn machine() -> Scene {
    Scene::new(
        |config| config,
        OidcFlow::Machine,
        "",
        |_| Some(Ok(OidcToken::new(GOOD))),
    )
}

/// A human's client, whose tokens come with a refresh token.
fn human() -> Scene {
    human_with(|_| Some(Ok(OidcToken::new(GOOD).with_refresh_token("refresh"))))
}

fn human_with(callback: impl FnMut(&OidcRequest) -> Given + 'static) -> Scene {
    let guard = |config: Config| config.oidc_provider("https://issuer", "client", "");
    Scene::new(guard, OidcFlow::Human, "", callback)
}

type Given = Option<Result<OidcToken, Error>>;

impl Scene {
    fn new(
        guard: impl FnOnce(Config) -> Config,
        flow: OidcFlow,
        userinfo: &str,
        callback: impl FnMut(&OidcRequest) -> Given + 'static,
    ) -> Self {
        let config = guard(Deployment::replica_set(1)).oidc_token(GOOD, "ada");
        let mut world = World::new(config, [8; 32]);
        let calls = provide(&mut world, callback);
        let client = client(&world, flow, userinfo, None);
        Self { world, client, calls }
    }

    fn open(&mut self) -> Result<StreamId, Error> {
        let orders = collection("shop", "orders");
        let stream = self
            .world
            .watch_with(&self.client, None, &orders, WatchOptions::default())?;
        self.world.open(stream)?;
        Ok(stream)
    }

    fn calls(&self) -> usize {
        self.calls.borrow().len()
    }

    fn starts(&self) -> usize {
        let records = self.world.all_records();
        records.filter(|record| record.name == "saslStart").count()
    }

    /// An event is handed over, without a resume.
    #[track_caller]
    fn event(&mut self, stream: StreamId, id: i32) {
        self.world.insert_orders([id]);
        let (resumes, event) = self.world.resumes_until_event(stream);
        assert_eq!((resumes, changestream_tests::world::key_of(&event)), (0, id));
    }
}

fn provide(
    world: &mut World,
    mut callback: impl FnMut(&OidcRequest) -> Given + 'static,
) -> Rc<RefCell<Vec<OidcRequest>>> {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&calls);
    world.identity.provide(move |request| {
        let CredentialRequest::Oidc(request) = request else {
            panic!("{request:?}");
        };
        noted.borrow_mut().push(request.clone());
        callback(request).map(|given| given.map(CredentialAnswer::Oidc))
    });
    calls
}

fn client(world: &World, flow: OidcFlow, userinfo: &str, allowed: Option<&[&str]>) -> Arc<ClientSettings> {
    let uri = world.deployment.uri();
    let uri = uri.replace("mongodb://", &format!("mongodb://{userinfo}"));
    let uri = format!("{uri}&authMechanism=MONGODB-OIDC&retryReads=false");
    let mut parsed = ConnectionString::parse_with_oidc_callback(&uri, flow).unwrap();
    parsed.options.credential.as_mut().unwrap().allowed_hosts =
        allowed.map(|hosts| hosts.iter().map(|host| (*host).to_owned()).collect());
    Arc::new(ClientSettings::new(parsed.options, ClientMetadata::new()).unwrap())
}

#[track_caller]
fn refused(error: &Error, code: Option<i32>, words: &str) {
    let text = format!("{error} {error:?}");
    assert!(matches!(error.kind(), ErrorKind::Authentication { .. }), "{text}");
    assert_eq!(error.code(), code, "{text}");
    assert!(text.contains(words), "{words} is not in: {text}");
    assert!(!text.contains("token-of"), "{text}");
}

/// OIDC 1.1.
#[test]
fn the_callback_is_called_during_authentication() {
    let mut scene = machine();
    scene.open().unwrap();
    assert_eq!(scene.calls(), 1);
}

/// OIDC 1.2: a token is asked for once, and shown by speculation from then on.
#[test]
fn the_callback_is_called_once_for_many_connections() {
    let mut scene = machine();
    let streams: Vec<_> = (0..10).map(|_| scene.open().unwrap()).collect();
    for (id, stream) in (0..).zip(streams.iter().take(1)) {
        scene.event(*stream, id);
    }
    assert_eq!(scene.calls(), 1);
    assert_eq!(scene.starts(), 1, "the others have speculated");
}

/// OIDC 2.1.
#[test]
fn the_callback_is_told_what_it_has_to_know() {
    let guard = |config: Config| config;
    let mut scene = Scene::new(guard, OidcFlow::Machine, "ada@", |_| {
        Some(Ok(OidcToken::new(GOOD)))
    });
    scene.open().unwrap();
    let calls = scene.calls.borrow();
    let [request] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(request.version, 1);
    assert_eq!(request.username.as_deref(), Some("ada"));
    let timeout = request.timeout.unwrap();
    assert!(
        timeout > Duration::from_secs(5) && timeout <= Duration::from_secs(10),
        "what is left of connectTimeoutMS: {timeout:?}"
    );
    assert!(request.idp_info.is_none() && request.refresh_token.is_none());
}

/// OIDC 2.2, 2.3: no token, or an empty one.
#[test]
fn a_callback_that_gives_nothing_of_use_is_an_error() {
    let mut scene = Scene::new(
        |c| c,
        OidcFlow::Machine,
        "",
        |_| Some(Err(Error::authentication("the metadata service is down"))),
    );
    refused(&scene.open().unwrap_err(), None, "the metadata service is down");
    let mut scene = Scene::new(|c| c, OidcFlow::Machine, "", |_| Some(Ok(OidcToken::new(""))));
    refused(&scene.open().unwrap_err(), None, "empty");
}

/// A callback that hangs holds a connection for its connect timeout, and no longer.
#[test]
fn a_callback_that_never_answers_is_given_up() {
    let mut scene = Scene::new(|c| c, OidcFlow::Machine, "", |_| None);
    let start = scene.world.now;
    refused(&scene.open().unwrap_err(), None, "connectTimeoutMS, 10s");
    let taken = scene.world.now - start;
    assert!(taken < Duration::from_secs(11), "{taken:?}");
    assert_eq!(scene.calls(), 1);
}

/// OIDC 2.4.
#[test]
fn an_environment_and_a_callback_contradict_each_other() {
    let uri = "mongodb://localhost/?authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:test";
    let error = ConnectionString::parse_with_oidc_callback(uri, OidcFlow::Machine).unwrap_err();
    assert!(error.to_string().contains("contradicts the callback"), "{error}");
}

/// OIDC 3.1: a cached token that is not good any more is fetched anew, after a pause of 100 ms.
#[test]
fn a_cached_token_that_is_refused_is_fetched_anew() {
    let tokens = Rc::new(RefCell::new(vec![GOOD, "poison"]));
    let left = Rc::clone(&tokens);
    let callback = move |_: &OidcRequest| Some(Ok(OidcToken::new(left.borrow_mut().pop().unwrap())));
    let mut scene = Scene::new(|c| c, OidcFlow::Machine, "", callback);
    let now = scene.world.now;
    scene
        .world
        .deployment
        .accept_oidc_token(now, "poison", "ada", None);
    scene.open().unwrap();
    scene.world.deployment.revoke_oidc_token("poison");
    let before = scene.world.now;
    scene.open().unwrap();
    assert_eq!(scene.calls(), 2);
    assert!(scene.world.now - before >= Duration::from_millis(100));
}

/// OIDC 3.2.
#[test]
fn a_fresh_token_that_is_refused_is_an_error() {
    let mut scene = Scene::new(
        |c| c,
        OidcFlow::Machine,
        "",
        |_| Some(Ok(OidcToken::new("token-of-nobody"))),
    );
    refused(&scene.open().unwrap_err(), Some(18), "MONGODB-OIDC");
    assert_eq!(scene.calls(), 1);
}

/// OIDC 3.3.
#[test]
fn an_unexpected_error_does_not_clear_the_cache() {
    let mut scene = machine();
    scene.world.fail(&["saslStart"], 1, doc! { "errorCode": 20 });
    refused(&scene.open().unwrap_err(), Some(20), "MONGODB-OIDC");
    assert_eq!(scene.calls(), 1);
    scene.open().unwrap();
    assert_eq!(scene.calls(), 1);
}

/// OIDC 4.1: the token is taken out of the cache, another is fetched, and the command goes again.
#[test]
fn a_server_that_wants_a_connection_to_authenticate_anew_gets_a_new_token() {
    let mut scene = machine();
    scene.world.fail(&["aggregate"], 1, doc! { "errorCode": 391 });
    let stream = scene.open().unwrap();
    assert_eq!(scene.calls(), 2);
    scene.world.fail_get_more(391);
    scene.event(stream, 7);
    assert_eq!(scene.calls(), 3);
}

/// OIDC 4.2 and 4.3 of later versions: reads that were begun by speculation, and by a command.
#[test]
fn a_connection_that_was_authenticated_by_speculation_can_do_so_anew() {
    let mut scene = machine();
    scene.open().unwrap();
    let stream = scene.open().unwrap();
    assert_eq!((scene.calls(), scene.starts()), (1, 1));
    scene.world.fail_get_more(391);
    scene.event(stream, 7);
    assert_eq!(scene.calls(), 2);
}

/// A token that ends is what all of this is for.
#[test]
fn a_stream_outlives_its_tokens() {
    let mut scene = Scene::new(|c| c, OidcFlow::Machine, "", {
        let mut number = 0;
        move |_| {
            number += 1;
            Some(Ok(OidcToken::new(format!("token-of-ada-{number}"))))
        }
    });
    let now = scene.world.now;
    for number in 1..=5 {
        let lifetime = Duration::from_secs(100 * number);
        let token = format!("token-of-ada-{number}");
        scene
            .world
            .deployment
            .accept_oidc_token(now, token, "ada", Some(lifetime));
    }
    let stream = scene.open().unwrap();
    for id in 0..45 {
        scene.event(stream, id);
        scene.world.advance(Duration::from_secs(10));
    }
    assert_eq!(scene.calls(), 5);
    assert_eq!(scene.world.commands_named("aggregate").len(), 1, "never resumed");
}

/// Human 1.1, 1.2: one provider, with and without a user name.
#[test]
fn a_human_is_asked_with_what_the_server_knows_of_the_provider() {
    for userinfo in ["", "ada@"] {
        let guard = |config: Config| config.oidc_provider("https://issuer", "client", "");
        let mut scene = Scene::new(guard, OidcFlow::Human, userinfo, |_| {
            Some(Ok(OidcToken::new(GOOD)))
        });
        scene.open().unwrap();
        let calls = scene.calls.borrow();
        let [request] = &calls[..] else {
            panic!("{calls:?}")
        };
        let idp = request.idp_info.as_ref().unwrap();
        assert_eq!(idp.issuer, "https://issuer");
        assert_eq!(idp.client_id.as_deref(), Some("client"));
        // Human 2.1.
        assert_eq!(request.version, 1);
        assert_eq!(request.timeout, Some(Duration::from_secs(300)));
        assert!(request.refresh_token.is_none());
    }
}

/// Human 1.3 to 1.5.
#[test]
fn of_several_providers_the_user_name_says_which() {
    let guard = |config: Config| {
        config
            .oidc_provider("https://of-a", "client", "a")
            .oidc_provider("https://of-b", "client", "b")
            .oidc_token("token-of-ben", "ben")
    };
    let callback = |request: &OidcRequest| {
        let token = match request.idp_info.as_ref().unwrap().issuer.as_str() {
            "https://of-a" => GOOD,
            _ => "token-of-ben",
        };
        Some(Ok(OidcToken::new(token)))
    };
    for (userinfo, works) in [("ada@", true), ("ben@", true), ("", false)] {
        let mut scene = Scene::new(guard, OidcFlow::Human, userinfo, callback);
        let result = scene.open();
        assert_eq!(result.is_ok(), works, "{userinfo} {result:?}");
        assert_eq!(scene.calls(), usize::from(works));
    }
}

/// Human 1.6: and a cached token is not shown either.
#[test]
fn hosts_that_are_not_allowed_see_no_token() {
    for (allowed, works) in [
        (None, true),
        (Some(&[][..]), false),
        (Some(&["example.com"][..]), false),
        (Some(&["127.0.0.1"][..]), true),
        (Some(&["*.0.0.1"][..]), true),
        (Some(&["*127.0.0.1"][..]), false),
    ] {
        let mut scene = human();
        scene.client = client(&scene.world, OidcFlow::Human, "", allowed);
        match scene.open() {
            Ok(_) => assert!(works, "{allowed:?}"),
            Err(error) => {
                assert!(!works, "{allowed:?}: {error}");
                refused(&error, None, "none of the allowed hosts");
                assert_eq!(scene.calls() + scene.starts(), 0);
            }
        }
    }
}

/// Human 2.2.
#[test]
fn a_human_who_gives_nothing_of_use_is_an_error() {
    let mut scene = human_with(|_| Some(Ok(OidcToken::new(""))));
    refused(&scene.open().unwrap_err(), None, "empty");
}

/// A human has five minutes, and then the connection its own time again.
#[test]
fn a_human_may_take_five_minutes() {
    let mut scene = human_with(|_| None);
    let start = scene.world.now;
    refused(&scene.open().unwrap_err(), None, "took longer");
    let taken = scene.world.now - start;
    assert!(
        taken >= Duration::from_secs(300) && taken < Duration::from_secs(301),
        "{taken:?}"
    );
}

/// Human 2.3 and 4.1.
#[test]
fn a_refresh_token_is_passed_on() {
    let mut scene = human();
    let stream = scene.open().unwrap();
    scene.world.fail_get_more(391);
    scene.event(stream, 7);
    let calls = scene.calls.borrow();
    let refreshed: Vec<_> = calls.iter().map(|call| call.refresh_token.is_some()).collect();
    assert_eq!(refreshed, [false, true]);
    assert!(calls.iter().all(|call| call.idp_info.is_some()));
}

/// Human 3.1: with a cached token no saslStart is needed.
#[test]
fn a_humans_token_is_shown_by_speculation() {
    let mut scene = human();
    scene.open().unwrap();
    scene.world.fail(&["saslStart"], 1, doc! { "errorCode": 18 });
    scene.open().unwrap();
    assert_eq!(scene.calls(), 1);
}

/// Human 3.2.
#[test]
fn without_a_cached_token_nothing_is_speculated() {
    let mut scene = human();
    scene.world.fail(&["saslStart"], 1, doc! { "errorCode": 18 });
    refused(&scene.open().unwrap_err(), Some(18), "MONGODB-OIDC");
    assert_eq!(scene.calls(), 0);
}

/// Human 4.2.
#[test]
fn without_a_refresh_token_the_human_is_asked_anew() {
    let mut scene = human_with(|_| Some(Ok(OidcToken::new(GOOD))));
    let stream = scene.open().unwrap();
    scene.world.fail_get_more(391);
    scene.event(stream, 7);
    let calls = scene.calls.borrow();
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|call| call.refresh_token.is_none()));
}

/// Human 4.3: the refreshed token is not taken either.
#[test]
fn after_a_refresh_that_fails_the_human_is_asked_anew() {
    let mut scene = human();
    let stream = scene.open().unwrap();
    scene
        .world
        .fail(&["getMore", "saslStart"], 2, doc! { "errorCode": 391 });
    scene.event(stream, 7);
    let calls = scene.calls.borrow();
    let refreshed: Vec<_> = calls.iter().map(|call| call.refresh_token.is_some()).collect();
    assert_eq!(refreshed, [false, true, false]);
}

/// Human 4.4.
#[test]
fn a_server_that_refuses_everything_is_an_error() {
    let mut scene = human();
    let stream = scene.open().unwrap();
    scene
        .world
        .fail(&["getMore", "saslStart"], 3, doc! { "errorCode": 391 });
    refused(&scene.world.failure(stream), Some(391), "MONGODB-OIDC");
    assert_eq!(scene.calls(), 2);
}

/// A speculation that is not answered takes nothing out of the cache.
#[test]
fn a_speculation_without_an_answer_is_begun_anew_with_the_same_token() {
    let mut scene = machine();
    scene.open().unwrap();
    scene.world.rewrite_replies(|reply| {
        reply.remove("speculativeAuthenticate");
    });
    scene.open().unwrap();
    assert_eq!((scene.calls(), scene.starts()), (1, 2));
}

/// Nothing of a token is in what can be printed.
#[test]
fn nothing_that_is_printed_shows_a_token() {
    let mut scene = human();
    let stream = scene.open().unwrap();
    scene.world.fail_get_more(391);
    scene.event(stream, 7);
    let text = format!(
        "{:?} {:?} {:?}",
        scene.client,
        scene.calls.borrow(),
        scene.world.machine(stream)
    );
    for secret in [GOOD, "\"refresh\""] {
        assert!(!text.contains(secret), "{secret}");
    }
}
