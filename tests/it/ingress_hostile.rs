//! Bodies that nobody should send, against the real dialects behind the real listener: each gets its documented answer,
//! and what was answered with a 2xx is kept.

use crate::ingress_rig::{Rig, post};
use hookbus::config::Layers;
use hookbus::dead_letter::Filter;
use hookbus::envelope::SourceName;
use hookbus::ingress;
use hookbus::source::ConfiguredSource;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// The three dialects, recognising nothing, so that every 2xx is a new event or letter.
async fn rig() -> Rig {
    let source = |dialect: &str| {
        let layers = Layers::load(Some(&format!("dedupe = '0s'\n[{dialect}]")), None, &[]).unwrap();
        ConfiguredSource::parse(SourceName::new(dialect).unwrap(), &layers.root()).unwrap()
    };
    Rig::with(ingress::Config::default(), ["generic", "plugzapi", "zapi"].map(source).into()).await
}

/// A body, what a WhatsApp gateway makes of it, and what `generic` answers when it is called JSON.
fn strange_bodies() -> Vec<(&'static str, Vec<u8>, Option<&'static str>, u16)> {
    let deep =
        |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
    vec![
        ("nothing", Vec::new(), Some("not_json"), 400),
        ("a blank", b" ".to_vec(), Some("not_json"), 400),
        ("cut off in a name", b"{\"type".to_vec(), Some("not_json"), 400),
        ("cut off in a value", b"{\"type\":\"ReceivedCallb".to_vec(), Some("not_json"), 400),
        ("cut off before the end", b"{\"type\":1".to_vec(), Some("not_json"), 400),
        ("cut off in a character", b"{\"a\":\"\xc3".to_vec(), Some("not_utf8"), 400),
        ("two documents", b"{}{}".to_vec(), Some("not_json"), 400),
        ("single quotes", b"{'type':'ConnectedCallback'}".to_vec(), Some("not_json"), 400),
        ("a shell's number", b"{\"momment\":NumberLong(1)}".to_vec(), Some("not_json"), 400),
        ("a trailing comma", b"{\"a\":1,}".to_vec(), Some("not_json"), 400),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec(), Some("not_json"), 400),
        ("another encoding", b"{\"a\":\"ol\xe1\"}".to_vec(), Some("not_utf8"), 400),
        ("UTF-16", "{}".encode_utf16().flat_map(u16::to_le_bytes).collect(), Some("not_json"), 400),
        ("a NUL", b"{\"a\":\"\0\"}".to_vec(), Some("not_json"), 400),
        ("an array", b"[{\"type\":\"ReceivedCallback\"}]".to_vec(), Some("not_an_object"), 200),
        ("a number", b"1e999".to_vec(), Some("not_an_object"), 200),
        ("64 levels", deep(63), None, 200),
        ("65 levels", deep(64), Some("too_deep"), 400),
        ("half a million levels", deep(250_000), Some("too_deep"), 400),
        ("levels that never end", "{\"a\":".repeat(200_000).into_bytes(), Some("too_deep"), 400),
        ("half a surrogate pair", b"{\"phone\":\"\\ud83d\"}".to_vec(), None, 200),
        ("a name twice", b"{\"type\":\"x\",\"type\":\"ReceivedCallback\"}".to_vec(), None, 200),
        ("a name of a megabyte", [b"{\"", &[b'a'; 1_000_000][..], b"\":1}"].concat(), None, 200),
        ("a hundred thousand names", object_of(100_000), None, 200),
    ]
}

fn object_of(names: usize) -> Vec<u8> {
    let members: Vec<String> = (0..names).map(|name| format!("\"{name}\":0")).collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

#[tokio::test]
async fn strange_bodies_get_their_documented_answers() {
    let rig = rig().await;
    let mut quarantined = Vec::new();
    for (sentence, body, reason, generic) in strange_bodies() {
        for gateway in ["/hooks/zapi", "/hooks/plugzapi"] {
            let reply = rig.ask(post(gateway, &["content-type: application/json"], &body)).await;
            assert_eq!(
                (reply.status, reply.body.as_str()),
                (200, "{\"value\":true}"),
                "{sentence}, {gateway}"
            );
            quarantined.extend(reason);
        }
        let reply = rig.ask(post("/hooks/generic", &["content-type: application/json"], &body)).await;
        assert_eq!(reply.status, generic, "{sentence}: {reply:?}");
        assert_eq!(reply.problem(), if generic == 200 { "" } else { "unreadable" }, "{sentence}");
        let reply = rig.ask(post("/hooks/generic", &[], &body)).await;
        assert_eq!(reply.status, 200, "what nobody calls JSON is taken as it is: {sentence}");
    }
    let letters = rig.dead_letters.list(Filter::default(), None, 1000).await.unwrap();
    let reasons: Vec<&str> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, quarantined, "each is kept, in order, with its reason");
}

#[tokio::test]
async fn a_wrong_type_in_any_field_is_still_an_event() {
    let rig = rig().await;
    let mut client = rig.connect().await;
    let mut posts = 0;
    for whole in [
        r#"{"type":"ReceivedCallback","instanceId":"I","phone":"55","messageId":"M","momment":1768480000000,"fromMe":false,"isEdit":false,"notification":"","image":{"viewOnce":false},"text":{"message":"a"}}"#,
        r#"{"type":"MessageStatusCallback","instanceId":"I","phone":"55","status":"READ","ids":["M"],"momment":1768480000000,"phoneDevice":0}"#,
        r#"{"type":"DeliveryCallback","instanceId":"I","phone":"55","zaapId":"Z","messageId":"M","error":"no"}"#,
        r#"{"type":"DisconnectedCallback","instanceId":"I","momment":1580163342,"error":"x","disconnected":true}"#,
        r#"{"type":"PresenceChatCallback","instanceId":"I","phone":"55","status":"COMPOSING","lastSeen":null}"#,
    ] {
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(whole).unwrap();
        for field in fields.keys() {
            for value in ["null", "true", "-1.5", "\"x\"", "[1,null]", "{\"type\":1}", "1e999"] {
                let bent = format!("{},\"{field}\":{value}}}", whole.strip_suffix('}').unwrap());
                client.send(post("/hooks/zapi", &[], bent.as_bytes())).await;
                let reply = client.reply().await.unwrap();
                assert_eq!((reply.status, reply.body.as_str()), (200, "{\"value\":true}"), "{bent}");
                posts += 1;
            }
        }
    }
    assert_eq!(rig.journal.status().records, posts, "none was quarantined, none taken for another");
}

#[test]
fn whatever_the_bytes_each_dialect_answers_and_keeps_what_it_took() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rig = runtime.block_on(rig());
    let json_like = "[\\[\\]{}:,\"\\\\a-z0-9 .eE+-]{0,60}";
    let bodies = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400),
        json_like.prop_map(String::into_bytes),
        ("(type|ids|phone|momment|status|lastSeen|text)", json_like)
            .prop_map(|(name, value)| format!("{{\"{name}\":{value}}}").into_bytes()),
    ];
    // The same unreadable bytes are one letter, so no body is posted twice.
    let seen = RefCell::new(BTreeSet::new());
    let accepted = Cell::new(0_u64);
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) });
    let media_types =
        prop::sample::select(vec!["application/json", "text/plain", "image/png", "", "\u{fc}/;=,"]);
    let outcome = runner.run(&(bodies, media_types), |(body, media_type)| {
        if !seen.borrow_mut().insert(body.clone()) {
            return Ok(());
        }
        runtime.block_on(async {
            let header = format!("content-type: {media_type}");
            for (path, statuses) in
                [("/hooks/zapi", &[200][..]), ("/hooks/plugzapi", &[200]), ("/hooks/generic", &[200, 400])]
            {
                let status = rig.ask(post(path, &[&header], &body)).await.status;
                prop_assert!(statuses.contains(&status), "{path}: {status}");
                accepted.set(accepted.get() + u64::from(status == 200));
            }
            Ok(())
        })
    });
    outcome.unwrap();
    let letters = rig.dead_letters.totals().quarantined;
    assert_eq!(
        rig.journal.status().records + letters,
        accepted.get(),
        "R1, R4: each 2xx is an event or a letter"
    );
    runtime.block_on(async { drop(rig) });
}

#[tokio::test]
async fn odd_paths_lead_nowhere_and_break_nothing() {
    let rig = rig().await;
    let long = format!("/hooks/{}", "a".repeat(20_000));
    for (path, statuses) in [
        ("/hooks/%67eneric", &[404][..]),
        ("/hooks/generic%2f", &[404]),
        ("/hooks/generic%", &[404]),
        ("/hooks//generic", &[404]),
        ("//hooks/generic", &[404]),
        ("/hooks/../hooks/generic", &[404]),
        ("/hooks/generic/%ff", &[404]),
        ("/hooks/generic/%00", &[404]),
        ("/hooks/Generic", &[404]),
        ("/HOOKS/generic", &[404]),
        ("/hooks", &[404]),
        ("*", &[400, 404]),
        ("http://another.host/hooks/generic", &[200]),
        ("/hooks/generic?%zz&&==\\", &[200, 400]),
        ("/hooks/g\u{e9}n\u{e9}ric", &[400, 404]),
        (&long, &[404]),
    ] {
        let status = rig.ask(post(path, &[], b"{}")).await.status;
        assert!(statuses.contains(&status), "{}: {status}", &path[..path.len().min(60)]);
    }
}
