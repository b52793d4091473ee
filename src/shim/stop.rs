//! Stopping: signal, wait, SIGKILL, and whether the first process would have listened at all.

use super::jail::Jail;
use super::supervisor::Supervisor;
use crate::sandbox::Namespace;
use std::time::{Duration, Instant};

/// How often a first process that ignores the stop signal is looked at again.
const LOOK: Duration = Duration::from_millis(200);
const SIGKILL: i32 = 9;

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stop {
    signal: i32,
    /// When SIGKILL follows; `None` is never.
    deadline: Option<Instant>,
    /// Whether SIGKILL was sent.
    pub(super) killed: bool,
    /// Whether the first process had no handler for the signal, which PID 1 then ignores.
    pub(super) ignored: bool,
}

impl Stop {
    /// Returns when the stop has to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let look = (!self.killed).then(|| Instant::now() + LOOK);
        let kill = self.deadline.filter(|_| !self.killed);
        look.into_iter().chain(kill).min()
    }
}

impl<J: Jail> Supervisor<J> {
    /// Begins to stop the container, or makes a stop under way more urgent.
    pub(super) fn begin_stop(&mut self, signal: Option<i32>, timeout: Option<i64>) {
        let signal = signal.unwrap_or(self.plan.stop_signal);
        let seconds = timeout.unwrap_or(self.plan.stop_timeout);
        let deadline =
            u64::try_from(seconds).ok().map(|seconds| Instant::now() + Duration::from_secs(seconds.min(1 << 30)));
        if let Some(stop) = &mut self.stop {
            stop.deadline = [stop.deadline, deadline].into_iter().flatten().min();
            return;
        }
        // Nothing has to follow a SIGKILL.
        let deadline = deadline.filter(|_| signal != SIGKILL || !self.dies_whole());
        self.stop = Some(Stop { signal, deadline, killed: false, ignored: self.ignores(signal) });
        if self.cancel_restart() {
            return;
        }
        if let Some(jail) = &mut self.jail {
            // A first process that has just ended needs no signal; its end is on its way to us.
            let _ = jail.signal(signal);
        }
        self.thaw_to_end();
    }

    /// Sends SIGKILL when the time is up, and the signal again once a late starter has a handler for it.
    pub(super) fn stop_timer(&mut self, now: Instant) {
        let Some(Stop { signal, deadline, killed: false, ignored }) = self.stop else { return };
        // Looked at anew each time: a shell blocks every signal for the moment of a fork, which is no handler.
        let ignores = self.ignores(signal);
        let late = ignored && self.state.pid != 0 && !ignores;
        let whole = self.dies_whole();
        let Some(stop) = &mut self.stop else { return };
        if self.state.pid != 0 {
            stop.ignored = ignores;
        }
        stop.killed = deadline.is_some_and(|at| at <= now) && self.state.pid != 0;
        let killed = stop.killed;
        if let Some(jail) = &mut self.jail {
            if killed && whole {
                let _ = jail.signal(SIGKILL);
            } else if killed {
                // What is left is killed again when the first process is reaped.
                let _ = jail.kill_all();
            } else if late {
                let _ = jail.signal(signal);
            }
        }
    }

    /// Tells whether everything in the container dies with its first process: the kernel sees to that in a pid namespace.
    fn dies_whole(&self) -> bool {
        self.plan.bundle.namespaces.pid == Namespace::New
    }

    /// Tells whether the kernel would discard the signal: PID 1 of a pid namespace that neither handles nor blocks it.
    fn ignores(&self, signal: i32) -> bool {
        if self.state.pid == 0 || signal == SIGKILL || !self.dies_whole() {
            return false;
        }
        std::fs::read_to_string(format!("/proc/{}/status", self.state.pid))
            .is_ok_and(|status| discards(&status, signal))
    }
}

/// Reads the signal masks of a `/proc/PID/status` (*proc_pid_status(5)*): no handler, and not kept for later either.
fn discards(status: &str, signal: i32) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
    };
    match (mask("SigCgt"), mask("SigBlk"), mask("SigIgn"), (1..=64).contains(&signal)) {
        (Some(caught), Some(blocked), Some(ignored), true) => {
            let bit = 1 << (signal - 1);
            ignored & bit != 0 || (caught | blocked) & bit == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::discards;

    #[test]
    fn a_signal_without_handler_is_discarded_by_pid_1() {
        let status = "Name:\tsh\nSigQ:\t0/1\nSigPnd:\t0\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000000004\nSigCgt:\t0000000000004000\n";
        assert!(!discards(status, 15), "caught");
        assert!(!discards(status, 2), "blocked, kept for a sigwait");
        assert!(discards(status, 3), "ignored");
        assert!(discards(status, 10), "default action");
        for odd in [0, -1, 65, i32::MAX] {
            assert!(!discards(status, odd), "{odd}");
        }
        assert!(!discards("", 15), "nothing known");
    }
}
