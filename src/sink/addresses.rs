//! Which network addresses a sink may connect to: the guard against requests into one's own network (SSRF).
//! Holds: it is the resolved addresses that are judged, at every connection, so that a name cannot change its mind;
//! an address written in place of a name never reaches a resolver and must be judged by whoever reads the URL.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Addresses by their first bits: `10.0.0.0/8`, `fd00::/8`, or one address alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected an address or a network, \"10.1.0.0/16\" for example")]
pub(super) struct InvalidNetwork;

impl Network {
    const fn v4(a: u8, b: u8, c: u8, prefix_bits: u8) -> Self {
        Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), prefix_bits }
    }
    const fn v6(a: u16, b: u16, c: u16, f: u16, prefix_bits: u8) -> Self {
        Network { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, f, 0, 0)), prefix_bits }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let prefix_bits = u32::from(self.prefix_bits);
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(u32::BITS - prefix_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(u128::BITS - prefix_bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Ok(bits_max), str::parse).map_err(|_| InvalidNetwork)?;
        if prefix_bits > bits_max { Err(InvalidNetwork) } else { Ok(Network { address, prefix_bits }) }
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;
    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

/// Everything that is not the public internet, and the forms in which IPv6 hides an IPv4 address
/// (the special-purpose registries of RFC 6890).
const NOT_PUBLIC: [Network; 24] = [
    Network::v4(0, 0, 0, 8),             // this network
    Network::v4(10, 0, 0, 8),            // private
    Network::v4(100, 64, 0, 10),         // shared by carriers
    Network::v4(127, 0, 0, 8),           // loopback
    Network::v4(169, 254, 0, 16),        // link-local, where clouds serve their metadata
    Network::v4(172, 16, 0, 12),         // private
    Network::v4(192, 0, 0, 24),          // protocol assignments
    Network::v4(192, 0, 2, 24),          // documentation
    Network::v4(192, 168, 0, 16),        // private
    Network::v4(198, 18, 0, 15),         // benchmarks
    Network::v4(198, 51, 100, 24),       // documentation
    Network::v4(203, 0, 113, 24),        // documentation
    Network::v4(224, 0, 0, 4),           // multicast
    Network::v4(240, 0, 0, 4),           // reserved, broadcast
    Network::v6(0, 0, 0, 0, 96),         // unspecified, loopback, IPv4-compatible
    Network::v6(0, 0, 0, 0xffff, 96),    // IPv4-mapped
    Network::v6(0x64, 0xff9b, 0, 0, 96), // translated IPv4
    Network::v6(0x64, 0xff9b, 1, 0, 48), // translated IPv4, local
    Network::v6(0x2001, 0, 0, 0, 32),    // Teredo
    Network::v6(0x2002, 0, 0, 0, 16),    // 6to4
    Network::v6(0xfc00, 0, 0, 0, 7),     // private
    Network::v6(0xfe80, 0, 0, 0, 10),    // link-local
    Network::v6(0xfec0, 0, 0, 0, 10),    // site-local
    Network::v6(0xff00, 0, 0, 0, 8),     // multicast
];

/// Judges addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    denies_private: bool,
    allowed: Vec<Network>,
}

/// Every address of a name is one that may not be connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("its address is private, and deny_private_addresses is set")]
pub(super) struct Forbidden;

impl Guard {
    /// Allows everything, or with `denies_private` only public addresses and those in `allowed`.
    pub(super) fn new(denies_private: bool, allowed: &[Network]) -> Self {
        Guard { denies_private, allowed: allowed.to_vec() }
    }

    pub(super) fn allows(&self, address: IpAddr) -> bool {
        !self.denies_private
            || self.allowed.iter().any(|network| network.contains(address))
            || !NOT_PUBLIC.iter().any(|network| network.contains(address))
    }
}

impl reqwest::dns::Resolve for Guard {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let guard = self.clone();
        Box::pin(async move {
            // Port 0: the connector puts in the URL's own.
            let resolved = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (allowed, forbidden): (Vec<SocketAddr>, Vec<SocketAddr>) =
                resolved.partition(|address| guard.allows(address.ip()));
            if allowed.is_empty() && !forbidden.is_empty() {
                return Err(Forbidden.into());
            }
            let addresses: reqwest::dns::Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_denied_in_all_their_forms() {
        let guard = Guard::new(true, &[]);
        for denied in [
            "0.0.0.0",
            "10.255.255.255",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::",
            "2001::1",
            "fd12::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!guard.allows(denied.parse().unwrap()), "{denied}");
        }
        for allowed in [
            "1.1.1.1",
            "9.255.255.255",
            "100.128.0.1",
            "128.0.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "198.20.0.1",
            "2606:4700::1",
            "2001:db9::1",
            "fe00::1",
        ] {
            assert!(guard.allows(allowed.parse().unwrap()), "{allowed}");
        }
    }

    #[test]
    fn an_allowed_network_is_an_exception_and_nothing_more() {
        let guard = Guard::new(true, &["10.1.0.0/16".parse().unwrap(), "::1".parse().unwrap()]);
        assert!(guard.allows("10.1.255.1".parse().unwrap()));
        assert!(guard.allows("::1".parse().unwrap()));
        assert!(!guard.allows("10.2.0.1".parse().unwrap()));
        assert!(!guard.allows("127.0.0.1".parse().unwrap()));
        assert!(Guard::default().allows("127.0.0.1".parse().unwrap()), "off unless asked for");
    }

    #[test]
    fn a_network_is_read_and_written_in_the_usual_notation() {
        for (text, written) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("fd00::/8", "fd00::/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Network>().map(String::from), Ok(written.to_owned()), "{text}");
        }
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains("255.1.2.3".parse().unwrap()));
        for text in ["", "10.1.0.0/33", "::/129", "10.1", "localhost", "10.1.0.0/", "10.1.0.0/x"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
        }
    }
}
