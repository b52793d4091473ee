//! The outer tar of `load`: where each member lies, so that any of them can be read at any time.

use super::error::{ImageError, Result};
use super::import::{create, sniff};
use super::ingest::Ingest;
use super::store::MAX_DOCUMENT;
use super::tar::{Kind, Reader};
use super::unpack::{Compression, Region, Source, copy_tar};
use crate::base::{Digest, with_causes};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Most members of an archive.
const MAX_MEMBERS: usize = 200_000;
/// Content longer than this is skipped by position instead of being read over.
const SKIP: u64 = 4 << 20;
/// Most links from one member to the next.
const MAX_LINKS: usize = 8;

enum Member {
    File { offset: u64, length: u64 },
    Link(Vec<u8>),
}

/// An archive whose members are known.
pub(super) struct Archive<'a> {
    /// Our copy of what came through a pipe or was compressed.
    copy: Option<File>,
    theirs: &'a File,
    members: HashMap<Vec<u8>, Member>,
}

impl<'a> Archive<'a> {
    /// Reads the table of members; what is no plain file is copied into the ingest first.
    pub(super) fn open(theirs: &'a File, ingest: &Ingest) -> Result<Self> {
        let mut head = Vec::new();
        let source = sniff(theirs, &mut head)?;
        let compression = Compression::of(&super::import::magic(source)?);
        let (copy, start, length) = match (source, compression) {
            (Source::Region { offset, length, .. }, Compression::None) => (None, offset, length),
            _ => {
                let path = ingest.fresh();
                let mut copy = create(&path)?;
                copy_tar(source, compression, &mut copy)?;
                let length = copy.metadata().map_err(ImageError::io("look at", &path))?.len();
                (Some(copy), 0, length)
            }
        };
        let members = table(copy.as_ref().unwrap_or(theirs), start, length)?;
        Ok(Self { copy, theirs, members })
    }

    fn file(&self) -> &File {
        self.copy.as_ref().unwrap_or(self.theirs)
    }

    /// Tells whether there is such a member.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name.as_bytes())
    }

    fn find(&self, document: &'static str, name: &str) -> Result<(u64, u64)> {
        let missing = || ImageError::Missing { document, member: name.to_owned() };
        let mut path = normal(name.as_bytes()).ok_or_else(missing)?;
        for _ in 0..MAX_LINKS {
            match self.members.get(&path) {
                Some(Member::File { offset, length }) => return Ok((*offset, *length)),
                Some(Member::Link(to)) => path = to.clone(),
                None => break,
            }
        }
        Err(missing())
    }

    /// Returns a member as a source.
    pub(super) fn source(&self, document: &'static str, name: &str) -> Result<Source<'_>> {
        let (offset, length) = self.find(document, name)?;
        Ok(Source::Region { file: self.file(), offset, length })
    }

    /// Reads a document whole.
    pub(super) fn read(&self, document: &'static str, name: &str) -> Result<Vec<u8>> {
        let (offset, length) = self.find(document, name)?;
        if length > MAX_DOCUMENT {
            return Err(ImageError::Invalid { document: name.to_owned(), what: "is longer than 8 MiB" });
        }
        let mut bytes = vec![0; length as usize];
        self.file().read_exact_at(&mut bytes, offset).map_err(ImageError::stream("read"))?;
        Ok(bytes)
    }

    /// Reads and parses a document.
    pub(super) fn json<T: DeserializeOwned>(&self, document: &'static str, name: &str) -> Result<T> {
        serde_json::from_slice(&self.read(document, name)?).map_err(ImageError::document(name))
    }

    /// Reads a blob of an OCI layout and checks its digest.
    pub(super) fn blob(&self, document: &'static str, digest: &Digest) -> Result<Vec<u8>> {
        let name = blob_name(digest);
        let bytes = self.read(document, &name)?;
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(ImageError::Digest { what: name, expected: digest.clone(), found })
        }
    }
}

/// Returns the name of a blob in a layout.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn table(file: &File, start: u64, length: u64) -> Result<HashMap<Vec<u8>, Member>> {
    let mut members = HashMap::new();
    let end = start.saturating_add(length);
    let mut base = start;
    let reader_at = |at: u64| Reader::new(Region { file, offset: at, left: end.saturating_sub(at) }, ());
    let mut reader = reader_at(base);
    while let Some(entry) = reader.next().map_err(|error| ImageError::Archive(with_causes(&error)))? {
        if members.len() >= MAX_MEMBERS {
            return Err(ImageError::Archive(format!("more than {MAX_MEMBERS} members")));
        }
        let offset = base + reader.position();
        let Some(path) = normal(&entry.path) else { continue };
        match entry.kind {
            Kind::File if entry.sparse.is_none() => {
                if offset.saturating_add(entry.size) > end {
                    return Err(ImageError::Archive(format!(
                        "archive is truncated at byte {length}; make or fetch it again"
                    )));
                }
                members.insert(path, Member::File { offset, length: entry.size });
                if entry.size > SKIP {
                    base = offset + entry.size.next_multiple_of(512);
                    reader = reader_at(base);
                    if base >= end {
                        break;
                    }
                }
            }
            Kind::Symlink => {
                let directory = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &path[..at]);
                if let Some(to) = normal(&[directory, b"/", &entry.link[..]].concat()) {
                    members.insert(path, Member::Link(to));
                }
            }
            Kind::HardLink => {
                if let Some(to) = normal(&entry.link) {
                    members.insert(path, Member::Link(to));
                }
            }
            _ => {}
        }
    }
    Ok(members)
}

/// Resolves `.` and `..` in a member's name; `None` when it leaves the archive.
fn normal(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}
