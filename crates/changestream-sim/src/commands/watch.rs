//! aggregate with `$changeStream`.

use bson::{Bson, Document, Timestamp};

use super::{Answer, Context, Result, cursor, documents};
use crate::change_event::{EventOptions, Image, Scope};
use crate::change_stream::{ChangeStream, Continues, Start};
use crate::cursors::{Batch, DEFAULT_FIRST_BATCH, Kind};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::member::Role;
use crate::query::pipeline::Pipeline;
use crate::query::show;
use crate::sharding::MergedStream;
use crate::token::{EncodedToken, ResumeTokenData};
use crate::transactions;

pub(super) fn open(
    d: &mut Deployment,
    context: &Context<'_>,
    stages: &[Document],
    batch_size: Option<u64>,
) -> Result {
    let (first, rest) = stages
        .split_first()
        .ok_or_else(|| CommandError::failed_to_parse("no stage"))?;
    let Some(Bson::Document(spec)) = first.get("$changeStream") else {
        return Err(CommandError::new(
            50808,
            "$changeStream stage expects a document as argument.",
        ));
    };
    refuse_elsewhere(d, context)?;
    let scope = scope(context, spec)?;
    let options = options(d, spec, scope)?;
    let start = start(d, context, spec)?;
    let pipeline = Pipeline::parse_change_stream(rest)?;
    if pipeline.splits_large_events() && !d.profile.split_large_event {
        return Err(CommandError::new(
            40324,
            "Unrecognized pipeline stage name: '$changeStreamSplitLargeEvent'",
        ));
    }
    if d.cluster.is_some() {
        return open_merged(d, context, &options, &pipeline, &start);
    }
    let mut stream = ChangeStream::new(options, pipeline, start, &d.profile);
    let limit = batch_size.unwrap_or(DEFAULT_FIRST_BATCH);
    let mut batch = Batch::first(Some(limit));
    let mut continues = Continues::Yes;
    if let (Some(m), true) = (d.members.get(context.member), limit > 0) {
        continues = stream.fill(m, &d.profile, &mut batch)?;
    }
    let namespace = namespace(context);
    let token = stream.token().clone();
    let id = match continues {
        Continues::Yes => cursor::open(d, context, &namespace, Kind::ChangeStream(Box::new(stream))),
        Continues::No => 0,
    };
    let told = Some(token.as_ref()).filter(|_| d.profile.post_batch_token);
    Ok(Answer::MajorityRead(batch.reply(told, id, &namespace)))
}

/// The same on a mongos. It only opens the shards' cursors: the first batch is empty, and errors of reading come with
/// the first getMore.
fn open_merged(
    d: &mut Deployment,
    context: &Context<'_>,
    options: &EventOptions,
    pipeline: &Pipeline,
    start: &Start,
) -> Result {
    let namespace = namespace(context);
    let secondary = super::allows_secondary(context.body());
    let Deployment {
        cluster,
        random,
        profile,
        ..
    } = d;
    let Some(cluster) = cluster else {
        return Err(CommandError::illegal_operation("not a mongos"));
    };
    let merged = MergedStream::open(
        cluster,
        context.member,
        context.now,
        start,
        secondary,
        |start| ChangeStream::new(options.clone(), pipeline.clone(), start, profile),
        || i64::try_from(random.next_u64() >> 1).unwrap_or(1).max(1),
    )?;
    let token = merged.token().clone();
    let id = cursor::open(d, context, &namespace, Kind::Merged(Box::new(merged)));
    let batch = Batch::first(Some(0));
    let told = Some(&token).filter(|_| d.profile.post_batch_token);
    Ok(Answer::MajorityRead(batch.reply(told, id, &namespace)))
}

fn refuse_elsewhere(d: &Deployment, context: &Context<'_>) -> Result<()> {
    if d.members
        .get(context.member)
        .is_some_and(|m| m.role == Role::Standalone)
    {
        return Err(CommandError::new(
            40573,
            "The $changeStream stage is only supported on replica sets",
        ));
    }
    if transactions::is_member(context) {
        return Err(CommandError::new(
            263,
            "Operation not permitted in transaction :: caused by :: Aggregation stage $changeStream cannot run \
             within a multi-document transaction",
        ));
    }
    let concern = documents::document(context.body(), "readConcern")?;
    match concern.get_str("level") {
        Ok(level) if level != "majority" => Err(CommandError::invalid_options(format!(
            "Aggregation stage $changeStream cannot run with a readConcern other than 'majority'. Current \
             readConcern: {}",
            show::spaced(&concern)
        ))),
        _ => Ok(()),
    }
}

fn scope(context: &Context<'_>, spec: &Document) -> Result<Scope> {
    let db = context.db().to_owned();
    let coll = match context.body().get("aggregate") {
        Some(Bson::String(_)) => Some(documents::collection(context)?.to_owned()),
        _ => None,
    };
    if documents::flag(spec, "allChangesForCluster") {
        if db == "admin" && coll.is_none() {
            return Ok(Scope::Cluster);
        }
        return Err(CommandError::invalid_options(format!(
            "A $changeStream with 'allChangesForCluster:true' may only be opened on the 'admin' database, and with \
             no collection name; found {}",
            namespace(context)
        )));
    }
    if matches!(db.as_str(), "admin" | "config" | "local") {
        return Err(CommandError::invalid_namespace(format!(
            "$changeStream may not be opened on the internal {db} database"
        )));
    }
    match coll {
        None => Ok(Scope::Database(db)),
        Some(coll) if coll.starts_with("system.") => Err(CommandError::invalid_namespace(format!(
            "$changeStream may not be opened on the internal {db}.{coll} collection"
        ))),
        Some(coll) => Ok(Scope::Collection(db, coll)),
    }
}

fn options(d: &Deployment, spec: &Document, scope: Scope) -> Result<EventOptions> {
    const KNOWN: [&str; 8] = [
        "resumeAfter",
        "startAfter",
        "startAtOperationTime",
        "fullDocument",
        "allChangesForCluster",
        "allowToRunOnConfigDB",
        "fullDocumentBeforeChange",
        "showExpandedEvents",
    ];
    let known = if d.profile.images {
        &KNOWN[..]
    } else {
        KNOWN.get(..6).unwrap_or_default()
    };
    let knows = |key: &str| known.contains(&key) && (key != "startAfter" || d.profile.start_after);
    if let Some(unknown) = spec.keys().find(|key| !knows(key)) {
        return Err(CommandError::new(
            40415,
            format!("BSON field '$changeStream.{unknown}' is an unknown field."),
        ));
    }
    Ok(EventOptions {
        scope,
        full_document: image(
            d,
            spec,
            "fullDocument",
            &["default", "updateLookup", "whenAvailable", "required"],
        )?,
        before_change: image(
            d,
            spec,
            "fullDocumentBeforeChange",
            &["off", "whenAvailable", "required"],
        )?,
        expanded: documents::flag(spec, "showExpandedEvents"),
        largest: d.config.largest_event,
    })
}

fn image(d: &Deployment, spec: &Document, field: &str, legal: &[&str]) -> Result<Image> {
    let value = match spec.get(field) {
        None => return Ok(Image::Default),
        Some(Bson::String(value)) => value.as_str(),
        Some(other) => {
            return Err(CommandError::type_mismatch(format!(
                "BSON field '$changeStream.{field}' is the wrong type '{}', expected type 'string'",
                documents::type_name(other)
            )));
        }
    };
    let old = !d.profile.images;
    match value {
        "updateLookup" if legal.contains(&value) => Ok(Image::UpdateLookup),
        "whenAvailable" if !old => Ok(Image::WhenAvailable),
        "required" if !old => Ok(Image::Required),
        "default" | "off" if legal.contains(&value) => Ok(Image::Default),
        _ if !d.profile.enumerated_full_document => Err(CommandError::new(
            40575,
            format!(
                "unrecognized value for the 'fullDocument' option to the $changeStream stage. Expected \"default\" or \
                 \"updateLookup\", got \"{value}\""
            ),
        )),
        _ => Err(CommandError::bad_value(format!(
            "Enumeration value '{value}' for field '$changeStream.{field}' is not a valid value."
        ))),
    }
}

fn start(d: &Deployment, context: &Context<'_>, spec: &Document) -> Result<Start> {
    let (resume, after, at) = (
        spec.get("resumeAfter"),
        spec.get("startAfter"),
        spec.get("startAtOperationTime"),
    );
    if resume.is_some() && after.is_some() {
        return Err(CommandError::new(
            50865,
            "Do not specify both 'resumeAfter' and 'startAfter' in a $changeStream stage",
        ));
    }
    let token = resume.or(after);
    if token.is_some() && at.is_some() {
        return Err(CommandError::new(
            40674,
            "Only one type of resume option is allowed, but multiple were found.",
        ));
    }
    match (token, at) {
        (Some(Bson::Document(token)), _) => after_token(token, resume.is_some()),
        (Some(other), _) => Err(CommandError::type_mismatch(format!(
            "BSON field '$changeStream.resumeAfter' is the wrong type '{}', expected type 'object'",
            documents::type_name(other)
        ))),
        (None, Some(Bson::Timestamp(ts))) => Ok(Start::At(*ts)),
        (None, Some(other)) => Err(CommandError::type_mismatch(format!(
            "BSON field '$changeStream.startAtOperationTime' is the wrong type '{}', expected type 'timestamp'",
            documents::type_name(other)
        ))),
        (None, None) => {
            let m = d.members.get(context.member);
            let last = m.map(|m| {
                if m.role == Role::Mongos {
                    m.cluster_time
                } else {
                    m.commit_ts()
                }
            });
            let last = last.unwrap_or(Timestamp {
                time: 0,
                increment: 0,
            });
            Ok(Start::At(Timestamp {
                time: last.time,
                increment: last.increment.saturating_add(1),
            }))
        }
    }
}

fn after_token(token: &Document, resume_after: bool) -> Result<Start> {
    let encoded = EncodedToken::from_document(token)?;
    let data: ResumeTokenData = encoded.decode()?;
    if data.from_invalidate && resume_after {
        return Err(CommandError::invalid_resume_token(
            "Attempting to resume a change stream using 'resumeAfter' is not allowed from an invalidate notification.",
        ));
    }
    Ok(Start::After {
        token: encoded,
        ts: data.cluster_time,
        is_event: !data.is_high_water_mark(),
    })
}

fn namespace(context: &Context<'_>) -> String {
    match context.body().get_str("aggregate") {
        Ok(coll) => format!("{}.{coll}", context.db()),
        Err(_) => format!("{}.$cmd.aggregate", context.db()),
    }
}
