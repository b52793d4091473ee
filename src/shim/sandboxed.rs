//! The real sandbox behind the supervisor.

use super::error::ShimError;
use super::jail::{Added, Jail, Stdio};
use super::protocol::{Failure, FailureKind};
use super::seed::{Seed, role_with};
use crate::sandbox::{
    Bundle, EmptyGroups, Kept, Launch, LaunchError, LaunchErrorKind, Mounted, Nest, Pending, Process, Running,
};
use crate::security::{Enforced, HostFeatures};
use rustix::fd::{BorrowedFd, OwnedFd};

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        let kind = match error.kind {
            LaunchErrorKind::NotFound => FailureKind::NotFound,
            LaunchErrorKind::NotExecutable => FailureKind::NotExecutable,
            LaunchErrorKind::Runtime => FailureKind::Runtime,
        };
        Self { message: error.message, errno: error.errno, kind }
    }
}

impl Jail for Running {
    type Pending = Pending;
    type Kept = Kept;
    type Nest = Nest;
    type Remains = EmptyGroups;
    type Files = Mounted;

    fn nest() -> Option<Nest> {
        Nest::make()
    }

    fn begin(
        bundle: &Bundle,
        host: &HostFeatures,
        stdio: Stdio<'_>,
        kept: Option<&Kept>,
        nest: Option<Nest>,
    ) -> Result<Pending, Failure> {
        Ok(Launch::begin(bundle, host, stdio, kept, nest)?)
    }

    fn network(pending: &Pending) -> (Option<BorrowedFd<'_>>, i32) {
        (pending.net_namespace(), pending.mounter_pid())
    }

    fn finish(pending: Pending) -> Result<Self, Failure> {
        Ok(pending.finish()?)
    }

    fn pid(&self) -> i32 {
        self.init.pid
    }

    fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    fn exec(&mut self, process: &Process, privileged: bool, stdio: Stdio<'_>) -> Result<Added, Failure> {
        let added = Self::exec(self, process, stdio, privileged)?;
        Ok(Added { pid: added.child.pid, terminal: added.terminal })
    }

    fn signal(&self, signal: i32) -> Result<(), Failure> {
        Ok(Self::signal(self, signal)?)
    }

    fn kill_all(&mut self) -> Result<(), Failure> {
        Ok(Self::kill_all(self)?)
    }

    fn freeze(&mut self, frozen: bool) -> Result<(), Failure> {
        Ok(if frozen { Self::freeze(self) } else { self.thaw() }?)
    }

    fn oom_killed(&self) -> bool {
        Self::oom_killed(self)
    }

    fn enforced(&self) -> Option<Enforced> {
        Some(self.enforced.clone())
    }

    fn destroy(self, patient: bool) -> (Kept, EmptyGroups, Option<Mounted>) {
        Self::destroy(self, patient)
    }
}

impl Seed {
    /// Forks the seed. Called first thing in `main` by the verbs that start containers: what is allocated before is
    /// copied into every shim.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn fork() -> Result<Self, ShimError> {
        Self::fork_with::<Running>(false)
    }

    /// As [`Seed::fork`], for one container, whose namespaces are made while nobody knows yet what it is to be.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn fork_for_one() -> Result<Self, ShimError> {
        Self::fork_with::<Running>(true)
    }
}

/// The role `shim` of our binary: a shim whose launch socket is its standard input (see [`super::spawn_shim`]).
///
/// # Errors
/// When standard input is no launch socket.
pub fn role() -> Result<(), ShimError> {
    role_with::<Running>()
}
