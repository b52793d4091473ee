//! Repositories as build context and as a source of `ADD`.
//!
//! The program `git` fetches one commit into a directory of the store. It reads no configuration of the machine, of the user or
//! of the repository, runs no hooks and no filters, takes no submodules, speaks only the protocol that was asked for, and has no
//! rights where it needs none ([`super::git_process`]).

use super::git_process::NOBODY;
use super::{Engine, EngineError};
use crate::image::{Extracted, Images};
use crate::step::{Material, Repository};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod,
    fchown, openat, openat2, statat, utimensat,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Deepest directory of a repository.
const MAX_DEPTH: usize = 400;

/// With whose keys git goes to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GitAccess {
    /// The caller's own: whoever runs the command has named the repository.
    Own,
    /// Those of an agent (`--ssh`), and no others.
    Agent(PathBuf),
    /// Nobody's.
    Nobody,
}

/// A repository that is being fetched.
pub(super) struct Fetching<'f> {
    pub(super) repository: &'f Repository,
    pub(super) access: GitAccess,
    /// Readable when the fetching is to end.
    pub(super) ends: &'f [BorrowedFd<'f>],
}

impl Engine {
    /// Fetches a repository that is a build context; returns the directory that is meant, what keeps it, and which commit it
    /// is.
    ///
    /// # Errors
    /// When there is no git, the repository or what is meant of it is not to be had, or the store cannot be written.
    pub fn fetch_context(
        &self,
        repository: &Repository,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Result<(OwnedFd, Extracted, Material), EngineError> {
        let ends: Vec<_> = interrupt.into_iter().collect();
        let fetching = Fetching { repository, access: GitAccess::Own, ends: &ends };
        let images = Images::open(&self.paths)?;
        let known = fetching.look(&images)?;
        let (root, kept) = match known.files {
            Some(files) => files,
            None => fetching.fetch(&images, &known.commit, &known.name)?,
        };
        Ok((root, kept, Material::commit(repository.shown(), &known.commit)))
    }
}

/// What a repository has where it is asked for a reference.
pub(super) struct Known {
    /// The commit.
    pub(super) commit: String,
    /// The full name of the reference it was found by; empty where the commit itself was given.
    pub(super) name: String,
    /// Its files, where they had to be fetched to know.
    pub(super) files: Option<(OwnedFd, Extracted)>,
}

impl Fetching<'_> {
    /// Finds out which commit is meant.
    pub(super) fn look(&self, images: &Images) -> Result<Known, EngineError> {
        let reference = self.repository.reference.as_str();
        if is_commit(reference) {
            let commit = reference.to_ascii_lowercase();
            self.check(&commit)?;
            return Ok(Known { commit, name: String::new(), files: None });
        }
        let asked = if reference.is_empty() { "HEAD" } else { reference };
        let place = images.workspace()?;
        let peeled = format!("{asked}^{{}}");
        let said = self.git(&place, &["ls-remote", "-q", "--", &self.repository.url, asked, &peeled])?;
        match choose(&said, asked) {
            Some((commit, name)) => {
                self.check(&commit)?;
                Ok(Known { commit, name, files: None })
            }
            // A commit by its beginning is in no list: everything is fetched, and it is looked for.
            None if Repository::is_commit(reference) => {
                self.everything(&place)?;
                let wanted = format!("{reference}^{{commit}}");
                let commit = self.git(&place, &["rev-parse", "--verify", "-q", "--end-of-options", &wanted]);
                let commit = commit.map_err(|_| self.absent(reference))?.trim().to_owned();
                self.check(&commit)?;
                let files = self.check_out(place, &commit)?;
                Ok(Known { commit, name: String::new(), files: Some(files) })
            }
            None => Err(self.absent(asked)),
        }
    }

    fn absent(&self, reference: &str) -> EngineError {
        self.failed(format!("it has no branch, tag or commit {reference:?}"))
    }

    /// Compares the commit with what it must be.
    fn check(&self, commit: &str) -> Result<(), EngineError> {
        match &self.repository.checksum {
            Some(checksum) if !commit.starts_with(&checksum.to_ascii_lowercase()) => {
                Err(self.failed(format!("commit is {commit} instead of {checksum}")))
            }
            _ => Ok(()),
        }
    }

    /// Fetches a commit; `name` is the reference it was found by.
    pub(super) fn fetch(&self, images: &Images, commit: &str, name: &str) -> Result<(OwnedFd, Extracted), EngineError> {
        let place = images.workspace()?;
        self.begin(&place)?;
        let fetch = |what: &str| {
            let arguments = ["fetch", "-q", "--no-tags", "--depth=1", "--", &self.repository.url, what];
            self.git(&place, &arguments).map(drop)
        };
        // Some servers give a commit by the name of a reference only, and some only with all that is before it.
        let outcome = fetch(commit).or_else(|error| match (error, name) {
            (EngineError::Interrupted, _) => Err(EngineError::Interrupted),
            (error, "") => Err(error),
            (_, name) => fetch(name),
        });
        let has = || self.git(&place, &["cat-file", "-e", commit]).is_ok();
        match outcome {
            Err(EngineError::Interrupted) => return Err(EngineError::Interrupted),
            Ok(()) if has() => {}
            outcome => {
                let everything = self.everything(&place);
                if !has() {
                    outcome.and(everything)?;
                    return Err(self.absent(commit));
                }
            }
        }
        self.check_out(place, commit)
    }

    fn begin(&self, place: &Extracted) -> Result<(), EngineError> {
        if self.is_confined() {
            let nobody = (Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)));
            fchown(place.root(), nobody.0, nobody.1).map_err(|errno| self.unkept(errno))?;
        }
        self.git(place, &["init", "-q", "--template=", "."])?;
        self.git(place, &["remote", "add", "origin", &self.repository.url]).map(drop)
    }

    fn everything(&self, place: &Extracted) -> Result<(), EngineError> {
        if !place.path().join(".git").exists() {
            self.begin(place)?;
        }
        let url = &self.repository.url;
        let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        self.git(place, &["fetch", "-q", "--no-tags", "--", url, all[0], all[1]]).map(drop)
    }

    /// Puts a commit's files in place, as they would be anywhere: times are the commit's, modes those of git alone.
    fn check_out(&self, place: Extracted, commit: &str) -> Result<(OwnedFd, Extracted), EngineError> {
        self.git(&place, &["-c", "advice.detachedHead=false", "checkout", "-q", "--detach", commit])?;
        let time = self.git(&place, &["show", "-s", "--format=%ct", commit])?;
        let seconds: i64 = time.trim().parse().unwrap_or_default();
        own(place.root(), 0).map_err(|errno| self.unkept(errno))?;
        let repository = place.path().join(".git");
        if self.repository.keep_git_dir {
            match std::fs::remove_file(repository.join("FETCH_HEAD")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.unkept(error)),
                _ => {}
            }
        } else {
            std::fs::remove_dir_all(&repository).map_err(|error| self.unkept(error))?;
        }
        settle(place.root(), seconds, 0).map_err(|errno| self.unkept(errno))?;
        let directory = self.repository.directory.as_str();
        let within = if directory.is_empty() { "." } else { directory };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let root = openat2(place.root(), within, flags, Mode::empty(), resolve).map_err(|errno| EngineError::Git {
            url: self.repository.shown(),
            what: format!("open the directory {within:?} of it"),
            source: errno.into(),
        })?;
        Ok((root, place))
    }

    fn unkept(&self, source: impl Into<std::io::Error>) -> EngineError {
        EngineError::Git { url: self.repository.shown(), what: "keep its files".into(), source: source.into() }
    }

    fn failed(&self, what: String) -> EngineError {
        EngineError::Repository { url: self.repository.shown(), what }
    }
}

/// Tells whether a text is a whole commit.
fn is_commit(text: &str) -> bool {
    text.len() >= 40 && Repository::is_commit(text)
}

/// Chooses from what `ls-remote` prints: a branch before a tag, as `git checkout` does, and a tag's commit instead of the tag.
fn choose(said: &str, asked: &str) -> Option<(String, String)> {
    let lines: Vec<(&str, &str)> = said.lines().filter_map(|line| line.split_once('\t')).collect();
    let find = |name: String| {
        let (commit, _) = lines.iter().find(|(commit, found)| *found == name && is_commit(commit))?;
        Some(((*commit).to_owned(), name.trim_end_matches("^{}").to_owned()))
    };
    let names = ["refs/heads/", "refs/tags/", "refs/", ""];
    names.iter().find_map(|before| find(format!("{before}{asked}^{{}}")).or_else(|| find(format!("{before}{asked}"))))
}

/// Gives a directory and everything below it to root, and closes its directories to all others.
fn own(directory: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let root = (Some(Uid::ROOT), Some(Gid::ROOT));
    fchown(directory, root.0, root.1)?;
    fchmod(directory, Mode::from_raw_mode(0o755))?;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => own(open_directory(directory, name)?.as_fd(), depth + 1)?,
            _ => chownat(directory, name, root.0, root.1, AtFlags::SYMLINK_NOFOLLOW)?,
        }
    }
    Ok(())
}

fn open_directory(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Gives everything below a directory, but `.git` at the top, the times and modes that it has anywhere.
fn settle(directory: BorrowedFd<'_>, seconds: i64, depth: usize) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || (depth == 0 && name.to_bytes() == b".git") {
            continue;
        }
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                settle(open_directory(directory, name)?.as_fd(), seconds, depth + 1)?;
                chmodat(directory, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            }
            FileType::RegularFile => {
                let mode = if stat.st_mode & 0o111 == 0 { 0o644 } else { 0o755 };
                chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
            }
            _ => {}
        }
        utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_comes_before_a_tag_and_a_tags_commit_before_the_tag() {
        let id = |letter: char| letter.to_string().repeat(40);
        let line = |letter: char, name: &str| format!("{}\t{name}\n", id(letter));
        let said = |lines: &[(char, &str)]| lines.iter().map(|(letter, name)| line(*letter, name)).collect::<String>();
        for (lines, asked, expected) in [
            (&[('a', "HEAD"), ('b', "refs/remotes/x/HEAD")][..], "HEAD", Some(('a', "HEAD"))),
            (&[('a', "refs/tags/v"), ('b', "refs/heads/v")], "v", Some(('b', "refs/heads/v"))),
            (&[('a', "refs/tags/v"), ('b', "refs/tags/v^{}")], "v", Some(('b', "refs/tags/v"))),
            (&[('a', "refs/pull/1/head")], "pull/1/head", Some(('a', "refs/pull/1/head"))),
            (&[('a', "refs/heads/x/v")], "v", None),
            (&[('a', "refs/heads/v")], "refs/heads/v", Some(('a', "refs/heads/v"))),
            (&[('x', "refs/heads/v")], "v", None),
        ] {
            let expected = expected.map(|(letter, name)| (id(letter), name.to_owned()));
            assert_eq!(choose(&said(lines), asked), expected, "{lines:?}");
        }
    }
}
