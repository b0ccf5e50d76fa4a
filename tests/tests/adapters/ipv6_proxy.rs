//! A listener on `::1` in front of a member, whose own is IPv4.

use std::io;
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

/// Listens until the test's process ends. The port; none where the machine has no IPv6.
pub fn start(member: String) -> Option<u16> {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok()?;
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&member).unwrap());
            pass_on(client.try_clone().unwrap(), server.try_clone().unwrap());
            pass_on(server, client);
        }
    });
    Some(port)
}

/// Copies one way. That one side leaves is the end of the other, and no failure.
fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
