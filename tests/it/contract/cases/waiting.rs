//! What keeps a sink from taking anything: the lane says why, uses up no attempt, and goes on by itself.

use super::super::bench::{Bench, event};
use super::super::{Need, Rig, Setup, can};
use crate::support::eventually;

pub async fn a_missing_destination_is_waited_for_with_its_reason<R: Rig>() {
    if !can::<R>(Need::Missing) {
        return;
    }
    let mut bench = Bench::<R>::start(Setup::Missing, "").await;
    waits(&bench, R::REASON_MISSING).await;
    bench.rig.create_destination().await;
    goes_on(bench).await;
}

pub async fn wrong_credentials_are_waited_out_with_their_reason<R: Rig>() {
    if !can::<R>(Need::Credentials) {
        return;
    }
    let mut bench = Bench::<R>::start(Setup::WrongCredentials, "").await;
    waits(&bench, "not_authorized").await;
    bench.rig.correct_credentials().await;
    goes_on(bench).await;
}

pub async fn a_missing_permission_is_waited_for_with_its_reason<R: Rig>() {
    if !can::<R>(Need::Permission) {
        return;
    }
    let mut bench = Bench::<R>::start(Setup::Forbidden, "").await;
    waits(&bench, "not_authorized").await;
    bench.rig.grant_permission().await;
    goes_on(bench).await;
}

pub async fn a_private_authority_is_trusted_when_named_and_an_unknown_one_is_waited_out<R: Rig>() {
    if !can::<R>(Need::Tls) {
        return;
    }
    delivers::<R>(Setup::Tls { trusted: true }).await;
    let bench = Bench::<R>::start(Setup::Tls { trusted: false }, "").await;
    waits(&bench, "tls").await;
    bench.stop().await;
}

pub async fn every_method_of_authentication_gets_in<R: Rig>() {
    let says_why_not = R::CANNOT.iter().any(|(need, _)| *need == Need::Authentication);
    assert_ne!(R::AUTHENTICATIONS.is_empty(), !says_why_not, "{} names its methods or says why not", R::KIND);
    for method in R::AUTHENTICATIONS {
        println!("{}: {method}", R::KIND);
        delivers::<R>(Setup::Authenticated(method)).await;
    }
}

async fn delivers<R: Rig>(setup: Setup) {
    let bench = Bench::<R>::start(setup, "").await;
    bench.post_in_turn((0..5).map(event)).await;
    bench.settled().await;
    bench.has_all(0..5).await;
    assert_eq!(bench.outcomes("away").await, 0.0, "{}: {setup:?} gets in at once", R::KIND);
    bench.stop().await;
}

async fn waits<R: Rig>(bench: &Bench<R>, reason: &str) {
    bench.post_in_turn((0..5).map(event)).await;
    bench.is_away_because(reason).await;
    eventually("it was probed more than once", || async {
        (bench.outcomes("away").await >= 2.0).then_some(())
    })
    .await;
    let lane = bench.lane().await;
    assert_eq!((&lane["state"], &lane["failure"]["reason"]), (&"away".into(), &reason.into()), "{lane}");
    assert_eq!(lane["lag"]["events"], 5, "{lane}");
}

async fn goes_on<R: Rig>(bench: Bench<R>) {
    bench.recovered().await;
    bench.has_all(0..5).await;
    bench.lane_is("running").await;
    assert_eq!(bench.outcomes("retry").await, 0.0, "{}: waiting uses up no attempt", R::KIND);
    bench.stop().await;
}
