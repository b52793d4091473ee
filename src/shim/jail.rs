//! What the supervisor needs of a sandbox; the tests put plain processes in its place.

use super::protocol::Failure;
use crate::sandbox::{Bundle, Process};
use crate::security::{Enforced, HostFeatures};
use rustix::fd::{BorrowedFd, OwnedFd};

/// An added process.
#[derive(Debug)]
pub(super) struct Added {
    /// Its host pid; the shim is its parent.
    pub(super) pid: i32,
    /// The master of its terminal.
    pub(super) terminal: Option<OwnedFd>,
}

/// stdin, stdout and stderr of a process; `None` when it gets a terminal.
pub(super) type Stdio<'a> = Option<[BorrowedFd<'a>; 3]>;

/// A running container.
pub(super) trait Jail: Sized {
    /// A container whose namespaces stand and whose first process does not run yet; dropping it takes all down.
    type Pending;
    /// What a restart uses again: user and network namespaces.
    type Kept;
    /// What is left of a run without any process; dropping it takes it down.
    type Remains;
    /// What has the files mounted when everything else of a run is gone; dropping it lets go of them.
    type Files;
    /// What can be made before the plan of a launch is known.
    type Nest;

    /// Makes beforehand what most launches need.
    fn nest() -> Option<Self::Nest>;
    /// Makes the namespaces, or uses those of the last run, or those made beforehand.
    fn begin(
        bundle: &Bundle,
        host: &HostFeatures,
        stdio: Stdio<'_>,
        kept: Option<&Self::Kept>,
        nest: Option<Self::Nest>,
    ) -> Result<Self::Pending, Failure>;
    /// Returns the network namespace, if it is the container's own, and the pid of a process inside.
    fn network(pending: &Self::Pending) -> (Option<BorrowedFd<'_>>, i32);
    /// Starts the first process.
    fn finish(pending: Self::Pending) -> Result<Self, Failure>;
    /// Host pid of the first process; the shim is its parent.
    fn pid(&self) -> i32;
    /// Hands over the master of its terminal.
    fn take_terminal(&mut self) -> Option<OwnedFd>;
    /// Starts another process.
    fn exec(&mut self, process: &Process, privileged: bool, stdio: Stdio<'_>) -> Result<Added, Failure>;
    /// Sends a signal to the first process.
    fn signal(&self, signal: i32) -> Result<(), Failure>;
    /// Kills every process.
    fn kill_all(&mut self) -> Result<(), Failure>;
    /// Freezes or thaws every process.
    fn freeze(&mut self, frozen: bool) -> Result<(), Failure>;
    /// Tells whether the kernel has killed a process for want of memory.
    fn oom_killed(&self) -> bool;
    /// What is enforced.
    fn enforced(&self) -> Option<Enforced>;
    /// Ends every process; returns what a restart uses again, and what is left to take down. The first process is reaped
    /// already. When `patient` it waits until the files are let go of too.
    fn destroy(self, patient: bool) -> (Self::Kept, Self::Remains, Option<Self::Files>);
}
