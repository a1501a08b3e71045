//! Base URLs as the configuration writes them: where an API is, where others reach this daemon.
//! Holds: nothing in one is secret, so it may be printed: credentials, queries and fragments are refused.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The most bytes of one.
const BYTES_MAX: usize = 512;

/// `https://hooks.example.com` or `http://127.0.0.1:8080/prefix`: scheme, host, perhaps a port and a path that leads to
/// something; kept without the slash at its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpUrl {
    text: String,
    host: String,
    authority: String,
}

/// Why a text is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected a URL such as \"https://hooks.example.com\", without credentials, query and fragment")]
pub struct InvalidHttpUrl;

impl HttpUrl {
    /// As text, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// Host and, where one is written, port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
    /// Its scheme is `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.text.starts_with("https://")
    }
    /// It leads to this machine itself, by name or address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let address = self.host.trim_matches(['[', ']']).parse();
        self.host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl FromStr for HttpUrl {
    type Err = InvalidHttpUrl;
    fn from_str(text: &str) -> Result<Self, InvalidHttpUrl> {
        let text = text.trim().trim_end_matches('/');
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() > BYTES_MAX || !is_visible || text.contains(['#', '?', '@', '\\', '%']) {
            return Err(InvalidHttpUrl);
        }
        let uri: http::Uri = text.parse().map_err(|_| InvalidHttpUrl)?;
        let authority = uri.authority().ok_or(InvalidHttpUrl)?;
        let has_odd_segment =
            uri.path().split('/').skip(1).any(|part| matches!(part, "." | "..")) || uri.path().contains("//");
        // One reader takes brackets around anything and ports of any size, the other reads hosts in more ways than are meant.
        if !matches!(uri.scheme_str(), Some("http" | "https"))
            || reqwest::Url::parse(text).is_err()
            || authority.host().is_empty()
            || has_odd_segment
        {
            return Err(InvalidHttpUrl);
        }
        let (scheme, path) = (uri.scheme_str().unwrap_or_default(), uri.path().trim_end_matches('/'));
        // Host names know no case, and both ends of a comparison should be written in one.
        let written = authority.as_str().to_ascii_lowercase();
        Ok(HttpUrl {
            text: format!("{scheme}://{written}{path}"),
            host: authority.host().to_ascii_lowercase(),
            authority: written,
        })
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = InvalidHttpUrl;
    fn try_from(text: String) -> Result<Self, InvalidHttpUrl> {
        text.parse()
    }
}

impl From<HttpUrl> for String {
    fn from(url: HttpUrl) -> String {
        url.text
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_scheme_host_port_and_path_and_nothing_else() {
        for (sentence, text, read) in [
            ("a host", "https://hooks.example.com", Some("https://hooks.example.com")),
            (
                "the slash at its end is dropped",
                "https://hooks.example.com/",
                Some("https://hooks.example.com"),
            ),
            ("hosts know no case", "HTTPS://Hooks.Example.com", Some("https://hooks.example.com")),
            ("a port and a path", "http://127.0.0.1:8080/bus/", Some("http://127.0.0.1:8080/bus")),
            ("an IPv6 address", "https://[::1]:8443", Some("https://[::1]:8443")),
            ("credentials", "https://user:password@hooks.example.com", None),
            ("a query", "https://hooks.example.com/?token=1", None),
            ("a fragment", "https://hooks.example.com/#a", None),
            ("a path that climbs", "https://hooks.example.com/a/../b", None),
            ("an empty segment", "https://hooks.example.com//b", None),
            ("another scheme", "ftp://hooks.example.com", None),
            ("no scheme", "hooks.example.com", None),
            ("what no terminal should be shown", "https://hooks.example.com/\u{85}/", None),
            ("no host", "https://", None),
            ("brackets around no address", "https://[]", None),
            ("a port that is none", "https://hooks.example.com:99999", None),
            ("nothing", "", None),
            ("no URL", "not a url", None),
        ] {
            let url = text.parse::<HttpUrl>().ok();
            assert_eq!(url.as_ref().map(HttpUrl::as_str), read, "{sentence}");
        }
    }

    #[test]
    fn it_knows_its_scheme_and_whether_it_leads_to_this_machine() {
        for (text, is_https, is_loopback) in [
            ("https://hooks.example.com", true, false),
            ("http://127.0.0.1:8080", false, true),
            ("http://localhost:1", false, true),
            ("http://[::1]:1", false, true),
            ("http://10.0.0.1", false, false),
            ("http://localhost.example.com", false, false),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!((url.is_https(), url.is_loopback()), (is_https, is_loopback), "{text}");
        }
    }
}
