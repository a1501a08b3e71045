//! Who is at the other end: of the connection, and behind the proxies that the configuration trusts.
//! Holds: nobody chooses their own address. Only a trusted proxy's word counts, read from the nearest hop to the farthest
//! and no further than the first address that is not trusted; what contradicts itself or cannot be read is nobody's.

use crate::config::Network;
use crate::source::Peer;
use http::header::{FORWARDED, HOST};
use http::uri::Authority;
use http::{HeaderMap, request};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The most proxies one behind the other; beyond, the address is nobody's.
const HOPS_MAX: usize = 32;

/// The other end of one connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Loopback for a Unix socket.
    pub(super) address: IpAddr,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// The names in the client certificate that TLS has verified.
    pub(super) certificate_names: Vec<String>,
}

/// `ingress.trusted_proxies`
#[derive(Clone, Debug)]
pub(super) struct Proxies(pub(super) Vec<Network>);

impl Proxies {
    /// Who sends this request over the caller's connection.
    pub(super) fn peer<'a>(&self, caller: &'a Caller, head: &'a request::Parts) -> Peer<'a> {
        let address = caller.address.to_canonical();
        let authority = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority = head.uri.authority().map(Authority::as_str).or(authority).unwrap_or_default();
        let own = Peer {
            address: Some(address),
            scheme: caller.scheme,
            authority,
            certificate_names: &caller.certificate_names,
        };
        if !self.trusts(address) {
            return own;
        }
        let said = match (self.forwarded(&head.headers), self.x_forwarded(&head.headers)) {
            (None, said) => said.unwrap_or_default(),
            (Some(said), None) => said,
            (Some(one), Some(other)) => one.where_both_agree(&other),
        };
        Peer {
            address: match said.client {
                Client::Unsaid => own.address,
                Client::Unclear => None,
                Client::At(address) => Some(address),
            },
            scheme: said.scheme.unwrap_or(own.scheme),
            authority: said.authority.unwrap_or(own.authority),
            ..own
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The first hop, counted from ours, that is not trusted; the farthest where all are.
    fn client<'a>(&self, hops: impl Iterator<Item = Option<Hop<'a>>>) -> Said<'a> {
        let mut farthest = None;
        for (place, hop) in hops.enumerate() {
            let hop = hop.filter(|_| place < HOPS_MAX);
            let Some((address, hop)) = hop.and_then(|hop| Some((node(hop.node?)?, hop))) else {
                return Said::UNCLEAR;
            };
            farthest =
                Some(Said { client: Client::At(address), scheme: hop.scheme, authority: hop.authority });
            if !self.trusts(address) {
                return farthest.unwrap_or(Said::UNCLEAR);
            }
        }
        farthest.unwrap_or(Said::UNCLEAR)
    }

    /// What `Forwarded` says (RFC 7239); scheme and host of the same hop as the address. `None` where it is absent.
    fn forwarded<'a>(&self, headers: &'a HeaderMap) -> Option<Said<'a>> {
        let lines: Vec<_> = headers.get_all(FORWARDED).iter().collect();
        let hops = lines.iter().rev().flat_map(|line| {
            let hops = line.to_str().ok().and_then(hops);
            hops.map_or_else(|| vec![None], |hops| hops.into_iter().rev().map(Some).collect())
        });
        (!lines.is_empty()).then(|| self.client(hops))
    }

    /// What `X-Forwarded-For` says, with scheme and host as the nearest proxy wrote them. `None` where all are absent.
    fn x_forwarded<'a>(&self, headers: &'a HeaderMap) -> Option<Said<'a>> {
        let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        let scheme = nearest(headers, "x-forwarded-proto").and_then(scheme);
        let authority = nearest(headers, "x-forwarded-host").and_then(authority);
        if lines.is_empty() {
            let is_silent = scheme.is_none() && authority.is_none();
            return (!is_silent).then_some(Said { client: Client::Unsaid, scheme, authority });
        }
        let hops = lines.iter().rev().flat_map(|line| match line.to_str() {
            Err(_) => vec![None],
            Ok(line) => line.rsplit(',').map(|node| Some(Hop::of(node))).collect(),
        });
        Some(match self.client(hops) {
            Said { client: Client::Unclear, .. } => Said::UNCLEAR,
            said => Said { scheme, authority, ..said },
        })
    }
}

/// Where the client is, as trusted proxies say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Client {
    #[default]
    Unsaid,
    /// They contradict each other, or what they say is no address.
    Unclear,
    At(IpAddr),
}

/// What trusted proxies say of the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Said<'a> {
    client: Client,
    scheme: Option<&'static str>,
    authority: Option<&'a str>,
}

impl Said<'_> {
    const UNCLEAR: Said<'static> = Said { client: Client::Unclear, scheme: None, authority: None };

    /// A proxy writes one family of headers and may pass the other on as it came, so whichever it is, only what both say
    /// is the proxy's word.
    fn where_both_agree(self, other: &Self) -> Self {
        let agreed = other.client == Client::Unsaid || other.client == self.client;
        Said {
            client: if agreed { self.client } else { Client::Unclear },
            scheme: self.scheme.filter(|scheme| other.scheme == Some(*scheme)),
            authority: self.authority.filter(|authority| other.authority == Some(*authority)),
        }
    }
}

/// One step of the way, as the proxy after it wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Hop<'a> {
    node: Option<&'a str>,
    scheme: Option<&'static str>,
    authority: Option<&'a str>,
}

impl<'a> Hop<'a> {
    fn of(node: &'a str) -> Self {
        Hop { node: Some(node.trim()), ..Hop::default() }
    }

    /// `None` where it says so a second time.
    fn note(&mut self, name: &str, value: &'a str) -> Option<()> {
        let is_new = match name.to_ascii_lowercase().as_str() {
            "for" => self.node.replace(value).is_none(),
            "proto" => std::mem::replace(&mut self.scheme, scheme(value)).is_none(),
            "host" => std::mem::replace(&mut self.authority, authority(value)).is_none(),
            _ => true,
        };
        is_new.then_some(())
    }
}

/// The hops of one `Forwarded` line, farthest first; `None` where it does not follow the grammar to its end, so that an
/// open quote of a stranger cannot swallow what a proxy has added.
fn hops(line: &str) -> Option<Vec<Hop<'_>>> {
    let (mut hops, mut hop) = (Vec::new(), Hop::default());
    let mut rest = line.trim();
    loop {
        let (name, after) = rest.split_once('=')?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return None;
        }
        let (value, after) = match after.strip_prefix('"') {
            // Nothing that belongs here needs an escape.
            Some(quoted) => quoted.split_once('"').filter(|(value, _)| !value.contains('\\'))?,
            None => after.split_at(after.find([',', ';']).unwrap_or(after.len())),
        };
        let value = value.trim_end();
        if value.is_empty() || value.contains(['"', ' ', '\t']) {
            return None;
        }
        hop.note(name, value)?;
        let after = after.trim_start();
        rest = match after.as_bytes().first() {
            None => {
                hops.push(hop);
                return Some(hops);
            }
            Some(b',') => {
                hops.push(std::mem::take(&mut hop));
                after[1..].trim_start()
            }
            Some(b';') => after[1..].trim_start(),
            Some(_) => return None,
        };
    }
}

/// An address with or without a port, an IPv6 one with or without brackets; a name, an obfuscated node or `0.0.0.0` is
/// none.
fn node(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || {
        let inside = text.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    let address = text.parse::<IpAddr>().ok().or_else(with_port).or_else(in_brackets)?;
    Some(address.to_canonical()).filter(|address| !address.is_unspecified())
}

fn nearest<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let last = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next().map(str::trim)
}

fn scheme(text: &str) -> Option<&'static str> {
    ["https", "http"].into_iter().find(|scheme| scheme.eq_ignore_ascii_case(text))
}

fn authority(text: &str) -> Option<&str> {
    text.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@')).map(|_| text)
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
