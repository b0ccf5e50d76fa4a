//! Writes documents, numbered within each collection, until a majority has each.

use std::thread;
use std::time::Duration;

use bson::{Bson, Document, doc};
use changestream_blocking::{Client, Database};
use changestream_sim::RunningDeployment;

use crate::progress::Progress;
use crate::settings::{DATABASE, Settings};

/// Writes until it is stopped. How many documents each collection has.
pub(crate) fn write(
    deployment: &RunningDeployment,
    settings: &Settings,
    progress: &Progress,
) -> Result<Vec<u64>, String> {
    let client = Client::new(deployment.uri()).map_err(|error| error.to_string())?;
    let database = client.database(DATABASE);
    let mut counts = vec![0; settings.collections()];
    let mut random = settings.random();
    let most = 2 * settings.rate as usize / PER_SECOND;
    while progress.goes_on_after(Duration::from_secs(1) / PER_SECOND as u32) {
        let collection = random.below(counts.len());
        let documents = 1 + random.below(most.max(1)) as u64;
        let first = counts[collection];
        insert(
            &database,
            &Settings::collection(collection),
            first..first + documents,
        )?;
        counts[collection] += documents;
        progress.wrote(documents);
    }
    Ok(counts)
}

/// Repeats what an election leaves open: the `_id` keeps a document from being there twice.
fn insert(database: &Database, collection: &str, ids: std::ops::Range<u64>) -> Result<(), String> {
    let documents: Vec<Bson> = ids
        .map(|id| doc! { "_id": id as i64, "pad": PAD }.into())
        .collect();
    let command = doc! {
        "insert": collection,
        "documents": &documents,
        "ordered": false,
        "writeConcern": { "w": "majority" },
    };
    for _ in 0..MOST_ATTEMPTS {
        // What fails as a whole is tried again like what is left open.
        let reply = database.run_command(command.clone());
        if reply.is_ok_and(|reply| is_done(&reply, documents.len())) {
            return Ok(());
        }
        thread::sleep(RETRY);
    }
    Err(format!("the writer gave up after {MOST_ATTEMPTS} attempts"))
}

fn is_done(reply: &Document, documents: usize) -> bool {
    let written = reply.get_i32("n").ok().and_then(|n| usize::try_from(n).ok());
    let errors = reply
        .get_array("writeErrors")
        .map(Vec::as_slice)
        .unwrap_or_default();
    let duplicates = errors.iter().filter(|error| {
        error.as_document().and_then(|error| error.get_i32("code").ok()) == Some(DUPLICATE_KEY)
    });
    !reply.contains_key("writeConcernError")
        && written.is_some_and(|written| written + duplicates.count() == documents)
}

const PER_SECOND: usize = 4;
const PAD: &str =
    "so that a document is not much smaller than those that people have; about a hundred bytes will do";
const RETRY: Duration = Duration::from_millis(50);
/// Half a minute of the shortest attempts.
const MOST_ATTEMPTS: usize = 600;
/// `DuplicateKey` of MongoDB's error codes.
const DUPLICATE_KEY: i32 = 11000;
