//! The running shim: one loop over everything that can happen to a container.
//!
//! Here are the loop, its timers, and the start of a run; who is connected is in `callers`, what follows when a process
//! ends in `end`. What callers ask for is carried out by `shim/requests.rs` and `shim/stop.rs`.

mod callers;
mod end;

use super::client;
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
use super::protocol::{Failure, FailureKind};
use super::stop::Stop;
use super::streams::Streams;
use crate::base::{Timestamp, with_causes};
use crate::store::StoreError;
use crate::sys::fault::{self, Point};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::time::Instant;

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
    /// What an ended run has left besides what a restart uses.
    remains: Option<J::Remains>,
    /// The files of one that is being removed, which go when that is done.
    files: Option<J::Files>,
    /// Whether the final state is written and only slow readers remain.
    over: bool,
    /// The caller that takes down what the container held, as long as it is there.
    pub(super) finisher: Option<u32>,
    /// Whether that caller removes the container.
    pub(super) removed: bool,
    /// What is closed at the very end.
    pub(super) held: Vec<OwnedFd>,
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
        let state = State { shim_pid: std::process::id() as i32, ..State::created() };
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
            remains: None,
            files: None,
            over: false,
            finisher: None,
            removed: false,
            held: Vec::new(),
            finish_by: None,
        })
    }

    /// Makes the namespaces of the next run, or takes those made beforehand.
    pub(super) fn begin(&mut self, nest: Option<J::Nest>) -> Result<J::Pending, Failure> {
        let process = &self.plan.bundle.process;
        let stdio =
            self.streams.open(&self.poller, process.tty, self.plan.stdin_open).map_err(|error| failure(&error))?;
        let stdio = stdio.as_ref().map(|three| three.each_ref().map(AsFd::as_fd));
        let failed = |source| failure(&ShimError::Io { what: "open the streams".to_owned(), source });
        fault::fail(Point::ShimStreams).map_err(failed)?;
        J::begin(&self.plan.bundle, &self.plan.host, stdio, self.kept.as_ref(), nest)
    }

    /// Whether the engine lays links into the network namespace before the first process runs.
    pub(super) fn links_follow(&self) -> bool {
        self.plan.bundle.links_follow
    }

    /// Starts the first process.
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

    /// Writes the state of a container that was started: whoever looks takes one without for one that is being started.
    ///
    /// # Errors
    /// When it cannot be written, or the one that the run before has left cannot be removed.
    pub(in crate::shim) fn write_start(&self) -> Result<(), StoreError> {
        self.plan.state.write(&self.state)?;
        fault::cut(Point::ShimStarted);
        self.plan.state.begun()
    }

    /// Writes the state. A failure leaves the old one; callers of the socket see the truth all the same.
    pub(super) fn write_state(&mut self) {
        if let Err(error) = self.plan.state.write(&self.state) {
            self.state.error = with_causes(&error);
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
        ShimError::State(StoreError::Io { source, .. }) => (with_causes(error), source.raw_os_error().unwrap_or(0)),
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
