//! AWS Signature Version 4, for the one request that MONGODB-AWS signs: `GetCallerIdentity` of the Security Token
//! Service. The client signs, the MongoDB server sends.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::DateTime;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::AwsCredentials;
use super::refused;
use crate::Error;

/// What the server gets.
pub(super) struct Signed {
    /// The header `Authorization`.
    pub(super) authorization: String,
    /// The header `X-Amz-Date`.
    pub(super) date: String,
}

/// Signs the request to this host of the service, which must have passed [`check_host`].
pub(super) fn sign(
    credentials: &AwsCredentials,
    time: DateTime,
    host: &str,
    server_nonce: &[u8],
) -> Result<Signed, Error> {
    let token = credentials.session_token().map(|token| token.reveal());
    check_header(credentials.access_key_id(), "access key id")?;
    if let Some(token) = token {
        check_header(token, "session token")?;
    }
    let date = amz_date(time)?;
    let nonce = BASE64.encode(server_nonce);
    let length = BODY.len().to_string();
    // In the order of their names.
    let mut headers = vec![
        ("content-length", length.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
        ("host", host),
        ("x-amz-date", &date),
    ];
    headers.extend(token.map(|token| ("x-amz-security-token", token)));
    headers.extend([("x-mongodb-gs2-cb-flag", "n"), ("x-mongodb-server-nonce", &nonce)]);
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut request = "POST\n/\n\n".to_owned();
    for (name, value) in &headers {
        let _ = writeln!(request, "{name}:{value}");
    }
    let _ = write!(request, "\n{names}\n{}", hex(&Sha256::digest(BODY)));

    let day = date.get(..8).unwrap_or_default();
    let region = region(host);
    let scope = format!("{day}/{region}/{SERVICE}/{TERMINATION}");
    let to_sign = format!(
        "{ALGORITHM}\n{date}\n{scope}\n{}",
        hex(&Sha256::digest(request.as_bytes()))
    );
    let secret = format!("AWS4{}", credentials.secret_access_key().reveal());
    let key = [day, region, SERVICE, TERMINATION]
        .into_iter()
        .fold(secret.into_bytes(), |key, part| hmac(&key, part));
    let signature = hex(&hmac(&key, &to_sign));
    let id = credentials.access_key_id();
    Ok(Signed {
        authorization: format!(
            "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
        ),
        date,
    })
}

/// Whether the server names a host that can be one (Authentication specification, "MONGODB-AWS", "Conversation"). More
/// than the specification asks: no byte may break out of its header.
pub(super) fn check_host(host: &str) -> Result<(), Error> {
    let is_legal = (1..=255).contains(&host.len())
        && host.split('.').all(|label| !label.is_empty())
        && host.bytes().all(|byte| byte.is_ascii_graphic());
    if is_legal {
        return Ok(());
    }
    Err(refused(
        "the server names no host of the AWS Security Token Service",
    ))
}

/// Authentication specification, "Region Calculation".
fn region(host: &str) -> &str {
    if host == "sts.amazonaws.com" {
        return DEFAULT_REGION;
    }
    host.split('.').nth(1).unwrap_or(DEFAULT_REGION)
}

/// `YYYYMMDD'T'HHMMSS'Z'`.
fn amz_date(time: DateTime) -> Result<String, Error> {
    let impossible = || refused("the time of day is before 1970, or after 9999: is the clock right?");
    let millis = time.timestamp_millis();
    if millis < 0 {
        return Err(impossible());
    }
    let text = DateTime::from_millis(millis - millis % 1000)
        .try_to_rfc3339_string()
        .map_err(|_| impossible())?;
    let date: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    if date.len() == "YYYYMMDDTHHMMSSZ".len() {
        Ok(date)
    } else {
        Err(impossible())
    }
}

/// Keys become headers: none may hold what ends one.
fn check_header(value: &str, what: &str) -> Result<(), Error> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(refused(format!(
        "the AWS {what} is empty or has characters that it cannot have"
    )))
}

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const SERVICE: &str = "sts";
const TERMINATION: &str = "aws4_request";
const DEFAULT_REGION: &str = "us-east-1";
