//! Mounts: attributes and identity maps of mounts, which `rustix` lacks.
#![allow(unsafe_code)]

use super::{Result, check};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Read-only.
pub const RDONLY: u64 = 0x1;
/// Set-uid bits and file capabilities are ignored.
pub const NOSUID: u64 = 0x2;
/// Device nodes do not open.
pub const NODEV: u64 = 0x4;
/// Programs do not start.
pub const NOEXEC: u64 = 0x8;

const IDMAP: u64 = 0x0010_0000;
const AT_EMPTY_PATH: libc::c_uint = 0x1000;
const AT_RECURSIVE: libc::c_uint = 0x8000;

#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Changes attributes of a mount, and of those below it when `recursive`.
///
/// # Errors
/// As mount_setattr(2).
pub fn set_attributes(mount: BorrowedFd<'_>, set: u64, clear: u64, recursive: bool) -> Result<()> {
    setattr(mount, recursive, &MountAttributes { set, clear, ..MountAttributes::default() })
}

/// Makes a mount, and those below it, private: nothing propagates in or out.
///
/// # Errors
/// As mount_setattr(2).
pub fn make_private(mount: BorrowedFd<'_>) -> Result<()> {
    setattr(mount, true, &MountAttributes { propagation: libc::MS_PRIVATE, ..MountAttributes::default() })
}

fn setattr(mount: BorrowedFd<'_>, recursive: bool, attributes: &MountAttributes) -> Result<()> {
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is open, the path is the empty C string, `attributes` is live and of the size given.
    let value = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    check(value).map(drop)
}

/// Clones the mount tree at `path` as a detached one whose ids go through the map of `userns`, with further attributes.
///
/// Uses `open_tree_attr` (Linux 6.15), which can also replace the map of an already mapped mount; else two calls.
///
/// # Errors
/// `EINVAL` when the file system cannot be mapped; otherwise as open_tree(2) and mount_setattr(2).
pub fn clone_mapped(
    dir: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    set: u64,
    userns: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags |= if path.is_empty() { OpenTreeFlags::AT_EMPTY_PATH } else { OpenTreeFlags::AT_SYMLINK_NOFOLLOW };
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let attributes = MountAttributes {
        set: set | if userns.is_some() { IDMAP } else { 0 },
        userns: userns.map_or(0, |fd| fd.as_raw_fd() as u64),
        propagation: libc::MS_PRIVATE,
        ..MountAttributes::default()
    };
    // SAFETY: the descriptors are open, the path is NUL-terminated, `attributes` is live and of the size given.
    let value = unsafe {
        libc::syscall(
            SYS_OPEN_TREE_ATTR,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags.bits(),
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    match check(value) {
        // SAFETY: the call returned a new descriptor that nothing else owns.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        Err(Errno::NOSYS) => {
            let tree = rustix::mount::open_tree(dir, path, flags)?;
            setattr(std::os::fd::AsFd::as_fd(&tree), recursive, &attributes)?;
            Ok(tree)
        }
        Err(error) => Err(error),
    }
}

/// Number of `open_tree_attr` on x86-64, the only architecture built for.
pub(super) const SYS_OPEN_TREE_ATTR: libc::c_long = 467;
