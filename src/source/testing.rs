//! What the tests of the dialects share: a source from a few lines of configuration, a post to it.
#![cfg(test)]

use super::{Arrival, ConfiguredSource, Head, Peer, Refused, Request, Unreadable};
use crate::config::{ConfigErrors, Layers};
use crate::envelope::{Envelope, SourceName};
use crate::time::UnixMs;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// 2026-11-21T00:00:00Z, the arrival of every post.
pub(super) const ARRIVAL: UnixMs = UnixMs(1_795_219_200_000);

/// The source `inbox` with what stands in `[sources.inbox]` and below.
pub(super) fn configured(section: &str) -> Result<ConfiguredSource, ConfigErrors> {
    let layers = Layers::load(Some(section), None, &[])?;
    ConfiguredSource::parse(SourceName::new("inbox").unwrap(), &layers.root())
}

pub(super) struct Post {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) path_secret_matched: bool,
}

impl Post {
    pub(super) fn of(body: impl AsRef<[u8]>) -> Self {
        let body = Bytes::copy_from_slice(body.as_ref());
        Post { headers: HeaderMap::new(), body, path_secret_matched: false }
    }

    pub(super) fn with(mut self, header: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(header.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
        self
    }

    pub(super) fn with_path_secret(mut self) -> Self {
        self.path_secret_matched = true;
        self
    }

    pub(super) fn read(&self, source: &ConfiguredSource) -> Result<Envelope, Unreadable> {
        let mut envelopes = source.read(&self.request(source))?;
        assert_eq!(envelopes.len(), 1, "one post is one event");
        Ok(envelopes.remove(0))
    }

    pub(super) fn authenticate(&self, source: &ConfiguredSource) -> Result<(), Refused> {
        source.dialect.authenticate(&self.request(source).head)
    }

    fn request<'a>(&'a self, source: &'a ConfiguredSource) -> Request<'a> {
        Request {
            head: Head {
                source: &source.name,
                peer: Peer::NONE,
                path: "/hooks/x",
                method: &Method::POST,
                path_secret_matched: self.path_secret_matched,
                query: None,
                headers: &self.headers,
                rate: None,
            },
            body: &self.body,
            arrival: Arrival { at: ARRIVAL, unique: uuid::Uuid::now_v7() },
        }
    }
}

/// An extension's text; empty where it is absent.
pub(super) fn extension(envelope: &Envelope, name: &str) -> String {
    envelope.attribute(name).map(|text| text.into_owned()).unwrap_or_default()
}
