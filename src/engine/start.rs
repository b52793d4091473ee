//! Starting a container: from its record to a running shim.

use super::network::taken;
use super::record::{Container, ContainerRecord, NetworkView, SeccompChoice};
use super::request::NetworkMode;
use super::spec::{Circumstances, assemble};
use super::stop::groups;
use super::undo::Undo;
use super::walls::{devices, owners, walls_down};
use super::{Engine, EngineError, ranges};
use crate::base::ContainerId;
use crate::image::Snapshotter;
use crate::network::{self, EndpointPlan};
use crate::sandbox::{Launch, Root, UserNamespace, sweep};
use crate::security::features::kernel_version;
use crate::security::seccomp::{self, ProfileOptions, ProfileSource};
use crate::security::{CapabilitySet, SeccompFilter};
use crate::shim::{Client, LaunchConn, ShimError, ShimPlan, Status};
use crate::store::{Lease, StoreError};
use crate::sys::fault::{self, Point};
use std::fs::{DirBuilder, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Most layers of an image that the places of mounts are laid below; sealed, its writable layer is one more, and overlay takes
/// 500.
const MAX_LAYERS: usize = 490;

/// Makes a shim that waits for its plan.
pub type Launcher<'a> = &'a mut (dyn FnMut() -> Result<LaunchConn, ShimError> + Send);

/// Which of a container's streams a start attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// Send stdin.
    pub stdin: bool,
    /// Receive stdout and stderr.
    pub output: bool,
}

/// A container that has just been started.
#[derive(Debug)]
pub struct Started {
    /// The stream asked for, see [`crate::shim::protocol`].
    pub stream: Option<OwnedFd>,
    /// The connection to its shim.
    pub client: Client,
    /// What the user should know: ports another firewall table blocks, limits that are not enforced.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Starts a container; one that runs already is [`EngineError::Status`].
    ///
    /// Whoever attaches also finishes: it calls [`Engine::end`] once the container has ended.
    ///
    /// # Errors
    /// When the sandbox, the network or the program cannot be started; the container is then as it was before.
    pub fn start(
        &self,
        id: &ContainerId,
        launcher: Launcher<'_>,
        attach: Option<AttachRequest>,
        tty_size: Option<(u16, u16)>,
    ) -> Result<Started, EngineError> {
        let _lock = self.lock_container(id)?;
        // For the next command, should this one be killed.
        let _lease = Lease::take(&self.paths, id.as_str())?;
        let Container { record, state } = self.observe_locked(id)?;
        if matches!(state.status, Status::Running | Status::Paused | Status::Restarting) {
            let status = if state.status == Status::Paused { "paused, unpause it" } else { "running" };
            return Err(EngineError::Status { action: "start", name: record.name, status });
        }
        if self.paths.container_run(id).exists() {
            // The shim of a start that failed or was killed may still be taking down what it had made.
            self.settled(id)?;
            // The last run's own clean-up has not come to it yet, and leaves everything alone once we run.
            self.release(id)?;
        }
        self.start_locked(record, launcher, attach, tty_size)
    }

    /// Starts a container that has just been created and that nobody else can have started: its lease is held.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_created(
        &self,
        record: ContainerRecord,
        launcher: Launcher<'_>,
        attach: Option<AttachRequest>,
        tty_size: Option<(u16, u16)>,
    ) -> Result<Started, EngineError> {
        let _lock = self.lock_container(&record.id)?;
        if self.has_shim(&record.id) {
            return Err(EngineError::Status { action: "start", name: record.name, status: "running" });
        }
        self.start_locked(record, launcher, attach, tty_size)
    }

    fn start_locked(
        &self,
        mut record: ContainerRecord,
        launcher: Launcher<'_>,
        attach: Option<AttachRequest>,
        tty_size: Option<(u16, u16)>,
    ) -> Result<Started, EngineError> {
        let id = record.id.clone();
        record.process.tty_size = tty_size;
        let mut undo = Undo::new();
        undo.push(|| {
            // The connection is closed by then, and the shim takes down what it has made; a killed one has left its groups.
            let _ = self.settled(&id).and_then(|()| Ok(sweep(&groups(&id))?));
            let _ = self.release(&id);
            let _ = self.mark_started(&id, false);
        });
        let place = self.plan_network(&record)?;
        self.mark_started(&id, true)?;
        let mut plan = ShimPlan { starter_finishes: attach.is_some(), ..self.shim_plan(&record)? };
        plan.bundle.links_follow = place.is_some();
        self.write_own_files(&record, place.as_ref(), &plan)?;
        let mut warnings = walls_down(&plan.bundle);
        let streams = attach.map(|streams| (streams.stdin, streams.output));
        fault::fail(Point::ShimOrder).map_err(|source| ShimError::Io { what: "order a shim".to_owned(), source })?;
        let mut shim = launcher()?;
        let stream = match place {
            None => {
                let network = self.unattached_network(&record.request);
                if !record.request.publish.is_empty() {
                    warnings.push(format!("Published ports are discarded when using {} network mode", network.name));
                }
                self.note_network(&mut record, network)?;
                shim.launch_through(plan, streams).map_err(start_error)?
            }
            Some(place) => {
                let prepared = shim.launch(plan).map_err(start_error)?;
                fault::fail(Point::StartPrepared)
                    .map_err(|source| ShimError::Io { what: "prepare a shim".to_owned(), source })?;
                let stream = streams.map(|(stdin, output)| shim.attach(stdin, output)).transpose()?;
                let attached = network::attach(place, prepared.network.as_ref().map(AsFd::as_fd), &self.paths)?;
                let (view, handles) = taken(&attached);
                warnings.extend(attached.warnings);
                fault::fail(Point::StartAttached)
                    .map_err(|source| ShimError::Io { what: "tell the shim its network".to_owned(), source })?;
                self.note_network(&mut record, view)?;
                let descriptors: Vec<_> = attached.descriptors.iter().map(AsFd::as_fd).collect();
                shim.proceed(handles, &descriptors).map_err(start_error)?;
                stream
            }
        };
        fault::cut(Point::StartDone);
        undo.keep();
        Ok(Started { stream, client: shim.into_client(), warnings })
    }

    fn note_network(&self, record: &mut ContainerRecord, network: NetworkView) -> Result<(), EngineError> {
        if record.network != network {
            record.network = network;
            record.save(&self.paths)?;
        }
        Ok(())
    }

    /// Does what is due after the end of a container whose start attached: takes down what it held, removes it if it
    /// was to be, and tells its shim so.
    ///
    /// # Errors
    /// When something cannot be given back; the shim then tries again in a process of its own.
    pub fn end(&self, id: &ContainerId, client: &mut Client) -> Result<(), EngineError> {
        self.finish_with(id, Some(client))?;
        self.cleared(id, client)?;
        // It has waited long enough, or was killed; there is nothing left to say.
        let _ = client.finished();
        Ok(())
    }

    /// Puts the shim's order together: range of ids, filter, bundle.
    fn shim_plan(&self, record: &ContainerRecord) -> Result<ShimPlan, EngineError> {
        let id = &record.id;
        let run_dir = self.paths.container_run(id);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&run_dir)
            .and_then(|()| fault::fail(Point::RunMade))
            .map_err(StoreError::io("create directory", &run_dir))?;
        let root = match &record.request.rootfs {
            Some(path) => Root::Directory(path.clone()),
            None => {
                let mut active = Snapshotter::new(&self.paths).mounts(id.as_str())?;
                if (1..MAX_LAYERS).contains(&active.lowers.len()) {
                    active.lowers.extend(self.paths.places());
                }
                Root::Overlay {
                    store: active.store,
                    lowers: active.lowers,
                    upper: active.upper,
                    work: active.work,
                    volatile: record.request.auto_remove,
                }
            }
        };
        let mut now = Circumstances {
            root,
            base: 0,
            seccomp: self.filter(record)?,
            own_files: run_dir.clone(),
            owners: owners(record),
            devices: devices(record)?,
            net_of: None,
            pid_of: self.pid_of(&record.request.pid_mode)?,
            ipc_of: self.pid_of(&record.request.ipc_mode)?,
        };
        if let NetworkMode::Container(name) = &record.request.network {
            let other = self.find(name)?;
            let pid = self.running_pid(&other)?;
            let base = ranges::of_process(pid)?;
            if let Some(base) = base {
                ranges::join(&self.paths, id, base)?;
                self.running_pid(&other)?;
            }
            now.net_of = Some((pid, base));
        }
        let mut bundle = assemble(record, &now);
        if let UserNamespace::Range { base } = &mut bundle.userns {
            *base = ranges::take(&self.paths, id)?;
        }
        Ok(ShimPlan {
            host: Launch::look().clone(),
            bundle,
            stdin_open: record.request.stdin_open,
            state: record.state_files(&self.paths),
            run_dir,
            log: record.log.clone(),
            restart: record.restart,
            stop_signal: record.stop_signal,
            stop_timeout: record.stop_timeout,
            health: record.health.clone(),
            cleanup: self.cleanup(id),
            starter_finishes: false,
            dies_with_starter: false,
        })
    }

    /// Returns the arguments with which a fresh process of ours does [`Engine::finish`].
    pub(super) fn cleanup(&self, id: &ContainerId) -> Vec<String> {
        let (root, run) = (self.paths.root.display().to_string(), self.paths.run.display().to_string());
        vec!["--root".to_owned(), root, "--run".to_owned(), run, "_cleanup".to_owned(), id.to_string()]
    }

    /// Compiles the container's seccomp profile, or takes the compiled one from the cache.
    fn filter(&self, record: &ContainerRecord) -> Result<Option<SeccompFilter>, EngineError> {
        self.compile(&record.id, &record.seccomp, record.hardening.capabilities)
    }

    pub(super) fn compile(
        &self,
        id: &ContainerId,
        choice: &SeccompChoice,
        capabilities: CapabilitySet,
    ) -> Result<Option<SeccompFilter>, EngineError> {
        let cache = self.paths.root.join("cache/seccomp");
        let options = ProfileOptions { capabilities, kernel: kernel_version(), i386: false };
        let text;
        let source = match choice {
            SeccompChoice::Unconfined => return Ok(None),
            SeccompChoice::Default => ProfileSource::Default,
            SeccompChoice::Strict => ProfileSource::Strict,
            SeccompChoice::File(name) => {
                let path = self.paths.container(id).join("seccomp.json");
                let bytes = std::fs::read(&path).map_err(StoreError::io("read", &path))?;
                text = String::from_utf8(bytes).map_err(|_| EngineError::ProfileText(name.clone()))?;
                ProfileSource::File { name, text: &text }
            }
        };
        Ok(Some(seccomp::load_cached(&cache, source, &options)?))
    }

    /// Returns the pid of a running container.
    pub(super) fn running_pid(&self, id: &ContainerId) -> Result<i32, EngineError> {
        let container = self.observe(id)?;
        match container.state.status {
            Status::Running | Status::Paused => Ok(container.state.pid),
            _ => Err(EngineError::Status { action: "join", name: container.record.name, status: "not running" }),
        }
    }

    /// Reads `container:NAME` of `--pid` and `--ipc`.
    fn pid_of(&self, mode: &str) -> Result<Option<i32>, EngineError> {
        match mode.strip_prefix("container:") {
            Some(name) => Ok(Some(self.running_pid(&self.find(name)?)?)),
            None => Ok(None),
        }
    }

    /// Gives back what a start holds outside the shim: network, id range, directory in `$RUN`.
    ///
    /// # Errors
    /// The first that happened; everything is tried.
    pub(super) fn release(&self, id: &ContainerId) -> Result<(), EngineError> {
        let network = network::detach(id, &self.paths);
        self.release_ids(id)?;
        Ok(network?)
    }

    /// Gives back the id range and the directory in `$RUN` of a container that has no network of ours.
    pub(super) fn release_ids(&self, id: &ContainerId) -> Result<(), EngineError> {
        ranges::release(&self.paths, id)?;
        let run_dir = self.paths.container_run(id);
        let removed = match std::fs::remove_dir_all(&run_dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &run_dir)(source))
            }
            _ => Ok(()),
        };
        Ok(removed?)
    }

    /// Writes the container's own files anew, as every start does (*docker run reference "--add-host"*): they lie in `$RUN`,
    /// where a file takes no block of the disk; the container gets copies.
    fn write_own_files(
        &self,
        record: &ContainerRecord,
        place: Option<&EndpointPlan>,
        plan: &ShimPlan,
    ) -> Result<(), EngineError> {
        let (hosts, resolv) = self.name_files(record, place)?;
        let hostname = format!("{}\n", record.hostname);
        for (name, text) in [("hosts", hosts), ("resolv.conf", resolv), ("hostname", hostname)] {
            write_own_file(&plan.run_dir.join(name), text.as_bytes(), 0o644)?;
        }
        Ok(())
    }
}

/// Writes a file that a container gets a copy of.
pub(super) fn write_own_file(path: &Path, text: &[u8], mode: u32) -> Result<(), StoreError> {
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = open.map_err(StoreError::io("create", path))?;
    std::io::Write::write_all(&mut file, text).map_err(StoreError::io("write", path))?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(StoreError::io("set mode of", path))
}

/// Turns what the shim says of a failed start into our error.
pub(super) fn start_error(error: ShimError) -> EngineError {
    match error {
        ShimError::Failed(failure) => EngineError::Start { failure },
        other => EngineError::Shim(other),
    }
}
