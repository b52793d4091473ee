//! A container that runs, as its shim holds it.

use super::bundle::Process;
use super::cgroup::Cgroups;
use super::error::{Context, LaunchError};
use super::keeper::{END, EXEC, GROUPS};
use super::launch::Kept;
use super::mounter::{ERROR, FRAME, TERMINAL};
use super::outside::open_namespace;
use super::pending::receive_child;
use super::wire;
use crate::security::Enforced;
use crate::sys::process::{Child, pidfd_kill, wait_exit};
use crate::sys::socket::{pair, recv_frame, send_frame};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A running container. Its processes are children of the caller, which reaps them.
#[derive(Debug)]
pub struct Running {
    /// The first process.
    pub init: Child,
    /// The process that starts further ones; ended by [`Running::destroy`], or with the [`Mounted`] that this returns.
    pub keeper: Child,
    /// The first process's terminal.
    pub terminal: Option<OwnedFd>,
    /// Namespaces to keep over a restart.
    pub kept: Kept,
    /// Control groups, for statistics.
    pub cgroups: Cgroups,
    /// What holds.
    pub enforced: Enforced,
    socket: OwnedFd,
    base: u32,
    /// Whether the first process has a view of the control groups of its own.
    own_view: bool,
    /// Whether the keeper knows the control groups.
    groups_known: bool,
    frozen: bool,
}

/// A process added to a running container; a child of the caller, which reaps it.
#[derive(Debug)]
pub struct Added {
    /// The process.
    pub child: Child,
    /// Its terminal, when it asked for one.
    pub terminal: Option<OwnedFd>,
}

impl Running {
    #[expect(clippy::too_many_arguments, reason = "one caller, and the parts have no other name in common")]
    pub(super) fn new(
        init: Child,
        keeper: Child,
        socket: OwnedFd,
        terminal: Option<OwnedFd>,
        kept: Kept,
        cgroups: Cgroups,
        enforced: Enforced,
        base: u32,
        own_view: bool,
    ) -> Self {
        let (groups_known, frozen) = (false, false);
        Self { init, keeper, terminal, kept, cgroups, enforced, socket, base, own_view, groups_known, frozen }
    }

    /// Starts another process in the container and waits until its program runs.
    ///
    /// `stdio` are its streams, needed unless it has a terminal.
    ///
    /// # Errors
    /// Why it could not be started; always while the container is frozen.
    pub fn exec(
        &mut self,
        process: &Process,
        stdio: Option<[BorrowedFd<'_>; 3]>,
        privileged: bool,
    ) -> Result<Added, LaunchError> {
        if self.frozen {
            return Err(LaunchError::refused("start a process: the container is paused"));
        }
        if stdio.is_none() && !process.tty {
            return Err(LaunchError::refused("a process without a terminal needs three streams"));
        }
        super::outside::give_pipes(stdio, self.base);
        self.send_groups()?;
        let (report, theirs) = pair().at(|| "make a socket")?;
        let request = [[EXEC].as_slice(), &wire::encode(process, privileged)].concat();
        let mut descriptors = vec![theirs.as_fd()];
        if !process.tty {
            descriptors.extend(stdio.iter().flatten());
        }
        send_frame(self.socket.as_fd(), &request, &descriptors).at(|| "ask the keeper for a process")?;
        drop(theirs);
        let child = receive_child(self.socket.as_fd())?
            .ok_or_else(|| LaunchError::refused("start a process: the keeper of the container is gone"))?;
        let mut terminal = None;
        while let Some((frame, descriptors)) = recv_frame(report.as_fd(), FRAME).at(|| "hear from the new process")? {
            match frame.first() {
                Some(&ERROR) => {
                    let _ = wait_exit(child.pid);
                    return Err(LaunchError::decode(&frame[1..]));
                }
                Some(&TERMINAL) => terminal = descriptors.into_iter().next(),
                _ => {}
            }
        }
        Ok(Added { child, terminal })
    }

    /// Hands the keeper what the first process has of the control groups, once: its view, and the files to join them.
    fn send_groups(&mut self) -> Result<(), LaunchError> {
        if self.groups_known {
            return Ok(());
        }
        let gone = |_| LaunchError::refused("start a process: the container is not running");
        let view = self.own_view.then(|| open_namespace(self.init.pid, "cgroup")).transpose().map_err(gone)?;
        let join = self.cgroups.join_files()?;
        let descriptors: Vec<_> = view.iter().chain(&join).map(AsFd::as_fd).collect();
        let request = [GROUPS, u8::from(self.own_view)];
        send_frame(self.socket.as_fd(), &request, &descriptors).at(|| "tell the keeper of the control groups")?;
        self.groups_known = true;
        Ok(())
    }

    /// Freezes all processes of the container.
    ///
    /// # Errors
    /// When the kernel offers no freezer or does not freeze them.
    pub fn freeze(&mut self) -> Result<(), LaunchError> {
        self.cgroups.freeze()?;
        self.frozen = true;
        Ok(())
    }

    /// Lets all processes go on.
    ///
    /// # Errors
    /// As [`Running::freeze`].
    pub fn thaw(&mut self) -> Result<(), LaunchError> {
        self.cgroups.thaw()?;
        self.frozen = false;
        Ok(())
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// `ESRCH` as the error number when it has ended.
    pub fn signal(&self, signal: i32) -> Result<(), LaunchError> {
        pidfd_kill(self.init.pidfd.as_fd(), signal).at(|| format!("send signal {signal} to the container"))
    }

    /// Kills every process of the container and waits until none is left in its control groups.
    ///
    /// # Errors
    /// When some are left after ten seconds.
    pub fn kill_all(&mut self) -> Result<(), LaunchError> {
        let _ = pidfd_kill(self.init.pidfd.as_fd(), libc::SIGKILL);
        if self.frozen {
            self.thaw()?;
        }
        self.cgroups.kill_all()
    }

    /// Returns whether the kernel killed a process of the container for want of memory.
    pub fn oom_killed(&self) -> bool {
        self.cgroups.oom_killed()
    }

    /// Ends every process, after the first one was reaped; returns the namespaces for a restart, the control groups, which are
    /// removed when they are dropped, and the keeper, if it may stay longer than these.
    ///
    /// With the keeper goes the mount of the root, for which the kernel writes the container's files to the disk (10 ms and
    /// more). A `patient` caller waits for that; it must be one if the root is used again.
    pub fn destroy(self, patient: bool) -> (Kept, EmptyGroups, Option<Mounted>) {
        let (held, pid) = (self.cgroups.hold_the_keeper(), self.keeper.pid);
        let stays = !patient && !held;
        let mounted = Some(Mounted { keeper: self.keeper, socket: self.socket }).filter(|_| stays);
        if held {
            let _ = wait_exit(pid);
        }
        let _ = self.cgroups.kill_all();
        // It has taken the mounts down meanwhile.
        if patient && !held {
            let _ = wait_exit(pid);
        }
        (self.kept, EmptyGroups(self.cgroups), mounted)
    }
}

/// A keeper without a container, which has its root mounted; dropping this ends it, and waits for nothing.
#[derive(Debug)]
pub struct Mounted {
    keeper: Child,
    socket: OwnedFd,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = send_frame(self.socket.as_fd(), &[END], &[]);
        let _ = pidfd_kill(self.keeper.pidfd.as_fd(), libc::SIGKILL);
    }
}

/// Control groups without processes; dropping this removes them.
#[derive(Debug)]
pub struct EmptyGroups(Cgroups);

impl Drop for EmptyGroups {
    fn drop(&mut self) {
        self.0.remove();
    }
}
