//! Ending, freezing and waiting for containers.

use super::record::Container;
use super::{Engine, EngineError};
use crate::base::{ContainerId, Timestamp};
use crate::sandbox::{CgroupPlan, Group, Launch, sweep};
use crate::shim::protocol::StopReason;
use crate::shim::{Client, ShimError, State, Status, Stopped};
use std::time::{Duration, Instant};

/// SIGKILL.
const KILL: i32 = 9;
/// How long a shim that has been told to end may take to let go of its lock.
const LINGER: Duration = Duration::from_secs(10);

/// A stop that was asked for and is not over yet.
#[derive(Debug)]
pub struct Stopping(Option<Client>);

impl Stopping {
    /// Of a container that does not run.
    pub(super) fn nothing() -> Self {
        Self(None)
    }

    /// Tells whether a shim was asked.
    pub(super) fn is_asked(&self) -> bool {
        self.0.is_some()
    }
}

impl Engine {
    /// Connects to the shim of a running container.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`] when it does not run.
    pub fn client(&self, id: &ContainerId) -> Result<Client, EngineError> {
        match Client::connect(&self.paths.container_run(id)) {
            Ok(client) => Ok(client),
            Err(ShimError::NotRunning { .. }) => Err(EngineError::NotRunning(self.observe(id)?.record.name)),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks a running container's shim; one whose shim ended while it was asked does not run any more.
    fn ask<T>(
        &self,
        id: &ContainerId,
        request: impl FnOnce(&mut Client) -> Result<T, ShimError>,
    ) -> Result<T, EngineError> {
        match request(&mut self.client(id)?) {
            Err(ShimError::Gone { .. }) => Err(EngineError::NotRunning(self.observe(id)?.record.name)),
            other => Ok(other?),
        }
    }

    /// Stops a container: its stop signal, then SIGKILL after the timeout; one that does not run is stopped already.
    ///
    /// # Errors
    /// When the shim cannot be reached.
    pub fn stop(
        &self,
        id: &ContainerId,
        signal: Option<i32>,
        timeout: Option<i64>,
    ) -> Result<Option<Stopped>, EngineError> {
        let stopping = self.begin_stop(id, signal, timeout, StopReason::User)?;
        self.end_stop(id, stopping)
    }

    /// Asks a container to stop without waiting for it, so that several can be stopped at once; whoever asks also calls
    /// [`Engine::end_stop`].
    ///
    /// # Errors
    /// When the shim cannot be reached.
    pub fn begin_stop(
        &self,
        id: &ContainerId,
        signal: Option<i32>,
        timeout: Option<i64>,
        reason: StopReason,
    ) -> Result<Stopping, EngineError> {
        let mut client = match self.client(id) {
            Err(EngineError::NotRunning(_)) => return Ok(Stopping(None)),
            other => other?,
        };
        match client.begin_stop(signal, timeout, reason) {
            // It is on its way out already.
            Ok(()) | Err(ShimError::Codec(_)) => Ok(Stopping(Some(client))),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a container that was asked to stop has, and takes down what it held; `None` when it ended by itself.
    ///
    /// # Errors
    /// When its shim does not let go.
    pub fn end_stop(&self, id: &ContainerId, stopping: Stopping) -> Result<Option<Stopped>, EngineError> {
        let Some(mut client) = stopping.0 else { return Ok(None) };
        let stopped = self.hear_end(id, &mut client)?;
        self.end(id, &mut client)?;
        Ok(stopped)
    }

    /// Kills a running container that the caller removes then; its shim waits to hear of that.
    pub(super) fn begin_kill(&self, id: &ContainerId) -> Result<Stopping, EngineError> {
        self.begin_stop(id, Some(KILL), Some(0), StopReason::Removal)
    }

    /// Waits until a killed container has ended.
    pub(super) fn killed(&self, id: &ContainerId, killing: Stopping) -> Result<Option<Client>, EngineError> {
        let Stopping(mut client) = killing;
        if let Some(open) = &mut client
            && self.hear_end(id, open)?.is_none()
        {
            // A shim that was killed while it was told to end has left its control groups.
            sweep(&groups(id))?;
            client = None;
        }
        Ok(client)
    }

    fn hear_end(&self, id: &ContainerId, client: &mut Client) -> Result<Option<Stopped>, EngineError> {
        let stopped = match client.stopped() {
            Ok(stopped) => Some(stopped),
            // It ended by itself between our question and the shim's answer.
            Err(ShimError::Gone { .. } | ShimError::Codec(_)) => None,
            Err(error) => return Err(error.into()),
        };
        self.settled(id)?;
        Ok(stopped)
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, id: &ContainerId, signal: i32) -> Result<(), EngineError> {
        self.ask(id, |client| client.signal(signal))
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// When it does not run or is paused already.
    pub fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.ask(id, Client::pause)
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// When it is not paused.
    pub fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.ask(id, Client::unpause)
    }

    /// Waits until a container has ended and returns its exit code; one that was never started is waited for.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn wait(&self, id: &ContainerId) -> Result<i32, EngineError> {
        loop {
            match self.client(id) {
                Ok(mut client) => match client.wait() {
                    Ok(code) => return Ok(code),
                    Err(ShimError::Gone { .. }) => {}
                    Err(error) => return Err(error.into()),
                },
                Err(EngineError::NotRunning(_)) => {}
                Err(error) => return Err(error),
            }
            let state = self.observe(id)?.state;
            if state.status == Status::Exited {
                return Ok(state.exit_code);
            }
            // Created only: nobody tells us about a start, so look from time to time.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a stopping container's shim has let go, so that the next command sees it ended.
    pub(super) fn settled(&self, id: &ContainerId) -> Result<(), EngineError> {
        let deadline = Instant::now() + LINGER;
        while self.has_shim(id) {
            if Instant::now() > deadline {
                return Err(EngineError::Stuck(id.short().to_owned()));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// Takes down what a killed shim left: processes, network, range; writes the state it could not write. The caller
    /// holds the container's lock.
    pub(super) fn recover(&self, record: &super::record::ContainerRecord, state: State) -> Result<State, EngineError> {
        sweep(&groups(&record.id))?;
        self.release(&record.id)?;
        if record.request.auto_remove {
            self.forget(&record.id)?;
            return Err(EngineError::NoContainer(record.id.to_string()));
        }
        let files = record.state_files(&self.paths);
        // It died after its last words.
        let told = |last: &State| !last.status.is_live() && last.started_at == state.started_at;
        if let Some(last) = files.read_last().ok().flatten().filter(told) {
            return Ok(last);
        }
        let state = State {
            status: Status::Exited,
            pid: 0,
            shim_pid: 0,
            exit_code: 137,
            error: "its supervisor was killed or the machine restarted".to_owned(),
            finished_at: Timestamp::now(),
            ..state
        };
        files.write(&state)?;
        Ok(state)
    }

    /// Renames a container.
    ///
    /// # Errors
    /// When the name is taken or misspelled.
    pub fn rename(&self, id: &ContainerId, name: &str) -> Result<(), EngineError> {
        let _lock = self.lock_container(id)?;
        let Container { mut record, .. } = self.observe_locked(id)?;
        let names = crate::store::Names::new(&self.paths);
        let name = name.strip_prefix('/').unwrap_or(name);
        // An earlier try was cut off after its record was written.
        let unfinished = record.former_name.take().filter(|former| names.owner(former).as_ref() == Some(id));
        if let Some(former) = unfinished {
            names.release(&former, id)?;
            if name == record.name {
                return Ok(());
            }
        }
        match names.reserve(name, id) {
            // An earlier try was cut off after this.
            Err(crate::store::NameError::Taken { owner, .. }) if owner == *id && name != record.name => {}
            other => other?,
        }
        let former = std::mem::replace(&mut record.name, name.to_owned());
        record.former_name = Some(former.clone());
        record.save(&self.paths)?;
        Ok(names.release(&former, id)?)
    }
}

/// Every control group a container may have left.
pub(super) fn groups(id: &ContainerId) -> CgroupPlan {
    let layout = Launch::look().cgroups.clone();
    let unified = layout.v1.is_empty();
    let mounts = if unified { layout.v2.into_iter().collect() } else { layout.v1 };
    let group = |mount: crate::security::features::CgroupMount| Group {
        mount: mount.path,
        controllers: mount.controllers,
        writes: Vec::new(),
    };
    CgroupPlan {
        unified,
        path: crate::sandbox::group_name(id),
        groups: mounts.into_iter().map(group).collect(),
        devices: None,
    }
}
