//! The running shim: one loop over everything that can happen to a container.

use super::client;
use super::codec::Received;
use super::control::Control;
use super::dns::DnsRelay;
use super::error::{ShimError, io_error};
use super::forward::Forwards;
use super::jail::Jail;
use super::lock::Lock;
use super::plan::{ShimPlan, State, Status};
use super::policy::Restarts;
use super::poller::{Poller, Token};
use super::probe::Prober;
use super::protocol::{Failure, FailureKind, Reply};
use super::stop::Stop;
use super::streams::Streams;
use crate::base::Timestamp;
use crate::store::{Durability, write_json};
use crate::sys::fault::{self, Point};
use crate::sys::process::reap_any;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;
/// Callers at one time; more are turned away.
const MOST_CALLERS: usize = 256;
/// Callers let in before those who are here get their turn.
const CALLERS_AT_ONCE: usize = 16;
/// How long an ended container waits for the command that started it to take down what it held.
const FINISH: Duration = Duration::from_secs(30);
/// How long the end of the container waits for added processes to be reaped.
const REAP: Duration = Duration::from_secs(2);

/// A shim that has its plan.
pub(super) struct Supervisor<J: Jail> {
    pub(super) plan: ShimPlan,
    pub(super) poller: Poller,
    signals: SignalFd,
    lock: Option<Lock>,
    listener: Option<OwnedFd>,
    pub(super) jail: Option<J>,
    pub(super) state: State,
    pub(super) streams: Streams,
    callers: BTreeMap<u32, Control>,
    next_caller: u32,
    /// Added processes and the caller that waits for each.
    pub(super) added: BTreeMap<i32, u32>,
    /// Start of the present run.
    pub(super) started: Instant,
    restarts: Restarts,
    restart_at: Option<Instant>,
    pub(super) stop: Option<Stop>,
    pub(super) prober: Option<Prober>,
    pub(super) dns: Option<DnsRelay>,
    pub(super) forwards: Forwards,
    /// What the next run uses again.
    kept: Option<J::Kept>,
    /// When an ended container's added processes are waited for no longer.
    ending: Option<Instant>,
    /// Whether the final state is written and only slow readers remain.
    over: bool,
    /// The caller that takes down what the container held, as long as it is there.
    pub(super) finisher: Option<u32>,
    /// Whether that caller removes the container.
    pub(super) removed: bool,
    /// Until when an ended container waits for its finisher.
    finish_by: Option<Instant>,
}

impl<J: Jail> Supervisor<J> {
    /// Takes the lock, opens the log and prepares to watch.
    pub(super) fn new(plan: ShimPlan) -> Result<Self, ShimError> {
        match rustix::fs::mkdir(&plan.run_dir, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(io_error(format!("make shim directory {}", plan.run_dir.display()))(errno)),
        }
        let lock = Lock::take(&plan.run_dir)?;
        let failed = |source| ShimError::Io { what: format!("lock {}", plan.run_dir.display()), source };
        fault::fail(Point::ShimLocked).map_err(failed)?;
        let fail = || io_error("prepare the shim's event loop");
        let poller = Poller::new().map_err(fail())?;
        let signals = take_signals().map_err(|errno| fail()(Errno::from_raw_os_error(errno as i32)))?;
        poller.watch(&signals, Token::Signals, EventFlags::IN).map_err(fail())?;
        let streams = Streams::new(plan.log.as_ref())?;
        let restarts = Restarts::new(plan.restart);
        let state = State {
            schema: 1,
            status: Status::Created,
            pid: 0,
            shim_pid: std::process::id() as i32,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            started_at: Timestamp::NEVER,
            finished_at: Timestamp::NEVER,
            restart_count: 0,
            stopped_by_user: false,
            health: None,
            enforced: None,
        };
        Ok(Self {
            plan,
            poller,
            signals,
            lock: Some(lock),
            listener: None,
            jail: None,
            state,
            streams,
            callers: BTreeMap::new(),
            next_caller: 0,
            added: BTreeMap::new(),
            started: Instant::now(),
            restarts,
            restart_at: None,
            stop: None,
            prober: None,
            dns: None,
            forwards: Forwards::default(),
            kept: None,
            ending: None,
            over: false,
            finisher: None,
            removed: false,
            finish_by: None,
        })
    }

    /// Makes the namespaces of the next run.
    pub(super) fn begin(&mut self) -> Result<J::Pending, Failure> {
        let process = &self.plan.bundle.process;
        let stdio =
            self.streams.open(&self.poller, process.tty, self.plan.stdin_open).map_err(|error| failure(&error))?;
        let stdio = stdio.as_ref().map(|three| three.each_ref().map(AsFd::as_fd));
        let failed = |source| failure(&ShimError::Io { what: "open the streams".to_owned(), source });
        fault::fail(Point::ShimStreams).map_err(failed)?;
        J::begin(&self.plan.bundle, stdio, self.kept.as_ref())
    }

    /// Starts the first process and writes the state.
    pub(super) fn finish(&mut self, pending: J::Pending) -> Result<i32, Failure> {
        let mut jail = J::finish(pending)?;
        fault::cut(Point::ShimRunning);
        if let Some(master) = jail.take_terminal() {
            self.streams
                .set_terminal(&self.poller, master)
                .map_err(|errno| failure(&io_error("watch the terminal")(errno)))?;
        }
        self.started = Instant::now();
        self.state.status = Status::Running;
        self.state.pid = jail.pid();
        self.state.error.clear();
        self.state.exit_code = 0;
        self.state.oom_killed = false;
        self.state.started_at = Timestamp::now();
        self.state.finished_at = Timestamp::NEVER;
        self.state.enforced = jail.enforced();
        self.prober = self.plan.health.as_ref().map(Prober::new);
        self.state.health = self.prober.as_ref().map(Prober::state);
        self.jail = Some(jail);
        self.write_state(Durability::Atomic);
        fault::cut(Point::ShimStarted);
        Ok(self.state.pid)
    }

    /// Opens the control socket. Its path goes over a descriptor, because a socket's address holds 108 bytes only.
    pub(super) fn listen(&mut self) -> Result<(), ShimError> {
        let fail = || io_error(format!("listen on the shim's socket in {}", self.plan.run_dir.display()));
        let dir =
            rustix::fs::open(&self.plan.run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(fail())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(fail())?;
        // We hold the lock, so a socket that lies there is a dead shim's.
        match rustix::fs::unlinkat(&dir, client::SOCKET, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(fail()(errno)),
        }
        let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = client::address(dir.as_fd()).and_then(|address| rustix::net::bind(&socket, &address));
        rustix::process::umask(umask);
        bound.and_then(|()| rustix::net::listen(&socket, 128)).map_err(fail())?;
        self.poller.watch(&socket, Token::Listener, EventFlags::IN).map_err(fail())?;
        self.listener = Some(socket);
        Ok(())
    }

    /// Serves a connection from now on; one that `waits` is told the end without asking.
    pub(super) fn add_caller(&mut self, socket: OwnedFd, waits: bool) -> u32 {
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

    /// Runs until the container has ended for good and everybody has heard of it.
    pub(super) fn run(&mut self) {
        let mut more = false;
        while !self.over
            || self.finish_by.is_some()
            || self.streams.unsent()
            || self.callers.values().any(Control::unsent)
        {
            let deadline = if more { Some(Instant::now()) } else { self.deadline() };
            // epoll_wait fails for a bad descriptor or buffer only.
            let Ok(events) = self.poller.wait(deadline) else { return };
            for (token, flags) in events {
                self.handle(token, flags);
            }
            more = self.streams.pump(&self.poller) | self.forwards.pump(&self.poller);
            self.timers(Instant::now());
        }
    }

    fn handle(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Signals => self.take_signal(),
            Token::Listener => self.accept(),
            Token::Control(number) => self.caller_event(number),
            Token::Probe => {
                if let Some(prober) = &mut self.prober {
                    prober.read();
                }
            }
            Token::Dns(number) => {
                if let Some(dns) = &mut self.dns {
                    dns.handle(&self.poller, number, Instant::now());
                }
            }
            Token::Forward(number) => self.forwards.handle(&self.poller, number, flags, Instant::now()),
            Token::Stdout | Token::Stderr | Token::Stdin | Token::Client(_) => {
                self.streams.handle(&self.poller, token, flags)
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..CALLERS_AT_ONCE {
            let Some(listener) = &self.listener else { return };
            match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) if super::codec::check_peer(socket.as_fd()).is_ok() => drop(self.add_caller(socket, false)),
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

    fn caller_event(&mut self, number: u32) {
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
                super::serve::clean_up(&self.plan.cleanup);
            } else if self.plan.dies_with_starter && !self.over {
                self.begin_stop(Some(SIGKILL), Some(0));
            }
        }
    }

    /// Hears that the finisher has taken down what the container held.
    pub(super) fn finished(&mut self, number: u32) {
        if self.finisher == Some(number) && self.finish_by.take().is_some() {
            self.finisher = None;
        }
    }

    /// Names the caller that takes down what the container held.
    pub(super) fn set_finisher(&mut self, number: u32) {
        self.finisher = self.plan.starter_finishes.then_some(number);
    }

    /// Answers a caller, if it is still there.
    pub(super) fn answer(&mut self, number: u32, reply: &Reply, descriptors: Vec<OwnedFd>) {
        if let Some(caller) = self.callers.get_mut(&number)
            && !caller.answer(&self.poller, number, reply, descriptors)
        {
            self.drop_caller(number);
        }
    }

    /// Returns a caller's record.
    pub(super) fn caller(&mut self, number: u32) -> Option<&mut Control> {
        self.callers.get_mut(&number)
    }

    fn answer_all(&mut self, reply: &Reply, of: impl Fn(&mut Control) -> bool) {
        let numbers: Vec<u32> =
            self.callers.iter_mut().filter_map(|(number, caller)| of(caller).then_some(*number)).collect();
        for number in numbers {
            self.answer(number, reply, Vec::new());
        }
    }

    fn take_signal(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            // At the host's shutdown everything gets TERM: the container is stopped in good order then, and comes back
            // at the next boot if its policy says so.
            if info.ssi_signo == Signal::SIGTERM as u32 && self.stop.is_none() {
                self.begin_stop(None, None);
            }
        }
        loop {
            match reap_any() {
                Ok(Some((pid, code))) => self.reaped(pid, code),
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }

    fn reaped(&mut self, pid: i32, code: i32) {
        if self.state.pid == pid {
            self.first_process_ended(code);
        } else if let Some(number) = self.added.remove(&pid) {
            self.answer(number, &Reply::ExecExited { code }, Vec::new());
        } else if self.prober.as_ref().is_some_and(|prober| prober.pid() == Some(pid)) {
            self.probe_ended(code);
        }
    }

    fn first_process_ended(&mut self, code: i32) {
        fault::cut(Point::ShimReaped);
        let up = self.started.elapsed();
        if let Some(jail) = self.jail.take() {
            self.state.oom_killed = jail.oom_killed();
            self.kept = Some(jail.destroy(!self.is_forgotten()));
        }
        self.streams.drain(&self.poller);
        self.prober = None;
        self.state.pid = 0;
        self.state.exit_code = code;
        self.state.finished_at = Timestamp::now();
        let asked = self.stop.is_some() || self.state.stopped_by_user;
        match self.restarts.after_exit(code, up, asked) {
            Some(wait) => {
                self.state.status = Status::Restarting;
                self.restart_at = Some(Instant::now() + wait);
                self.write_state(Durability::Atomic);
            }
            None => self.ending = Some(Instant::now() + REAP),
        }
    }

    /// The container has ended for good: leaves its final state, then tells everybody.
    pub(super) fn end(&mut self) {
        self.ending = None;
        self.restart_at = None;
        self.kept = None;
        self.state.status = Status::Exited;
        self.state.shim_pid = 0;
        self.forwards = Forwards::default();
        self.dns = None;
        if !self.is_forgotten() {
            self.write_state(if self.plan.durable { Durability::Synced } else { Durability::Atomic });
        }
        fault::cut(Point::ShimEnded);
        self.release();
        fault::cut(Point::ShimReleased);
        let code = self.state.exit_code;
        self.streams.end(&self.poller, code);
        if let Some(stop) = self.stop.take() {
            let reply = Reply::Stopped { killed: stop.killed, ignored: stop.ignored };
            self.answer_all(&reply, |caller| std::mem::take(&mut caller.stops));
        }
        self.answer_all(&Reply::Exited { code }, |caller| std::mem::take(&mut caller.waits));
        match self.finisher {
            Some(number) if self.callers.contains_key(&number) => self.finish_by = Some(Instant::now() + FINISH),
            _ => super::serve::clean_up(&self.plan.cleanup),
        }
        self.over = true;
    }

    /// Tells whether somebody is there who removes the container now. Nobody will read its last state then; without it the
    /// record says that the container runs, and a free lock that it does not.
    fn is_forgotten(&self) -> bool {
        (self.removed || !self.plan.durable) && self.finisher.is_some_and(|number| self.callers.contains_key(&number))
    }

    fn restart(&mut self) {
        self.restart_at = None;
        self.forwards.lower_limit();
        let started = self.begin().and_then(|pending| self.finish(pending));
        self.forwards.raise_limit();
        match started {
            Ok(_) => {
                self.state.restart_count += 1;
                self.write_state(Durability::Atomic);
            }
            Err(failure) => {
                self.state.error = failure.message;
                self.state.exit_code = exit_code(failure.kind);
                self.state.finished_at = Timestamp::now();
                match self.restarts.after_exit(self.state.exit_code, Duration::ZERO, false) {
                    Some(wait) => self.restart_at = Some(Instant::now() + wait),
                    None => self.end(),
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let health =
            self.prober.as_ref().and_then(|prober| prober.deadline(self.started, self.state.status == Status::Paused));
        let relays = [self.dns.as_ref().and_then(DnsRelay::deadline), self.forwards.deadline()];
        let own =
            [self.restart_at, self.ending, self.stop.as_ref().and_then(Stop::deadline), health, self.streams.idle_at()];
        // Whatever is over but unsent is only waited for, by events.
        if self.over { self.finish_by } else { own.into_iter().chain(relays).flatten().min() }
    }

    fn timers(&mut self, now: Instant) {
        if self.over {
            if self.finish_by.is_some_and(|latest| latest <= now) {
                self.finish_by = None;
                super::serve::clean_up(&self.plan.cleanup);
            }
            return;
        }
        self.streams.trim(now);
        if let Some(dns) = &mut self.dns {
            dns.expire(&self.poller, now);
        }
        self.forwards.expire(now);
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart();
        }
        if self.stop.is_some() {
            self.stop_timer(now);
        }
        self.health_timer(now);
        if let Some(latest) = self.ending
            && (self.added.is_empty() || latest <= now)
        {
            self.end();
        }
    }

    /// Forgets what only a further start would need.
    pub(super) fn shrink(&mut self) {
        if !self.restarts.possible() {
            let bundle = &mut self.plan.bundle;
            bundle.mounts = Vec::new();
            bundle.hardening.seccomp = None;
            bundle.hardening.masked_paths = Vec::new();
            bundle.hardening.readonly_paths = Vec::new();
        }
    }

    /// Gives the lock and the socket back without ever having run.
    pub(super) fn release(&mut self) {
        self.listener = None;
        // It may not have been made yet.
        let _ = std::fs::remove_file(self.plan.run_dir.join(client::SOCKET));
        self.lock = None;
    }

    /// Returns the exit code when the container has ended for good.
    pub(super) fn ended_with(&self) -> Option<i32> {
        self.over.then_some(self.state.exit_code)
    }

    /// Ends a container that waits for its next start.
    pub(super) fn cancel_restart(&mut self) -> bool {
        let waiting = self.restart_at.take().is_some();
        if waiting {
            self.ending = Some(Instant::now());
        }
        waiting
    }

    /// Writes the state file. A failure leaves the old one; callers of the socket see the truth all the same.
    pub(super) fn write_state(&mut self, durability: Durability) {
        if let Err(error) = write_json(&self.plan.state_file, &self.state, durability) {
            self.state.error = format!("{error}");
        }
    }
}

/// Blocks the signals that the loop handles or that must not end a shim, and returns where they arrive.
fn take_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Puts an error of ours in the form of the protocol.
pub(super) fn failure(error: &ShimError) -> Failure {
    let (message, errno) = match error {
        ShimError::Io { what, source } => (format!("{what}: {source}"), source.raw_os_error().unwrap_or(0)),
        ShimError::Failed(failure) => return failure.clone(),
        other => (other.to_string(), 0),
    };
    Failure { message, errno, kind: FailureKind::Runtime }
}

/// Returns the exit code Docker gives a container that could not be started.
pub(super) fn exit_code(kind: FailureKind) -> i32 {
    match kind {
        FailureKind::NotFound => 127,
        FailureKind::NotExecutable => 126,
        FailureKind::Runtime => 128,
    }
}
