//! The bindings, read back by a parser that shares nothing with the writer.

use super::*;
use crate::envelope::Extensions;
use bytes::Bytes;
use proptest::prelude::*;

fn event(data: Data) -> Envelope {
    Envelope {
        id: "1a97".to_owned(),
        source: "//hookbus/sources/inbox".to_owned(),
        event_type: "webhook.received".to_owned(),
        subject: None,
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: Extensions::new(),
        data,
    }
}

fn json(text: &'static str) -> Data {
    Data::Json(Bytes::from_static(text.as_bytes()))
}

#[test]
fn json_data_keeps_what_a_parser_would_change() {
    let sent = r#"{ "n": 12345678901234567.10, "b": 1, "a": 1e400, "b": 2, "u": "\u00e9\/" }"#;
    let written = String::from_utf8(structured(&event(json(sent)))).unwrap();
    assert!(written.ends_with(&format!(r#","data":{sent}}}"#)), "{written}");
    assert!(written.starts_with(r#"{"specversion":"1.0","id":"1a97","#), "{written}");
}

#[test]
fn a_line_is_one_line_and_means_the_same() {
    let sent = "{\r\n  \"text\": \"two\\nlines\",\n  \"n\": 1.10\r\n}";
    let mut out = b"before\n".to_vec();
    write_line(&event(json(sent)), &mut out);
    let text = String::from_utf8(out).unwrap();
    let line = text.strip_prefix("before\n").unwrap().strip_suffix('\n').unwrap();
    assert!(!line.contains(['\n', '\r']), "{line}");
    assert!(
        line.contains(r#"{    "text": "two\nlines",   "n": 1.10  }"#),
        "same length, same tokens: {line}"
    );
    let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(parsed["data"]["text"], "two\nlines");
}

#[test]
fn each_kind_of_data_travels_in_its_own_member() {
    let text = Data::Text(Bytes::from_static("ol\u{e1} \"\n".as_bytes()));
    let binary = Data::Binary(Bytes::from_static(&[0, 159, 255]));
    let broken_text = Data::Text(Bytes::from_static(&[0xFF]));
    for (sentence, data, member, value) in [
        ("text is a JSON string", text, "data", Some("ol\u{e1} \"\n")),
        ("bytes are base64", binary, "data_base64", Some("AJ//")),
        ("text that is none is never lossy", broken_text, "data_base64", Some("/w==")),
        ("no body is no member", Data::None, "data", None),
        ("an empty body is no member", json(""), "data", None),
    ] {
        let parsed: serde_json::Value = serde_json::from_slice(&structured(&event(data))).unwrap();
        assert_eq!(parsed.get(member).and_then(|value| value.as_str()), value, "{sentence}");
        let members = ["data", "data_base64"].iter().filter(|member| parsed.get(**member).is_some()).count();
        assert!(members <= 1, "{sentence}");
    }
}

#[test]
fn an_extension_cannot_stand_in_for_the_event_s_own_members() {
    let mut event = event(json("{}"));
    for name in TAKEN_NAMES {
        event.extensions.insert(name.into(), "forged".into());
    }
    let written = String::from_utf8(structured(&event)).unwrap();
    assert!(!written.contains("forged"), "{written}");
    assert!(attributes(&event).all(|(_, value)| value != "forged"));
}

#[test]
fn percent_encoding_is_exactly_the_specification_s() {
    for (plain, encoded) in [
        ("Euro \u{20ac} \u{1f600}", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ("100%", "100%25"),
        ("\"quoted\"", "%22quoted%22"),
        ("a\r\nb\0\u{7f}", "a%0D%0Ab%00%7F"),
        ("!#$&'()*+,-./:;<=>?@[\\]^_`{|}~", "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    ] {
        assert_eq!(percent_encoded(plain), encoded);
    }
}

fn decoded_once(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if *first == b'%' {
            bytes.extend(hex::decode(&others[..2]).unwrap());
            rest = &others[2..];
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn any_event() -> impl Strategy<Value = Envelope> {
    let text = || any::<String>();
    let attribute = prop_oneof![
        text().prop_map(Attribute::Text),
        any::<bool>().prop_map(Attribute::Bool),
        any::<i32>().prop_map(Attribute::Integer),
    ];
    let extensions = proptest::collection::btree_map("x[a-z0-9]{1,9}".prop_map(Cow::Owned), attribute, 0..5);
    let data = prop_oneof![
        Just(Data::None),
        (text(), any::<f64>()).prop_map(|(key, number)| {
            Data::Json(Bytes::from(serde_json::to_vec_pretty(&serde_json::json!({ key: number })).unwrap()))
        }),
        text().prop_map(|text| Data::Text(Bytes::from(text))),
        any::<Vec<u8>>().prop_map(|bytes| Data::Binary(Bytes::from(bytes))),
    ];
    let optional = || proptest::option::of(any::<String>());
    (text(), text(), text(), optional(), optional(), optional(), optional(), extensions, data).prop_map(
        |(id, source, event_type, subject, time, datacontenttype, dataschema, extensions, data)| Envelope {
            id,
            source,
            event_type,
            subject,
            time,
            datacontenttype,
            dataschema,
            extensions: extensions.into_iter().collect(),
            data,
        },
    )
}

proptest! {
    #[test]
    fn a_structured_event_gives_every_attribute_and_the_data_back(event in any_event()) {
        let mut line = Vec::new();
        write_line(&event, &mut line);
        prop_assert_eq!(line.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count(), 1);
        for document in [structured(&event), line] {
            let parsed: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&document).unwrap();
            let as_text = |value: &serde_json::Value| value.as_str().map_or(value.to_string(), str::to_owned);
            for (name, value) in &parsed {
                if !name.starts_with("data") || name == "dataschema" || name == "datacontenttype" {
                    prop_assert_eq!(Some(as_text(value)), event.attribute(name).map(Cow::into_owned));
                }
            }
            let data_members = parsed.keys().filter(|name| ["data", "data_base64"].contains(&name.as_str())).count();
            let named = attributes(&event).count() + usize::from(event.datacontenttype.is_some());
            prop_assert_eq!(parsed.len() - data_members, named);
            match &event.data {
                Data::None => prop_assert_eq!(data_members, 0),
                Data::Json(bytes) => {
                    let sent: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                    prop_assert_eq!(&parsed["data"], &sent);
                }
                Data::Text(bytes) => prop_assert_eq!(parsed["data"].as_str().unwrap().as_bytes(), bytes),
                Data::Binary(bytes) => {
                    prop_assert_eq!(&STANDARD.decode(parsed["data_base64"].as_str().unwrap()).unwrap(), bytes);
                }
            }
        }
    }

    #[test]
    fn percent_encoding_is_undone_by_one_pass_of_decoding(value in any::<String>()) {
        let encoded = percent_encoded(&value);
        prop_assert!(encoded.bytes().all(|byte| (0x21..=0x7E).contains(&byte)));
        prop_assert_eq!(decoded_once(&encoded), value);
    }
}
