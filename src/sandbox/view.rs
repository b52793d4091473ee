//! Looking at and writing to a stack of layers, without mounting it anywhere.

use super::error::LaunchError;
use super::overlay::{Overlay, make};
use crate::sys::mount::{NODEV, NOSUID, RDONLY};
use crate::sys::probe::detached_layers;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Opens the merged tree of layers (relative to `store`, top-most first) for reading below the descriptor.
///
/// The overlay is attached to no mount namespace: it is gone when the descriptor is closed. Ids are those on disk.
///
/// # Errors
/// When a layer is missing or the kernel has no overlay.
pub fn view(store: &Path, lowers: &[PathBuf]) -> Result<OwnedFd, Errno> {
    if let [only] = lowers {
        return open(&store.join(only));
    }
    let overlay = Overlay {
        store,
        lowers,
        upper: None,
        volatile: false,
        userns: None,
        owner: 0,
        attributes: RDONLY | NODEV | NOSUID,
    };
    make(&overlay, detached_layers()).map_err(number)
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
        return open(&store.join(upper));
    }
    let upper = Some((upper, work));
    let overlay = Overlay { store, lowers, upper, volatile: true, userns: None, owner: 0, attributes: NODEV | NOSUID };
    make(&overlay, detached_layers()).map_err(number)
}

fn open(directory: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn number(error: LaunchError) -> Errno {
    Errno::from_raw_os_error(if error.errno == 0 { libc::EIO } else { error.errno })
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
