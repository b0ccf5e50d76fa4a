//! The commands that a server knows.

use bson::{Bson, Document, doc};

use super::{
    Answer, Context, Result, access, api, collections, cursor, diagnostics, find_and_modify, hello, read,
    replset, sessions, sharding, users, write,
};
use crate::deployment::Deployment;
use crate::reply::Reply;

/// A command that the server knows.
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) needs: Needs,
    pub(super) run: fn(&mut Deployment, &Context<'_>) -> Result,
}

/// What must hold before a command runs.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Needs {
    /// Nothing, not even a user.
    Nothing,
    /// A user, where there are users.
    User,
    /// The same, and the database admin.
    Admin,
    /// A member that serves reads, or a read preference that allows a secondary.
    Read,
    /// A primary.
    Write,
}

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "abortTransaction",
        needs: Needs::Admin,
        run: sessions::abort_transaction,
    },
    Command {
        name: "aggregate",
        needs: Needs::Read,
        run: read::aggregate,
    },
    Command {
        name: "authenticate",
        needs: Needs::Nothing,
        run: access::authenticate,
    },
    Command {
        name: "buildInfo",
        needs: Needs::Nothing,
        run: diagnostics::build_info,
    },
    Command {
        name: "buildinfo",
        needs: Needs::Nothing,
        run: diagnostics::build_info,
    },
    Command {
        name: "collMod",
        needs: Needs::Write,
        run: collections::coll_mod,
    },
    Command {
        name: "commitTransaction",
        needs: Needs::Admin,
        run: sessions::commit_transaction,
    },
    Command {
        name: "configureFailPoint",
        needs: Needs::Admin,
        run: diagnostics::configure_fail_point,
    },
    Command {
        name: "connectionStatus",
        needs: Needs::Nothing,
        run: access::connection_status,
    },
    Command {
        name: "count",
        needs: Needs::Read,
        run: read::count,
    },
    Command {
        name: "create",
        needs: Needs::Write,
        run: collections::create,
    },
    Command {
        name: "createIndexes",
        needs: Needs::Write,
        run: collections::create_indexes,
    },
    Command {
        name: "createUser",
        needs: Needs::Write,
        run: users::create,
    },
    Command {
        name: "delete",
        needs: Needs::Write,
        run: write::delete,
    },
    Command {
        name: "distinct",
        needs: Needs::Read,
        run: read::distinct,
    },
    Command {
        name: "drop",
        needs: Needs::Write,
        run: collections::drop,
    },
    Command {
        name: "dropAllUsersFromDatabase",
        needs: Needs::Write,
        run: users::drop_all,
    },
    Command {
        name: "dropDatabase",
        needs: Needs::Write,
        run: collections::drop_database,
    },
    Command {
        name: "dropIndexes",
        needs: Needs::Write,
        run: collections::drop_indexes,
    },
    Command {
        name: "dropUser",
        needs: Needs::Write,
        run: users::drop,
    },
    Command {
        name: "enableSharding",
        needs: Needs::Admin,
        run: sharding::enable_sharding,
    },
    Command {
        name: "endSessions",
        needs: Needs::User,
        run: sessions::end,
    },
    Command {
        name: "find",
        needs: Needs::Read,
        run: read::find,
    },
    Command {
        name: "findAndModify",
        needs: Needs::Write,
        run: find_and_modify::find_and_modify,
    },
    Command {
        name: "findandmodify",
        needs: Needs::Write,
        run: find_and_modify::find_and_modify,
    },
    Command {
        name: "getCmdLineOpts",
        needs: Needs::Admin,
        run: diagnostics::get_cmd_line_opts,
    },
    Command {
        name: "getMore",
        needs: Needs::User,
        run: cursor::get_more,
    },
    Command {
        name: "getParameter",
        needs: Needs::Admin,
        run: diagnostics::get_parameter,
    },
    Command {
        name: "getnonce",
        needs: Needs::Nothing,
        run: diagnostics::get_nonce,
    },
    Command {
        name: "hello",
        needs: Needs::Nothing,
        run: hello::hello,
    },
    Command {
        name: "hostInfo",
        needs: Needs::Admin,
        run: diagnostics::host_info,
    },
    Command {
        name: "insert",
        needs: Needs::Write,
        run: write::insert,
    },
    Command {
        name: "isMaster",
        needs: Needs::Nothing,
        run: hello::hello,
    },
    Command {
        name: "ismaster",
        needs: Needs::Nothing,
        run: hello::hello,
    },
    Command {
        name: "killAllSessions",
        needs: Needs::User,
        run: sessions::kill_all,
    },
    Command {
        name: "killCursors",
        needs: Needs::User,
        run: cursor::kill_cursors,
    },
    Command {
        name: "killSessions",
        needs: Needs::User,
        run: sessions::kill,
    },
    Command {
        name: "listCollections",
        needs: Needs::Read,
        run: collections::list_collections,
    },
    Command {
        name: "listCommands",
        needs: Needs::Nothing,
        run: list,
    },
    Command {
        name: "listDatabases",
        needs: Needs::Read,
        run: collections::list_databases,
    },
    Command {
        name: "listIndexes",
        needs: Needs::Read,
        run: collections::list_indexes,
    },
    Command {
        name: "listShards",
        needs: Needs::Admin,
        run: sharding::list_shards,
    },
    Command {
        name: "logout",
        needs: Needs::Nothing,
        run: access::logout,
    },
    Command {
        name: "moveChunk",
        needs: Needs::Admin,
        run: sharding::move_chunk,
    },
    Command {
        name: "ping",
        needs: Needs::User,
        run: diagnostics::ping,
    },
    Command {
        name: "refreshSessions",
        needs: Needs::User,
        run: sessions::refresh,
    },
    Command {
        name: "renameCollection",
        needs: Needs::Write,
        run: collections::rename,
    },
    Command {
        name: "replSetFreeze",
        needs: Needs::Admin,
        run: replset::freeze,
    },
    Command {
        name: "replSetGetConfig",
        needs: Needs::Admin,
        run: replset::get_config,
    },
    Command {
        name: "replSetGetStatus",
        needs: Needs::Admin,
        run: replset::get_status,
    },
    Command {
        name: "replSetStepDown",
        needs: Needs::Admin,
        run: replset::step_down,
    },
    Command {
        name: "saslContinue",
        needs: Needs::Nothing,
        run: access::sasl_continue,
    },
    Command {
        name: "saslStart",
        needs: Needs::Nothing,
        run: access::sasl_start,
    },
    Command {
        name: "serverStatus",
        needs: Needs::User,
        run: diagnostics::server_status,
    },
    Command {
        name: "shardCollection",
        needs: Needs::Admin,
        run: sharding::shard_collection,
    },
    Command {
        name: "split",
        needs: Needs::Admin,
        run: sharding::split,
    },
    Command {
        name: "startSession",
        needs: Needs::User,
        run: sessions::start,
    },
    Command {
        name: "testDeprecation",
        needs: Needs::Nothing,
        run: api::test,
    },
    Command {
        name: "testDeprecationInVersion2",
        needs: Needs::Nothing,
        run: api::test,
    },
    Command {
        name: "testRemoval",
        needs: Needs::Nothing,
        run: api::test,
    },
    Command {
        name: "testVersion2",
        needs: Needs::Nothing,
        run: api::test,
    },
    Command {
        name: "testVersions1And2",
        needs: Needs::Nothing,
        run: api::test,
    },
    Command {
        name: "update",
        needs: Needs::Write,
        run: write::update,
    },
    Command {
        name: "updateUser",
        needs: Needs::Write,
        run: users::update,
    },
    Command {
        name: "usersInfo",
        needs: Needs::Read,
        run: users::info,
    },
    Command {
        name: "whatsmyuri",
        needs: Needs::Nothing,
        run: diagnostics::whats_my_uri,
    },
];

/// listCommands: the table itself.
fn list(d: &mut Deployment, _: &Context<'_>) -> Result {
    let secondary = if d.profile.says_primary {
        "secondaryOk"
    } else {
        "slaveOk"
    };
    let known = COMMANDS.iter().filter(|c| c.name != "hello" || d.profile.hello);
    let commands: Document = known
        .map(|command| {
            let about = doc! {
                "help": "",
                "requiresAuth": command.needs != Needs::Nothing,
                secondary: command.needs != Needs::Write,
                "adminOnly": command.needs == Needs::Admin,
            };
            (command.name.to_owned(), Bson::from(about))
        })
        .collect();
    Ok(Answer::Reply(Reply::fields(&doc! { "commands": commands })))
}
