//! The keeper: stays in the container's namespaces and Landlock domain, unseen from inside, and forks every process the
//! container gets.

use super::error::{Context, LaunchError};
use super::init::{Start, Stdio, start};
use super::wire;
use crate::security::Hardening;
use crate::sys::process::*;
use crate::sys::socket::{recv_frame, send_frame};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Answer tags on the keeper's socket.
pub(super) const MADE: u8 = b'+';
pub(super) const FAILED: u8 = b'-';
/// Request tags.
pub(super) const EXEC: u8 = b'x';
pub(super) const GROUPS: u8 = b'g';
pub(super) const END: u8 = b'e';

/// What the keeper holds.
pub(super) struct Keeper<'a> {
    /// Socket to the shim.
    pub(super) socket: BorrowedFd<'a>,
    /// The container's devpts.
    pub(super) pts: Option<BorrowedFd<'a>>,
    /// Files to join the control groups (version 1), known from the first request on.
    pub(super) join: Vec<OwnedFd>,
    /// Group to be born in (version 2).
    pub(super) birth: Option<BorrowedFd<'a>>,
    /// The first process.
    pub(super) init: &'a Child,
    /// Walls.
    pub(super) hardening: &'a Hardening,
    /// The first process's control group namespace.
    pub(super) view: Option<OwnedFd>,
}

impl Keeper<'_> {
    /// Serves until the shim says so or is gone; in that case nobody watches the container any more, and it is ended.
    pub(super) fn serve(&mut self) -> i32 {
        loop {
            let Ok(Some((request, descriptors))) = recv_frame(self.socket, wire::LIMIT) else {
                let _ = pidfd_kill(self.init.pidfd.as_fd(), libc::SIGKILL);
                return 1;
            };
            let answered = match request.first() {
                Some(&EXEC) => self.answer(&request[1..], descriptors),
                Some(&GROUPS) => {
                    let mut descriptors = descriptors.into_iter();
                    // The view comes first, if there is one of its own.
                    self.view = if request.get(1) == Some(&1) { descriptors.next() } else { None };
                    self.join = descriptors.collect();
                    Ok(())
                }
                _ => return 0,
            };
            if answered.is_err() {
                let _ = pidfd_kill(self.init.pidfd.as_fd(), libc::SIGKILL);
                return 1;
            }
        }
    }

    fn answer(&self, request: &[u8], descriptors: Vec<OwnedFd>) -> Result<(), Errno> {
        match self.exec(request, descriptors) {
            Ok(child) => {
                let mut bytes = vec![MADE];
                bytes.extend_from_slice(&child.pid.to_le_bytes());
                send_frame(self.socket, &bytes, &[child.pidfd.as_fd()])
            }
            Err(error) => {
                let mut bytes = vec![FAILED];
                bytes.extend_from_slice(&error.encode());
                send_frame(self.socket, &bytes, &[])
            }
        }
    }

    fn exec(&self, request: &[u8], descriptors: Vec<OwnedFd>) -> Result<Child, LaunchError> {
        let bad = || LaunchError::refused("the keeper was sent a broken request");
        let (process, privileged) = wire::decode(request).ok_or_else(bad)?;
        let mut descriptors = descriptors.into_iter();
        let report = descriptors.next().ok_or_else(bad)?;
        let streams: Vec<OwnedFd> = descriptors.collect();
        let child = clone_process(CloneFlags::PARENT, self.birth, || {
            let (report, error) = match self.enter_groups() {
                Err(error) => (report, error),
                Ok(()) => {
                    let stdio = match (streams.as_slice(), self.pts) {
                        ([a, b, c], _) => Stdio::Streams([a.as_fd(), b.as_fd(), c.as_fd()]),
                        (_, Some(pts)) => Stdio::NewTerminal(pts),
                        _ => return 125,
                    };
                    let hardening = self.hardening;
                    let order = Start { process: &process, hardening, privileged, reaper: false, stdio };
                    start(&order, report, || Ok(()))
                }
            };
            let _ = send_frame(report.as_fd(), &[b"E".as_slice(), &error.encode()].concat(), &[]);
            1
        });
        child.map_err(|errno| match errno {
            // A pid namespace whose first process ended takes no more.
            Errno::NOMEM => LaunchError::refused("the container is not running"),
            other => LaunchError::failed("start a process in the container", other),
        })
    }

    fn enter_groups(&self) -> Result<(), LaunchError> {
        let join: Vec<_> = self.join.iter().map(AsFd::as_fd).collect();
        super::cgroup::join(&join).at(|| "join the control groups")?;
        match &self.view {
            Some(view) => setns(view.as_fd(), CloneFlags::NEWCGROUP).at(|| "enter the control group namespace"),
            None => Ok(()),
        }
    }
}
