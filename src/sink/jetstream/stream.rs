//! What is known of the stream, and when it is asked for again.
//! Holds: nothing is refused for what was known long ago: before a no, the server is asked anew, at most once a second;
//! whoever waits while it is asked gets that answer, or that there was none.
//! Absent on purpose: creating or changing a stream.

use super::super::nats::link::{Link, NotSent, Reply};
use super::super::nats::message::Message;
use super::super::{Failure, Outcome, Reason};
use super::answer::{self, ApiError};
use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long JetStream may take to say what the stream is.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// What was heard less than this ago is true now.
const FRESH: Duration = Duration::from_secs(1);
/// The most bytes of a stream's name that the server takes.
const NAME_BYTES_MAX: usize = 255;

pub(super) fn is_stream_name(name: &str) -> bool {
    let is_sound = |c: char| c.is_ascii_graphic() && !matches!(c, '.' | '*' | '>' | '/' | '\\');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_sound)
}

/// The part of a stream's configuration that decides over a publish (`$JS.API.STREAM.INFO`).
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamConfig {
    pub(super) subjects: Vec<String>,
    /// -1: no limit.
    pub(super) max_msg_size: i64,
    pub(super) sealed: bool,
    pub(super) no_ack: bool,
}

#[derive(Deserialize)]
struct InfoAnswer {
    error: Option<ApiError>,
    config: Option<StreamConfig>,
}

impl StreamConfig {
    /// Does it take what is published to `subject`?
    pub(super) fn covers(&self, subject: &str) -> bool {
        self.subjects.iter().any(|pattern| matches(pattern, subject))
    }

    pub(super) fn message_bytes_max(&self) -> Option<usize> {
        usize::try_from(self.max_msg_size).ok().filter(|max| *max > 0)
    }

    /// Why nothing can be kept in it.
    pub(super) fn unusable(&self, name: &str) -> Option<Failure> {
        let problem = if self.sealed {
            format!("stream {name} is sealed and takes nothing more; name another stream")
        } else if self.no_ack {
            format!("stream {name} confirms nothing (no_ack); turn its confirmations on")
        } else {
            return None;
        };
        Some(Failure::new(Reason::DestinationMissing, problem))
    }
}

/// `*` stands for one token, `>` at the end for one or more.
fn matches(pattern: &str, subject: &str) -> bool {
    let (mut patterns, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(pattern), Some(token)) if pattern == token => {}
            _ => return false,
        }
    }
}

/// The stream as it was when it was last asked for.
pub(super) struct Stream {
    name: String,
    known: Mutex<(Instant, Arc<StreamConfig>)>,
    /// One question at a time: when the last one failed, and why.
    asking: tokio::sync::Mutex<Option<(Instant, Failure)>>,
}

impl Stream {
    /// Asks for it for the first time.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(super) async fn find(name: &str, link: &Link) -> Result<Stream, Failure> {
        let config = match lookup(name, link).await {
            Ok(config) => config?,
            Err(NotSent(failure)) => return Err(failure),
        };
        match config.unusable(name) {
            Some(failure) => Err(failure),
            None => Ok(Stream {
                name: name.to_owned(),
                known: Mutex::new((Instant::now(), Arc::new(config))),
                asking: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// What was last heard.
    pub(super) fn known(&self) -> Arc<StreamConfig> {
        Arc::clone(&self.known.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// What is true now.
    ///
    /// # Errors
    /// Why it cannot be asked for; [`Reason::DestinationMissing`] where it is gone.
    pub(super) async fn fresh(&self, link: &Link) -> Result<Arc<StreamConfig>, Failure> {
        self.fresh_from(|| lookup(&self.name, link)).await
    }

    async fn fresh_from<F>(&self, ask: impl FnOnce() -> F) -> Result<Arc<StreamConfig>, Failure>
    where
        F: Future<Output = Result<Result<StreamConfig, Failure>, NotSent>>,
    {
        let began = Instant::now();
        let mut failed = self.asking.lock().await;
        let (heard, config) = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if heard.elapsed() < FRESH {
            return Ok(config);
        }
        if let Some((_, failure)) = failed.as_ref().filter(|(at, _)| *at >= began) {
            return Err(failure.clone());
        }
        match ask().await.unwrap_or_else(|NotSent(failure)| Err(failure)) {
            Ok(config) => {
                let config = Arc::new(config);
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
                    (Instant::now(), Arc::clone(&config));
                Ok(config)
            }
            Err(failure) => {
                *failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }
}

async fn lookup(name: &str, link: &Link) -> Result<Result<StreamConfig, Failure>, NotSent> {
    let subject = format!("$JS.API.STREAM.INFO.{name}");
    let question =
        Message { subject, is_led_by_event: false, headers: HeaderMap::new(), payload: Bytes::new() };
    let missing = |problem: String| Failure::new(Reason::DestinationMissing, problem);
    let reply = match timeout(LOOKUP_TIMEOUT, link.request(question)).await {
        Ok(reply) => reply?,
        Err(_elapsed) => {
            let problem = format!("{}: JetStream does not say what stream {name} is", link.host());
            return Ok(Err(Failure::new(Reason::Timeout, problem)));
        }
    };
    Ok(match reply {
        Reply::Answer(answer) => match serde_json::from_slice::<InfoAnswer>(&answer) {
            Ok(InfoAnswer { error: Some(error), .. }) => Err(match answer::outcome_of(&error, name) {
                Outcome::Away(failure) => failure,
                // The question failed; nothing was published that could.
                Outcome::Retry(failure) | Outcome::Reject(failure) | Outcome::Busy { failure, .. } => failure,
                Outcome::Delivered => missing(format!("stream {name} cannot be asked for")),
            }),
            Ok(InfoAnswer { config: Some(config), .. }) => Ok(config),
            Ok(InfoAnswer { config: None, .. }) | Err(_) => Err(Failure::new(
                Reason::SinkError,
                format!("{}: JetStream's answer is not readable", link.host()),
            )),
        },
        Reply::NoResponders => Err(missing(format!(
            "{}: JetStream is not enabled on the server or for this account",
            link.host()
        ))),
        Reply::Ended(Outcome::Away(failure) | Outcome::Retry(failure)) => Err(failure),
        Reply::Ended(Outcome::Reject(failure) | Outcome::Busy { failure, .. }) => Err(failure),
        Reply::Ended(Outcome::Delivered) => Err(missing(format!("stream {name} cannot be asked for"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_question_that_fails_does_not_ask_again_and_who_comes_later_does() {
        let stream = Stream {
            name: "EVENTS".to_owned(),
            known: Mutex::new((Instant::now(), Arc::default())),
            asking: tokio::sync::Mutex::default(),
        };
        tokio::time::advance(FRESH).await;
        let asked = AtomicU32::new(0);
        let silent = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(LOOKUP_TIMEOUT).await;
            Ok(Err(Failure::new(Reason::Timeout, "silent")))
        };
        for round in 1..=2 {
            for answer in join_all((0..100).map(|_| stream.fresh_from(silent))).await {
                assert_eq!(answer.unwrap_err().reason, Reason::Timeout);
            }
            assert_eq!(asked.load(Ordering::Relaxed), round);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let answers = async || {
            let config = StreamConfig { max_msg_size: 7, ..StreamConfig::default() };
            Ok(Ok(config))
        };
        assert_eq!(stream.fresh_from(answers).await.unwrap().max_msg_size, 7);
        assert_eq!(stream.fresh_from(silent).await.unwrap().max_msg_size, 7, "known for a second");
    }

    #[test]
    fn a_stream_s_patterns_take_what_the_server_would_put_there() {
        for (sentence, pattern, subject, is_taken) in [
            ("itself", "hooks.a", "hooks.a", true),
            ("no more tokens than there are", "hooks.a", "hooks.a.b", false),
            ("nor fewer", "hooks.a.b", "hooks.a", false),
            ("a star is one token", "hooks.*", "hooks.a", true),
            ("and not two", "hooks.*", "hooks.a.b", false),
            ("a star in the middle", "hooks.*.b", "hooks.a.b", true),
            ("the rest is one token", "hooks.>", "hooks.a", true),
            ("or many", "hooks.>", "hooks.a.b.c", true),
            ("but not none", "hooks.>", "hooks", false),
            ("everything", ">", "a", true),
        ] {
            assert_eq!(matches(pattern, subject), is_taken, "{sentence}");
        }
    }
}
