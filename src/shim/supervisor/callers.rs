//! Who is connected to the shim's socket, and which of them takes down what an ended container held.

use super::super::codec::{Received, check_peer};
use super::super::control::Control;
use super::super::jail::Jail;
use super::super::protocol::Reply;
use super::super::serve::clean_up;
use super::Supervisor;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::SocketFlags;

const SIGKILL: i32 = 9;
/// Callers at one time; more are turned away.
const MOST_CALLERS: usize = 256;
/// Callers let in before those who are here get their turn.
const CALLERS_AT_ONCE: usize = 16;

impl<J: Jail> Supervisor<J> {
    /// Serves a connection from now on; one that `waits` is told the end without asking.
    pub(in crate::shim) fn add_caller(&mut self, socket: OwnedFd, waits: bool) -> u32 {
        let number = self.next_caller;
        self.next_caller += 1;
        if self.callers.len() < MOST_CALLERS
            && let Ok(mut caller) = Control::new(&self.poller, number, socket)
        {
            caller.waits = waits;
            self.callers.insert(number, caller);
        }
        number
    }

    pub(super) fn accept(&mut self) {
        for _ in 0..CALLERS_AT_ONCE {
            let Some(listener) = &self.listener else { return };
            match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) if check_peer(socket.as_fd()).is_ok() => drop(self.add_caller(socket, false)),
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::MFILE | Errno::NFILE) => {
                    // The caller stays in the queue and would wake us without end: those who only listen make room.
                    let idle = self
                        .callers
                        .iter()
                        .find(|(_, caller)| !caller.waits && !caller.stops)
                        .map(|(number, _)| *number);
                    match idle.and_then(|number| self.callers.remove(&number)) {
                        Some(_) => {}
                        None => return,
                    }
                }
                Err(_) => return,
            }
        }
    }

    pub(super) fn caller_event(&mut self, number: u32) {
        let Some(caller) = self.callers.get_mut(&number) else { return };
        if !caller.flush(&self.poller, number) {
            self.drop_caller(number);
            return;
        }
        while let Some(caller) = self.callers.get_mut(&number) {
            match caller.receive() {
                Ok(Received::Message(request, descriptors)) => {
                    if let Some((reply, descriptors)) = self.carry_out(number, request, descriptors) {
                        self.answer(number, &reply, descriptors);
                    }
                }
                Ok(Received::Pending) => return,
                Ok(Received::Closed) | Err(_) => self.drop_caller(number),
            }
        }
    }

    fn drop_caller(&mut self, number: u32) {
        self.callers.remove(&number);
        if self.finisher == Some(number) {
            self.finisher = None;
            if self.finish_by.take().is_some() {
                clean_up(&self.plan.cleanup);
            } else if self.plan.dies_with_starter && !self.over {
                self.begin_stop(Some(SIGKILL), Some(0));
            }
        }
    }

    /// Hears that the finisher has taken down what the container held.
    pub(in crate::shim) fn finished(&mut self, number: u32) {
        if self.finisher == Some(number) && self.finish_by.take().is_some() {
            self.finisher = None;
        }
    }

    /// Names the caller that takes down what the container held.
    pub(in crate::shim) fn set_finisher(&mut self, number: u32) {
        self.finisher = self.plan.starter_finishes.then_some(number);
    }

    /// Answers a caller, if it is still there.
    pub(in crate::shim) fn answer(&mut self, number: u32, reply: &Reply, descriptors: Vec<OwnedFd>) {
        if let Some(caller) = self.callers.get_mut(&number)
            && !caller.answer(&self.poller, number, reply, descriptors)
        {
            self.drop_caller(number);
        }
    }

    /// Returns a caller's record.
    pub(in crate::shim) fn caller(&mut self, number: u32) -> Option<&mut Control> {
        self.callers.get_mut(&number)
    }

    pub(super) fn answer_all(&mut self, reply: &Reply, of: impl Fn(&mut Control) -> bool) {
        let numbers: Vec<u32> =
            self.callers.iter_mut().filter_map(|(number, caller)| of(caller).then_some(*number)).collect();
        for number in numbers {
            self.answer(number, reply, Vec::new());
        }
    }
}
