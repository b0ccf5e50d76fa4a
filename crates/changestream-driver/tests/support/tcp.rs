//! The scripted server behind a loopback listener, for the adapters' tests.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use changestream_core::wire::FrameReader;

use super::server::{Answer, Server};

/// A server that listens until the test ends.
#[derive(Clone)]
pub struct TcpServer {
    server: Arc<(Mutex<Server>, Condvar)>,
    uri: String,
}

impl TcpServer {
    pub fn start(server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self::new(server, address.to_string());
        let accepting = this.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                accepting.clone().accept(connection.unwrap());
            }
        });
        this
    }

    /// Listens at a Unix domain socket instead.
    #[cfg(unix)]
    pub fn start_unix(server: Server, path: &str) -> Self {
        // What an earlier run may have left behind.
        let _ = std::fs::remove_file(path);
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        let this = Self::new(server, path.replace('/', "%2F"));
        let accepting = this.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                accepting.clone().accept(connection.unwrap());
            }
        });
        this
    }

    fn new(mut server: Server, address: String) -> Self {
        let uri = format!("mongodb://{address}/?directConnection=true");
        server.me = address;
        Self {
            server: Arc::new((Mutex::new(server), Condvar::new())),
            uri,
        }
    }

    /// A client that leaves in the middle is nothing to fail for.
    fn accept(self, connection: impl Read + Write + Send + 'static) {
        thread::spawn(move || self.serve(connection));
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    pub fn server(&self) -> MutexGuard<'_, Server> {
        self.server.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets more changes happen, and wakes the requests that wait for some.
    pub fn change(&self, changes: usize) {
        self.server().changes += changes;
        self.server.1.notify_all();
    }

    /// Blocks until a command of that name was heard.
    pub fn wait_for(&self, command: &str) {
        let mut server = self.server();
        while !server.heard().contains(&command) {
            server = self.server.1.wait(server).unwrap();
        }
    }

    fn serve(&self, mut connection: impl Read + Write) -> Option<()> {
        let mut reader = FrameReader::new();
        loop {
            while let Some(frame) = reader.next_frame().ok()? {
                let mut server = self.server();
                let mut answer = server.hear(&frame);
                self.server.1.notify_all();
                // A getMore without an event waits for one, for ever: no test here wants an empty batch.
                while let Answer::Hold = answer {
                    server = self.server.1.wait(server).ok()?;
                    answer = server.answer(&frame, false);
                }
                drop(server);
                if let Answer::Reply(bytes) = answer {
                    connection.write_all(&bytes).ok()?;
                }
            }
            match connection.read(reader.buffer()).ok()? {
                0 => return None,
                len => reader.filled(len),
            }
        }
    }
}
