//! Leases: what a command is making, so that a later one can finish or undo it when the command was killed.
//!
//! A lease is a file under `leases/` that names its subject (a container) and whose lock the working process holds. The
//! lock alone tells whether that process lives: the kernel gives it back with the last process that has it, whatever
//! number that process had. Names are random, so no lease takes the place of an abandoned one.
//! While any lease is held, garbage collection spares what no record names yet.

use super::lock::FileLock;
use super::record::StoreError;
use super::{Paths, remove_file};
use crate::base::unique_name;
use crate::sys::fault::{self, Point};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

/// A held lease; given back when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    left: std::cell::Cell<bool>,
    _lock: FileLock,
}

/// What a look at all leases found.
#[derive(Debug, Default)]
pub struct Leases {
    /// Subjects that living processes work on.
    pub held: Vec<String>,
    /// Subjects whose process died over them.
    pub abandoned: Vec<Abandoned>,
}

/// A lease whose process died; remove its file with [`Abandoned::settle`] once its subject is dealt with. Until then it is
/// ours: others who look see it held.
#[derive(Debug)]
pub struct Abandoned {
    path: PathBuf,
    _lock: FileLock,
    /// What the process worked on.
    pub subject: String,
}

impl Abandoned {
    /// Removes the lease.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn settle(self) -> Result<(), StoreError> {
        remove_file(&self.path)
    }
}

impl Lease {
    /// Takes a lease on a subject for this process.
    ///
    /// The file gets its place by rename once it is locked, so no one ever sees it unlocked while we live.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub fn take(paths: &Paths, subject: &str) -> Result<Self, StoreError> {
        let dir = paths.root.join("leases");
        let name = unique_name();
        let (draft, path) = (dir.join(format!(".{name}")), dir.join(name));
        let (mut file, lock) = super::draft::open(&draft)?;
        let written = file.write_all(subject.as_bytes()).map_err(StoreError::io("write", &draft));
        written
            .and_then(|()| {
                let placed = fault::fail(Point::LeaseTake).and_then(|()| std::fs::rename(&draft, &path));
                placed.map_err(StoreError::io("rename", &draft))
            })
            .inspect_err(|_| drop(std::fs::remove_file(&draft)))?;
        fault::cut(Point::LeaseTaken);
        Ok(Self { path, left: std::cell::Cell::new(false), _lock: lock })
    }

    /// Has it stay when it is dropped, as after a death: what it is held for could not be taken down, and whoever settles
    /// next tries again.
    pub fn leave(&self) {
        self.left.set(true);
    }

    /// Looks at all leases.
    pub fn survey(paths: &Paths) -> Leases {
        let mut leases = Leases::default();
        super::draft::sweep(&paths.root.join("leases"), |name| name.starts_with('.'));
        let Ok(entries) = std::fs::read_dir(paths.root.join("leases")) else { return leases };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().first() == Some(&b'.') {
                continue;
            }
            let Ok(mut file) = File::open(&path) else { continue };
            let mut subject = String::new();
            if file.read_to_string(&mut subject).is_err() {
                continue;
            }
            match FileLock::try_hold(file) {
                None => leases.held.push(subject),
                // A holder removes its file before it lets go: what is gone now was given back in good order.
                Some(lock) if path.exists() => leases.abandoned.push(Abandoned { path, _lock: lock, subject }),
                Some(_) => {}
            }
        }
        leases
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        fault::cut(Point::LeaseGive);
        if !self.left.get() {
            let _ = remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Durability, write_bytes};
    use super::*;

    #[test]
    fn a_lease_never_takes_the_place_of_an_abandoned_one() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { root: dir.path().to_owned(), run: dir.path().to_owned() };
        std::fs::create_dir(dir.path().join("leases")).unwrap();
        // What a process of our number left in an earlier boot, under every name it may have chosen.
        let left: Vec<String> = (0..100).map(|n| format!("{}-{n}", std::process::id())).collect();
        for name in &left {
            write_bytes(&dir.path().join("leases").join(name), b"dead", Durability::Atomic).unwrap();
        }
        let held: Vec<Lease> = (0..100).map(|_| Lease::take(&paths, "alive").unwrap()).collect();
        let found = Lease::survey(&paths);
        assert_eq!((found.held.len(), found.abandoned.len()), (held.len(), left.len()));
    }

    #[test]
    fn a_dead_lease_is_told_from_a_held_one() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { root: dir.path().to_owned(), run: dir.path().to_owned() };
        std::fs::create_dir(dir.path().join("leases")).unwrap();
        let lease = Lease::take(&paths, "alive").unwrap();
        write_bytes(&dir.path().join("leases/0-0"), b"dead", Durability::Atomic).unwrap();
        let mut found = Lease::survey(&paths);
        assert_eq!(found.held, ["alive"]);
        let dead = found.abandoned.remove(0);
        assert_eq!(dead.subject, "dead");
        dead.settle().unwrap();
        drop(lease);
        let left = Lease::survey(&paths);
        assert!(left.held.is_empty() && left.abandoned.is_empty(), "{left:?}");
        Lease::take(&paths, "could not be undone").unwrap().leave();
        assert_eq!(Lease::survey(&paths).abandoned[0].subject, "could not be undone");
    }
}
