//! The senders that sign: requests signed by others' implementations, the published examples, and what must not pass.
//! `tests/fixtures/signed/make.py` made the fixtures; nothing here signs anything.

use bytes::Bytes;
use hookbus::config::{ConfigErrors, Layers};
use hookbus::envelope::{Data, SourceName};
use hookbus::source::{Arrival, ConfiguredSource, Head, Peer, Refused, Request};
use hookbus::time::UnixMs;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A request with the section of the source that it is posted to.
#[derive(Clone, Deserialize)]
struct Post {
    sentence: String,
    section: String,
    arrival_secs: i64,
    headers: BTreeMap<String, String>,
    body: String,
    /// The attributes of its event; none where it is a question.
    event: Option<Map<String, Value>>,
    handshake: Option<String>,
    scheme: Option<String>,
    authority: Option<String>,
    path: Option<String>,
    query: Option<String>,
}

impl Post {
    fn new(section: &str, arrival_secs: i64, headers: &[(&str, &str)], body: &str) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Post {
            sentence: String::new(),
            section: section.to_owned(),
            arrival_secs,
            headers: headers.collect(),
            body: body.to_owned(),
            event: None,
            handshake: None,
            scheme: None,
            authority: None,
            path: None,
            query: None,
        }
    }

    fn with(&self, header: &str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.headers.insert(header.to_owned(), value.to_owned());
        changed
    }

    fn without(&self, header: &str) -> Self {
        let mut changed = self.clone();
        assert!(changed.headers.remove(header).is_some(), "{}: there is no {header}", self.sentence);
        changed
    }

    fn at(&self, arrival_secs: i64) -> Self {
        Post { arrival_secs, ..self.clone() }
    }

    /// What `with_request` makes of it and its source.
    fn seen<T>(&self, with_request: impl FnOnce(&ConfiguredSource, &Request<'_>) -> T) -> T {
        let source = configured(&self.section).unwrap_or_else(|errors| panic!("{}: {errors}", self.sentence));
        let headers = self.headers.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let headers: HeaderMap = headers.collect();
        let request = Request {
            head: Head {
                source: &source.name,
                peer: Peer {
                    scheme: self.scheme.as_deref().unwrap_or("https"),
                    authority: self.authority.as_deref().unwrap_or_default(),
                    ..Peer::NONE
                },
                path: self.path.as_deref().unwrap_or("/hooks/inbox"),
                method: &Method::POST,
                path_secret_matched: false,
                query: self.query.as_deref(),
                headers: &headers,
                rate: None,
            },
            body: &Bytes::from(self.body.clone()),
            arrival: Arrival { at: UnixMs(self.arrival_secs * 1000), unique: uuid::Uuid::now_v7() },
        };
        with_request(&source, &request)
    }

    /// Whether it is let in, asked as the ingress asks.
    fn admitted(&self) -> Result<(), Refused> {
        self.seen(|source, request| {
            source.dialect.authenticate(&request.head)?;
            source.dialect.verify(request)
        })
    }

    /// Whether its head alone is refused, before its body is read.
    fn head_admitted(&self) -> Result<(), Refused> {
        self.seen(|source, request| source.dialect.authenticate(&request.head))
    }
}

fn configured(section: &str) -> Result<ConfiguredSource, ConfigErrors> {
    let layers = Layers::load(Some(section), None, &[])?;
    ConfiguredSource::parse(SourceName::new("inbox").unwrap(), &layers.root())
}

const DIALECTS: [&str; 8] =
    ["github", "gitlab", "hmac", "shopify", "slack", "standard_webhooks", "stripe", "twilio"];

fn fixtures() -> Vec<Post> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signed");
    let read = |dialect: &str| -> Vec<Post> {
        let text = std::fs::read(folder.join(format!("{dialect}.json"))).unwrap();
        let mut posts: Vec<Post> = serde_json::from_slice(&text).unwrap();
        assert!(!posts.is_empty(), "{dialect}");
        posts.iter_mut().for_each(|post| post.sentence = format!("{dialect}: {}", post.sentence));
        posts
    };
    DIALECTS.iter().flat_map(|dialect| read(dialect)).collect()
}

/// The headers without which a request proves nothing.
fn proving(post: &Post) -> Vec<&str> {
    let is_proving = |name: &str| match name {
        "x-id" => post.section.contains("{id}"),
        "x-twilio-webhooks-signature-settings" => false,
        _ => ["signature", "x-sign", "hmac", "time", "gitlab-token", "webhook-id", "svix-id"].iter().any(
            |part| name.contains(part) && !name.contains("shopify-webhook") && !name.contains("triggered"),
        ),
    };
    post.headers.keys().map(String::as_str).filter(|name| is_proving(name)).collect()
}

fn carries_only_a_token(post: &Post) -> bool {
    post.section.starts_with("[gitlab]") && !post.section.contains("signing_token")
}

#[test]
fn what_others_have_signed_passes_and_becomes_its_event() {
    for post in fixtures() {
        assert_eq!(post.admitted(), Ok(()), "{}", post.sentence);
        let asked = post.seen(|source, request| source.dialect.handshake(request));
        let answer = asked.as_ref().map(|handshake| std::str::from_utf8(&handshake.body).unwrap());
        assert_eq!(answer, post.handshake.as_deref(), "{}", post.sentence);
        let Some(expected) = &post.event else { continue };
        let envelopes = post.seen(|source, request| source.read(request)).unwrap();
        assert_eq!(envelopes.len(), 1, "{}", post.sentence);
        let envelope = &envelopes[0];
        for (name, value) in expected {
            let found = envelope.attribute(name);
            assert_eq!(found.as_deref(), value.as_str(), "{}: {name}", post.sentence);
        }
        let has_own_time = expected.contains_key("time");
        let timesource = if has_own_time { "payload" } else { "received" };
        assert_eq!(envelope.attribute("timesource").as_deref(), Some(timesource), "{}", post.sentence);
        assert_eq!(envelope.data.bytes(), post.body.as_bytes(), "{}: the bytes as they came", post.sentence);
        let is_json = serde_json::from_str::<Value>(&post.body).is_ok();
        assert_eq!(matches!(envelope.data, Data::Json(_)), is_json, "{}", post.sentence);
    }
}

#[test]
fn a_post_that_is_repeated_is_the_same_event() {
    for post in fixtures().into_iter().filter(|post| post.event.is_some()) {
        let ids = [(); 2].map(|()| post.seen(|source, request| source.read(request)).unwrap()[0].id.clone());
        let counts_each = post.event.as_ref().unwrap().get("dedupe") == Some(&Value::from("none"));
        assert_eq!(ids[0] != ids[1], counts_each, "{}", post.sentence);
    }
}

#[test]
fn nothing_that_was_changed_on_the_way_passes() {
    for post in fixtures().into_iter().filter(|post| !carries_only_a_token(post)) {
        for body in [format!("{} ", post.body), post.body[..post.body.len() - 1].to_owned(), String::new()] {
            // A form whose last field loses a letter is another form; one that gains a space is, too.
            let changed = Post { body, ..post.clone() };
            assert_eq!(changed.admitted(), Err(Refused::Wrong), "{}: {}", post.sentence, changed.body);
        }
    }
}

#[test]
fn a_proof_that_is_missing_is_refused_before_the_body_is_read() {
    for post in fixtures() {
        let proving = proving(&post);
        assert!(!proving.is_empty(), "{}", post.sentence);
        for header in proving {
            assert_eq!(
                post.without(header).head_admitted(),
                Err(Refused::Missing),
                "{}: {header}",
                post.sentence
            );
            assert_eq!(
                post.with(header, " ").head_admitted(),
                Err(Refused::Missing),
                "{}: {header}",
                post.sentence
            );
        }
    }
}

#[test]
fn a_signature_cut_short_does_not_pass() {
    for post in fixtures().into_iter().filter(|post| !carries_only_a_token(post)) {
        for header in proving(&post).into_iter().filter(|name| name.contains("sign") || name.contains("hmac"))
        {
            let whole = &post.headers[header];
            // What others stand around the valid one goes first, so that the cut meets the valid one.
            let whole = whole.split(",v0=").next().unwrap();
            for cut in [whole.len() - 2, whole.len() / 2, 3] {
                let refused = post.with(header, &whole[..cut]).admitted();
                assert_eq!(refused, Err(Refused::Wrong), "{}: {header} cut to {cut}", post.sentence);
            }
        }
    }
}

#[test]
fn another_secret_lets_nothing_in() {
    for post in fixtures() {
        let section = post.section.replace("secret = \"", "secret = \"AAAA").replace(", \"", ", \"AAAA");
        let section = section.replace("secret = [\"", "secret = [\"AAAA").replace("AAAAwhsec_", "whsec_AAAA");
        let section = section.replace("signing_token = \"whsec_", "signing_token = \"whsec_AAAA");
        let section = section.replace("AAAAwhpk_A", "whpk_B");
        assert_ne!(section, post.section, "{}", post.sentence);
        let changed = Post { section, ..post.clone() };
        assert_eq!(changed.admitted(), Err(Refused::Wrong), "{}: {}", post.sentence, changed.section);
    }
}

#[test]
fn a_signature_holds_for_its_tolerance_in_both_directions() {
    let mut dated = 0;
    for post in fixtures() {
        let is_dated = proving(&post).iter().any(|name| name.contains("time") || *name == "stripe-signature");
        if !is_dated {
            let later = post.at(post.arrival_secs + 10_000_000);
            assert_eq!(later.admitted(), Ok(()), "{}: nothing says when it was signed", post.sentence);
            continue;
        }
        dated += 1;
        let tolerance_secs = if post.section.contains("\"1m\"") { 60 } else { 300 };
        for (apart_secs, outcome) in [
            (tolerance_secs, Ok(())),
            (-tolerance_secs, Ok(())),
            (tolerance_secs + 1, Err(Refused::Stale)),
            (-tolerance_secs - 1, Err(Refused::Stale)),
        ] {
            let moved = post.at(post.arrival_secs + apart_secs);
            assert_eq!(moved.admitted(), outcome, "{}: {apart_secs} s", post.sentence);
            assert_eq!(moved.head_admitted(), Ok(()), "{}: the head has no clock", post.sentence);
        }
    }
    assert!(dated >= 15, "{dated}");
}

// === The published examples

const STANDARD: &str = "[standard_webhooks]\nsecret = \"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"";
const STANDARD_ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
const STANDARD_SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
const GITHUB_SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
const STRIPE_SIGNATURE: &str = "f0bdba6d4eacbd8ad8a3bbadd7248e633ec1477f7899c124c51b39405fa36613";
const SLACK_SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

fn standard() -> Post {
    let headers = [
        ("webhook-id", STANDARD_ID),
        ("webhook-timestamp", "1649367553"),
        ("webhook-signature", STANDARD_SIGNATURE),
    ];
    let body = r#"{"email":"test@example.com","username":"test_user"}"#;
    Post::new(STANDARD, 1_649_367_553, &headers, body)
}

fn github() -> Post {
    let section = "[github]\nsecret = \"It's a Secret to Everybody\"";
    Post::new(section, 0, &[("x-hub-signature-256", GITHUB_SIGNATURE)], "Hello, World!")
}

fn stripe() -> Post {
    // The published body as Python's `json.dumps(o, indent=2)` writes it, and a line break.
    let body = concat!(
        r#"{"id":"evt_123","object":"event","account":"acct_123","api_version":"2017-05-25","created":1533204620,"data":"#,
        r#"{"object":{"id":"ii_123","object":"invoiceitem","amount":1000,"currency":"usd","customer":"cus_123","#,
        r#""date":1533204620,"description":"Test Invoice Item","discountable":false,"invoice":"in_123","#,
        r#""livemode":false,"metadata":{},"period":{"start":1533204620,"end":1533204620},"plan":null,"#,
        r#""proration":false,"quantity":null,"subscription":null}},"livemode":false,"pending_webhooks":1,"#,
        r#""request":{"id":"req_123","idempotency_key":"idempotency-key-123"},"type":"invoiceitem.created"}"#,
    );
    let body = format!("{}\n", indented(body));
    assert_eq!(body.len(), 807);
    let header = format!("t=1533204620,v1={STRIPE_SIGNATURE}");
    let section = "[stripe]\nsecret = \"webhook_secret\"";
    Post::new(section, 1_533_204_620, &[("stripe-signature", &header)], &body)
}

/// Two spaces a level, members in their order, empty objects closed at once.
fn indented(compact: &str) -> String {
    let (mut out, mut depth, mut in_string) = (String::new(), 0_usize, false);
    let mut letters = compact.chars().peekable();
    while let Some(letter) = letters.next() {
        in_string ^= letter == '"';
        match letter {
            _ if in_string => out.push(letter),
            '{' if letters.peek() == Some(&'}') => out.push('{'),
            '}' if out.ends_with('{') => out.push('}'),
            '{' | ',' => {
                depth += usize::from(letter == '{');
                out.push(letter);
                out.push_str(&format!("\n{}", "  ".repeat(depth)));
            }
            '}' => {
                depth -= 1;
                out.push_str(&format!("\n{}}}", "  ".repeat(depth)));
            }
            ':' => out.push_str(": "),
            _ => out.push(letter),
        }
    }
    out
}

fn slack() -> Post {
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let headers = [("x-slack-signature", SLACK_SIGNATURE), ("x-slack-request-timestamp", "1531420618")];
    Post::new("[slack]\nsecret = \"8f742231b10e8888abcd99yyyzzz85a5\"", 1_531_420_618, &headers, body)
}

fn twilio() -> Post {
    let body =
        "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-twilio-signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
    ];
    Post {
        authority: Some("mycompany.com".to_owned()),
        path: Some("/myapp.php".to_owned()),
        query: Some("foo=1&bar=2".to_owned()),
        ..Post::new("[twilio]\nsecret = \"12345\"", 0, &headers, body)
    }
}

fn shopify() -> Post {
    let headers = [("x-shopify-hmac-sha256", "16FUVH58NeMcTIIOICN2UJOcPTTa4TbjCndXymGrtM8=")];
    Post::new("[shopify]\nsecret = \"Convoy\"", 0, &headers, "Test Payload Body")
}

fn hmac() -> Post {
    let headers = [("x-sign", "f417af3a21bd70379b5796d5f013915e7029f62c580fb0f500f59a35a6f04c89")];
    Post::new("[hmac]\nsecret = \"secret\"\nheader = \"X-Sign\"", 0, &headers, r#"{"a": "z"}"#)
}

#[test]
fn every_published_example_passes_and_no_other_body_does() {
    for (sender, post) in [
        ("GitHub", github()),
        ("Standard Webhooks", standard()),
        ("Slack", slack()),
        ("Stripe", stripe()),
        ("Twilio", twilio()),
        ("Shopify", shopify()),
        ("any HMAC", hmac()),
    ] {
        assert_eq!(post.admitted(), Ok(()), "{sender}");
        let changed = Post { body: format!("{}x", post.body), ..post };
        assert_eq!(changed.admitted(), Err(Refused::Wrong), "{sender}");
    }
    let svix = standard().headers.into_iter();
    let headers = svix.map(|(name, value)| (name.replace("webhook-", "svix-"), value)).collect();
    assert_eq!(Post { headers, ..standard() }.admitted(), Ok(()), "the older names");
}

#[test]
fn what_must_fail_fails() {
    let (cut, _) = STANDARD_SIGNATURE.split_at(20);
    let v0 = format!("t=1533204620,v0={STRIPE_SIGNATURE}");
    let two_times = format!("t=1533204620,t=1533204620,v1={STRIPE_SIGNATURE}");
    let many = [STANDARD_SIGNATURE; 17].join(" ");
    let v2 = STANDARD_SIGNATURE.replace("v1,", "v2,");
    let v1a = STANDARD_SIGNATURE.replace("v1,", "v1a,");
    let (signature, time) = ("webhook-signature", "webhook-timestamp");
    let (missing, wrong, stale) = (Err(Refused::Missing), Err(Refused::Wrong), Err(Refused::Stale));
    for (sentence, post, outcome) in [
        ("the id is missing", standard().without("webhook-id"), missing),
        ("the time is missing", standard().without(time), missing),
        ("the signature is missing", standard().without(signature), missing),
        ("a version alone", standard().with(signature, "v1,"), wrong),
        ("a signature cut short", standard().with(signature, cut), wrong),
        ("no version", standard().with(signature, &STANDARD_SIGNATURE[3..]), wrong),
        ("another version before a valid value", standard().with(signature, &v2), wrong),
        ("the version of public keys", standard().with(signature, &v1a), wrong),
        ("more signatures than anybody sends", standard().with(signature, &many), wrong),
        ("301 s later", standard().at(1_649_367_553 + 301), stale),
        ("301 s earlier", standard().at(1_649_367_553 - 301), stale),
        ("a time that is no integer", standard().with(time, "hello"), wrong),
        ("a time with a fraction", standard().with(time, "1649367553.0"), wrong),
        ("a time with a sign", standard().with(time, "+1649367553"), wrong),
        ("a time of too many digits", standard().with(time, "16493675530000000000000"), wrong),
        ("another time", standard().with(time, "1649367554"), wrong),
        ("another id", standard().with("webhook-id", "msg_other"), wrong),
        ("Stripe's test signature only", stripe().with("stripe-signature", &v0), wrong),
        ("two times", stripe().with("stripe-signature", &two_times), wrong),
        ("no time", stripe().with("stripe-signature", &format!("v1={STRIPE_SIGNATURE}")), missing),
        ("Stripe, 301 s later", stripe().at(1_533_204_620 + 301), stale),
        ("Slack, 301 s later", slack().at(1_531_420_618 + 301), stale),
        ("Slack without version", slack().with("x-slack-signature", &SLACK_SIGNATURE[3..]), wrong),
        ("GitHub without its prefix", github().with("x-hub-signature-256", &GITHUB_SIGNATURE[7..]), wrong),
        (
            "GitHub's SHA-1 alone",
            github().without("x-hub-signature-256").with("x-hub-signature", "sha1=0123456789abcdef"),
            missing,
        ),
        ("Twilio at another path", Post { path: Some("/other.php".into()), ..twilio() }, wrong),
        ("Twilio over another scheme", Post { scheme: Some("http".into()), ..twilio() }, wrong),
        ("Twilio with another query", Post { query: Some("foo=1&bar=3".into()), ..twilio() }, wrong),
        ("Twilio's form as something else", twilio().with("content-type", "application/json"), wrong),
        (
            "an algorithm that nobody knows",
            twilio().with("x-twilio-webhooks-signature-settings", "key=k,algorithm=NONE"),
            wrong,
        ),
    ] {
        assert_eq!(post.admitted(), outcome, "{sentence}");
    }
}

#[test]
fn what_must_pass_passes() {
    let secret = |post: Post, old: &str, new: &str| {
        assert!(post.section.contains(old));
        Post { section: post.section.replace(old, new), ..post }
    };
    let last = format!("v1,AAAA v1,{} v1a,AAAA {STANDARD_SIGNATURE}", "A".repeat(43));
    let upper =
        |signature: &str, prefix: &str| format!("{prefix}{}", signature[prefix.len()..].to_uppercase());
    let stripe_last =
        format!("t=1533204620,v0=00,v1={},v1={}", "0".repeat(64), STRIPE_SIGNATURE.to_uppercase());
    let whole = "\"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"";
    for (sentence, post) in [
        ("the valid signature is the last", standard().with("webhook-signature", &last)),
        ("300 s later", standard().at(1_649_367_553 + 300)),
        ("300 s earlier", standard().at(1_649_367_553 - 300)),
        ("the first of two secrets", secret(standard(), whole, &format!("[{whole}, \"whsec_AAAA\"]"))),
        ("the second of two secrets", secret(standard(), whole, &format!("[\"whsec_AAAA\", {whole}]"))),
        ("a secret without its prefix", secret(standard(), "whsec_", "")),
        ("the valid one of Stripe's is the last", stripe().with("stripe-signature", &stripe_last)),
        (
            "two of Stripe's secrets",
            secret(stripe(), "\"webhook_secret\"", "[\"other\", \"webhook_secret\"]"),
        ),
        ("two of Shopify's secrets", secret(shopify(), "\"Convoy\"", "[\"Convoy\", \"other\"]")),
        ("two of Twilio's tokens", secret(twilio(), "\"12345\"", "[\"other\", \"12345\"]")),
        (
            "GitHub in capital letters",
            github().with("x-hub-signature-256", &upper(GITHUB_SIGNATURE, "sha256=")),
        ),
        ("Slack in capital letters", slack().with("x-slack-signature", &upper(SLACK_SIGNATURE, "v0="))),
        (
            "Twilio with the port of its scheme",
            Post { authority: Some("mycompany.com:443".into()), ..twilio() },
        ),
    ] {
        assert_eq!(post.admitted(), Ok(()), "{sentence}");
    }
}

#[test]
fn two_values_of_a_proving_header_are_none() {
    for post in fixtures() {
        for header in proving(&post) {
            let refused = post.seen(|source, request| {
                let mut headers = request.head.headers.clone();
                let value = headers.get(header).unwrap().clone();
                headers.append(header.parse::<HeaderName>().unwrap(), value);
                source.dialect.authenticate(&Head { headers: &headers, ..request.head })
            });
            assert_eq!(refused, Err(Refused::Wrong), "{}: {header}", post.sentence);
        }
    }
}

// === The configuration

#[test]
fn a_section_that_proves_nothing_is_refused_when_it_is_read() {
    let nine = format!("[shopify]\nsecret = [{}]", ["\"s\""; 9].join(", "));
    for (sentence, section, key, problem) in [
        ("no secret", "[github]", "github.secret", "is required"),
        ("an empty secret", "[github]\nsecret = \"\"", "github.secret", "empty"),
        ("a blank secret", "[stripe]\nsecret = \" \"", "stripe.secret", "must not be empty"),
        ("an empty line after it", "[github]\nsecret = \"s\\n\"", "github.secret", "empty line"),
        ("a line break of another system", "[hmac]\nsecret = \"s\\r\"", "hmac.secret", "empty line"),
        ("a token with a space", "[gitlab]\nsecret = \"s \"", "gitlab.secret", "white space"),
        ("the gateway's with one", "[zapi]\ntoken = [\"t\", \" s\"]", "zapi.token", "white space"),
        ("one of CloudEvents", "[cloudevents]\ntoken = \"\ts\"", "cloudevents.token", "white space"),
        ("its account's", "[zapi]\nclient_token = \"s\\n\"", "zapi.client_token", "without blanks"),
        ("an empty one among others", "[slack]\nsecret = [\"a\", \"\"]", "slack.secret.1", "empty"),
        ("no list of secrets", "[slack]\nsecret = []", "slack.secret", ""),
        ("too many", &nine, "shopify.secret", "at most 8"),
        ("no proof of GitLab's", "[gitlab]", "gitlab.secret", "or signing_token"),
        ("a signing token that is none", "[gitlab]\nsigning_token = \"?\"", "gitlab.signing_token", "base64"),
        (
            "a secret that is no key",
            "[standard_webhooks]\nsecret = \"?\"",
            "standard_webhooks.secret",
            "base64",
        ),
        (
            "a key of no bytes",
            "[standard_webhooks]\nsecret = \"whsec_\"",
            "standard_webhooks.secret",
            "base64",
        ),
        (
            "a short public key",
            "[standard_webhooks]\nsecret = \"whpk_AAAA\"",
            "standard_webhooks.secret",
            "32",
        ),
        (
            "a private key",
            "[standard_webhooks]\nsecret = \"whsk_AAAA\"",
            "standard_webhooks.secret",
            "private",
        ),
        ("no tolerance", "[slack]\nsecret = \"s\"\ntolerance = \"0s\"", "slack.tolerance", "at least 1s"),
        (
            "a time GitHub has not",
            "[github]\nsecret = \"s\"\ntolerance = \"5m\"",
            "github.tolerance",
            "not a key",
        ),
        ("neither secret nor header", "[hmac]", "hmac.header", "is required"),
        (
            "a header that is none",
            "[hmac]\nsecret = \"s\"\nheader = \"a b\"",
            "hmac.header",
            "name of a request",
        ),
        (
            "a body that is not signed",
            "[hmac]\nsecret = \"s\"\nheader = \"X\"\nsigned = \"{timestamp}\"",
            "hmac.signed",
            "{body}",
        ),
        (
            "a place that nobody knows",
            "[hmac]\nsecret = \"s\"\nheader = \"X\"\nsigned = \"{url}{body}\"",
            "hmac.signed",
            "only {id}",
        ),
        (
            "a time that is signed and not named",
            "[hmac]\nsecret = \"s\"\nheader = \"X\"\nsigned = \"{timestamp}{body}\"",
            "hmac.timestamp_header",
            "is required",
        ),
        (
            "a time that is named and not signed",
            "[hmac]\nsecret = \"s\"\nheader = \"X\"\nsigned = \"{body}\"\ntimestamp_header = \"T\"",
            "hmac.timestamp_header",
            "proves nothing",
        ),
        (
            "a tolerance of no time",
            "[hmac]\nsecret = \"s\"\nheader = \"X\"\ntolerance = \"1m\"",
            "hmac.tolerance",
            "no effect",
        ),
        (
            "an id that is no pointer",
            "[hmac]\nsecret = \"s\"\nheader = \"X\"\nid = \"x\"",
            "hmac.id",
            "pointer",
        ),
        (
            "a URL with a query",
            "[twilio]\nsecret = \"s\"\nurl = \"https://a.test/?b=c\"",
            "twilio.url",
            "query",
        ),
        ("a URL that is none", "[twilio]\nsecret = \"s\"\nurl = \"a.test\"", "twilio.url", "expected a URL"),
    ] {
        let errors = configured(section).err().unwrap_or_else(|| panic!("{sentence}: it was taken"));
        let found = errors.0.iter().any(|error| error.key == key && error.problem.contains(problem));
        assert!(found, "{sentence}: {errors}");
        assert!(!errors.to_string().contains("AAAA"), "{sentence}: no secret is repeated");
    }
}

#[test]
fn no_header_that_proves_is_ever_kept() {
    let mut seen = 0;
    for post in fixtures() {
        let dialect = configured(&post.section).unwrap().dialect;
        assert!(dialect.has_credential(), "{}", post.sentence);
        for header in dialect.credential_headers() {
            let section = format!("keep_headers = [\"{header}\"]\n{}", post.section);
            let errors = configured(&section).err().unwrap_or_else(|| panic!("{header} is kept"));
            assert!(errors.to_string().contains("never kept"), "{errors}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

// === Anything at all

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_in_a_proving_header_panics_or_passes(
        noise in proptest::collection::vec(32..=255_u8, 0..120),
        shape in "(t=[0-9]{0,14},?)?(v1[a]?[=,]|v0=|sha256=)?[A-Za-z0-9+/=, ]{0,90}",
        which in 0..200_usize,
    ) {
        let fixtures = fixtures();
        let post = &fixtures[which % fixtures.len()];
        for header in proving(post) {
            for value in [&noise[..], shape.as_bytes()] {
                let passed = post.seen(|source, request| {
                    let mut headers = request.head.headers.clone();
                    let value = HeaderValue::from_bytes(value).unwrap_or(HeaderValue::from_static("x"));
                    headers.insert(header.parse::<HeaderName>().unwrap(), value);
                    let head = Head { headers: &headers, ..request.head };
                    let request = Request { head, ..*request };
                    source.dialect.authenticate(&head).is_ok() && source.dialect.verify(&request).is_ok()
                });
                prop_assert!(!passed, "{}: {}", post.sentence, header);
            }
        }
    }

    #[test]
    fn no_verified_body_makes_reading_panic(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        which in 0..200_usize,
    ) {
        let fixtures = fixtures();
        let post = &fixtures[which % fixtures.len()];
        post.seen(|source, request| {
            let request = Request { body: &Bytes::from(body.clone()), ..*request };
            let _ = (source.dialect.handshake(&request), source.read(&request));
        });
    }
}
