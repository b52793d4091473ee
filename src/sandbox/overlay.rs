//! Overlays: from the directories of a store to one detached mount, on kernels that take detached layers and on older ones.

use super::error::{Context, LaunchError};
use super::mounter::FRAME;
use crate::sys::credentials::with_file_ids;
use crate::sys::mount::{NODEV, NOSUID, RDONLY, clone_mapped, make_private};
use crate::sys::open::open_no_links;
use crate::sys::process::{CloneFlags, unshare};
use crate::sys::socket::{pair, recv_frame, send_frame};
use crate::sys::worker::Worker;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::*;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An overlay to be made.
pub(super) struct Overlay<'a> {
    /// Directory all layers are below.
    pub(super) store: &'a Path,
    /// The layers only read, top-most first, relative to `store`.
    pub(super) lowers: &'a [std::path::PathBuf],
    /// The directory written to and overlay's own work directory, relative to `store`.
    pub(super) upper: Option<(&'a Path, &'a Path)>,
    /// Whether nothing need be synced: the tree dies with its container.
    pub(super) volatile: bool,
    /// User namespace whose map the ids on disk go through.
    pub(super) userns: Option<BorrowedFd<'a>>,
    /// Host id overlay's own files get.
    pub(super) owner: u32,
    /// Attributes of the mount (`sys::mount`).
    pub(super) attributes: u64,
}

/// Makes a detached mount of an overlay. `detached` tells whether this kernel takes layers of detached mounts, by
/// descriptor (Linux 6.15, [`crate::sys::probe::detached_layers`]).
///
/// An older kernel wants layers that are attached in the caller's mount namespace, by name: a forked process attaches the
/// store in a namespace of its own, mounts the overlay there and hands a clone of it back. The overlay holds its layers
/// itself, so that the namespace may go.
///
/// # Errors
/// When a layer is missing, an id map is refused, or the kernel has no overlay.
pub(super) fn make(overlay: &Overlay<'_>, detached: bool) -> Result<OwnedFd, LaunchError> {
    if detached {
        let store = overlay.store_mount()?;
        // The clone is kept until the overlay exists: an earlier close dissolves it under its layers.
        return overlay.by_descriptor(&overlay.open(store.as_fd())?);
    }
    let keep: Vec<_> = overlay.userns.into_iter().collect();
    workshop(&keep, |place| {
        let store = overlay.store_mount()?;
        if overlay.userns.is_some() {
            super::tree::attach_at(store.as_fd(), place).at(|| format!("attach {}", overlay.store.display()))?;
        }
        overlay.by_name(&overlay.open(store.as_fd())?, place)
    })
}

/// Makes a detached mount that shows one directory and that no remount makes writable. What is mounted below it is not shown.
///
/// # Errors
/// When its file system cannot be a layer.
pub(super) fn of_directory(path: &Path) -> Result<OwnedFd, LaunchError> {
    let only = [Path::new(".").to_owned()];
    let overlay = Overlay::without_upper(path, &only);
    workshop(&[], |place| {
        let store = overlay.store_mount()?;
        let mut layers = overlay.open(store.as_fd())?;
        // The kernel wants two layers where none can be written; the second has nothing in it.
        let nothing = super::tree::new_mount("tmpfs", &[("mode", "755")], super::tree::QUIET);
        let nothing = nothing.at(|| "make an empty file system")?;
        super::tree::attach_at(nothing.as_fd(), place).at(|| "attach an empty file system")?;
        layers.lowers.push(nothing);
        overlay.by_name(&layers, place)
    })
}

/// Host directory that covers are laid over in a namespace of nobody else's.
const PLACE: &str = "/etc";

/// Runs `work` in a process with a mount namespace of its own, whose mounts may be attached at the path it is given, and
/// returns the mount it makes. Descriptors but `keep` are closed there.
pub(super) fn workshop(
    keep: &[BorrowedFd<'_>],
    work: impl FnOnce(&Path) -> Result<OwnedFd, LaunchError>,
) -> Result<OwnedFd, LaunchError> {
    made_elsewhere(keep, || {
        unshare(CloneFlags::NEWNS).at(|| "make a mount namespace")?;
        let slash = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(|| "open the host's root")?;
        make_private(slash.as_fd()).at(|| "cut mounts off from the host's")?;
        work(Path::new(PLACE))
    })
}

/// Runs `work` in a process of its own, which may go to another mount namespace, and returns the mount it makes. Descriptors but
/// `keep` are closed there.
pub(super) fn made_elsewhere(
    keep: &[BorrowedFd<'_>],
    work: impl FnOnce() -> Result<OwnedFd, LaunchError>,
) -> Result<OwnedFd, LaunchError> {
    let (ours, theirs) = pair().at(|| "make a socket")?;
    let kept: Vec<_> = keep.iter().copied().chain([theirs.as_fd()]).collect();
    let worker = Worker::fork(&kept, || {
        let sent = match &work() {
            Ok(mount) => send_frame(theirs.as_fd(), b"M", &[mount.as_fd()]),
            Err(error) => send_frame(theirs.as_fd(), &[b"E".as_slice(), &error.encode()].concat(), &[]),
        };
        i32::from(sent.is_err())
    })
    .at(|| "start a process that mounts")?;
    drop(theirs);
    let heard = recv_frame(ours.as_fd(), FRAME).at(|| "hear from the process that mounts");
    // It has said all it had to say.
    let _ = worker.wait();
    match heard? {
        Some((frame, descriptors)) => match (frame.first(), descriptors.into_iter().next()) {
            (Some(b'M'), Some(mount)) => Ok(mount),
            _ => Err(LaunchError::decode(frame.get(1..).unwrap_or_default())),
        },
        None => Err(LaunchError::refused("make a mount: the process that makes it died")),
    }
}

/// The layers of an overlay, opened.
struct Layers {
    lowers: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
}

impl<'a> Overlay<'a> {
    /// Layers alone, for the host's own ids: such a file system stays read-only whatever its mount is told.
    pub(super) fn without_upper(store: &'a Path, lowers: &'a [std::path::PathBuf]) -> Self {
        Self { store, lowers, upper: None, volatile: false, userns: None, owner: 0, attributes: NODEV | RDONLY }
    }
}

impl Overlay<'_> {
    /// Opens the store: a detached clone of it where ids are mapped.
    fn store_mount(&self) -> Result<OwnedFd, LaunchError> {
        let store = self.store;
        match self.userns {
            Some(_) => super::outside::clone_path(store, false, 0, self.userns),
            None => rustix::fs::open(store, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .at(|| format!("open {}", store.display())),
        }
    }

    fn open(&self, store: BorrowedFd<'_>) -> Result<Layers, LaunchError> {
        let layer = |path: &Path| {
            open_no_links(store, path, OFlags::PATH | OFlags::DIRECTORY)
                .at(|| format!("open the layer {}", self.store.join(path).display()))
        };
        let upper = self.upper.map(|(upper, work)| Ok((layer(upper)?, layer(work)?))).transpose()?;
        Ok(Layers { lowers: self.lowers.iter().map(|path| layer(path)).collect::<Result<_, _>>()?, upper })
    }

    /// Runs with the ids of the owner, which overlay keeps for its own files, and looks at the result.
    fn mounted(&self, layers: &Layers, mount: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, LaunchError> {
        let mount = with_file_ids(self.owner, self.owner, || {
            if let Some((_, work)) = &layers.upper {
                forget_last_run(work)?;
            }
            mount()
        })
        .at(|| format!("mount the overlay of {} layers below {}", self.lowers.len(), self.store.display()))?;
        let flags = rustix::fs::fstatvfs(&mount).at(|| "look at the overlay")?.f_flag;
        if self.attributes & RDONLY == 0 && flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return Err(LaunchError::refused(
                "mount the overlay: the kernel made it read-only (its log, dmesg, says why)",
            ));
        }
        Ok(mount)
    }

    fn by_descriptor(&self, layers: &Layers) -> Result<OwnedFd, LaunchError> {
        self.mounted(layers, || {
            let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(context.as_fd(), "source", "overlay")?;
            for lower in &layers.lowers {
                fsconfig_set_fd(context.as_fd(), "lowerdir+", lower.as_fd())?;
            }
            if let Some((upper, work)) = &layers.upper {
                fsconfig_set_fd(context.as_fd(), "upperdir", upper.as_fd())?;
                fsconfig_set_fd(context.as_fd(), "workdir", work.as_fd())?;
            }
            if self.volatile {
                fsconfig_set_flag(context.as_fd(), "volatile")?;
            }
            fsconfig_create(context.as_fd())?;
            let attributes = MountAttrFlags::from_bits_retain(self.attributes as u32);
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        })
    }

    /// Mounts at `place` and returns a clone of it; the working directory becomes the one of the descriptors, so that a
    /// layer's name is its number and even 500 layers fit into the page of options the kernel reads.
    fn by_name(&self, layers: &Layers, place: &Path) -> Result<OwnedFd, LaunchError> {
        rustix::process::chdir("/proc/self/fd").at(|| "enter /proc/self/fd")?;
        let options = options(layers, self.volatile).at(|| "name the layers")?;
        let flags = MountFlags::from_bits_retain(
            [(RDONLY, MountFlags::RDONLY), (NOSUID, MountFlags::NOSUID), (NODEV, MountFlags::NODEV)]
                .iter()
                .filter(|(attribute, _)| self.attributes & attribute != 0)
                .fold(0, |flags, (_, flag)| flags | flag.bits()),
        );
        let at = CString::new(place.as_os_str().as_bytes()).unwrap_or_default();
        self.mounted(layers, || {
            mount(c"overlay", at.as_c_str(), c"overlay", flags, Some(options.as_c_str()))?;
            clone_mapped(CWD, &at, false, 0, None)
        })
    }
}

/// Spells the options of *mount(2)* for overlay, layers by the numbers of their descriptors.
fn options(layers: &Layers, volatile: bool) -> Result<CString, Errno> {
    let lowers: Vec<String> = layers.lowers.iter().map(|lower| lower.as_raw_fd().to_string()).collect();
    let mut text = format!("lowerdir={}", lowers.join(":"));
    if let Some((upper, work)) = &layers.upper {
        text.push_str(&format!(",upperdir={},workdir={}", upper.as_raw_fd(), work.as_raw_fd()));
    }
    if volatile {
        text.push_str(",volatile");
    }
    CString::new(text).map_err(|_| Errno::INVAL)
}

/// Removes the mark of a volatile overlay's last run; the kernel refuses the upper directory while it is there.
fn forget_last_run(work: &OwnedFd) -> Result<(), Errno> {
    if rustix::fs::unlinkat(work, c"work/incompat/volatile/dirty", AtFlags::empty()).is_ok() {
        for mark in [c"work/incompat/volatile", c"work/incompat"] {
            rustix::fs::unlinkat(work, mark, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        crate::store::write_bytes(path, text.as_bytes(), crate::store::Durability::Atomic).unwrap();
    }

    fn read(root: &OwnedFd, name: &str) -> String {
        let file = rustix::fs::openat(root, name, OFlags::RDONLY, Mode::empty()).unwrap();
        std::io::read_to_string(std::fs::File::from(file)).unwrap()
    }

    #[test]
    fn many_layers_merge_with_and_without_detached_ones() {
        if !crate::tests::root() {
            return;
        }
        let ways = if crate::sys::probe::detached_layers() { &[true, false][..] } else { &[false] };
        for detached in ways {
            let dir = tempfile::tempdir().unwrap();
            let lowers: Vec<_> = (0..130).map(|n| std::path::PathBuf::from(format!("{n:064}/fs"))).collect();
            for (number, lower) in lowers.iter().enumerate() {
                write(&dir.path().join(lower).join("same"), &number.to_string());
                write(&dir.path().join(lower).join(number.to_string()), "own");
            }
            for name in ["up/fs", "up/work"] {
                std::fs::create_dir_all(dir.path().join(name)).unwrap();
            }
            for volatile in [true, false, true, true] {
                let overlay = Overlay {
                    store: dir.path(),
                    lowers: &lowers,
                    upper: Some((Path::new("up/fs"), Path::new("up/work"))),
                    volatile,
                    userns: None,
                    owner: 0,
                    attributes: NODEV,
                };
                let root = make(&overlay, *detached).unwrap();
                assert_eq!((read(&root, "same"), read(&root, "129")), ("0".to_owned(), "own".to_owned()));
                rustix::fs::mkdirat(&root, "made", Mode::from_raw_mode(0o755)).unwrap();
                rustix::fs::unlinkat(&root, "made", AtFlags::REMOVEDIR).unwrap();
            }
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!table.contains(dir.path().to_str().unwrap()) && !table.contains(" /etc "), "{table}");
            let missing = [std::path::PathBuf::from("none")];
            let overlay = Overlay {
                store: dir.path(),
                lowers: &missing,
                upper: None,
                volatile: false,
                userns: None,
                owner: 0,
                attributes: RDONLY,
            };
            let error = make(&overlay, *detached).unwrap_err();
            assert!(error.message.contains("/none: no such file"), "{error}");
        }
    }
}
