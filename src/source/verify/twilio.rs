//! Twilio's scheme (<https://www.twilio.com/docs/usage/webhooks/webhooks-security>): the whole URL as Twilio has it, then
//! the sorted fields of a form; of any other body a digest stands in the query.
//! Holds: a body that neither is a form nor has its digest in the query is never taken: nothing would cover it.

use super::{Encoding, HmacKeys, Scheme, header_value, single};
use crate::source::form::Form;
use crate::source::payload::{FORM, essence};
use crate::source::{CannotSign, Draft, Head, Proof, Refused, Request};
use http::header::CONTENT_TYPE;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Uri};
use sha2::{Digest, Sha256};

static SIGNATURE: [HeaderName; 1] = [HeaderName::from_static("x-twilio-signature")];
/// Names the algorithm where it is not HMAC-SHA1: `key=…,algorithm=HMAC_SHA256`.
static SETTINGS: HeaderName = HeaderName::from_static("x-twilio-webhooks-signature-settings");
/// The query parameter with the digest of a body that is no form.
const BODY_DIGEST: &str = "bodySHA256";

/// The scheme with its keys.
pub(in crate::source) struct TwilioUrl {
    sha1: HmacKeys,
    sha256: HmacKeys,
    public: Option<PublicUrl>,
}

/// The URL as Twilio has it, where that is not how the request arrives.
pub(in crate::source) struct PublicUrl {
    scheme: String,
    authority: String,
    /// None: the path as it arrives.
    path: Option<String>,
}

impl PublicUrl {
    /// Reads `https://host[:port][/path]`; the query is always the one that arrives.
    pub(in crate::source) fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected a URL such as \"https://hooks.example.com\", with the path where that changes on the way";
        let uri: Uri = text.trim().parse().map_err(|_| EXPECTED)?;
        if uri.query().is_some() || text.contains('#') {
            return Err(
                "stands without a query and without overrides: the query that arrives is the one that is signed",
            );
        }
        match (uri.scheme_str(), uri.authority()) {
            (Some(scheme @ ("http" | "https")), Some(authority)) => Ok(PublicUrl {
                scheme: scheme.to_owned(),
                authority: authority.as_str().to_owned(),
                path: Some(uri.path()).filter(|path| *path != "/").map(str::to_owned),
            }),
            _ => Err(EXPECTED),
        }
    }
}

/// What is signed before the fields.
struct Url<'a> {
    scheme: &'a str,
    /// Without and with the port: Twilio signs either.
    authorities: [String; 2],
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Url<'a> {
    fn new(scheme: &'a str, authority: &str, path: &'a str, query: Option<&'a str>) -> Self {
        Url { scheme, authorities: with_and_without_port(scheme, authority), path, query }
    }

    /// The URL in pieces, with the fields after it.
    fn signed<'s>(&'s self, authority: &'s str, fields: &'s [(&[u8], &[u8])]) -> Vec<&'s [u8]> {
        let mut parts: Vec<&[u8]> =
            vec![self.scheme.as_bytes(), b"://", authority.as_bytes(), self.path.as_bytes()];
        if let Some(query) = self.query {
            parts.extend([&b"?"[..], query.as_bytes()]);
        }
        parts.extend(fields.iter().flat_map(|(name, value)| [*name, *value]));
        parts
    }
}

fn with_and_without_port(scheme: &str, authority: &str) -> [String; 2] {
    let Ok(parsed) = authority.parse::<Authority>() else {
        return [authority.to_owned(), authority.to_owned()];
    };
    let user = authority.rsplit_once('@').map(|(user, _)| format!("{user}@")).unwrap_or_default();
    let port = parsed.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let host = parsed.host();
    [format!("{user}{host}"), format!("{user}{host}:{port}")]
}

impl TwilioUrl {
    /// The keys must be of SHA-1 and SHA-256, of the same secrets.
    pub(in crate::source) fn new(sha1: HmacKeys, sha256: HmacKeys, public: Option<PublicUrl>) -> Self {
        TwilioUrl { sha1, sha256, public }
    }

    fn keys(&self, headers: &HeaderMap) -> Result<&HmacKeys, Refused> {
        let settings = headers.get(&SETTINGS).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let algorithm = settings.iter().flat_map(|text| text.split(',')).find_map(|setting| {
            let (name, value) = setting.split_once('=')?;
            (name.trim() == "algorithm").then(|| value.trim().to_ascii_uppercase())
        });
        match algorithm.as_deref() {
            None | Some("" | "HMAC_SHA1") => Ok(&self.sha1),
            Some("HMAC_SHA256") => Ok(&self.sha256),
            Some(_) => Err(Refused::Wrong),
        }
    }

    fn claim(&self, headers: &HeaderMap) -> Result<(&HmacKeys, Vec<u8>), Refused> {
        let signature = single(headers, &SIGNATURE[0])?;
        let keys = self.keys(headers)?;
        let signature = Encoding::Base64.decode(signature).ok_or(Refused::Wrong)?;
        if signature.len() == keys.signature_len() { Ok((keys, signature)) } else { Err(Refused::Wrong) }
    }

    fn url<'a>(&'a self, scheme: &'a str, authority: &str, path: &'a str, query: Option<&'a str>) -> Url<'a> {
        match &self.public {
            None => Url::new(scheme, authority, path, query),
            Some(public) => {
                Url::new(&public.scheme, &public.authority, public.path.as_deref().unwrap_or(path), query)
            }
        }
    }
}

/// The fields as they are signed: sorted by name and value, each pair once.
fn sorted<'f>(form: &'f Form<'_>) -> Vec<(&'f [u8], &'f [u8])> {
    let mut fields: Vec<_> = form.fields().collect();
    fields.sort_unstable();
    fields.dedup();
    fields
}

fn digest_hex(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

fn is_form(media_type: Option<&str>) -> bool {
    media_type.is_some_and(|text| essence(text) == FORM)
}

/// The form of a body that its signature covers field by field; of any other body no field at all, but its digest must
/// be in the query.
fn covered<'a>(request: &Request<'a>) -> Result<Form<'a>, Refused> {
    let media_type = request.head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if is_form(media_type) {
        let form = Form::read(request.body);
        return if form.is_cut { Err(Refused::Wrong) } else { Ok(form) };
    }
    let query = Form::read(request.head.query.unwrap_or_default().as_bytes());
    let is_covered = match query.bytes(BODY_DIGEST) {
        Some(digest) => digest.eq_ignore_ascii_case(digest_hex(request.body).as_bytes()),
        None => request.body.is_empty(),
    };
    if is_covered { Ok(Form::default()) } else { Err(Refused::Wrong) }
}

impl Scheme for TwilioUrl {
    fn headers(&self) -> &[HeaderName] {
        &SIGNATURE
    }

    fn present(&self, head: &Head<'_>) -> Result<(), Refused> {
        self.claim(head.headers).map(|_| ())
    }

    fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        let (keys, signature) = self.claim(request.head.headers)?;
        let (head, peer) = (&request.head, &request.head.peer);
        let form = covered(request)?;
        let fields = sorted(&form);
        let url = self.url(peer.scheme, peer.authority, head.path, head.query);
        let presented = [signature];
        let matches = |authority: &String| keys.match_any(&url.signed(authority, &fields), &presented);
        let matched = url.authorities.each_ref().map(matches);
        if matched.contains(&true) { Ok(()) } else { Err(Refused::Wrong) }
    }

    fn sign(&self, draft: &Draft<'_>) -> Result<Proof, CannotSign> {
        let authority = draft.uri.authority().map(Authority::as_str).unwrap_or_default();
        let is_form = is_form(Some(draft.content_type));
        let mut proof = Proof::default();
        let form = if is_form { Form::read(draft.body) } else { Form::default() };
        if !is_form {
            proof.query = Some(format!("{BODY_DIGEST}={}", digest_hex(draft.body)));
        }
        let scheme = draft.uri.scheme_str().unwrap_or("http");
        let url = self.url(scheme, authority, draft.uri.path(), proof.query.as_deref());
        let fields = sorted(&form);
        let [without_port, _] = &url.authorities;
        let signature = self.sha1.sign(&url.signed(without_port, &fields)).ok_or(CannotSign)?;
        proof.headers.insert(&SIGNATURE[0], header_value(&Encoding::Base64.encode(&signature)));
        Ok(proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_left_out_and_put_in() {
        for (scheme, authority, without, with) in [
            ("https", "a.test", "a.test", "a.test:443"),
            ("http", "a.test", "a.test", "a.test:80"),
            ("https", "a.test:8443", "a.test", "a.test:8443"),
            ("https", "user:word@a.test:8443", "user:word@a.test", "user:word@a.test:8443"),
            ("http", "[::1]:8080", "[::1]", "[::1]:8080"),
            ("https", "", "", ""),
            ("https", "not a host", "not a host", "not a host"),
        ] {
            assert_eq!(with_and_without_port(scheme, authority), [without, with], "{authority}");
        }
    }

    #[test]
    fn a_public_url_is_an_http_url_without_a_query() {
        for (text, is_taken) in [
            ("https://a.test", true),
            ("https://a.test:8443/in/SECRET", true),
            ("http://user:word@a.test/", true),
            ("a.test", false),
            ("ftp://a.test", false),
            ("https://a.test/?a=b", false),
            ("https://a.test/#rc=3", false),
            ("/in", false),
            ("", false),
        ] {
            assert_eq!(PublicUrl::parse(text).is_ok(), is_taken, "{text}");
        }
    }
}
