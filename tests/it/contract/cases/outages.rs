//! The other side is not there yet, dies in the middle, or takes everything and never says so.

use super::super::bench::{Bench, delivered, event, lane_is, post_at_once};
use super::super::{Need, Rig, Setup, can};
use crate::support::eventually;

/// Attempts are soon repeated, so that a case that waits for them does not take long.
const RETRY: &str = "[sinks.orders.retry]\nfirst = \"100ms\"\nmax = \"1s\"\nattempts_max = 100";

/// More connections than that after a time-out or two are made by a loop. Each of seven keys may have its own.
const CONNECTIONS_MAX: u64 = 60;

pub async fn who_is_away_at_the_start_gets_everything_once_there<R: Rig>() {
    if !can::<R>(Need::AwayAtStart) {
        return;
    }
    let mut rig = R::start(Setup::Alone).await;
    rig.goes_down().await;
    let mut bench = Bench::with(rig, "").await;
    bench.post_in_turn((0..30).map(event)).await;
    bench.is_away_because(R::REASON_DOWN).await;
    assert_eq!(bench.daemon.ask("/readyz").await.0, 200, "what is accepted is kept: it stays ready");
    bench.rig.comes_back().await;
    bench.recovered().await;
    bench.has_all(0..30).await;
    assert_eq!(bench.outcomes("retry").await, 0.0, "nobody there uses up no attempt");
    bench.stop().await;
}

pub async fn a_restart_under_load_loses_nothing<R: Rig>() {
    const EVENTS: u64 = 4000;
    if !can::<R>(Need::Restart) {
        return;
    }
    let mut bench = Bench::<R>::start(Setup::Alone, &format!("timeout = \"5s\"\n{RETRY}")).await;
    // Half of it waits in the journal first, so that the window is full when it happens.
    bench.order("pause").await;
    bench.post_at_once((0..EVENTS / 2).map(event)).await;
    bench.order("resume").await;
    let Bench { rig, daemon, .. } = &mut bench;
    tokio::join!(post_at_once(daemon, (EVENTS / 2..EVENTS).map(event)), async {
        delivered(daemon, EVENTS / 8).await;
        rig.goes_down().await;
        lane_is(daemon, "away").await;
        rig.comes_back().await;
    });
    bench.recovered().await;
    bench.has_all(0..EVENTS).await;
    bench.stop().await;
}

pub async fn a_peer_that_takes_and_never_confirms_gets_everything_again_once_healed<R: Rig>() {
    if !can::<R>(Need::Silence) {
        return;
    }
    let bench = Bench::<R>::start(Setup::Proxied, &format!("timeout = \"2s\"\n{RETRY}")).await;
    bench.post_at_once((0..100).map(event)).await;
    bench.settled().await;
    let connections = bench.rig.proxy().accepted();
    bench.rig.proxy().swallow_answers();
    bench.post_at_once((100..200).map(event)).await;
    eventually("deliveries without a confirmation have ended, and another connection was made", || async {
        let ended = bench.outcomes("retry").await + bench.outcomes("away").await;
        (ended >= 1.0 && bench.rig.proxy().accepted() > connections).then_some(())
    })
    .await;
    let in_flight = bench.lane().await["in_flight"].as_u64().unwrap();
    assert!(in_flight <= 7, "{}: one event of each of the 7 keys, not {in_flight}", R::KIND);
    let more = bench.rig.proxy().accepted() - connections;
    assert!(more <= CONNECTIONS_MAX, "{}: {more} connections in a few seconds are a busy loop", R::KIND);
    let delivered = bench.lane().await["delivered"].as_u64().unwrap();
    assert_eq!(delivered, 100, "{}: what nobody confirmed is not delivered", R::KIND);
    bench.rig.proxy().pass();
    bench.recovered().await;
    bench.has_all(0..200).await;
    bench.stop().await;
}
