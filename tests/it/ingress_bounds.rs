//! What the ingress bounds: bytes, time, header fields, requests at once; and the protocols it speaks.

use crate::ingress_rig::{Client, Lines, Rig, eventually, post, source};
use hookbus::config::{ByteSize, Period, Rate};
use hookbus::ingress;
use hookbus::source::Config;
use metrics_exporter_prometheus::PrometheusBuilder;
use proptest::prelude::*;
use std::io::Write;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn rig(config: ingress::Config) -> Rig {
    Rig::with(config, vec![source("open", Lines::default(), Config::default())]).await
}

async fn impatient() -> Rig {
    let (header_timeout, body_timeout) = (Period::millis(200), Period::millis(200));
    rig(ingress::Config { header_timeout, body_timeout, ..ingress::Config::default() }).await
}

/// A request that is in work and waits for its body of three bytes.
async fn request_in_work(rig: &Rig) -> Client {
    let mut client = rig.connect().await;
    let head = "POST /hooks/open HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.reply().await.expect("asked for the body").status, 100);
    client
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// 2 MiB of zeros, as the reference encoder packs them.
const BROTLI_BOMB: &str = "9bffff1ff82700e2b14020f7fe03";

#[tokio::test]
async fn whoever_sends_no_head_in_time_is_hung_up_on() {
    let rig = impatient().await;
    for (sentence, bytes) in [
        ("nothing at all", &b""[..]),
        ("the beginning of either protocol", b"P"),
        ("half an HTTP/2 preface", b"PRI * HTTP/2.0\r\n"),
        ("half a head", b"POST /hooks/open HTTP/1.1\r\nhost: te"),
        ("a head without its end", b"POST /hooks/open HTTP/1.1\r\nhost: test\r\n"),
    ] {
        let mut client = rig.connect().await;
        client.send(bytes).await;
        let reply = client.reply().await;
        assert!(reply.as_ref().is_none_or(|reply| reply.status == 408), "{sentence}: {reply:?}");
    }
    assert_eq!(rig.ask(post("/hooks/open", &[], b"x")).await.status, 200);
}

#[tokio::test]
async fn a_slow_body_is_a_408_and_the_end_of_the_connection() {
    let rig = impatient().await;
    let mut client = request_in_work(&rig).await;
    client.send("a").await;
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.problem().as_str()), (408, "body-timeout"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(client.reply().await.is_none());
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_whether_announced_or_not() {
    let rig = rig(ingress::Config { body_max: ByteSize::kib(1), ..ingress::Config::default() }).await;
    let mut announced = rig.connect().await;
    announced.send("POST /hooks/open HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000000\r\n\r\n").await;
    assert_eq!(announced.reply().await.unwrap().status, 413, "at once, before any of it is sent");

    let mut chunked = rig.connect().await;
    chunked.send("POST /hooks/open HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for _ in 0..3 {
        chunked.send([b"200\r\n", &[b'x'; 512][..], b"\r\n"].concat()).await;
    }
    assert_eq!(chunked.reply().await.unwrap().status, 413);
}

#[tokio::test]
async fn a_sender_that_is_still_sending_reads_its_refusal() {
    let rig = rig(ingress::Config { body_max: ByteSize::kib(1), ..ingress::Config::default() }).await;
    let reply = rig.ask(post("/hooks/open", &[], &vec![b'x'; 4 * 1024 * 1024])).await;
    assert_eq!((reply.status, reply.problem().as_str()), (413, "body-too-large"));
}

#[tokio::test]
async fn chunks_are_joined_and_broken_chunks_are_a_400() {
    let rig = rig(ingress::Config::default()).await;
    let head = "POST /hooks/open HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    let whole = rig.ask(format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).await;
    assert_eq!(whole.body, r#"{"id":"abcde","duplicate":false}"#);
    assert_eq!(rig.ask(format!("{head}3\r\nabc\r\nzz\r\n")).await.problem(), "body-incomplete");
}

#[tokio::test]
async fn packed_bodies_are_unpacked_within_their_bounds() {
    let rig = rig(ingress::Config::default()).await;
    let zstd = |plain: &[u8]| zstd::stream::encode_all(plain, 3).unwrap();
    let many_lines: Vec<u8> = (0..30_000_u32).flat_map(|n| format!("{n:x}").into_bytes()).collect();
    for (sentence, coding, body, status, problem) in [
        ("gzip", "gzip", gzip(b"g"), 200, ""),
        ("zstd", "zstd", zstd(b"z"), 200, ""),
        ("one on the other", "gzip, zstd", zstd(&gzip(b"gz")), 200, ""),
        ("large enough for a thread of its own", "gzip", gzip(&many_lines), 200, ""),
        ("too many", "gzip, gzip, gzip, gzip", gzip(b"x"), 415, "unknown-coding"),
        ("a bomb by its size", "gzip", gzip(&vec![0; 2 << 20]), 413, "body-too-large"),
        ("a bomb by its ratio", "gzip", gzip(&vec![0; 500_000]), 413, "body-too-large"),
        ("a bomb in a bomb", "gzip, gzip", gzip(&gzip(&vec![0; 64 << 20])), 413, "body-too-large"),
        ("a bomb of zstd", "zstd", zstd(&vec![0; 2 << 20]), 413, "body-too-large"),
        ("a bomb of deflate", "deflate", zlib(&vec![0; 2 << 20]), 413, "body-too-large"),
        ("a bomb of brotli", "br", hex::decode(BROTLI_BOMB).unwrap(), 413, "body-too-large"),
        (
            "a packed bomb of brotli",
            "br, gzip",
            gzip(&hex::decode(BROTLI_BOMB).unwrap()),
            413,
            "body-too-large",
        ),
        (
            "a window of 1 GiB",
            "br",
            [&[0x11, 30, 18, 0, 2][..], b"0123456789", &[3]].concat(),
            400,
            "broken-coding",
        ),
        ("cut off", "gzip", gzip(b"cut off")[..20].to_vec(), 400, "broken-coding"),
    ] {
        let reply = rig.ask(post("/hooks/open", &[&format!("content-encoding: {coding}")], &body)).await;
        assert_eq!((reply.status, reply.problem().as_str()), (status, problem), "{sentence}: {reply:?}");
    }
}

#[tokio::test]
async fn too_many_or_too_long_header_fields_are_a_431() {
    let rig = rig(ingress::Config { headers_max: 10, ..ingress::Config::default() }).await;
    let fields: Vec<String> = (0..9).map(|n| format!("x-{n}: y")).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    assert_eq!(rig.ask(post("/hooks/open", &fields[..8], b"x")).await.status, 200, "ten are allowed");
    assert_eq!(rig.ask(post("/hooks/open", &fields, b"x")).await.status, 431, "eleven are not");
    let long = format!("x-long: {}", "y".repeat(200_000));
    assert_eq!(rig.ask(post("/hooks/open", &[&long], b"x")).await.status, 431);
}

#[tokio::test]
async fn beyond_the_most_requests_at_once_there_is_a_503_until_one_ends() {
    let rig = rig(ingress::Config { requests_max: 1, ..ingress::Config::default() }).await;
    let mut first = request_in_work(&rig).await;
    let second = rig.ask(post("/hooks/open", &[], b"two")).await;
    assert_eq!((second.status, second.problem().as_str()), (503, "busy"));
    assert!(second.header("retry-after").is_some());
    first.send("one").await;
    assert_eq!(first.reply().await.unwrap().status, 200);
    assert_eq!(rig.ask(post("/hooks/open", &[], b"two")).await.status, 200);
}

#[tokio::test]
async fn a_stranger_is_refused_at_the_head_and_holds_no_place_of_others() {
    let guarded = Lines { token: Some("right"), ..Lines::default() };
    let rate = Some(Rate { count: 1, per: Duration::from_secs(3600) });
    let sources = vec![source("guarded", guarded, Config { rate, ..Config::default() })];
    let rig = Rig::with(ingress::Config { requests_max: 1, ..ingress::Config::default() }, sources).await;
    let head = "POST /hooks/guarded HTTP/1.1\r\nhost: test\r\nx-token: wrong\r\n";
    let mut strangers = Vec::new();
    for (sentence, rest) in [
        ("before the body is asked for", "content-length: 3\r\nexpect: 100-continue\r\n\r\n"),
        ("with half a body", "content-length: 3\r\n\r\na"),
        ("with a body that has no end", "transfer-encoding: chunked\r\n\r\n1\r\na\r\n"),
        ("with a body that is too large", "content-length: 1000000000\r\n\r\na"),
        ("with a coding nobody knows", "content-encoding: lzma\r\ncontent-length: 3\r\n\r\na"),
    ] {
        let mut stranger = rig.connect().await;
        stranger.send(format!("{head}{rest}")).await;
        assert_eq!(stranger.reply().await.expect(sentence).status, 401, "{sentence}");
        strangers.push(stranger);
    }
    let known = rig.ask(post("/hooks/guarded", &["x-token: right"], b"one")).await;
    assert_eq!(known.status, 200, "neither the place nor the rate was theirs to use up: {known:?}");
}

#[tokio::test]
async fn beyond_the_most_connections_others_wait_and_are_served_later() {
    let rig = rig(ingress::Config { connections_max: 1, ..ingress::Config::default() }).await;
    let mut first = request_in_work(&rig).await;
    let mut second = rig.connect().await;
    second.send(post("/hooks/open", &[], b"two")).await;
    first.send("one").await;
    assert_eq!(first.reply().await.unwrap().status, 200);
    drop(first);
    assert_eq!(second.reply().await.unwrap().status, 200);
    assert_eq!(rig.ids().await, ["one", "two"]);
}

#[tokio::test]
async fn a_sender_that_vanishes_leaves_nothing_behind() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let rig = rig(ingress::Config::default()).await;
    for _ in 0..10 {
        let mut client = request_in_work(&rig).await;
        client.send("a").await;
    }
    let shows = |line: &str| recorder.handle().render().lines().any(|shown| shown == line);
    eventually("no request is in work", || shows("hookbus_ingress_requests_in_work 0")).await;
    eventually("no connection is open", || shows("hookbus_ingress_connections 0")).await;
    assert!(rig.ids().await.is_empty());
}

#[tokio::test]
async fn a_sender_that_leaves_before_its_answer_is_served_all_the_same() {
    let rig = rig(ingress::Config::default()).await;
    let mut client = rig.connect().await;
    client.send(post("/hooks/open", &[], b"one")).await;
    drop(client);
    eventually("the event is kept", || rig.journal.status().records == 1).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_time_of_a_head() {
    let rig = impatient().await;
    let mut client = rig.connect().await;
    client.send(post("/hooks/open", &[], b"one")).await;
    assert_eq!(client.reply().await.unwrap().status, 200);
    assert!(client.reply().await.is_none());
}

#[tokio::test]
async fn an_http2_connection_without_a_request_is_closed_in_the_same_time() {
    let rig = impatient().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let head_without_end = [0, 0, 1, 1, 0, 0, 0, 0, 1, 0x83];
    for (sentence, frames) in [
        ("nothing but settings", [&preface[..], &settings].concat()),
        ("a head without an end", [&preface[..], &settings, &head_without_end].concat()),
    ] {
        let mut client = rig.connect().await;
        client.send(frames).await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(crate::ingress_rig::SOON, client.tcp.read_to_end(&mut rest)).await;
        ended.expect(sentence).unwrap();
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let rig = rig(ingress::Config::default()).await;
    let mut client = rig.connect().await;
    let requests = ["/hooks/open", "/hooks/nobody", "/hooks/open"].into_iter().zip([b"one", b"nil", b"two"]);
    let requests: Vec<u8> = requests.flat_map(|(path, body)| post(path, &[], body)).collect();
    client.send(requests).await;
    assert_eq!(client.reply().await.unwrap().body, r#"{"id":"one","duplicate":false}"#);
    assert_eq!(client.reply().await.unwrap().status, 404);
    assert_eq!(client.reply().await.unwrap().body, r#"{"id":"two","duplicate":false}"#);
}

#[tokio::test]
async fn an_offer_to_upgrade_to_h2c_is_passed_over() {
    let rig = rig(ingress::Config::default()).await;
    let offer = ["connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAAA"];
    let reply = rig.ask(post("/hooks/open", &offer, b"one")).await;
    assert_eq!(reply.status, 200);
    assert!(reply.head.starts_with("http/1.1 200 "));
}

#[tokio::test]
async fn http2_by_prior_knowledge_gets_the_same_answers() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let rig = rig(ingress::Config { headers_max: 10, ..ingress::Config::default() }).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let at = |path: &str| format!("http://{}{path}", rig.address);
    let taken = client.post(at("/hooks/open")).body("one").send().await.unwrap();
    assert_eq!((taken.status().as_u16(), taken.version()), (200, http::Version::HTTP_2));
    assert_eq!(taken.text().await.unwrap(), r#"{"id":"one","duplicate":false}"#);
    let too_large = client.post(at("/hooks/open")).body(vec![b'x'; 2 << 20]).send().await.unwrap();
    assert_eq!(too_large.status(), 413);
    let bomb =
        client.post(at("/hooks/open")).header("content-encoding", "gzip").body(gzip(&vec![0; 2 << 20]));
    assert_eq!(bomb.send().await.unwrap().status(), 413);
    let mut many_fields = client.post(at("/hooks/open"));
    for n in 0..11 {
        many_fields = many_fields.header(format!("x-{n}"), "y");
    }
    assert_eq!(many_fields.send().await.unwrap().status(), 431);
    assert_eq!(client.get(at("/hooks/open")).send().await.unwrap().status(), 405);
    assert_eq!(client.post(at("/hooks/nobody")).send().await.unwrap().status(), 404);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn arbitrary_bytes_harm_nobody(
        connections in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..16),
        packed in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = impatient().await;
            for bytes in &connections {
                let coding = if packed { "content-encoding: deflate, br" } else { "x-coding: none" };
                let status = rig.ask(post("/hooks/open", &[coding], bytes)).await.status;
                assert!([200, 400, 413].contains(&status), "{status}");
                let mut raw = rig.connect().await;
                raw.send(bytes).await;
                let _ = tokio::time::timeout(Duration::from_secs(5), raw.next_reply()).await.expect("an end");
                let mut frames = rig.connect().await;
                frames.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &bytes[..]].concat()).await;
                let _ = frames.tcp.shutdown().await;
                let mut rest = Vec::new();
                let ended = tokio::time::timeout(Duration::from_secs(5), frames.tcp.read_to_end(&mut rest));
                let _ = ended.await.expect("an end");
            }
            assert_eq!(rig.ask(post("/hooks/open", &[], b"still here")).await.status, 200);
        });
    }
}
