//! The documented payloads of Z-API and PlugZapi: each becomes exactly what `tests/fixtures/index.json` says, and stays
//! an event however it is bent.

use bytes::Bytes;
use hookbus::config::Layers;
use hookbus::envelope::{Data, Envelope, SourceName};
use hookbus::source::{Arrival, ConfiguredSource, Head, Peer, Request, Unreadable};
use hookbus::time::UnixMs;
use http::{HeaderMap, Method};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// 2026-11-21T00:00:00Z
const ARRIVAL: UnixMs = UnixMs(1_795_219_200_000);

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// What the index says of each fixture, with the fixture's bytes.
fn index() -> Vec<(Map<String, Value>, Bytes)> {
    let index = std::fs::read(fixtures().join("index.json")).unwrap();
    let rows: Vec<Map<String, Value>> = serde_json::from_slice(&index).unwrap();
    let with_body = |row: Map<String, Value>| {
        let body = std::fs::read(fixtures().join(row["file"].as_str().unwrap())).unwrap();
        (row, Bytes::from(body))
    };
    rows.into_iter().map(with_body).collect()
}

fn source(dialect: &str) -> ConfiguredSource {
    let layers = Layers::load(Some(&format!("[{dialect}]")), None, &[]).unwrap();
    ConfiguredSource::parse(SourceName::new("whatsapp").unwrap(), &layers.root()).unwrap()
}

fn read(source: &ConfiguredSource, body: &Bytes) -> Result<Envelope, Unreadable> {
    let mut envelopes = source.read(&Request {
        head: Head {
            source: &source.name,
            peer: Peer::NONE,
            path: "/hooks/x",
            method: &Method::POST,
            path_secret_matched: false,
            query: None,
            headers: &HeaderMap::new(),
            rate: None,
        },
        body,
        arrival: Arrival { at: ARRIVAL, unique: uuid::Uuid::now_v7() },
    })?;
    assert_eq!(envelopes.len(), 1, "one post is one event");
    Ok(envelopes.remove(0))
}

/// What the index has null for, the envelope does not have.
fn text(row: &Map<String, Value>, key: &str) -> Option<String> {
    row[key].as_str().map(str::to_owned)
}

fn attribute(envelope: &Envelope, name: &str) -> Option<String> {
    envelope.attribute(name).map(|text| text.into_owned())
}

fn assert_attributes(row: &Map<String, Value>, envelope: &Envelope) {
    let file = row["file"].as_str().unwrap();
    let provider = row["provider"].as_str().unwrap();
    let (prefix, host) = match provider {
        "zapi" => ("io.z-api", "api.z-api.io"),
        _ => ("br.com.plugzapi", "api.plugzapi.com.br"),
    };
    let instance = text(row, "instance_id");
    let place = match &instance {
        Some(instance) => format!("//{host}/instances/{instance}"),
        None => format!("//{host}/routes/whatsapp"),
    };
    let suffix = row["ce_type_suffix"].as_str().unwrap();
    let time = text(row, "time").unwrap_or_else(|| ARRIVAL.to_rfc3339());
    let chat = text(row, "subject_phone");
    let or_hyphen = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
    let from_me = row["from_me"].as_bool().map(|flag| flag.to_string());
    let conflict = row["type_conflict"].as_bool().unwrap().then(|| "true".to_owned());
    let timesource = if row["time"].is_null() { "received" } else { "payload" };
    let dedupe = if row["ce_id"].is_null() { "none" } else { "strong" };
    for (name, expected) in [
        ("source", Some(place)),
        ("type", Some(format!("{prefix}.{suffix}"))),
        ("subject", chat.clone()),
        ("time", Some(time)),
        ("datacontenttype", Some("application/json".to_owned())),
        ("provider", Some(provider.to_owned())),
        ("instanceid", instance.clone()),
        ("zapitype", text(row, "type")),
        ("eventgroup", text(row, "event_group")),
        ("msgkind", text(row, "kind")),
        ("wamsgid", text(row, "natural_id")),
        ("wastatus", text(row, "status_normalized")),
        ("fromme", from_me),
        ("chatkind", text(row, "chat_kind")),
        (
            "notification",
            text(row, "kind").and_then(|kind| Some(kind.strip_prefix("notification:")?.to_owned())),
        ),
        ("typeconflict", conflict),
        ("timesource", Some(timesource.to_owned())),
        ("dedupe", Some(dedupe.to_owned())),
        ("partitionkey", Some(format!("{}/{}", or_hyphen(&instance), or_hyphen(&chat)))),
        ("routeid", Some("whatsapp".to_owned())),
        ("hookbussource", Some("whatsapp".to_owned())),
        ("receivedtime", Some(ARRIVAL.to_rfc3339())),
    ] {
        assert_eq!(attribute(envelope, name), expected, "{file}: {name}");
    }
}

#[test]
fn every_fixture_becomes_what_the_index_says() {
    let index = index();
    for (row, body) in &index {
        let file = row["file"].as_str().unwrap();
        let source = source(row["provider"].as_str().unwrap());
        let envelope = read(&source, body).unwrap();
        assert_attributes(row, &envelope);
        assert_eq!(envelope.data, Data::Json(body.clone()), "{file}: the bytes as they came");
        let again = read(&source, body).unwrap();
        match row["ce_id"].as_str() {
            Some(id) => {
                let recipe = hex::encode(Sha256::digest(row["dedupe_key"].to_string()));
                assert_eq!((envelope.id.as_str(), &recipe[..32]), (id, id), "{file}: id");
                assert_eq!(again.id, id, "{file}: a retry is the same event");
            }
            None => assert_ne!(envelope.id, again.id, "{file}: without identity no two are the same"),
        }
    }
    assert_eq!(index.len(), 109);
}

#[test]
fn every_column_of_the_index_is_looked_at() {
    for (row, _) in index() {
        let file = &row["file"];
        // Those that `assert_attributes` or the identity of the first test do not read by themselves.
        let key = row["dedupe_key"].as_array().cloned().unwrap_or_default();
        for id in row["natural_ids"].as_array().unwrap() {
            assert!(key.contains(id), "{file}: {id} tells its event from others");
        }
        let (class, group) = (row["class"].as_str().unwrap(), row["event_group"].as_str().unwrap());
        let kind = row["kind"].as_str().unwrap_or_default();
        let of_class = match class {
            "received" if kind.starts_with("notification:CALL_") => "call",
            "received" if kind.starts_with("notification:") => "other",
            "received" => "message",
            "connected" | "disconnected" => "connection",
            other => other,
        };
        assert_eq!(of_class, group, "{file}: a class and its groups");
        let columns = [
            "file",
            "provider",
            "webhook",
            "type",
            "class",
            "natural_id",
            "natural_ids",
            "time",
            "instance_id",
            "subject_phone",
            "event_group",
            "kind",
            "status",
            "status_normalized",
            "from_me",
            "chat_kind",
            "ce_type_suffix",
            "dedupe_key",
            "ce_id",
            "type_conflict",
        ];
        let strangers: Vec<&String> = row.keys().filter(|key| !columns.contains(&key.as_str())).collect();
        assert_eq!(strangers, Vec::<&String>::new(), "{file}: a column that no test reads");
    }
}

#[test]
fn every_fixture_is_in_the_index() {
    let listed: Vec<String> =
        index().iter().map(|(row, _)| row["file"].as_str().unwrap().to_owned()).collect();
    for folder in ["zapi", "plugzapi"] {
        for entry in std::fs::read_dir(fixtures().join(folder)).unwrap() {
            let file = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
            assert!(listed.contains(&file), "{file} is not in index.json");
        }
    }
}

#[test]
fn a_wrong_type_in_any_field_of_any_fixture_is_still_an_event() {
    let wrong =
        ["null", "true", "0", "-1.5", "\"\"", "\"x\"", "[]", "[1,null,{}]", "{}", "{\"type\":1}", "1e999"];
    for (row, body) in index() {
        let source = source(row["provider"].as_str().unwrap());
        let fields: Map<String, Value> = serde_json::from_slice(&body).unwrap();
        for field in fields.keys() {
            for value in wrong {
                // The last of two equal names counts, so this replaces the field.
                let whole = std::str::from_utf8(&body).unwrap().trim_end();
                let bent = format!("{},\"{field}\":{value}}}", whole.strip_suffix('}').unwrap());
                let envelope = read(&source, &Bytes::from(bent)).unwrap();
                let context = || format!("{}: {field} = {value}", row["file"]);
                assert!(!envelope.id.is_empty() && !envelope.event_type.is_empty(), "{}", context());
                assert!(attribute(&envelope, "dedupe").is_some(), "{}", context());
            }
        }
    }
}

#[test]
fn a_fixture_written_twice_into_itself_is_the_same_event() {
    for (row, body) in index().into_iter().filter(|(row, _)| !row["ce_id"].is_null()) {
        let source = source(row["provider"].as_str().unwrap());
        let whole = std::str::from_utf8(&body).unwrap().trim();
        let members = whole.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
        let twice = read(&source, &Bytes::from(format!("{{{members},{members}}}"))).unwrap();
        assert_eq!(Some(twice.id.as_str()), row["ce_id"].as_str(), "{}", row["file"]);
    }
}

#[test]
fn a_fixture_cut_anywhere_is_unreadable_and_says_why() {
    for (row, body) in index() {
        let source = source(row["provider"].as_str().unwrap());
        for length in 0..body.trim_ascii_end().len() {
            let reason = read(&source, &body.slice(..length)).unwrap_err();
            let cut_character = std::str::from_utf8(&body[..length]).is_err();
            let expected = if cut_character { Unreadable::NotUtf8 } else { Unreadable::NotJson };
            assert_eq!(reason, expected, "{} cut to {length}", row["file"]);
        }
    }
}

#[test]
fn every_fixture_comes_back_from_its_stored_form() {
    for (row, body) in index() {
        let envelope = read(&source(row["provider"].as_str().unwrap()), &body).unwrap();
        let stored = Bytes::from([&envelope.encode_head()[..], envelope.data.bytes()].concat());
        assert_eq!(Envelope::decode(&stored).unwrap(), envelope, "{}", row["file"]);
    }
}
