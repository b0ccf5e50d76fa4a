//! MONGODB-AWS: a server has AWS verify the signature; here the secret keys are known, and it is computed anew.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::spec::BinarySubtype;
use bson::{Binary, DateTime, RawDocument, doc};
use changestream_core::random::Random;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::external::AwsUser;

/// Between the server's nonce and the client's signature.
pub(crate) struct Conversation {
    /// Both nonces.
    nonce: Vec<u8>,
}

impl Conversation {
    /// Answers the client's nonce.
    pub(crate) fn start(payload: &[u8], random: &mut Random) -> Option<(Self, Vec<u8>)> {
        let message = RawDocument::from_bytes(payload).ok()?;
        let client_nonce = message.get_binary("r").ok()?.bytes;
        let flag = message.get_i32("p").ok()?;
        if client_nonce.len() != 32 || flag != i32::from(b'n') {
            return None;
        }
        let mut own = [0; 32];
        random.fill(&mut own);
        let nonce = [client_nonce, &own].concat();
        let binary = Binary {
            subtype: BinarySubtype::Generic,
            bytes: nonce.clone(),
        };
        let answer = doc! { "s": binary, "h": HOST }.to_vec().ok()?;
        Some((Self { nonce }, answer))
    }
}

/// The client's second message.
pub(crate) struct Signed {
    authorization: String,
    date: String,
    token: Option<String>,
    /// Of the authorization: `key/day/region/service/aws4_request`.
    scope: [String; 5],
}

impl Signed {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let message = RawDocument::from_bytes(payload).ok()?;
        let authorization = message.get_str("a").ok()?.to_owned();
        let scope = authorization
            .split_once("Credential=")?
            .1
            .split_once(',')?
            .0
            .split('/')
            .map(str::to_owned);
        Some(Self {
            scope: scope.collect::<Vec<_>>().try_into().ok()?,
            date: message.get_str("d").ok()?.to_owned(),
            token: message.get_str("t").ok().map(str::to_owned),
            authorization,
        })
    }

    pub(crate) fn access_key_id(&self) -> &str {
        let [key, ..] = &self.scope;
        key
    }

    /// Whether this user has signed it, for this conversation, and lately.
    pub(crate) fn is_genuine(&self, conversation: &Conversation, user: &AwsUser, wall_millis: i64) -> bool {
        let [_, day, region, service, end] = &self.scope;
        (region.as_str(), service.as_str(), end.as_str()) == ("us-east-1", "sts", "aws4_request")
            && self.date.starts_with(day.as_str())
            && self.token == user.session_token
            && self
                .millis()
                .is_some_and(|millis| (millis - wall_millis).abs() <= MOST_SKEW)
            && self.authorization == self.authorization_of(conversation, user)
    }

    fn authorization_of(&self, conversation: &Conversation, user: &AwsUser) -> String {
        let [key_id, day, region, service, end] = &self.scope;
        let nonce = BASE64.encode(&conversation.nonce);
        let (token_line, token_name) = match &self.token {
            Some(token) => (format!("x-amz-security-token:{token}\n"), "x-amz-security-token;"),
            None => (String::new(), ""),
        };
        let names = format!(
            "content-length;content-type;host;x-amz-date;{token_name}x-mongodb-gs2-cb-flag;x-mongodb-server-nonce"
        );
        let request = format!(
            "POST\n/\n\ncontent-length:43\ncontent-type:application/x-www-form-urlencoded\nhost:{HOST}\n\
             x-amz-date:{}\n{token_line}x-mongodb-gs2-cb-flag:n\nx-mongodb-server-nonce:{nonce}\n\n{names}\n{}",
            self.date,
            hex(&Sha256::digest(b"Action=GetCallerIdentity&Version=2011-06-15")),
        );
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{day}/{region}/{service}/{end}\n{}",
            self.date,
            hex(&Sha256::digest(request))
        );
        let first = hmac(format!("AWS4{}", user.secret_access_key).as_bytes(), day);
        let key = hmac(&hmac(&hmac(&first, region), service), end);
        format!(
            "AWS4-HMAC-SHA256 Credential={key_id}/{day}/{region}/{service}/{end}, SignedHeaders={names}, Signature={}",
            hex(&hmac(&key, &to_sign))
        )
    }

    /// The date, in milliseconds since the epoch.
    fn millis(&self) -> Option<i64> {
        let d = |range| self.date.get(range);
        if self.date.len() != 16 || d(8..9) != Some("T") || d(15..16) != Some("Z") {
            return None;
        }
        let text = format!(
            "{}-{}-{}T{}:{}:{}Z",
            d(0..4)?,
            d(4..6)?,
            d(6..8)?,
            d(9..11)?,
            d(11..13)?,
            d(13..15)?
        );
        Some(DateTime::parse_rfc3339_str(text).ok()?.timestamp_millis())
    }
}

fn hmac(key: &[u8], data: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The service that the client's signature is for.
const HOST: &str = "sts.amazonaws.com";
/// AWS takes a signature for five minutes.
const MOST_SKEW: i64 = 5 * 60 * 1000;
