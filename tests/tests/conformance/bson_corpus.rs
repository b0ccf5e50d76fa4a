//! Documents as bytes, sent as the full document of an event: what is valid comes out as it went in, and what is not is
//! an error somewhere on the way, at the latest when it is decoded.

use bson::Document;
use changestream_core::WatchOptions;
use serde_json::Value;

use crate::by_hand::ByHand;

/// The cases of a file: those of `valid`, then those of `decodeErrors`. (`parseErrors` are about Extended JSON.)
pub(crate) fn descriptions(content: &Value) -> Vec<String> {
    let of = |kind: &str| -> Vec<String> {
        let cases = content[kind].as_array().into_iter().flatten();
        cases
            .map(|case| format!("{kind}: {}", case["description"].as_str().unwrap_or_default()))
            .collect()
    };
    [of("valid"), of("decodeErrors")].concat()
}

/// Runs the case at that position of [`descriptions`].
pub(crate) fn run(content: &Value, index: usize) -> Result<(), String> {
    let valid = content["valid"].as_array().map_or(0, Vec::len);
    if index < valid {
        return run_valid(&content["valid"][index]);
    }
    let bytes = bytes_of(&content["decodeErrors"][index - valid]["bson"])?;
    match through_a_stream(&bytes) {
        Err(_) => Ok(()),
        Ok(_) => Err("the malformed document is decoded".to_owned()),
    }
}

fn run_valid(case: &Value) -> Result<(), String> {
    for form in ["canonical_bson", "degenerate_bson", "converted_bson"] {
        if case[form].is_null() {
            continue;
        }
        let bytes = bytes_of(&case[form])?;
        let (raw, _) = through_a_stream(&bytes).map_err(|error| format!("{form}: {error}"))?;
        if raw != bytes {
            return Err(format!("{form}: comes out as {}", hex(&raw)));
        }
    }
    let canonical = bytes_of(&case["canonical_bson"])?;
    let (_, decoded) = through_a_stream(&canonical)?;
    if decoded != canonical {
        return Err(format!("is decoded to what is encoded as {}", hex(&decoded)));
    }
    Ok(())
}

/// The bytes that an event hands over of a full document of these bytes, and those of it decoded and encoded again.
fn through_a_stream(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let mut by_hand = ByHand::new(&WatchOptions::default()).map_err(|error| error.to_string())?;
    let event = by_hand.event(&reply(bytes)).map_err(|error| error.to_string())?;
    let raw = event
        .full_document()
        .present()
        .ok_or("the event has no full document")?
        .as_bytes()
        .to_vec();
    let _whole: Document = event.decode().map_err(|error| error.to_string())?;
    let decoded: Option<Document> = event.full_document_as().map_err(|error| error.to_string())?;
    let decoded = decoded.ok_or("the event has no full document when it is decoded")?;
    Ok((raw, decoded.to_vec().map_err(|error| error.to_string())?))
}

/// A reply with one event whose full document has these bytes, whatever they are.
fn reply(full_document: &[u8]) -> Vec<u8> {
    const DOCUMENT: u8 = 3;
    const ARRAY: u8 = 4;
    let token = bson::doc! { "_data": "82" }.to_vec().unwrap();
    let event = document(&[
        element(DOCUMENT, "_id", &token),
        element(DOCUMENT, "fullDocument", full_document),
    ]);
    let batch = document(&[element(DOCUMENT, "0", &event)]);
    let namespace = [&12_i32.to_le_bytes()[..], b"shop.orders\0"].concat();
    let cursor = document(&[
        element(ARRAY, "firstBatch", &batch),
        element(0x12, "id", &1_i64.to_le_bytes()),
        element(0x02, "ns", &namespace),
    ]);
    document(&[
        element(DOCUMENT, "cursor", &cursor),
        element(0x01, "ok", &1_f64.to_le_bytes()),
    ])
}

fn element(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], value].concat()
}

fn document(elements: &[Vec<u8>]) -> Vec<u8> {
    let body = elements.concat();
    let len = i32::try_from(body.len() + 5).unwrap();
    [&len.to_le_bytes(), &body[..], &[0]].concat()
}

fn bytes_of(value: &Value) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or("no bytes")?;
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|error| error.to_string()))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
