//! What a pool has done, in numbers (the text format of Prometheus, version 0.0.4).

use crate::error::Result;
use crate::sandbox::report::{Outcome, Report};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets that durations are counted in, in microseconds.
const BUCKETS: [u64; 12] =
    [500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 30_000_000, 300_000_000];

/// Counters since the start.
#[derive(Default)]
pub(super) struct Metrics {
    started: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    limited: AtomicU64,
    not_started: AtomicU64,
    not_prepared: AtomicU64,
    refused: AtomicU64,
    microseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    /// A task has ended so long after its request.
    pub fn ended(&self, result: &Result<Report>, after: Duration) {
        let Ok(report) = result else { return count(&self.not_started) };
        count(&self.started);
        count(match report.outcome {
            Outcome::Exited { code: 0 } => &self.succeeded,
            Outcome::Exited { .. } | Outcome::Signaled { .. } => &self.failed,
            _ => &self.limited,
        });
        let took = after.as_micros() as u64;
        self.microseconds.fetch_add(took, Ordering::Relaxed);
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            if took <= bound {
                count(bucket);
            }
        }
    }

    /// A sandbox could not be prepared.
    pub fn unprepared(&self) {
        count(&self.not_prepared);
    }

    /// A request was refused: wrong, or too many.
    pub fn refused(&self) {
        count(&self.refused);
    }

    /// All of it; with how many sandboxes wait and run, and how many requests wait.
    pub fn text(&self, (ready, running, queued): (usize, usize, usize)) -> String {
        let mut text = String::new();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            let _ = write!(text, "# HELP brig_pool_{name} {help}\n# TYPE brig_pool_{name} {kind}\n");
        };
        head(&mut text, "starts_total", "counter", "Programs that were started.");
        let _ = writeln!(text, "brig_pool_starts_total {}", get(&self.started));
        head(&mut text, "ends_total", "counter", "How programs have ended, and requests that came to none.");
        for (outcome, counter) in [
            ("success", &self.succeeded),
            ("failure", &self.failed),
            ("limit", &self.limited),
            ("not_started", &self.not_started),
            ("refused", &self.refused),
        ] {
            let _ = writeln!(text, "brig_pool_ends_total{{outcome=\"{outcome}\"}} {}", get(counter));
        }
        head(&mut text, "preparation_failures_total", "counter", "Sandboxes that could not be prepared.");
        let _ = writeln!(text, "brig_pool_preparation_failures_total {}", get(&self.not_prepared));
        for (name, help, value) in [
            ("ready", "Sandboxes that are prepared.", ready),
            ("running", "Sandboxes that run.", running),
            ("waiting", "Requests that wait for a sandbox.", queued),
        ] {
            head(&mut text, name, "gauge", help);
            let _ = writeln!(text, "brig_pool_{name} {value}");
        }
        head(&mut text, "duration_seconds", "histogram", "Time from request to report.");
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            let bound = bound as f64 / 1e6;
            let _ = writeln!(text, "brig_pool_duration_seconds_bucket{{le=\"{bound}\"}} {}", get(bucket));
        }
        let all = get(&self.started);
        let _ = writeln!(text, "brig_pool_duration_seconds_bucket{{le=\"+Inf\"}} {all}");
        let _ = writeln!(text, "brig_pool_duration_seconds_sum {}", get(&self.microseconds) as f64 / 1e6);
        let _ = writeln!(text, "brig_pool_duration_seconds_count {all}");
        text
    }
}
