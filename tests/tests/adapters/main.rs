//! One suite for all adapters, against the simulated deployment on the loopback. A scenario is written once, in
//! `scenarios.rs`, and is a test of each adapter here.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "tests"
)]

mod adapter;
mod authentication;
mod cancelling;
mod certificates;
mod chopped;
mod commands;
mod dns;
mod examples;
mod ipv6_proxy;
mod pymongo;
mod scenarios;
mod tls;
mod tls_proxy;
#[cfg(unix)]
mod unix_proxy;

use std::future::Future;

use adapter::{Adapter, bounded};
use bson::Document;
use changestream_driver::{ChangeStream, Error, Running, Runtime, Watch};

/// Every scenario as a test of this adapter.
macro_rules! suite {
    ($module:ident, $adapter:ty: $($file:ident::$scenario:ident,)*) => {
        mod $module {
            use super::*;

            $(
                #[test]
                fn $scenario() {
                    bounded(|| <$adapter>::block_on($file::$scenario::<$adapter>()));
                }
            )*
        }
    };
    ($module:ident, $adapter:ty) => {
        suite! { $module, $adapter:
            scenarios::a_collection_a_database_and_a_deployment_are_watched,
            scenarios::an_election_loses_and_repeats_nothing,
            scenarios::a_crash_of_the_primary_loses_and_repeats_nothing,
            scenarios::a_try_comes_back_and_an_idle_stream_tells_where_it_stands,
            scenarios::an_invalidated_stream_ends,
            scenarios::closing_kills_the_cursor,
            scenarios::a_reply_that_never_comes_is_resumed_from,
            scenarios::a_member_cut_off_from_the_others_falls_silent_and_goes_on,
            scenarios::a_server_that_says_nothing_is_given_up,
            scenarios::nobody_listening_is_an_error_after_the_selection_time,
            scenarios::a_wrong_password_is_told_without_the_password,
            scenarios::a_standalone_is_told_what_it_takes,
            scenarios::streams_of_one_client_share_what_they_learned,
            scenarios::servers_are_told_of_the_executor,
            scenarios::the_addresses_of_a_name_are_tried_in_turn,
            scenarios::an_ipv6_literal_serves_as_well,
            scenarios::a_call_that_runs_out_of_time_leaves_the_stream_alive,
            commands::commands_are_run_over_one_connection_and_told_of,
            commands::a_refused_command_is_told_with_the_servers_words,
            commands::a_command_outlives_the_connection_of_the_one_before,
            commands::a_command_given_up_leaves_the_next_ones_alone,
            dns::servers_and_their_options_are_found_in_dns,
            dns::an_answer_that_does_not_fit_is_asked_for_over_tcp,
            dns::aliases_are_followed,
            dns::a_server_that_knows_no_extension_is_asked_without,
            dns::answers_of_others_are_passed_over,
            dns::the_next_name_server_is_asked_where_one_fails,
            dns::what_dns_lacks_is_told_with_the_name,
            dns::a_server_of_another_domain_is_not_connected_to,
            dns::a_name_server_that_says_nothing_is_waited_for_as_long_as_for_a_server,
            tls::tls_loses_and_repeats_nothing,
            tls::an_election_is_followed_through_tls,
            tls::a_closed_stream_takes_leave_of_tls_too,
            tls::each_tls_version_is_spoken_and_the_host_is_named,
            tls::an_expired_certificate_is_told,
            tls::a_certificate_of_another_host_is_told_and_can_be_allowed,
            tls::an_unknown_authority_is_told_and_can_be_allowed,
            tls::a_client_certificate_is_shown_and_its_refusal_told,
            tls::a_server_without_tls_is_told,
            tls::a_client_without_tls_is_told,
            tls::an_end_without_farewell_is_resumed_from,
            tls::the_handshake_counts_as_connecting,
            authentication::a_client_certificate_is_who_a_client_is,
            authentication::users_of_ldap_show_their_password,
            authentication::keys_of_aws_come_from_a_provider,
            authentication::keys_of_aws_stand_in_the_connection_string,
            authentication::a_stream_outlives_its_tokens,
            authentication::a_human_is_told_of_the_provider,
            authentication::a_callback_that_fails_is_told_without_a_token,
            authentication::a_token_lies_in_a_file,
        }
    };
}

/// An adapter whose streams are awaited.
macro_rules! awaited {
    ($name:ident, $runtime:ty, $block_on:expr) => {
        struct $name;

        impl Adapter for $name {
            type Mode = $runtime;
            type Stream = ChangeStream<$runtime>;
            const PLATFORM: &'static str = <$runtime as Runtime>::NAME;

            async fn open(watch: Watch<$runtime>) -> Result<ChangeStream<$runtime>, Error> {
                watch.open().await
            }

            async fn run(running: Running<$runtime>) -> Result<Document, Error> {
                running.await
            }

            fn block_on<T>(future: impl Future<Output = T>) -> T {
                $block_on(future)
            }
        }
    };
}

awaited!(OnTokio, changestream_tokio::Tokio, |future| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
});
awaited!(OnSmol, changestream_smol::Smol, |future| async_io::block_on(
    future
));
awaited!(OnAsyncStd, changestream_async_std::AsyncStd, |future| {
    async_std::task::block_on(future)
});

// The runtimes of the driver's examples are adapters like the others.
awaited!(OnThreads, examples::std_threads::Threads, |future| {
    examples::std_threads::block_on(future)
});
awaited!(OnCompio, examples::compio::Compio, |future| {
    compio::runtime::Runtime::new().unwrap().block_on(future)
});

// smol's sockets and timers, polled by an executor that knows nothing of them.
awaited!(SmolElsewhere, changestream_smol::Smol, |future| {
    examples::std_threads::block_on(future)
});

struct Blocking;

impl Adapter for Blocking {
    type Mode = changestream_blocking::Blocking;
    type Stream = changestream_blocking::ChangeStream;
    const PLATFORM: &'static str = "blocking";

    async fn open(watch: changestream_blocking::Watch) -> Result<Self::Stream, Error> {
        watch.open()
    }

    async fn run(running: Result<Document, Error>) -> Result<Document, Error> {
        running
    }

    /// Nothing in it is ever pending.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut cx) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("a blocking call is pending"),
        }
    }
}

suite!(tokio_, OnTokio);
suite!(smol, OnSmol);
suite!(async_std_, OnAsyncStd);
suite!(blocking, Blocking);
suite!(threads, OnThreads);
suite!(compio_, OnCompio);

// Bytes that come and go in small pieces.
awaited!(OnChopped, chopped::Chopped, |future| {
    examples::std_threads::block_on(future)
});
suite!(chopped_, OnChopped:
    tls::tls_loses_and_repeats_nothing,
    tls::each_tls_version_is_spoken_and_the_host_is_named,
    tls::a_client_certificate_is_shown_and_its_refusal_told,
    dns::an_answer_that_does_not_fit_is_asked_for_over_tcp,
);

suite!(smol_elsewhere, SmolElsewhere: scenarios::a_crash_of_the_primary_loses_and_repeats_nothing,);

/// Futures that are dropped, wherever they wait.
mod given_up {
    use super::*;

    macro_rules! given_up {
        ($($name:ident: $adapter:ty,)*) => {
            $(
                #[test]
                fn $name() {
                    cancelling::calls_given_up_wherever_they_wait_lose_and_repeat_nothing::<$adapter>();
                }
            )*
        };
    }

    given_up! {
        tokio_: OnTokio,
        smol: OnSmol,
        async_std_: OnAsyncStd,
        blocking: Blocking,
        threads: OnThreads,
        compio_: OnCompio,
        chopped_: OnChopped,
    }
}

/// Clients that several threads have.
mod shared_clients {
    use super::*;

    suite!(tokio_, OnTokio: authentication::one_call_is_under_way_at_a_time,);
    suite!(smol, OnSmol: authentication::one_call_is_under_way_at_a_time,);
    suite!(async_std_, OnAsyncStd: authentication::one_call_is_under_way_at_a_time,);
    suite!(blocking, Blocking: authentication::one_call_is_under_way_at_a_time,);
}

/// The adapters know Unix domain sockets besides TCP.
#[cfg(unix)]
mod unix_sockets {
    use super::*;

    suite!(tokio_, OnTokio: scenarios::a_unix_socket_serves_as_well,);
    suite!(smol, OnSmol: scenarios::a_unix_socket_serves_as_well,);
    suite!(async_std_, OnAsyncStd: scenarios::a_unix_socket_serves_as_well,);
    suite!(blocking, Blocking: scenarios::a_unix_socket_serves_as_well,);
}

/// A stream may be made on one thread and used on another, where the runtime's sockets may.
const _: () = {
    const fn is_send<S: Send>() {}
    is_send::<<OnTokio as Adapter>::Stream>();
    is_send::<<OnSmol as Adapter>::Stream>();
    is_send::<<OnAsyncStd as Adapter>::Stream>();
    is_send::<<OnThreads as Adapter>::Stream>();
    is_send::<<Blocking as Adapter>::Stream>();
};
