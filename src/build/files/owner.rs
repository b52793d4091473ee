//! `--chown`: names are those of the tree the files go to.

use super::{canonical, open};
use rustix::fs::{AtFlags, FileType, OFlags, statat};
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::BorrowedFd;

/// Largest account file that is read, bytes.
const MAX_FILE: u64 = 4 << 20;

/// Owner and group of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A user or group that cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// No such name.
    #[error("no {kind} {name:?} in {file} of the image")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// Name as written.
        name: String,
        /// Account file.
        file: &'static str,
    },
    /// Not `user[:group]`.
    #[error("{0:?} is not written user[:group]")]
    Form(String),
    /// The account file is no ordinary file of a sensible size.
    #[error("read {0} of the image")]
    File(&'static str, #[source] std::io::Error),
}

/// Reads `user`, `user:group`, `:group`, each a name or a number; without a group, a number stands for both and a name
/// brings its own group (*Dockerfile reference "COPY --chown"*).
///
/// # Errors
/// When a name is not in the tree's `/etc/passwd` or `/etc/group`.
pub fn resolve_owner(root: BorrowedFd<'_>, text: &str) -> Result<Owner, OwnerError> {
    let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    if group.is_some_and(|g| g.contains(':')) {
        return Err(OwnerError::Form(text.to_owned()));
    }
    let group = match group.filter(|g| !g.is_empty()) {
        None => None,
        Some(name) => Some(match name.parse() {
            Ok(gid) => gid,
            Err(_) => entry(root, "group", "/etc/group", name)?.1,
        }),
    };
    let (uid, own) = match user {
        "" => (0, 0),
        name => match name.parse::<u32>() {
            Ok(uid) => (uid, uid),
            Err(_) => {
                let (rest, uid) = entry(root, "user", "/etc/passwd", name)?;
                (uid, rest.split(':').nth(3).and_then(|g| g.parse().ok()).unwrap_or(uid))
            }
        },
    };
    Ok(Owner { uid, gid: group.unwrap_or(own) })
}

/// Finds a line by its first field and returns it with the number in its third.
fn entry(
    root: BorrowedFd<'_>,
    kind: &'static str,
    file: &'static str,
    name: &str,
) -> Result<(String, u32), OwnerError> {
    let text = read(root, file).map_err(|e| OwnerError::File(file, e))?;
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let id = fields.next().filter(|n| *n == name).and_then(|_| fields.nth(1))?.parse().ok()?;
        Some((line.to_owned(), id))
    });
    found.ok_or_else(|| OwnerError::Unknown { kind, name: name.to_owned(), file })
}

fn read(root: BorrowedFd<'_>, path: &str) -> std::io::Result<String> {
    let path = canonical(root, OsStr::new(path))?;
    let file = match open(root, &path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        file => file?,
    };
    let stat = statat(&file, "", AtFlags::EMPTY_PATH)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(std::io::Error::other("it is no ordinary file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other("it is larger than 4 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
