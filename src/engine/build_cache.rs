//! Caches of build steps (`RUN --mount=type=cache`): `build/mounts/<key>/<number>/data`, kept between builds, in no layer.
//!
//! The directory of a number is the lock: shared users hold it together, a locking one alone. A cache that begins with files
//! of a stage is filled as `new` first and renamed, so that one whose builder was killed is filled again.

use super::EngineError;
use super::build::Builder;
use crate::base::{Bytes, Digest, Timestamp};
use crate::image::remove_tree;
use crate::step::{CacheTree, CacheWish, Sharing, Tree};
use crate::store::{Durability, FileLock, Paths, StoreError, read_json, write_json};
use crate::sys::fault::{self, Point};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most caches of one name that `sharing=private` makes.
const MAX_PRIVATE: u32 = 1000;
/// How long until a cache in use is looked at again.
const PAUSE: Duration = Duration::from_millis(20);

/// A cache in use by a step.
pub struct StepCache {
    /// Directory of its number.
    place: PathBuf,
    root: OwnedFd,
    new: bool,
    sharing: Sharing,
    lock: FileLock,
}

/// A cache of build steps as `builder du` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheMount {
    /// Its name: the target, or what `id=` says.
    pub id: String,
    /// Directory on the host.
    pub place: PathBuf,
    /// Bytes of its files.
    pub size: Bytes,
    /// When a step used it last.
    pub last_used: Timestamp,
}

impl Tree for StepCache {
    fn root(&self) -> Result<BorrowedFd<'_>, std::io::Error> {
        Ok(self.root.as_fd())
    }
}

impl CacheTree for StepCache {
    fn is_new(&self) -> bool {
        self.new
    }
}

impl StepCache {
    /// Returns the directory that is mounted; a new one is filled by then.
    pub(super) fn data(&self) -> PathBuf {
        self.place.join("data")
    }

    /// Gives a new cache, filled by now, to everybody.
    pub(super) fn filled(&self) -> Result<(), EngineError> {
        let (from, to) = (self.place.join("new"), self.place.join("data"));
        fault::fail(Point::CacheFilled).map_err(StoreError::io("rename", &from))?;
        std::fs::rename(&from, &to).map_err(StoreError::io("rename", &from))?;
        Ok(self.share()?)
    }

    fn share(&self) -> Result<(), StoreError> {
        if self.sharing == Sharing::Shared { self.lock.share(&self.place) } else { Ok(()) }
    }
}

fn directory(paths: &Paths) -> PathBuf {
    paths.root.join("build/mounts")
}

impl Builder<'_> {
    /// Opens a cache, waiting while somebody else has it alone.
    pub(super) fn open_cache(&self, wish: &CacheWish) -> Result<StepCache, EngineError> {
        let all = directory(&self.engine.paths).join(wish.key.hex());
        for number in 0..MAX_PRIVATE {
            let place = all.join(number.to_string());
            loop {
                make(&place)?;
                let lock = match wish.sharing {
                    Sharing::Shared if place.join("data").exists() => FileLock::try_share_dir(&place)?,
                    _ => FileLock::try_acquire_dir(&place)?,
                };
                match lock {
                    // One that was pruned meanwhile is another directory.
                    Some(lock) if lock.is_of(&place) => return use_cache(wish, place, lock),
                    Some(_) => continue,
                    None if wish.sharing == Sharing::Private => break,
                    None => {}
                }
                self.wait_for_end(PAUSE)?;
            }
        }
        Err(EngineError::Conflict(format!("{MAX_PRIVATE} private caches {:?} are in use", wish.id)))
    }
}

fn make(place: &Path) -> Result<(), EngineError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(place);
    Ok(made.map_err(StoreError::io("create directory", place))?)
}

/// Opens a cache whose lock is held, making what is missing.
fn use_cache(wish: &CacheWish, place: PathBuf, lock: FileLock) -> Result<StepCache, EngineError> {
    let data = place.join("data");
    let found = data.exists();
    let new = !found && wish.filled;
    let path = if new { place.join("new") } else { data };
    if !found {
        remove_tree(&place.join("new")).map_err(StoreError::io("remove", &place))?;
        crate::store::write_bytes(&place.join("id"), wish.id.as_bytes(), Durability::Atomic)?;
        // Under another name until its owner is right.
        let draft = place.join("new");
        DirBuilder::new().mode(0o700).create(&draft).map_err(StoreError::io("create directory", &draft))?;
        let open = File::open(&draft).map_err(StoreError::io("open", &draft))?;
        let access = &wish.access;
        fchown(&open, Some(Uid::from_raw(access.uid)), Some(Gid::from_raw(access.gid)))
            .and_then(|()| fchmod(&open, Mode::from_raw_mode(access.mode)))
            .map_err(|errno| StoreError::io("set owner and mode of", &draft)(errno.into()))?;
        fault::fail(Point::CacheMade).map_err(StoreError::io("rename", &draft))?;
        if !new {
            std::fs::rename(&draft, &path).map_err(StoreError::io("rename", &draft))?;
        }
    }
    // The time of the place is that of its last use.
    let now = std::time::SystemTime::now();
    let _ = File::open(&place).and_then(|place| place.set_modified(now));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| StoreError::io("open", &path)(errno.into()))?;
    let cache = StepCache { place, root, new, sharing: wish.sharing, lock };
    if !new {
        cache.share()?;
    }
    Ok(cache)
}

impl super::Engine {
    /// Returns the caches of build steps; the sizes of those that were used since they were counted are counted now.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMount>, EngineError> {
        let mut found = Vec::new();
        for place in places(&self.paths)? {
            let Ok(times) = place.metadata() else { continue };
            let last_used = Timestamp(times.mtime().saturating_mul(1_000_000_000).saturating_add(times.mtime_nsec()));
            let id = std::fs::read_to_string(place.join("id")).unwrap_or_default();
            found.push(CacheMount { id, size: Bytes(counted(&place, last_used)), place, last_used });
        }
        Ok(found)
    }

    /// Removes a cache of build steps; returns `false` when a step uses it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove_cache_mount(&self, mount: &CacheMount) -> Result<bool, EngineError> {
        let Some(_lock) = FileLock::try_acquire_dir(&mount.place)? else { return Ok(false) };
        let gone = mount.place.with_extension(format!("gone-{}", std::process::id()));
        std::fs::rename(&mount.place, &gone).map_err(StoreError::io("rename", &mount.place))?;
        fault::cut(Point::CacheGone);
        remove_tree(&gone).map_err(StoreError::io("remove", &gone))?;
        let _ = mount.place.parent().map(std::fs::remove_dir);
        Ok(true)
    }
}

fn places(paths: &Paths) -> Result<Vec<PathBuf>, EngineError> {
    let list = |path: &Path| match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            let entries = entries.map_err(StoreError::io("read directory", path))?;
            Ok::<_, StoreError>(entries.flatten().map(|entry| entry.path()).collect())
        }
    };
    let mut found = Vec::new();
    for key in list(&directory(paths))? {
        if key.file_name().and_then(|name| name.to_str()).is_some_and(|name| Digest::from_hex(name).is_ok()) {
            found.extend(list(&key)?);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the bytes of a cache: what was counted since its last use, else counted now. One in use is counted each time.
fn counted(place: &Path, last_used: Timestamp) -> u64 {
    let path = place.join("size");
    if let Ok(Counted { schema: 1, bytes, used }) = read_json(&path)
        && used == last_used
    {
        return bytes;
    }
    let bytes = size(&place.join("data"));
    // Whoever has it may still write to it.
    if let Ok(Some(_lock)) = FileLock::try_acquire_dir(place) {
        let _ = write_json(&path, &Counted { schema: 1, bytes, used: last_used }, Durability::Atomic);
        // The time of the place is that of its last use, and a file was written there.
        let nanos = |time: Timestamp| std::time::UNIX_EPOCH + Duration::from_nanos(time.0.max(0) as u64);
        let _ = File::open(place).and_then(|place| place.set_modified(nanos(last_used)));
    }
    bytes
}

/// `size`: the bytes of a cache when it had been used at a time.
#[derive(Serialize, Deserialize)]
struct Counted {
    schema: u32,
    bytes: u64,
    used: Timestamp,
}

/// Counts the bytes of ordinary files below a directory; links are not followed.
fn size(directory: &Path) -> u64 {
    let (mut bytes, mut waiting) = (0u64, vec![directory.to_owned()]);
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => waiting.push(entry.path()),
                Ok(found) => bytes = bytes.saturating_add(found.blocks() * 512),
                Err(_) => {}
            }
        }
    }
    bytes
}
