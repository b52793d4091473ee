//! The engine's side of a shim's sockets: blocking calls with deadlines.

use super::codec::{self, Receiver};
use super::error::{CodecError, ShimError, io_error};
use super::plan::State;
use super::protocol::{Failure, Reply, Request, StopReason};
use crate::sandbox::Process;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

/// Name of the control socket in a shim's directory.
pub(super) const SOCKET: &str = "shim.sock";
/// How long a request that needs no waiting may take before the shim counts as hung.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// A connection to a running shim.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    receiver: Receiver,
    /// Answers to requests that are still open, which came while another answer was awaited.
    early: VecDeque<(Reply, Vec<OwnedFd>)>,
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Whether SIGKILL was needed.
    pub killed: bool,
    /// Whether the first process had no handler for the stop signal, which PID 1 then ignores.
    pub ignored: bool,
}

/// An added process; dropping it leaves the process alone.
#[derive(Debug)]
pub struct Exec {
    client: Client,
    /// Its host pid.
    pub pid: i32,
    /// The master of its terminal, when it has one.
    pub terminal: Option<OwnedFd>,
}

impl Client {
    /// Connects to the shim that serves in a directory (`$RUN/<id>`).
    ///
    /// # Errors
    /// [`ShimError::NotRunning`] when nobody listens there; the shim of another user is refused.
    pub fn connect(run_dir: &Path) -> Result<Self, ShimError> {
        let gone = || ShimError::NotRunning { dir: run_dir.to_owned() };
        // The path goes over a descriptor, because a socket's address holds 108 bytes only.
        let dir = match rustix::fs::open(run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => return Err(gone()),
            other => other.map_err(io_error(format!("open shim directory {}", run_dir.display())))?,
        };
        let fail = || io_error(format!("connect to the shim in {}", run_dir.display()));
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(fail())?;
        loop {
            match rustix::net::connect(&socket, &address(dir.as_fd()).map_err(fail())?) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(gone()),
                Err(errno) => return Err(fail()(errno)),
            }
        }
        codec::check_peer(socket.as_fd())?;
        Ok(Self::from_socket(socket))
    }

    /// Takes over a connected socket.
    pub(super) fn from_socket(socket: OwnedFd) -> Self {
        Self { socket, receiver: Receiver::default(), early: VecDeque::new() }
    }

    /// Sends a request without waiting for its answer; descriptors go along.
    ///
    /// # Errors
    /// When the shim is gone or does not read for 30 seconds.
    pub fn send(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), ShimError> {
        Ok(codec::send(self.socket.as_fd(), request, descriptors, Some(Instant::now() + ANSWER))?)
    }

    /// Receives the next answer; without a deadline it waits for ever. `what` names the question for the error.
    ///
    /// # Errors
    /// When the shim ended, or the deadline passed.
    pub fn receive(
        &mut self,
        what: &'static str,
        timeout: Option<Duration>,
    ) -> Result<(Reply, Vec<OwnedFd>), ShimError> {
        if let Some(early) = self.early.pop_front() {
            return Ok(early);
        }
        match self.receiver.wait(self.socket.as_fd(), timeout.map(|timeout| Instant::now() + timeout)) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(ShimError::Gone { request: what }),
            Err(error) if error.is_end() => Err(ShimError::Gone { request: what }),
            Err(CodecError::Io { source, .. }) if source.kind() == std::io::ErrorKind::TimedOut => {
                Err(ShimError::Timeout { request: what, seconds: timeout.map_or(0, |timeout| timeout.as_secs()) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks and waits for the answer that `pick` recognises; answers to other open requests are kept for later.
    pub(super) fn ask<T>(
        &mut self,
        what: &'static str,
        request: Option<(&Request, &[BorrowedFd<'_>])>,
        timeout: Option<Duration>,
        mut pick: impl FnMut(Reply, &mut Vec<OwnedFd>) -> Result<T, Reply>,
    ) -> Result<T, ShimError> {
        if let Some((request, descriptors)) = request {
            self.send(request, descriptors)
                .map_err(|error| if error.is_end() { ShimError::Gone { request: what } } else { error })?;
        }
        let mut kept = std::mem::take(&mut self.early);
        let mut looked = 0;
        let result = loop {
            let (reply, mut descriptors) = match kept.remove(looked) {
                Some(early) => early,
                None => match self.receive(what, timeout) {
                    Ok(answer) => answer,
                    Err(error) => break Err(error),
                },
            };
            match pick(reply, &mut descriptors) {
                Ok(value) => break Ok(value),
                Err(Reply::Refused(why)) => break Err(ShimError::Refused(why)),
                Err(Reply::Failed(failure)) => break Err(ShimError::Failed(failure)),
                Err(
                    other @ (Reply::Exited { .. } | Reply::Stopped { .. } | Reply::ExecExited { .. } | Reply::Cleared),
                ) => {
                    kept.insert(looked, (other, descriptors));
                    looked += 1;
                }
                Err(_) => break Err(ShimError::Unexpected { request: what }),
            }
        };
        self.early = kept;
        result
    }

    fn done(&mut self, what: &'static str, request: &Request) -> Result<(), ShimError> {
        self.ask(what, Some((request, &[])), Some(ANSWER), |reply, _| match reply {
            Reply::Done => Ok(()),
            other => Err(other),
        })
    }

    /// Opens a stream to the container's stdio, see [`super::protocol`] for what is said on it.
    ///
    /// # Errors
    /// When the shim refuses or is gone.
    pub fn attach(&mut self, stdin: bool, output: bool) -> Result<OwnedFd, ShimError> {
        self.ask("attach", Some((&Request::Attach { stdin, output }, &[])), Some(ANSWER), stream)
    }

    /// Starts another process; `stdio` are its stdin, stdout and stderr, `None` when `process.tty` asks for a terminal.
    ///
    /// # Errors
    /// [`ShimError::Failed`] with the kind that decides the exit code; [`ShimError::Refused`] while paused or stopped.
    pub fn exec(
        mut self,
        process: Process,
        privileged: bool,
        stdio: Option<[BorrowedFd<'_>; 3]>,
    ) -> Result<Exec, ShimError> {
        let request = Request::Exec { process: Box::new(process), privileged };
        let descriptors = stdio.as_ref().map_or(&[][..], |three| &three[..]);
        let (pid, terminal) =
            self.ask("exec", Some((&request, descriptors)), Some(ANSWER), |reply, descriptors| match reply {
                Reply::ExecStarted { pid } => Ok((pid, descriptors.pop())),
                other => Err(other),
            })?;
        Ok(Exec { client: self, pid, terminal })
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// When the container is not running.
    pub fn signal(&mut self, signal: i32) -> Result<(), ShimError> {
        self.done("signal", &Request::Signal { signal })
    }

    /// Asks the container to stop and waits until it has; see [`Request::Stop`], also for what the caller owes the shim then.
    ///
    /// # Errors
    /// When the shim ends without an answer.
    pub fn stop(&mut self, signal: Option<i32>, timeout: Option<i64>) -> Result<Stopped, ShimError> {
        self.begin_stop(signal, timeout, StopReason::User)?;
        self.stopped()
    }

    /// Asks the container to stop without waiting for it, which [`Client::stopped`] does; see [`Request::Stop`].
    ///
    /// # Errors
    /// When the shim is gone.
    pub fn begin_stop(
        &mut self,
        signal: Option<i32>,
        timeout: Option<i64>,
        reason: StopReason,
    ) -> Result<(), ShimError> {
        self.send(&Request::Stop { signal, timeout, reason }, &[])
    }

    /// Waits for the end of a stop that was asked for with [`Client::begin_stop`].
    ///
    /// # Errors
    /// When the shim ends without an answer.
    pub fn stopped(&mut self) -> Result<Stopped, ShimError> {
        self.ask("stop", None, None, |reply, _| match reply {
            Reply::Stopped { killed, ignored } => Ok(Stopped { killed, ignored }),
            other => Err(other),
        })
    }

    /// Changes the size of the first process's terminal.
    ///
    /// # Errors
    /// When it has no terminal.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<(), ShimError> {
        self.done("resize", &Request::Resize { rows, columns })
    }

    /// Waits until the container has ended for good and returns its exit code.
    ///
    /// # Errors
    /// [`ShimError::Gone`] when the shim dies first, or had ended already; the state file tells which.
    pub fn wait(&mut self) -> Result<i32, ShimError> {
        match self.send(&Request::Wait, &[]) {
            // The connection of a launch was told the end already, if that was so soon.
            Ok(()) | Err(ShimError::Codec(CodecError::Io { .. })) => self.exited(),
            Err(error) => Err(error),
        }
    }

    /// Receives the answer to a [`Request::Wait`] that was sent before with [`Client::send`].
    ///
    /// # Errors
    /// When the shim dies first.
    pub fn exited(&mut self) -> Result<i32, ShimError> {
        self.ask("wait", None, None, |reply, _| match reply {
            Reply::Exited { code } => Ok(code),
            other => Err(other),
        })
    }

    /// Freezes all processes.
    ///
    /// # Errors
    /// When the container is not running, is paused already, or the host has no freezer.
    pub fn pause(&mut self) -> Result<(), ShimError> {
        self.done("pause", &Request::Pause)
    }

    /// Thaws all processes.
    ///
    /// # Errors
    /// When the container is not paused.
    pub fn unpause(&mut self) -> Result<(), ShimError> {
        self.done("unpause", &Request::Unpause)
    }

    /// Waits, after the container's end was heard, until the shim has taken down its part.
    ///
    /// # Errors
    /// When the shim dies first.
    pub fn cleared(&mut self) -> Result<(), ShimError> {
        self.ask("clear", None, Some(ANSWER), |reply, _| match reply {
            Reply::Cleared => Ok(()),
            other => Err(other),
        })
    }

    /// Hands the shim descriptors to close when it ends.
    ///
    /// # Errors
    /// When the shim is gone.
    pub fn hold(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), ShimError> {
        self.send(&Request::Hold, &codec::borrow(&descriptors))
    }

    /// Says that what the container held has been taken down; see [`super::ShimPlan::starter_finishes`].
    ///
    /// # Errors
    /// When the shim is gone already.
    pub fn finished(&mut self) -> Result<(), ShimError> {
        self.send(&Request::Finished, &[])
    }

    /// Asks for the state.
    ///
    /// # Errors
    /// When the shim is gone.
    pub fn state(&mut self) -> Result<State, ShimError> {
        self.ask("state", Some((&Request::State, &[])), Some(ANSWER), |reply, _| match reply {
            Reply::State(state) => Ok(*state),
            other => Err(other),
        })
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Exec {
    /// Waits until the added process ended and returns its exit code, 128 + n for signal n.
    ///
    /// # Errors
    /// When the shim dies first.
    pub fn wait(&mut self) -> Result<i32, ShimError> {
        self.client.ask("exec", None, None, |reply, _| match reply {
            Reply::ExecExited { code } => Ok(code),
            other => Err(other),
        })
    }
}

impl AsFd for Exec {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

pub(super) fn stream(reply: Reply, descriptors: &mut Vec<OwnedFd>) -> Result<OwnedFd, Reply> {
    match reply {
        Reply::Attached if descriptors.len() == 1 => Ok(descriptors.remove(0)),
        other => Err(other),
    }
}

impl From<Failure> for ShimError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The control socket's address below an open directory.
pub(super) fn address(dir: BorrowedFd<'_>) -> Result<SocketAddrUnix, Errno> {
    use std::os::fd::AsRawFd;
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}
