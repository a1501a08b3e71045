//! The one connection of a sink to its broker: made by the first delivery that needs it, given up when it proves dead.
//! Holds: at most one attempt at a time, whoever waits gets its result; after a failed attempt, also one that was cut
//! off, there is a pause, longer after refused credentials, so that nobody is locked out (whoever asks meanwhile gets the
//! last failure at once); giving up waits for nothing, or a delivery would outlive its time-out by another's attempt.
//! For a sink without a connection of its own (`http`) it keeps what requests are made with, which is read anew after
//! the other side refused it.
//! Absent on purpose: when to try again. The lane's breaker probes, and each probe that comes after the pause connects.

use super::{Failure, Reason};
use std::future::Future;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The pause after a failed attempt.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause after credentials were refused: brokers lock users out who try too often.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(5);

/// What is kept of a failure's own words beside those about a shortage.
const DETAIL_CHARS_MAX: usize = 200;

/// An attempt that was dropped after so long has failed.
const CUT_OFF_MIN: Duration = Duration::from_millis(250);

enum State<C> {
    Idle,
    Connected(Arc<C>),
    Failed(Instant, Failure),
}

/// See the module.
pub(super) struct Connection<C> {
    state: Mutex<State<C>>,
    /// Held by who connects.
    attempt: tokio::sync::Mutex<()>,
}

/// An attempt that is under way. Dropped after a while, it was cut off by its caller's time-out, as those who wait for
/// it are about to be: each of them would begin one more that is cut off at once. Dropped at once, its caller has gone
/// for reasons of its own, which say nothing about the broker.
struct Attempt<'a, C> {
    of: &'a Connection<C>,
    began: Instant,
    is_over: bool,
}

impl<C> Drop for Attempt<'_, C> {
    fn drop(&mut self) {
        if !self.is_over && self.began.elapsed() >= CUT_OFF_MIN {
            let failure = Failure::new(Reason::Timeout, "no connection within the sink's timeout");
            *self.of.state() = State::Failed(Instant::now(), failure);
        }
    }
}

impl<C> Connection<C> {
    pub(super) fn new() -> Self {
        Connection { state: Mutex::new(State::Idle), attempt: tokio::sync::Mutex::default() }
    }

    /// With a client that was made before.
    pub(super) fn with(client: C) -> Self {
        let connection = Self::new();
        *connection.state() = State::Connected(Arc::new(client));
        connection
    }

    /// The client that is connected, or the one that `connect` makes. `connect` keeps its own time; a caller whose
    /// time-out cuts it off makes it a failed attempt.
    ///
    /// # Errors
    /// Why there is none, now or moments ago.
    pub(super) async fn get<F>(&self, connect: impl FnOnce() -> F) -> Result<Arc<C>, Failure>
    where
        F: Future<Output = Result<C, Failure>>,
    {
        if let Some(known) = self.known() {
            return known;
        }
        let _only = self.attempt.lock().await;
        // Another's attempt may have ended meanwhile.
        if let Some(known) = self.known() {
            return known;
        }
        let mut attempt = Attempt { of: self, began: Instant::now(), is_over: false };
        let made = connect().await.map(Arc::new).map_err(with_own_shortage);
        attempt.is_over = true;
        *self.state() = match &made {
            Ok(client) => State::Connected(Arc::clone(client)),
            Err(failure) => State::Failed(Instant::now(), failure.clone()),
        };
        made
    }

    /// What a caller gets without an attempt.
    fn known(&self) -> Option<Result<Arc<C>, Failure>> {
        match &*self.state() {
            State::Connected(client) => Some(Ok(Arc::clone(client))),
            State::Failed(at, failure) if at.elapsed() < pause_after(failure) => Some(Err(failure.clone())),
            State::Failed(..) | State::Idle => None,
        }
    }

    /// This client from now on; whoever holds the one before finishes with it.
    pub(super) fn replace(&self, client: C) {
        *self.state() = State::Connected(Arc::new(client));
    }

    /// Gives this client up; whoever still holds it finishes with it, the next delivery connects anew. Does nothing
    /// where it was given up already. Returns whether it did.
    #[cfg(any(test, feature = "amqp", feature = "kafka", feature = "nats"))]
    pub(super) fn give_up(&self, client: &Arc<C>) -> bool {
        let mut state = self.state();
        let is_current = matches!(&*state, State::Connected(current) if Arc::ptr_eq(current, client));
        if is_current {
            *state = State::Idle;
        }
        is_current
    }

    /// Gives this client up because of a failure that speaks against what it was made with: the next one is made after
    /// the same pause as after a failed attempt. Does nothing where it was given up already.
    pub(super) fn fail(&self, client: &Arc<C>, failure: &Failure) {
        let mut state = self.state();
        if matches!(&*state, State::Connected(current) if Arc::ptr_eq(current, client)) {
            *state = State::Failed(Instant::now(), failure.clone());
        }
    }

    /// The client, taken out for good; for closing, when nobody connects any more.
    #[cfg(any(test, feature = "amqp", feature = "kafka", feature = "nats"))]
    pub(super) fn take(&self) -> Option<Arc<C>> {
        match std::mem::replace(&mut *self.state(), State::Idle) {
            State::Connected(client) => Some(client),
            State::Failed(..) | State::Idle => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        // Every change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same failure, and where this process has no file descriptors left, that too: resolvers and clients then report
/// whatever they could not do, a name that does not resolve for example.
pub(super) fn with_own_shortage(failure: Failure) -> Failure {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    // Any socket will do.
    let tried = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    if !tried.is_err_and(|error| matches!(error.raw_os_error(), Some(ENFILE | EMFILE))) {
        return failure;
    }
    let detail = failure.detail.chars().take(DETAIL_CHARS_MAX).collect::<String>();
    Failure::new(
        failure.reason,
        format!("no file descriptors are left here, raise the limit (ulimit -n); {detail}"),
    )
}

fn pause_after(failure: &Failure) -> Duration {
    if failure.reason == Reason::NotAuthorized { PAUSE_AFTER_REFUSAL } else { PAUSE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn failed(reason: Reason) -> Result<u32, Failure> {
        Err(Failure::new(reason, "no"))
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_wait_share_one_attempt_and_one_client() {
        let (connection, attempts) = (Connection::new(), AtomicU32::new(0));
        let connect = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(attempts.fetch_add(1, Ordering::Relaxed))
        };
        let (one, other) = tokio::join!(connection.get(connect), connection.get(connect));
        assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_nobody_tries_before_the_pause_is_over() {
        for (reason, pause) in
            [(Reason::ConnectionRefused, PAUSE), (Reason::NotAuthorized, PAUSE_AFTER_REFUSAL)]
        {
            let connection = Connection::new();
            assert!(connection.get(|| async { failed(reason) }).await.is_err());
            tokio::time::advance(pause - Duration::from_millis(1)).await;
            assert_eq!(connection.get(|| async { Ok(1) }).await.unwrap_err().reason, reason, "too early");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(*connection.get(|| async { Ok(2) }).await.unwrap(), 2, "{reason:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_given_up_once_and_only_while_it_is_the_current_one() {
        let connection = Connection::new();
        let first = connection.get(|| async { Ok(1) }).await.unwrap();
        assert!(connection.give_up(&first));
        assert!(!connection.give_up(&first));
        let second = connection.get(|| async { Ok(2) }).await.unwrap();
        assert!(!connection.give_up(&first), "an old one cannot take the new one along");
        assert_eq!(*connection.take().unwrap(), *second);
        assert!(connection.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_failed_is_replaced_after_the_pause_and_only_the_current_one_can_fail() {
        let connection = Connection::with(1);
        let first = connection.get(|| async { Ok(2) }).await.unwrap();
        assert_eq!(*first, 1, "nothing is made anew");
        let refused = Failure::new(Reason::NotAuthorized, "no");
        connection.fail(&first, &refused);
        tokio::time::advance(PAUSE_AFTER_REFUSAL - Duration::from_millis(1)).await;
        assert_eq!(connection.get(|| async { Ok(3) }).await.unwrap_err(), refused, "too early");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(*connection.get(|| async { Ok(4) }).await.unwrap(), 4);
        connection.fail(&first, &refused);
        assert_eq!(
            *connection.get(|| async { Ok(5) }).await.unwrap(),
            4,
            "an old one speaks for itself only"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_does_not_wait_for_another_s_attempt() {
        let connection = Connection::new();
        let first = connection.get(|| async { Ok(1) }).await.unwrap();
        assert!(connection.give_up(&first));
        let attempt = connection.get(|| async {
            assert!(!connection.give_up(&first), "while it runs");
            Ok(2)
        });
        assert_eq!(*attempt.await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_is_cut_off_has_failed_for_all_who_wait_and_is_made_anew_after_the_pause() {
        let (connection, attempts) = (Connection::new(), AtomicU32::new(0));
        let never = || {
            attempts.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<Result<u32, Failure>>()
        };
        let get = |seconds| tokio::time::timeout(Duration::from_secs(seconds), connection.get(never));
        let (one, other, third) = tokio::join!(get(1), get(2), get(2));
        assert!(one.is_err(), "cut off");
        for waited in [other, third] {
            assert_eq!(waited.expect("it is told at once").unwrap_err().reason, Reason::Timeout);
        }
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
        tokio::time::advance(PAUSE).await;
        assert_eq!(*connection.get(|| async { Ok(7) }).await.unwrap(), 7);
    }
    #[tokio::test(start_paused = true)]
    async fn an_attempt_whose_caller_leaves_at_once_has_not_failed() {
        let connection = Connection::new();
        let never = connection.get(std::future::pending::<Result<u32, Failure>>);
        assert!(tokio::time::timeout(Duration::from_millis(1), never).await.is_err());
        assert_eq!(*connection.get(|| async { Ok(7) }).await.unwrap(), 7, "without a pause");
    }
}
