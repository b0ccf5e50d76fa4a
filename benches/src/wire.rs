//! As much of the wire protocol as a server and a bare loop need, by hand: what is measured must not measure itself.

use bson::RawDocument;

/// Length, requestID, responseTo, opCode.
pub const HEADER: usize = 16;
/// OP_MSG's opCode.
pub const OP_MSG: i32 = 2013;
/// OP_COMPRESSED's opCode.
pub const OP_COMPRESSED: i32 = 2012;
/// OP_QUERY's opCode, of the legacy hello.
pub const OP_QUERY: i32 = 2004;
/// Where the document of an OP_MSG starts: after flags and the section's kind.
pub const BODY: usize = HEADER + 4 + 1;

/// The little-endian number at that place; 0 where there is none.
#[inline]
pub fn int(bytes: &[u8], at: usize) -> i32 {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// A length at that place; 0 where there is none or it is negative.
#[inline]
pub fn len(bytes: &[u8], at: usize) -> usize {
    usize::try_from(int(bytes, at)).unwrap_or(0)
}

/// An OP_MSG with this document.
pub fn op_msg(request_id: i32, response_to: i32, body: &RawDocument) -> Vec<u8> {
    let mut out = Vec::with_capacity(BODY + body.as_bytes().len());
    out.extend(fit(BODY + body.as_bytes().len()).to_le_bytes());
    out.extend(request_id.to_le_bytes());
    out.extend(response_to.to_le_bytes());
    out.extend(OP_MSG.to_le_bytes());
    out.extend([0; 5]);
    out.extend(body.as_bytes());
    out
}

/// An OP_REPLY with this document.
pub fn op_reply(response_to: i32, body: &RawDocument) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(fit(HEADER + 20 + body.as_bytes().len()).to_le_bytes());
    out.extend(0_i32.to_le_bytes());
    out.extend(response_to.to_le_bytes());
    out.extend(1_i32.to_le_bytes());
    out.extend([0; 16]);
    out.extend(1_i32.to_le_bytes());
    out.extend(body.as_bytes());
    out
}

fn fit(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}
