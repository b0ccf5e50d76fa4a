//! Whether a client's connections are encrypted.

use std::io;

use changestream_core::uri::{ClientOptions, Warning};
use changestream_core::{AuthMechanism, Error, ServerAddress};

use crate::layer::Layer;

/// What every connection of a client is wrapped in. Made once: the files that the options name are read then.
#[derive(Clone, Debug)]
pub(crate) enum Security {
    /// Bytes go as they are.
    Plain,
    /// TLS.
    #[cfg(feature = "tls")]
    Tls(crate::tls::Config),
}

impl Security {
    /// What these options ask for.
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, Error> {
        check_identity(options)?;
        if options.tls_enabled() {
            Self::tls(options)
        } else {
            Ok(Self::Plain)
        }
    }

    #[cfg(feature = "tls")]
    fn tls(options: &ClientOptions) -> Result<Self, Error> {
        crate::tls::Config::new(&options.tls_options).map(Self::Tls)
    }

    /// Nobody who wants connections encrypted may get them in the clear.
    #[cfg(not(feature = "tls"))]
    fn tls(_: &ClientOptions) -> Result<Self, Error> {
        Err(Error::invalid_argument(
            "TLS is not built in: enable the feature `tls`, or connect with tls=false, or through a TLS tunnel",
        ))
    }

    /// What of the options makes connections less safe than they look.
    pub(crate) fn warnings(&self, options: &ClientOptions) -> Vec<Warning> {
        match self {
            Self::Plain => {
                let _ = options;
                Vec::new()
            }
            #[cfg(feature = "tls")]
            Self::Tls(_) => crate::tls::dangers(&options.tls_options).into_iter().collect(),
        }
    }

    /// Wraps a socket that was connected to this address.
    #[cfg_attr(
        not(feature = "tls"),
        expect(clippy::unnecessary_wraps, reason = "TLS can fail")
    )]
    pub(crate) fn layer<C>(&self, socket: C, address: &ServerAddress) -> io::Result<Layer<C>> {
        match self {
            Self::Plain => {
                // Plain bytes go to any address.
                let _ = address;
                Ok(Layer::Plain(socket))
            }
            #[cfg(feature = "tls")]
            Self::Tls(config) => Ok(Layer::Tls(Box::new(config.channel(socket, address)?))),
        }
    }
}

/// MONGODB-X509 proves who the client is by the certificate of its connections.
fn check_identity(options: &ClientOptions) -> Result<(), Error> {
    let mechanism = options.credential.as_ref().and_then(|c| c.mechanism);
    let has_certificate = options.tls_enabled() && options.tls_options.certificate_key_file.is_some();
    if mechanism == Some(AuthMechanism::MongoDbX509) && !has_certificate {
        return Err(Error::invalid_argument(
            "MONGODB-X509 needs TLS with a client certificate: tls=true&tlsCertificateKeyFile=client.pem",
        ));
    }
    Ok(())
}
