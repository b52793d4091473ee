//! Questions to the kernel about what it can do; nothing is changed by asking.
#![allow(unsafe_code)]

use super::check;
use super::mount::SYS_OPEN_TREE_ATTR;
use rustix::io::Errno;

/// Returns whether the kernel knows this file system, loading its module if there is one, as mounting it would.
pub fn has_file_system(name: &str) -> bool {
    rustix::mount::fsopen(name, rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).is_ok()
}

/// Returns whether detached mounts can be cloned from and can be layers of an overlay, given by descriptor: they can since
/// `open_tree_attr` exists (Linux 6.15).
pub fn detached_layers() -> bool {
    // SAFETY: no descriptor and no path are valid, so the kernel refuses and touches nothing.
    let value = unsafe { libc::syscall(SYS_OPEN_TREE_ATTR, -1, std::ptr::null::<u8>(), 0, std::ptr::null::<u8>(), 0) };
    check(value) != Err(Errno::NOSYS)
}
