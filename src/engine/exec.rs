//! Added processes and logs.

use super::merge::working_dir;
use super::record::Container;
use super::{Engine, EngineError};
use crate::base::ContainerId;
use crate::sandbox::Process;
use crate::shim::{Exec, LogOptions, LogReader, ShimError};
use std::os::fd::BorrowedFd;

/// A process to add (`exec`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `-e`, over the container's.
    pub env: Vec<String>,
    /// `-u` instead of the container's.
    pub user: Option<String>,
    /// `-w` instead of the container's.
    pub working_dir: Option<String>,
    /// `-t`.
    pub tty: bool,
    /// Size of the terminal, rows and columns.
    pub tty_size: Option<(u16, u16)>,
    /// `--privileged`.
    pub privileged: bool,
}

impl Engine {
    /// Starts a process in a running container, under the same walls; `stdio` unless it gets a terminal.
    ///
    /// # Errors
    /// When the container does not run or is paused, or the program cannot be started.
    pub fn exec(
        &self,
        id: &ContainerId,
        request: ExecRequest,
        stdio: Option<[BorrowedFd<'_>; 3]>,
    ) -> Result<Exec, EngineError> {
        let record = self.record(id)?;
        let mut env = record.process.env.clone();
        if request.tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        // HOME belongs to the user the process runs as.
        if request.user.is_some() && !record.request.env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.retain(|entry| !entry.starts_with("HOME="));
        }
        for entry in &request.env {
            let name = entry.split('=').next().unwrap_or_default();
            env.retain(|old| old.split('=').next() != Some(name));
            if entry.contains('=') {
                env.push(entry.clone());
            }
        }
        let process = Process {
            args: request.args,
            env,
            cwd: match &request.working_dir {
                Some(text) => working_dir(text)?,
                None => record.process.cwd.clone(),
            },
            user: request.user.unwrap_or_else(|| record.process.user.clone()),
            groups: record.process.groups.clone(),
            tty: request.tty,
            tty_size: request.tty_size,
            rlimits: record.process.rlimits.clone(),
            oom_score_adj: record.process.oom_score_adj,
        };
        match self.client(id)?.exec(process, request.privileged, stdio) {
            Err(ShimError::Failed(failure)) => Err(EngineError::Start { failure }),
            other => Ok(other?),
        }
    }

    /// Opens a container's log.
    ///
    /// # Errors
    /// [`EngineError::NoLog`] when it keeps none.
    pub fn logs(&self, container: &Container, options: LogOptions, follow: bool) -> Result<LogReader, EngineError> {
        let Some(log) = &container.record.log else { return Err(EngineError::NoLog(container.record.name.clone())) };
        let follow = follow.then(|| self.paths.container_run(&container.record.id));
        Ok(LogReader::open(&log.dir, LogOptions { follow, ..options })?)
    }
}
