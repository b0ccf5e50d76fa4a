//! What a server says about itself, and its fail points.

use bson::{Bson, DateTime, Document, doc};

use super::{Answer, Context, Result, documents};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::member::Role;
use crate::reply::Reply;

fn fields(document: &Document) -> Result {
    Ok(Answer::Reply(Reply::fields(document)))
}

pub(super) fn ping(_: &mut Deployment, _: &Context<'_>) -> Result {
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn build_info(d: &mut Deployment, _: &Context<'_>) -> Result {
    let version: Vec<Bson> = d.profile.version_array().into_iter().map(Bson::from).collect();
    fields(&doc! {
        "version": d.profile.version.as_ref(),
        "gitVersion": "0000000000000000000000000000000000000000",
        "modules": [],
        "allocator": "system",
        "javascriptEngine": "none",
        "sysInfo": "deprecated",
        "versionArray": version,
        "openssl": { "running": "disabled", "compiled": "disabled" },
        "buildEnvironment": {},
        "bits": 64,
        "debug": false,
        "maxBsonObjectSize": 16 << 20,
        "storageEngines": ["wiredTiger"],
    })
}

pub(super) fn get_parameter(d: &mut Deployment, context: &Context<'_>) -> Result {
    let fcv = doc! { "version": d.profile.fcv() };
    let known = doc! {
        "enableTestCommands": true,
        "featureCompatibilityVersion": fcv,
        "requireApiVersion": false,
        "authenticationMechanisms": ["SCRAM-SHA-1", "SCRAM-SHA-256"],
        "transactionLifetimeLimitSeconds": 60,
    };
    let body = context.body();
    if body.get_str("getParameter").is_ok_and(|s| s == "*") {
        return fields(&known);
    }
    let asked: Document = known
        .into_iter()
        .filter(|(name, _)| documents::flag(body, name))
        .collect();
    if asked.is_empty() {
        return Err(CommandError::new(72, "no option found to get"));
    }
    fields(&asked)
}

pub(super) fn get_cmd_line_opts(d: &mut Deployment, context: &Context<'_>) -> Result {
    let address = d.members.get(context.member).map_or("", |m| m.address.as_str());
    let port = address
        .rsplit_once(':')
        .and_then(|(_, p)| p.parse::<i32>().ok())
        .unwrap_or(27017);
    let mut parsed = doc! {
        "net": { "bindIp": "127.0.0.1", "port": port },
        "setParameter": { "enableTestCommands": "1" },
    };
    let mut argv = vec!["mongod".to_owned(), "--port".to_owned(), port.to_string()];
    if let Some(name) = &d.set_name {
        parsed.insert("replication", doc! { "replSet": name });
        argv.extend(["--replSet".to_owned(), name.clone()]);
    }
    if d.is_guarded() {
        parsed.insert("security", doc! { "authorization": "enabled" });
        argv.push("--auth".to_owned());
    }
    fields(&doc! { "argv": argv, "parsed": parsed })
}

pub(super) fn host_info(d: &mut Deployment, context: &Context<'_>) -> Result {
    fields(&doc! {
        "system": {
            "currentTime": DateTime::from_millis(d.wall(context.now)),
            "hostname": d.members.get(context.member).map_or("", |m| m.address.as_str()),
            "cpuAddrSize": 64,
            "numCores": 1,
        },
        "os": { "type": "Simulated", "name": "changestream-sim", "version": env!("CARGO_PKG_VERSION") },
        "extra": {},
    })
}

pub(super) fn server_status(d: &mut Deployment, context: &Context<'_>) -> Result {
    let Some(m) = d.members.get(context.member) else {
        return fields(&Document::new());
    };
    let mut status = doc! {
        "host": m.address.as_str(),
        "version": d.profile.version.as_ref(),
        "process": if d.cluster.is_some() { "mongos" } else { "mongod" },
        "pid": 1_i64,
        "localTime": DateTime::from_millis(d.wall(context.now)),
        "metrics": { "cursor": { "open": { "total": i64::try_from(m.cursors.len()).unwrap_or(0) } } },
        "storageEngine": { "name": "wiredTiger", "persistent": true },
    };
    if let Some(name) = &d.set_name {
        status.insert(
            "repl",
            doc! {
                "setName": name,
                "setVersion": 1,
                "ismaster": m.role == Role::Primary,
                "secondary": m.role == Role::Secondary,
                "me": m.address.as_str(),
            },
        );
    }
    fields(&status)
}

pub(super) fn whats_my_uri(_: &mut Deployment, context: &Context<'_>) -> Result {
    // The machine knows no sockets; the number tells connections apart as a port would.
    fields(&doc! { "you": format!("127.0.0.1:{}", context.connection.0) })
}

pub(super) fn configure_fail_point(d: &mut Deployment, context: &Context<'_>) -> Result {
    let Some(m) = d.members.get_mut(context.member) else {
        return fields(&Document::new());
    };
    let hits = m.fail_points.configure(context.body())?;
    fields(&doc! { "count": i32::try_from(hits).unwrap_or(i32::MAX) })
}
