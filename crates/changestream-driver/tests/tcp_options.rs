//! What is set on the sockets of every adapter.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{TcpListener, TcpStream};

use changestream_driver::configure_tcp;
use socket2::SockRef;

#[test]
fn a_configured_socket_sends_at_once_and_is_kept_alive() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    configure_tcp(&socket).unwrap();
    assert!(socket.nodelay().unwrap());
    assert!(SockRef::from(&socket).keepalive().unwrap());
}
