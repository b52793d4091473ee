//! Agents of build steps (`RUN --mount=type=ssh`): a socket of ours in the step whose connections are passed on to the agent of
//! whoever builds. The agent itself would refuse the step's ids, which are nobody on the host.

use super::EngineError;
use crate::step::Access;
use crate::store::StoreError;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Most connections of one step at a time; further ones wait.
const MAX_LINKS: usize = 32;
/// Bytes of a message part that are held for a slow reader.
const PIECE: usize = 16 << 10;

/// A socket in a step's directory and the agent behind it.
struct Door {
    listener: OwnedFd,
    agent: PathBuf,
}

/// A connection: two ends, and what waits to be written to each.
struct Link {
    ends: [OwnedFd; 2],
    waiting: [Vec<u8>; 2],
    /// The other end will say no more.
    last: [bool; 2],
}

/// The agents of one step.
#[derive(Default)]
pub(super) struct Agents {
    doors: Vec<Door>,
    links: Vec<Link>,
}

/// Which of the watched descriptors is which.
enum Who {
    Door(usize),
    Link(usize, usize),
}

fn address(path: &Path) -> Result<(OwnedFd, SocketAddrUnix), Errno> {
    // Over a descriptor, because an address holds 108 bytes only.
    let (parent, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    let directory = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((directory, SocketAddrUnix::new(&short)?))
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Connects to an agent.
fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = socket()?;
    let (_directory, address) = address(path)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

impl Agents {
    /// Makes a socket at `path`, whose owner on disk is that of `access` shifted by `base`, in front of an agent.
    pub(super) fn open(&mut self, path: &Path, agent: &Path, access: Access, base: u32) -> Result<(), EngineError> {
        let make = || {
            let listener = socket()?;
            let (_directory, address) = address(path)?;
            rustix::net::bind(&listener, &address)?;
            rustix::net::listen(&listener, 16)?;
            let (uid, gid) = (Uid::from_raw(base + access.uid), Gid::from_raw(base + access.gid));
            rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chmod(path, Mode::from_raw_mode(access.mode))?;
            Ok::<_, Errno>(listener)
        };
        let listener = make().map_err(|errno| StoreError::io("listen on", path)(errno.into()))?;
        self.doors.push(Door { listener, agent: agent.to_owned() });
        Ok(())
    }

    /// Adds what must be waited for.
    pub(super) fn watch<'a>(&'a self, waits: &mut Vec<PollFd<'a>>) {
        for (end, flags, _) in self.watched() {
            waits.push(PollFd::from_borrowed_fd(end, flags));
        }
    }

    fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags, Who)> {
        let open = self.links.len() < MAX_LINKS;
        let doors = self.doors.iter().enumerate().filter(move |_| open);
        let doors = doors.map(|(i, door)| (door.listener.as_fd(), PollFlags::IN, Who::Door(i)));
        let links = self.links.iter().enumerate().flat_map(|(i, link)| {
            (0..2).map(move |end| {
                let mut flags = PollFlags::empty();
                // An end is read from when what it said before has gone to the other.
                flags.set(PollFlags::IN, link.waiting[1 - end].is_empty() && !link.last[1 - end]);
                flags.set(PollFlags::OUT, !link.waiting[end].is_empty());
                (link.ends[end].as_fd(), flags, Who::Link(i, end))
            })
        });
        doors.chain(links)
    }

    /// Acts on what the wait said, in the order of [`Agents::watch`].
    pub(super) fn act(&mut self, heard: &[PollFlags]) {
        let woken: Vec<Who> =
            self.watched().zip(heard).filter(|(_, heard)| !heard.is_empty()).map(|((_, _, who), _)| who).collect();
        let mut dead = Vec::new();
        for who in woken {
            match who {
                Who::Door(index) => self.accept(index),
                Who::Link(index, end) => {
                    if self.links[index].turn(end).is_err() || self.links[index].is_over() {
                        dead.push(index);
                    }
                }
            }
        }
        dead.sort_unstable();
        dead.dedup();
        for index in dead.into_iter().rev() {
            self.links.swap_remove(index);
        }
    }

    /// Takes a connection; where the agent is gone it is closed, which the client reads as no agent.
    fn accept(&mut self, index: usize) {
        let door = &self.doors[index];
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(client) = rustix::net::accept_with(&door.listener, flags) else { return };
        if let Ok(agent) = connect(&door.agent) {
            self.links.push(Link { ends: [client, agent], waiting: Default::default(), last: [false; 2] });
        }
    }
}

impl Link {
    /// Writes what waits for an end, reads what it says.
    fn turn(&mut self, end: usize) -> Result<(), Errno> {
        if !self.waiting[end].is_empty() {
            match rustix::io::write(&self.ends[end], &self.waiting[end]) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                count => drop(self.waiting[end].drain(..count?)),
            }
        }
        let other = 1 - end;
        if self.waiting[other].is_empty() && !self.last[other] {
            let mut piece = vec![0; PIECE];
            match rustix::io::read(&self.ends[end], &mut piece) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(0) => self.last[other] = true,
                count => self.waiting[other] = piece[..count?].to_vec(),
            }
        }
        for end in 0..2 {
            if self.last[end] && self.waiting[end].is_empty() {
                let _ = rustix::net::shutdown(&self.ends[end], rustix::net::Shutdown::Write);
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        (0..2).all(|end| self.last[end] && self.waiting[end].is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{Timespec, poll};
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn turn(agents: &mut Agents) {
        let mut waits = Vec::new();
        agents.watch(&mut waits);
        poll(&mut waits, Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 })).unwrap();
        let heard: Vec<_> = waits.iter().map(PollFd::revents).collect();
        agents.act(&heard);
    }

    #[test]
    fn what_is_said_at_either_end_is_heard_at_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let (behind, front) = (dir.path().join("agent"), dir.path().join("x".repeat(120)).join("door"));
        std::fs::create_dir(front.parent().unwrap()).unwrap();
        let agent = UnixListener::bind(&behind).unwrap();
        let me = rustix::process::getuid().as_raw();
        let access = Access { uid: 0, gid: 0, mode: 0o600 };
        let mut agents = Agents::default();
        agents.open(&front, &behind, access, me).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&front, &link).unwrap();
        let mut client = UnixStream::connect(&link).unwrap();
        turn(&mut agents);
        let (mut served, _) = agent.accept().unwrap();
        let question = vec![7; 100_000];
        client.set_nonblocking(true).unwrap();
        served.set_nonblocking(true).unwrap();
        let (mut sent, mut got) = (0, Vec::new());
        while got.len() < question.len() {
            sent += client.write(&question[sent..]).unwrap_or(0);
            turn(&mut agents);
            let mut piece = [0; 65536];
            let count = served.read(&mut piece).unwrap_or(0);
            got.extend_from_slice(&piece[..count]);
        }
        assert!(got == question);
        served.write_all(b"answer").unwrap();
        turn(&mut agents);
        turn(&mut agents);
        let mut heard = [0; 16];
        assert_eq!(client.read(&mut heard).unwrap(), 6);
        drop((client, served));
        (0..4).for_each(|_| turn(&mut agents));
        assert!(agents.links.is_empty(), "ended connections are let go");
    }
}
