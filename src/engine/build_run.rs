//! Running a command of a build in its tree: a container without a record, gone when the command ends.

use super::build::{Builder, StepTree};
use super::build_agent::Agents;
use super::build_mounts::Given;
use super::hardening::{walls, with_ping};
use super::network::taken;
use super::request::{HardeningRequest, LimitRequest, NetworkMode};
use super::spec::{DEFAULT_SHM, network_sysctls};
use super::start::start_error;
use super::stop::groups;
use super::{EngineError, create, ranges, stubs};
use crate::base::ContainerId;
use crate::network::{self, EndpointRequest, Mode};
use crate::sandbox::{Bundle, Cgroup, Launch, Mount, Namespace, Namespaces, Process, Root, UserNamespace, sweep};
use crate::security::Hardening;
use crate::shim::{Client, LaunchConn, RestartPolicy, ShimError, ShimPlan, State, StateFiles, Status};
use crate::step::{RunOrder, StepMount, StepNetwork};
use crate::store::{StoreError, read_json};
use crate::sys::fault::{self, Point};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fs::DirBuilder;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

/// SIGTERM.
const STOP_SIGNAL: i32 = 15;
/// SIGKILL.
const KILL: i32 = 9;
/// Host name inside build steps; the same as BuildKit's, so that what records it is the same everywhere.
pub(super) const HOSTNAME: &str = "buildkitsandbox";
/// After so long without output the door is told that the step still runs.
const SILENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Directories of the image that the sandbox mounts over, made where they are missing.
const PLACES: [&str; 3] = ["/dev", "/proc", "/sys"];

/// What a step that runs has begun.
#[derive(Default)]
struct Running {
    /// Its shim. The step dies when this connection closes.
    shim: Option<LaunchConn>,
    /// Paths that are mounted over.
    targets: Vec<String>,
}

impl Builder<'_> {
    /// Fails when the build was told to end.
    pub(super) fn check_interrupt(&self) -> Result<(), EngineError> {
        self.wait_for_end(Duration::ZERO)
    }

    /// Waits, and fails as soon as the build is told to end.
    pub(super) fn wait_for_end(&self, time: Duration) -> Result<(), EngineError> {
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        match poll(&mut self.ends().collect::<Vec<_>>(), Some(&time)) {
            Ok(ready) if ready > 0 => Err(EngineError::Interrupted),
            _ => Ok(()),
        }
    }

    /// What becomes readable when the build is to end.
    fn ends(&self) -> impl Iterator<Item = PollFd<'_>> {
        let all = self.interrupt.into_iter().chain([self.halted.as_fd()]);
        all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
    }

    /// Runs the order to its end, takes its sandbox down, and returns the exit code.
    pub(super) fn run_step(
        &self,
        tree: &StepTree<'_>,
        order: &RunOrder,
        mounts: &[StepMount<'_, Self>],
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<i32, EngineError> {
        let network = self.network(order)?;
        let mut step = Running::default();
        let code = self.run_in_sandbox(tree, order, mounts, network, output, &mut step);
        let ended = self.engine.end_step(&tree.id);
        if ended.is_err() {
            tree.lease.leave();
        }
        if let Some(shim) = step.shim {
            let mut client = shim.into_client();
            // Heard of only where the step has ended by itself.
            if code.is_ok() && client.cleared().is_err() {
                sweep(&groups(&tree.id))?;
            }
            // A shim that is gone already needs no word; one that hears none takes down again what is down.
            let _ = client.finished();
        }
        let code = code?;
        // From here on the upper directory is ours again.
        ended?;
        stubs::remove(&tree.active, &step.targets).map_err(|source| EngineError::Stubs(source.into()))?;
        Ok(code)
    }

    /// Runs the order to its end; what it has begun is in `step` and stays for the caller to take down.
    fn run_in_sandbox(
        &self,
        tree: &StepTree<'_>,
        order: &RunOrder,
        mounts: &[StepMount<'_, Self>],
        network: StepNetwork,
        output: &mut dyn FnMut(&[u8]),
        step: &mut Running,
    ) -> Result<i32, EngineError> {
        let id = &tree.id;
        let run_dir = self.engine.paths.container_run(id);
        DirBuilder::new().mode(0o700).create(&run_dir).map_err(StoreError::io("create directory", &run_dir))?;
        let mode = match (network, &self.options.network) {
            (StepNetwork::None, _) => Mode::None,
            (StepNetwork::Host, _) => Mode::Host,
            (StepNetwork::Default, NetworkMode::Named(name)) => Mode::Network(name.clone()),
            (StepNetwork::Default, _) => Mode::Network(network::DEFAULT_NETWORK.to_owned()),
        };
        let dns_servers = super::build_mounts::host_resolver().servers;
        let request = EndpointRequest { id: id.clone(), mode, ports: Vec::new(), dns_servers };
        let place = network::plan(&request, &self.engine.paths)?;
        let userns = match network {
            StepNetwork::Host => UserNamespace::Host { because: "--network=host".to_owned() },
            _ if order.insecure => UserNamespace::Host { because: "--security=insecure".to_owned() },
            _ => UserNamespace::Range { base: ranges::take(&self.engine.paths, id)? },
        };
        let addresses = (place.address().map(IpAddr::V4), place.gateway().map(IpAddr::V4));
        let base = if let UserNamespace::Range { base } = userns { base } else { 0 };
        let Given { mounts, env, mut agents } = self.given(order, mounts, addresses, &run_dir, base)?;
        let mut secrets = self.redactor(order);
        step.targets = mounts.iter().map(|mount| mount.target.clone()).chain(PLACES.map(str::to_owned)).collect();
        let launched = {
            let mut launcher = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
            (*launcher)()
        };
        let shim = step.shim.insert(launched?);
        let plan = self.plan(tree, (order, env, network == StepNetwork::Host), userns, mounts, &run_dir)?;
        let prepared = shim.launch(plan).map_err(start_error)?;
        let stream = shim.attach(false, true)?;
        let attached = network::attach(place, prepared.network.as_ref().map(AsFd::as_fd), &self.engine.paths)?;
        let (_, handles) = taken(&attached);
        let descriptors: Vec<_> = attached.descriptors.iter().map(AsFd::as_fd).collect();
        shim.proceed(handles, &descriptors).map_err(start_error)?;
        let code = self.relay(stream.as_fd(), &mut agents, &mut |bytes| secrets.pass(bytes, output))?;
        fault::fail(Point::StepRan).map_err(EngineError::Output)?;
        Ok(code)
    }

    /// What the step asks for, or what the build says.
    fn network(&self, order: &RunOrder) -> Result<StepNetwork, EngineError> {
        match (order.network, &self.options.network) {
            (StepNetwork::Default, NetworkMode::None) => Ok(StepNetwork::None),
            (StepNetwork::Default, NetworkMode::Host) => Ok(StepNetwork::Host),
            // A Dockerfile may come from anywhere; the host's network is given by the command line only.
            (StepNetwork::Host, NetworkMode::Host) => Ok(StepNetwork::Host),
            (StepNetwork::Host, _) => Err(EngineError::HostNetwork),
            (asked, _) => Ok(asked),
        }
    }

    /// Puts the order to the shim together: the walls of a container with default options.
    fn plan(
        &self,
        tree: &StepTree<'_>,
        (order, env, host_network): (&RunOrder, Vec<String>, bool),
        userns: UserNamespace,
        mounts: Vec<Mount>,
        run_dir: &Path,
    ) -> Result<ShimPlan, EngineError> {
        let id = &tree.id;
        let walls = walls(&HardeningRequest { privileged: order.insecure, ..HardeningRequest::default() })?;
        let seccomp = self.engine.compile(id, &walls.seccomp, walls.hardening.capabilities)?;
        let net = if host_network { Namespace::Host } else { Namespace::New };
        let hardening = with_ping(Hardening { seccomp, ..walls.hardening }, (&walls.seccomp, &[]), &userns, &net);
        let sysctls = network_sysctls(&userns, &net);
        let at = &tree.active;
        let new = || Namespace::New;
        let bundle = Bundle {
            id: id.clone(),
            root: Root::Overlay {
                store: at.store.clone(),
                lowers: at.lowers.clone(),
                upper: at.upper.clone(),
                work: at.work.clone(),
                volatile: true,
            },
            root_readonly: false,
            userns,
            namespaces: Namespaces { net, pid: new(), ipc: new(), uts: new(), cgroup: new(), time: new() },
            links_follow: true,
            hostname: HOSTNAME.to_owned(),
            domainname: String::new(),
            process: Process {
                args: order.args.clone(),
                env,
                cwd: order.cwd.clone(),
                user: order.user.clone(),
                groups: Vec::new(),
                tty: false,
                tty_size: None,
                rlimits: Vec::new(),
                oom_score_adj: 0,
            },
            mounts,
            shm_size: DEFAULT_SHM,
            devices: Vec::new(),
            sysctls,
            cgroup: Cgroup { path: crate::sandbox::group_name(id), limits: self.limits() },
            hardening,
            init: false,
            require: Vec::new(),
        };
        Ok(ShimPlan {
            host: Launch::look().clone(),
            bundle,
            stdin_open: false,
            state: StateFiles { live: run_dir.join("state.json"), last: None },
            run_dir: run_dir.to_owned(),
            log: None,
            restart: RestartPolicy::No,
            stop_signal: STOP_SIGNAL,
            stop_timeout: 10,
            health: None,
            // The builder takes down what the step held; when it is killed, the shim kills the step and starts a process
            // that does.
            cleanup: self.engine.cleanup(id),
            starter_finishes: true,
            dies_with_starter: true,
        })
    }

    fn limits(&self) -> crate::sandbox::Limits {
        create::limits(&LimitRequest::default(), &self.engine.settings.limits)
    }

    /// Passes a step's output on until its end and returns its exit code (frames: [`crate::shim::protocol`]).
    fn relay(
        &self,
        stream: BorrowedFd<'_>,
        agents: &mut Agents,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<i32, EngineError> {
        let failed = |errno: Errno| EngineError::Output(errno.into());
        let (mut pending, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let mut waits = vec![PollFd::from_borrowed_fd(stream, PollFlags::IN)];
            waits.extend(self.ends());
            let own = waits.len();
            agents.watch(&mut waits);
            match poll(&mut waits, Some(&SILENCE)) {
                Err(Errno::INTR) => continue,
                Ok(0) => {
                    output(&[]);
                    continue;
                }
                other => other.map_err(failed)?,
            };
            if waits[1..own].iter().any(|wait| !wait.revents().is_empty()) {
                return Err(EngineError::Interrupted);
            }
            let (spoken, heard) = (waits[0].revents(), waits[own..].iter().map(PollFd::revents).collect::<Vec<_>>());
            agents.act(&heard);
            if spoken.is_empty() {
                continue;
            }
            match rustix::io::read(stream, &mut piece) {
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Ok(0) => return Err(EngineError::Output(std::io::ErrorKind::UnexpectedEof.into())),
                count => pending.extend_from_slice(&piece[..count.map_err(failed)?]),
            }
            if let Some(code) = frames(&mut pending, output) {
                // What was held back comes out.
                output(&[]);
                return Ok(code);
            }
        }
    }
}

/// Takes the complete frames out of what was read; returns the exit code when it has come.
fn frames(pending: &mut Vec<u8>, output: &mut dyn FnMut(&[u8])) -> Option<i32> {
    let mut at = 0;
    let mut code = None;
    while let Some(header) = pending.get(at..at + 8) {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let Some(payload) = pending.get(at + 8..at + 8 + length) else { break };
        match header[0] {
            3 => code = Some(std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok()).unwrap_or(-1)),
            _ if !payload.is_empty() => output(payload),
            _ => {}
        }
        at += 8 + length;
    }
    pending.drain(..at);
    code
}

impl super::Engine {
    /// Takes a build step's sandbox down, whatever state it is in: processes, network, id range, run directory.
    ///
    /// # Errors
    /// The first that happened; everything is tried.
    pub(super) fn end_step(&self, id: &ContainerId) -> Result<(), EngineError> {
        let stopped = match Client::connect(&self.paths.container_run(id)) {
            Ok(mut client) => client.stop(Some(KILL), Some(0)).map(drop),
            Err(_) => Ok(()),
        };
        let settled = self.settled(id);
        let state: Result<State, _> = read_json(&self.paths.container_run(id).join("state.json"));
        let swept = match state {
            Ok(state) if state.status == Status::Exited => Ok(()),
            // Its shim was killed, or never came so far as to say anything.
            _ => sweep(&groups(id)),
        };
        self.release(id)?;
        settled?;
        swept?;
        match stopped {
            // It ended by itself meanwhile, perhaps before it heard us.
            Err(ShimError::Gone { .. } | ShimError::Codec(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_where_they_end_however_they_arrive() {
        let frame = |stream: u8, payload: &[u8]| {
            [&[stream, 0, 0, 0][..], &(payload.len() as u32).to_be_bytes(), payload].concat()
        };
        let bytes = [frame(1, b"one\n"), frame(2, b""), frame(2, b"two\n"), frame(3, b"42")].concat();
        for step in [1, 3, 8, 100] {
            let (mut pending, mut seen, mut code) = (Vec::new(), Vec::new(), None);
            for part in bytes.chunks(step) {
                pending.extend_from_slice(part);
                code = code.or(frames(&mut pending, &mut |text| seen.extend_from_slice(text)));
            }
            assert_eq!((&seen[..], code, pending.is_empty()), (&b"one\ntwo\n"[..], Some(42), true), "pieces of {step}");
        }
    }
}
