//! One connection: the client, and how a message sent over it comes to an outcome.
//!
//! A core publish has no answer, and `flush` confirms nothing: it only empties our own buffer. So a *fence* follows what
//! was published: a message to an inbox of our own, which comes back when the server has worked through everything before
//! it. One fence is out at a time, and each covers all that was handed over before it, so a window costs one round trip
//! however large it is.
//! A refusal (`-ERR 'Permissions Violation …'`) comes before the fence, but the client tells it as an event, on another
//! way than messages: a fence read as a message could overtake it. Therefore the fence is an event as well. Its
//! subscription has room for one message, which is put there when the connection is made and never taken out; every
//! further one makes the client tell of a slow consumer, behind all refusals that came before. The client drops events
//! when 128 of them wait. Among 128 that wait at most one is a fence, so one of the two sides of it has at least 63
//! refusals: when 60 come between two fences, everything in flight ends as refused and the connection is given up,
//! before any fence that comes after a dropped refusal. Where events lead to subjects, a sender could bring that about:
//! after the first refusal of such a subject, the next connections have few messages in flight, too few for it.

use super::super::{Failure, Outcome, Reason};
use super::message::Message;
use super::server::{CONNECT_TIMEOUT, Server};
pub(in super::super) use super::tracker::NotSent;
use super::tracker::{CAREFUL_IN_FLIGHT_MAX, Place, Ticket, Tracker};
use async_nats::client::{PublishErrorKind, Request};
use async_nats::{Client, Event, RequestErrorKind, Subscriber};
use bytes::Bytes;
use std::error::Error;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};

/// How long a connection may take to be closed politely.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// How a request ended.
#[derive(Debug)]
pub(in super::super) enum Reply {
    Answer(Bytes),
    /// Nobody listens on the subject.
    NoResponders,
    /// There will be no answer.
    Ended(Outcome),
}

/// Where fences go, and the subscription that is never read.
struct Fence {
    client: Client,
    inbox: String,
    _full: Subscriber,
}

/// A connection. It ends with the link.
pub(in super::super) struct Link {
    client: Client,
    host: String,
    tracker: Arc<Tracker>,
    fence: Option<Arc<Fence>>,
    /// The places in flight, where they are few.
    places: Option<Arc<Semaphore>>,
    made: Instant,
}

impl Link {
    /// Connects; `with_fence` for messages that have no answer of their own.
    ///
    /// # Errors
    /// Why there is no connection, or none that can be used.
    pub(in super::super) async fn open(server: &Server, with_fence: bool) -> Result<Link, Failure> {
        let tracker = Arc::new(Tracker::new(Arc::clone(&server.refused), with_fence));
        // Weak, because the client would keep itself alive otherwise.
        let next_fence = Arc::new(OnceLock::<Weak<Fence>>::new());
        let observe = {
            let (tracker, next_fence) = (Arc::clone(&tracker), Arc::clone(&next_fence));
            move |event: Event| {
                let is_due = tracker.told(&event);
                let fence = next_fence.get().filter(|_| is_due).and_then(Weak::upgrade);
                async move {
                    if let Some(fence) = fence {
                        fence.send().await;
                    }
                }
            }
        };
        let (client, host) = server.connect(observe).await?;
        tracker.name(&host);
        let fence = if with_fence {
            let inbox = client.new_inbox();
            let full = client.subscribe(inbox.clone()).await.map_err(|_| tracker.broken())?;
            Some(Arc::new(Fence { client: client.clone(), inbox, _full: full }))
        } else {
            None
        };
        let is_careful = server.refused.has_subject();
        let places = is_careful.then(|| Arc::new(Semaphore::new(CAREFUL_IN_FLIGHT_MAX)));
        let link = Link { client, host, tracker, fence, places, made: Instant::now() };
        if let Some(fence) = &link.fence {
            next_fence.get_or_init(|| Arc::downgrade(fence));
            link.prove(fence).await?;
        }
        Ok(link)
    }

    /// How long ago it was made.
    pub(super) fn age(&self) -> Duration {
        self.made.elapsed()
    }

    fn wait_for(&self, message: &Message) -> Result<Ticket, NotSent> {
        self.tracker.wait_for(&message.subject, message.is_led_by_event, message.bytes())
    }

    async fn place(&self) -> Option<Place> {
        // It is never closed.
        Arc::clone(self.places.as_ref()?).acquire_owned().await.ok()
    }

    /// The server's name, for sentences.
    pub(in super::super) fn host(&self) -> &str {
        &self.host
    }

    /// The most bytes of headers and payload together that the server takes, as far as is known.
    pub(in super::super) fn message_bytes_max(&self) -> usize {
        self.client.max_payload().min(self.tracker.message_bytes_max())
    }

    /// Publishes and waits until the server has taken or refused it. Cancelling leaves that open.
    pub(in super::super) async fn publish(&self, message: Message) -> Result<Outcome, NotSent> {
        let place = self.place().await;
        let mut ticket = self.wait_for(&message)?;
        let Message { subject, headers, payload, .. } = message;
        if let Err(error) = self.client.publish_with_headers(subject, headers, payload).await {
            return match error.kind() {
                PublishErrorKind::Send => Err(NotSent(self.tracker.lost())),
                kind @ (PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject) => {
                    Ok(Outcome::Reject(Failure::new(Reason::NotEncodable, kind.to_string())))
                }
            };
        }
        if self.tracker.handed_over(ticket.number, place)
            && let Some(fence) = &self.fence
        {
            // Cancelled here, nobody gets a fence any more; all run into their time-out, which ends the connection.
            fence.send().await;
        }
        Ok(ticket.outcome().await)
    }

    /// Publishes and waits for an answer, or for the news that there will be none. Cancelling leaves the outcome open.
    pub(in super::super) async fn request(&self, message: Message) -> Result<Reply, NotSent> {
        let _place = self.place().await;
        let mut ticket = self.wait_for(&message)?;
        let Message { subject, headers, payload, .. } = message;
        let request = Request::new().headers(headers).payload(payload);
        let answer = tokio::select! { biased;
            answer = self.client.send_request(subject, request) => answer,
            outcome = ticket.outcome() => return Ok(Reply::Ended(outcome)),
        };
        match answer {
            Ok(message) => {
                ticket.answered();
                Ok(Reply::Answer(message.payload))
            }
            Err(error) => match error.kind() {
                RequestErrorKind::NoResponders => {
                    ticket.answered();
                    Ok(Reply::NoResponders)
                }
                kind @ (RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject) => {
                    let failure = Failure::new(Reason::NotEncodable, kind.to_string());
                    Ok(Reply::Ended(Outcome::Reject(failure)))
                }
                RequestErrorKind::TimedOut | RequestErrorKind::Other => {
                    // The client ended: with the message in hand, or before it took it.
                    let was_sent = |source: &(dyn Error + 'static)| source.is::<oneshot::error::RecvError>();
                    if error.source().is_some_and(was_sent) {
                        Ok(Reply::Ended(Outcome::Retry(self.tracker.lost())))
                    } else {
                        Err(NotSent(self.tracker.lost()))
                    }
                }
            },
        }
    }

    /// Says farewell, within bounds.
    pub(in super::super) async fn close(&self) {
        let mut is_lost = self.tracker.is_lost();
        let closed = async {
            if self.client.drain().await.is_ok() {
                let _ = is_lost.wait_for(|is_lost| *is_lost).await;
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, closed).await;
    }

    /// Puts the message into the fences' subscription that fills it, and waits for a first fence to come back.
    async fn prove(&self, fence: &Fence) -> Result<(), Failure> {
        let mut ticket = self.tracker.wait_for(&fence.inbox, false, 0).map_err(|NotSent(failure)| failure)?;
        fence.send().await;
        if self.tracker.handed_over(ticket.number, None) {
            fence.send().await;
        }
        match timeout(CONNECT_TIMEOUT, ticket.outcome()).await {
            Ok(Outcome::Delivered) => Ok(()),
            Ok(Outcome::Away(failure) | Outcome::Retry(failure) | Outcome::Reject(failure)) => Err(failure),
            Ok(Outcome::Busy { failure, .. }) => Err(failure),
            Err(_elapsed) => {
                let problem = format!("{}: a message to our own inbox did not come back", self.host);
                Err(Failure::new(Reason::Timeout, problem))
            }
        }
    }
}

impl Fence {
    async fn send(&self) {
        // A client that has ended told so, and nobody waits any more.
        let _ = self.client.publish(self.inbox.clone(), Bytes::new()).await;
    }
}
