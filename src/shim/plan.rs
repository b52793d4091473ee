//! The order a shim is born with, and the state it leaves.

use super::state_files::StateFiles;
use crate::base::Timestamp;
use crate::sandbox::Bundle;
use crate::security::HostFeatures;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The order a shim is born with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShimPlan {
    /// What to launch.
    pub bundle: Bundle,
    /// What the host can do. The engine looks while the shim's namespaces are made.
    pub host: HostFeatures,
    /// Whether stdin stays open without a client (`-i`).
    pub stdin_open: bool,
    /// Where the state is written.
    pub state: StateFiles,
    /// The shim's directory below `$RUN`: `shim.sock`, `lock`.
    pub run_dir: PathBuf,
    /// Log; `None` keeps none (build steps).
    pub log: Option<LogPlan>,
    /// Restart policy.
    pub restart: RestartPolicy,
    /// Signal number that asks the container to stop.
    pub stop_signal: i32,
    /// Seconds between the stop signal and SIGKILL; negative waits for ever.
    pub stop_timeout: i64,
    /// Health check.
    pub health: Option<HealthPlan>,
    /// Arguments for our own binary that take down what the container held, run in a fresh process after the end.
    pub cleanup: Vec<String>,
    /// Whether whoever starts the container stays and takes down what it held itself, which saves that process; when
    /// its connection closes before [`super::protocol::Request::Finished`], `cleanup` runs all the same.
    pub starter_finishes: bool,
    /// Whether the container is killed when that connection closes while it runs: a build step must not outlive its
    /// builder, however that ended. Counts only with `starter_finishes`.
    pub dies_with_starter: bool,
}

/// Rotation of a container's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogPlan {
    /// Directory of the log files.
    pub dir: PathBuf,
    /// Bytes after which a file is rotated.
    pub max_size: u64,
    /// Number of files kept, the current one included.
    pub max_files: u32,
}

/// When a container that ended is started again (`--restart`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Always, also at boot.
    Always,
    /// Always, except when it was stopped by hand.
    UnlessStopped,
    /// When it ended with an error, at most so many times (0 = without end).
    OnFailure(u32),
}

/// A health check (*Dockerfile reference "HEALTHCHECK"*); times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthPlan {
    /// Program and arguments run inside (`CMD-SHELL` already turned into the shell's form).
    pub command: Vec<String>,
    /// Time between checks.
    pub interval: u64,
    /// Time after which a check has failed.
    pub timeout: u64,
    /// Time in which failures do not count.
    pub start_period: u64,
    /// Time between checks during the start period.
    pub start_interval: u64,
    /// Failures in a row until unhealthy.
    pub retries: u32,
}

/// Status of a container, in Docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    Created,
    /// Its first process runs.
    Running,
    /// All its processes are frozen.
    Paused,
    /// Ended, waiting for the next start by policy.
    Restarting,
    /// Ended.
    Exited,
    /// Being removed, or its shim died.
    Dead,
}

impl Status {
    /// Tells whether it needs a living shim.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// What the shim saw (`state.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of this record's form.
    pub schema: u32,
    /// Status when the record was written; a record that says running while the shim's lock is free means dead.
    pub status: Status,
    /// Host pid of the first process, 0 when not running.
    pub pid: i32,
    /// Host pid of the shim.
    pub shim_pid: i32,
    /// Exit code of the last end.
    pub exit_code: i32,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Why it could not start, for humans.
    pub error: String,
    /// Start of the present or last run.
    pub started_at: Timestamp,
    /// End of the last run.
    pub finished_at: Timestamp,
    /// Starts by policy.
    pub restart_count: u32,
    /// Stopped by hand (`unless-stopped` heeds it).
    pub stopped_by_user: bool,
    /// Health, when there is a check.
    pub health: Option<HealthState>,
    /// What is enforced.
    pub enforced: Option<crate::security::Enforced>,
}

impl State {
    /// Returns the state of a container that was never started.
    pub fn created() -> Self {
        Self {
            schema: 1,
            status: Status::Created,
            pid: 0,
            shim_pid: 0,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            started_at: Timestamp::NEVER,
            finished_at: Timestamp::NEVER,
            restart_count: 0,
            stopped_by_user: false,
            health: None,
            enforced: None,
        }
    }
}

/// Health of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthState {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five results, oldest first.
    pub log: Vec<HealthResult>,
}

/// One run of a health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthResult {
    /// Start.
    pub start: Timestamp,
    /// End.
    pub end: Timestamp,
    /// 0 healthy, anything else not; -1 timed out.
    pub exit_code: i32,
    /// The first 4096 bytes of its output.
    pub output: String,
}
