//! The one connection of a sink to its broker: made by the first delivery that needs it, given up when it proves dead.
//! Holds: at most one attempt at a time, whoever waits gets its result; after a failed attempt there is a pause, longer
//! after refused credentials, so that nobody is locked out (whoever asks meanwhile gets the last failure at once).
//! Absent on purpose: when to try again. The lane's breaker probes, and each probe that comes after the pause connects.

use super::{Failure, Reason};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The pause after a failed attempt.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause after credentials were refused: brokers lock users out who try too often.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(5);

enum State<C> {
    Idle,
    Connected(Arc<C>),
    Failed(Instant, Failure),
}

/// See the module.
pub(super) struct Connection<C>(Mutex<State<C>>);

impl<C> Connection<C> {
    pub(super) fn new() -> Self {
        Connection(Mutex::new(State::Idle))
    }

    /// The client that is connected, or the one that `connect` makes. `connect` keeps its own time; a caller that is
    /// cancelled while it runs leaves the attempt to the next.
    ///
    /// # Errors
    /// Why there is none, now or moments ago.
    pub(super) async fn get<F>(&self, connect: impl FnOnce() -> F) -> Result<Arc<C>, Failure>
    where
        F: Future<Output = Result<C, Failure>>,
    {
        let mut state = self.0.lock().await;
        match &*state {
            State::Connected(client) => return Ok(Arc::clone(client)),
            State::Failed(at, failure) if at.elapsed() < pause_after(failure) => return Err(failure.clone()),
            State::Failed(..) | State::Idle => {}
        }
        match connect().await {
            Ok(client) => {
                let client = Arc::new(client);
                *state = State::Connected(Arc::clone(&client));
                Ok(client)
            }
            Err(failure) => {
                *state = State::Failed(Instant::now(), failure.clone());
                Err(failure)
            }
        }
    }

    /// Gives this client up; whoever still holds it finishes with it, the next delivery connects anew. Does nothing
    /// where it was given up already. Returns whether it did.
    pub(super) async fn give_up(&self, client: &Arc<C>) -> bool {
        let mut state = self.0.lock().await;
        let is_current = matches!(&*state, State::Connected(current) if Arc::ptr_eq(current, client));
        if is_current {
            *state = State::Idle;
        }
        is_current
    }

    /// The client, taken out for good; for closing.
    pub(super) async fn take(&self) -> Option<Arc<C>> {
        match std::mem::replace(&mut *self.0.lock().await, State::Idle) {
            State::Connected(client) => Some(client),
            State::Failed(..) | State::Idle => None,
        }
    }
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
        assert!(connection.give_up(&first).await);
        assert!(!connection.give_up(&first).await);
        let second = connection.get(|| async { Ok(2) }).await.unwrap();
        assert!(!connection.give_up(&first).await, "an old one cannot take the new one along");
        assert_eq!(*connection.take().await.unwrap(), *second);
        assert!(connection.take().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_whose_caller_is_gone_is_made_anew_by_the_next() {
        let connection = Connection::new();
        let never = tokio::time::timeout(
            Duration::from_secs(1),
            connection.get(std::future::pending::<Result<u32, Failure>>),
        );
        assert!(never.await.is_err());
        assert_eq!(*connection.get(|| async { Ok(7) }).await.unwrap(), 7);
    }
}
