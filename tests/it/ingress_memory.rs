//! How much memory senders can make the real program take, measured by the system.

use crate::ingress_rig::{Client, post};
use crate::support::daemon::Daemon;
use std::io::Write;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const REQUESTS_MAX: u64 = 64;
const BODY_BYTES_MAX: u64 = 256 * 1024;
const SENDERS: usize = 200;
/// What may be added to what the bodies of all requests in work take, once as sent and once unpacked: buffers and heads
/// of all connections, the windows of decoders (16 MiB each, as many as threads unpack), the allocator's leftovers.
const BESIDE_BYTES_MAX: u64 = 96 * 1024 * 1024;

/// 64 MiB of zeros in 53 bytes, as the reference encoder of brotli packs them; and the beginning of a gibibyte of them
/// in a window that no standard allows.
const BROTLI: &str = "cfffff7ff82700e2b14020f7fe9ffffffff04f00c4610180eefd3fffffffe19f0088c32200ddfbfffcffffc73f0110870500baf7ff";
const BROTLI_LARGE: &str = "111effffff01900088c70221f7fe9fffffff004800c46101a07bffcfffff7f002400e2b000d0bdffe7ffff3f001200715800e8de\
    fff3ffff1f000980382c0074effff9ffff0f8004401c1600baf7fffcffff074002200e0b00ddfb7ffeffff03200110870580ee";

/// The most memory that the process has had since it began.
fn peak_bytes(daemon: &Daemon) -> u64 {
    crate::bounded::memory(daemon, "VmHWM")
}

fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let zeros = vec![0; 16 << 20];
    let gzip = |plain: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let once = gzip(&zeros);
    vec![
        ("gzip, gzip", gzip(&once)),
        ("gzip", once),
        ("zstd", zstd::stream::encode_all(&zeros[..], 3).unwrap()),
        ("br", hex::decode(BROTLI).unwrap()),
        ("br", hex::decode(BROTLI_LARGE).unwrap()),
    ]
}

async fn connect(daemon: &Daemon) -> Client {
    Client::over(TcpStream::connect(daemon.ingress).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_bounded_while_many_send_bombs_and_half_bodies() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[ingress]\nrequests_max = {REQUESTS_MAX}\nbody_max = {BODY_BYTES_MAX}\n\
         [sources.inbox.generic]\n[sinks.events.file]\npath = 'events.ndjson'\n"
    );
    let daemon = Daemon::start(folder.path(), &config).await;
    assert_eq!(daemon.post("/hooks/inbox", "{}").await.unwrap().status, 200);
    let before = peak_bytes(&daemon);

    // Half bodies of all who find a place stay in memory until the end of the test.
    let mut halves = Vec::new();
    for _ in 0..SENDERS {
        let mut sender = connect(&daemon).await;
        let head =
            format!("POST /hooks/inbox HTTP/1.1\r\nhost: test\r\ncontent-length: {BODY_BYTES_MAX}\r\n\r\n");
        sender.send(head).await;
        // Who found no place is hung up on, which is as good.
        let half = vec![b'x'; BODY_BYTES_MAX as usize / 2];
        let _ = tokio::io::AsyncWriteExt::write_all(&mut sender.tcp, &half).await;
        halves.push(sender);
    }
    crate::support::eventually("every place is taken", || async {
        (daemon.post("/hooks/inbox", "{}").await.unwrap().status == 503).then_some(())
    })
    .await;
    // They have proven nothing, so half of the places is all they have; now half of that.
    drop(halves.split_off(REQUESTS_MAX as usize / 4));

    let mut senders = JoinSet::new();
    for (coding, bomb) in bombs() {
        let request = post("/hooks/inbox", &[&format!("content-encoding: {coding}")], &bomb);
        for _ in 0..SENDERS / 5 {
            let (request, mut sender) = (request.clone(), connect(&daemon).await);
            senders.spawn(async move {
                sender.send(request).await;
                sender.reply().await.map_or(0, |reply| reply.status)
            });
        }
    }
    let mut stopped = 0;
    while let Some(status) = senders.join_next().await {
        let status = status.unwrap();
        assert!([400, 413, 503].contains(&status), "{status}");
        stopped += usize::from(status != 503);
    }
    assert!(stopped > SENDERS / 10, "bombs were unpacked: {stopped}");

    let grown = peak_bytes(&daemon) - before;
    let bound = REQUESTS_MAX * 2 * BODY_BYTES_MAX + BESIDE_BYTES_MAX;
    println!("grown by {} KiB of {} KiB", grown / 1024, bound / 1024);
    assert!(grown <= bound, "grown by {grown} bytes, more than {bound}");
    drop(halves);
    crate::support::eventually("it goes on", || async {
        (daemon.post("/hooks/inbox", "{\"after\":1}").await.ok()?.status == 200).then_some(())
    })
    .await;
    daemon.stop().await;
}
