//! Removing from a step's upper directory the empty files and directories that mounts needed as places.
//!
//! A place that was mounted over cannot have been written by the step, so what lies there empty is ours. The tree is
//! the step's work and may hold any link: everything is walked by descriptor, through none.

use crate::image::Active;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, openat2, statat, unlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const PLAIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Removes what is left of these mount targets, and the directories above that hold nothing else.
pub(super) fn remove(tree: &Active, targets: &[String]) -> Result<(), Errno> {
    let open = |path: &Path| {
        openat2(
            CWD,
            tree.store.join(path),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::empty(),
        )
    };
    let upper = open(&tree.upper)?;
    let mut lowers = None;
    for target in targets {
        let names: Vec<&str> = target.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        let Some((name, above)) = names.split_last() else { continue };
        let Some(parent) = directory(upper.as_fd(), above)? else { continue };
        let found = match statat(&parent, *name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile if found.st_size == 0 => unlinkat(&parent, *name, AtFlags::empty())?,
            FileType::Directory => {}
            _ => continue,
        }
        // A directory is looked at itself, then those above it.
        let deepest =
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory { names.len() } else { above.len() };
        if lowers.is_none() {
            lowers = Some(tree.lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?);
        }
        let lowers = lowers.as_deref().unwrap_or_default();
        for depth in (1..=deepest).rev() {
            if !remove_directory(upper.as_fd(), lowers, &names[..depth])? {
                break;
            }
        }
    }
    Ok(())
}

/// Opens a directory below a root; `None` when there is none, or a link in the way.
fn directory(root: BorrowedFd<'_>, names: &[&str]) -> Result<Option<OwnedFd>, Errno> {
    let path = if names.is_empty() { ".".to_owned() } else { names.join("/") };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(root, path, flags, Mode::empty(), PLAIN) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        other => other.map(Some),
    }
}

/// Removes a directory that holds nothing and says nothing: one that no layer below has, or has just so.
fn remove_directory(upper: BorrowedFd<'_>, lowers: &[OwnedFd], names: &[&str]) -> Result<bool, Errno> {
    let Some(own) = directory(upper, names)? else { return Ok(false) };
    let mut opaque = [0; 8];
    if fgetxattr(&own, "trusted.overlay.opaque", &mut opaque).is_ok() {
        return Ok(false);
    }
    let stat = |fd: &OwnedFd| statat(fd, "", AtFlags::EMPTY_PATH);
    let same = |a: &Stat, b: &Stat| (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid);
    for lower in lowers {
        if let Some(below) = directory(lower.as_fd(), names)? {
            if !same(&stat(&own)?, &stat(&below)?) {
                return Ok(false);
            }
            break;
        }
    }
    let Some((name, above)) = names.split_last() else { return Ok(false) };
    let Some(parent) = directory(upper, above)? else { return Ok(false) };
    match unlinkat(&parent, *name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, create_dir_all};
    use std::os::unix::fs::symlink;

    #[test]
    fn places_go_and_what_the_step_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for path in ["low/etc/ssl", "up/etc/ssl", "up/new/deep", "up/dev", "up/kept", "up/linked", "outside"] {
            create_dir_all(at(path)).unwrap();
        }
        for path in
            ["up/etc/hosts", "up/etc/ssl/ca", "up/new/deep/conf", "up/kept/mine", "up/kept/conf", "outside/conf"]
        {
            File::create(at(path)).unwrap();
        }
        crate::store::write_bytes(&at("up/full"), b"text", crate::store::Durability::Atomic).unwrap();
        symlink("../outside", at("up/link")).unwrap();
        let tree =
            Active { store: dir.path().into(), lowers: vec!["low".into()], upper: "up".into(), work: "w".into() };
        let targets =
            ["/etc/hosts", "/etc/ssl/ca", "/new/deep/conf", "/dev", "/kept/conf", "/full", "/link/conf", "/none/x"];
        remove(&tree, &targets.map(str::to_owned)).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(at("up")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["full", "kept", "link", "linked"]);
        assert!(at("up/kept/mine").exists() && !at("up/kept/conf").exists() && at("outside/conf").exists());
    }
}
