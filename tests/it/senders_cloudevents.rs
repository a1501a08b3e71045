//! CloudEvents in through the real ingress and out of every sink: what a receiver understands is what was sent,
//! attribute by attribute and byte by byte. The receiver here is written from the specification, not with our own code.
//! The contract of the sinks takes [`cases`], [`Understood`] and [`check_all`] from here, for every kind in both forms.

use crate::contract::{Arrived, Binding};
use crate::support::daemon::Daemon;
use crate::support::eventually;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What one request carries.
pub struct Case {
    pub sentence: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub events: Vec<Expected>,
}

/// One event as it was meant.
pub struct Expected {
    /// With their JSON types; `datacontenttype` is not among them.
    pub attributes: BTreeMap<String, Value>,
    pub media_type: Option<&'static str>,
    pub data: Payload,
}

/// The data of an event.
#[derive(Clone, PartialEq, Debug)]
pub enum Payload {
    Nothing,
    /// The very text of a JSON value.
    Json(String),
    Text(String),
    Bytes(Vec<u8>),
}

/// The form in which a sink hands an event on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Form {
    /// One JSON document; in a line of NDJSON a line break between tokens is a blank.
    Structured { in_a_line: bool },
    /// The data as they are, attributes beside them as text.
    Binary,
}

/// One event as a receiver understands it.
#[derive(Debug)]
pub struct Understood {
    pub attributes: BTreeMap<String, Value>,
    pub media_type: Option<String>,
    pub data: Payload,
}

impl Understood {
    /// Of a JSON document (JSON event format, sections 2 and 3).
    pub fn of_json(document: &str) -> Understood {
        let members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"));
        let mut attributes: BTreeMap<String, Value> = BTreeMap::new();
        let (mut data, mut encoded) = (None, None);
        for (name, raw) in &members {
            match name.as_str() {
                "data" => data = Some(raw.get().to_owned()),
                "data_base64" => encoded = Some(serde_json::from_str::<String>(raw.get()).unwrap()),
                _ => _ = attributes.insert(name.clone(), serde_json::from_str(raw.get()).unwrap()),
            }
        }
        let media_type = attributes.remove("datacontenttype").map(|value| value.as_str().unwrap().to_owned());
        let essence = media_type.as_deref().unwrap_or("application/json").split(';').next().unwrap();
        let essence = essence.trim().to_lowercase();
        let is_json = essence.ends_with("/json") || essence.ends_with("+json");
        let data = match (data, encoded) {
            (None, None) => Payload::Nothing,
            (None, Some(encoded)) => Payload::Bytes(STANDARD.decode(encoded).unwrap()),
            (Some(raw), None) if is_json => Payload::Json(raw),
            (Some(raw), None) => Payload::Text(serde_json::from_str(&raw).unwrap()),
            (Some(_), Some(_)) => panic!("both forms of data: {document}"),
        };
        Understood { attributes, media_type, data }
    }

    /// Of attributes as text (decoded as the protocol's binding wants), the content type and the data.
    pub fn of_binary(
        attributes: BTreeMap<String, String>,
        media_type: Option<String>,
        data: Vec<u8>,
    ) -> Understood {
        let attributes = attributes.into_iter().map(|(name, text)| (name, Value::from(text))).collect();
        let data = if data.is_empty() { Payload::Nothing } else { Payload::Bytes(data) };
        Understood { attributes, media_type, data }
    }

    /// Of what a sink's other side got, by the protocol's binding; without one there is only the document.
    pub fn of(arrived: &Arrived, binding: Option<Binding>, form: Form) -> Understood {
        let document = || Self::of_json(std::str::from_utf8(&arrived.body).unwrap());
        let Some(binding) = binding else { return document() };
        let media_type = |name: &str| arrived.headers.get(name).cloned();
        if form != Form::Binary {
            let marker = media_type(binding.structured_type).unwrap();
            assert!(marker.starts_with(STRUCTURED), "{marker}");
            return document();
        }
        let plain =
            |text: &String| if binding.percent_encoded { percent_decoded(text) } else { text.clone() };
        let named = arrived.headers.iter().filter(|(name, _)| *name != binding.binary_type);
        let named = named
            .filter_map(|(name, value)| Some((name.strip_prefix(binding.prefix)?.to_owned(), plain(value))));
        // Where it is a header among the others, it is encoded like them.
        let is_attribute = binding.binary_type.starts_with(binding.prefix);
        let media_type = media_type(binding.binary_type);
        let media_type = if is_attribute { media_type.as_ref().map(plain) } else { media_type };
        Self::of_binary(named.collect(), media_type, arrived.body.clone())
    }

    pub fn id(&self) -> &str {
        self.attributes["id"].as_str().unwrap()
    }
}

fn percent_decoded(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// What Hookbus adds to every event; all else must be as it was sent.
const ADDED: [&str; 3] = ["hookbussource", "receivedtime", "dedupe"];

/// Nothing is lost or altered.
pub fn check(sentence: &str, sent: &Expected, got: &Understood, form: Form) {
    let mut attributes = got.attributes.clone();
    for added in ADDED {
        assert!(
            attributes.remove(added).is_some() || sent.attributes.contains_key(added),
            "{sentence}: {added}"
        );
    }
    let canonical = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), if form == Form::Binary { Value::from(text) } else { value.clone() })
    };
    let wanted: BTreeMap<String, Value> = sent.attributes.iter().map(canonical).collect();
    assert_eq!(attributes, wanted, "{sentence}, {form:?}: attributes");
    assert_eq!(got.media_type.as_deref(), sent.media_type, "{sentence}, {form:?}: datacontenttype");
    let wanted = match (&sent.data, form) {
        (Payload::Json(text), Form::Structured { in_a_line }) => {
            // White space around a value is not of the value.
            let text = if in_a_line { text.replace(['\n', '\r'], " ") } else { text.clone() };
            Payload::Json(text.trim().to_owned())
        }
        (Payload::Json(text) | Payload::Text(text), Form::Binary) => {
            Payload::Bytes(text.clone().into_bytes())
        }
        (data, _) => data.clone(),
    };
    assert_eq!(got.data, wanted, "{sentence}, {form:?}: data");
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const XML: &str = "application/xml";
const STRUCTURED: &str = "application/cloudevents+json";
const OBJECT: &str = "{\"n\": 1.10, \"n\":12345678901234567890, \"é\":\"\\u00e9 ✅\" }";
const XML_DOCUMENT: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<much wow=\"xml\">é</much>";
/// `Euro € 😀`, a quotation mark, and a percent sign that is meant.
const ODD: &str = "Euro € 😀 \"100%25\"";
const ODD_ENCODED: &str = "Euro%20%E2%82%AC%20%F0%9F%98%80%20%22100%2525%22";

fn expected(id: &str, more: Value, media_type: Option<&'static str>, data: Payload) -> Expected {
    let mut attributes =
        json!({"specversion": "1.0", "id": id, "source": "/conformance", "type": "webhook.conformance"});
    attributes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Expected { attributes: serde_json::from_value(attributes).unwrap(), media_type, data }
}

/// A case in binary mode: `more` are attributes beside the required ones, each with its header's text.
fn binary(
    sentence: &'static str,
    more: &[(&'static str, &str, &str)],
    media_type: Option<&'static str>,
    body: &[u8],
    data: Payload,
) -> Case {
    let id = format!("binary {sentence}");
    let encoded_id = id.replace(' ', "%20").replace('"', "%22");
    let mut headers = vec![
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", encoded_id),
        ("ce-source", "/conformance".to_owned()),
        ("ce-type", "webhook.conformance".to_owned()),
    ];
    headers.extend(media_type.map(|media_type| ("content-type", media_type.to_owned())));
    let mut attributes = json!({});
    for (header, written, meant) in more {
        headers.push((header, (*written).to_owned()));
        attributes[header.trim_start_matches("ce-")] = (*meant).into();
    }
    let event = expected(&id, attributes, media_type, data);
    Case { sentence, headers, body: body.to_vec(), events: vec![event] }
}

/// A case in structured mode: `more` are the members beside the required attributes, as JSON.
fn structured(
    sentence: &'static str,
    content_type: &str,
    more: &str,
    attributes: Value,
    media_type: Option<&'static str>,
    data: Payload,
) -> Case {
    let id = format!("structured {sentence}");
    let body = document(&id, more);
    let headers = vec![("content-type", content_type.to_owned())];
    Case {
        sentence,
        headers,
        body: body.into_bytes(),
        events: vec![expected(&id, attributes, media_type, data)],
    }
}

fn document(id: &str, more: &str) -> String {
    format!(
        "{{\"specversion\" : \"1.0\",\n\"id\":{},\"source\":\"/conformance\",\"type\":\"webhook.conformance\"{more}}}\n",
        Value::from(id)
    )
}

fn text(text: &str) -> Payload {
    Payload::Text(text.to_owned())
}

fn value(text: &str) -> Payload {
    Payload::Json(text.to_owned())
}

fn in_binary_mode() -> Vec<Case> {
    let whole = |sentence, media_type, body: &str, data: fn(&str) -> Payload| {
        binary(sentence, &[], media_type, body.as_bytes(), data(body))
    };
    let bytes = |text: &str| Payload::Bytes(text.as_bytes().to_vec());
    vec![
        whole("ASCII text", Some(TEXT), "Hello, World!", text),
        whole("UTF-8 text with an emoji", Some("text/plain; charset=utf-8"), "Olá ✅ 😀", text),
        whole("a JSON string", Some(JSON), "\"hello\"", value),
        whole("a JSON object", Some(JSON), OBJECT, value),
        whole("a JSON array", Some("application/vnd.a+json"), "[1, \"2\",null]", value),
        whole("an XML document", Some(XML), XML_DOCUMENT, text),
        whole("text that ends in a newline", Some(TEXT), "line\r\nline\n", text),
        whole("JSON that ends in a newline", Some(JSON), "{\n \"a\": 1\n}\n", value),
        whole("XML that ends in a newline", Some(XML), "<a/>\n", text),
        binary(
            "bytes that end in a newline",
            &[],
            Some("image/png"),
            b"\x89PNG\0\n",
            Payload::Bytes(b"\x89PNG\0\n".to_vec()),
        ),
        binary("JSON without a Content-Type", &[], None, b"{\"a\":1}", value("{\"a\":1}")),
        binary("text without a Content-Type, with a newline", &[], None, b"hello\n", bytes("hello\n")),
        binary("JSON that is none", &[], Some(JSON), b"{\"a\":", bytes("{\"a\":")),
        binary(
            "text in another encoding",
            &[],
            Some("text/plain; charset=ISO-8859-1"),
            b"caf\xe9",
            Payload::Bytes(b"caf\xe9".to_vec()),
        ),
        binary(
            "percent-encoded attributes",
            &[
                ("ce-subject", ODD_ENCODED, ODD),
                ("ce-ext", ODD_ENCODED, ODD),
                ("ce-listed", "a,b=c,%20;d:e", "a,b=c, ;d:e"),
                ("ce-quoted", "\"a \\\"b\\\"\"", "a \"b\""),
            ],
            Some(TEXT),
            b"x",
            text("x"),
        ),
        binary(
            "an extension that holds a JSON string",
            &[
                ("ce-holds", "%22a%20\\%22JSON\\%22%20string%22", "\"a \\\"JSON\\\" string\""),
                ("ce-flag", "true", "true"),
            ],
            Some(JSON),
            b"{}",
            value("{}"),
        ),
        binary(
            "every optional attribute",
            &[
                ("ce-time", "2026-01-31T12:00:00.123456789+02:00", "2026-01-31T12:00:00.123456789+02:00"),
                ("ce-dataschema", "https://example.com/schema?v=1#a", "https://example.com/schema?v=1#a"),
                ("ce-partitionkey", "k", "k"),
                (
                    "ce-traceparent",
                    "00-11111111111111111111111111111111-2222222222222222-01",
                    "00-11111111111111111111111111111111-2222222222222222-01",
                ),
            ],
            Some(TEXT),
            b"x",
            text("x"),
        ),
        binary("no data", &[], None, b"", Payload::Nothing),
        binary("no data, but a media type", &[], Some(TEXT), b"", Payload::Nothing),
    ]
}

fn in_structured_mode() -> Vec<Case> {
    let plain = |sentence, more: String, media_type, data| {
        structured(sentence, STRUCTURED, &more, json!({}), media_type, data)
    };
    let string = |text: &str| Value::from(text).to_string();
    let of_type = |media_type: &str, text: &str| {
        format!(",\"datacontenttype\":\"{media_type}\",\"data\":{}", string(text))
    };
    vec![
        plain("ASCII text", of_type(TEXT, "Hello, World!"), Some(TEXT), text("Hello, World!")),
        plain(
            "UTF-8 text with an emoji and a newline",
            of_type(TEXT, "Olá ✅ 😀\n"),
            Some(TEXT),
            text("Olá ✅ 😀\n"),
        ),
        plain(
            "a JSON string",
            format!(",\"datacontenttype\":\"{JSON}\",\"data\":\"h\\u0065llo\""),
            Some(JSON),
            value("\"h\\u0065llo\""),
        ),
        plain("a JSON object, no media type", format!(",\"data\": {OBJECT} "), Some(JSON), value(OBJECT)),
        plain(
            "a JSON array over several lines",
            format!(",\"datacontenttype\":\"{JSON}\",\"data\":[1,\n 2\r\n]"),
            Some(JSON),
            value("[1,\n 2\r\n]"),
        ),
        plain("JSON null", ",\"data\":null".to_owned(), Some(JSON), value("null")),
        plain("an XML document", of_type(XML, XML_DOCUMENT), Some(XML), text(XML_DOCUMENT)),
        plain(
            "bytes",
            ",\"datacontenttype\":\"image/png\",\"data_base64\":\"iVBORwAK\"".to_owned(),
            Some("image/png"),
            Payload::Bytes(b"\x89PNG\0\n".to_vec()),
        ),
        plain(
            "JSON as bytes, without a media type",
            ",\"data_base64\":\"e30K\"".to_owned(),
            None,
            Payload::Bytes(b"{}\n".to_vec()),
        ),
        plain("no data", String::new(), None, Payload::Nothing),
        plain(
            "no data, but a media type",
            format!(",\"datacontenttype\":\"{XML}\""),
            Some(XML),
            Payload::Nothing,
        ),
        structured(
            "upper-case charset",
            "application/cloudevents+json; charset=UTF-8",
            ",\"data\":\"é\"",
            json!({}),
            Some(JSON),
            value("\"é\""),
        ),
        structured(
            "upper case all over",
            "APPLICATION/CLOUDEVENTS+JSON;CHARSET=\"UTF-8\"",
            ",\"data\":1",
            json!({}),
            Some(JSON),
            value("1"),
        ),
        structured(
            "typed extensions, one that holds a JSON string, one that is not set",
            STRUCTURED,
            &format!(
                ",\"flag\":true,\"off\":false,\"number\":-2147483648,\"holds\":\"\\\"a \\\\\\\"b\\\\\\\"\\\"\",\"unset\":null,\"odd\":{},\"data\":{{}}",
                string(ODD)
            ),
            json!({"flag": true, "off": false, "number": -2_147_483_648_i64, "holds": "\"a \\\"b\\\"\"", "odd": ODD}),
            Some(JSON),
            value("{}"),
        ),
        structured(
            "a long extension",
            STRUCTURED,
            &format!(",\"long\":\"{}\"", "x".repeat(5000)),
            json!({"long": "x".repeat(5000)}),
            None,
            Payload::Nothing,
        ),
    ]
}

/// What the specification's own conformance set exercises, and some of its traps.
pub fn cases() -> Vec<Case> {
    let documents = [
        document("batch 1", ",\"datacontenttype\":\"text/plain\",\"data\":\"a\\n\""),
        document("batch 2", ",\"data\":[1, 2]"),
        document("batch 3", ",\"data_base64\":\"AAE=\""),
    ];
    let batch = Case {
        sentence: "a batch",
        headers: vec![("content-type", "application/cloudevents-batch+json; charset=utf-8".to_owned())],
        body: format!("[{}]", documents.join(",")).into_bytes(),
        events: vec![
            expected("batch 1", json!({}), Some(TEXT), text("a\n")),
            expected("batch 2", json!({}), Some(JSON), value("[1, 2]")),
            expected("batch 3", json!({}), None, Payload::Bytes(vec![0, 1])),
        ],
    };
    in_binary_mode().into_iter().chain(in_structured_mode()).chain([batch]).collect()
}

/// Posts every case to `/hooks/events`; each must be taken.
pub async fn send_all(daemon: &Daemon, cases: &[Case]) {
    for case in cases {
        let mut request =
            daemon.http.post(format!("http://{}/hooks/events", daemon.ingress)).body(case.body.clone());
        for (name, value) in &case.headers {
            request = request.header(*name, value);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}: {}", case.sentence, answer.text().await.unwrap());
    }
}

/// Compares all that arrived with all that was sent; each event exactly once.
pub fn check_all(cases: &[Case], arrived: &[Understood], form: Form) {
    let sent = cases.iter().flat_map(|case| case.events.iter().map(|event| (case.sentence, event)));
    let mut count = 0;
    for (sentence, event) in sent {
        let id = event.attributes["id"].as_str().unwrap();
        let got: Vec<_> = arrived.iter().filter(|got| got.id() == id).collect();
        assert_eq!(got.len(), 1, "{sentence}, {form:?}: it arrives once");
        check(sentence, event, got[0], form);
        count += 1;
    }
    assert_eq!(arrived.len(), count, "{form:?}: nothing else arrives");
}

async fn understood_in(file: &Path, count: usize) -> Vec<Understood> {
    eventually(&format!("every event reaches {}", file.display()), || async {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        (whole.lines().count() >= count).then(|| whole.lines().map(Understood::of_json).collect())
    })
    .await
}

#[test]
fn the_check_sees_whatever_is_lost_or_altered() {
    let document = document(
        "x",
        ",\"hookbussource\":\"events\",\"receivedtime\":\"t\",\"dedupe\":\"strong\",\"flag\":true,\"data\":{\"n\": 1.10}",
    );
    let sent = expected("x", json!({"flag": true}), None, value("{\"n\": 1.10}"));
    let passes = |document: &str| {
        let got = Understood::of_json(document);
        std::panic::catch_unwind(|| check("", &sent, &got, Form::Structured { in_a_line: false })).is_ok()
    };
    assert!(passes(&document));
    for (sentence, from, to) in [
        ("a number written anew", "1.10", "1.1"),
        ("space within the data", "\"n\": ", "\"n\":"),
        ("a type that became text", "true", "\"true\""),
        ("an attribute that is gone", "\"flag\":true,", ""),
        ("an attribute that nobody sent", "\"flag\"", "\"new\":1,\"flag\""),
        ("a media type that nobody said", "\"flag\"", "\"datacontenttype\":\"application/json\",\"flag\""),
        ("data that became text", "{\"n\": 1.10}", "\"{\\\"n\\\": 1.10}\""),
        ("no data", ",\"data\":{\"n\": 1.10}", ""),
        ("what every event has, missing", "\"receivedtime\":\"t\",", ""),
    ] {
        assert!(!passes(&document.replacen(from, to, 1)), "{sentence}");
    }
}

#[tokio::test]
async fn an_event_is_known_by_source_and_id_and_a_batch_is_taken_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[sources.events.cloudevents]\n[sinks.file.file]\npath = \"events.ndjson\"\n";
    let daemon = Daemon::start(folder.path(), config).await;
    let batch = async |documents: &[String]| {
        let request = daemon.http.post(format!("http://{}/hooks/events", daemon.ingress));
        let request = request.header("content-type", "application/cloudevents-batch+json");
        let answer = request.body(format!("[{}]", documents.join(","))).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (one, two) = (document("one", ""), document("two", ""));
    let elsewhere = one.replace("/conformance", "/elsewhere");
    let broken = document("three", ",\"data\":1,\"data_base64\":\"AA==\"");
    let (status, problem) = batch(&[two.clone(), broken]).await;
    assert_eq!((status, &problem["type"]), (400, &"urn:hookbus:problem:unreadable".into()));
    let answer = batch(&[one.clone(), elsewhere, two.clone()]).await;
    let fresh = |id: &str| json!({"id": id, "duplicate": false});
    assert_eq!(
        answer,
        (200, json!([fresh("one"), fresh("one"), fresh("two")])),
        "none of the broken batch was kept"
    );
    let again = |id: &str| json!({"id": id, "duplicate": true});
    assert_eq!(batch(&[two, one]).await, (200, json!([again("two"), again("one")])));
    assert_eq!(batch(&[]).await, (200, json!([])), "an empty batch is valid and holds nothing");
    let answer = daemon.post("/hooks/events", "{}").await.unwrap();
    assert_eq!(answer.status, 415, "{}", answer.body);
    assert!(answer.body.contains("ce-specversion"), "{}", answer.body);
    assert_eq!(understood_in(&folder.path().join("hookbus-data/events.ndjson"), 3).await.len(), 3);
}

#[tokio::test]
async fn a_sender_asks_before_it_sends_and_brings_a_token_when_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[sources.events]\nrate = \"100/s\"\npath_secret = \"in-the-url\"\n[sources.events.cloudevents]\n\
                  token = \"t0ken\"\nallowed_origins = [\"events.example.com\"]\n[sinks.file.file]\npath = \"events.ndjson\"\n";
    let daemon = Daemon::start(folder.path(), config).await;
    let url = format!("http://{}/hooks/events/in-the-url", daemon.ingress);
    for (sentence, origin, url, status, rate) in [
        ("the origin that may", "events.example.com", url.clone(), 200, Some("6000")),
        ("another origin", "other.example.com", url.clone(), 200, None),
        ("no path secret", "events.example.com", url.replace("in-the-url", "guess"), 404, None),
    ] {
        let request =
            daemon.http.request(reqwest::Method::OPTIONS, url).header("webhook-request-origin", origin);
        let answer = request.header("webhook-request-rate", "1000").send().await.unwrap();
        let said = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(answer.status(), status, "{sentence}");
        assert_eq!(said("webhook-allowed-rate").as_deref(), rate, "{sentence}");
        assert_eq!(said("webhook-allowed-origin").as_deref(), rate.map(|_| origin), "{sentence}");
    }
    let event = document("one", "");
    for (sentence, token, query, status) in [
        ("no token", None, "", 401),
        ("a wrong one", Some("Bearer nope"), "", 401),
        ("the right one", Some("Bearer t0ken"), "", 200),
        ("the right one in the query", None, "?access_token=t0ken", 200),
    ] {
        let mut request = daemon.http.post(format!("{url}{query}")).header("content-type", STRUCTURED);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let answered = request.body(event.clone()).send().await.unwrap().status();
        assert_eq!(answered, status, "{sentence}");
    }
    let sent = daemon.send(&["events"]).await;
    let said = String::from_utf8(sent.stdout).unwrap();
    assert!(
        sent.status.success() && said.contains("\"duplicate\":false"),
        "`send` brings secret and token: {said}"
    );
    assert!(!daemon.log().contains("t0ken") && !daemon.log().contains("in-the-url"));
}

#[tokio::test]
async fn questions_take_nothing_of_the_source_s_rate() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[sources.events]\nrate = \"1/h\"\n[sources.events.cloudevents]\n\
                  allowed_origins = [\"events.example.com\"]\n[sinks.kept.file]\n";
    let daemon = Daemon::start(folder.path(), config).await;
    let url = format!("http://{}/hooks/events", daemon.ingress);
    for _ in 0..3 {
        let question = daemon.http.request(reqwest::Method::OPTIONS, &url);
        let answer = question.header("webhook-request-origin", "events.example.com").send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    for status in [200, 429] {
        let post = daemon.http.post(&url).header("content-type", STRUCTURED).body(document("one", ""));
        assert_eq!(post.send().await.unwrap().status(), status);
    }
}
