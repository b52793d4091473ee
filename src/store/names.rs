//! Container names, each owned by exactly one container: `names/<name>` is a symbolic link whose text is its id.

use super::record::StoreError;
use super::{Paths, remove_file};
use crate::base::ContainerId;
use crate::sys::fault::{self, Point};
use std::io;
use std::path::PathBuf;

/// The directory of names.
pub struct Names {
    dir: PathBuf,
}

/// A name cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// Another container has it.
    #[error(
        "the container name \"/{name}\" is already in use by container \"{owner}\"; remove (or rename) that container to be able to reuse that name"
    )]
    Taken {
        /// The name.
        name: String,
        /// Who has it.
        owner: ContainerId,
    },
    /// It is not spelled like a name.
    #[error("invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least")]
    Spelling(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Names {
    /// Opens the directory of names; it must exist.
    pub fn new(paths: &Paths) -> Self {
        Self { dir: paths.root.join("names") }
    }

    /// Checks the spelling: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
    ///
    /// # Errors
    /// [`NameError::Spelling`].
    pub fn check(name: &str) -> Result<(), NameError> {
        let mut bytes = name.bytes();
        let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
            && name.len() >= 2
            && name.len() <= 200
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if good { Ok(()) } else { Err(NameError::Spelling(name.to_owned())) }
    }

    /// Takes a name: of two who try at once exactly one succeeds.
    ///
    /// A name is a symbolic link whose text is the owner's id: it appears together with its owner in one system call,
    /// and nobody ever reads half of it.
    ///
    /// # Errors
    /// [`NameError::Taken`] when another container has it.
    pub fn reserve(&self, name: &str, id: &ContainerId) -> Result<(), NameError> {
        Self::check(name)?;
        let path = self.dir.join(name);
        loop {
            let take = || std::os::unix::fs::symlink(id.packed(), &path);
            match fault::fail(Point::NameTake).and_then(|()| take()) {
                Ok(()) => {
                    fault::cut(Point::NameTaken);
                    return Ok(());
                }
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => match self.owner(name) {
                    Some(owner) => return Err(NameError::Taken { name: name.to_owned(), owner }),
                    // Given back between our two looks, or no link of ours.
                    None if path.symlink_metadata().is_ok() => {
                        return Err(StoreError::Io { action: "read name", path, source }.into());
                    }
                    None => {}
                },
                Err(source) => return Err(StoreError::Io { action: "reserve name", path, source }.into()),
            }
        }
    }

    /// Returns the owner of a name.
    pub fn owner(&self, name: &str) -> Option<ContainerId> {
        Self::check(name).ok()?;
        let text = std::fs::read_link(self.dir.join(name)).ok()?;
        ContainerId::unpack(text.to_str()?)
    }

    /// Returns the names a container has: one, and more only after a change of name that was cut off.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn of(&self, id: &ContainerId) -> Result<Vec<String>, StoreError> {
        let entries = std::fs::read_dir(&self.dir).map_err(StoreError::io("list", &self.dir))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| self.owner(name).as_ref() == Some(id)).collect())
    }

    /// Gives a name back if this container has it.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn release(&self, name: &str, id: &ContainerId) -> Result<(), StoreError> {
        match self.owner(name) {
            Some(owner) if owner == *id => remove_file(&self.dir.join(name)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_who_race_for_a_name_exactly_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("names")).unwrap();
        let paths = Paths { root: dir.path().to_owned(), run: dir.path().to_owned() };
        let won: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..16)
                .map(|_| scope.spawn(|| Names::new(&paths).reserve("web", &ContainerId::generate()).is_ok()))
                .collect();
            tries.into_iter().map(|t| usize::from(t.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn names_are_spelled_as_docker_wants() {
        for good in ["ab", "web-1", "a.b_c", "0x"] {
            assert!(Names::check(good).is_ok(), "{good}");
        }
        for bad in ["", "k", "-a", "../x", "a/b", ".a", "a b", "é1"] {
            assert!(Names::check(bad).is_err(), "{bad}");
        }
    }
}
