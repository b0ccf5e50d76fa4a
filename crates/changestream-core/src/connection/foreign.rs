//! Peers that speak another protocol, known by how their first answer begins.

/// What is wrong with a peer whose first bytes are these; none if they may be the start of a message.
pub(super) fn complaint(start: &[u8]) -> Option<&'static str> {
    // Four bytes, as many as are needed to see that they are no length: however it is cut, the complaint is this one.
    if start.starts_with(b"HTTP") {
        return Some("the peer answers in HTTP");
    }
    // A TLS record (RFC 8446, section 5.1) that holds an alert of level warning or fatal. As the length of a message it
    // would be 192 KiB and more: no answer to hello is that long.
    if let [0x15, 3, _, 0, 2, 1 | 2, ..] = start {
        return Some("the peer answers with a TLS alert; does it expect TLS (tls=true)?");
    }
    None
}
