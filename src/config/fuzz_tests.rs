//! Fuzzing of the configuration's small parsers: sizes, periods, rates, networks and URLs.
//! Holds: what is read writes back as itself. The whole configuration is fuzzed where it is put together (`app`).

use super::{ByteSize, HttpUrl, Layers, Network, Period, Rate};
use crate::fuzz_tests::{Target, Verdict, run, texts};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

static TARGETS: &[Target] = &[
    Target {
        name: "sizes, periods, rates",
        seeds: || texts(&["10 gib", "1h 30m", "6000/m", "10/30s"]),
        check: units,
    },
    Target {
        name: "networks",
        seeds: || texts(&["10.1.0.0/16", "fd00::/8", "::ffff:10.0.0.1"]),
        check: networks,
    },
    Target {
        name: "base URLs",
        seeds: || texts(&["https://Hooks.example.com/", "http://127.0.0.1:8080/bus/", "https://[::1]:8443"]),
        check: urls,
    },
];

fn text(input: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(input).map_err(|_| "no text".to_owned())
}

#[derive(Deserialize)]
struct One<T> {
    key: T,
}

/// As the configuration reads it, and once more as it was written.
fn reads_back<T: DeserializeOwned + Serialize + PartialEq + Debug>(text: &str) -> Verdict {
    let read = |text: &str| {
        let file = serde_json::to_string(&serde_json::json!({ "key": text })).unwrap();
        let file = file.replacen(':', "=", 1).replacen("{\"key\"", "key", 1);
        let layers = Layers::load(file.strip_suffix('}'), None, &[]).map_err(|_| "no TOML".to_owned())?;
        layers.root().extract::<One<T>>().map(|one| one.key).map_err(|error| error.to_string())
    };
    let value = read(text)?;
    let written = serde_json::to_value(&value).unwrap();
    assert_eq!(read(written.as_str().unwrap()).as_ref(), Ok(&value), "{text:?} is written as {written}");
    Ok(())
}

fn units(input: &[u8]) -> Verdict {
    let text = text(input)?;
    reads_back::<ByteSize>(text).or(reads_back::<Period>(text)).or(reads_back::<Rate>(text))
}

fn networks(input: &[u8]) -> Verdict {
    let text = text(input)?;
    let network: Network = text.parse().map_err(|_| "no network".to_owned())?;
    assert_eq!(network.to_string().parse(), Ok(network));
    let address = text.split('/').next().unwrap_or_default().parse().unwrap();
    assert!(network.contains(address), "the address that it is written with is in it");
    reads_back::<Network>(text)
}

fn urls(input: &[u8]) -> Verdict {
    let text = text(input)?;
    let url: HttpUrl = text.parse().map_err(|_| "no URL".to_owned())?;
    assert_eq!(url.as_str().parse().as_ref(), Ok(&url), "it reads back as it was written");
    assert!(!url.as_str().contains(['@', '?', '#']), "what may be secret is refused");
    assert!(url.as_str().contains(url.authority()) && reqwest::Url::parse(url.as_str()).is_ok(), "{url}");
    let _ = (url.is_https(), url.is_loopback());
    Ok(())
}

#[test]
fn the_small_parsers_of_the_configuration_hold_for_every_text() {
    run(TARGETS);
}
