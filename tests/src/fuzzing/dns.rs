//! Replies of name servers.

use changestream_core::dns::{Answer, DnsFault, Question, RecordType};
use changestream_driver::dns::{Reply, decode};

/// Any message is an answer to one question at most, and what it answers are records that it holds.
///
/// The first byte chooses the question's kind; the rest is the message, whose first two bytes are the question's number.
///
/// # Panics
/// It does not hold.
pub fn dns(data: &[u8]) {
    let Some((kind, message)) = data.split_first() else {
        return;
    };
    let record = if kind & 1 == 0 {
        RecordType::Srv
    } else {
        RecordType::Txt
    };
    let question = Question::new(record, NAME);
    let id = match message {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    };
    assert_eq!(
        decode(message, id.wrapping_add(1), &question),
        Reply::Foreign,
        "the number decides"
    );
    let reply = decode(message, id, &question);
    match &reply {
        Reply::Records(Answer::Srv(records)) => {
            assert_eq!(record, RecordType::Srv);
            // A record takes a name, type, class, time to live and length, and six bytes of its own and a name.
            assert!(!records.is_empty() && records.len() <= message.len() / 18);
            for record in records {
                assert!(record.target.len() <= 255 && record.target.is_ascii());
            }
        }
        Reply::Records(Answer::Txt(records)) => {
            assert_eq!(record, RecordType::Txt);
            assert!(!records.is_empty() && records.len() <= message.len() / 11);
            let len: usize = records.iter().map(|record| record.text.len()).sum();
            assert!(len <= message.len());
        }
        Reply::Alias { name, .. } => assert!(name.len() <= 255 && name.is_ascii()),
        Reply::Fault(fault) => assert!(!fault.to_string().is_empty()),
        Reply::Foreign | Reply::Truncated | Reply::NotUnderstood => {}
    }
    assert_eq!(decode(message, id, &question), reply);
    // What a message says does not change by what stands behind it, and no cut of it says something else.
    for len in 0..message.len().min(64) {
        let cut = decode(&message[..len], id, &question);
        let is_nothing = matches!(cut, Reply::Foreign | Reply::Fault(DnsFault::Malformed { .. }));
        assert!(is_nothing || cut == reply, "{cut:?} of {reply:?}");
    }
}

/// The name that the seeds are about.
const NAME: &str = "_mongodb._tcp.c.example.com";
