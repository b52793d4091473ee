//! Slots of host ids: each running container has 65,536 of its own (`facts`: 0x70000000..0x7ffe0000).

use crate::base::ContainerId;
use crate::shim;
use crate::store::{Paths, StoreError, remove_file};
use crate::sys::fault::{self, Point};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// First id of the first slot: above the usual subordinate ids and systemd-nspawn's range.
const FIRST: u32 = 0x7000_0000;
/// One past the last slot: below systemd's foreign range and the sign bit.
const END: u32 = 0x7ffe_0000;
/// Ids in a slot.
const SIZE: u32 = 65_536;
/// End of the name of a directory of those who have joined a slot.
const JOINED: &str = "joined";

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

/// Directory of those who live in a slot that another container took.
fn joined(paths: &Paths, base: u32) -> PathBuf {
    file(paths, base).with_extension(JOINED)
}

/// Takes a slot for a container by making a symbolic link to its id, which succeeds for one only; nothing on disk carries it,
/// so it dies with the boot.
///
/// The search starts at a place derived from the id, so that parallel starts seldom collide. A slot whose container has
/// no living shim and no record is taken over, but for one that others have joined.
///
/// # Errors
/// When every slot is in use or the store fails.
pub fn take(paths: &Paths, id: &ContainerId) -> Result<u32, RangeError> {
    let slots = (END - FIRST) / SIZE;
    let start = u32::from_str_radix(&id.as_str()[..7], 16).unwrap_or(0) % slots;
    let taken = (0..slots).map(|step| FIRST + (start + step) % slots * SIZE).find(|base| {
        let path = file(paths, *base);
        let take = || std::os::unix::fs::symlink(id.packed(), &path).is_ok();
        let taken = take() || (is_stale(paths, &path) && std::fs::remove_file(&path).is_ok() && take());
        // Only now: who joins says so first and looks for the slot's holder then.
        if taken && is_joined(paths, *base) {
            let _ = std::fs::remove_file(&path);
            return false;
        }
        taken
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
    owner(path).is_some_and(|owner| is_gone(paths, &owner))
}

fn is_gone(paths: &Paths, id: &ContainerId) -> bool {
    !paths.container(id).exists() && !shim::is_alive(&paths.container_run(id))
}

/// Notes that a container lives in another's slot, which nobody takes then though the other gives it back.
///
/// Whoever calls this looks afterwards whether the other still lives: then it did so when this was noted.
///
/// # Errors
/// When the note cannot be written.
pub fn join(paths: &Paths, id: &ContainerId, base: u32) -> Result<(), StoreError> {
    let dir = joined(paths, base);
    let note = dir.join(id.as_str());
    loop {
        match std::fs::create_dir(&dir) {
            Err(source) if source.kind() != ErrorKind::AlreadyExists => {
                return Err(StoreError::io("create directory", &dir)(source));
            }
            _ => {}
        }
        match std::fs::File::create(&note) {
            // The last one of it left just now.
            Err(source) if source.kind() == ErrorKind::NotFound => {}
            other => return other.map(drop).map_err(StoreError::io("create", &note)),
        }
    }
}

/// Tells whether a container that has joined a slot lives; notes of those that do not are removed.
fn is_joined(paths: &Paths, base: u32) -> bool {
    let dir = joined(paths, base);
    let Ok(notes) = std::fs::read_dir(&dir) else { return false };
    let mut lives = false;
    for note in notes.flatten() {
        match note.file_name().into_string().map(ContainerId::try_from) {
            Ok(Ok(id)) if !is_gone(paths, &id) => lives = true,
            _ => drop(std::fs::remove_file(note.path())),
        }
    }
    let _ = std::fs::remove_dir(&dir);
    lives
}

/// Takes back what a container has noted by [`join`].
fn leave(paths: &Paths, id: &ContainerId) -> Result<(), StoreError> {
    let Ok(slots) = std::fs::read_dir(paths.run.join("ranges")) else { return Ok(()) };
    for dir in slots.flatten().map(|slot| slot.path()).filter(|path| path.extension().is_some_and(|end| end == JOINED))
    {
        remove_file(&dir.join(id.as_str()))?;
        let _ = std::fs::remove_dir(&dir);
    }
    Ok(())
}

/// Gives back the slot a container holds or has joined.
///
/// # Errors
/// When a file cannot be removed.
pub fn release(paths: &Paths, id: &ContainerId) -> Result<(), StoreError> {
    match held(paths, id) {
        Some(base) => remove_file(&file(paths, base)),
        None => leave(paths, id),
    }
}

/// Returns the slot a container holds.
fn held(paths: &Paths, id: &ContainerId) -> Option<u32> {
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

    fn paths() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { root: dir.path().join("root"), run: dir.path().join("run") };
        paths.create().unwrap();
        (dir, paths)
    }

    /// Returns a container that looks for its slot where another does.
    fn rival(id: &ContainerId) -> ContainerId {
        let other = ContainerId::generate();
        ContainerId::try_from(format!("{}{}", &id.as_str()[..7], &other.as_str()[7..])).unwrap()
    }

    #[test]
    fn slots_differ_and_return() {
        let (_dir, paths) = paths();
        let a = ContainerId::generate();
        let b = rival(&a);
        std::fs::create_dir_all(paths.container(&a)).unwrap();
        let (first, second) = (take(&paths, &a).unwrap(), take(&paths, &b).unwrap());
        assert_ne!(first, second);
        assert_eq!(first % SIZE, 0);
        assert_eq!(held(&paths, &a), Some(first));
        release(&paths, &b).unwrap();
        assert_eq!(held(&paths, &a), Some(first), "a slot is released by its owner only");
        release(&paths, &a).unwrap();
        assert_eq!(held(&paths, &a), None);
    }

    #[test]
    fn a_joined_slot_is_not_taken_before_the_last_has_left() {
        let (_dir, paths) = paths();
        let (a, b, c) = (ContainerId::generate(), ContainerId::generate(), ContainerId::generate());
        let base = take(&paths, &a).unwrap();
        for id in [&b, &c] {
            std::fs::create_dir_all(paths.container(id)).unwrap();
            join(&paths, id, base).unwrap();
        }
        release(&paths, &a).unwrap();
        assert_ne!(take(&paths, &rival(&a)).unwrap(), base, "two live in it");
        release(&paths, &b).unwrap();
        assert_ne!(take(&paths, &rival(&a)).unwrap(), base, "one lives in it");
        // The last is gone without a word.
        std::fs::remove_dir_all(paths.container(&c)).unwrap();
        assert_eq!(take(&paths, &rival(&a)).unwrap(), base);
        assert!(!joined(&paths, base).exists());
    }
}
