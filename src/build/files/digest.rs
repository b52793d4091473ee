//! What a `COPY` reads, as one digest: the part of its key that the context decides.

use super::content::attributes;
use super::entry::{Entry, Kind, Picked, SourceError, open_entry};
use super::progress::Progress;
use super::side::{side_by_side, workers};
use super::stat_cache::StatCache;
use crate::base::{Digest, Sha256};
use crate::step::Moved;
use blake3::Hash;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What sources hold, as the key of a step has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Over paths, kinds, modes, link texts and contents (not times), with owner and group taken as 0.
    pub digest: Digest,
    /// For each entry in order, a short form of what it is apart from its path: equal ones have not changed.
    pub prints: Vec<u64>,
}

/// Digests sources; with `keep` owners and extended attributes count, which come along from a stage or an image. What is read
/// is told, but not its end.
///
/// # Errors
/// When a file cannot be read or changes meanwhile.
pub fn digest(
    root: BorrowedFd<'_>,
    picked: &[Picked],
    cache: &StatCache,
    keep: bool,
    moved: Moved<'_>,
) -> Result<Content, SourceError> {
    let mut all = Sha256::new();
    let mut field = |bytes: &[u8]| {
        all.update(&(bytes.len() as u64).to_le_bytes());
        all.update(bytes);
    };
    let mut hashes = contents(root, picked, cache, moved)?.into_iter();
    let mut prints = Vec::with_capacity(picked.iter().map(|source| source.entries.len()).sum());
    for source in picked {
        field(b"source");
        if !source.under.as_os_str().is_empty() {
            field(b"under");
            field(source.under.as_os_str().as_bytes());
            for entry in &source.above {
                field(&entry.mode.to_le_bytes());
                if keep {
                    field(&[entry.owner.uid.to_le_bytes(), entry.owner.gid.to_le_bytes()].concat());
                }
            }
        }
        // A directory's own name plays no part: its content is copied.
        field(if source.is_directory() { b"" } else { source.name.as_bytes() });
        for entry in &source.entries {
            field(entry.path.as_os_str().as_bytes());
            field(&entry.mode.to_le_bytes());
            let mut print = u64::from(entry.mode);
            if keep {
                let owner = [entry.owner.uid.to_le_bytes(), entry.owner.gid.to_le_bytes()].concat();
                field(&owner);
                print ^= short(blake3::hash(&owner)) << 33;
            }
            match &entry.kind {
                Kind::Directory => {
                    field(b"directory");
                    print |= 1 << 32;
                }
                Kind::Fifo => {
                    field(b"fifo");
                    print |= 2 << 32;
                }
                Kind::Link(target) => {
                    field(b"link");
                    field(target.as_bytes());
                    print ^= short(blake3::hash(target.as_bytes()));
                }
                Kind::File => {
                    field(b"file");
                    field(&entry.stamp.size.to_le_bytes());
                    // There is one for each.
                    let Some(hash) = hashes.next() else {
                        return Err(SourceError::Changed(source.base.join(&entry.path)));
                    };
                    field(hash.as_bytes());
                    print ^= short(hash);
                    if keep {
                        let attributes = attributes_of(root, &source.base, entry)?;
                        field(&attributes);
                        print ^= short(blake3::hash(&attributes)) << 33;
                    }
                }
            }
            prints.push(print);
        }
    }
    Ok(Content { digest: all.finish(), prints })
}

/// A file and what is in it, as far as that is known.
struct Hashed<'f> {
    base: &'f Path,
    entry: &'f Entry,
    hash: OnceLock<Hash>,
}

/// What is in all files, in their order: those that are not known, by several threads.
fn contents(
    root: BorrowedFd<'_>,
    picked: &[Picked],
    cache: &StatCache,
    moved: Moved<'_>,
) -> Result<Vec<Hash>, SourceError> {
    let entries = picked.iter().flat_map(|source| source.entries.iter().map(|entry| (&*source.base, entry)));
    let files: Vec<Hashed<'_>> = entries
        .filter(|(_, entry)| entry.kind == Kind::File)
        .map(|(base, entry)| Hashed { base, entry, hash: known(cache.get(&entry.stamp)) })
        .collect();
    let unknown: Vec<&Hashed<'_>> = files.iter().filter(|file| file.hash.get().is_none()).collect();
    let progress = Progress::reading(unknown.iter().map(|file| file.entry.bytes()).sum(), moved);
    let work = |(): &mut (), file: &&Hashed<'_>| -> Result<(), SourceError> {
        let hash = read(root, file.base, file.entry, &progress)?;
        cache.put(file.entry.stamp, hash);
        file.hash.get_or_init(|| hash);
        Ok(())
    };
    side_by_side(workers(unknown.iter().map(|file| file.entry)), &unknown, work)?;
    Ok(files.into_iter().filter_map(|file| file.hash.into_inner()).collect())
}

fn known(hash: Option<Hash>) -> OnceLock<Hash> {
    hash.map_or_else(OnceLock::new, OnceLock::from)
}

/// The extended attributes of a file that come along, as text that tells them apart.
fn attributes_of(root: BorrowedFd<'_>, base: &Path, entry: &Entry) -> Result<Vec<u8>, SourceError> {
    let file = open_entry(root, base, entry)?;
    let read = |errno: rustix::io::Errno| SourceError::Io { path: base.join(&entry.path), source: errno.into() };
    let mut all = attributes(&file).map_err(read)?;
    all.sort();
    let length = |bytes: &[u8]| (bytes.len() as u64).to_le_bytes();
    Ok(all.iter().flat_map(|(name, value)| [&length(name)[..], name, &length(value)[..], value].concat()).collect())
}

/// The first eight bytes of a hash.
fn short(hash: Hash) -> u64 {
    hash.as_bytes().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Hashes a file.
fn read(root: BorrowedFd<'_>, base: &Path, entry: &Entry, progress: &Progress<'_>) -> Result<Hash, SourceError> {
    let mut hasher = blake3::Hasher::new();
    content(root, base, entry, |bytes| {
        hasher.update(bytes);
        progress.add(bytes.len() as u64);
    })?;
    Ok(hasher.finalize())
}

/// Digests of all files of sources, for others to compare, by their paths below each.
///
/// # Errors
/// As for [`digest`].
pub fn sums(root: BorrowedFd<'_>, picked: &[Picked]) -> Result<Vec<(PathBuf, Digest)>, SourceError> {
    let files = picked.iter().flat_map(|source| source.entries.iter().map(|entry| (&*source.base, entry)));
    let sum = |(base, entry): (&Path, &Entry)| {
        let mut hash = Sha256::new();
        content(root, base, entry, |bytes| hash.update(bytes))?;
        Ok((entry.path.clone(), hash.finish()))
    };
    files.filter(|(_, entry)| entry.kind == Kind::File).map(sum).collect()
}

/// Reads all of a file.
fn content(root: BorrowedFd<'_>, base: &Path, entry: &Entry, mut take: impl FnMut(&[u8])) -> Result<(), SourceError> {
    let mut file = std::fs::File::from(open_entry(root, base, entry)?);
    let mut buffer = vec![0u8; (entry.stamp.size.clamp(1, 256 * 1024)) as usize];
    let mut length = 0;
    loop {
        let n = file.read(&mut buffer).map_err(|source| SourceError::Io { path: base.join(&entry.path), source })?;
        if n == 0 {
            break;
        }
        take(&buffer[..n]);
        length += n as u64;
    }
    if length != entry.stamp.size {
        return Err(SourceError::Changed(base.join(&entry.path)));
    }
    Ok(())
}
