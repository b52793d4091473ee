//! The walls of the unpacking processes: own user, network, IPC and UTS namespaces, no privilege over anything but the
//! layer's tree, no other directory, no new program, a bounded memory and a short list of system calls.

use crate::sys::process::{Parent, end_with};
use crate::sys::worker::idmapped_clone;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{SeccompAction, SeccompFilter};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// First host id of the unpacking processes; the last slot of the engine's second block of ranges, which hands it to no container.
const BASE: u32 = 0x6fff_0000;
/// Ids in the range.
const IDS: u32 = 65536;
/// Address space a worker may add to what it was born with, in bytes.
const MEMORY: u64 = 512 << 20;
/// Descriptors a worker may hold.
const DESCRIPTORS: u64 = 64;

/// What a worker says that has made its namespaces; one that could not says `f` and the error's number.
const READY: &[u8; 1] = b"r";
/// What a worker says that was not let in; why is the parent's to say.
pub(super) const GAVE_UP: &str = "the parent gave up";

/// What the parent does for a worker that has made its namespaces: maps its ids and hands over the tree.
pub(super) fn admit(pid: i32, channel: BorrowedFd<'_>, tree: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut ready = [0];
    let ended = || io::Error::other("the worker ended before it was ready");
    if rustix::io::read(channel, &mut ready)? != 1 {
        return Err(ended());
    }
    if ready != *READY {
        let mut number = [0; 4];
        let length = rustix::io::read(channel, &mut number)?;
        let number = if length == number.len() { i32::from_le_bytes(number) } else { return Err(ended()) };
        return Err(no_namespaces(number));
    }
    let map = format!("0 {BASE} {IDS}");
    for file in ["uid_map", "gid_map"] {
        write_proc(pid, file, &map)?;
    }
    let mount = match tree {
        Some(tree) => {
            let userns = File::open(Path::new("/proc").join(pid.to_string()).join("ns/user"))?;
            let walls = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
            let mapped = idmapped_clone(tree, userns.as_fd(), walls);
            Some(mapped.map_err(|error| match error.raw_os_error() {
                // *mount_setattr(2)*: the file system takes no id-mapped mounts.
                Some(libc::EINVAL) => io::Error::other(
                    "the file system of the store takes no id-mapped mounts (ext4, xfs and btrfs do, tmpfs from Linux 6.3 on); \
                     put the store elsewhere with --root or BULKHEAD_ROOT",
                ),
                _ => error,
            })?)
        }
        None => None,
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = mount.iter().map(AsFd::as_fd).collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(channel, &[IoSlice::new(b"g")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Says why a worker could not make its namespaces (*unshare(2)*, *user_namespaces(7)*).
fn no_namespaces(number: i32) -> io::Error {
    let why = match number {
        libc::EPERM => {
            "the kernel makes no user namespaces here: in a chroot it never does (enter the directory with pivot_root or as a \
             container), and what started this program may forbid them"
        }
        libc::ENOSPC => "no more user namespaces are allowed: raise the sysctl user.max_user_namespaces",
        _ => return io::Error::from_raw_os_error(number),
    };
    io::Error::other(format!("{why} ({})", io::Error::from_raw_os_error(number)))
}

fn write_proc(pid: i32, file: &str, text: &str) -> io::Result<()> {
    let path = Path::new("/proc").join(pid.to_string()).join(file);
    rustix::io::write(File::options().write(true).open(path)?, text.as_bytes())?;
    Ok(())
}

/// Enters the jail, in the worker; with a tree, it becomes the root and the working directory.
pub(super) fn enter(channel: BorrowedFd<'_>, with_tree: bool) -> io::Result<()> {
    use nix::sched::CloneFlags;
    let parent = rustix::process::getppid().ok_or(io::ErrorKind::NotFound)?;
    let memory = memory_limit()?;
    let namespaces =
        CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if let Err(errno) = nix::sched::unshare(namespaces) {
        rustix::io::write(channel, &[b"f", &(errno as i32).to_le_bytes()[..]].concat())?;
        return Err(io::Error::other(GAVE_UP));
    }
    rustix::io::write(channel, READY)?;
    let tree = receive(channel)?;
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(0.into(), 0.into(), 0.into())?;
    nix::unistd::setresuid(0.into(), 0.into(), 0.into())?;
    end_with(Parent::Here(parent))?;
    rustix::process::umask(rustix::fs::Mode::empty());
    match (tree, with_tree) {
        (Some(tree), true) => {
            rustix::process::fchdir(&tree)?;
            rustix::process::chroot(".")?;
        }
        (None, false) => {}
        _ => return Err(io::Error::other("the worker was handed the wrong tree")),
    }
    for (resource, most) in
        [(Resource::As, memory), (Resource::Core, 0), (Resource::Nofile, DESCRIPTORS), (Resource::Nproc, 0)]
    {
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    let keep = if with_tree {
        CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID
    } else {
        CapabilitySet::empty()
    };
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    filter(with_tree)
}

fn receive(channel: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(channel, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if message.bytes != 1 {
        return Err(io::Error::other(GAVE_UP));
    }
    let mut tree = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            tree = fds.last();
        }
    }
    Ok(tree)
}

/// The address space this process has, plus what a worker may add; the parent's size is none of the archive's making.
fn memory_limit() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0);
    Ok(pages.saturating_mul(4096).saturating_add(MEMORY))
}

/// Installs the list of system calls; everything else ends the worker.
fn filter(with_tree: bool) -> io::Result<()> {
    let common = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_pread64,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_lseek,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_exit_group,
        libc::SYS_exit,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_fcntl,
    ];
    let files = [
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_mkdirat,
        libc::SYS_mknodat,
        libc::SYS_linkat,
        libc::SYS_symlinkat,
        libc::SYS_unlinkat,
        libc::SYS_renameat2,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_utimensat,
        libc::SYS_fsetxattr,
        libc::SYS_ftruncate,
        libc::SYS_pwrite64,
        libc::SYS_sync_file_range,
        libc::SYS_getdents64,
    ];
    let files: &[i64] = if with_tree { &files } else { &[] };
    let rules = common.iter().chain(files).map(|number| (*number, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch).map_err(io::Error::other)?;
    let program: seccompiler::BpfProgram = filter.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}
