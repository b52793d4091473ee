//! The shim's one `epoll` set, with typed names for what is watched.

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// What an event is about. Numbers are never used twice, so an event that comes late finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A signal to the shim, above all SIGCHLD.
    Signals,
    /// The control socket has a caller.
    Listener,
    /// The container's stdout or terminal.
    Stdout,
    /// The container's stderr.
    Stderr,
    /// The container's stdin.
    Stdin,
    /// The output of a health check.
    Probe,
    /// A control connection.
    Control(u32),
    /// An attached client.
    Client(u32),
    /// A socket of the name relay.
    Dns(u32),
    /// A socket of a published loopback port.
    Forward(u32),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::Listener => (1, 0),
            Self::Stdout => (2, 0),
            Self::Stderr => (3, 0),
            Self::Stdin => (4, 0),
            Self::Probe => (5, 0),
            Self::Control(number) => (6, number),
            Self::Client(number) => (7, number),
            Self::Dns(number) => (8, number),
            Self::Forward(number) => (9, number),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(data: u64) -> Option<Self> {
        let number = data as u32;
        Some(match data >> 32 {
            0 => Self::Signals,
            1 => Self::Listener,
            2 => Self::Stdout,
            3 => Self::Stderr,
            4 => Self::Stdin,
            5 => Self::Probe,
            6 => Self::Control(number),
            7 => Self::Client(number),
            8 => Self::Dns(number),
            9 => Self::Forward(number),
            _ => return None,
        })
    }
}

/// The set of what is watched.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Watches a descriptor; it leaves the set when its last duplicate is closed.
    pub(super) fn watch(&self, descriptor: impl AsFd, token: Token, flags: EventFlags) -> Result<(), Errno> {
        epoll::add(&self.epoll, descriptor, EventData::new_u64(token.encode()), flags)
    }

    /// Changes what of a watched descriptor is of interest.
    pub(super) fn change(&self, descriptor: impl AsFd, token: Token, flags: EventFlags) -> Result<(), Errno> {
        epoll::modify(&self.epoll, descriptor, EventData::new_u64(token.encode()), flags)
    }

    /// Waits for events until the deadline, in the order in which they came.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<Vec<(Token, EventFlags)>, Errno> {
        let mut space = [MaybeUninit::<Event>::uninit(); 32];
        let timeout = deadline.map(|at| {
            super::codec::timespec(at.saturating_duration_since(Instant::now()).min(Duration::from_secs(3600)))
        });
        match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
            Ok((events, _)) => {
                Ok(events.iter().filter_map(|event| Some((Token::decode(event.data.u64())?, event.flags))).collect())
            }
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(errno),
        }
    }
}

/// Reads without waiting; `None` when there is nothing now.
pub(super) fn read_some(descriptor: impl AsFd, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    loop {
        match rustix::io::read(&descriptor, &mut *buffer) {
            Ok(n) => return Ok(Some(n)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Makes reads and writes of a descriptor return at once.
pub(super) fn set_nonblocking(descriptor: impl AsFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(&descriptor)?;
    rustix::fs::fcntl_setfl(descriptor, flags | rustix::fs::OFlags::NONBLOCK)
}
