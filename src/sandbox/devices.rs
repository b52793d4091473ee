//! Device nodes: every container's `/dev`, and those given with `--device` or `--privileged`.
//!
//! Nodes are made by us, on a tmpfs of the host's, never shown from the host's `/dev`: so they have an owner inside.

use super::bundle::Device;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::*;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Nodes of every container: name and device numbers.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links of every container's `/dev`.
const LINKS: [(&str, &str); 6] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
];

/// Makes the device tmpfs; runs with the ids of the container's root, so that everything is its own, but with the host's
/// rights: a container cannot make device nodes.
pub(super) fn dev(all: bool) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", "65536k")?;
    fsconfig_set_string(context.as_fd(), "mode", "0755")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let dev = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let mask = rustix::process::umask(Mode::empty());
    let filled =
        fill_dev(dev.as_fd()).and_then(|()| if all { host_nodes(dev.as_fd(), Path::new("/dev"), 0) } else { Ok(()) });
    rustix::process::umask(mask);
    filled.map(|()| dev)
}

fn fill_dev(dev: BorrowedFd<'_>) -> Result<(), Errno> {
    for (name, major, minor) in NODES {
        let number = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number)?;
    }
    for (to, name) in LINKS {
        rustix::fs::symlinkat(to, dev, name)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}

/// How deep device nodes of the host lie.
const DEPTH: usize = 4;

/// Directories of the host's `/dev` that are mounts of their own in a container.
const NOT_SHOWN: [&str; 4] = ["pts", "shm", "mqueue", "hugepages"];

/// Makes the host's nodes in `dev`, as a privileged container expects; nodes and links that are there stay.
fn host_nodes(dev: BorrowedFd<'_>, from: &Path, depth: usize) -> Result<(), Errno> {
    let Ok(entries) = std::fs::read_dir(from) else { return Ok(()) };
    for entry in entries.flatten() {
        // It may have vanished meanwhile.
        let Ok(found) = entry.metadata() else { continue };
        let (name, kind) = (entry.file_name(), found.file_type());
        if kind.is_dir() && depth < DEPTH && !NOT_SHOWN.iter().any(|shown| name == *shown) {
            match rustix::fs::mkdirat(dev, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            let below = rustix::fs::openat(
                dev,
                &name,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            host_nodes(below.as_fd(), &entry.path(), depth + 1)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            let number = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
            let node = Device {
                target: String::new(),
                block: kind.is_block_device(),
                number,
                mode: found.mode() & 0o7777,
                owner: (found.uid(), found.gid()),
                access: String::new(),
            };
            match make_node(dev, &name, &node, 0) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

fn make_node(
    dir: BorrowedFd<'_>,
    name: impl rustix::path::Arg + Copy,
    device: &Device,
    base: u32,
) -> Result<(), Errno> {
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let number = rustix::fs::makedev(device.number.0, device.number.1);
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(device.mode), number)?;
    // Ids the container does not have fall to its root.
    let id = |id: u32| if base == 0 || id < super::user::IDS { base + id } else { base };
    let (uid, gid) = (Uid::from_raw(id(device.owner.0)), Gid::from_raw(id(device.owner.1)));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Makes one device node and returns a detached mount of just it; runs with the host's rights. Before Linux 6.15 its home
/// has to be attached, at `place`, to be cloned from.
pub(super) fn node(device: &Device, base: u32, place: Option<&Path>) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", "4k")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let home = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    if let Some(place) = place {
        super::tree::attach_at(home.as_fd(), place)?;
    }
    let mask = rustix::process::umask(Mode::empty());
    let made = make_node(home.as_fd(), "node", device, base);
    rustix::process::umask(mask);
    made?;
    crate::sys::mount::clone_mapped(home.as_fd(), c"node", false, 0, None)
}
