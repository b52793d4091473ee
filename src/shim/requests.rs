//! What callers ask on the control socket, carried out.

use super::jail::Jail;
use super::plan::Status;
use super::protocol::{Reply, Request, StopReason};
use super::supervisor::Supervisor;
use crate::sandbox::Process;
use rustix::fd::{AsFd, OwnedFd};

const SIGKILL: i32 = 9;
/// Attached clients at one time; more are refused.
const MOST_CLIENTS: usize = 256;

type Answer = Option<(Reply, Vec<OwnedFd>)>;

impl<J: Jail> Supervisor<J> {
    /// Carries a request out; `None` is answered later, or never.
    pub(super) fn carry_out(&mut self, number: u32, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        let reply = match request {
            Request::Stop { .. } if self.ended_with().is_some() => Reply::Stopped { killed: false, ignored: false },
            Request::Wait if let Some(code) = self.ended_with() => Reply::Exited { code },
            Request::Launch(_) | Request::Proceed(_) => refused("the container is started already"),
            Request::Attach { stdin, output } => return Some(self.attach(stdin, output)),
            Request::Exec { process, privileged } => return Some(self.exec(number, &process, privileged, descriptors)),
            Request::Signal { signal } => self.signal(signal),
            Request::Stop { signal, timeout, reason } => {
                if let Some(caller) = self.caller(number) {
                    caller.stops = true;
                }
                self.state.stopped_by_user |= reason != StopReason::Shutdown;
                self.removed |= reason == StopReason::Removal;
                self.finisher.get_or_insert(number);
                self.begin_stop(signal, timeout);
                return None;
            }
            Request::Resize { rows, columns } => match self.streams.resize(rows, columns) {
                Ok(()) => Reply::Done,
                Err(errno) => refused(format!("resize the terminal: {}", std::io::Error::from(errno))),
            },
            Request::Wait => {
                if let Some(caller) = self.caller(number) {
                    caller.waits = true;
                }
                return None;
            }
            Request::Pause => self.freeze(true),
            Request::Unpause => self.freeze(false),
            Request::State => Reply::State(Box::new(self.state.clone())),
            Request::Hold => {
                self.held.extend(descriptors);
                return None;
            }
            Request::Finished => {
                self.finished(number);
                return None;
            }
        };
        Some((reply, Vec::new()))
    }

    /// Opens a stream for a client.
    pub(super) fn attach(&mut self, stdin: bool, output: bool) -> (Reply, Vec<OwnedFd>) {
        if self.streams.client_count() >= MOST_CLIENTS {
            return (refused("too many clients are attached"), Vec::new());
        }
        match self.streams.attach(&self.poller, stdin, output) {
            Ok(stream) => (Reply::Attached, vec![stream]),
            Err(errno) => (refused(format!("make a stream: {}", std::io::Error::from(errno))), Vec::new()),
        }
    }

    fn exec(
        &mut self,
        number: u32,
        process: &Process,
        privileged: bool,
        descriptors: Vec<OwnedFd>,
    ) -> (Reply, Vec<OwnedFd>) {
        let reply = match (self.state.status, &mut self.jail) {
            (Status::Running, Some(jail)) => {
                let stdio = match &descriptors[..] {
                    [] if process.tty => None,
                    [stdin, stdout, stderr] if !process.tty => Some([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]),
                    _ => return (refused("exec needs stdin, stdout and stderr, or a terminal and none"), Vec::new()),
                };
                match jail.exec(process, privileged, stdio) {
                    Ok(added) => {
                        self.added.insert(added.pid, number);
                        return (Reply::ExecStarted { pid: added.pid }, added.terminal.into_iter().collect());
                    }
                    Err(failure) => Reply::Failed(failure),
                }
            }
            (Status::Paused, _) => refused("container is paused, unpause it before exec"),
            _ => refused("container is not running"),
        };
        (reply, Vec::new())
    }

    fn signal(&mut self, signal: i32) -> Reply {
        let Some(jail) = self.jail.as_ref().filter(|_| self.state.pid != 0) else {
            return refused("container is not running");
        };
        match jail.signal(signal) {
            Ok(()) => {
                // As with `docker kill`: a container killed by hand is not started again by policy.
                if signal == SIGKILL || signal == self.plan.stop_signal {
                    self.state.stopped_by_user = true;
                    self.thaw_to_end();
                }
                Reply::Done
            }
            Err(failure) => refused(failure.message),
        }
    }

    /// Thaws a frozen container, so that the signal that is to end it can.
    pub(super) fn thaw_to_end(&mut self) {
        if let (Status::Paused, Some(jail)) = (self.state.status, &mut self.jail)
            && jail.freeze(false).is_ok()
        {
            self.state.status = Status::Running;
        }
    }

    fn freeze(&mut self, frozen: bool) -> Reply {
        let (from, to) = if frozen { (Status::Running, Status::Paused) } else { (Status::Paused, Status::Running) };
        match &mut self.jail {
            Some(jail) if self.state.status == from => match jail.freeze(frozen) {
                Ok(()) => {
                    self.state.status = to;
                    self.write_state();
                    if let Some(prober) = self.prober.as_mut().filter(|_| !frozen) {
                        prober.postpone(self.started.elapsed());
                    }
                    Reply::Done
                }
                Err(failure) => refused(failure.message),
            },
            _ if self.state.status == to => {
                refused(if frozen { "container is paused already" } else { "container is not paused" })
            }
            _ => refused(if frozen { "container is not running" } else { "container is not paused" }),
        }
    }
}

pub(super) fn refused(why: impl Into<String>) -> Reply {
    Reply::Refused(why.into())
}
