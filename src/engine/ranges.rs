//! Slots of host ids: each running container has 65,536 of its own (`facts`: 0x70000000..0x7ffe0000).

use crate::base::ContainerId;
use crate::shim;
use crate::store::{Paths, StoreError, remove_file};
use crate::sys::fault::{self, Point};
use std::path::{Path, PathBuf};

/// First id of the first slot: above the usual subordinate ids and systemd-nspawn's range.
const FIRST: u32 = 0x7000_0000;
/// One past the last slot: below systemd's foreign range and the sign bit.
const END: u32 = 0x7ffe_0000;
/// Ids in a slot.
const SIZE: u32 = 65_536;

/// No slot could be taken.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// All are in use.
    #[error("all {} ranges of user ids are in use by running containers", (END - FIRST) / SIZE)]
    Exhausted,
    /// The directory of slots is gone.
    #[error("the directory of id ranges {} does not exist", .0.display())]
    Missing(PathBuf),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn file(paths: &Paths, base: u32) -> PathBuf {
    paths.run.join("ranges").join(format!("{base:08x}"))
}

/// Takes a slot for a container by making a symbolic link to its id, which succeeds for one only; nothing on disk carries it, so it dies with the boot.
///
/// The search starts at a place derived from the id, so that parallel starts seldom collide. A slot whose container has
/// no living shim and no record is taken over.
///
/// # Errors
/// When every slot is in use or the store fails.
pub fn take(paths: &Paths, id: &ContainerId) -> Result<u32, RangeError> {
    let slots = (END - FIRST) / SIZE;
    let start = u32::from_str_radix(&id.as_str()[..7], 16).unwrap_or(0) % slots;
    let taken = (0..slots).map(|step| FIRST + (start + step) % slots * SIZE).find(|base| {
        let path = file(paths, *base);
        let take = || std::os::unix::fs::symlink(id.packed(), &path).is_ok();
        take() || (is_stale(paths, &path) && std::fs::remove_file(&path).is_ok() && take())
    });
    match taken {
        Some(base) => {
            fault::cut(Point::RangeTaken);
            Ok(base)
        }
        None if !paths.run.join("ranges").is_dir() => Err(RangeError::Missing(paths.run.join("ranges"))),
        None => Err(RangeError::Exhausted),
    }
}

/// Returns the container that holds a slot.
fn owner(path: &Path) -> Option<ContainerId> {
    ContainerId::unpack(std::fs::read_link(path).ok()?.to_str()?)
}

/// Tells whether a slot's file names a container that is gone.
fn is_stale(paths: &Paths, path: &Path) -> bool {
    let Some(owner) = owner(path) else { return false };
    !paths.container(&owner).exists() && !shim::is_alive(&paths.container_run(&owner))
}

/// Gives a slot back if it belongs to this container.
///
/// # Errors
/// When the file cannot be removed.
pub fn release(paths: &Paths, id: &ContainerId, base: u32) -> Result<(), StoreError> {
    let path = file(paths, base);
    match owner(&path) {
        Some(owner) if owner == *id => remove_file(&path),
        _ => Ok(()),
    }
}

/// Returns the slot a container holds.
pub fn held(paths: &Paths, id: &ContainerId) -> Option<u32> {
    let start = u32::from_str_radix(&id.as_str()[..7], 16).ok()? % ((END - FIRST) / SIZE);
    let is_ours = |base: u32| owner(&file(paths, base)).is_some_and(|owner| owner == *id);
    let first = FIRST + start * SIZE;
    if is_ours(first) {
        return Some(first);
    }
    let entries = std::fs::read_dir(paths.run.join("ranges")).ok()?;
    entries
        .flatten()
        .filter_map(|entry| u32::from_str_radix(entry.file_name().to_str()?, 16).ok())
        .find(|base| is_ours(*base))
}

/// Returns the first host id of the range that a process lives in, `None` for the host's. Where one container has joined another,
/// it is the other's that is held, and it may have gone.
///
/// # Errors
/// When the process has gone.
pub fn of_process(pid: i32) -> Result<Option<u32>, StoreError> {
    let path = PathBuf::from(format!("/proc/{pid}/uid_map"));
    let text = std::fs::read_to_string(&path).map_err(StoreError::io("read", &path))?;
    // *user_namespaces(7)*: first id inside, first id outside, number.
    let base = text.split_whitespace().nth(1).and_then(|first| first.parse().ok()).unwrap_or(0);
    Ok(Some(base).filter(|base| *base != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_differ_and_return() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { root: dir.path().join("root"), run: dir.path().join("run") };
        paths.create().unwrap();
        let (a, b) = (ContainerId::generate(), ContainerId::generate());
        let (first, second) = (take(&paths, &a).unwrap(), take(&paths, &b).unwrap());
        assert_ne!(first, second);
        assert_eq!(first % SIZE, 0);
        assert_eq!(held(&paths, &a), Some(first));
        release(&paths, &b, first).unwrap();
        assert_eq!(held(&paths, &a), Some(first), "a slot is released by its owner only");
        release(&paths, &a, first).unwrap();
        assert_eq!(held(&paths, &a), None);
    }
}
