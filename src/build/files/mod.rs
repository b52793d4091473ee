//! Files named by `COPY` and `ADD`: found in a tree, digested, and copied into another tree.
//!
//! Every path is walked by descriptor inside its root: links in sources and destinations are resolved by `canonical`,
//! and what is opened afterwards follows none, so that a link put there in between is an error and not a way out.

mod content;
mod copy;
mod digest;
mod entry;
mod mode;
mod owner;
mod progress;
mod side;
mod source;
mod stat_cache;
#[cfg(test)]
mod tests;

pub use copy::{CopyError, CopyOptions, Destination};
pub use digest::{Content, digest, sums};
pub use entry::{Entry, Kind, Picked, SourceError};
pub use mode::{ModeChange, ModeError};
pub use owner::{Owner, OwnerError, resolve_owner};
pub use progress::Progress;
pub use source::Source;
pub use stat_cache::{Stamp, StatCache};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, readlinkat, statat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Most links followed on one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// Beneath the root and through no link.
const PLAIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens a path that holds no link; the empty path is the root itself.
fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat2(root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), PLAIN)
}

/// Resolves every link of a path inside a root, the last name included; names that do not exist are kept.
fn canonical(root: BorrowedFd<'_>, path: &OsStr) -> Result<PathBuf, Errno> {
    let mut resolved: Vec<OsString> = Vec::new();
    let mut waiting: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = waiting.pop_front() {
        match name.as_bytes() {
            b"." => continue,
            b".." => {
                resolved.pop();
                continue;
            }
            _ => {}
        }
        let here: PathBuf = resolved.iter().collect();
        let target = match open(root, &here, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(directory) => readlinkat(&directory, &name, Vec::new()),
            Err(errno) => Err(errno),
        };
        match target {
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = OsString::from_vec(target.into_bytes());
                if target.as_bytes().starts_with(b"/") {
                    resolved.clear();
                }
                names(&target).rev().for_each(|n| waiting.push_front(n));
            }
            // No link, or nothing there: a plain name.
            Err(Errno::INVAL | Errno::NOENT) => resolved.push(name),
            Err(errno) => return Err(errno),
        }
    }
    Ok(resolved.iter().collect())
}

fn names(path: &OsStr) -> impl DoubleEndedIterator<Item = OsString> {
    path.as_bytes()
        .split(|b| *b == b'/')
        .filter(|n| !n.is_empty())
        .map(|n| OsStr::from_bytes(n).to_owned())
        .collect::<Vec<_>>()
        .into_iter()
}

/// Reads what is known of a path that holds no link; `None` when there is nothing.
fn stat(root: BorrowedFd<'_>, path: &Path) -> Result<Option<rustix::fs::Stat>, Errno> {
    match open(root, path, OFlags::PATH) {
        Ok(file) => statat(&file, "", AtFlags::EMPTY_PATH).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
