//! A launch that is under way: what is heard from the processes on the way to the program, and what is taken down when it
//! fails.

use super::cgroup::Cgroups;
use super::error::{Context, LaunchError};
use super::keeper::MADE;
use super::launch::Kept;
use super::mounter::{ERROR, FRAME, KEEPER, NETWORK, TERMINAL};
use super::nest::Nest;
use super::outside::end;
use super::running::Running;
use crate::security::Enforced;
use crate::sys::process::*;
use crate::sys::socket::{recv_frame, send_frame};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A launch whose namespaces exist and whose tree is being assembled; dropping it takes everything down.
#[derive(Debug)]
pub struct Pending {
    pub(super) mounter: Option<Child>,
    pub(super) nest: Option<Nest>,
    pub(super) report: OwnedFd,
    pub(super) keeper: OwnedFd,
    pub(super) kept: Kept,
    pub(super) cgroups: Option<Cgroups>,
    /// Files to join the control groups (version 1), until they are handed over.
    pub(super) join: Option<Vec<OwnedFd>>,
    pub(super) enforced: Option<Enforced>,
    pub(super) base: u32,
    pub(super) shows_view: bool,
}

/// What came from the processes on the way to the program.
#[derive(Debug, Default)]
struct Heard {
    keeper: Option<Child>,
    terminal: Option<OwnedFd>,
}

impl Pending {
    /// Returns the container's own network namespace.
    pub fn net_namespace(&self) -> Option<BorrowedFd<'_>> {
        self.kept.netns.as_ref().map(AsFd::as_fd)
    }

    /// Returns the pid of a process in the namespaces, for `/proc/PID/ns`.
    pub fn mounter_pid(&self) -> i32 {
        let mounter = self.mounter.as_ref().map_or(0, |mounter| mounter.pid);
        self.nest.as_ref().map_or(mounter, Nest::pid)
    }

    /// Lets the launch go on and waits until the program runs.
    ///
    /// # Errors
    /// Why it could not be started; nothing is left behind then.
    pub fn finish(mut self) -> Result<Running, LaunchError> {
        let mut heard = Heard::default();
        match self.run(&mut heard) {
            Ok(init) => self.running(heard, init),
            Err(error) => {
                self.tear_down(heard.keeper.take());
                Err(error)
            }
        }
    }

    /// Lets the mounter go on to the program, once.
    pub(super) fn release(&mut self) {
        if let Some(join) = self.join.take() {
            let join: Vec<_> = join.iter().map(AsFd::as_fd).collect();
            // When it is gone already, what it said is read later.
            let _ = send_frame(self.report.as_fd(), b"proceed", &join);
            self.mounter.iter().for_each(|mounter| spread(mounter.pid));
        }
    }

    fn run(&mut self, heard: &mut Heard) -> Result<Child, LaunchError> {
        self.release();
        self.listen(heard)?;
        let lost = || LaunchError::refused("start the container: a process on the way to the program died");
        if heard.keeper.is_none() {
            return Err(lost());
        }
        receive_child(self.keeper.as_fd())?.ok_or_else(lost)
    }

    /// Reads the report socket until its end, which means that the program runs. After a failure it goes on until the
    /// keeper is known or cannot come any more: who failed may have been quicker than the mounter that tells of it.
    fn listen(&mut self, heard: &mut Heard) -> Result<(), LaunchError> {
        let mut failed = None;
        while let Some((frame, descriptors)) =
            recv_frame(self.report.as_fd(), FRAME).at(|| "hear from the container's first processes")?
        {
            let first = descriptors.into_iter().next();
            match (frame.first().copied(), first) {
                (Some(ERROR), _) => failed = failed.or_else(|| Some(LaunchError::decode(&frame[1..]))),
                (Some(KEEPER), Some(pidfd)) => {
                    heard.keeper = Some(Child { pid: pid(&frame), pidfd });
                    // The keeper is in the namespaces now. Reaped later: it ends while the others work.
                    if let Some(nest) = &self.nest {
                        nest.release();
                    }
                    // The mounter woke us on its processor, where the first process will be; we hear from that as it begins.
                    spread(0);
                }
                (Some(TERMINAL), terminal) => heard.terminal = terminal,
                (Some(NETWORK), netns) => self.kept.netns = netns,
                _ => {}
            }
            if failed.is_some() && heard.keeper.is_some() {
                break;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn running(mut self, heard: Heard, init: Child) -> Result<Running, LaunchError> {
        if let Some(mounter) = self.mounter.take() {
            let _ = wait_exit(mounter.pid);
        }
        self.nest = None;
        let (Some(keeper), Some(cgroups), Some(enforced)) = (heard.keeper, self.cgroups.take(), self.enforced.take())
        else {
            return Err(LaunchError::refused("start the container: the keeper is missing"));
        };
        let socket = self.keeper.try_clone().at(|| "keep the keeper's socket")?;
        let kept = std::mem::replace(&mut self.kept, Kept { userns: None, netns: None });
        Ok(Running::new(init, keeper, socket, heard.terminal, kept, cgroups, enforced, self.base, self.shows_view))
    }

    /// Ends every process of a launch that failed and removes its control groups.
    fn tear_down(&mut self, keeper: Option<Child>) {
        if let Some(mounter) = self.mounter.take() {
            end(&mounter);
        }
        if let Some(keeper) = keeper {
            // The keeper says so at once after it made the first process, which may have failed before that: ended earlier,
            // it would leave a process nobody knows.
            let init = receive_child(self.keeper.as_fd());
            end(&keeper);
            if let Ok(Some(init)) = init {
                end(&init);
            }
        }
        if let Some(mut cgroups) = self.cgroups.take() {
            cgroups.clear();
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.mounter.is_some() {
            let mut heard = Heard::default();
            // It may have come as far as the keeper, or the program, which is known when the socket ends: what waits for
            // the mounter ends with it.
            self.mounter.take().iter().for_each(end);
            let _ = self.listen(&mut heard);
            self.tear_down(heard.keeper);
        }
    }
}

/// Reads the pid behind a frame's tag.
pub(super) fn pid(frame: &[u8]) -> i32 {
    frame.get(1..5).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_le_bytes)
}

/// Receives a process the keeper made.
pub(super) fn receive_child(keeper: BorrowedFd<'_>) -> Result<Option<Child>, LaunchError> {
    let Some((frame, descriptors)) = recv_frame(keeper, FRAME).at(|| "hear from the keeper")? else { return Ok(None) };
    match (frame.first(), descriptors.into_iter().next()) {
        (Some(&MADE), Some(pidfd)) => Ok(Some(Child { pid: pid(&frame), pidfd })),
        (Some(_), _) => Err(LaunchError::decode(&frame[1..])),
        (None, _) => Ok(None),
    }
}
