//! What both kinds do alike: connect when needed, keep the time, give a connection up that proves dead.
//! Holds: a delivery that cannot be sent at all is `Away`, one whose outcome is unknown `Retry`; none outlives its
//! time-out.

use super::super::connection::Connection;
use super::super::{Failure, Limits, Outcome, Reason, Sink};
use super::link::{Link, NotSent};
use crate::envelope::Envelope;
use futures_util::future::{BoxFuture, FutureExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How many connections one delivery may find dead before its message was sent.
const CONNECTIONS_MAX: usize = 2;
/// From when on a connection is given up whose user may not publish to an event's own subject: a sender who chooses such
/// subjects must not have us connect for each.
const REFUSED_LOG_IN_AGE: Duration = Duration::from_secs(5);

/// What makes the difference between the kinds.
pub(in super::super) trait Kind: Send + Sync {
    /// A connection that is ready for this kind.
    type Session: Send + Sync;

    fn open(&self) -> impl Future<Output = Result<Self::Session, Failure>> + Send;

    fn link(session: &Self::Session) -> &Link;

    /// Sends one event. Cancelling leaves the outcome open.
    fn send(
        &self,
        session: &Self::Session,
        event: &Envelope,
    ) -> impl Future<Output = Result<Outcome, NotSent>> + Send;

    /// What the other side takes, once what must exist there does.
    fn limits(&self, session: &Self::Session) -> Result<Limits, Failure>;
}

/// A sink of either kind.
pub(in super::super) struct Sender<K: Kind> {
    kind: K,
    connection: Connection<K::Session>,
    timeout: Duration,
}

impl<K: Kind> Sender<K> {
    pub(in super::super) fn new(kind: K, timeout: Duration) -> Self {
        Sender { kind, connection: Connection::new(), timeout }
    }

    async fn session(&self, deadline: Instant) -> Result<Arc<K::Session>, Failure> {
        match timeout_at(deadline, self.connection.get(|| self.kind.open())).await {
            Ok(session) => session,
            Err(_elapsed) => Err(Failure::new(Reason::Timeout, "no connection within the sink's timeout")),
        }
    }

    async fn deliver_by(&self, event: &Envelope, deadline: Instant) -> Outcome {
        let mut last = Failure::new(Reason::ConnectionLost, "new connections break at once");
        for _ in 0..CONNECTIONS_MAX {
            let session = match self.session(deadline).await {
                Ok(session) => session,
                Err(failure) => return Outcome::Away(failure),
            };
            let link = K::link(&session);
            match timeout_at(deadline, self.kind.send(&session, event)).await {
                Ok(Ok(outcome)) => {
                    if ends_the_connection(&outcome, link.age()) {
                        self.connection.give_up(&session);
                    }
                    return outcome;
                }
                Ok(Err(NotSent(failure))) => {
                    self.connection.give_up(&session);
                    last = failure;
                }
                Err(_elapsed) => {
                    // The others on it keep it until they end; it may be dead, and it keeps a place for each answer
                    // that does not come.
                    self.connection.give_up(&session);
                    let problem = format!("{}: no confirmation within the sink's timeout", link.host());
                    return Outcome::Retry(Failure::new(Reason::Timeout, problem));
                }
            }
        }
        Outcome::Away(last)
    }
}

/// Another log-in may be allowed more, and a lost connection is of no use.
fn ends_the_connection(outcome: &Outcome, age: Duration) -> bool {
    match outcome {
        Outcome::Away(failure) | Outcome::Retry(failure) => {
            matches!(failure.reason, Reason::NotAuthorized | Reason::ConnectionLost)
        }
        Outcome::Reject(failure) => failure.reason == Reason::NotAuthorized && age >= REFUSED_LOG_IN_AGE,
        Outcome::Delivered | Outcome::Busy { .. } => false,
    }
}

impl<K: Kind> Sink for Sender<K> {
    fn deliver<'a>(&'a self, event: &'a Arc<Envelope>) -> BoxFuture<'a, Outcome> {
        self.deliver_by(event, Instant::now() + self.timeout).boxed()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Limits, Failure>> {
        async move {
            let session = self.session(Instant::now() + self.timeout).await?;
            self.kind.limits(&session)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            if let Some(session) = self.connection.take() {
                K::link(&session).close().await;
            }
        }
        .boxed()
    }
}
