//! Looking at and writing to a stack of layers, without mounting it anywhere.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Opens the merged tree of layers (relative to `store`, top-most first) for reading below the descriptor.
///
/// The overlay is never attached to a mount namespace: it is gone when the descriptor is closed. Ids are those on disk.
///
/// # Errors
/// When a layer is missing or the kernel has no overlay.
pub fn view(store: &Path, lowers: &[PathBuf]) -> Result<OwnedFd, Errno> {
    if let [only] = lowers {
        return rustix::fs::open(store.join(only), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in lowers {
        fsconfig_set_string(context.as_fd(), "lowerdir+", store.join(lower))?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Opens the merged tree of layers with a writable one on top, all relative to `store`.
///
/// As [`view`], but writes land in `upper` with the ids they are given. Nothing is synced (`volatile`): the caller
/// syncs what must last, and the mark the kernel leaves in `work` is removed by the next mount of `upper`.
///
/// # Errors
/// When a directory is missing or the kernel has no overlay.
pub fn writable_view(store: &Path, lowers: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, Errno> {
    if lowers.is_empty() {
        return rustix::fs::open(store.join(upper), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in lowers {
        fsconfig_set_string(context.as_fd(), "lowerdir+", store.join(lower))?;
    }
    fsconfig_set_string(context.as_fd(), "upperdir", store.join(upper))?;
    fsconfig_set_string(context.as_fd(), "workdir", store.join(work))?;
    fsconfig_set_flag(context.as_fd(), "volatile")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_layers_cover_lower_ones_and_nothing_is_mounted() {
        if !crate::tests::root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [("top/a", "new"), ("base/a", "old"), ("base/b", "kept")] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            crate::store::write_bytes(&path, text.as_bytes(), crate::store::Durability::Atomic).unwrap();
        }
        let fd = view(dir.path(), &["top".into(), "base".into()]).unwrap();
        let read = |name: &str| {
            let file = rustix::fs::openat(&fd, name, OFlags::RDONLY, Mode::empty()).unwrap();
            std::io::read_to_string(std::fs::File::from(file)).unwrap()
        };
        assert_eq!((read("a"), read("b")), ("new".to_owned(), "kept".to_owned()));
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(dir.path().to_str().unwrap()));
    }
}
