//! A sink behind a slow line: its own lag grows and nobody else's, and it gets everything in the end (R4, R5).
//! How much memory a backlog takes is measured elsewhere.

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::http_sink::HttpSink;
use crate::support::proxy::Proxy;

const SLOW_BYTES_PER_SECOND: u32 = 256 * 1024;
const EVENTS: u64 = 600;
const EVENT_BYTES: usize = 16 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_lane_of_a_slow_sink_falls_behind() {
    let seconds = EVENTS * EVENT_BYTES as u64 / u64::from(SLOW_BYTES_PER_SECOND);
    assert!(seconds > 30, "a slow sink takes longer than the test waits for it");
    let (slow, fast) = (HttpSink::start().await, HttpSink::start().await);
    let line = Proxy::start(slow.address).await;
    line.throttle(SLOW_BYTES_PER_SECOND);
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[sources.inbox.generic]\n[sinks.slow.http]\nurl = \"http://{}/\"\n{}",
        line.address,
        fast.table("fast")
    );
    let daemon = Daemon::start(folder.path(), &config).await;
    for number in 0..EVENTS {
        let body = format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(EVENT_BYTES));
        assert_eq!(daemon.post("/hooks/inbox", body).await.unwrap().status, 200);
    }
    eventually("the fast sink has everything", || async {
        (daemon.lane("fast").await["lag"]["events"] == 0).then_some(())
    })
    .await;
    let lane = daemon.lane("slow").await;
    assert!(lane["lag"]["events"].as_u64().unwrap() > EVENTS / 10, "it is behind: {lane}");
    eventually("it goes on all the same", || async {
        (daemon.lane("slow").await["delivered"].as_u64().unwrap() > 0).then_some(())
    })
    .await;
    assert_eq!(daemon.ask("/readyz").await.0, 200);
    line.pass();
    eventually("it has caught up", || async {
        (daemon.lane("slow").await["lag"]["events"] == 0).then_some(())
    })
    .await;
    assert_eq!((slow.confirmed().len() as u64, fast.confirmed().len() as u64), (EVENTS, EVENTS));
    assert!(fast.confirmed().values().all(|times| *times == 1), "nothing comes twice where nothing is wrong");
    assert!(daemon.stop().await.success());
}
