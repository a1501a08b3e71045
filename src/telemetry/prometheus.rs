//! The recorder behind every metric, and its text for Prometheus.
//! Holds: one recorder a process; histograms have fixed buckets, so that many instances can be added up.

use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::metrics;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// From a sync of a fast disk to the longest wait for a sink.
const SECONDS_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const BYTES_BUCKETS: &[f64] = &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
/// Everything else that is counted in a histogram: records in a batch, for example.
const COUNT_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
/// How often recorded values are folded into their buckets, so that they do not pile up between scrapes.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// A cheap handle on all metrics.
#[derive(Clone)]
pub struct Exposition(PrometheusHandle);

impl Exposition {
    /// Every metric in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// Installs the recorder, describes every metric and keeps the recorder in order until [`Phase::Admin`] ends. A second
/// call in the same process shares the first one's recorder. Called inside the tokio runtime, before any part starts.
/// Where a program around this library records metrics itself, they are found there, and nothing is rendered here.
pub fn install(shutdown: &Shutdown) -> Exposition {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = INSTALLED.get_or_init(|| {
        let recorder = recorder();
        let handle = recorder.handle();
        if let Err(error) = ::metrics::set_global_recorder(recorder) {
            tracing::warn!(%error, "metrics are recorded by something else and will be missing at /metrics");
        }
        metrics::describe();
        metrics::process::started();
        metrics::config::started();
        handle
    });
    let handle = handle.clone();
    let (recorder, stop) = (handle.clone(), shutdown.token(Phase::Admin).clone());
    shutdown.spawn(Phase::Admin, async move {
        let mut upkeep = tokio::time::interval(UPKEEP_PERIOD);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = upkeep.tick() => recorder.run_upkeep(),
            }
        }
    });
    Exposition(handle)
}

fn recorder() -> PrometheusRecorder {
    let suffix = |unit: &str| Matcher::Suffix(unit.to_owned());
    let builder = PrometheusBuilder::new()
        .set_buckets(COUNT_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(suffix("_bytes"), BYTES_BUCKETS))
        .and_then(|builder| builder.set_buckets_for_metric(suffix("_seconds"), SECONDS_BUCKETS));
    builder.expect("only an empty list of buckets is refused").build_recorder()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::SinkName;

    #[tokio::test]
    async fn metrics_are_rendered_with_help_and_buckets_and_installing_again_shares_them() {
        let shutdown = Shutdown::new();
        let first = install(&shutdown);
        let second = install(&shutdown);
        metrics::dead_letters::store_started();
        // The recorder belongs to the whole process: no other test may have a sink of this name.
        metrics::dead_letters::sink_started(&SinkName::new("rendered").unwrap(), ["timeout"].into_iter());
        metrics::dead_letters::committed(Duration::from_millis(3));
        for text in [first.render(), second.render()] {
            for line in [
                concat!("hookbus_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
                "# TYPE hookbus_dead_letters_written_total counter",
                "# HELP hookbus_dead_letters_commit_seconds ",
                "hookbus_dead_letters_written_total{sink=\"rendered\",reason=\"timeout\"} 0",
                "hookbus_dead_letters_commit_seconds_bucket{le=\"0.005\"} ",
            ] {
                assert!(text.contains(line), "{line} in {text}");
            }
        }
        shutdown.stop(Phase::Admin).await;
        assert_eq!(shutdown.tasks_running(), 0);
    }
}
