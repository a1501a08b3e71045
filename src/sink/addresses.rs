//! Which network addresses a sink may connect to: the guard against requests into one's own network (SSRF).
//! Holds: it is the resolved addresses that are judged, at every connection, so that a name cannot change its mind;
//! an address written in place of a name never reaches a resolver and must be judged by whoever reads the URL.

use crate::config::Network;
use std::net::{IpAddr, SocketAddr};

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
}
