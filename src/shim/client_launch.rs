//! The engine's side of a launch socket: the plan goes out, the namespaces stand, the first process runs.

use super::client::{ANSWER, Client, stream};
use super::error::ShimError;
use super::plan::ShimPlan;
use super::protocol::{NetworkHandles, Reply, Request};
use rustix::fd::{BorrowedFd, OwnedFd};

/// The launch socket of a shim that has no plan yet. Dropping it before [`LaunchConn::proceed`] ends the shim silently.
#[derive(Debug)]
pub struct LaunchConn {
    client: Client,
}

/// What stands before the first process runs.
#[derive(Debug)]
pub struct Prepared {
    /// Host pid of a process inside, for `/proc/PID/ns`.
    pub pid: i32,
    /// The container's own network namespace, when it has one.
    pub network: Option<OwnedFd>,
}

impl LaunchConn {
    /// Takes over one end of a socket pair whose other end a shim holds.
    pub(super) fn from_socket(socket: OwnedFd) -> Self {
        Self { client: Client::from_socket(socket) }
    }

    /// Sends the plan and waits until the namespaces stand.
    ///
    /// # Errors
    /// [`ShimError::Failed`] when the sandbox could not be made.
    pub fn launch(&mut self, plan: ShimPlan) -> Result<Prepared, ShimError> {
        self.client.ask("launch", Some((&Request::Launch(Box::new(plan)), &[])), Some(ANSWER), namespaces)
    }

    /// Attaches before the first process runs, so that nothing of its output is missed.
    ///
    /// # Errors
    /// When the shim is gone.
    pub fn attach(&mut self, stdin: bool, output: bool) -> Result<OwnedFd, ShimError> {
        self.client.attach(stdin, output)
    }

    /// Says that the network is in place and waits until the first process runs; returns its host pid. The descriptors
    /// are those of `handles`, in order.
    ///
    /// # Errors
    /// [`ShimError::Failed`] with the kind that decides the exit code of `run`.
    pub fn proceed(&mut self, handles: NetworkHandles, descriptors: &[BorrowedFd<'_>]) -> Result<i32, ShimError> {
        self.client.ask("start", Some((&Request::Proceed(handles), descriptors)), Some(ANSWER), started)
    }

    /// Starts a container between whose namespaces and first process nobody has anything to do (its bundle's `links_follow`
    /// is false): asks all that [`Self::launch`], [`Self::attach`] and [`Self::proceed`] ask at once, so that the shim waits
    /// for nobody, and answers when the program runs. Returns the stream, if one was asked for with `(stdin, output)`.
    ///
    /// # Errors
    /// As those.
    pub fn launch_through(
        &mut self,
        plan: ShimPlan,
        attach: Option<(bool, bool)>,
    ) -> Result<Option<OwnedFd>, ShimError> {
        self.client.send(&Request::Launch(Box::new(plan)), &[])?;
        // A shim that gave up by now has said why, which is read below.
        if let Some((stdin, output)) = attach {
            let _ = self.client.send(&Request::Attach { stdin, output }, &[]);
        }
        let _ = self.client.send(&Request::Proceed(NetworkHandles::default()), &[]);
        let stream = attach.map(|_| self.client.ask("attach", None, Some(ANSWER), stream)).transpose()?;
        self.client.ask("start", None, Some(ANSWER), started)?;
        Ok(stream)
    }

    /// Goes on with the same connection as a control connection.
    pub fn into_client(self) -> Client {
        self.client
    }
}

fn namespaces(reply: Reply, descriptors: &mut Vec<OwnedFd>) -> Result<Prepared, Reply> {
    match reply {
        Reply::Namespaces { net, pid } if net == (descriptors.len() == 1) => {
            Ok(Prepared { pid, network: descriptors.pop() })
        }
        other => Err(other),
    }
}

fn started(reply: Reply, _: &mut Vec<OwnedFd>) -> Result<i32, Reply> {
    match reply {
        Reply::Started { pid } => Ok(pid),
        other => Err(other),
    }
}
