//! Runs the program `git`: without settings of the machine, the user or the repository, and without rights but where it needs the
//! caller's keys.
//!
//! What a server sends is read by git, so it runs as a user that owns nothing but the directory it fetches into: no capabilities,
//! no way to gain rights, and Landlock leaves it the programs and libraries of the machine to read and that directory to write.

use super::EngineError;
use super::build_git::{Fetching, GitAccess};
use crate::base::with_causes;
use crate::image::Extracted;
use crate::security::landlock::{self, FsRights, LandlockError, Outcome, Rule, RuleSet};
use crate::sys::process::{self, CloneFlags, Parent, Strings};
use crate::sys::worker::Worker;
use crate::sys::{credentials, landlock_abi, mount};
use ::landlock::{AccessFs, BitFlags, Scope, make_bitflags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::process::{PidfdFlags, Resource, Rlimit, getpid, pidfd_open, setrlimit};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// User and group that git is without rights: in the slot of the unpacking processes, which no container is given, and none of
/// theirs.
pub(super) const NOBODY: u32 = 0x6fff_fffe;
/// Where it finds the directory it fetches into: every machine has one.
const PLACE: &str = "/tmp";
/// Most bytes that are read of what git says.
const MAX_SAID: usize = 16 << 20;
/// Exit code of a process that could not become git.
const NOT_STARTED: i32 = 124;

const READ: FsRights = make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir});
const CHANGE: FsRights = make_bitflags!(AccessFs::{
    WriteFile | Truncate | MakeReg | MakeDir | MakeSym | RemoveFile | RemoveDir | Refer
});
const NODES: FsRights = make_bitflags!(AccessFs::{MakeChar | MakeBlock | MakeSock | MakeFifo | IoctlDev});

/// Variables that git without rights has from us: where programs and servers are.
const HANDED_ON: [&str; 8] =
    ["PATH", "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];
/// Variables that name a file of certificates; it is given what is in there.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "GIT_SSL_CAINFO"];
/// Variables that name a directory of certificates; it has them too, and may read what everybody may read there.
const DIRECTORIES: [&str; 2] = ["SSL_CERT_DIR", "GIT_SSL_CAPATH"];
/// Most bytes of a file of certificates.
const MAX_CERTIFICATES: u64 = 16 << 20;

impl Fetching<'_> {
    /// Tells whether git runs without rights. It cannot where it needs what only the caller has: keys and agents over ssh, and
    /// over http what gives passwords to a context's server.
    pub(super) fn is_confined(&self) -> bool {
        let netrc = || std::env::var_os("HOME").is_some_and(|home| Path::new(&home).join(".netrc").exists());
        let asks = || ["GIT_ASKPASS", "SSH_ASKPASS"].iter().any(|name| std::env::var_os(name).is_some());
        match (self.repository.protocol, &self.access) {
            ("ssh", _) => false,
            ("http" | "https", GitAccess::Own) => !netrc() && !asks(),
            _ => true,
        }
    }

    /// Runs git in a directory and returns what it prints.
    pub(super) fn git(&self, place: &Extracted, arguments: &[&str]) -> Result<String, EngineError> {
        let io = |what: &str| {
            let (url, what) = (self.repository.shown(), what.to_owned());
            move |source| EngineError::Git { url, what, source }
        };
        let confined = self.is_confined();
        let home = if confined { Path::new(PLACE) } else { place.path() };
        let mut environment = environment(&self.access, self.repository.protocol, confined, home, std::env::vars_os());
        let certificates =
            if confined { hand_over(&mut environment).map_err(io("hand over the certificates"))? } else { Vec::new() };
        let program = program(std::env::var_os("PATH").as_deref()).map_err(io("run the program 'git'"))?;
        let words = words(arguments);
        let order = Order::new(&program, &words, &environment, certificates).map_err(io("run the program 'git'"))?;
        let (said, complaint, code) = self.hear(&order, place.root(), confined).map_err(io("run the program 'git'"))?;
        let Some(code) = code else { return Err(EngineError::Interrupted) };
        if code == 0 {
            return Ok(said);
        }
        let last = complaint.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("git says nothing");
        let what = last.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(400).collect();
        Err(EngineError::Repository { url: self.repository.shown(), what })
    }

    /// Runs git and reads what it says on both streams; no exit code when it was to end.
    fn hear(
        &self,
        order: &Order,
        directory: BorrowedFd<'_>,
        confined: bool,
    ) -> io::Result<(String, String, Option<i32>)> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let ((out, out_writer), (err, err_writer)) = (pipe()?, pipe()?);
        let null = File::open("/dev/null")?;
        // A mount can be copied only from within its namespace, and it is to be another one there.
        let walls = mount::NOSUID | mount::NODEV | mount::NOEXEC;
        let tree = confined.then(|| mount::clone_mapped(directory, c"", false, walls, None)).transpose()?;
        let directory = tree.as_ref().map_or(directory, |tree| tree.as_fd());
        let mut keep = vec![null.as_fd(), out_writer.as_fd(), err_writer.as_fd(), directory];
        keep.extend(order.certificates.iter().map(AsFd::as_fd));
        let streams = [null.as_fd(), out_writer.as_fd(), err_writer.as_fd()];
        let builder = getpid();
        let worker = Worker::fork(&keep, || {
            let begin = |parent: Parent<'_>| {
                let error = begin(order, streams, directory, parent, confined);
                let _ = rustix::io::write(streams[2], format!("git could not be started: {error}\n").as_bytes());
                NOT_STARTED
            };
            if confined { alone(begin) } else { begin(Parent::Here(builder)) }
        })?;
        drop((out_writer, err_writer));
        let mut streams = [Stream::new(out), Stream::new(err)];
        while streams.iter().any(|stream| stream.is_open()) {
            let open: Vec<&Stream> = streams.iter().filter(|stream| stream.is_open()).collect();
            let watched = self.ends.iter().copied().chain(open.iter().map(|stream| stream.file.as_fd()));
            let mut fds: Vec<PollFd<'_>> = watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => drop(other?),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            let (ends, ready) = ready.split_at(self.ends.len());
            if ends.contains(&true) {
                // It may be waiting for a server that does not answer; dropping the worker kills it.
                return Ok((String::new(), String::new(), None));
            }
            let open = streams.iter_mut().filter(|stream| stream.is_open());
            for (stream, _) in open.zip(ready).filter(|(_, ready)| **ready) {
                stream.read()?;
            }
        }
        let code = worker.wait()?;
        let [said, complaint] = streams.map(|stream| String::from_utf8_lossy(&stream.said).into_owned());
        Ok((said, complaint, Some(code)))
    }
}

/// One of git's streams, and what came of it.
struct Stream {
    file: File,
    said: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn new(end: OwnedFd) -> Self {
        Self { file: end.into(), said: Vec::new(), ended: false }
    }

    fn is_open(&self) -> bool {
        !self.ended
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let count = self.file.read(&mut buffer)?;
        self.said.extend_from_slice(&buffer[..count]);
        self.ended = count == 0;
        if self.said.len() > MAX_SAID { Err(io::Error::other("it says more than 16 MiB")) } else { Ok(()) }
    }
}

/// The words of a command line of git.
fn words<'w>(arguments: &[&'w str]) -> Vec<&'w str> {
    let settings = [
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "core.autocrlf=false",
        "submodule.recurse=false",
        "transfer.fsckObjects=true",
        "core.logAllRefUpdates=false",
        "gc.auto=0",
        "maintenance.auto=false",
    ];
    let settings = settings.into_iter().flat_map(|setting| ["-c", setting]);
    std::iter::once("git").chain(settings).chain(arguments.iter().copied()).collect()
}

/// The environment of git: ours without what would change what it does, or only what it needs where it has no rights.
fn environment(
    access: &GitAccess,
    protocol: &str,
    confined: bool,
    home: &Path,
    ours: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let own = *access == GitAccess::Own && !confined;
    let kept = |name: &OsStr| {
        let name = name.to_string_lossy();
        let dropped: &[&str] =
            &["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"];
        let keys: &[&str] = &["HOME", "XDG_CONFIG_HOME", "GIT_ASKPASS", "SSH_ASKPASS", "SSH_AUTH_SOCK"];
        match confined {
            true => HANDED_ON.iter().chain(&CERTIFICATES).chain(&DIRECTORIES).any(|known| *known == name),
            // A Dockerfile names the server: it gets no name, password or key that it was not given.
            false => !dropped.contains(&&*name) && (own || !keys.contains(&&*name)),
        }
    };
    let mut all: Vec<(OsString, OsString)> = ours.filter(|(name, _)| kept(name)).collect();
    let mut set = |name: &str, value: &OsStr| {
        all.retain(|(other, _)| other != name);
        all.push((name.into(), value.to_owned()));
    };
    for (name, value) in [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ALLOW_PROTOCOL", protocol),
        ("GIT_LFS_SKIP_SMUDGE", "1"),
    ] {
        set(name, value.as_ref());
    }
    if !own {
        set("HOME", home.as_os_str());
        let ssh = "ssh -F /dev/null -o IdentityFile=none -o IdentitiesOnly=no -o ForwardAgent=no -o BatchMode=yes";
        set("GIT_SSH_COMMAND", ssh.as_ref());
    }
    if let GitAccess::Agent(socket) = access {
        set("SSH_AUTH_SOCK", socket.as_os_str());
    }
    all
}

/// Finds git in the directories of `PATH`.
fn program(path: Option<&OsStr>) -> io::Result<PathBuf> {
    let places = path.map(std::env::split_paths).into_iter().flatten();
    let found = places.filter(|place| place.is_absolute()).map(|place| place.join("git")).find(|path| path.is_file());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is in no directory of PATH"))
}

/// What a new process needs to become git.
struct Order {
    program: CString,
    arguments: Strings,
    environment: Strings,
    /// What git without rights may read beside the machine's programs and libraries.
    readable: Vec<PathBuf>,
    /// Files that it has by their descriptors.
    certificates: Vec<OwnedFd>,
}

impl Order {
    fn new(
        program: &Path,
        words: &[&str],
        environment: &[(OsString, OsString)],
        certificates: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        let line = |(name, value): &(OsString, OsString)| {
            let mut line = name.clone().into_vec();
            line.push(b'=');
            line.extend_from_slice(value.as_bytes());
            line
        };
        let directories = environment.iter().filter(|(name, _)| DIRECTORIES.iter().any(|known| name == known));
        let own = program.canonicalize()?;
        let readable = own.parent().map(Path::to_owned).into_iter().chain(directories.map(|(_, path)| path.into()));
        Ok(Self {
            program: CString::new(program.as_os_str().as_bytes())?,
            arguments: Strings::new(words)?,
            environment: Strings::new(&environment.iter().map(line).collect::<Vec<_>>())?,
            readable: readable.collect(),
            certificates,
        })
    }
}

/// Replaces the files of certificates by descriptors: without rights it may not see them, nor the directories they lie in.
fn hand_over(environment: &mut [(OsString, OsString)]) -> io::Result<Vec<OwnedFd>> {
    let mut files = Vec::new();
    for (name, value) in environment.iter_mut().filter(|(name, _)| CERTIFICATES.iter().any(|known| name == known)) {
        let path = Path::new(&*value);
        let failed = |error: io::Error| {
            io::Error::new(error.kind(), format!("{} names {}: {error}", name.display(), path.display()))
        };
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(MAX_CERTIFICATES + 1).read_to_end(&mut bytes)).map_err(failed)?;
        if bytes.len() as u64 > MAX_CERTIFICATES {
            return Err(failed(io::Error::other(format!("longer than {} MiB", MAX_CERTIFICATES >> 20))));
        }
        let file = memfd_create("certificates", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut writer = File::from(file);
        writer.write_all(&bytes)?;
        let file = OwnedFd::from(writer);
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        *value = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        files.push(file);
    }
    Ok(files)
}

/// Runs a process and whatever it starts in namespaces of their own, and ends when all of them have; returns its exit code.
fn alone(begin: impl FnOnce(Parent<'_>) -> i32) -> i32 {
    let run = || -> rustix::io::Result<i32> {
        let this = pidfd_open(getpid(), PidfdFlags::empty())?;
        let flags = CloneFlags::NEWPID.with(CloneFlags::NEWNS).with(CloneFlags::NEWIPC);
        process::wait_exit(process::clone_process(flags, None, || begin(Parent::Outside(this.as_fd())))?.pid)
    };
    run().unwrap_or(NOT_STARTED)
}

/// Becomes git, in a new process; returns only why not.
fn begin(
    order: &Order,
    streams: [BorrowedFd<'_>; 3],
    directory: BorrowedFd<'_>,
    parent: Parent<'_>,
    confined: bool,
) -> io::Error {
    let become_git = || -> io::Result<()> {
        process::reset_signals();
        if confined {
            confine(order, directory)?
        } else {
            rustix::process::fchdir(directory)?
        }
        process::end_with(parent)?;
        for (number, stream) in streams.into_iter().enumerate() {
            process::dup_onto(stream, number as i32)?;
        }
        for file in &order.certificates {
            fcntl_setfd(file, FdFlags::empty())?;
        }
        Err(process::execve(&order.program, &order.arguments, &order.environment).into())
    };
    become_git().err().unwrap_or_else(|| io::ErrorKind::Other.into())
}

/// Gives up every right but to read the machine's programs and to write to the directory, a detached mount.
fn confine(order: &Order, tree: BorrowedFd<'_>) -> io::Result<()> {
    mount::make_private(open("/")?.as_fd())?;
    move_mount(tree, c"", CWD, PLACE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::chdir(PLACE)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    credentials::set_groups(&[])?;
    credentials::limit_bounding_set(0)?;
    credentials::set_ids(NOBODY, NOBODY)?;
    credentials::set_no_new_privileges()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let rules = rules(landlock_abi(), &order.readable);
    let refused = |error: LandlockError| io::Error::other(with_causes(&error));
    match landlock::prepare(&rules, open).map_err(refused)? {
        Some(prepared) => prepared.enter().map_err(refused),
        None => Ok(()),
    }
}

fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// What git may do with files, on a kernel whose Landlock has a version.
fn rules(abi: u32, readable: &[PathBuf]) -> RuleSet {
    let mut handled = READ | CHANGE | NODES;
    match abi {
        // Before version 2 no file could be renamed into another directory.
        0 | 1 => handled = FsRights::EMPTY,
        2 => handled.remove(AccessFs::Truncate | AccessFs::IoctlDev),
        3 | 4 => handled.remove(AccessFs::IoctlDev),
        _ => {}
    }
    let scopes = if abi >= 6 { Scope::AbstractUnixSocket | Scope::Signal } else { BitFlags::EMPTY };
    let rule = |path: &str, rights: FsRights| Rule { path: path.to_owned(), rights: rights & handled };
    let programs = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/proc/sys", "/dev"];
    let mut rules: Vec<Rule> = programs.into_iter().map(|path| rule(path, READ)).collect();
    rules.extend(readable.iter().filter_map(|path| path.to_str()).map(|path| rule(path, READ)));
    rules.push(rule("/dev/null", READ | AccessFs::WriteFile | AccessFs::Truncate));
    rules.push(rule(PLACE, (READ | CHANGE) & !BitFlags::from(AccessFs::Execute)));
    RuleSet { handled, rules, scopes, outcome: Outcome::Full { abi } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[(OsString, OsString)]) -> Vec<&str> {
        all.iter().filter_map(|(name, _)| name.to_str()).collect()
    }

    #[test]
    fn git_without_rights_has_no_variable_that_it_does_not_need() {
        let ours = || {
            ["PATH", "HOME", "AWS_SECRET", "GIT_DIR", "SSH_AUTH_SOCK", "https_proxy"]
                .map(|name| (name.into(), "x".into()))
        };
        let all =
            |access: &GitAccess, confined| environment(access, "https", confined, Path::new("/h"), ours().into_iter());
        let confined = all(&GitAccess::Own, true);
        let kept: Vec<&str> = names(&confined).into_iter().filter(|name| !name.starts_with("GIT_")).collect();
        assert_eq!(kept, ["PATH", "https_proxy", "HOME"]);
        assert!(confined.contains(&("HOME".into(), "/h".into())) && !names(&confined).contains(&"GIT_DIR"));
        let own = all(&GitAccess::Own, false);
        assert!(names(&own).contains(&"SSH_AUTH_SOCK") && own.contains(&("HOME".into(), "x".into())));
        assert!(!names(&own).contains(&"GIT_DIR"));
        let agent = all(&GitAccess::Agent("/a".into()), false);
        assert!(
            agent.contains(&("SSH_AUTH_SOCK".into(), "/a".into())) && agent.contains(&("HOME".into(), "/h".into()))
        );
        assert!(!names(&all(&GitAccess::Nobody, false)).contains(&"SSH_AUTH_SOCK"));
    }

    #[test]
    fn rules_are_what_the_kernel_knows() {
        for abi in 0..8 {
            let set = rules(abi, &["/opt/git".into()]);
            assert_eq!(set.handled.is_empty(), abi < 2);
            assert!(set.rules.iter().all(|rule| set.handled.contains(rule.rights)));
            let writable = |rule: &&Rule| rule.rights.contains(AccessFs::WriteFile);
            let places: Vec<&str> = set.rules.iter().filter(writable).map(|rule| rule.path.as_str()).collect();
            assert_eq!(places, if abi < 2 { vec![] } else { vec!["/dev/null", PLACE] });
        }
    }
}
