//! Repositories as build context and as a source of `ADD`.
//!
//! The program `git` fetches one commit into a directory of the store. It reads no configuration of the machine, of the user or
//! of the repository, runs no hooks and no filters, takes no submodules, and speaks only the protocol that was asked for.

use super::{Engine, EngineError};
use crate::image::{Extracted, Images};
use crate::step::Repository;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, chmodat, openat, openat2, statat,
    utimensat,
};
use std::ffi::{CStr, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};

/// Most bytes that are read of what git says.
const MAX_SAID: usize = 16 << 20;
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
    /// Fetches a repository that is a build context; returns the directory that is meant, and what keeps it.
    ///
    /// # Errors
    /// When there is no git, the repository or what is meant of it is not to be had, or the store cannot be written.
    pub fn fetch_context(
        &self,
        repository: &Repository,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Result<(OwnedFd, Extracted), EngineError> {
        let ends: Vec<_> = interrupt.into_iter().collect();
        let fetching = Fetching { repository, access: GitAccess::Own, ends: &ends };
        let images = Images::open(&self.paths)?;
        let known = fetching.look(&images)?;
        match known.files {
            Some(files) => Ok(files),
            None => fetching.fetch(&images, &known.commit, &known.name),
        }
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
        let said = self.git(place.path(), &["ls-remote", "-q", "--", &self.repository.url, asked, &peeled])?;
        match choose(&said, asked) {
            Some((commit, name)) => {
                self.check(&commit)?;
                Ok(Known { commit, name, files: None })
            }
            // A commit by its beginning is in no list: everything is fetched, and it is looked for.
            None if Repository::is_commit(reference) => {
                self.everything(place.path())?;
                let wanted = format!("{reference}^{{commit}}");
                let commit = self.git(place.path(), &["rev-parse", "--verify", "-q", "--end-of-options", &wanted]);
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
        self.begin(place.path())?;
        let fetch = |what: &str| {
            let arguments = ["fetch", "-q", "--no-tags", "--depth=1", "--", &self.repository.url, what];
            self.git(place.path(), &arguments).map(drop)
        };
        // Some servers give a commit by the name of a reference only, and some only with all that is before it.
        let outcome = fetch(commit).or_else(|error| match (error, name) {
            (EngineError::Interrupted, _) => Err(EngineError::Interrupted),
            (error, "") => Err(error),
            (_, name) => fetch(name),
        });
        let has = || self.git(place.path(), &["cat-file", "-e", commit]).is_ok();
        match outcome {
            Err(EngineError::Interrupted) => return Err(EngineError::Interrupted),
            Ok(()) if has() => {}
            outcome => {
                let everything = self.everything(place.path());
                if !has() {
                    outcome.and(everything)?;
                    return Err(self.absent(commit));
                }
            }
        }
        self.check_out(place, commit)
    }

    fn begin(&self, place: &Path) -> Result<(), EngineError> {
        self.git(place, &["init", "-q", "--template=", "."])?;
        self.git(place, &["remote", "add", "origin", &self.repository.url]).map(drop)
    }

    fn everything(&self, place: &Path) -> Result<(), EngineError> {
        if !place.join(".git").exists() {
            self.begin(place)?;
        }
        let url = &self.repository.url;
        let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        self.git(place, &["fetch", "-q", "--no-tags", "--", url, all[0], all[1]]).map(drop)
    }

    /// Puts a commit's files in place, as they would be anywhere: times are the commit's, modes those of git alone.
    fn check_out(&self, place: Extracted, commit: &str) -> Result<(OwnedFd, Extracted), EngineError> {
        self.git(place.path(), &["-c", "advice.detachedHead=false", "checkout", "-q", "--detach", commit])?;
        let time = self.git(place.path(), &["show", "-s", "--format=%ct", commit])?;
        let seconds: i64 = time.trim().parse().unwrap_or_default();
        let repository = place.path().join(".git");
        let io = |source| EngineError::Git { url: self.repository.shown(), what: "keep its files".into(), source };
        if self.repository.keep_git_dir {
            match std::fs::remove_file(repository.join("FETCH_HEAD")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
                _ => {}
            }
        } else {
            std::fs::remove_dir_all(&repository).map_err(io)?;
        }
        settle(place.root(), seconds, 0).map_err(|errno| io(errno.into()))?;
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

    fn failed(&self, what: String) -> EngineError {
        EngineError::Repository { url: self.repository.shown(), what }
    }

    /// Runs git in a directory and returns what it prints.
    fn git(&self, place: &Path, arguments: &[&str]) -> Result<String, EngineError> {
        #[expect(clippy::disallowed_methods, reason = "fetching a repository is git's work, outside of any sandbox")]
        let mut command = Command::new("git");
        command
            .current_dir(place)
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.autocrlf=false"])
            .args(["-c", "submodule.recurse=false", "-c", "transfer.fsckObjects=true"])
            .args(["-c", "core.logAllRefUpdates=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false"])
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", self.repository.protocol)
            .env("GIT_LFS_SKIP_SMUDGE", "1");
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"] {
            command.env_remove(name);
        }
        let own_keys = "-o IdentityFile=none -o IdentitiesOnly=no -o ForwardAgent=no -o BatchMode=yes";
        match &self.access {
            GitAccess::Own => {}
            // A Dockerfile names the server: it gets no name, password or key that it was not given.
            GitAccess::Nobody | GitAccess::Agent(_) => {
                command.env("HOME", place).env_remove("XDG_CONFIG_HOME").env_remove("GIT_ASKPASS");
                command.env_remove("SSH_ASKPASS").env("GIT_SSH_COMMAND", format!("ssh -F /dev/null {own_keys}"));
            }
        }
        match &self.access {
            GitAccess::Agent(socket) => drop(command.env("SSH_AUTH_SOCK", socket)),
            GitAccess::Nobody => drop(command.env_remove("SSH_AUTH_SOCK")),
            GitAccess::Own => {}
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let io = |what: &str| {
            let (url, what) = (self.repository.shown(), what.to_owned());
            move |source| EngineError::Git { url, what, source }
        };
        let mut child = command.spawn().map_err(io("run the program 'git'"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let heard = self.hear(stdout, stderr);
        if !matches!(heard, Ok(Some(_))) {
            // It may be waiting for a server that does not answer.
            let _ = child.kill();
        }
        let status = child.wait().map_err(io("wait for git"))?;
        let Some((said, complaint)) = heard.map_err(io("hear git"))? else { return Err(EngineError::Interrupted) };
        if status.success() {
            return Ok(said);
        }
        let last = complaint.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("git says nothing");
        Err(self.failed(last.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(400).collect()))
    }

    /// Reads what git says on both streams; `None` when the fetching is to end.
    fn hear(&self, stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> io::Result<Option<(String, String)>> {
        let (Some(mut stdout), Some(mut stderr)) = (stdout, stderr) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let (mut said, mut complaint) = (Vec::new(), Vec::new());
        let (mut open_out, mut open_err) = (true, true);
        while open_out || open_err {
            let mut fds: Vec<PollFd<'_>> =
                self.ends.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
            let ends = fds.len();
            if open_out {
                fds.push(PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN));
            }
            if open_err {
                fds.push(PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => drop(other?),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[..ends].contains(&true) {
                return Ok(None);
            }
            let mut ready = ready[ends..].iter();
            if open_out && ready.next() == Some(&true) {
                open_out = some(&mut stdout, &mut said)?;
            }
            if open_err && ready.next() == Some(&true) {
                open_err = some(&mut stderr, &mut complaint)?;
            }
        }
        Ok(Some((text(&said), text(&complaint))))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads some bytes; false at the end.
fn some(from: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    let count = from.read(&mut buffer)?;
    into.extend_from_slice(&buffer[..count]);
    match into.len() > MAX_SAID {
        true => Err(io::Error::other("it says more than 16 MiB")),
        false => Ok(count > 0),
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

/// Gives everything below a directory, but `.git` at the top, the times and modes that it has anywhere.
fn settle(directory: BorrowedFd<'_>, seconds: i64, depth: usize) -> Result<(), rustix::io::Errno> {
    if depth > MAX_DEPTH {
        return Err(rustix::io::Errno::NAMETOOLONG);
    }
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let open = |at: BorrowedFd<'_>, name: &CStr| {
        openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    };
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || (depth == 0 && name.to_bytes() == b".git") {
            continue;
        }
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                settle(open(directory, name)?.as_fd(), seconds, depth + 1)?;
                chmodat(directory, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            }
            FileType::RegularFile => {
                let mode = if stat.st_mode & 0o111 == 0 { 0o644 } else { 0o755 };
                chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
            }
            _ => {}
        }
        utimensat(directory, OsStr::from_bytes(name.to_bytes()), &times, AtFlags::SYMLINK_NOFOLLOW)?;
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
