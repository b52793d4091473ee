//! What the shim makes with the host's rights and hands over as detached mounts: the root, `/dev`, clones of host paths.

use super::bundle::{Bundle, Device, Process, Root};
use super::devices::{dev, node};
use super::error::{Context, LaunchError, reason};
use super::overlay::Overlay;
use super::plan::{CloneIds, LaunchPlan, Neighbour, Outside};
use super::user::IDS;
use crate::security::Level;
use crate::sys::credentials::with_file_ids;
use crate::sys::mount::{NODEV, NOSUID, RDONLY, clone_mapped, set_attributes};
use crate::sys::open::open_in_root;
use crate::sys::process::{Child, CloneFlags, pidfd_kill, setns, wait_exit};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, openat2};
use rustix::io::Errno;
use std::ffi::CString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Makes everything of [`LaunchPlan::outside`], in order. `userns` is the container's user namespace, `None` the host's.
pub(super) fn make(
    bundle: &Bundle,
    plan: &LaunchPlan,
    userns: Option<BorrowedFd<'_>>,
) -> Result<Vec<OwnedFd>, LaunchError> {
    let base = plan.user.base();
    let mut made = Vec::with_capacity(plan.outside.len());
    let mut own = own_files(plan, base, userns)?.into_iter();
    for item in &plan.outside {
        made.push(match item {
            Outside::Root => root(&bundle.root, base, userns, plan.detached)?,
            Outside::Dev => {
                let all = bundle.hardening.level == Level::Privileged;
                with_file_ids(base, base, || Ok(dev(all)))
                    .at(|| "take the container's ids")?
                    .at(|| "make the container's /dev")?
            }
            Outside::HostQueues => {
                super::tree::new_mount("mqueue", &[], super::tree::QUIET).at(|| "show the host's message queues")?
            }
            Outside::Node(device) => device_node(device, base, plan.detached)?,
            Outside::Tree { root: tree, path, readonly } => part(tree, path, *readonly, base, userns, plan.detached)?,
            Outside::OwnFile { .. } => {
                own.next().ok_or_else(|| LaunchError::refused("a file of ours was not copied"))?
            }
            Outside::Clone { path, recursive, ids, readonly, view } => {
                // Mounts of the host below /sys and /proc keep their own flags.
                let attributes = if *view { 0 } else { NODEV } | if *readonly { RDONLY } else { 0 };
                let owner_map;
                let map = match ids {
                    CloneIds::Unmapped => None,
                    CloneIds::Same => userns,
                    CloneIds::Owner(uid, gid) => {
                        let account = process_ids(made.first(), &bundle.process);
                        owner_map =
                            namespace_with_map(&exchange(*uid, account.0, base), &exchange(*gid, account.1, base))?;
                        Some(owner_map.as_fd())
                    }
                };
                clone_path(path, *recursive, attributes, map)?
            }
        });
    }
    if plan.sealed {
        seal(bundle, plan, &mut made)?;
    }
    Ok(made)
}

/// Makes a tree and clones a path of it; links are resolved inside the tree.
fn part(
    tree: &Root,
    path: &str,
    readonly: bool,
    base: u32,
    userns: Option<BorrowedFd<'_>>,
    detached: bool,
) -> Result<OwnedFd, LaunchError> {
    let whole = root(tree, base, userns, detached)?;
    let attributes = NODEV | NOSUID | if readonly { RDONLY } else { 0 };
    let inside = path.trim_start_matches('/');
    if inside.is_empty() {
        set_attributes(whole.as_fd(), attributes, 0, false).at(|| "set the attributes of a mount")?;
        return Ok(whole);
    }
    let clone = |root: BorrowedFd<'_>| {
        let found = open_in_root(root, inside, OFlags::PATH).at(|| format!("open {path} in what a mount shows"))?;
        clone_mapped(found.as_fd(), c"", false, attributes, None).at(|| format!("clone {path} of what a mount shows"))
    };
    if detached {
        return clone(whole.as_fd());
    }
    // Before Linux 6.15 a tree has to be attached to be cloned from.
    super::overlay::workshop(&[whole.as_fd()], |place| {
        super::tree::attach_at(whole.as_fd(), place).at(|| format!("attach {}", place.display()))?;
        clone(whole.as_fd())
    })
}

/// Makes a device node alone on a mount of its own.
fn device_node(device: &Device, base: u32, detached: bool) -> Result<OwnedFd, LaunchError> {
    let what = || format!("make device {}", device.target);
    if detached {
        return node(device, base, None).at(what);
    }
    super::overlay::workshop(&[], |place| node(device, base, Some(place)).at(what))
}

/// Bytes a container may add to our own files, for each.
const ROOM: usize = 256 << 10;
/// Inodes of the file system of a container's copies at the most: its root and the three files.
const COPIES_INODES: u64 = 4;

fn copy_attributes(readonly: bool) -> u64 {
    NODEV | if readonly { RDONLY } else { 0 }
}

/// Returns a mount of each file of ours: another container's copy of it where the plan says so and it has one, else a copy.
fn own_files(plan: &LaunchPlan, base: u32, userns: Option<BorrowedFd<'_>>) -> Result<Vec<OwnedFd>, LaunchError> {
    let mut wanted = Vec::new();
    let mut shared = Vec::new();
    for item in &plan.outside {
        if let Outside::OwnFile { path, readonly, of } = item {
            let copy = of.as_ref().and_then(|neighbour| copy_of(neighbour, *readonly, userns));
            if copy.is_none() {
                wanted.push((path.as_path(), *readonly));
            }
            shared.push(copy);
        }
    }
    let mut copied = own_copies(&wanted, base, plan.detached)?.into_iter();
    let missing = || LaunchError::refused("a file of ours was not copied");
    shared.into_iter().map(|copy| copy.or_else(|| copied.next()).ok_or_else(missing)).collect()
}

/// Clones the copy that another container has of one of our files: what either writes, both read. `userns` is ours, which has to
/// be its own too, unless it is the host's (`None`): a pid may have become another's.
///
/// It is looked up in the other's mount namespace, beneath its root and through no link, and taken only if it is a copy. The
/// other's root may have put anything there, and nothing of what it was given is passed on. `None` where there is no copy.
fn copy_of(neighbour: &Neighbour, readonly: bool, userns: Option<BorrowedFd<'_>>) -> Option<OwnedFd> {
    let namespace = |kind: &str| {
        let path = format!("/proc/{}/ns/{kind}", neighbour.pid);
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    };
    if let Some(ours) = userns {
        let number = |found: rustix::fs::Stat| (found.st_dev, found.st_ino);
        let theirs = rustix::fs::fstat(namespace("user").ok()?).ok()?;
        if number(rustix::fs::fstat(ours).ok()?) != number(theirs) {
            return None;
        }
    }
    let mounts = namespace("mnt").ok()?;
    let what = || format!("open {} of process {}", neighbour.target, neighbour.pid);
    let made = super::overlay::made_elsewhere(&[mounts.as_fd()], || {
        setns(mounts.as_fd(), CloneFlags::NEWNS).at(what)?;
        let slash =
            rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(what)?;
        let plain = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = neighbour.target.trim_start_matches('/');
        let file = openat2(&slash, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), plain).at(what)?;
        let (kind, home) = (rustix::fs::fstat(&file).at(what)?.st_mode, rustix::fs::fstatfs(&file).at(what)?);
        let is_file = FileType::from_raw_mode(kind) == FileType::RegularFile;
        if !(is_file
            && kind_name(home.f_type as u64).starts_with("tmpfs")
            && (2..=COPIES_INODES).contains(&home.f_files))
        {
            return Err(LaunchError::refused(format!("{}: it is no copy of ours", what())));
        }
        clone_mapped(file.as_fd(), c"", false, copy_attributes(readonly), None).at(what)
    });
    // Whatever is in the way, the container gets a copy of its own.
    made.ok()
}

/// Copies files of ours onto one file system, where their owner inside is their owner on disk, and returns a mount of each. The
/// originals lie on the host's `/run`, which a container that could write to it would fill.
fn own_copies(wanted: &[(&Path, bool)], base: u32, detached: bool) -> Result<Vec<OwnedFd>, LaunchError> {
    let Some((first, _)) = wanted.first() else { return Ok(Vec::new()) };
    let what = || format!("show {} in the container", first.display());
    if detached {
        return copies(wanted, base, None).at(what);
    }
    // One at a time comes back from there.
    let one = |file, place: &Path| {
        let copied =
            copies(&[file], base, Some(place)).and_then(|made| made.into_iter().next().ok_or(ErrorKind::Other.into()));
        copied.at(what)
    };
    wanted.iter().map(|file| super::overlay::workshop(&[], |place| one(*file, place))).collect()
}

/// Before Linux 6.15 the copies' home has to be attached, at `place`, to be cloned from.
fn copies(files: &[(&Path, bool)], base: u32, place: Option<&Path>) -> std::io::Result<Vec<OwnedFd>> {
    let mut texts = Vec::with_capacity(files.len());
    for (path, _) in files {
        texts.push((std::fs::read(path)?, std::fs::metadata(path)?));
    }
    let size: usize = texts.iter().map(|(text, _)| text.len() + ROOM).sum();
    let nodes = files.len() + 1;
    // Scripts of here-documents are executed.
    let quiet = super::tree::QUIET.difference(rustix::mount::MountAttrFlags::MOUNT_ATTR_NOEXEC);
    let options = [("size", size.to_string()), ("nr_inodes", nodes.to_string())];
    let home = super::tree::new_mount("tmpfs", &options.each_ref().map(|(key, value)| (*key, value.as_str())), quiet)?;
    if let Some(place) = place {
        super::tree::attach_at(home.as_fd(), place)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut made = Vec::with_capacity(files.len());
    for (index, ((_, readonly), (text, found))) in files.iter().zip(texts).enumerate() {
        let name = CString::new(index.to_string())?;
        let file = rustix::fs::openat(&home, &name, flags, Mode::from_raw_mode(0o600))?;
        let (uid, gid) = (Uid::from_raw(base + found.uid()), Gid::from_raw(base + found.gid()));
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(found.mode() & 0o777))?;
        std::io::Write::write_all(&mut std::fs::File::from(file), &text)?;
        made.push(clone_mapped(home.as_fd(), &name, false, copy_attributes(*readonly), None)?);
    }
    Ok(made)
}

/// Makes the root again from all its layers, or its directory, with nothing writable on top: the kernel refuses to make such a file system
/// writable (`EROFS`), so that not even `CAP_SYS_ADMIN` of the host's user namespace takes read-only back. Until then the
/// writable layer is there, because the places of mounts must be made.
fn seal(bundle: &Bundle, plan: &LaunchPlan, made: &mut [OwnedFd]) -> Result<(), LaunchError> {
    let lost = || LaunchError::refused("seal the root: there is none");
    let writable = made.first().ok_or_else(lost)?.try_clone().at(|| "keep the root")?;
    super::tree::Tree::new(plan, writable, Path::new("/"), made).places()?;
    let first = made.first_mut().ok_or_else(lost)?;
    // The writable one goes first: a directory is the top of one overlay at a time.
    *first = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(|| "open the host's root")?;
    *first = match &bundle.root {
        Root::Directory(path) => super::overlay::of_directory(path).map_err(|error| LaunchError {
            message: format!(
                "keep {} read-only against SYS_ADMIN: {error}; leave out --userns=host, SYS_ADMIN or --read-only",
                path.display()
            ),
            ..error
        })?,
        Root::Overlay { store, lowers, upper, .. } => {
            let layers: Vec<_> = std::iter::once(upper).chain(lowers).cloned().collect();
            super::overlay::make(&Overlay::without_upper(store, &layers), plan.detached)?
        }
    };
    Ok(())
}

fn c_path(path: &Path) -> Result<CString, LaunchError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| LaunchError::refused(format!("path {path:?} has a NUL byte")))
}

fn root(root: &Root, base: u32, userns: Option<BorrowedFd<'_>>, detached: bool) -> Result<OwnedFd, LaunchError> {
    match root {
        Root::Directory(path) => clone_path(path, false, NODEV, userns),
        Root::Overlay { store, lowers, upper, work, volatile } => super::overlay::make(
            &Overlay {
                store,
                lowers,
                upper: Some((upper, work)),
                volatile: *volatile,
                userns,
                owner: base,
                attributes: NODEV,
            },
            detached,
        ),
    }
}

/// Clones a host path as a detached mount.
pub(super) fn clone_path(
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

/// Returns the ids the container's process will have; root's where the image does not tell, which the process itself
/// will say.
fn process_ids(root: Option<&OwnedFd>, process: &Process) -> (u32, u32) {
    let account = root.and_then(|root| super::user::resolve(root.as_fd(), &process.user, &[]).ok());
    account.map_or((0, 0), |account| (account.uid, account.gid))
}

/// Spells the map of a mount on which the id `disk` appears as `inside` and the other way round, all others as they are.
/// An owner beyond the container's ids takes its place alone.
fn exchange(disk: u32, inside: u32, base: u32) -> String {
    let mut lines = Vec::new();
    let mut line = |from: u32, to: u32, count: u32| {
        if count > 0 {
            lines.push(format!("{from} {} {count}\n", base + to));
        }
    };
    if disk == inside {
        line(0, 0, IDS);
    } else {
        let (low, high) = (disk.min(inside), disk.max(inside).min(IDS));
        line(0, 0, low);
        line(low, if low == disk { inside } else { disk }, u32::from(high < IDS || low == disk));
        line(low + 1, low + 1, high - low - 1);
        if high < IDS {
            line(high, if high == disk { inside } else { disk }, 1);
            line(high + 1, high + 1, IDS - high - 1);
        } else {
            line(disk, inside, 1);
        }
    }
    lines.concat()
}

/// Makes a user namespace with these maps; nothing lives in it.
pub(super) fn namespace_with_map(uid_map: &str, gid_map: &str) -> Result<OwnedFd, LaunchError> {
    let holder = super::nest::hold(CloneFlags::NEWUSER).at(|| "make a user namespace")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_and_the_process_change_places() {
        let cases = [
            (1000, 1000, "0 100 65536\n"),
            (1000, 0, "0 1100 1\n1 101 999\n1000 100 1\n1001 1101 64535\n"),
            (1000, 999, "0 100 999\n999 1100 1\n1000 1099 1\n1001 1101 64535\n"),
            (33, 999, "0 100 33\n33 1099 1\n34 134 965\n999 133 1\n1000 1100 64536\n"),
            (65535, 0, "0 65635 1\n1 101 65534\n65535 100 1\n"),
            (70_000, 0, "1 101 65535\n70000 100 1\n"),
            (70_000, 5, "0 100 5\n6 106 65530\n70000 105 1\n"),
        ];
        for (disk, inside, map) in cases {
            assert_eq!(exchange(disk, inside, 100), map, "{disk} and {inside}");
        }
    }
}
