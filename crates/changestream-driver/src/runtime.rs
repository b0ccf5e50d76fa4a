//! What an executor has to provide.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use futures_io::{AsyncRead, AsyncWrite};

use crate::Endpoint;

/// The way in for any executor: sockets and timers.
///
/// Implement this for a small type of your own, and [`Client`](crate::Client) and [`ChangeStream`](crate::ChangeStream)
/// work on your executor. Nothing is ever spawned: everything happens while a stream is polled.
///
/// ```
/// use std::{future::Future, io, pin::Pin, time::Instant};
/// use changestream_driver::{Endpoint, Runtime, SystemLookup};
/// # mod executor {
/// #     pub type TcpStream = futures_util::io::Cursor<Vec<u8>>;
/// #     pub async fn connect(_: std::net::SocketAddr) -> std::io::Result<TcpStream> { Ok(TcpStream::default()) }
/// #     pub async fn sleep_until(_: std::time::Instant) {}
/// # }
///
/// #[derive(Clone, Default)]
/// struct MyRuntime;
///
/// impl Runtime for MyRuntime {
///     type Connection = executor::TcpStream; // futures_io::{AsyncRead, AsyncWrite}
///     type Lookup = SystemLookup;
///     type Connect = Pin<Box<dyn Future<Output = io::Result<Self::Connection>> + Send>>;
///     type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;
///
///     fn lookup(&self, host: &str, port: u16) -> Self::Lookup {
///         SystemLookup::new(host, port)
///     }
///
///     fn connect(&self, endpoint: &Endpoint) -> Self::Connect {
///         let endpoint = endpoint.clone();
///         Box::pin(async move {
///             match endpoint {
///                 Endpoint::Tcp(address) => executor::connect(address).await,
///                 #[cfg(unix)]
///                 Endpoint::Unix(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "TCP only")),
///             }
///         })
///     }
///
///     fn sleep_until(&self, at: Instant) -> Self::Timer {
///         Box::pin(executor::sleep_until(at))
///     }
/// }
///
/// let client = changestream_driver::Client::<MyRuntime>::new("mongodb://localhost/?replicaSet=rs0")?;
/// # Ok::<(), changestream_driver::Error>(())
/// ```
pub trait Runtime: Unpin {
    /// The executor's name, which servers log with the client's connections. Default: `other executor`.
    const NAME: &'static str = "other executor";

    /// An open connection. Give TCP sockets the options of [`configure_tcp`](crate::configure_tcp).
    type Connection: AsyncRead + AsyncWrite + Unpin;

    /// A look-up on its way. A `Pin<Box<dyn Future>>` will do, or [`SystemLookup`](crate::SystemLookup); it is dropped when
    /// it takes too long.
    type Lookup: Future<Output = io::Result<Vec<SocketAddr>>> + Unpin;

    /// A connection on its way. A `Pin<Box<dyn Future>>` will do; it is dropped when it takes too long.
    type Connect: Future<Output = io::Result<Self::Connection>> + Unpin;

    /// A timer. It may fire late, and should not fire early. A `Pin<Box<dyn Future>>` will do.
    type Timer: Future<Output = ()> + Unpin;

    /// Starts to look up the addresses of a host's name. It is never an IP address. Sets no time limit of its own.
    fn lookup(&self, host: &str, port: u16) -> Self::Lookup;

    /// Starts to connect to one address. Sets no time limit of its own.
    fn connect(&self, endpoint: &Endpoint) -> Self::Connect;

    /// A timer that is ready at this instant of [`now`](Self::now)'s clock.
    fn sleep_until(&self, at: Instant) -> Self::Timer;

    /// Moves a timer, ready or not, to another instant. Default: makes a new one.
    fn reset(&self, timer: &mut Self::Timer, at: Instant) {
        *timer = self.sleep_until(at);
    }

    /// The clock. Never goes back. Default: the operating system's.
    fn now(&self) -> Instant {
        Instant::now()
    }
}
