//! Processes: clone3, namespaces, execve, wait, limits; their descriptors and signals in files of their own.
#![allow(unsafe_code)]

mod descriptors;
mod scheduling;
mod signals;

pub use self::descriptors::*;
pub use self::scheduling::*;
pub use self::signals::*;
use super::{Result, check};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Flags of [`clone_process`] (*clone(2)*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneFlags(pub u64);

impl CloneFlags {
    /// The new process's parent is the caller's parent.
    pub const PARENT: Self = Self(libc::CLONE_PARENT as u64);
    /// New mount namespace.
    pub const NEWNS: Self = Self(libc::CLONE_NEWNS as u64);
    /// New control group namespace.
    pub const NEWCGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// New host name namespace.
    pub const NEWUTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// New IPC namespace.
    pub const NEWIPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// New user namespace.
    pub const NEWUSER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// New pid namespace.
    pub const NEWPID: Self = Self(libc::CLONE_NEWPID as u64);
    /// New network namespace.
    pub const NEWNET: Self = Self(libc::CLONE_NEWNET as u64);
    /// New time namespace.
    pub const NEWTIME: Self = Self(0x80);

    /// Returns the union.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Tells whether all of `other` is in.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A process just made.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// Its process descriptor, close-on-exec.
    pub pidfd: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Runs `body` in a new process and ends that process with the status it returns; the caller goes on at once.
///
/// The memory is copied as by fork(2). A panic in `body` ends the new process with status 125. With `cgroup` (a
/// control group v2 directory) the process is born there.
///
/// # Errors
/// `EINVAL` when the caller has a second thread; otherwise as clone3(2).
pub fn clone_process(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>, body: impl FnOnce() -> i32) -> Result<Child> {
    require_single_thread()?;
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags.0 | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        // With CLONE_PARENT the signal is the caller's own, and naming one is refused.
        exit_signal: if flags.has(CloneFlags::PARENT) { 0 } else { libc::SIGCHLD as u64 },
        ..CloneArgs::default()
    };
    if let Some(place) = cached_thread_id() {
        // libc keeps the thread's id for raise() and abort(); without this it would stay the parent's in the child, whose
        // abort() would then aim at a stranger. The kernel writes the new one before the child runs.
        args.flags |= libc::CLONE_CHILD_SETTID as u64;
        args.child_tid = place;
    }
    if let Some(group) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a live clone_args of the size given; neither CLONE_VM nor a stack is asked for, so the child
    // has its own copy of memory; require_single_thread() proved that no other thread holds a lock in that copy.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        std::panic::set_hook(Box::new(|_| exit(125)));
        exit(body())
    }
    // SAFETY: clone3 returned a pid, so it stored a descriptor that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: pid as i32, pidfd })
}

/// How a process knows its parent.
#[derive(Clone, Copy, Debug)]
pub enum Parent<'p> {
    /// By its id, in the same pid namespace.
    Here(Pid),
    /// By a descriptor, from a pid namespace that it is not in.
    Outside(BorrowedFd<'p>),
}

/// Has the kernel kill this process when the thread that made it ends (*PR_SET_PDEATHSIG(2const)*).
///
/// A later change of user or group takes this back.
///
/// # Errors
/// `ESRCH` when the parent has ended already, which no signal tells any more.
pub fn end_with(parent: Parent<'_>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let gone = match parent {
        Parent::Here(parent) => rustix::process::getppid() != Some(parent),
        Parent::Outside(parent) => {
            let mut ended = [PollFd::new(&parent, PollFlags::IN)];
            poll(&mut ended, Some(&Timespec::default()))? > 0
        }
    };
    if gone { Err(Errno::SRCH) } else { Ok(()) }
}

/// Lets a process just made begin at once: moves it to another processor than ours, if it may run on one; 0 moves us.
///
/// Linux often leaves it on its maker's processor, beside an idle one, until the maker waits for something.
pub fn spread(pid: i32) {
    wake_elsewhere(pid, || ());
}

/// Does what wakes a process, which then begins on another processor than ours, if it may run on one: we go on meanwhile.
pub fn wake_elsewhere<R>(pid: i32, wake: impl FnOnce() -> R) -> R {
    use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};
    let pid = Pid::from_raw(pid);
    let Ok(allowed) = sched_getaffinity(pid) else { return wake() };
    let mut others = allowed;
    others.unset(sched_getcpu());
    if others.count() == 0 || sched_setaffinity(pid, &others).is_err() {
        return wake();
    }
    let done = wake();
    let _ = sched_setaffinity(pid, &allowed);
    done
}

/// Returns where libc keeps this thread's id, by looking for it: no libc tells. `None` when it is not found.
fn cached_thread_id() -> Option<u64> {
    // musl: six words of eight bytes, then the id ("struct pthread", pthread_impl.h).
    const PLACES: std::ops::Range<usize> = 12..16;
    // SAFETY: takes nothing, returns the thread's own descriptor, which lives as long as the thread.
    let descriptor = unsafe { libc::pthread_self() } as usize as *const i32;
    // SAFETY: takes nothing.
    let own = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    // SAFETY: the descriptor is at least 200 bytes long in every release of musl, and words of it may be read; only this
    // thread, which has no other beside it, changes them.
    let place =
        PLACES.map(|word| unsafe { descriptor.add(word) }).find(|word| unsafe { word.read_volatile() } == own)?;
    Some(place as u64)
}

/// Proof that a process had one thread; it keeps one, because only its own code could start another.
#[derive(Debug)]
pub struct Alone(());

impl Alone {
    /// Proves it, for a later [`fork_here`] behind a filter that may forbid the proof itself.
    ///
    /// # Errors
    /// `EINVAL` when the caller has a second thread.
    pub fn prove() -> Result<Self> {
        require_single_thread().map(|()| Self(()))
    }
}

/// Forks in place: returns the child's pid in the parent and `None` in the child, which goes on with its copy.
///
/// # Errors
/// As fork(2).
pub fn fork_here(_: &Alone) -> Result<Option<i32>> {
    let pid = check(super::heap::fork().into())? as i32;
    Ok((pid != 0).then_some(pid))
}

/// Ends this process at once; no destructor, no buffer.
pub fn exit(status: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(status) }
}

/// Fails when this process has a second thread.
///
/// # Errors
/// `EINVAL` with a second thread: namespaces may only be changed, and processes cloned, by one that is alone.
pub fn require_single_thread() -> Result<()> {
    // unshare(2): "if a process is multithreaded, CLONE_THREAD fails with EINVAL", and does nothing otherwise.
    // SAFETY: the call changes nothing; it takes one integer.
    check(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_THREAD) }).map(drop)
}

/// Leaves the namespaces named and enters new ones.
///
/// # Errors
/// As unshare(2); `EINVAL` with a second thread.
pub fn unshare(flags: CloneFlags) -> Result<()> {
    require_single_thread()?;
    // SAFETY: CloneFlags has no constant for CLONE_FILES, the one flag that would pull descriptors away from others.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags.0) }).map(drop)
}

/// Enters the namespace a descriptor stands for; `kind` is checked by the kernel when not empty.
///
/// # Errors
/// As setns(2); `EINVAL` with a second thread.
pub fn setns(namespace: BorrowedFd<'_>, kind: CloneFlags) -> Result<()> {
    require_single_thread()?;
    // SAFETY: the descriptor is borrowed, hence open; the call takes no pointer.
    check(unsafe { libc::syscall(libc::SYS_setns, namespace.as_raw_fd(), kind.0) }).map(drop)
}

/// A list of C strings laid out for execve(2).
pub struct Strings {
    _owned: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    /// Makes one.
    ///
    /// # Errors
    /// `EINVAL` when a text has a NUL byte.
    pub fn new<T: AsRef<[u8]>>(texts: &[T]) -> Result<Self> {
        let owned: Vec<CString> =
            texts.iter().map(|text| CString::new(text.as_ref()).map_err(|_| Errno::INVAL)).collect::<Result<_>>()?;
        let pointers = owned.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { _owned: owned, pointers })
    }
}

/// Replaces this process's program; returns only the error.
pub fn execve(program: &CStr, arguments: &Strings, environment: &Strings) -> Errno {
    // SAFETY: the path is NUL-terminated; both arrays are NULL-terminated and point into strings their owner keeps.
    let value = unsafe { libc::execve(program.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    check(value.into()).err().unwrap_or(Errno::IO)
}

/// Waits for a child to end and reaps it; returns its exit code, 128 + n for signal n.
///
/// # Errors
/// As waitpid(2).
pub fn wait_exit(pid: i32) -> Result<i32> {
    loop {
        match wait_status(pid, 0) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(found) => return Ok(found.map_or(0, |(_, code)| code)),
        }
    }
}

/// Reaps one ended child of any pid without waiting; returns its pid and exit code.
///
/// # Errors
/// As waitpid(2), `ECHILD` without children.
pub fn reap_any() -> Result<Option<(i32, i32)>> {
    wait_status(-1, libc::WNOHANG)
}

fn wait_status(pid: i32, flags: i32) -> Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: `status` is a live integer the kernel writes.
    let found = check(unsafe { libc::waitpid(pid, &raw mut status, flags) }.into())? as i32;
    if found == 0 {
        return Ok(None);
    }
    let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    Ok(Some((found, code)))
}

/// Makes this process the one to which orphaned descendants fall (`PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// As prctl(2).
pub fn set_child_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Hides this process's memory, descriptors and program from others without `CAP_SYS_PTRACE` over its user namespace.
///
/// # Errors
/// As prctl(2).
pub fn set_undumpable() -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// Sets this process's name as `ps` shows it (15 bytes).
///
/// # Errors
/// As prctl(2).
pub fn set_name(name: &CStr) -> Result<()> {
    // SAFETY: the kernel reads at most 16 bytes of a NUL-terminated string.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }.into()).map(drop)
}

pub(super) fn prctl(option: i32, value: u64) -> Result<()> {
    // SAFETY: used only with options whose second argument is an integer and whose others must be 0.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) }.into()).map(drop)
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// Highest the soft one may be raised to.
    pub hard: u64,
}

/// Sets a resource limit (`RLIMIT_*` number) of a process, 0 = this one; returns the old one.
///
/// # Errors
/// As prlimit(2).
pub fn set_limit(pid: i32, resource: u32, limit: Option<Limit>) -> Result<Limit> {
    let new = limit.map(|l| [l.soft, l.hard]);
    let mut old = [0u64; 2];
    // SAFETY: struct rlimit64 is two u64; both pointers are to live arrays of two, or null.
    let value = unsafe {
        let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        libc::syscall(libc::SYS_prlimit64, pid, resource, new, old.as_mut_ptr())
    };
    check(value)?;
    Ok(Limit { soft: old[0], hard: old[1] })
}

/// Makes a terminal this session leader's controlling one.
///
/// # Errors
/// As ioctl(2) TIOCSCTTY.
pub fn set_controlling_terminal(terminal: impl AsFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(terminal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threaded_process_may_not_clone() {
        // The test harness runs this beside its own thread, unless it was told to use one.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(std::thread::park);
            assert_eq!(require_single_thread(), Err(Errno::INVAL));
            assert!(clone_process(CloneFlags::default(), None, || 0).is_err());
            waiting.thread().unpark();
        });
    }

    #[test]
    fn a_cloned_process_aborts_itself_and_nobody_else() {
        // A fork of the harness has one thread.
        let child = crate::sys::fork::fork(|| {
            let child = clone_process(CloneFlags::default(), None, || std::process::abort());
            i32::from(child.map(|child| wait_exit(child.pid)) != Ok(Ok(128 + libc::SIGABRT)))
        });
        assert_eq!(wait_exit(child.unwrap().pid()), Ok(0));
    }

    #[test]
    fn texts_with_nul_are_refused() {
        assert!(Strings::new(&["a\0b"]).is_err());
    }
}
