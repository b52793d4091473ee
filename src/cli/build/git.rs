//! Repositories as build context: `https://HOST/PATH.git#REF:DIRECTORY` and the other forms of Docker's.
//!
//! The program `git` fetches one commit into a directory of the store. It reads no configuration of the machine, of the user or
//! of the repository, runs no hooks and no filters, takes no submodules, and speaks only the protocol that was asked for.

use crate::cli::error::Failure;
use crate::image::{Extracted, Images};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// A repository, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repository {
    /// What `git` is given.
    url: String,
    /// Protocol that it may speak.
    protocol: &'static str,
    /// Branch, tag or commit; the default branch when empty.
    reference: String,
    /// Directory in it that is the context.
    directory: String,
}

impl Repository {
    /// Reads a context that names a repository (*docker build, "Git repositories"*); `None` when it names none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let (url, protocol) = match place.split_once("://") {
            Some(("https", rest)) if rest.ends_with(".git") => (place.to_owned(), "https"),
            Some(("http", rest)) if rest.ends_with(".git") => (place.to_owned(), "http"),
            Some(("git", _)) => (place.to_owned(), "git"),
            Some(("ssh", _)) => (place.to_owned(), "ssh"),
            Some(_) => return None,
            None if place.starts_with("git@") && place.contains(':') => (place.to_owned(), "ssh"),
            None if place.starts_with("github.com/") => (format!("https://{place}"), "https"),
            None => return None,
        };
        // What looks like an option to git is none of ours.
        let plain = |text: &str| !text.starts_with('-') && !text.contains(['\0', '\n']);
        let all = [&url, reference, directory].into_iter().all(plain);
        all.then(|| Self { url, protocol, reference: reference.to_owned(), directory: directory.to_owned() })
    }

    /// Fetches it; returns the directory that is the context, and what keeps it.
    pub(super) fn fetch(&self, images: &Images) -> Result<(OwnedFd, Extracted), Failure> {
        let place = images.workspace()?;
        self.git(place.path(), &["init", "-q", "--template=", "."])?;
        let reference = if self.reference.is_empty() { "HEAD" } else { &self.reference };
        let fetch = |depth: &[&str], what: &str| {
            self.git(place.path(), &[&["fetch", "-q", "--no-tags"], depth, &["--", &self.url, what]].concat())
        };
        // A server may refuse a commit by its short name: then everything is fetched, and the commit looked for.
        let found = match fetch(&["--depth=1"], reference) {
            Ok(()) => "FETCH_HEAD",
            Err(error) => {
                let commit = reference.len() >= 4 && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
                if !commit {
                    return Err(error);
                }
                fetch(&[], "+refs/heads/*:refs/remotes/origin/*").map_err(|_| error)?;
                reference
            }
        };
        self.git(place.path(), &["-c", "advice.detachedHead=false", "checkout", "-q", "--detach", found])?;
        std::fs::remove_dir_all(place.path().join(".git"))?;
        let within = if self.directory.is_empty() { "." } else { self.directory.as_str() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let root = openat2(place.root(), within, flags, Mode::empty(), resolve).map_err(|errno| {
            Failure::failed(format!("{}: the directory {within:?} of it: {}", self.url, std::io::Error::from(errno)))
        })?;
        Ok((root, place))
    }

    fn git(&self, place: &Path, arguments: &[&str]) -> Result<(), Failure> {
        #[expect(
            clippy::disallowed_methods,
            reason = "fetching a repository is git's work, before any sandbox is made"
        )]
        let mut command = Command::new("git");
        command
            .current_dir(place)
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.autocrlf=false"])
            .args(["-c", "submodule.recurse=false", "-c", "transfer.fsckObjects=true"])
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", self.protocol)
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"] {
            command.env_remove(name);
        }
        let output = command.stderr(Stdio::piped()).output().map_err(|error| {
            Failure::failed(format!("run git for {}: {error}", self.url)).hint("a repository as context needs 'git'")
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").to_owned();
        Err(Failure::failed(format!("git cannot fetch {}: {}", self.url, crate::cli::error::clean(&last)))
            .hint("the context is written URL.git#REF:DIRECTORY"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_directories_and_addresses() {
        let shown = |text: &str| {
            Repository::parse(text).map(|r| format!("{} {} {} {}", r.protocol, r.url, r.reference, r.directory))
        };
        for (text, expected) in [
            ("https://h/a.git", Some("https https://h/a.git  ")),
            ("https://h/a.git#v1:sub/dir", Some("https https://h/a.git v1 sub/dir")),
            ("git://h/a#:dir", Some("git git://h/a  dir")),
            ("git@h:a/b.git#x", Some("ssh git@h:a/b.git x ")),
            ("ssh://git@h/a", Some("ssh ssh://git@h/a  ")),
            ("github.com/a/b", Some("https https://github.com/a/b  ")),
            ("https://h/a.tar.gz", None),
            ("file:///a.git", None),
            ("ext::sh -c x", None),
            ("./dir", None),
            ("git://h/a#--upload-pack=x", None),
        ] {
            assert_eq!(shown(text).as_deref(), expected, "{text}");
        }
    }
}
