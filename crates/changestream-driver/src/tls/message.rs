//! What went wrong with TLS, for users: which certificate, and which option helps.

use std::fmt::Write;

use bson::DateTime;
use changestream_core::Error;
use rustls::pki_types::{UnixTime, pem};
use rustls::{AlertDescription, CertificateError, InconsistentKeys, InvalidMessage, PeerIncompatible};

/// Who is at the other end, as far as messages tell.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) host: String,
    /// Whether it can be shown a client certificate.
    pub(super) identified: bool,
}

impl Peer {
    /// Why TLS with it failed.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "not our enum: the rest has good words of its own"
    )]
    pub(super) fn failure(&self, error: &rustls::Error, handshaking: bool) -> String {
        match error {
            rustls::Error::InvalidCertificate(error) => self.bad_certificate(error),
            rustls::Error::AlertReceived(alert) => self.alert(*alert),
            // Anything may look like a record at first, but nothing in a plain-text reply does for long.
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) if handshaking => NOT_TLS.to_owned(),
            rustls::Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => OLD_TLS.to_owned(),
            error => format!("TLS failed: {error}"),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "not our enum, and it grows")]
    fn bad_certificate(&self, error: &CertificateError) -> String {
        let host = &self.host;
        match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                format!("the server's certificate expired on {}", date(*not_after))
            }
            CertificateError::Expired => "the server's certificate has expired".to_owned(),
            CertificateError::NotValidYetContext { not_before, .. } => {
                let date = date(*not_before);
                format!("the server's certificate is not valid before {date}; is this machine's clock right?")
            }
            CertificateError::NotValidYet => {
                "the server's certificate is not valid yet; is this machine's clock right?".to_owned()
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                format!("the server's certificate is not valid for {host}, but for {}", names(presented))
            }
            CertificateError::NotValidForName => {
                format!("the server's certificate is not valid for {host}")
            }
            CertificateError::UnknownIssuer => {
                "the server's certificate was issued by an authority that is not trusted: name a file with that \
                 authority's certificate with tlsCAFile"
                    .to_owned()
            }
            CertificateError::BadSignature => {
                "the server's certificate was issued by an authority that has the name of a trusted one, but another \
                 key: is tlsCAFile up to date?"
                    .to_owned()
            }
            error => format!("the server's certificate is refused: {error}"),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "not our enum, and it grows")]
    fn alert(&self, alert: AlertDescription) -> String {
        let why = match alert {
            AlertDescription::ProtocolVersion => return OLD_TLS.to_owned(),
            AlertDescription::CertificateRequired => return WANTS_CERTIFICATE.to_owned(),
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
                return self.no_agreement();
            }
            AlertDescription::UnrecognisedName => {
                return format!("the server knows no {} (TLS alert unrecognized_name)", self.host);
            }
            AlertDescription::UnknownCA => "it does not trust the authority that issued it",
            AlertDescription::CertificateExpired => "it has expired",
            AlertDescription::CertificateRevoked => "it was revoked",
            AlertDescription::UnsupportedCertificate => "its kind is not supported",
            AlertDescription::BadCertificate => "it finds it bad",
            AlertDescription::CertificateUnknown => "it cannot verify it",
            AlertDescription::AccessDenied => "it is not allowed in",
            AlertDescription::DecryptError if self.identified => "its signature is wrong",
            other => return format!("the server ended TLS with the alert {other:?}"),
        };
        if self.identified {
            format!("the server refuses the client certificate (tlsCertificateKeyFile): {why}")
        } else {
            WANTS_CERTIFICATE.to_owned()
        }
    }

    fn no_agreement(&self) -> String {
        let mut message =
            "the server refuses the TLS handshake: it may support no cipher of TLS 1.2 and 1.3".to_owned();
        if !self.identified {
            message.push_str(", or want a client certificate (tlsCertificateKeyFile)");
        }
        message
    }
}

/// The connection ended, or was cut off, before TLS was there. That is what a MongoDB server without TLS does.
pub(super) const CLOSED_IN_HANDSHAKE: &str =
    "the server closed the connection in the TLS handshake; does the server expect TLS?";

/// RFC 8446, section 6.1: without close_notify, what was read may be cut off.
pub(super) const BROKEN_OFF: &str =
    "the peer broke the connection off, without taking leave (TLS close_notify)";

const NOT_TLS: &str = "does the server expect TLS? it answered in plain text";
const OLD_TLS: &str = "the server supports neither TLS 1.2 nor TLS 1.3";
const WANTS_CERTIFICATE: &str =
    "the server wants a client certificate: name a file with certificate and key with tlsCertificateKeyFile";

/// The client's certificate and key were read, but they are of no use.
pub(super) fn unusable_identity(path: &str, error: &rustls::Error) -> Error {
    let mismatch = rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch);
    let reason = if *error == mismatch {
        "the key is not that of the first certificate in it".to_owned()
    } else {
        format!("its certificate and key cannot be used: {error}")
    };
    Error::invalid_argument(format!("tlsCertificateKeyFile {path:?}: {reason}"))
}

/// Reads the file that an option names.
pub(super) fn read_file(option: &str, path: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(path)
        .map_err(|error| Error::invalid_argument(format!("{option} {path:?}: it cannot be read: {error}")))
}

/// What is wrong with a file. The parser's own words may quote a line of it, which may be one of a key.
pub(super) fn without_secrets(error: &pem::Error) -> &'static str {
    if matches!(error, pem::Error::MissingSectionEnd { .. }) {
        "it is cut off: a section of it has no END line"
    } else {
        "it is not proper PEM"
    }
}

fn date(time: UnixTime) -> String {
    let millis = i64::try_from(time.as_secs().saturating_mul(1_000)).unwrap_or(i64::MAX);
    DateTime::from_millis(millis)
        .try_to_rfc3339_string()
        .unwrap_or_else(|_| "a date beyond all calendars".to_owned())
}

/// The peer chose them: few, and none long, and nothing in them that a terminal would obey.
fn names(presented: &[String]) -> String {
    let mut text = String::new();
    for (number, name) in presented.iter().take(SHOWN_NAMES).enumerate() {
        let separator = if number > 0 { ", " } else { "" };
        let name: String = name.chars().take(SHOWN_CHARACTERS).collect();
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{}", name.escape_debug());
    }
    match presented.len() {
        0 => text.push_str("no host at all (it has no subject alternative name)"),
        known if known > SHOWN_NAMES => text.push_str(" and others"),
        _ => {}
    }
    text
}

const SHOWN_NAMES: usize = 4;
const SHOWN_CHARACTERS: usize = 60;
