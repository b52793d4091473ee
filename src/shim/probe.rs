//! Runs the container's health check on time and keeps its results.

use super::jail::Jail;
use super::plan::{HealthPlan, HealthResult, HealthState, Status};
use super::poller::{Token, read_some, set_nonblocking};
use super::supervisor::Supervisor;
use crate::base::Timestamp;
use crate::health::{Health, Settings};
use crate::sandbox::Process;
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::time::{Duration, Instant};

/// Bytes of a check's output that are kept.
const OUTPUT: usize = 4096;
/// Results that are kept.
const RESULTS: usize = 5;

/// A check under way.
#[derive(Debug)]
struct Probe {
    pid: i32,
    output: OwnedFd,
    text: Vec<u8>,
    start: Timestamp,
    deadline: Instant,
    timed_out: bool,
}

/// The health check of one run of a container.
#[derive(Debug)]
pub(super) struct Prober {
    health: Health,
    timeout: Duration,
    results: Vec<HealthResult>,
    probe: Option<Probe>,
}

impl Prober {
    /// Begins with a container's start.
    pub(super) fn new(plan: &HealthPlan) -> Self {
        let settings = Settings {
            interval: Duration::from_nanos(plan.interval),
            start_period: Duration::from_nanos(plan.start_period),
            start_interval: Duration::from_nanos(plan.start_interval),
            retries: plan.retries,
        };
        let timeout = Duration::from_nanos(plan.timeout).max(Duration::from_millis(1));
        Self { health: Health::new(settings), timeout, results: Vec::new(), probe: None }
    }

    /// Returns the pid of the check under way.
    pub(super) fn pid(&self) -> Option<i32> {
        self.probe.as_ref().map(|probe| probe.pid)
    }

    /// Returns what `inspect` shows.
    pub(super) fn state(&self) -> HealthState {
        HealthState {
            status: self.health.status().as_str().to_owned(),
            failing_streak: self.health.failing_streak(),
            log: self.results.clone(),
        }
    }

    /// Returns when something has to be done, for a container started then; a frozen container is not checked.
    pub(super) fn deadline(&self, started: Instant, paused: bool) -> Option<Instant> {
        match &self.probe {
            Some(probe) => (!probe.timed_out).then_some(probe.deadline),
            None => (!paused).then(|| started + self.health.due()),
        }
    }

    /// Puts the next check off after a time in which the container was frozen.
    pub(super) fn postpone(&mut self, now: Duration) {
        self.health.postpone(now);
    }

    /// Takes in what the check printed; beyond the limit it is read and dropped, so that the check does not block.
    pub(super) fn read(&mut self) {
        let Some(probe) = &mut self.probe else { return };
        let mut buffer = [0; 1024];
        for _ in 0..64 {
            match read_some(&probe.output, &mut buffer) {
                Ok(Some(n)) if n > 0 => {
                    let room = OUTPUT - probe.text.len();
                    probe.text.extend_from_slice(&buffer[..n.min(room)]);
                }
                _ => return,
            }
        }
    }

    /// Takes in the end of the check; true when the status changed.
    fn ended(&mut self, now: Duration, code: i32) -> bool {
        self.read();
        let Some(probe) = self.probe.take() else { return false };
        let exit_code = if probe.timed_out { -1 } else { code };
        let output = if probe.timed_out {
            format!("Health check exceeded timeout ({})", crate::base::format_go_duration(self.timeout))
        } else {
            String::from_utf8_lossy(&probe.text).into_owned()
        };
        self.record(now, HealthResult { start: probe.start, end: Timestamp::now(), exit_code, output })
    }

    fn record(&mut self, now: Duration, result: HealthResult) -> bool {
        let healthy = result.exit_code == 0;
        if self.results.len() == RESULTS {
            self.results.remove(0);
        }
        self.results.push(result);
        self.health.result(now, healthy)
    }
}

impl<J: Jail> Supervisor<J> {
    /// Starts a check that is due and kills one that takes too long.
    pub(super) fn health_timer(&mut self, now: Instant) {
        let due =
            self.prober.as_ref().and_then(|prober| prober.deadline(self.started, self.state.status == Status::Paused));
        if due.is_none_or(|due| due > now) || self.state.pid == 0 {
            return;
        }
        match self.prober.as_mut().and_then(|prober| prober.probe.as_mut()) {
            Some(probe) => {
                probe.timed_out = true;
                if let Some(pid) = rustix::process::Pid::from_raw(probe.pid) {
                    // Our child and not reaped yet, so the pid is still its own.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            None => self.start_probe(now),
        }
    }

    fn start_probe(&mut self, now: Instant) {
        let start = Timestamp::now();
        let elapsed = self.started.elapsed();
        let result = self.probe(now, start);
        let Some(prober) = &mut self.prober else { return };
        match result {
            Ok(probe) => prober.probe = Some(probe),
            Err(output) => {
                let changed =
                    prober.record(elapsed, HealthResult { start, end: Timestamp::now(), exit_code: -1, output });
                self.health_changed(changed);
            }
        }
    }

    fn probe(&mut self, now: Instant, start: Timestamp) -> Result<Probe, String> {
        let (Some(jail), Some(plan)) = (&mut self.jail, &self.plan.health) else {
            return Err("container is not running".to_owned());
        };
        let text = |error: rustix::io::Errno| format!("prepare the health check: {}", std::io::Error::from(error));
        let (output, child) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(text)?;
        set_nonblocking(&output).map_err(text)?;
        let stdin = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(text)?;
        let stderr = child.try_clone().map_err(|error| error.to_string())?;
        let process =
            Process { args: plan.command.clone(), tty: false, tty_size: None, ..self.plan.bundle.process.clone() };
        let added = jail
            .exec(&process, false, Some([stdin.as_fd(), child.as_fd(), stderr.as_fd()]))
            .map_err(|failure| failure.message)?;
        self.poller.watch(&output, Token::Probe, EventFlags::IN | EventFlags::ET).map_err(text)?;
        let deadline = now + Duration::from_nanos(plan.timeout).max(Duration::from_millis(1));
        Ok(Probe { pid: added.pid, output, text: Vec::new(), start, deadline, timed_out: false })
    }

    /// Takes in the end of the check under way.
    pub(super) fn probe_ended(&mut self, code: i32) {
        let elapsed = self.started.elapsed();
        let Some(prober) = &mut self.prober else { return };
        let changed = prober.ended(elapsed, code);
        self.health_changed(changed);
    }

    /// Shows a result; only a change of status is worth a write, the socket answers with the rest.
    fn health_changed(&mut self, changed: bool) {
        self.state.health = self.prober.as_ref().map(Prober::state);
        if changed {
            self.write_state();
        }
    }
}
