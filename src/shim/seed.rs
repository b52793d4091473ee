//! Where shims come from: a process forked before the command line has allocated anything.
//!
//! The seed waits on a socket. It becomes a shim itself (`run` pays one fork and no exec), or forks further ones for
//! callers that have threads by then or start several containers. It ends silently when its socket closes.

use super::client_launch::LaunchConn;
use super::codec::socket_pair;
use super::error::{ShimError, io_error};
use super::jail::Jail;
use super::serve::serve;
use crate::sys::fork;
use crate::sys::process::{close_all_from, leave_real_time, move_onto, reap_any, spread};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// Order to the seed: this socket is the launch socket.
const BECOME: u8 = b'B';
/// Order to the seed: fork a shim whose launch socket follows.
const FORK: u8 = b'F';

/// The process shims are forked from; dropping this ends it.
#[derive(Debug)]
pub struct Seed {
    socket: OwnedFd,
}

impl Seed {
    pub(super) fn fork_with<J: Jail>(nests: bool) -> Result<Self, ShimError> {
        let (ours, theirs) = socket_pair().map_err(io_error("make the seed's socket"))?;
        let run = move || {
            if let Ok(socket) = detach(theirs) {
                live::<J>(socket, nests);
            }
            0
        };
        match fork::fork(run) {
            Ok(child) => {
                spread(child.pid());
                Ok(Self { socket: ours })
            }
            Err(source) => Err(ShimError::Io { what: "fork the seed of the shim".to_owned(), source }),
        }
    }

    /// Makes the seed itself the shim.
    ///
    /// # Errors
    /// When the seed is gone.
    pub fn become_shim(self) -> Result<LaunchConn, ShimError> {
        order(&self.socket, BECOME, None)?;
        Ok(LaunchConn::from_socket(self.socket))
    }

    /// Lets the seed fork a shim; the seed stays.
    ///
    /// # Errors
    /// When the seed is gone.
    pub fn fork_shim(&self) -> Result<LaunchConn, ShimError> {
        let (ours, theirs) = socket_pair().map_err(io_error("make a shim's socket"))?;
        order(&self.socket, FORK, Some(theirs.as_fd()))?;
        Ok(LaunchConn::from_socket(ours))
    }
}

fn order(seed: &OwnedFd, order: u8, descriptor: Option<BorrowedFd<'_>>) -> Result<(), ShimError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(descriptor) = &descriptor {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
    }
    sendmsg(seed, &[IoSlice::new(&[order])], &mut control, SendFlags::NOSIGNAL)
        .map_err(io_error("order a shim of the seed"))?;
    Ok(())
}

/// The seed's life.
fn live<J: Jail>(socket: OwnedFd, nests: bool) {
    // The command line is still parsing: what can be made without its plan is, meanwhile.
    let mut nest = if nests { J::nest() } else { None };
    loop {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => continue,
            Ok(received) if received.bytes == 1 => {}
            _ => return,
        }
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut received) => received.next(),
            _ => None,
        });
        match (byte[0], descriptor) {
            (BECOME, None) => return serve::<J>(socket, nest.take()),
            (FORK, Some(launch)) => {
                let run = move || {
                    if let Ok(launch) = keep_only(launch) {
                        // A session of its own, as the seed's.
                        let _ = rustix::process::setsid();
                        serve::<J>(launch, None);
                    }
                    0
                };
                // On failure the launch socket closes, which tells the engine.
                let _ = fork::fork(run);
                while let Ok(Some(_)) = reap_any() {}
            }
            _ => return,
        }
    }
}

/// Closes everything above standard error but one descriptor. What was open belongs to frames of the forking process,
/// which are never returned to.
fn keep_only(descriptor: OwnedFd) -> Result<OwnedFd, Errno> {
    let kept = move_onto(descriptor, 3)?;
    close_all_from(4, &[])?;
    Ok(kept)
}

/// Leaves everything of the process that forked us: session, terminal, directory, descriptors, control groups, and a
/// real-time policy, which a container has no budget for (its version 1 `cpu` group would not even take it).
fn detach(socket: OwnedFd) -> Result<OwnedFd, ShimError> {
    let socket = keep_only(socket).map_err(io_error("keep the shim's socket"))?;
    // Refused to a leader of a process group, which needs no new session then.
    let _ = rustix::process::setsid();
    let fail = |errno: nix::Error| ShimError::Io { what: "leave the terminal".to_owned(), source: errno.into() };
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).map_err(io_error("open /dev/null"))?;
    nix::unistd::dup2_stdin(&null).map_err(fail)?;
    nix::unistd::dup2_stdout(&null).map_err(fail)?;
    nix::unistd::dup2_stderr(&null).map_err(fail)?;
    rustix::process::chdir("/").map_err(io_error("leave the working directory"))?;
    // Names are for people; without one we are called like the command line.
    let _ = rustix::thread::set_name(c"bulkhead-shim");
    let _ = super::title::set();
    super::groups::leave_v1();
    leave_real_time().map_err(io_error("leave the real-time scheduling policy"))?;
    Ok(socket)
}

/// The role `shim`: a shim started by executing our own binary, with its launch socket as standard input.
pub(super) fn role_with<J: Jail>() -> Result<(), ShimError> {
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)
        .map_err(io_error("take the launch socket from standard input"))?;
    super::codec::check_peer(socket.as_fd())?;
    let socket = detach(socket)?;
    serve::<J>(socket, None);
    Ok(())
}

/// Starts a shim by executing our own binary, for callers that have threads and no seed.
///
/// # Errors
/// When it cannot be started.
pub fn spawn_shim() -> Result<LaunchConn, ShimError> {
    let (ours, theirs) = socket_pair().map_err(io_error("make a shim's socket"))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the role `shim` of our own binary; everything else is closed on execve"
    )]
    let mut command = std::process::Command::new("/proc/self/exe");
    let null = std::process::Stdio::null;
    command.arg("shim").stdin(theirs).stdout(null()).stderr(null());
    command.spawn().map_err(|source| ShimError::Io { what: "start a shim".to_owned(), source })?;
    Ok(LaunchConn::from_socket(ours))
}
