//! Places outside of the context that files are fetched from, and how they are written. Pure: fetches nothing.

use crate::base::Digest;
use serde::Serialize;

/// Name of a file whose address has none, as in BuildKit.
const UNNAMED: &str = "__unnamed__";

/// What `ADD` asks for besides files of the context (*Dockerfile reference "ADD"*). The serialised form is part of the
/// cache key: an address is none of it, what it serves is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoteWish {
    /// A file.
    File(RemoteFile),
    /// A repository.
    Repository(Repository),
}

/// A file by its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemoteFile {
    /// `http://` or `https://`.
    #[serde(skip)]
    pub address: String,
    /// Name it has where it goes into a directory: the last of its path.
    pub name: String,
    /// `--checksum`.
    pub checksum: Option<Digest>,
}

/// A repository, and what of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repository {
    /// What `git` is given.
    #[serde(skip)]
    pub url: String,
    /// Protocol that it may speak.
    #[serde(skip)]
    pub protocol: &'static str,
    /// Branch, tag or commit; the default branch when empty.
    #[serde(skip)]
    pub reference: String,
    /// Directory in it that is meant.
    pub directory: String,
    /// `.git` comes along.
    pub keep_git_dir: bool,
    /// The commit, or its beginning, that it must be.
    pub checksum: Option<String>,
}

/// What a remote place holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote<V> {
    /// What tells it from anything else, for the step's key: a digest, a commit.
    pub state: String,
    /// By what name it was found there; empty where that is of no use.
    pub name: String,
    /// Its files, where they had to be fetched to know.
    pub files: Option<V>,
}

/// Told how far a transfer is: bytes that are here, and all there will be where that is known.
pub type Moved<'m> = &'m (dyn Fn(u64, Option<u64>) + Sync);

/// Why an address is none of a place that can be fetched from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place:?}: {why}")]
pub struct RemoteError {
    /// As it was given, without what may be secret.
    pub place: String,
    /// What is wrong.
    pub why: &'static str,
}

impl RemoteWish {
    /// Reads a source of `ADD`; `None` when it is a path of the context.
    ///
    /// # Errors
    /// When it is an address, but none that is fetched from.
    pub fn parse(text: &str) -> Result<Option<Self>, RemoteError> {
        if let Some(repository) = Repository::parse(text)? {
            return Ok(Some(Self::Repository(repository)));
        }
        if !is_file_address(text) {
            return Ok(None);
        }
        let file = RemoteFile { address: text.to_owned(), name: file_name(text), checksum: None };
        Ok(Some(Self::File(file)))
    }

    /// Returns the address, without what may be secret in it.
    pub fn shown(&self) -> String {
        match self {
            Self::File(file) => bare_address(&file.address),
            Self::Repository(repository) => repository.shown(),
        }
    }
}

/// Tells whether a text is the address of a file or a repository's served like one.
pub fn is_file_address(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("http" | "https"))
}

/// An address without its query and its user's name and password.
pub fn bare_address(address: &str) -> String {
    let address = address.split(['?', '#']).next().unwrap_or_default();
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}/{path}")
        }
        None => address.to_owned(),
    }
}

/// The last name of an address's path, `%XX` read.
fn file_name(address: &str) -> String {
    let place = address.split_once("://").map_or(address, |(_, rest)| rest);
    let path = place.split(['?', '#']).next().unwrap_or_default().split_once('/').map_or("", |(_, path)| path);
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = decoded(name).unwrap_or_else(|| name.to_owned());
    match name.as_str() {
        "" | "." | ".." => UNNAMED.to_owned(),
        // Decoded, it may hold what no name can.
        name if name.contains(['/', '\0']) || name.len() > 255 => UNNAMED.to_owned(),
        _ => name,
    }
}

/// Reads `%XX`; `None` when it is malformed or no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

impl Repository {
    /// Reads an address that is a repository's: `https://HOST/PATH.git[?ref=..][#REF[:DIRECTORY]]`, `git://`, `ssh://`,
    /// `git@HOST:PATH` (*docker build, "Git repositories"*); `None` when it is none.
    ///
    /// # Errors
    /// When it is one, but asks for what is not done or cannot be.
    pub fn parse(text: &str) -> Result<Option<Self>, RemoteError> {
        let (whole, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (place, query) = whole.split_once('?').unwrap_or((whole, ""));
        let scheme = place.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let protocol = match scheme.as_deref() {
            Some("https") if place.ends_with(".git") => "https",
            Some("http") if place.ends_with(".git") => "http",
            Some("git") => "git",
            Some("ssh") => "ssh",
            None if place.starts_with("git@") && place.contains(':') => "ssh",
            _ => return Ok(None),
        };
        Self { url: place.to_owned(), protocol, ..Self::nothing() }.with(fragment, query).map(Some)
    }

    /// Reads the argument of `build`; there `github.com/...` is a repository, too.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_context(text: &str) -> Result<Option<Self>, RemoteError> {
        match text.starts_with("github.com/") {
            true => {
                let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
                Self { url: format!("https://{place}"), protocol: "https", ..Self::nothing() }
                    .with(fragment, "")
                    .map(Some)
            }
            false => Self::parse(text),
        }
    }

    /// Tells whether a text may be a commit, or the beginning of one.
    pub fn is_commit(text: &str) -> bool {
        (4..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// Returns its address, without what may be secret in it.
    pub fn shown(&self) -> String {
        bare_address(&self.url)
    }

    fn nothing() -> Self {
        let (url, reference, directory) = (String::new(), String::new(), String::new());
        Self { url, protocol: "https", reference, directory, keep_git_dir: false, checksum: None }
    }

    /// Adds what stands behind the address.
    fn with(mut self, fragment: &str, query: &str) -> Result<Self, RemoteError> {
        let place = bare_address(&self.url);
        let refuse = |why| RemoteError { place: place.clone(), why };
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        (self.reference, self.directory) = (reference.to_owned(), directory.to_owned());
        for field in query.split('&').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let value = decoded(value).ok_or_else(|| refuse("a value of its query is no text"))?;
            let is_true = matches!(value.as_str(), "" | "1" | "true");
            match name {
                "ref" | "branch" | "tag" if self.reference.is_empty() => self.reference = value,
                "ref" | "branch" | "tag" => return Err(refuse("it names what is meant of it twice")),
                "subdir" if self.directory.is_empty() => self.directory = value,
                "subdir" => return Err(refuse("it names its directory twice")),
                "keep-git-dir" => self.keep_git_dir = is_true,
                "checksum" | "commit" => self.checksum = Some(value),
                "submodules" if !is_true => {}
                "submodules" => return Err(refuse("submodules are not fetched")),
                _ => {
                    return Err(refuse(
                        "its query has a field that is none of ref, branch, tag, subdir, checksum, keep-git-dir",
                    ));
                }
            }
        }
        if self.checksum.as_deref().is_some_and(|checksum| !Self::is_commit(checksum)) {
            return Err(refuse("its checksum is no commit: 4 to 64 hexadecimal digits"));
        }
        // What looks like an option to git, or like several lines, is none of ours.
        let plain = |text: &str| !text.starts_with('-') && !text.contains(char::is_control);
        let fine = [&self.url, &self.reference, &self.directory].into_iter().all(|text| plain(text));
        match fine {
            true => Ok(self),
            false => Err(refuse("its parts may not begin with - or hold control characters")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_directories_and_addresses() {
        let shown = |text: &str| {
            let found = Repository::parse_context(text).unwrap();
            found.map(|r| format!("{} {} {} {}", r.protocol, r.url, r.reference, r.directory))
        };
        for (text, expected) in [
            ("https://h/a.git", Some("https https://h/a.git  ")),
            ("https://h/a.git#v1:sub/dir", Some("https https://h/a.git v1 sub/dir")),
            ("https://h/a.git?ref=v%201&subdir=s", Some("https https://h/a.git v 1 s")),
            ("git://h/a#:dir", Some("git git://h/a  dir")),
            ("git@h:a/b.git#x", Some("ssh git@h:a/b.git x ")),
            ("ssh://git@h/a", Some("ssh ssh://git@h/a  ")),
            ("github.com/a/b", Some("https https://github.com/a/b  ")),
            ("https://h/a.tar.gz", None),
            ("file:///a.git", None),
            ("ext::sh -c x", None),
            ("./dir", None),
        ] {
            assert_eq!(shown(text).as_deref(), expected, "{text}");
        }
        for (bad, why) in [
            ("git://h/a#--upload-pack=x", "begin with -"),
            ("git://h/a#:-x", "begin with -"),
            ("https://h/a.git?submodules=1", "submodules"),
            ("https://h/a.git?x=1", "none of ref"),
            ("https://h/a.git?ref=a#b", "twice"),
            ("https://h/a.git?ref=%zz", "no text"),
            ("https://h/a.git?checksum=xyz1", "no commit"),
            ("https://h/a.git#a\nb", "control"),
        ] {
            let error = Repository::parse(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn sources_of_add_are_files_repositories_or_paths() {
        let name = |text: &str| match RemoteWish::parse(text).unwrap() {
            Some(RemoteWish::File(file)) => file.name,
            Some(RemoteWish::Repository(_)) => "(repository)".to_owned(),
            None => "(path)".to_owned(),
        };
        for (text, expected) in [
            ("https://h/a/b.txt?x=/y#z", "b.txt"),
            ("HTTP://h/a%20b", "a b"),
            ("http://h/a/", "a"),
            ("http://h", UNNAMED),
            ("http://h/", UNNAMED),
            ("http://h/?a/b", UNNAMED),
            ("http://h/a/..", UNNAMED),
            ("http://h/%2e%2e", UNNAMED),
            ("http://h/a%2Fb", UNNAMED),
            ("http://h/a%00b", UNNAMED),
            ("http://h/a%zz", "a%zz"),
            ("https://h/a.git", "(repository)"),
            ("git@h:a", "(repository)"),
            ("github.com/a/b.git", "(path)"),
            ("ftp://h/a", "(path)"),
            ("a.git", "(path)"),
        ] {
            assert_eq!(name(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_no_part_of_a_key_and_show_no_secrets() {
        let wish = RemoteWish::parse("https://u:p@h/a?token=t").unwrap().unwrap();
        assert_eq!(wish.shown(), "https://h/a");
        assert_eq!(serde_json::to_string(&wish).unwrap(), r#"{"file":{"name":"a","checksum":null}}"#);
    }
}
