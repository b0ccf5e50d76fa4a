//! The client's own certificate.

use changestream_core::Error;
use changestream_core::uri::{Secret, TlsOptions};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::SecretDocument;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::message::{read_file, without_secrets};

/// What a client proves who it is by.
pub(super) struct Identity {
    /// Its certificate, and those that lead to the authority.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// Where they were found.
    pub(super) path: String,
}

impl Identity {
    /// Reads the file that the options name, if they name one.
    pub(super) fn read(options: &TlsOptions) -> Result<Option<Self>, Error> {
        let Some(path) = &options.certificate_key_file else {
            return Ok(None);
        };
        let text = read_file(CERTIFICATE_KEY_FILE, path)?;
        let password = options.certificate_key_file_password.as_ref();
        match parse(&text, password) {
            Ok((chain, key)) => Ok(Some(Self {
                chain,
                key,
                path: path.clone(),
            })),
            Err(reason) => Err(unusable(path, &reason)),
        }
    }
}

type Parsed = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn parse(text: &[u8], password: Option<&Secret>) -> Result<Parsed, String> {
    if find(text, LEGACY_ENCRYPTION).is_some() {
        return Err(
            "its key is encrypted in a way of old (Proc-Type: 4,ENCRYPTED): convert it with openssl pkcs8 -topk8"
                .to_owned(),
        );
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| without_secrets(&error).to_owned())?;
    if chain.is_empty() {
        return Err("there is no certificate in it (PEM, BEGIN CERTIFICATE)".to_owned());
    }
    let key = match encrypted_section(text) {
        Some(section) => decrypt(section?, password)?,
        None => plain_key(text)?,
    };
    Ok((chain, key))
}

/// PKCS#8, PKCS#1 and SEC1 are all read.
fn plain_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            "there is no private key in it (PEM, BEGIN PRIVATE KEY): it must hold certificate and key"
                .to_owned()
        } else {
            without_secrets(&error).to_owned()
        }
    })
}

/// The encrypted key, which rustls does not know, from its first line to its last.
fn encrypted_section(text: &[u8]) -> Option<Result<&str, String>> {
    let start = find(text, ENCRYPTED_BEGIN)?;
    let rest = text.get(start..)?;
    let end = find(rest, ENCRYPTED_END).map(|at| at + ENCRYPTED_END.len());
    let section = end
        .and_then(|end| rest.get(..end))
        .and_then(|section| std::str::from_utf8(section).ok());
    Some(section.ok_or_else(|| "its encrypted key is cut off".to_owned()))
}

fn decrypt(section: &str, password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, String> {
    let password =
        password.ok_or_else(|| format!("its key is encrypted: give {CERTIFICATE_KEY_FILE}Password"))?;
    let (_, document) =
        SecretDocument::from_pem(section).map_err(|_| "its encrypted key is not proper PEM".to_owned())?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| {
        "its key is encrypted in a way that is not supported: PKCS#8 with PBES2 is, as openssl pkcs8 -topk8 makes it"
            .to_owned()
    })?;
    let key = encrypted
        .decrypt(password.reveal())
        .map_err(|_| format!("its key cannot be decrypted: is {CERTIFICATE_KEY_FILE}Password right?"))?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn unusable(path: &str, reason: &str) -> Error {
    Error::invalid_argument(format!("{CERTIFICATE_KEY_FILE} {path:?}: {reason}"))
}

const CERTIFICATE_KEY_FILE: &str = "tlsCertificateKeyFile";

/// RFC 7468, section 11.
const ENCRYPTED_BEGIN: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &[u8] = b"-----END ENCRYPTED PRIVATE KEY-----";
/// RFC 1421, section 4.6.1.1.
const LEGACY_ENCRYPTION: &[u8] = b"Proc-Type: 4,ENCRYPTED";
