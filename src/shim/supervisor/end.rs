//! Processes that end: the first one with its restart by policy or the container's end, added ones, probes.

use super::super::client;
use super::super::forward::Forwards;
use super::super::jail::Jail;
use super::super::plan::Status;
use super::super::protocol::{Failure, Reply};
use super::super::serve::clean_up;
use super::{Supervisor, exit_code};
use crate::base::Timestamp;
use crate::sys::fault::{self, Point};
use crate::sys::process::{reap_any, wake_elsewhere};
use nix::sys::signal::Signal;
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// How long an ended container waits for the command that started it to take down what it held.
const FINISH: Duration = Duration::from_secs(30);
/// How long the end of the container waits for added processes to be reaped.
const REAP: Duration = Duration::from_secs(2);

impl<J: Jail> Supervisor<J> {
    pub(super) fn take_signal(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            // At the host's shutdown everything gets TERM: the container is stopped in good order then, and comes back
            // at the next boot if its policy says so.
            if info.ssi_signo == Signal::SIGTERM as u32 && self.stop.is_none() {
                self.begin_stop(None, None);
            }
        }
        loop {
            match reap_any() {
                Ok(Some((pid, code))) => self.reaped(pid, code),
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }

    fn reaped(&mut self, pid: i32, code: i32) {
        if self.state.pid == pid {
            self.first_process_ended(code);
        } else if let Some(number) = self.added.remove(&pid) {
            self.answer(number, &Reply::ExecExited { code }, Vec::new());
        } else if self.prober.as_ref().is_some_and(|prober| prober.pid() == Some(pid)) {
            self.probe_ended(code);
        }
    }

    fn first_process_ended(&mut self, code: i32) {
        fault::cut(Point::ShimReaped);
        let up = self.started.elapsed();
        if let Some(jail) = self.jail.take() {
            let forgotten = self.is_forgotten();
            self.state.oom_killed = !forgotten && jail.oom_killed();
            let (kept, remains, files) = jail.destroy(!forgotten);
            (self.kept, self.remains) = (Some(kept), Some(remains));
            // While the kernel writes back what was written to them it locks what a removal has to change.
            self.files = files.filter(|_| self.removed);
        }
        self.streams.drain(&self.poller);
        self.prober = None;
        self.state.pid = 0;
        self.state.exit_code = code;
        self.state.finished_at = Timestamp::now();
        let asked = self.stop.is_some() || self.state.stopped_by_user;
        match self.restarts.after_exit(code, up, asked) {
            Some(wait) => {
                self.remains = None;
                self.state.status = Status::Restarting;
                self.restart_at = Some(Instant::now() + wait);
                self.write_state();
            }
            None => self.ending = Some(Instant::now() + REAP),
        }
    }

    /// The container has ended for good: leaves its final state, then tells everybody.
    pub(in crate::shim) fn end(&mut self) {
        self.ending = None;
        self.restart_at = None;
        self.kept = None;
        self.state.status = Status::Exited;
        self.state.shim_pid = 0;
        self.forwards = Forwards::default();
        self.dns = None;
        if !self.is_forgotten() {
            self.remains = None;
            self.write_state();
        }
        fault::cut(Point::ShimEnded);
        self.release();
        fault::cut(Point::ShimReleased);
        // Whoever removes the container does so meanwhile.
        let finisher = self.finisher.filter(|_| self.remains.is_some()).and_then(|number| self.caller(number)?.pid());
        match finisher {
            Some(pid) => wake_elsewhere(pid, || self.tell_end()),
            None => self.tell_end(),
        }
        match self.finisher {
            Some(number) if self.callers.contains_key(&number) => self.finish_by = Some(Instant::now() + FINISH),
            _ => clean_up(&self.plan.cleanup),
        }
        self.remains = None;
        if let Some(number) = self.finisher {
            self.answer(number, &Reply::Cleared, Vec::new());
        }
        self.over = true;
    }

    fn tell_end(&mut self) {
        let code = self.state.exit_code;
        self.streams.end(&self.poller, code);
        if let Some(stop) = self.stop.take() {
            let reply = Reply::Stopped { killed: stop.killed, ignored: stop.ignored };
            self.answer_all(&reply, |caller| std::mem::take(&mut caller.stops));
        }
        self.answer_all(&Reply::Exited { code }, |caller| std::mem::take(&mut caller.waits));
    }

    /// Tells whether somebody is there who removes the container now. Nobody will read its last state then; without it the
    /// record says that the container runs, and a free lock that it does not.
    fn is_forgotten(&self) -> bool {
        (self.removed || self.plan.state.last.is_none())
            && self.finisher.is_some_and(|number| self.callers.contains_key(&number))
    }

    pub(super) fn restart(&mut self) {
        self.restart_at = None;
        self.forwards.lower_limit();
        let started = self.begin(None).and_then(|pending| self.finish(pending));
        self.forwards.raise_limit();
        match started {
            Ok(_) => {
                self.state.restart_count += 1;
                self.write_state();
            }
            Err(failure) => {
                self.state.error = failure.message;
                self.state.exit_code = exit_code(failure.kind);
                self.state.finished_at = Timestamp::now();
                match self.restarts.after_exit(self.state.exit_code, Duration::ZERO, false) {
                    Some(wait) => self.restart_at = Some(Instant::now() + wait),
                    None => self.end(),
                }
            }
        }
    }

    /// The start has failed: takes down what there is of it, and leaves why.
    pub(in crate::shim) fn fail(&mut self, failure: &Failure) {
        if let Some(jail) = self.jail.take() {
            drop(jail.destroy(true));
        }
        self.state.status = Status::Created;
        self.state.pid = 0;
        self.state.shim_pid = 0;
        self.state.error.clone_from(&failure.message);
        self.state.exit_code = exit_code(failure.kind);
        self.state.finished_at = Timestamp::now();
        self.write_state();
        self.release();
    }

    /// Gives the lock and the socket back without ever having run.
    pub(in crate::shim) fn release(&mut self) {
        self.listener = None;
        // It may not have been made yet.
        let _ = std::fs::remove_file(self.plan.run_dir.join(client::SOCKET));
        self.lock = None;
    }

    /// Returns the exit code when the container has ended for good.
    pub(in crate::shim) fn ended_with(&self) -> Option<i32> {
        self.over.then_some(self.state.exit_code)
    }

    /// Ends a container that waits for its next start.
    pub(in crate::shim) fn cancel_restart(&mut self) -> bool {
        let waiting = self.restart_at.take().is_some();
        if waiting {
            self.ending = Some(Instant::now());
        }
        waiting
    }
}
