//! What the shim makes with the host's rights and hands over as detached mounts: the root, `/dev`, clones of host paths.

use super::bundle::{Bundle, Root};
use super::error::{Context, LaunchError, reason};
use super::plan::{CloneIds, LaunchPlan, Outside, UserPlan};
use crate::sys::credentials::with_file_ids;
use crate::sys::mount::{NODEV, RDONLY, clone_mapped, set_attributes};
use crate::sys::process::{Child, CloneFlags, clone_process, pidfd_kill, wait_exit};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::*;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Makes everything of [`LaunchPlan::outside`], in order. `userns` is the container's user namespace, `None` the host's.
pub(super) fn make(
    bundle: &Bundle,
    plan: &LaunchPlan,
    userns: Option<BorrowedFd<'_>>,
) -> Result<Vec<OwnedFd>, LaunchError> {
    let base = plan.user.base();
    let mut store = None;
    let mut made = Vec::with_capacity(plan.outside.len());
    for item in &plan.outside {
        made.push(match item {
            Outside::Root => root(&bundle.root, base, userns, &mut store)?,
            Outside::Dev => with_file_ids(base, base, || Ok(dev()))
                .at(|| "take the container's ids")?
                .at(|| "make the container's /dev")?,
            Outside::Clone { path, recursive, ids, readonly, devices } => {
                let attributes = if *devices { 0 } else { NODEV } | if *readonly { RDONLY } else { 0 };
                if *devices {
                    require_node(path)?;
                }
                let view = plan.user != UserPlan::Host && *ids == CloneIds::Unmapped && !*devices;
                // Mounts of the host below /sys and /proc keep their own flags.
                let attributes = if view { attributes & !NODEV } else { attributes };
                let owner_map;
                let map = match ids {
                    CloneIds::Unmapped => None,
                    CloneIds::Same => userns,
                    CloneIds::Owner(uid, gid) => {
                        owner_map = owner_namespace(*uid, *gid, base, bundle)?;
                        Some(owner_map.as_fd())
                    }
                };
                clone_path(path, *recursive, attributes, map)?
            }
        });
    }
    Ok(made)
}

fn c_path(path: &Path) -> Result<CString, LaunchError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| LaunchError::refused(format!("path {path:?} has a NUL byte")))
}

fn root(
    root: &Root,
    base: u32,
    userns: Option<BorrowedFd<'_>>,
    store_mount: &mut Option<OwnedFd>,
) -> Result<OwnedFd, LaunchError> {
    match root {
        Root::Directory(path) => clone_path(path, false, NODEV, userns),
        Root::Overlay { store, lowers, upper, work, volatile } => {
            let clone = match userns {
                Some(_) => clone_path(store, false, 0, userns)?,
                None => rustix::fs::open(store, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .at(|| format!("open {}", store.display()))?,
            };
            // Kept until the overlay exists: an earlier close dissolves the clone under its layers.
            let clone = store_mount.insert(clone);
            let layer = |path: &Path| {
                crate::sys::open::open_no_links(clone.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY)
                    .at(|| format!("open the layer {}", store.join(path).display()))
            };
            let lowers = lowers.iter().map(|path| layer(path)).collect::<Result<Vec<_>, _>>()?;
            let (upper, work) = (layer(upper)?, layer(work)?);
            let mount = with_file_ids(base, base, || overlay(&lowers, &upper, &work, *volatile))
                .at(|| format!("mount the overlay of {} layers below {}", lowers.len(), store.display()))?;
            let flags = rustix::fs::fstatvfs(&mount).at(|| "look at the overlay")?.f_flag;
            if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
                return Err(LaunchError::refused(
                    "mount the overlay: the kernel made it read-only (its log, dmesg, says why)",
                ));
            }
            Ok(mount)
        }
    }
}

/// Runs with the ids of the container's root, which overlay keeps for its own files.
fn overlay(lowers: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd, volatile: bool) -> Result<OwnedFd, Errno> {
    // Left by the last run of a volatile overlay; the kernel refuses the upper directory while it is there.
    if rustix::fs::unlinkat(work, c"work/incompat/volatile/dirty", AtFlags::empty()).is_ok() {
        for mark in [c"work/incompat/volatile", c"work/incompat"] {
            rustix::fs::unlinkat(work, mark, AtFlags::REMOVEDIR)?;
        }
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "overlay")?;
    for lower in lowers {
        fsconfig_set_fd(context.as_fd(), "lowerdir+", lower.as_fd())?;
    }
    fsconfig_set_fd(context.as_fd(), "upperdir", upper.as_fd())?;
    fsconfig_set_fd(context.as_fd(), "workdir", work.as_fd())?;
    if volatile {
        fsconfig_set_flag(context.as_fd(), "volatile")?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
}

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
fn dev() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", "65536k")?;
    fsconfig_set_string(context.as_fd(), "mode", "0755")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let dev = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let mask = rustix::process::umask(Mode::empty());
    let filled = fill_dev(dev.as_fd());
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

fn require_node(path: &Path) -> Result<(), LaunchError> {
    let found =
        rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).at(|| format!("open device {}", path.display()))?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::CharacterDevice | FileType::BlockDevice => Ok(()),
        _ => Err(LaunchError::refused(format!("device {}: it is not a device node", path.display()))),
    }
}

/// Clones a host path as a detached mount.
fn clone_path(
    path: &Path,
    recursive: bool,
    attributes: u64,
    userns: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, LaunchError> {
    match clone_mapped(CWD, &c_path(path)?, recursive, attributes, userns) {
        Err(errno @ (Errno::INVAL | Errno::PERM)) if userns.is_some() => Err(unmappable(path, recursive, errno)),
        other => other.at(|| format!("open {}", path.display())),
    }
}

/// Says which file system refused and the way out.
fn unmappable(path: &Path, recursive: bool, errno: Errno) -> LaunchError {
    let kind =
        rustix::fs::statfs(path).map_or_else(|_| "file system".to_owned(), |found| kind_name(found.f_type as u64));
    let below = if recursive { " or of a mount below it" } else { "" };
    LaunchError {
        errno: errno.raw_os_error(),
        ..LaunchError::refused(format!(
            "mount {}: the ids of this {kind}{below} cannot be mapped to the container's ({}); \
             run with --userns=host, or bind a directory of another file system",
            path.display(),
            reason(errno)
        ))
    }
}

fn kind_name(magic: u64) -> String {
    let name = match magic {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794C_7630 => "overlay",
        0x9FA0 => "proc",
        0x6265_6572 => "sysfs",
        0x6573_5546 => "fuse",
        0x6969 => "nfs",
        0x0102_1997 => "9p",
        0xFF53_4D42 => "cifs",
        0x8584_58F6 => "ramfs",
        0x1980_0202 => "mqueue",
        0x1CD1 => "devpts",
        0x27_E0EB => "cgroup",
        0x6367_7270 => "cgroup2",
        other => return format!("file system (type {other:#x})"),
    };
    format!("{name} file system")
}

/// Makes a user namespace whose map shows one host user and group as the container's process user.
fn owner_namespace(uid: u32, gid: u32, base: u32, bundle: &Bundle) -> Result<OwnedFd, LaunchError> {
    // A name needs the image's files, which only the mounted root has; a number is known here, and root is the rest.
    let (user, group) = bundle.process.user.split_once(':').unwrap_or((&bundle.process.user, ""));
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id < super::user::IDS);
    let inside_uid = number(user).unwrap_or(0);
    let inside_gid = number(group).unwrap_or(0);
    namespace_with_map(&format!("{uid} {} 1", base + inside_uid), &format!("{gid} {} 1", base + inside_gid))
}

/// Makes a user namespace with these maps; nothing lives in it.
pub(super) fn namespace_with_map(uid_map: &str, gid_map: &str) -> Result<OwnedFd, LaunchError> {
    let holder = clone_process(CloneFlags::NEWUSER, None, || {
        crate::sys::process::set_signal_mask(0);
        let _ = crate::sys::process::wait_signal(0);
        0
    })
    .at(|| "make a user namespace")?;
    let result = write_maps(holder.pid, uid_map, gid_map).and_then(|()| open_namespace(holder.pid, "user"));
    end(&holder);
    result
}

/// Kills and reaps a child of this process.
pub(super) fn end(child: &Child) {
    let _ = pidfd_kill(child.pidfd.as_fd(), libc::SIGKILL);
    let _ = wait_exit(child.pid);
}

/// Writes the id maps of a child born in a new user namespace.
pub(super) fn write_maps(pid: i32, uid_map: &str, gid_map: &str) -> Result<(), LaunchError> {
    for (name, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        let path = format!("/proc/{pid}/{name}");
        let file =
            rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).at(|| format!("open {path}"))?;
        rustix::io::write(&file, map.as_bytes()).at(|| format!("write {map:?} to {path}"))?;
    }
    Ok(())
}

/// Opens a namespace of a process.
pub(super) fn open_namespace(pid: i32, name: &str) -> Result<OwnedFd, LaunchError> {
    let path = format!("/proc/{pid}/ns/{name}");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(|| format!("open {path}"))
}

/// Adds read-only to a mount (used where a step decides it late).
pub(super) fn make_readonly(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    set_attributes(mount, RDONLY, 0, false)
}

/// Lets the container's root open pipes of ours again by name (`/proc/1/fd/1`, `/dev/stdout`): they belong to the host's
/// root, which has no image inside. A FIFO that lies in a file system stays as it is.
pub(super) fn give_pipes(streams: Option<[BorrowedFd<'_>; 3]>, base: u32) {
    const PIPEFS: u64 = 0x5049_5045;
    for stream in streams.iter().flatten() {
        if rustix::fs::fstatfs(stream).is_ok_and(|found| found.f_type as u64 == PIPEFS) {
            let owner = (rustix::fs::Uid::from_raw(base), rustix::fs::Gid::from_raw(base));
            // A refusal only costs the reopening.
            let _ = rustix::fs::fchown(stream, Some(owner.0), Some(owner.1));
        }
    }
}
