//! When an ended container is started again, and how long to wait before: pure.

use super::plan::RestartPolicy;
use std::time::Duration;

/// First wait.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length begins the waits anew.
const GOOD: Duration = Duration::from_secs(10);

/// Counts the starts by policy and the wait that grows between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Restarts {
    policy: RestartPolicy,
    wait: Duration,
    /// Failures since the last run without one, for `on-failure:N`.
    failures: u32,
}

impl Restarts {
    pub(super) fn new(policy: RestartPolicy) -> Self {
        Self { policy, wait: FIRST, failures: 0 }
    }

    /// Decides after an end: `None` is the end for good, otherwise how long to wait before the next start.
    pub(super) fn after_exit(&mut self, exit_code: i32, up: Duration, stopped_by_user: bool) -> Option<Duration> {
        if stopped_by_user {
            return None;
        }
        if up >= GOOD {
            self.wait = FIRST;
        }
        match self.policy {
            RestartPolicy::No => return None,
            RestartPolicy::OnFailure(_) if exit_code == 0 => return None,
            RestartPolicy::OnFailure(most) if most > 0 && self.failures >= most => return None,
            RestartPolicy::OnFailure(_) => self.failures += 1,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => {}
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST);
        Some(wait)
    }

    /// Tells whether the container may be started again at all.
    pub(super) fn possible(&self) -> bool {
        self.policy != RestartPolicy::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_good_run() {
        let mut restarts = Restarts::new(RestartPolicy::Always);
        let waits: Vec<u128> = (0..12).map(|_| restarts.after_exit(0, SHORT, false).unwrap().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        assert_eq!(restarts.after_exit(0, GOOD, false), Some(FIRST));
    }

    #[test]
    fn policies_decide_by_code_count_and_hand() {
        for (policy, code, by_user, again) in [
            (RestartPolicy::No, 1, false, false),
            (RestartPolicy::Always, 0, false, true),
            (RestartPolicy::Always, 137, true, false),
            (RestartPolicy::UnlessStopped, 0, false, true),
            (RestartPolicy::UnlessStopped, 0, true, false),
            (RestartPolicy::OnFailure(0), 0, false, false),
            (RestartPolicy::OnFailure(0), 3, false, true),
        ] {
            assert_eq!(
                Restarts::new(policy).after_exit(code, SHORT, by_user).is_some(),
                again,
                "{policy:?} {code} {by_user}"
            );
        }
    }

    #[test]
    fn on_failure_gives_up_after_its_count() {
        let mut restarts = Restarts::new(RestartPolicy::OnFailure(2));
        assert!(restarts.after_exit(1, SHORT, false).is_some());
        assert!(restarts.after_exit(1, SHORT, false).is_some());
        assert!(restarts.after_exit(1, SHORT, false).is_none());
    }
}
