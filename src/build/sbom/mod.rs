//! What is installed in a tree: a list of packages, as the package managers' own records have it, and that list as a document.
//!
//! Records may be anybody's: files are found and opened by descriptor and read up to a length; what makes no sense in one is
//! passed over.

mod records;
mod spdx;

pub use spdx::{Document, document};

use super::files::{Entry, Kind, Source, SourceError};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Type of the document, as a predicate.
pub const SPDX: &str = "https://spdx.dev/Document";

/// Longest record, bytes.
const MAX_RECORD: u64 = 64 << 20;
/// Most packages of a list.
const MAX_PACKAGES: usize = 200_000;

/// Whose packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manager {
    /// dpkg's.
    Deb,
    /// Alpine's.
    Apk,
    /// Python's.
    Pypi,
    /// Node's.
    Npm,
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Who installed it.
    pub manager: Manager,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it was built for; empty where that is nothing.
    pub architecture: String,
    /// What it says of its licence; may be empty.
    pub licence: String,
}

/// The distribution whose packages they are (*os-release(5)*).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// `ID`.
    pub id: String,
    /// `VERSION_ID`.
    pub version: String,
}

/// Which record a file is, by its path from the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    System,
    Deb,
    Apk,
    Python,
    Node,
}

impl Record {
    fn of(path: &[u8]) -> Option<Self> {
        let mut parts = path.rsplit(|byte| *byte == b'/');
        let (name, above, top) = (parts.next()?, parts.next(), parts.next());
        match path {
            b"usr/lib/os-release" | b"etc/os-release" => return Some(Self::System),
            b"var/lib/dpkg/status" => return Some(Self::Deb),
            b"lib/apk/db/installed" | b"usr/lib/apk/db/installed" => return Some(Self::Apk),
            _ if path.starts_with(b"var/lib/dpkg/status.d/") && !name.ends_with(b".md5sums") => return Some(Self::Deb),
            _ => {}
        }
        let packages = |part: Option<&[u8]>| matches!(part, Some(b"site-packages" | b"dist-packages"));
        match (name, above) {
            (b"METADATA", Some(info)) if info.ends_with(b".dist-info") && packages(top) => Some(Self::Python),
            (b"PKG-INFO", Some(info)) if info.ends_with(b".egg-info") && packages(top) => Some(Self::Python),
            (info, place) if info.ends_with(b".egg-info") && packages(place) => Some(Self::Python),
            (b"package.json", Some(_)) => {
                let scoped = top.is_some_and(|scope| scope.starts_with(b"@")) && parts.next() == Some(b"node_modules");
                (top == Some(b"node_modules") || scoped).then_some(Self::Node)
            }
            _ => None,
        }
    }
}

/// Why there is no list: one that leaves something out would be taken for the whole.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The tree cannot be walked, or a record not be read.
    #[error(transparent)]
    Tree(#[from] SourceError),
    /// A record is longer than what is read.
    #[error("the record '/{}' is longer than {} MiB", .0.display(), MAX_RECORD >> 20)]
    Record(PathBuf),
    /// There are more packages than what is listed.
    #[error("the image has more than {MAX_PACKAGES} packages")]
    Packages,
}

/// Lists the packages of a tree, in order and each once, and says whose tree it is.
///
/// # Errors
/// When the tree cannot be walked, a record not be read, or the list not be whole.
pub fn packages(root: BorrowedFd<'_>) -> Result<(Vec<Package>, System), ListError> {
    let (mut found, mut system) = (BTreeSet::new(), System::default());
    for picked in (Source { root, ignore: None, exclude: None }).pick("/")? {
        for entry in picked.entries.iter().filter(|entry| entry.kind == Kind::File) {
            let Some(record) = Record::of(entry.path.as_os_str().as_bytes()) else { continue };
            let text = read(&picked.open_below(root, entry)?, entry)?;
            match record {
                // `etc` comes before `usr`, and is most often a link to it.
                Record::System if system == System::default() => system = records::system(&text),
                Record::System => {}
                Record::Deb => found.extend(records::dpkg(&text)),
                Record::Apk => found.extend(records::apk(&text)),
                Record::Python => found.extend(records::python(&text)),
                Record::Node => found.extend(records::node(&text)),
            }
            if found.len() > MAX_PACKAGES {
                return Err(ListError::Packages);
            }
        }
    }
    Ok((found.into_iter().collect(), system))
}

fn read(file: &std::os::fd::OwnedFd, entry: &Entry) -> Result<String, ListError> {
    let failed = |source| SourceError::Io { path: entry.path.clone(), source };
    let mut bytes = Vec::new();
    let whole =
        File::from(file.try_clone().map_err(failed)?).take(MAX_RECORD + 1).read_to_end(&mut bytes).map_err(failed)?;
    if whole as u64 > MAX_RECORD {
        return Err(ListError::Record(entry.path.clone()));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_record_that_would_be_cut_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(scratch.path().join("var/lib/dpkg")).unwrap();
        let status = File::create(scratch.path().join("var/lib/dpkg/status")).unwrap();
        let root = File::open(scratch.path()).unwrap();
        status.set_len(MAX_RECORD).unwrap();
        packages(root.as_fd()).unwrap();
        status.set_len(MAX_RECORD + 1).unwrap();
        let refused = packages(root.as_fd()).unwrap_err().to_string();
        assert_eq!(refused, "the record '/var/lib/dpkg/status' is longer than 64 MiB");
    }

    #[test]
    fn records_are_known_by_their_places() {
        for (path, record) in [
            ("etc/os-release", Some(Record::System)),
            ("srv/etc/os-release", None),
            ("var/lib/dpkg/status", Some(Record::Deb)),
            ("var/lib/dpkg/status.d/base-files", Some(Record::Deb)),
            ("var/lib/dpkg/status.d/base-files.md5sums", None),
            ("lib/apk/db/installed", Some(Record::Apk)),
            ("usr/lib/python3/dist-packages/six-1.16.0.egg-info", Some(Record::Python)),
            ("usr/local/lib/python3.11/site-packages/pip-23.dist-info/METADATA", Some(Record::Python)),
            ("usr/local/lib/python3.11/site-packages/x/y.dist-info/METADATA", None),
            ("app/node_modules/left-pad/package.json", Some(Record::Node)),
            ("app/node_modules/@a/b/package.json", Some(Record::Node)),
            ("app/node_modules/a/test/package.json", None),
            ("app/package.json", None),
            ("package.json", None),
        ] {
            assert_eq!(Record::of(path.as_bytes()), record, "{path}");
        }
    }
}
