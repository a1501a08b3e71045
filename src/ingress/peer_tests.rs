//! Who a request is from, with honest proxies, confused ones, and strangers who write whatever they like.

use super::*;
use proptest::prelude::*;

/// The proxies of these tests.
const TRUSTED: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

fn caller(address: &str) -> Caller {
    Caller {
        address: address.parse().unwrap(),
        scheme: "http",
        certificate_names: vec!["its name".to_owned()],
    }
}

fn head(headers: &[(&str, &str)]) -> request::Parts {
    let mut request = http::Request::post("/hooks/x").header(HOST, "inside:8080");
    for (name, value) in headers {
        request = request.header(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

/// Address, scheme and authority, as `address scheme authority`.
fn peer(from: &str, headers: &[(&str, &str)]) -> String {
    let proxies = Proxies(TRUSTED.map(|network| network.parse().unwrap()).to_vec());
    let (caller, head) = (caller(from), head(headers));
    let peer = proxies.peer(&caller, &head);
    assert_eq!(peer.certificate_names, ["its name"], "the certificate is the connection's");
    let address = peer.address.map_or_else(|| "nobody".to_owned(), |address| address.to_string());
    format!("{address} {} {}", peer.scheme, peer.authority)
}

const PROXY: &str = "10.0.0.1";
const SELF: &str = "10.0.0.1 http inside:8080";
const NOBODYS: &str = "nobody http inside:8080";

#[test]
fn without_a_trusted_proxy_the_headers_mean_nothing() {
    let all = [
        ("forwarded", "for=9.9.9.9;proto=https;host=evil.test"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.test"),
    ];
    assert_eq!(peer("192.0.2.1", &all), "192.0.2.1 http inside:8080");
    assert_eq!(peer("192.0.2.1", &[]), "192.0.2.1 http inside:8080");
    assert_eq!(peer("::ffff:192.0.2.1", &all), "192.0.2.1 http inside:8080", "IPv4 on an IPv6 listener");
}

#[test]
fn x_forwarded_for_is_read_from_the_right() {
    for (sentence, lines, expected) in [
        ("one client", &["192.0.2.1"][..], "192.0.2.1"),
        ("a client that claims to be another", &["9.9.9.9, 192.0.2.1"], "192.0.2.1"),
        ("two proxies", &["9.9.9.9, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("a line of each", &["9.9.9.9", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),
        ("a client inside", &["10.3.0.1, 10.0.0.2"], "10.3.0.1"),
        ("with a port", &["192.0.2.1:50123"], "192.0.2.1"),
        ("IPv6", &["2001:db8::1"], "2001:db8::1"),
        ("IPv6 in brackets", &["[2001:db8::1]"], "2001:db8::1"),
        ("IPv6 with a port", &["[2001:db8::1]:443"], "2001:db8::1"),
        ("IPv4 written as IPv6", &["::ffff:192.0.2.1"], "192.0.2.1"),
        ("a trusted one written as IPv6", &["192.0.2.1, ::ffff:10.0.0.2"], "192.0.2.1"),
        ("rubbish of the client's", &["é\"',,x, 192.0.2.1", "10.0.0.2"], "nobody"),
        ("rubbish in a line of its own", &["\"',,x", "192.0.2.1"], "192.0.2.1"),
        ("no address", &["unknown"], "nobody"),
        ("a name", &["client.test, 10.0.0.2"], "nobody"),
        ("nothing", &[""], "nobody"),
        ("any address", &["0.0.0.0"], "nobody"),
        ("any address of IPv6, with a port", &["[::]:80"], "nobody"),
        ("a comma too many", &["192.0.2.1,"], "nobody"),
    ] {
        let headers: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let expected = format!("{expected} http inside:8080");
        assert_eq!(peer(PROXY, &headers), expected, "{sentence}");
    }
}

#[test]
fn forwarded_is_read_from_the_right_with_the_scheme_and_host_of_the_same_hop() {
    for (sentence, lines, expected) in [
        ("one client", &["for=192.0.2.1"][..], "192.0.2.1 http inside:8080"),
        (
            "all that can be said",
            &["For=\"192.0.2.1:50123\";Proto=HTTPS;Host=\"hooks.test:8443\";by=10.0.0.1;ext=1"],
            "192.0.2.1 https hooks.test:8443",
        ),
        ("IPv6", &["for=\"[2001:db8::1]:443\""], "2001:db8::1 http inside:8080"),
        (
            "two proxies: the client's own words are those to the outer one",
            &[
                "for=9.9.9.9;host=evil.test, for=192.0.2.1;proto=https;host=hooks.test , for=10.0.0.2;proto=http;host=mid",
            ],
            "192.0.2.1 https hooks.test",
        ),
        ("lines of their own", &["for=9.9.9.9", "for=192.0.2.1"], "192.0.2.1 http inside:8080"),
        ("rubbish in the client's line", &["for=\"", "for=192.0.2.1"], "192.0.2.1 http inside:8080"),
        ("an open quote before the proxy's word", &["for=9.9.9.9;x=\", for=192.0.2.1"], NOBODYS),
        ("the same before quotes", &["for=9.9.9.9;x=\", for=\"[2001:db8::1]\""], NOBODYS),
        ("an escape at the end", &["for=9.9.9.9;x=\"\\, for=\"192.0.2.1\""], NOBODYS),
        ("said twice", &["for=9.9.9.9;for=192.0.2.1"], NOBODYS),
        ("not said", &["proto=https;host=hooks.test"], NOBODYS),
        ("hidden", &["for=_hidden"], NOBODYS),
        ("unknown", &["for=unknown;proto=https"], NOBODYS),
        ("nothing", &[""], NOBODYS),
        ("a scheme that is none", &["for=192.0.2.1;proto=gopher"], "192.0.2.1 http inside:8080"),
        ("a host that is none", &["for=192.0.2.1;host=\"a b\""], NOBODYS),
    ] {
        let headers: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
        assert_eq!(peer(PROXY, &headers), expected, "{sentence}");
    }
}

#[test]
fn scheme_and_host_are_the_nearest_proxys() {
    for (sentence, headers, expected) in [
        ("a proxy that says nothing", &[][..], SELF),
        (
            "the three usual headers",
            &[
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-proto", "http, https"),
                ("x-forwarded-host", "evil.test, hooks.test"),
            ],
            "192.0.2.1 https hooks.test",
        ),
        ("no address", &[("x-forwarded-proto", "https")], "10.0.0.1 https inside:8080"),
        (
            "who they are for is not known",
            &[("x-forwarded-for", "x"), ("x-forwarded-proto", "https")],
            NOBODYS,
        ),
        ("a host with a user", &[("x-forwarded-host", "a@b")], SELF),
        (
            "both families in agreement",
            &[
                ("forwarded", "for=192.0.2.1;proto=https;host=hooks.test"),
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-proto", "https"),
            ],
            "192.0.2.1 https inside:8080",
        ),
        (
            "one of the two is a stranger's",
            &[("forwarded", "for=9.9.9.9;proto=https"), ("x-forwarded-for", "192.0.2.1")],
            NOBODYS,
        ),
        (
            "one that says no address contradicts nobody",
            &[("forwarded", "for=192.0.2.1;proto=https"), ("x-forwarded-proto", "https")],
            "192.0.2.1 https inside:8080",
        ),
    ] {
        assert_eq!(peer(PROXY, headers), expected, "{sentence}");
    }
}

#[test]
fn a_chain_without_an_end_is_nobodys() {
    let of = |proxies: usize| format!("192.0.2.1{}", ", 10.0.0.2".repeat(proxies));
    assert_eq!(peer(PROXY, &[("x-forwarded-for", &of(HOPS_MAX - 1))]), "192.0.2.1 http inside:8080");
    assert_eq!(peer(PROXY, &[("x-forwarded-for", &of(HOPS_MAX))]), NOBODYS);
}

/// What a stranger might put into a header: rubbish, and what looks like the real thing.
fn claim() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("for=".to_owned()),
        Just("9.9.9.9".to_owned()),
        Just("10.0.0.9".to_owned()),
        Just("\"[2001:db8::bad]:1\"".to_owned()),
        Just("proto=https;host=evil.test".to_owned()),
        "[\",;= \\\\\\[\\]:a-z0-9._é-]{0,4}",
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// How a proxy adds what it knows to what came.
#[derive(Clone, Copy, Debug)]
enum Style {
    Append,
    Line,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_stranger_never_chooses_their_address(
        x_claims in prop::collection::vec(claim(), 0..3),
        claims in prop::collection::vec(claim(), 0..3),
        style in prop_oneof![Just(Style::Append), Just(Style::Line)],
        writes_forwarded in any::<bool>(),
        quotes in any::<bool>(),
        proxies in 1..4_usize,
    ) {
        let real = "192.0.2.1";
        let (mut x_lines, mut lines) = (x_claims, claims);
        for hop in 0..proxies {
            let before = if hop == 0 { real.to_owned() } else { format!("10.0.0.{hop}") };
            let (written, word) = match (writes_forwarded, quotes) {
                (false, _) => (&mut x_lines, before),
                (true, false) => (&mut lines, format!("for={before};proto=https")),
                (true, true) => (&mut lines, format!("for=\"{before}:50123\";host=\"hooks.test\"")),
            };
            match (style, written.last_mut()) {
                (Style::Append, Some(last)) => *last = format!("{last}, {word}"),
                _ => written.push(word),
            }
        }
        let lines = lines.iter().map(|line| ("forwarded", line.as_str()));
        let headers: Vec<_> = lines.chain(x_lines.iter().map(|line| ("x-forwarded-for", line.as_str()))).collect();
        let seen = peer(PROXY, &headers);
        let address = seen.split(' ').next().unwrap();
        prop_assert!(address == real || address == "nobody", "{seen} of {headers:?}");
        prop_assert!(!seen.contains("evil"), "{seen} of {headers:?}");

        let direct = peer("198.51.100.7", &headers);
        prop_assert_eq!(direct, "198.51.100.7 http inside:8080");
    }
}
