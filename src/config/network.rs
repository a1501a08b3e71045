//! Networks as the configuration writes them: whom to connect to, whom to trust, who may send.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses by their first bits: `10.0.0.0/8`, `fd00::/8`, or one address alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected an address or a network, \"10.1.0.0/16\" for example")]
pub struct InvalidNetwork;

impl Network {
    /// `a.b.c.0` and its first bits.
    #[must_use]
    pub const fn v4(a: u8, b: u8, c: u8, prefix_bits: u8) -> Self {
        Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), prefix_bits }
    }
    /// `a:b:c::f:0` and its first bits.
    #[must_use]
    pub const fn v6(a: u16, b: u16, c: u16, f: u16, prefix_bits: u8) -> Self {
        Network { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, f, 0, 0)), prefix_bits }
    }

    /// Is the address one of it? An IPv4 address is never one of an IPv6 network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

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
