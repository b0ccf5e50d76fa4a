//! How bytes get through a connection: as they are, or through TLS.

use std::io;

#[cfg(feature = "tls")]
use super::tls;
use crate::deployment::Config;

/// What lies between the sockets and the machine.
#[derive(Debug, Default)]
pub(super) struct Layer {
    #[cfg(feature = "tls")]
    tls: Option<tls::Tls>,
}

impl Layer {
    /// Takes it out of the deployment's description: the machine does not know of it.
    #[cfg_attr(
        not(feature = "tls"),
        allow(clippy::needless_pass_by_ref_mut, reason = "there is TLS to be taken")
    )]
    pub(super) fn take(config: &mut Config) -> Self {
        #[cfg(not(feature = "tls"))]
        let _ = config;
        Self {
            #[cfg(feature = "tls")]
            tls: config.tls.take(),
        }
    }

    /// For one connection.
    pub(super) fn accept(&self) -> io::Result<Channel> {
        Ok(Channel {
            #[cfg(feature = "tls")]
            tls: self.tls.as_ref().map(tls::Tls::accept).transpose()?,
        })
    }

    /// The connection string that a client needs.
    pub(super) fn uri(&self, uri: String) -> String {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.with_options(&uri);
        }
        uri
    }
}

/// One connection's way.
#[derive(Debug)]
pub(super) struct Channel {
    #[cfg(feature = "tls")]
    tls: Option<tls::Session>,
}

impl Channel {
    /// What these bytes from the socket say. After an error [`outgoing`](Self::outgoing) may still have to tell the
    /// client why.
    pub(super) fn incoming<'a>(&self, bytes: &'a [u8], buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls.as_ref().filter(|tls| tls.is_encrypted(bytes)) {
            buffer.clear();
            tls.decrypt(bytes, buffer)?;
            return Ok(buffer);
        }
        buffer.clear();
        Ok(bytes)
    }

    /// Whether [`outgoing`](Self::outgoing) has something to write by itself: the handshake's messages, an alert.
    pub(super) fn wants_write(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.encrypted() {
            return tls.wants_write();
        }
        false
    }

    /// What is to be written to the socket so that the client reads these bytes.
    pub(super) fn outgoing<'a>(&self, bytes: &'a [u8], buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        buffer.clear();
        #[cfg(feature = "tls")]
        if let Some(tls) = self.encrypted() {
            tls.encrypt(bytes, buffer)?;
            return Ok(buffer);
        }
        Ok(bytes)
    }

    /// The last that is to be written to the socket.
    pub(super) fn farewell<'a>(&self, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        buffer.clear();
        #[cfg(feature = "tls")]
        if let Some(tls) = self.encrypted() {
            tls.farewell(buffer)?;
        }
        Ok(buffer)
    }

    /// A client that has said nothing yet is told nothing, so that it counts as one in the clear does no harm.
    #[cfg(feature = "tls")]
    fn encrypted(&self) -> Option<&tls::Session> {
        self.tls.as_ref().filter(|tls| tls.is_known_to_be_encrypted())
    }
}
