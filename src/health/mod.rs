//! Health checks: the pure state machine starting, healthy, unhealthy (*Dockerfile reference "HEALTHCHECK"*).
//!
//! Owns when the next check is due and what a result means. Runs nothing and reads no clock: times are durations since
//! the container's start on a monotonic clock.

use std::time::Duration;

/// Times and limits of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time from the end of one check to the next.
    pub interval: Duration,
    /// Time in which failures do not count.
    pub start_period: Duration,
    /// Time between checks during the start period.
    pub start_interval: Duration,
    /// Failures in a row until unhealthy; 0 counts as 1.
    pub retries: u32,
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No check has succeeded yet, nor have too many failed.
    Starting,
    /// The last check succeeded, or too few failed since.
    Healthy,
    /// Too many checks failed in a row.
    Unhealthy,
}

impl Status {
    /// Returns Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The health of one run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    settings: Settings,
    status: Status,
    streak: u32,
    due: Duration,
}

impl Health {
    /// Begins with a container's start.
    pub fn new(settings: Settings) -> Self {
        let mut health = Self { settings, status: Status::Starting, streak: 0, due: Duration::ZERO };
        health.schedule(Duration::ZERO);
        health
    }

    /// Returns when the next check is due.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// Returns the status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Returns the number of failures in a row.
    pub fn failing_streak(&self) -> u32 {
        self.streak
    }

    /// Takes in a result; true when the status changed. Failures in the start period count only after a first success.
    pub fn result(&mut self, now: Duration, healthy: bool) -> bool {
        let before = self.status;
        if healthy {
            (self.status, self.streak) = (Status::Healthy, 0);
        } else if self.status != Status::Starting || now >= self.settings.start_period {
            self.streak = self.streak.saturating_add(1);
            if self.streak >= self.settings.retries.max(1) {
                self.status = Status::Unhealthy;
            }
        }
        self.schedule(now);
        self.status != before
    }

    /// Puts the next check off, after a time in which the container was frozen.
    pub fn postpone(&mut self, now: Duration) {
        self.schedule(now);
    }

    fn schedule(&mut self, now: Duration) {
        let starting = self.status == Status::Starting && now < self.settings.start_period;
        let interval = if starting { self.settings.start_interval } else { self.settings.interval };
        // An interval of nothing would never let go of the processor.
        self.due = now.saturating_add(interval.max(Duration::from_millis(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Feeds results (time of the end, success) and returns each status with its streak.
    fn run(start_period: u64, retries: u32, results: &[(u64, bool)]) -> Vec<(&'static str, u32)> {
        let mut health = Health::new(Settings {
            interval: seconds(30),
            start_period: seconds(start_period),
            start_interval: seconds(5),
            retries,
        });
        let mut seen = Vec::new();
        for (time, healthy) in results {
            health.result(seconds(*time), *healthy);
            seen.push((health.status().as_str(), health.failing_streak()));
        }
        seen
    }

    #[test]
    fn one_success_makes_healthy_and_clears_the_streak() {
        assert_eq!(
            run(0, 3, &[(30, false), (60, false), (90, true)]),
            [("starting", 1), ("starting", 2), ("healthy", 0)]
        );
        assert_eq!(run(0, 1, &[(30, false), (60, true)]), [("unhealthy", 1), ("healthy", 0)]);
    }

    #[test]
    fn so_many_failures_in_a_row_make_unhealthy() {
        let results = [(30, true), (60, false), (90, false), (120, false), (150, false)];
        assert_eq!(
            run(0, 3, &results),
            [("healthy", 0), ("healthy", 1), ("healthy", 2), ("unhealthy", 3), ("unhealthy", 4)]
        );
        assert_eq!(run(0, 0, &[(30, false)]), [("unhealthy", 1)]);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        assert_eq!(run(60, 1, &[(5, false), (10, false), (59, false)]), [("starting", 0); 3]);
        assert_eq!(run(60, 1, &[(5, false), (60, false)]), [("starting", 0), ("unhealthy", 1)]);
    }

    #[test]
    fn a_success_ends_the_start_period() {
        assert_eq!(
            run(60, 2, &[(5, true), (10, false), (15, false)]),
            [("healthy", 0), ("healthy", 1), ("unhealthy", 2)]
        );
    }

    #[test]
    fn checks_are_due_after_the_interval_that_holds() {
        let settings =
            Settings { interval: seconds(30), start_period: seconds(12), start_interval: seconds(5), retries: 3 };
        let mut health = Health::new(settings);
        assert_eq!(health.due(), seconds(5));
        health.result(seconds(6), false);
        assert_eq!(health.due(), seconds(11));
        health.result(seconds(12), false);
        assert_eq!(health.due(), seconds(42));
        assert_eq!(Health::new(Settings { start_period: Duration::ZERO, ..settings }).due(), seconds(30));
        health.postpone(seconds(100));
        assert_eq!(health.due(), seconds(130));
    }
}
