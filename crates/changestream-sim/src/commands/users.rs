//! Users, all of them of the database admin, who may do everything.

use bson::{Bson, Document, doc};

use super::{Answer, Context, Result, documents};
use crate::auth::Credentials;
use crate::deployment::{Deployment, Mechanism};
use crate::error::CommandError;
use crate::reply::Reply;

pub(super) fn create(d: &mut Deployment, context: &Context<'_>) -> Result {
    let name = named(context)?.to_owned();
    only_admin(context)?;
    if d.users.iter().any(|user| user.name == name) {
        return Err(CommandError::new(
            51003,
            format!("User \"{name}@admin\" already exists"),
        ));
    }
    let roles = context.body().get_array("roles").map_err(|_| {
        CommandError::new(
            40414,
            "BSON field 'createUser.roles' is missing but a required field",
        )
    })?;
    only_root(roles)?;
    let user = credentials(d, context, &name)?;
    d.users.push(user);
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn update(d: &mut Deployment, context: &Context<'_>) -> Result {
    let name = named(context)?.to_owned();
    only_admin(context)?;
    if let Ok(roles) = context.body().get_array("roles") {
        only_root(roles)?;
    }
    let index = position(d, &name)?;
    let user = credentials(d, context, &name)?;
    if let Some(place) = d.users.get_mut(index) {
        *place = user;
    }
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn drop(d: &mut Deployment, context: &Context<'_>) -> Result {
    let name = named(context)?.to_owned();
    let index = if context.db() == "admin" {
        position(d, &name)?
    } else {
        return Err(not_found(&name, context.db()));
    };
    d.users.remove(index);
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn drop_all(d: &mut Deployment, context: &Context<'_>) -> Result {
    let gone = if context.db() == "admin" {
        std::mem::take(&mut d.users).len()
    } else {
        0
    };
    let n = i32::try_from(gone).unwrap_or(i32::MAX);
    Ok(Answer::Reply(Reply::fields(&doc! { "n": n })))
}

pub(super) fn info(d: &mut Deployment, context: &Context<'_>) -> Result {
    let wanted = Wanted::parse(context.body().get("usersInfo"), context.db())?;
    let users: Vec<Document> = d
        .users
        .iter()
        .filter(|user| wanted.has(&user.name))
        .map(|user| {
            let mechanisms: Vec<&str> = user.mechanisms().into_iter().map(Mechanism::name).collect();
            doc! {
                "_id": format!("admin.{}", user.name),
                "user": &user.name,
                "db": "admin",
                "roles": [{ "role": "root", "db": "admin" }],
                "mechanisms": mechanisms,
            }
        })
        .collect();
    Ok(Answer::Reply(Reply::fields(&doc! { "users": users })))
}

/// Whom usersInfo asks for.
enum Wanted {
    /// All users of the database admin.
    All,
    /// Those, if they are of the database admin.
    Named(Vec<String>),
}

impl Wanted {
    fn parse(given: Option<&Bson>, db: &str) -> Result<Self> {
        let one = |given: &Bson| {
            if let Bson::String(name) = given {
                return Ok((name.clone(), db.to_owned()));
            }
            let user = given.as_document();
            let user = user.and_then(|user| Some((user.get_str("user").ok()?, user.get_str("db").ok()?)));
            user.map(|(name, db)| (name.to_owned(), db.to_owned()))
                .ok_or_else(|| {
                    CommandError::bad_value(
                        "User and role names must be either strings or objects of 'user' and 'db'",
                    )
                })
        };
        let named = match given {
            Some(Bson::Int32(1) | Bson::Int64(1)) if db == "admin" => return Ok(Self::All),
            Some(Bson::Double(n)) if (*n - 1.0).abs() < f64::EPSILON && db == "admin" => {
                return Ok(Self::All);
            }
            Some(Bson::Int32(1) | Bson::Int64(1) | Bson::Double(_)) => Vec::new(),
            Some(Bson::Document(all)) if documents::flag(all, "forAllDBs") => return Ok(Self::All),
            Some(Bson::Array(items)) => items.iter().map(one).collect::<Result<_>>()?,
            Some(other) => vec![one(other)?],
            None => Vec::new(),
        };
        let of_admin = named.into_iter().filter(|(_, db)| db == "admin");
        Ok(Self::Named(of_admin.map(|(name, _)| name).collect()))
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|wanted| wanted == name),
        }
    }
}

fn credentials(d: &mut Deployment, context: &Context<'_>, name: &str) -> Result<Credentials> {
    let body = context.body();
    let password = body
        .get_str("pwd")
        .map_err(|_| CommandError::bad_value("the simulated server needs the field 'pwd', a string"))?;
    if password.is_empty() {
        return Err(CommandError::new(50687, "Password cannot be empty"));
    }
    let mechanisms = match body.get("mechanisms") {
        None => vec![Mechanism::ScramSha1, Mechanism::ScramSha256],
        Some(Bson::Array(names)) => names
            .iter()
            .map(|name| match name.as_str() {
                Some("SCRAM-SHA-1") => Ok(Mechanism::ScramSha1),
                Some("SCRAM-SHA-256") => Ok(Mechanism::ScramSha256),
                _ => Err(CommandError::bad_value(format!(
                    "Unknown auth mechanism '{name}'"
                ))),
            })
            .collect::<Result<_>>()?,
        Some(_) => {
            return Err(CommandError::type_mismatch(
                "the field 'mechanisms' must be an array",
            ));
        }
    };
    Credentials::new(name, password, &mechanisms, &mut d.random)
        .ok_or_else(|| CommandError::bad_value("Error preflighting UTF-8 conversion of the password"))
}

fn named<'a>(context: &Context<'a>) -> Result<&'a str> {
    let name = context.body().get_str(context.request.name());
    name.ok()
        .filter(|name| !name.is_empty())
        .ok_or_else(|| CommandError::bad_value("User document needs 'user' field to be non-empty"))
}

fn only_admin(context: &Context<'_>) -> Result<()> {
    if context.db() == "admin" {
        return Ok(());
    }
    Err(CommandError::command_not_supported(
        "the simulated server has users of the database admin only",
    ))
}

/// There are no others: nothing here asks what a user may do.
fn only_root(roles: &[Bson]) -> Result<()> {
    let root = |role: &Bson| {
        let Bson::Document(role) = role else {
            return role.as_str() == Some("root");
        };
        role.get_str("role").is_ok_and(|name| name == "root")
            && role.get_str("db").is_ok_and(|db| db == "admin")
    };
    if roles.iter().any(root) {
        return Ok(());
    }
    Err(CommandError::command_not_supported(
        "the simulated server has users of the role root only",
    ))
}

fn position(d: &Deployment, name: &str) -> Result<usize> {
    let found = d.users.iter().position(|user| user.name == name);
    found.ok_or_else(|| not_found(name, "admin"))
}

fn not_found(name: &str, db: &str) -> CommandError {
    CommandError::new(11, format!("User '{name}@{db}' not found"))
}
