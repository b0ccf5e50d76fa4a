//! Any executor, part one: none. A `block_on` of a few lines, and helper threads that wait where a reactor would.
//!
//! ```sh
//! cargo run --example std_threads -- 'mongodb://localhost/?replicaSet=rs0' 10
//! ```
//!
//! It shows how little a [`Runtime`] has to do, not how to do it well: a thread for each connection and each timer is
//! dear, and `changestream-blocking` needs none.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use changestream_driver::bson::Document;
use changestream_driver::{Client, Endpoint, Runtime, configure_tcp};
use futures_io::{AsyncRead, AsyncWrite};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let uri = arguments
        .next()
        .ok_or("which deployment? give its connection string")?;
    let count = arguments.next().map_or(Ok(usize::MAX), |count| count.parse())?;
    follow(&uri, count, &mut io::stdout())
}

/// Writes so many changes of the deployment, a line each.
pub fn follow(uri: &str, count: usize, to: &mut dyn Write) -> Result<(), Box<dyn std::error::Error>> {
    block_on(async {
        let mut stream = Client::<Threads>::new(uri)?.watch().open().await?;
        for _ in 0..count {
            let Some(event) = stream.next().await else { break };
            writeln!(to, "{}", Document::try_from(event?.as_raw())?)?;
        }
        stream.close().await?;
        Ok(())
    })
}

/// Runs a future on this thread, which sleeps whenever the future waits.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        // One that was woken meanwhile does not sleep.
        thread::park();
    }
}

/// Sockets and timers of threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

impl Runtime for Threads {
    const NAME: &'static str = "threads";

    type Connection = Socket;
    type Lookup = Promise<io::Result<Vec<SocketAddr>>>;
    type Connect = Promise<io::Result<Socket>>;
    type Timer = Promise<()>;

    fn lookup(&self, host: &str, port: u16) -> Self::Lookup {
        let host = host.to_owned();
        Promise::of(move |_| Ok((host, port).to_socket_addrs()?.collect()))
    }

    fn connect(&self, endpoint: &Endpoint) -> Self::Connect {
        let endpoint = endpoint.clone();
        Promise::of(move |_| {
            let address = match endpoint {
                Endpoint::Tcp(address) => address,
                #[cfg(unix)]
                Endpoint::Unix(_) => {
                    let message = "this example knows TCP only";
                    return Err(io::Error::new(io::ErrorKind::Unsupported, message));
                }
            };
            let stream = TcpStream::connect(address)?;
            configure_tcp(&stream)?;
            Socket::new(stream)
        })
    }

    fn sleep_until(&self, at: Instant) -> Self::Timer {
        Promise::of(move |promised| promised.wait_until(at))
    }
}

/// What a helper thread will have done.
#[derive(Debug)]
pub struct Promise<T>(Arc<Shared<Option<T>>>);

impl<T: Send + 'static> Promise<T> {
    fn of(work: impl FnOnce(&Shared<Option<T>>) -> T + Send + 'static) -> Self {
        let shared = Shared::new(None);
        let helper = shared.clone();
        thread::spawn(move || {
            let done = work(&helper);
            helper.change(|state| state.value = Some(done));
        });
        Self(shared)
    }
}

impl<T> Future for Promise<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.0.poll(cx, |state| state.value.take())
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.0.change(|state| state.abandoned = true);
    }
}

/// A connection, which a helper thread reads. Writing blocks: requests are small, and the peer reads them.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    inbox: Arc<Shared<Inbox>>,
}

/// What was read and not taken yet: one piece at most, then the helper waits.
#[derive(Debug)]
enum Inbox {
    Empty,
    Bytes(Vec<u8>),
    End(Option<io::Error>),
}

impl Socket {
    fn new(stream: TcpStream) -> io::Result<Self> {
        let inbox = Shared::new(Inbox::Empty);
        let (mut reading, helper) = (stream.try_clone()?, inbox.clone());
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let piece = match reading.read(&mut buffer) {
                    Ok(0) => Inbox::End(None),
                    Ok(len) => Inbox::Bytes(buffer.iter().take(len).copied().collect()),
                    Err(error) => Inbox::End(Some(error)),
                };
                let ended = matches!(piece, Inbox::End(_));
                helper.change(|state| state.value = piece);
                if ended || !helper.wait_while(|inbox| !matches!(inbox, Inbox::Empty)) {
                    return;
                }
            }
        });
        Ok(Self { stream, inbox })
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.inbox.poll(cx, |state| match &mut state.value {
            Inbox::Empty => None,
            Inbox::Bytes(bytes) => {
                let len = bytes.len().min(into.len());
                for (to, from) in into.iter_mut().zip(bytes.drain(..len)) {
                    *to = from;
                }
                if bytes.is_empty() {
                    state.value = Inbox::Empty;
                }
                Some(Ok(len))
            }
            Inbox::End(error) => Some(error.take().map_or(Ok(0), Err)),
        })
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.stream.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown(Shutdown::Write))
    }
}

impl Drop for Socket {
    /// Ends the helper too: its read, or its wait for the inbox to be emptied.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.inbox.change(|state| state.abandoned = true);
    }
}

/// A value between a helper thread and a future.
#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    waker: Option<Waker>,
    /// Nobody wants the value any more.
    abandoned: bool,
}

impl<T> Shared<T> {
    fn new(value: T) -> Arc<Self> {
        let state = State {
            value,
            waker: None,
            abandoned: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value and wakes whoever waits for it, on either side.
    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        let mut state = self.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The future's side: takes what it can, or has itself woken by the next change.
    fn poll<U>(&self, cx: &Context<'_>, take: impl FnOnce(&mut State<T>) -> Option<U>) -> Poll<U> {
        let mut state = self.lock();
        let Some(taken) = take(&mut state) else {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.changed.notify_all();
        Poll::Ready(taken)
    }

    /// The helper's side: waits for the other. False if there is no other any more.
    fn wait_while(&self, condition: impl Fn(&T) -> bool) -> bool {
        let waited = self
            .changed
            .wait_while(self.lock(), |state| !state.abandoned && condition(&state.value));
        !waited.unwrap_or_else(PoisonError::into_inner).abandoned
    }

    /// The helper's side: waits for a time, or until nobody wants it any more.
    fn wait_until(&self, at: Instant) {
        let patience = at.saturating_duration_since(Instant::now());
        drop(
            self.changed
                .wait_timeout_while(self.lock(), patience, |state| !state.abandoned),
        );
    }
}
