//! From a launch socket to a running supervisor.

use super::codec::{self, Receiver};
use super::dns::DnsRelay;
use super::error::CodecError;
use super::forward::Forwards;
use super::jail::Jail;
use super::protocol::{Failure, NetworkHandles, Reply, Request};
use super::requests::refused;
use super::supervisor::{Supervisor, failure};
use crate::sys::fault::{self, Point};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long an answer may wait for the engine to read it.
const ANSWER: Duration = Duration::from_secs(30);

/// Serves one container from its plan to its end. Ends silently when the socket closes before a plan came.
pub(super) fn serve<J: Jail>(socket: OwnedFd, nest: Option<J::Nest>) {
    let mut receiver = Receiver::default();
    // The engine is forgiven nothing on this socket: whatever is no launch ends it.
    let Ok(Some((Request::Launch(plan), _))) = receiver.wait(socket.as_fd(), None) else { return };
    fault::cut(Point::ShimSeeded);
    // Without a subreaper, orphans of a container in the host's pid namespace would end up with the host's init.
    let _ = rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1));
    let cleanup = plan.cleanup.clone();
    let mut supervisor = match Supervisor::<J>::new(*plan) {
        Ok(supervisor) => supervisor,
        Err(error) => return report(&socket, failure(&error), &cleanup),
    };
    match launch(&mut supervisor, nest, &socket, &mut receiver) {
        Ok(Some(pid)) => {
            if send(&socket, &Reply::Started { pid }, &[]).is_ok() {
                let number = supervisor.add_caller(socket, true);
                supervisor.set_finisher(number);
            }
            supervisor.shrink();
            super::groups::leave_v2();
            supervisor.run();
        }
        // The engine died in the middle: what it had set up so far is taken down.
        Ok(None) => {
            supervisor.release();
            clean_up(&cleanup);
        }
        Err(failure) => {
            supervisor.fail(&failure);
            report(&socket, failure, &cleanup);
        }
    }
}

/// Says why there is no container. An engine that is there takes down what it had set up; for one that died it is done here:
/// whoever looked for what it left may have come before us.
fn report(socket: &OwnedFd, failure: Failure, cleanup: &[String]) {
    if send(socket, &Reply::Failed(failure), &[]).is_err() {
        clean_up(cleanup);
    }
}

fn send(socket: &OwnedFd, reply: &Reply, descriptors: &[BorrowedFd<'_>]) -> Result<(), CodecError> {
    codec::send(socket.as_fd(), reply, descriptors, Some(Instant::now() + ANSWER))
}

/// Performs the launch's conversation; `None` when the engine went away.
fn launch<J: Jail>(
    supervisor: &mut Supervisor<J>,
    nest: Option<J::Nest>,
    socket: &OwnedFd,
    receiver: &mut Receiver,
) -> Result<Option<i32>, Failure> {
    let pending = supervisor.begin(nest)?;
    fault::cut(Point::ShimBegun);
    // An engine that has no links to lay hears nothing before the program runs: each answer would wake it for nothing, on a
    // processor that the container's processes need.
    let awaited = supervisor.links_follow();
    let mut later = Vec::new();
    if awaited {
        let (network, pid) = J::network(&pending);
        let reply = Reply::Namespaces { net: network.is_some(), pid };
        if send(socket, &reply, network.as_slice()).is_err() {
            return Ok(None);
        }
    }
    loop {
        let sent = match receiver.wait(socket.as_fd(), None) {
            Ok(Some((Request::Proceed(handles), descriptors))) => {
                take_handles(supervisor, handles, descriptors)?;
                break;
            }
            Ok(Some((Request::Attach { stdin, output }, _))) => {
                let (reply, stream) = supervisor.attach(stdin, output);
                if awaited {
                    send(socket, &reply, &codec::borrow(&stream))
                } else {
                    later.push((reply, stream));
                    Ok(())
                }
            }
            Ok(Some(_)) => send(socket, &refused("the container is not started yet"), &[]),
            Ok(None) | Err(_) => return Ok(None),
        };
        if sent.is_err() {
            return Ok(None);
        }
    }
    fault::cut(Point::ShimProceeds);
    supervisor.listen().map_err(|error| failure(&error))?;
    let failed = |source| failure(&super::error::ShimError::Io { what: "listen".to_owned(), source });
    fault::fail(Point::ShimListens).map_err(failed)?;
    let pid = supervisor.finish(pending)?;
    supervisor.write_start().map_err(|error| failure(&error.into()))?;
    for (reply, stream) in later {
        // To one that is gone nothing can be said, which the last answer finds out.
        let _ = send(socket, &reply, &codec::borrow(&stream));
    }
    Ok(Some(pid))
}

/// Takes over the sockets that the engine opened.
fn take_handles<J: Jail>(
    supervisor: &mut Supervisor<J>,
    handles: NetworkHandles,
    descriptors: Vec<OwnedFd>,
) -> Result<(), Failure> {
    let wanted = handles.forwards.len() + if handles.dns_servers.is_some() { 2 } else { 0 };
    if descriptors.len() != wanted {
        let message = format!("{} descriptors came with the network where {wanted} were named", descriptors.len());
        return Err(Failure { message, errno: 0, kind: super::protocol::FailureKind::Runtime });
    }
    let fail = |errno: rustix::io::Errno| failure(&super::error::io_error("watch the network's sockets")(errno));
    let mut descriptors = descriptors.into_iter();
    let mut dns_tcp = None;
    if let Some(servers) = handles.dns_servers
        && let (Some(udp), Some(tcp)) = (descriptors.next(), descriptors.next())
    {
        dns_tcp = Some((tcp, servers.clone()));
        supervisor.dns = Some(DnsRelay::new(&supervisor.poller, udp, servers).map_err(fail)?);
    }
    let mut forwards =
        Forwards::new(&supervisor.poller, handles.forwards.into_iter().zip(descriptors).collect()).map_err(fail)?;
    if let Some((listener, servers)) = dns_tcp {
        forwards.listen(&supervisor.poller, listener, servers).map_err(fail)?;
    }
    supervisor.forwards = forwards;
    Ok(())
}

/// Starts our own binary to take down what the container held. If it cannot be started nothing is lost: the next
/// command that meets the remains takes them down.
pub(super) fn clean_up(arguments: &[String]) {
    if arguments.is_empty() {
        return;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "a fresh start of our own binary from a process with one thread; nothing of ours is inherited"
    )]
    let mut command = std::process::Command::new("/proc/self/exe");
    // Whether it could be started or not, the shim has nothing left to do about it.
    let _ = command.args(arguments).spawn();
}
