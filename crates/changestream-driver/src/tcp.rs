//! The socket options that every adapter sets.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Sets what a TCP connection to a MongoDB server needs: no delay of small writes, and keepalive, so that a peer that
/// vanished is found even while nothing is asked of it.
///
/// # Errors
/// The operating system refuses one of the options.
pub fn configure_tcp<'s, S>(socket: &'s S) -> io::Result<()>
where
    SockRef<'s>: From<&'s S>,
{
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME);
    // Not every platform lets these be chosen.
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows))]
    let keepalive = keepalive
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// MongoDB's production notes ask for 120 seconds at most, below the idle time-outs of common firewalls.
const KEEPALIVE_TIME: Duration = Duration::from_secs(120);

/// Between probes that are not answered.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows))]
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How many go unanswered before the peer counts as gone.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows))]
const KEEPALIVE_PROBES: u32 = 9;
