//! The list of hosts (Connection String specification, "Host Information").

use std::net::Ipv6Addr;

use super::error::{UriError, UriPlace};
use super::parts::decode;
use crate::address::ServerAddress;

/// Parses a list of hosts. Errors repeat a host's text only if they may: a port's never, since what looks like one may
/// be a password whose at-sign is missing.
pub(super) fn parse_all(text: &str, may_print: bool) -> Result<Vec<ServerAddress>, UriError> {
    text.split(',')
        .enumerate()
        .map(|(index, host)| {
            parse(host).map_err(|fault| {
                let reason = match fault {
                    Fault::Said(reason) => reason.to_owned(),
                    Fault::Character(character) if may_print => {
                        format!("it must not hold {character:?}")
                    }
                    Fault::Character(_) => "it holds a character that no host name has".to_owned(),
                };
                UriError::new(UriPlace::Host { number: index + 1 }, reason)
            })
        })
        .collect()
}

enum Fault {
    Said(&'static str),
    Character(char),
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Self {
        Self::Said(reason)
    }
}

fn parse(text: &str) -> Result<ServerAddress, Fault> {
    if text.is_empty() {
        return Err("it is empty; in the path of a Unix domain socket, write %2F for each slash".into());
    }
    if let Some(literal) = text.strip_prefix('[') {
        return parse_ip_literal(literal);
    }
    let decoded = decode(text)?;
    if decoded.contains('/') {
        return parse_socket(decoded);
    }
    let (host, port) = match text.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            return Err("it holds more than one colon; an IPv6 address needs brackets".into());
        }
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = decode(host)?;
    if host.is_empty() {
        return Err("its name is missing in front of the port".into());
    }
    match host.chars().find(|c| is_forbidden_in_host(*c)) {
        Some(character) => Err(Fault::Character(character)),
        None => Ok(ServerAddress::tcp(&host, parse_port(port)?)),
    }
}

fn parse_ip_literal(text: &str) -> Result<ServerAddress, Fault> {
    let (address, rest) = text.split_once(']').ok_or("its bracket is not closed")?;
    let port = match rest {
        "" => None,
        _ => Some(
            rest.strip_prefix(':')
                .ok_or("only a colon and a port may follow the bracket")?,
        ),
    };
    let address = decode(address)?;
    let (number, zone) = match address.split_once('%') {
        Some((number, zone)) => (number, Some(zone)),
        None => (address.as_str(), None),
    };
    if number.parse::<Ipv6Addr>().is_err() {
        return Err("what stands in brackets must be an IPv6 address".into());
    }
    if let Some(zone) = zone {
        match zone.chars().find(|c| is_forbidden_in_host(*c)) {
            Some(character) => return Err(Fault::Character(character)),
            None if zone.is_empty() => return Err("its IPv6 zone is empty".into()),
            None => {}
        }
    }
    Ok(ServerAddress::tcp(&address, parse_port(port)?))
}

fn parse_socket(path: String) -> Result<ServerAddress, Fault> {
    if path.contains('\0') {
        return Err(Fault::Character('\0'));
    }
    if !path.ends_with(".sock") {
        return Err(
            "it holds a slash, so it is a Unix domain socket; its path must end in .sock, and has no port"
                .into(),
        );
    }
    Ok(ServerAddress::unix(path))
}

fn parse_port(port: Option<&str>) -> Result<u16, Fault> {
    let Some(port) = port else {
        return Ok(ServerAddress::DEFAULT_PORT);
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits && number != 0 => Ok(number),
        Ok(_) | Err(_) => Err("its port must be a number from 1 to 65535".into()),
    }
}

fn is_forbidden_in_host(character: char) -> bool {
    character.is_control() || character.is_whitespace() || "\"#%&/:;<=>?@[\\]^`{|}".contains(character)
}
