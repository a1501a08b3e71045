//! Fuzzing of what a connection brings before a dialect sees it: who the proxies say it is, content codings, addresses
//! to listen at.
//! Holds: nobody chooses their own address; no coding yields more than is allowed.

use super::address::Address;
use super::inflate::{Coding, HARMLESS_BYTES_MAX, codings, inflate};
use super::peer::{Caller, Proxies};
use crate::fuzz_tests::{RawRequest, Target, Verdict, run, texts};
use crate::source::Peer;
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue, Request};
use std::io::Write;
use std::net::IpAddr;

static TARGETS: &[Target] = &[
    Target { name: "trusted proxies", seeds: proxy_seeds, check: proxies },
    Target { name: "content codings", seeds: coding_seeds, check: coded },
    Target {
        name: "listen address",
        seeds: || texts(&["127.0.0.1:8080", "[::1]:0", "unix:/run/hookbus/ingress.sock"]),
        check: listen,
    },
];

/// The client as the proxy itself has seen it.
const CLIENT: &str = "203.0.113.9";

fn proxy_seeds() -> Vec<Vec<u8>> {
    let input = |headers: &[(&str, &str)]| RawRequest::write("", headers, b"");
    vec![
        input(&[("x-forwarded-for", "9.9.9.9, 192.0.2.1, 10.0.0.2"), ("x-forwarded-proto", "https")]),
        input(&[("x-forwarded-for", "[2001:db8::1]:443"), ("x-forwarded-host", "bus.example.com:8443")]),
        input(&[
            ("forwarded", "for=\"[2001:db8::1]:80\";proto=https;host=a.test, for=10.0.0.2"),
            ("host", "h"),
        ]),
        input(&[("forwarded", "for=_hidden;by=10.0.0.1"), ("forwarded", "For=192.0.2.1")]),
        input(&[("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "192.0.2.1")]),
    ]
}

fn address_of(trusted: bool, headers: &HeaderMap) -> Option<IpAddr> {
    let proxies = Proxies(["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap()).to_vec());
    let from = if trusted { "10.0.0.1" } else { "198.51.100.7" };
    let caller = Caller { address: from.parse().unwrap(), scheme: "http", certificate_names: Vec::new() };
    let (mut head, ()) = Request::new(()).into_parts();
    head.headers = headers.clone();
    let Peer { address, scheme, authority, .. } = proxies.peer(&caller, &head);
    assert!(["http", "https"].contains(&scheme));
    let is_told = headers.values().any(|value| String::from_utf8_lossy(value.as_bytes()).contains(authority));
    assert!(is_told, "an authority that nobody wrote");
    address
}

fn proxies(input: &[u8]) -> Verdict {
    let headers = RawRequest::read(input).headers;
    if headers.is_empty() {
        return Err("no headers".to_owned());
    }
    assert_eq!(
        address_of(false, &headers),
        "198.51.100.7".parse().ok(),
        "from others the headers mean nothing"
    );
    let said = address_of(true, &headers);
    // What a stranger wrote, and after it what the proxy adds: on a line of its own, or on the stranger's.
    let client: IpAddr = CLIENT.parse().unwrap();
    for (name, added) in [("x-forwarded-for", CLIENT.to_owned()), ("forwarded", format!("for={CLIENT}"))] {
        let mut passed_on = headers.clone();
        passed_on.append(name, HeaderValue::from_str(&added).unwrap());
        let seen = address_of(true, &passed_on);
        assert!(seen.is_none_or(|seen| seen == client), "{name}: a stranger became {seen:?}");
        let Some(before) = headers.get_all(name).iter().next_back() else { continue };
        let mut line = before.as_bytes().to_vec();
        line.extend_from_slice(format!(", {added}").as_bytes());
        passed_on.insert(name, HeaderValue::from_bytes(&line).unwrap());
        let seen = address_of(true, &passed_on);
        assert!(seen.is_none_or(|seen| seen == client), "{name}, one line: a stranger became {seen:?}");
    }
    said.map(|_| ()).ok_or_else(|| "nobody".to_owned())
}

/// The most bytes that may come out.
const BYTES_MAX: usize = 200_000;

fn coding_seeds() -> Vec<Vec<u8>> {
    let plain = b"{\"a\":1,\"b\":\"some text, some text\"}".repeat(3);
    let level = flate2::Compression::default();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
    gzip.write_all(&plain).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
    zlib.write_all(&plain).unwrap();
    let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), level);
    raw.write_all(&plain).unwrap();
    let bomb = zstd::stream::encode_all(&vec![0; 1 << 20][..], 3).unwrap();
    let twice = zstd::stream::encode_all(&gzip.finish().unwrap()[..], 3).unwrap();
    // One uncompressed meta-block of "ab" (RFC 7932, section 9.2).
    let brotli = [0x10, 0x00, 0x10, b'a', b'b', 0x03];
    let input = |coding, body: &[u8]| RawRequest::write("", &[("content-encoding", coding)], body);
    vec![
        input("deflate", &zlib.finish().unwrap()),
        input("deflate", &raw.finish().unwrap()),
        input("zstd", &bomb),
        input("gzip, zstd", &twice),
        input("br", &brotli),
        input("identity", b"plain"),
    ]
}

fn coded(input: &[u8]) -> Verdict {
    let request = RawRequest::read(input);
    let one_line = request.headers.get(CONTENT_ENCODING).cloned();
    let layers = codings(&request.headers).ok_or("a coding that is not known")?;
    assert!(one_line.is_some() || layers.is_empty());
    let plain =
        inflate(request.body.clone(), &layers, BYTES_MAX, 10).map_err(|error| format!("{error:?}"))?;
    let allowed = (request.body.len() * 10).clamp(HARMLESS_BYTES_MAX, BYTES_MAX);
    assert!(layers.is_empty() || plain.len() <= allowed, "more came out than is allowed");
    for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
        let again = inflate(request.body.clone(), &[coding], BYTES_MAX, 10);
        assert!(again.is_err() || again == inflate(Bytes::clone(&request.body), &[coding], BYTES_MAX, 10));
    }
    Ok(())
}

fn listen(input: &[u8]) -> Verdict {
    let text = std::str::from_utf8(input).map_err(|_| "no text".to_owned())?;
    let address: Address = text.parse().map_err(|_| "no address".to_owned())?;
    assert_eq!(address.to_string().parse(), Ok(address));
    Ok(())
}

#[test]
fn what_comes_before_the_dialect_holds_for_every_input() {
    run(TARGETS);
}
