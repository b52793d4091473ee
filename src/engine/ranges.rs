//! Slots of host ids: each running container has 65,536 of its own (`facts`: 0x70000000..0x7ffe0000).

use crate::base::ContainerId;
use crate::shim;
use crate::store::{Paths, StoreError, read_json, remove_file, write_json};
use std::path::PathBuf;

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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn file(paths: &Paths, base: u32) -> PathBuf {
    paths.run.join("ranges").join(format!("{base:08x}"))
}

/// Takes a slot for a container by exclusive create; nothing on disk carries it, so it dies with the boot.
///
/// The search starts at a place derived from the id, so that parallel starts seldom collide. A slot whose container has
/// no living shim and no record is taken over.
///
/// # Errors
/// When every slot is in use or the store fails.
pub fn take(paths: &Paths, id: &ContainerId) -> Result<u32, RangeError> {
    let slots = (END - FIRST) / SIZE;
    let start = u32::from_str_radix(&id.as_str()[..7], 16).unwrap_or(0) % slots;
    let draft = paths.run.join("ranges").join(format!(".{}", id.short()));
    write_json(&draft, id, crate::store::Durability::Atomic)?;
    let taken = (0..slots).map(|step| FIRST + (start + step) % slots * SIZE).find(|base| {
        let path = file(paths, *base);
        std::fs::hard_link(&draft, &path).is_ok() || (is_stale(paths, &path) && std::fs::rename(&draft, &path).is_ok())
    });
    remove_file(&draft)?;
    taken.ok_or(RangeError::Exhausted)
}

/// Tells whether a slot's file names a container that is gone.
fn is_stale(paths: &Paths, path: &std::path::Path) -> bool {
    let Ok(owner) = read_json::<ContainerId>(path) else { return false };
    !paths.container(&owner).exists() && !shim::is_alive(&paths.container_run(&owner))
}

/// Gives a slot back if it belongs to this container.
///
/// # Errors
/// When the file cannot be removed.
pub fn release(paths: &Paths, id: &ContainerId, base: u32) -> Result<(), StoreError> {
    let path = file(paths, base);
    match read_json::<ContainerId>(&path) {
        Ok(owner) if owner == *id => remove_file(&path),
        _ => Ok(()),
    }
}

/// Returns the slot a container holds.
pub fn held(paths: &Paths, id: &ContainerId) -> Option<u32> {
    let start = u32::from_str_radix(&id.as_str()[..7], 16).ok()? % ((END - FIRST) / SIZE);
    let is_ours = |base: u32| read_json::<ContainerId>(&file(paths, base)).is_ok_and(|owner| owner == *id);
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
