//! The senders of a campaign: a steady load of bounded rate, and the ledger of what was posted and what was promised.
//! Most post one event of their key after the other and repeat each, the same bytes under the same id, until it is answered
//! 2xx, so that the order of a key is known; some post once and never ask again. All hang up now and then before the answer.

use super::supervised::Supervised;
use crate::support::oracle::{Ledger, Posted};
use crate::support::{eventually_within, lasts};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Senders that keep to the order of their key.
const ORDERED: u64 = 12;
/// Senders that never repeat.
const CARELESS: u64 = 3;
/// Between two events of a sender.
const PAUSE_MS: Range<u64> = 100..300;
/// Before a repetition.
const REPEAT_MS: Range<u64> = 20..400;
/// How long a sender waits for its answer, and one that hangs up.
const ANSWER_MAX: Duration = Duration::from_secs(3);
const HANGS_UP_MS: Range<u64> = 0..6;
const ONE_IN: u64 = 12;
/// Bodies are of different sizes, most small.
const PADDING_BYTES_MAX: u64 = 900;
/// Until the last events are promised after all faults have ended.
const LAST_MAX: Duration = Duration::from_secs(150);
/// How a flood fills a journal: so many at once, so large.
const FLOOD_AT_ONCE: u64 = 6;
const FLOOD_BYTES: usize = 24 * 1024;
const FLOOD_EVENTS_MAX: u64 = 400;
/// After an answer that says nothing.
const FLOOD_PAUSE: Duration = Duration::from_millis(50);

/// See the module.
pub struct Load {
    daemon: Arc<Supervised>,
    begun: Instant,
    ledger: Mutex<Ledger>,
    promised: watch::Sender<u64>,
    answers: Mutex<BTreeMap<String, u64>>,
    is_over: CancellationToken,
}

/// How an answer is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Promised,
    /// 503 because nothing can be stored.
    Full,
    Nothing,
}

struct Event {
    id: String,
    key: String,
    number: u64,
    is_ordered: bool,
    padding: usize,
}

impl Event {
    fn of(key: String, number: u64, is_ordered: bool) -> Event {
        let padding = number.wrapping_mul(7919) % PADDING_BYTES_MAX;
        let id = format!("{key}-{number}");
        Event { id, key, number, is_ordered, padding: usize::try_from(padding).expect("it is small") }
    }

    /// The same whenever it is asked for.
    fn body(&self) -> String {
        let Event { id, key, number, padding, .. } = self;
        json!({"id": id, "n": number, "key": key, "padding": "p".repeat(*padding)}).to_string()
    }
}

impl Load {
    /// Begins. The returned senders end after [`Load::end`].
    pub fn start(daemon: &Arc<Supervised>, seed: u64) -> (Arc<Load>, JoinSet<()>) {
        let load = Arc::new(Load {
            daemon: Arc::clone(daemon),
            begun: Instant::now(),
            ledger: Mutex::default(),
            promised: watch::Sender::new(0),
            answers: Mutex::default(),
            is_over: CancellationToken::new(),
        });
        let mut senders = JoinSet::new();
        for sender in 0..ORDERED + CARELESS {
            let load = Arc::clone(&load);
            let random = fastrand::Rng::with_seed(seed.wrapping_add(1 + sender));
            senders.spawn(async move { load.send(sender, random).await });
        }
        (load, senders)
    }

    /// Milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).expect("it does not last that long")
    }

    /// How many events are promised.
    pub fn promised(&self) -> u64 {
        *self.promised.borrow()
    }

    /// Waits until so many are promised.
    pub async fn until_promised(&self, enough: u64) {
        let mut promised = self.promised.subscribe();
        promised
            .wait_for(|promised| *promised >= enough)
            .await
            .expect("the sender lives as long as the load");
    }

    /// No new events; what a sender repeats, it repeats until it is promised.
    pub async fn end(&self, senders: &mut JoinSet<()>) {
        self.is_over.cancel();
        let ended =
            timeout(LAST_MAX, async { while senders.join_next().await.transpose().unwrap().is_some() {} });
        ended.await.expect("every sender is promised its last event once all faults have ended");
    }

    /// What was posted, to be judged.
    pub fn take_ledger(&self) -> Ledger {
        std::mem::take(&mut *self.ledger.lock().unwrap())
    }

    /// How often which answer was given.
    pub fn answers(&self) -> BTreeMap<String, u64> {
        self.answers.lock().unwrap().clone()
    }

    async fn send(&self, sender: u64, mut random: fastrand::Rng) {
        let is_ordered = sender < ORDERED;
        let key = if is_ordered { format!("key{sender}") } else { format!("careless{sender}") };
        for number in 1.. {
            lasts(Duration::from_millis(random.u64(PAUSE_MS))).await;
            if self.is_over.is_cancelled() {
                return;
            }
            let event = Event::of(key.clone(), number, is_ordered);
            while self.post(&event, patience(&mut random)).await != Answer::Promised && is_ordered {
                lasts(Duration::from_millis(random.u64(REPEAT_MS))).await;
            }
        }
    }

    /// Posts large events until one is refused because the journal is full, or there were enough.
    pub async fn flood(&self, name: &str) -> bool {
        let is_full = std::cell::Cell::new(false);
        let senders = (0..FLOOD_AT_ONCE).map(|sender| {
            let is_full = &is_full;
            async move {
                let mut number = 1 + sender;
                while !is_full.get() && number <= FLOOD_EVENTS_MAX {
                    let event = Event { padding: FLOOD_BYTES, ..Event::of(name.to_owned(), number, false) };
                    match self.post(&event, ANSWER_MAX).await {
                        Answer::Full => is_full.set(true),
                        Answer::Promised => {}
                        Answer::Nothing => lasts(FLOOD_PAUSE).await,
                    }
                    number += FLOOD_AT_ONCE;
                }
            }
        });
        futures_util::future::join_all(senders).await;
        is_full.get()
    }

    async fn post(&self, event: &Event, patience: Duration) -> Answer {
        let Some(up) = self.daemon.up() else {
            return Answer::Nothing;
        };
        let url = format!("http://{}/hooks/inbox", up.ingress);
        let request = self.daemon.http.post(url).header("content-type", "application/json");
        self.note(event, &format!("is posted to life {}", up.life), Answer::Nothing);
        let answered = timeout(patience, async {
            let response = request.body(event.body()).send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.bytes().await?))
        });
        let (answer, sort, said) = match answered.await {
            Err(_) => (Answer::Nothing, "none in time".to_owned(), format!("{patience:?}")),
            Ok(Err(error)) => (Answer::Nothing, "none".to_owned(), error.to_string()),
            Ok(Ok((status, body))) => {
                let said: Value = serde_json::from_slice(&body).unwrap_or_default();
                let kind =
                    said["type"].as_str().and_then(|kind| kind.rsplit([':', '/']).next()).unwrap_or_default();
                let answer = if status.is_success() {
                    assert_eq!(said["id"], event.id.as_str(), "the promise is about the event: {said}");
                    Answer::Promised
                } else if kind == "storage-unavailable" {
                    Answer::Full
                } else {
                    Answer::Nothing
                };
                (answer, format!("{} {kind}", status.as_u16()), said.to_string())
            }
        };
        *self.answers.lock().unwrap().entry(sort.clone()).or_default() += 1;
        let what = format!("is answered: {sort}, {said}");
        self.note(event, &what, answer);
        answer
    }

    fn note(&self, event: &Event, what: &str, answer: Answer) {
        let now = self.now_ms();
        let mut ledger = self.ledger.lock().unwrap();
        let posted = ledger.entry(event.id.clone()).or_insert_with(|| Posted {
            key: event.is_ordered.then(|| event.key.clone()),
            ..Posted::default()
        });
        posted.story.push(format!("{now} ms: {what}"));
        if answer == Answer::Promised && posted.promised_ms.is_none() {
            posted.promised_ms = Some(now);
            self.promised.send_modify(|promised| *promised += 1);
        }
    }

    /// Waits until an event is promised that nobody has posted yet: the daemon takes events.
    pub async fn goes_on(&self, within: Duration) {
        let now = self.promised();
        eventually_within(within, "events are promised again", || async {
            (self.promised() > now).then_some(())
        })
        .await;
    }
}

fn patience(random: &mut fastrand::Rng) -> Duration {
    if random.u64(..ONE_IN) == 0 { Duration::from_millis(random.u64(HANGS_UP_MS)) } else { ANSWER_MAX }
}
