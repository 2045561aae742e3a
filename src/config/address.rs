//! Hosts and ports as people write them. Resolves nothing. Tested in `config/tests.rs`.

use std::net::{IpAddr, Ipv4Addr};

use super::Advertise;

pub(super) fn host(text: &str) -> Option<IpAddr> {
    if text == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { unbracketed(text).parse().ok() }
}

fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text)
}

/// `name`, `1.2.3.4`, `::1` or `[::1]`, each with or without `:port`.
pub(super) fn advertise(text: &str) -> Option<Advertise> {
    if let Some(host) = reachable_host(text) {
        return Some(Advertise { host, port: None });
    }
    let (host, port) = text.rsplit_once(':')?;
    // A bare IPv6 address cannot be told from one with a port: brackets are needed there.
    let host = reachable_host(host).filter(|_| host.starts_with('[') || !host.contains(':'))?;
    Some(Advertise { host, port: Some(parse_port(port)?) })
}

/// A host someone else can connect to: an address that is not unspecified, or a name as DNS has them.
fn reachable_host(text: &str) -> Option<String> {
    let bare = unbracketed(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return (!address.is_unspecified()).then(|| bare.to_owned());
    }
    let label = |l: &str| {
        let plain = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&l.len()) && plain && !l.starts_with('-')
    };
    (text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)).then(|| text.to_owned())
}

/// A port one can connect to: digits, not 0.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|b| b.is_ascii_digit()))
}
