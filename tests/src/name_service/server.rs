//! The name server: a thread for datagrams, one for connections.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use simple_dns::rdata::{CNAME, RData, SRV, TXT};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use super::{Habit, Record, Zone};

/// A name server on the loopback. Ends when it is dropped.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    zone: Mutex<Zone>,
    asked: Mutex<Vec<String>>,
    ended: AtomicBool,
}

impl NameServer {
    /// Serves these records, over UDP and TCP on one port of the system's choice.
    ///
    /// # Panics
    /// The system has no such port.
    pub fn start(zone: Zone) -> Self {
        let (udp, tcp) = (0..100).find_map(|_| sockets().ok()).expect("a port for both");
        let address = udp.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            zone: Mutex::new(zone),
            asked: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let (of_udp, of_tcp) = (shared.clone(), shared.clone());
        thread::spawn(move || of_udp.serve_datagrams(&udp));
        thread::spawn(move || of_tcp.serve_connections(&tcp));
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked, such as `udp SRV _mongodb._tcp.host`.
    pub fn asked(&self) -> Vec<String> {
        locked(&self.shared.asked).clone()
    }

    /// Serves other records from now on.
    pub fn serve(&self, zone: Zone) {
        *locked(&self.shared.zone) = zone;
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Each thread waits for something to come in.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(&[], self.address);
        }
        let _ = TcpStream::connect(self.address);
    }
}

fn sockets() -> io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let tcp = TcpListener::bind(udp.local_addr()?)?;
    Ok((udp, tcp))
}

impl Shared {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn serve_datagrams(&self, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            if self.has_ended() {
                return;
            }
            for answer in self.answers(buffer.get(..len).unwrap_or_default(), true) {
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    fn serve_connections(&self, listener: &TcpListener) {
        while let Ok((mut connection, _)) = listener.accept() {
            if self.has_ended() {
                return;
            }
            // Who asks is done with one answer.
            let _ = self.serve(&mut connection);
        }
    }

    fn serve(&self, connection: &mut TcpStream) -> io::Result<()> {
        let mut len = [0; 2];
        connection.read_exact(&mut len)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
        connection.read_exact(&mut query)?;
        for answer in self.answers(&query, false) {
            let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
            // In two pieces, as networks do.
            connection.write_all(&len.to_be_bytes())?;
            connection.write_all(&answer)?;
        }
        Ok(())
    }

    fn answers(&self, query: &[u8], is_udp: bool) -> Vec<Vec<u8>> {
        let Ok(query) = Packet::parse(query) else {
            return Vec::new();
        };
        let [question] = query.questions.as_slice() else {
            return Vec::new();
        };
        let name = question.qname.to_string();
        let protocol = if is_udp { "udp" } else { "tcp" };
        let asks_for_servers = question.qtype == QTYPE::TYPE(TYPE::SRV);
        let kind = if asks_for_servers { "SRV" } else { "TXT" };
        locked(&self.asked).push(format!("{protocol} {kind} {name}"));
        let zone = locked(&self.zone);
        let habit = zone.habit_of(&name);
        let reply = |rcode, flags, with_records| build(&query, &zone, &name, rcode, flags, with_records);
        let full = || reply(RCODE::NoError, PacketFlag::empty(), habit != Habit::DoesNotFollow);
        match habit {
            Habit::Silent => Vec::new(),
            Habit::Truncates if is_udp => vec![reply(RCODE::NoError, PacketFlag::TRUNCATION, false)],
            Habit::Fails => vec![reply(RCODE::ServerFailure, PacketFlag::empty(), false)],
            Habit::IsOld if query.opt().is_some() => {
                vec![reply(RCODE::FormatError, PacketFlag::empty(), false)]
            }
            Habit::Mangles => {
                let mut bytes = full();
                bytes.truncate(bytes.len() - 3);
                vec![bytes]
            }
            Habit::IsSpoofed => {
                let mut wrong_number = full();
                if let Some(byte) = wrong_number.get_mut(1) {
                    *byte ^= 1;
                }
                let mut other_question = full();
                if let Some(byte) = other_question.get_mut(14) {
                    *byte ^= 1;
                }
                let mut question = full();
                if let Some(byte) = question.get_mut(2) {
                    *byte &= 0x7f;
                }
                vec![
                    Vec::new(),
                    vec![0; 5],
                    wrong_number,
                    other_question,
                    question,
                    full(),
                ]
            }
            Habit::Truncates | Habit::IsOld | Habit::Answers | Habit::DoesNotFollow => vec![full()],
        }
    }
}

/// A reply with the question, and the records of the name, if they are wanted; aliases always.
fn build(
    query: &Packet<'_>,
    zone: &Zone,
    asked: &str,
    rcode: RCODE,
    flags: PacketFlag,
    with_records: bool,
) -> Vec<u8> {
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(flags | PacketFlag::RECURSION_AVAILABLE);
    reply.questions.clone_from(&query.questions);
    *reply.rcode_mut() = rcode;
    let mut name = asked;
    if rcode == RCODE::NoError && !flags.contains(PacketFlag::TRUNCATION) {
        while let Some((target, ttl)) = zone.alias_of(name) {
            let alias = RData::CNAME(CNAME(Name::new_unchecked(target)));
            let owner = Name::new_unchecked(name);
            reply
                .answers
                .push(ResourceRecord::new(owner, CLASS::IN, ttl, alias));
            name = target;
            if !with_records {
                break;
            }
        }
        if !zone.exists(name) && reply.answers.is_empty() {
            *reply.rcode_mut() = RCODE::NameError;
        }
        let follows = with_records || reply.answers.is_empty();
        for record in zone.records.get(name).into_iter().flatten().filter(|_| follows) {
            let wanted = query.questions.first().map(|question| question.qtype);
            if let Some((ttl, rdata)) = rdata(record)
                && wanted == Some(QTYPE::TYPE(rdata.type_code()))
            {
                let owner = Name::new_unchecked(name);
                reply
                    .answers
                    .push(ResourceRecord::new(owner, CLASS::IN, ttl, rdata));
            }
        }
    }
    reply.build_bytes_vec_compressed().expect("the records fit")
}

fn rdata(record: &Record) -> Option<(u32, RData<'_>)> {
    match record {
        Record::Srv { target, port, ttl } => {
            let srv = SRV {
                priority: 0,
                weight: 0,
                port: *port,
                target: Name::new_unchecked(target),
            };
            Some((*ttl, RData::SRV(srv)))
        }
        Record::Txt { strings } => {
            let mut txt = TXT::new();
            for string in strings {
                txt.add_string(string).expect("a string of 255 bytes at most");
            }
            Some((86400, RData::TXT(txt)))
        }
        Record::Alias { .. } => None,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
