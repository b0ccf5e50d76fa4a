//! DNS messages: a question as bytes, bytes as an answer.

use std::time::Duration;

use changestream_core::dns::{Answer, DnsFault, Question, RecordType, SrvRecord, TxtRecord};
use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};

/// The question as a message.
pub(super) fn encode(id: u16, question: &Question, edns: bool) -> Result<Vec<u8>, DnsFault> {
    let unfit = |_| DnsFault::malformed("the name is too long to be asked for");
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(&question.name).map_err(unfit)?;
    packet.questions.push(simple_dns::Question::new(
        name,
        QTYPE::TYPE(type_of(question.record)),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    if edns {
        *packet.opt_mut() = Some(OPT {
            opt_codes: Vec::new(),
            udp_packet_size: UDP_SIZE,
            version: 0,
        });
    }
    packet.build_bytes_vec().map_err(unfit)
}

/// What a message is for who asked that question.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: it answers another question, or none.
    Foreign,
    /// It did not fit: ask over TCP.
    Truncated,
    /// The server did not understand the question. One that knows no EDNS says so.
    NotUnderstood,
    /// The name is another one's alias, which the server did not follow.
    Alias {
        /// The other one.
        name: String,
        /// How long that holds.
        time_to_live: Duration,
    },
    /// The records.
    Records(Answer),
    /// There are none.
    Fault(DnsFault),
}

/// Reads the message, which came where the answer to that question of that number is awaited.
pub fn decode(bytes: &[u8], id: u16, question: &Question) -> Reply {
    if !is_for(bytes, id) {
        return Reply::Foreign;
    }
    if counts_too_much(bytes) {
        return malformed("it counts more records than it can hold");
    }
    let packet = match Packet::parse(bytes) {
        Ok(packet) => packet,
        Err(error) => return malformed(&error.to_string()),
    };
    let Ok(name) = Name::new(&question.name) else {
        return Reply::Foreign;
    };
    match packet.questions.as_slice() {
        [asked] if asked.qname == name && asked.qtype == QTYPE::TYPE(type_of(question.record)) => {}
        // A server that could not read the question need not repeat it.
        [] if packet.rcode() != RCODE::NoError => {}
        [_] | [] | [_, _, ..] => return Reply::Foreign,
    }
    match packet.rcode() {
        RCODE::FormatError | RCODE::NotImplemented | RCODE::BADVERS => Reply::NotUnderstood,
        RCODE::NameError => Reply::Fault(DnsFault::NoSuchName),
        RCODE::NoError if packet.has_flags(PacketFlag::TRUNCATION) => Reply::Truncated,
        RCODE::NoError => records(&packet.answers, name, question),
        RCODE::ServerFailure => Reply::Fault(DnsFault::refused("SERVFAIL")),
        RCODE::Refused => Reply::Fault(DnsFault::refused("REFUSED")),
        code @ (RCODE::YXDOMAIN
        | RCODE::YXRRSET
        | RCODE::NXRRSET
        | RCODE::NOTAUTH
        | RCODE::NOTZONE
        | RCODE::Reserved) => Reply::Fault(DnsFault::refused(format!("{code:?}"))),
    }
}

/// The records of the name, or of what it is an alias of.
fn records<'a>(answers: &'a [ResourceRecord<'a>], mut name: Name<'a>, question: &Question) -> Reply {
    let mut limit = u32::MAX;
    let mut followed = 0;
    while let Some((target, ttl)) = alias_of(answers, &name) {
        followed += 1;
        if followed > MAX_ALIASES {
            return malformed("a chain of aliases has no end");
        }
        limit = limit.min(ttl);
        name = target;
    }
    let found = answers.iter().filter(|record| {
        record.class == CLASS::IN
            && record.name == name
            && record.rdata.type_code() == type_of(question.record)
    });
    let answer = match question.record {
        RecordType::Srv => found
            .filter_map(|record| srv_record(record, limit).transpose())
            .collect::<Result<Vec<_>, _>>()
            .map(|records| (records.is_empty(), Answer::Srv(records))),
        RecordType::Txt => found
            .filter_map(|record| txt_record(record).transpose())
            .collect::<Result<Vec<_>, _>>()
            .map(|records| (records.is_empty(), Answer::Txt(records))),
    };
    match answer {
        Err(message) => malformed(message),
        Ok((false, answer)) => Reply::Records(answer),
        Ok((true, _)) if followed == 0 => Reply::Fault(DnsFault::NoRecords),
        Ok((true, _)) => match text_of(&name) {
            Ok(name) => Reply::Alias {
                name,
                time_to_live: Duration::from_secs(u64::from(limit)),
            },
            Err(message) => malformed(message),
        },
    }
}

fn alias_of<'a>(answers: &'a [ResourceRecord<'a>], name: &Name<'_>) -> Option<(Name<'a>, u32)> {
    answers.iter().find_map(|record| {
        let RData::CNAME(alias) = &record.rdata else {
            return None;
        };
        let is_its = record.class == CLASS::IN && record.name == *name;
        is_its.then(|| (alias.0.clone(), time_to_live(record)))
    })
}

fn srv_record(record: &ResourceRecord<'_>, limit: u32) -> Result<Option<SrvRecord>, &'static str> {
    let RData::SRV(srv) = &record.rdata else {
        return Ok(None);
    };
    Ok(Some(SrvRecord {
        target: text_of(&srv.target)?,
        port: srv.port,
        time_to_live: Duration::from_secs(u64::from(time_to_live(record).min(limit))),
    }))
}

fn txt_record(record: &ResourceRecord<'_>) -> Result<Option<TxtRecord>, &'static str> {
    let RData::TXT(txt) = &record.rdata else {
        return Ok(None);
    };
    let text = String::try_from(txt.clone()).map_err(|_| "a TXT record is not UTF-8")?;
    Ok(Some(TxtRecord { text }))
}

/// A name as text. One with other characters than names of hosts have is not worth an escape: nobody connects there.
fn text_of(name: &Name<'_>) -> Result<String, &'static str> {
    let mut text = String::new();
    for label in name.as_bytes() {
        if !text.is_empty() {
            text.push('.');
        }
        let unfit = "a name holds what no host name does";
        if !label.iter().all(|b| b.is_ascii_graphic() && !b".\\".contains(b)) {
            return Err(unfit);
        }
        text.push_str(std::str::from_utf8(label).map_err(|_| unfit)?);
    }
    Ok(text)
}

/// RFC 2181, section 8: one whose first bit is set is zero.
fn time_to_live(record: &ResourceRecord<'_>) -> u32 {
    if record.ttl > i32::MAX.unsigned_abs() {
        0
    } else {
        record.ttl
    }
}

/// Whether it is a response of that number (RFC 1035, section 4.1.1).
fn is_for(bytes: &[u8], id: u16) -> bool {
    match bytes {
        [high, low, flags, ..] => u16::from_be_bytes([*high, *low]) == id && flags & 0x80 != 0,
        _ => false,
    }
}

/// The library reserves memory for as many records as the header counts.
fn counts_too_much(bytes: &[u8]) -> bool {
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return false;
    };
    let counts = header.chunks_exact(2).skip(2);
    let count: usize = counts
        .filter_map(|count| <[u8; 2]>::try_from(count).ok())
        .map(|count| usize::from(u16::from_be_bytes(count)))
        .sum();
    count > body.len() / LEAST_ENTRY
}

fn type_of(record: RecordType) -> TYPE {
    match record {
        RecordType::Srv => TYPE::SRV,
        RecordType::Txt => TYPE::TXT,
    }
}

fn malformed(message: &str) -> Reply {
    Reply::Fault(DnsFault::malformed(message))
}

/// What no network has to split up (DNS Flag Day 2020).
const UDP_SIZE: u16 = 1232;

/// RFC 1035, section 4.1.1.
const HEADER: usize = 12;

/// A question of the root: a name of one octet, type and class.
const LEAST_ENTRY: usize = 5;

/// More than anyone has.
pub(super) const MAX_ALIASES: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use simple_dns::rdata::{CNAME, SRV};

    use super::*;

    const NAME: &str = "_mongodb._tcp.cluster.example.com";

    fn question() -> Question {
        Question::new(RecordType::Srv, NAME)
    }

    fn alias(from: &'static str, to: &'static str, ttl: u32) -> ResourceRecord<'static> {
        let alias = RData::CNAME(CNAME(Name::new_unchecked(to)));
        ResourceRecord::new(Name::new_unchecked(from), CLASS::IN, ttl, alias)
    }

    fn server(of: &'static str, ttl: u32) -> ResourceRecord<'static> {
        let srv = SRV {
            priority: 3,
            weight: 4,
            port: 27017,
            target: Name::new_unchecked("db.example.com"),
        };
        ResourceRecord::new(Name::new_unchecked(of), CLASS::IN, ttl, RData::SRV(srv))
    }

    /// What these records say in answer to the question, whose case the server has changed.
    fn decoded(answers: Vec<ResourceRecord<'_>>) -> Reply {
        let mut reply = Packet::new_reply(7);
        let name = Name::new_unchecked("_MongoDB._TCP.Cluster.Example.COM");
        let (kind, class) = (QTYPE::TYPE(TYPE::SRV), QCLASS::CLASS(CLASS::IN));
        reply
            .questions
            .push(simple_dns::Question::new(name, kind, class, false));
        reply.answers = answers;
        decode(&reply.build_bytes_vec_compressed().unwrap(), 7, &question())
    }

    fn holds_for(reply: &Reply) -> u64 {
        let Reply::Records(Answer::Srv(records)) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(records.len(), 1);
        assert_eq!(
            (records[0].target.as_str(), records[0].port),
            ("db.example.com", 27017)
        );
        records[0].time_to_live.as_secs()
    }

    #[test]
    fn a_question_asks_for_recursion_and_tells_what_fits() {
        let bytes = encode(0x1234, &question(), true).unwrap();
        assert_eq!(bytes[..6], [0x12, 0x34, 0x01, 0x00, 0, 1]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.opt().unwrap().udp_packet_size, UDP_SIZE);
        let without = encode(0x1234, &question(), false).unwrap();
        assert!(Packet::parse(&without).unwrap().opt().is_none());
        assert_eq!(decode(&bytes, 0x1234, &question()), Reply::Foreign, "no response");
        encode(1, &Question::new(RecordType::Srv, "a".repeat(64)), true).unwrap_err();
    }

    #[test]
    fn names_compare_without_case_and_records_of_others_do_not_count() {
        let answers = vec![
            server("other.example.com", 9),
            server("_mongodb._tcp.CLUSTER.example.com", 60),
        ];
        assert_eq!(holds_for(&decoded(answers)), 60);
        let fault = decoded(vec![server("other.example.com", 9)]);
        assert_eq!(fault, Reply::Fault(DnsFault::NoRecords));
    }

    #[test]
    fn a_record_holds_no_longer_than_the_aliases_that_lead_to_it() {
        let chain = vec![
            server("b.example", 60),
            alias("a.example", "b.example", 30),
            alias(NAME, "a.example", 90),
        ];
        assert_eq!(holds_for(&decoded(chain)), 30);
        let open = decoded(vec![
            alias(NAME, "a.example", 90),
            alias("a.example", "b.example", 30),
        ]);
        let Reply::Alias { name, time_to_live } = open else {
            panic!("{open:?}")
        };
        assert_eq!((name.as_str(), time_to_live.as_secs()), ("b.example", 30));
    }

    #[test]
    fn a_time_to_live_with_its_first_bit_set_is_zero() {
        assert_eq!(holds_for(&decoded(vec![server(NAME, 1 << 31)])), 0);
        assert_eq!(
            holds_for(&decoded(vec![server(NAME, i32::MAX.unsigned_abs())])),
            u64::from(u32::MAX / 2)
        );
    }

    #[test]
    fn a_circle_of_aliases_is_malformed() {
        let circle = decoded(vec![alias(NAME, "a.example", 1), alias("a.example", NAME, 1)]);
        assert!(
            matches!(circle, Reply::Fault(DnsFault::Malformed { .. })),
            "{circle:?}"
        );
    }
}
