//! From a forked process of ours to the container's program: the last steps before execve, the same for the first
//! process and for added ones.

use super::bundle::Process;
use super::error::{Context, LaunchError, LaunchErrorKind, reason};
use super::tree::open_terminal;
use super::user::{Account, resolve};
use crate::security::Hardening;
use crate::sys::credentials::*;
use crate::sys::fault::{self, Point};
use crate::sys::open::open_in_root;
use crate::sys::process::*;
use crate::sys::socket::send_frame;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Number the report socket has during the last steps; everything above is closed.
const REPORT: i32 = 3;

/// What a process of the container is started with.
pub(super) struct Start<'a> {
    pub(super) process: &'a Process,
    pub(super) hardening: &'a Hardening,
    /// All capabilities, no filter, gains by set-uid.
    pub(super) privileged: bool,
    /// A small PID 1 of ours stays before the program.
    pub(super) reaper: bool,
    /// Where its standard streams come from.
    pub(super) stdio: Stdio<'a>,
}

/// Standard streams of a process.
pub(super) enum Stdio<'a> {
    /// These three.
    Streams([BorrowedFd<'a>; 3]),
    /// The slave of a terminal that exists.
    Terminal(BorrowedFd<'a>),
    /// A new terminal of this devpts; its master goes to the report socket.
    NewTerminal(BorrowedFd<'a>),
}

/// Becomes the program; returns only what went wrong. The report socket closes by the execve. What needs nothing of the
/// tree is done before `ready` is asked, after which the tree is whole and ours.
pub(super) fn start(
    start: &Start<'_>,
    report: OwnedFd,
    ready: impl FnOnce() -> Result<(), LaunchError>,
) -> (OwnedFd, LaunchError) {
    let mut report = Some(report);
    let error = match become_program(start, &mut report, ready) {
        Err(error) => error,
        Ok(never) => match never {},
    };
    // Only moved, never dropped, on the way.
    match report {
        Some(report) => (report, error),
        None => exit(125),
    }
}

fn become_program(
    start: &Start<'_>,
    report: &mut Option<OwnedFd>,
    ready: impl FnOnce() -> Result<(), LaunchError>,
) -> Result<std::convert::Infallible, LaunchError> {
    let process = start.process;
    let lost = || LaunchError::refused("the report socket is gone");
    rustix::process::setsid().at(|| "start a session")?;
    let terminal = streams(start, report.as_ref().ok_or_else(lost)?.as_fd())?;
    let arguments = Strings::new(&process.args).at(|| "prepare the arguments")?;
    // The filter may forbid what this proof takes.
    let alone = Alone::prove().at(|| "start the program (the process has threads)")?;
    reset_signals();
    limit_bounding_set(kept_capabilities(start)).at(|| "limit the capabilities")?;
    ready()?;
    *report = Some(move_onto(report.take().ok_or_else(lost)?, REPORT).at(|| "move the report socket")?);
    // Nothing of ours but the report may be open when the working directory is entered: a path such as
    // /proc/self/fd/7 must find nothing (CVE-2024-21626).
    close_all_from(REPORT as u32 + 1, &[]).at(|| "close our descriptors")?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .at(|| "open the root")?;
    let account = resolve(root.as_fd(), &process.user, &process.groups)?;
    let environment = environment(process, &account);
    enter_working_dir(root.as_fd(), &process.cwd)?;
    drop(root);
    require_inside()?;
    limits(&process.rlimits)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if terminal || account.uid != 0 {
        own_streams(account.uid, terminal);
    }
    let environment_block = Strings::new(&environment).at(|| "prepare the environment")?;
    let candidates = candidates(process, &environment)?;
    fault::fail(Point::InitRights).at(|| "give up rights")?;
    drop_rights(start, &account)?;
    if start.reaper {
        super::reaper::stay_as_parent(&alone, report, terminal)?;
    }
    Err(execute(process, &candidates, &arguments, &environment_block))
}

/// Puts the standard streams in place; returns whether they are a terminal.
fn streams(start: &Start<'_>, report: BorrowedFd<'_>) -> Result<bool, LaunchError> {
    let fail = || "set up the standard streams";
    match &start.stdio {
        Stdio::Streams(streams) => {
            // First out of the way: one of them may be numbered as another's place.
            let copies = streams.map(|stream| rustix::io::fcntl_dupfd_cloexec(stream, 10));
            for (copy, target) in copies.into_iter().zip(0..) {
                dup_onto(copy.at(fail)?.as_fd(), target).at(fail)?;
            }
            Ok(false)
        }
        Stdio::Terminal(slave) => controlling(*slave).map(|()| true),
        Stdio::NewTerminal(pts) => {
            let (master, slave) = open_terminal(*pts, start.process.tty_size).at(|| "open a terminal")?;
            send_frame(report, b"T", &[master.as_fd()]).at(|| "hand the terminal over")?;
            controlling(slave.as_fd()).map(|()| true)
        }
    }
}

fn controlling(slave: BorrowedFd<'_>) -> Result<(), LaunchError> {
    set_controlling_terminal(slave).at(|| "take the terminal")?;
    let slave = rustix::io::fcntl_dupfd_cloexec(slave, 10).at(|| "set up the standard streams")?;
    (0..3).try_for_each(|target| dup_onto(slave.as_fd(), target)).at(|| "set up the standard streams")
}

/// Gives a terminal, or pipes of ours, to the user the program runs as, so that it can reopen `/dev/stdout`; files of
/// others and null devices refuse, which is right.
fn own_streams(uid: u32, terminal: bool) {
    let owner = rustix::fs::Uid::from_raw(uid);
    for stream in standard_streams() {
        let _ = rustix::fs::fchown(stream, Some(owner), None);
        if terminal {
            break;
        }
    }
}

/// Enters the working directory inside the root.
fn enter_working_dir(root: BorrowedFd<'_>, cwd: &str) -> Result<(), LaunchError> {
    let path = if cwd.is_empty() { "/" } else { cwd };
    let what = || format!("chdir to cwd ({path:?})");
    let dir = open_in_root(root, path, OFlags::PATH | OFlags::DIRECTORY).at(what)?;
    rustix::process::fchdir(dir).at(what)
}

/// Makes sure that the working directory lies in the container's tree.
fn require_inside() -> Result<(), LaunchError> {
    let place = rustix::process::getcwd(Vec::new()).at(|| "find the working directory")?;
    if place.to_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(LaunchError::refused("the working directory lies outside the container's root"))
    }
}

fn environment(process: &Process, account: &Account) -> Vec<String> {
    let mut environment = process.env.clone();
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        environment.push(format!("HOME={}", account.home));
    }
    environment
}

/// Resource limits by Docker's names.
const LIMITS: [(&str, u32); 16] = [
    ("cpu", libc::RLIMIT_CPU as u32),
    ("fsize", libc::RLIMIT_FSIZE as u32),
    ("data", libc::RLIMIT_DATA as u32),
    ("stack", libc::RLIMIT_STACK as u32),
    ("core", libc::RLIMIT_CORE as u32),
    ("rss", libc::RLIMIT_RSS as u32),
    ("nproc", libc::RLIMIT_NPROC as u32),
    ("nofile", libc::RLIMIT_NOFILE as u32),
    ("memlock", libc::RLIMIT_MEMLOCK as u32),
    ("as", libc::RLIMIT_AS as u32),
    ("locks", libc::RLIMIT_LOCKS as u32),
    ("sigpending", libc::RLIMIT_SIGPENDING as u32),
    ("msgqueue", libc::RLIMIT_MSGQUEUE as u32),
    ("nice", libc::RLIMIT_NICE as u32),
    ("rtprio", libc::RLIMIT_RTPRIO as u32),
    ("rttime", libc::RLIMIT_RTTIME as u32),
];

/// Returns the number of a limit's name.
pub(super) fn limit_number(name: &str) -> Result<u32, LaunchError> {
    let found = LIMITS.iter().find(|(known, _)| *known == name);
    found.map(|(_, number)| *number).ok_or_else(|| LaunchError::refused(format!("ulimit {name}: no such limit")))
}

fn limits(wanted: &[(String, u64, u64)]) -> Result<(), LaunchError> {
    for (name, soft, hard) in wanted {
        let limit = Limit { soft: *soft, hard: *hard };
        set_limit(0, limit_number(name)?, Some(limit)).at(|| format!("set ulimit {name}={soft}:{hard}"))?;
    }
    Ok(())
}

/// The capabilities its program may ever have.
fn kept_capabilities(start: &Start<'_>) -> u64 {
    if start.privileged { u64::MAX } else { start.hardening.capabilities.0 }
}

/// Ids, groups, capabilities, no_new_privs and the filter; the bounding set is limited already.
fn drop_rights(start: &Start<'_>, account: &Account) -> Result<(), LaunchError> {
    let kept = kept_capabilities(start);
    let locked = start.hardening.no_new_privileges && !start.privileged;
    let filter = || match &start.hardening.seccomp {
        Some(filter) if !start.privileged => {
            crate::sys::seccomp::load(&filter.instructions).at(|| "load the seccomp filter")
        }
        _ => Ok(()),
    };
    if !locked {
        // Without no_new_privs the kernel asks for a capability that the steps below give up.
        filter()?;
    }
    set_groups(&account.groups).at(|| "set the supplementary groups")?;
    // A user other than root loses its effective and permitted sets here.
    set_ids(account.uid, account.gid).at(|| format!("become user {}:{}", account.uid, account.gid))?;
    if account.uid == 0 {
        let held = capabilities().at(|| "read the capabilities")?.permitted & kept;
        // Nothing is inheritable (CVE-2022-24769).
        let sets = Capabilities { effective: held, permitted: held, inheritable: 0 };
        set_capabilities(sets).at(|| "give up capabilities")?;
    } else {
        set_capabilities(Capabilities::default()).at(|| "give up capabilities")?;
    }
    if locked {
        set_no_new_privileges().at(|| "set no_new_privs")?;
        filter()?;
    }
    Ok(())
}

/// Paths the program may be, in the order they are tried.
fn candidates(process: &Process, environment: &[String]) -> Result<Vec<CString>, LaunchError> {
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err(LaunchError { kind: LaunchErrorKind::NotFound, ..LaunchError::refused("no command specified") });
    }
    let text =
        |path: String| CString::new(path).map_err(|_| LaunchError::refused(format!("exec: {name:?}: NUL in the name")));
    if name.contains('/') {
        return Ok(vec![text(name.to_owned())?]);
    }
    let search = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    // Relative entries would look into the working directory, which the image does not choose.
    search.split(':').filter(|dir| dir.starts_with('/')).map(|dir| text(format!("{dir}/{name}"))).collect()
}

/// Tries the candidates; returns why none became the program, in Docker's words.
fn execute(process: &Process, candidates: &[CString], arguments: &Strings, environment: &Strings) -> LaunchError {
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let plain = name.contains('/');
    let mut refused = None;
    for path in candidates {
        match reachable(path) {
            Err(Errno::NOENT | Errno::NOTDIR) if !plain => continue,
            Err(Errno::ACCESS) if !plain => {
                refused = Some("permission denied".to_owned());
                continue;
            }
            Err(errno) => return not_started(name, errno, reason(errno)),
            Ok(true) if plain => return not_started(name, Errno::ISDIR, "is a directory".to_owned()),
            Ok(true) => {
                refused = Some("permission denied".to_owned());
                continue;
            }
            Ok(false) => {}
        }
        match execve(path, arguments, environment) {
            Errno::ACCESS if !plain => refused = Some("permission denied".to_owned()),
            errno => return not_started(name, errno, reason(errno)),
        }
    }
    match refused {
        Some(why) => not_started(name, Errno::ACCESS, why),
        None => LaunchError {
            message: format!("exec: {name:?}: executable file not found in $PATH"),
            errno: Errno::NOENT.raw_os_error(),
            kind: LaunchErrorKind::NotFound,
        },
    }
}

/// Looks at a program without opening it: whether it is a directory. A magic link (`/proc/self/exe`, which is still our
/// own program) is refused (CVE-2019-5736).
fn reachable(path: &CString) -> Result<bool, Errno> {
    let path = std::path::Path::new(std::ffi::OsStr::new(path.to_str().map_err(|_| Errno::INVAL)?));
    let flags = rustix::fs::ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags)
        .map_err(|errno| if errno == Errno::LOOP { Errno::ACCESS } else { errno })?;
    let mode = rustix::fs::fstat(&found)?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(mode).is_dir())
}

fn not_started(name: &str, errno: Errno, why: String) -> LaunchError {
    let kind = match errno {
        Errno::NOENT | Errno::NOTDIR => LaunchErrorKind::NotFound,
        _ => LaunchErrorKind::NotExecutable,
    };
    LaunchError { message: format!("exec: {name:?}: {why}"), errno: errno.raw_os_error(), kind }
}
