//! Asking each instance from time to time how it is, since a provider is silent when its instance is down: so a silent
//! source can be told from a quiet one.
//! Holds: one call at a time and instance; polls of many instances are spread; a change that could not be kept is told with
//! the next poll (`state`), so that nothing is lost while the journal is full. It stops with the ingress, before storage.

use super::client::{Api, SetupError};
use super::event;
use super::problem::ApiError;
use super::state::{self, Change, State, Watch};
use crate::clock;
use crate::envelope::{Envelope, SourceName};
use crate::shutdown::{Phase, Shutdown};
use crate::source::{Account, ConfiguredSource, Sources};
use crate::telemetry::metrics::provider::{Polled, SourcePolls};
use crate::time::UnixMs;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};

/// The call that says how an instance is.
const STATUS: &str = "status";
/// Each wait is longer or shorter by up to a tenth, so that instances do not fall into step.
const JITTER_PART: u32 = 10;
/// The first poll comes within a tenth of the period, and within this.
const FIRST_POLL_MAX: Duration = Duration::from_secs(30);

/// Keeps events of our own as the ingress keeps a webhook's.
pub trait Keep: Send + Sync {
    /// Resolves when the event is durable, or says why it is not. Within `window` an event of the same identity is kept
    /// once.
    fn keep(&self, event: Envelope, at: UnixMs, window: Duration) -> BoxFuture<'_, Result<(), String>>;
}

/// Starts the polls of every source that is configured to be polled.
///
/// # Errors
/// [`SetupError`] where one cannot be polled.
pub fn start(sources: &Sources, keep: &Arc<dyn Keep>, shutdown: &Shutdown) -> Result<(), SetupError> {
    for source in sources.values() {
        let Some(account) = source.dialect.account().filter(|account| !account.poll.get().is_zero()) else {
            continue;
        };
        let poller = Poller::new(source, account, Arc::clone(keep))?;
        let stop = shutdown.token(Phase::Ingress).clone();
        drop(shutdown.spawn(Phase::Ingress, async move {
            stop.run_until_cancelled(poller.run()).await;
        }));
    }
    Ok(())
}

struct Poller {
    source: SourceName,
    account: Account,
    dedupe: Duration,
    api: Api,
    keep: Arc<dyn Keep>,
    watch: Watch,
    meter: SourcePolls,
}

impl Poller {
    fn new(source: &ConfiguredSource, account: &Account, keep: Arc<dyn Keep>) -> Result<Self, SetupError> {
        Ok(Poller {
            source: source.name.clone(),
            account: account.clone(),
            dedupe: source.config.dedupe.get(),
            api: Api::new(account, &[])?,
            keep,
            watch: Watch::default(),
            meter: SourcePolls::started(source.name.label()),
        })
    }

    async fn run(mut self) {
        let period = self.account.poll.get();
        tokio::time::sleep(first_wait(period, fastrand::f64())).await;
        loop {
            self.poll().await;
            tokio::time::sleep(wait(period, fastrand::f64())).await;
        }
    }

    async fn poll(&mut self) {
        let asked = match self.renew() {
            Ok(()) => self.ask().await.map_err(|error| error.to_string()),
            Err(problem) => Err(problem),
        };
        let (change, detail) = match asked {
            Ok(Some((state, detail))) => {
                self.meter.polled(polled(state), clock::now());
                (self.watch.saw(state), detail)
            }
            Ok(None) => self.failed("the answer does not say whether the instance is connected".to_owned()),
            Err(problem) => self.failed(problem),
        };
        if let Some(change) = change {
            self.tell(change, &detail).await;
        }
    }

    /// Takes secrets over that were replaced since the last poll.
    fn renew(&mut self) -> Result<(), String> {
        let account = self.account.current()?;
        if (&account.token, &account.client_token) != (&self.account.token, &self.account.client_token) {
            self.api = Api::new(&account, &[]).map_err(|error| error.to_string())?;
            self.account = account;
        }
        Ok(())
    }

    async fn ask(&self) -> Result<Option<(State, String)>, ApiError> {
        let status = self.api.get(STATUS, &state::FIELDS).await?;
        Ok(state::read(&status).map(|(state, said)| (state, self.api.cleaned(said))))
    }

    fn failed(&mut self, problem: String) -> (Option<Change>, String) {
        let change = self.watch.failed();
        if self.watch.has_just_failed() {
            warn!(source = %self.source, problem, "the instance's state cannot be asked for");
        } else {
            debug!(source = %self.source, problem, "the instance's state still cannot be asked for");
        }
        self.meter.failed(self.watch.is_unreachable());
        (change, problem)
    }

    async fn tell(&mut self, change: Change, detail: &str) {
        let at = clock::now();
        let event = event::of(change, detail, &self.account, &self.source, at);
        if let Err(problem) = self.keep.keep(event, at, self.dedupe).await {
            warn!(source = %self.source, problem, "the instance's change could not be kept; the next poll tries again");
            return;
        }
        self.watch.told(change.state);
        let (state, previous) = (change.state.label(), change.previous.map(State::label));
        match change.state {
            State::Connected => info!(source = %self.source, state, previous, "the instance is connected"),
            State::PhoneOffline | State::Disconnected | State::Unreachable => {
                warn!(source = %self.source, state, previous, "the instance is not as it should be");
            }
        }
    }
}

fn polled(state: State) -> Polled {
    match state {
        State::Connected => Polled::Connected,
        State::PhoneOffline => Polled::PhoneOffline,
        State::Disconnected => Polled::Disconnected,
        State::Unreachable => Polled::Failed,
    }
}

/// `random` is from 0 to below 1.
fn first_wait(period: Duration, random: f64) -> Duration {
    (period / JITTER_PART).min(FIRST_POLL_MAX).mul_f64(random)
}

/// `random` is from 0 to below 1.
fn wait(period: Duration, random: f64) -> Duration {
    let part = period / JITTER_PART;
    period - part + (2 * part).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use std::sync::Mutex;

    /// Refuses the first event, and has the types of all it was asked to keep.
    #[derive(Default)]
    struct Reluctant(Mutex<Vec<String>>);

    impl Keep for Reluctant {
        fn keep(&self, event: Envelope, _at: UnixMs, _window: Duration) -> BoxFuture<'_, Result<(), String>> {
            let mut asked = self.0.lock().unwrap();
            asked.push(event.event_type);
            let kept = if asked.len() == 1 { Err("the journal is full".to_owned()) } else { Ok(()) };
            Box::pin(std::future::ready(kept))
        }
    }

    #[tokio::test]
    async fn an_outage_is_told_after_three_failures_until_it_is_kept_and_then_no_more() {
        // Fails only where there is one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let section = format!(
            "[zapi]\napi = \"http://{nobody}\"\ninstance = \"A\"\ntoken = \"t\"\nclient_token = \"c\""
        );
        let layers = Layers::load(Some(&section), None, &[]).unwrap();
        let source = ConfiguredSource::parse(SourceName::new("whatsapp").unwrap(), &layers.root()).unwrap();
        let keep = Arc::new(Reluctant::default());
        let mut poller = Poller::new(&source, source.dialect.account().unwrap(), keep.clone()).unwrap();
        let asked = || keep.0.lock().unwrap().len();
        for (poll, told) in [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2)] {
            poller.poll().await;
            assert_eq!(asked(), told, "after poll {poll}");
        }
        let types = keep.0.lock().unwrap().clone();
        assert_eq!(types, ["io.z-api.connection.polled-unreachable"; 2]);
    }

    #[test]
    fn polls_are_spread_around_their_period() {
        let (second, minute, hour) =
            (Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(3600));
        for (sentence, waited, expected) in [
            ("at once at the earliest", first_wait(minute, 0.0), Duration::ZERO),
            ("within a tenth of the period", first_wait(minute, 0.5), 3 * second),
            ("and within half a minute", first_wait(24 * hour, 0.5), 15 * second),
            ("a tenth earlier at the most", wait(minute, 0.0), 54 * second),
            ("around the period", wait(minute, 0.5), minute),
        ] {
            assert_eq!(waited, expected, "{sentence}");
        }
        assert!(wait(minute, 0.999_999) < 66 * second);
    }
}
