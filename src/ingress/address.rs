//! Where the ingress listens: the texts of `ingress.listen`, and the URLs that follow from them.

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// What a path of a Unix socket begins with.
const UNIX: &str = "unix:";
/// What the name of a passed socket begins with.
const PASSED: &str = "systemd:";
/// The most characters of such a name (systemd.socket(5), `FileDescriptorName=`).
const PASSED_NAME_CHARS_MAX: usize = 255;

/// One place to listen at: `127.0.0.1:8080`, `[::]:8080`, `unix:/run/hookbus/ingress.sock` or `systemd:hookbus.socket`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(into = "String")]
pub enum Address {
    /// Address and port; port 0 takes any free one.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
    /// The name of a socket that the service manager passes (sd_listen_fds(3)): where that is, it knows.
    Passed(String),
}

/// Why a text is no place to listen at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected {}", Address::EXPECTED)]
pub struct InvalidAddress;

/// A value of the configuration that is written as a text.
pub(super) trait Written: FromStr {
    /// What an error asks for.
    const EXPECTED: &'static str;
}

/// Reads a [`Written`] value. Its error is what serde calls a wrong value: other messages are not shown where they happen
/// to repeat what was written, and `8080` is in every example of an address.
pub(super) fn read_written<'de, T: Written, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_str(WrittenVisitor(PhantomData))
}

struct WrittenVisitor<T>(PhantomData<T>);

impl<T: Written> Visitor<'_> for WrittenVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Other("another text"), &self))
    }
}

impl Written for Address {
    const EXPECTED: &'static str = "an address and a port such as \"127.0.0.1:8080\", \"unix:\" and an absolute path, or \"systemd:\" and a name";
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_written(deserializer)
    }
}

impl Address {
    /// Address and port, where it is no Unix socket.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) | Address::Passed(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Some(name) = text.strip_prefix(PASSED) {
            let is_name = name.chars().all(|c| c.is_ascii_graphic() && c != ':');
            let fits = (1..=PASSED_NAME_CHARS_MAX).contains(&name.len());
            return if is_name && fits { Ok(Address::Passed(name.to_owned())) } else { Err(InvalidAddress) };
        }
        match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') && !path.ends_with('/') => Ok(Address::Unix(path.into())),
            Some(_) => Err(InvalidAddress),
            None => text.parse().map(Address::Tcp).map_err(|_| InvalidAddress),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Address::Passed(name) => write!(f, "{PASSED}{name}"),
        }
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

/// A place to listen at and what is spoken there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// HTTP over TLS, and nothing else.
    pub speaks_tls: bool,
}

impl fmt::Display for Endpoint {
    /// As the base of a URL; what has none is shown as in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.speaks_tls) {
            (Address::Tcp(address), true) => write!(f, "https://{address}"),
            (Address::Tcp(address), false) => write!(f, "http://{address}"),
            (other @ (Address::Unix(_) | Address::Passed(_)), _) => other.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/hookbus/ingress.sock", "systemd:hookbus.socket"]
        {
            assert_eq!(text.parse::<Address>().map(String::from), Ok(text.to_owned()));
        }
        for text in [
            "",
            "8080",
            "localhost:80",
            "127.0.0.1",
            "unix:",
            "unix:here.sock",
            "unix:/run/",
            "/run/x",
            "systemd:",
            "systemd:a b",
        ] {
            assert_eq!(text.parse::<Address>(), Err(InvalidAddress), "{text}");
        }
    }

    #[test]
    fn an_endpoint_shows_what_to_type() {
        for (address, speaks_tls, shown) in [
            ("127.0.0.1:80", false, "http://127.0.0.1:80"),
            ("[::1]:443", true, "https://[::1]:443"),
            ("unix:/run/x", false, "unix:/run/x"),
        ] {
            let endpoint = Endpoint { address: address.parse().unwrap(), speaks_tls };
            assert_eq!(endpoint.to_string(), shown);
        }
    }
}
