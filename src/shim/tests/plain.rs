//! A sandbox without walls: plain child processes.

use crate::sandbox::{Bundle, Process};
use crate::security::Enforced;
use crate::security::HostFeatures;
use crate::shim::jail::{Added, Jail, Stdio};
use crate::shim::protocol::{Failure, FailureKind};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::process::{Pid, Signal};

pub(in crate::shim) struct PlainJail {
    pid: i32,
    terminal: Option<OwnedFd>,
}

pub(in crate::shim) struct Pending {
    process: Process,
    stdio: Option<[OwnedFd; 3]>,
}

fn failure(what: &str, error: &std::io::Error) -> Failure {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => FailureKind::NotFound,
        std::io::ErrorKind::PermissionDenied => FailureKind::NotExecutable,
        _ => FailureKind::Runtime,
    };
    Failure { message: format!("{what}: {error}"), errno: error.raw_os_error().unwrap_or(0), kind }
}

fn spawn(process: &Process, stdio: Option<[OwnedFd; 3]>) -> Result<(i32, Option<OwnedFd>), Failure> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let (stdio, terminal) = match stdio {
        Some(stdio) => (stdio, None),
        None => {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
            grantpt(&master).unwrap();
            unlockpt(&master).unwrap();
            let name = ptsname(&master, Vec::new()).unwrap();
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
            let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
            ([slave.try_clone().unwrap(), slave.try_clone().unwrap(), slave], Some(master))
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the test's stand-in for the sandbox")]
    let mut command = std::process::Command::new(&process.args[0]);
    let [stdin, stdout, stderr] = stdio;
    command.args(&process.args[1..]).stdin(stdin).stdout(stdout).stderr(stderr);
    let child = command.spawn().map_err(|error| failure(&process.args[0], &error))?;
    Ok((child.id() as i32, terminal))
}

fn own(stdio: Stdio<'_>) -> Option<[OwnedFd; 3]> {
    stdio.map(|three| three.map(|one| one.try_clone_to_owned().unwrap()))
}

fn kill(pid: i32, signal: Signal) -> Result<(), Failure> {
    let result = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal);
    result.map_err(|errno| failure("send a signal", &errno.into()))
}

impl Jail for PlainJail {
    type Pending = Pending;
    type Kept = ();
    type Nest = ();
    type Remains = ();
    type Files = ();

    fn nest() -> Option<()> {
        None
    }

    fn begin(
        bundle: &Bundle,
        _: &HostFeatures,
        stdio: Stdio<'_>,
        _kept: Option<&()>,
        _nest: Option<()>,
    ) -> Result<Pending, Failure> {
        Ok(Pending { process: bundle.process.clone(), stdio: own(stdio) })
    }

    fn network(_pending: &Pending) -> (Option<BorrowedFd<'_>>, i32) {
        (None, std::process::id() as i32)
    }

    fn finish(pending: Pending) -> Result<Self, Failure> {
        spawn(&pending.process, pending.stdio).map(|(pid, terminal)| Self { pid, terminal })
    }

    fn pid(&self) -> i32 {
        self.pid
    }

    fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    fn exec(&mut self, process: &Process, _privileged: bool, stdio: Stdio<'_>) -> Result<Added, Failure> {
        spawn(process, own(stdio)).map(|(pid, terminal)| Added { pid, terminal })
    }

    fn signal(&self, signal: i32) -> Result<(), Failure> {
        let invalid = || failure("send a signal", &rustix::io::Errno::INVAL.into());
        kill(self.pid, Signal::from_named_raw(signal).ok_or_else(invalid)?)
    }

    fn kill_all(&mut self) -> Result<(), Failure> {
        kill(self.pid, Signal::KILL)
    }

    fn freeze(&mut self, frozen: bool) -> Result<(), Failure> {
        kill(self.pid, if frozen { Signal::STOP } else { Signal::CONT })
    }

    fn oom_killed(&self) -> bool {
        false
    }

    fn enforced(&self) -> Option<Enforced> {
        None
    }

    fn destroy(self, _: bool) -> ((), (), Option<()>) {
        // What a pid namespace would do with the rest.
        let children =
            std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        ((), (), None)
    }
}
