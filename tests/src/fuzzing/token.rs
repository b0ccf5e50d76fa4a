//! Resume tokens: the client's look into them, and the simulated server's own.

use bson::{Document, RawDocumentBuf, Timestamp, doc};
use changestream_core::ResumeToken;
use changestream_core::token::{TokenInfo, TokenKind};
use changestream_sim::token::{EncodedToken, ResumeTokenData, Subject, TokenType, TokenVersion};

use super::Choices;

/// Looking into any token never fails but by an error; what the simulated server writes it reads again, and the
/// client sees the same in it.
///
/// # Panics
/// It does not hold.
pub fn token(data: &[u8]) {
    inspect(data);
    decode(data);
    encode(&mut Choices::new(data));
}

fn inspect(data: &[u8]) {
    let hex: String = data.iter().map(|byte| format!("{byte:02X}")).collect();
    for text in [hex.as_str(), &String::from_utf8_lossy(data)] {
        let by_text = TokenInfo::from_hex(text);
        let token = ResumeToken::try_from(doc! { "_data": text }).expect("BSON");
        // Compared as shown: NaN is not equal to itself.
        assert_eq!(format!("{:?}", token.explain()), format!("{by_text:?}"));
        if let Ok(info) = by_text {
            assert_eq!(token.cluster_time(), Some(info.cluster_time));
        }
    }
    if let Ok(document) = RawDocumentBuf::from_bytes(data.to_vec()) {
        let token = ResumeToken::from(document);
        let _ = (token.explain(), token.cluster_time(), format!("{token:?}"));
        let _ = Document::try_from(token.as_document().expect("it is one"))
            .map(|d| ResumeTokenData::from_document(&d));
    }
}

/// The first byte says how many of the next are type bits, the rest is the key string.
fn decode(data: &[u8]) {
    let mut choices = Choices::new(data);
    let type_bits = choices.slice().to_vec();
    let type_bits = (!type_bits.is_empty()).then_some(type_bits);
    let data = choices.rest().iter().map(|byte| format!("{byte:02X}")).collect();
    let Ok(decoded) = (EncodedToken { data, type_bits }).decode() else {
        return;
    };
    let encoded = decoded.encode();
    let again = encoded.decode().expect("what was encoded decodes");
    // Compared as encoded: NaN is not equal to itself.
    assert_eq!(again.encode(), encoded, "{decoded:?}");
    agree(&decoded, &encoded);
}

fn encode(choices: &mut Choices<'_>) {
    const OPERATIONS: [&str; 5] = ["insert", "drop", "create", "invalidate", "other"];
    let version = choices.any(&[TokenVersion::V1, TokenVersion::V2]);
    let time = Timestamp {
        time: u32::from_le_bytes(choices.array()),
        increment: u32::from(choices.byte()),
    };
    let uuid = choices.flag().then(|| choices.array());
    let operation = choices.any(&OPERATIONS);
    let key = choices.document(&["_id", "k", "a.b", ""]);
    if format!("{key:?}").contains("Decimal128") {
        // Of decimals that are no double's the simulated server writes less than a server does.
        return;
    }
    let subject = match choices.below(3) {
        0 => Subject::DocumentKey(key),
        1 => Subject::OperationDescription(key),
        _ => Subject::Nothing,
    };
    let mut token = ResumeTokenData::event(version, time, uuid, operation, subject);
    token = token.in_transaction(u32::from(choices.byte()));
    if choices.flag() {
        token = token.invalidating();
    }
    let encoded = token.encode();
    let Ok(decoded) = encoded.decode() else {
        // A key of a kind that no key string holds, or a combination that no server makes.
        return;
    };
    assert_eq!(decoded.encode(), encoded, "{token:?}");
    agree(&token, &encoded);
}

/// The client's reading, which is another piece of code.
fn agree(data: &ResumeTokenData, encoded: &EncodedToken) {
    let info = TokenInfo::from_hex(&encoded.data).expect("it starts with a time");
    assert_eq!(info.cluster_time, data.cluster_time);
    assert_eq!(info.version, if data.version == TokenVersion::V1 { 1 } else { 2 });
    let kind = match data.token_type {
        TokenType::HighWaterMark => TokenKind::HighWaterMark,
        TokenType::Event => TokenKind::Event,
    };
    assert_eq!(info.kind, kind);
    assert_eq!(info.transaction_operation_index, i64::from(data.txn_op_index));
    assert_eq!(info.from_invalidate, data.from_invalidate);
    assert_eq!(info.collection_uuid.map(|uuid| uuid.bytes()), data.uuid);
}
