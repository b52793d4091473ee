//! What outsiders' archives go through here, as functions of bytes; see `fuzz/` and `crate::fuzz_tests`.

use super::tar::{Entry, Kind, Reader, Sink, WriteEntry, Writer, repair};
use std::cell::RefCell;
use std::io::{self, Read};

pub use super::unpack::fuzz::{report, unpack};

/// Gives a few bytes at a time, as a pipe may.
struct Sips<'a> {
    rest: &'a [u8],
    most: usize,
}

impl Read for Sips<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.rest.len().min(self.most).min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest[..count]);
        self.rest = &self.rest[count..];
        Ok(count)
    }
}

/// Keeps what is no content, in the order of the stream.
struct Kept<'a>(&'a RefCell<Vec<u8>>);

impl Sink for Kept<'_> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(())
    }
}

/// What a reading came to: the bytes put together again, the entries, and why it ended early.
type Reading = (Vec<u8>, Vec<Entry>, Option<String>);

fn read(bytes: &[u8], most: usize) -> Reading {
    let whole = RefCell::new(Vec::with_capacity(bytes.len()));
    let mut reader = Reader::new(Sips { rest: bytes, most }, Kept(&whole));
    let mut entries = Vec::new();
    let mut every = || loop {
        let Some(entry) = reader.next()? else { return Ok(()) };
        let is_file = entry.kind == Kind::File;
        entries.push(entry);
        while let Some(content) = if is_file { reader.content(u64::MAX)? } else { None } {
            whole.borrow_mut().extend_from_slice(content);
        }
    };
    let ended: Result<(), super::tar::TarError> = every();
    (whole.into_inner(), entries, ended.err().map(|error| error.to_string()))
}

/// An archive, as it is and with its checksums put right: what is read is put together again byte for byte, in whatever
/// pieces it came; an entry that is written anew reads the same.
pub fn tar(bytes: &[u8]) {
    archive(bytes);
    archive(&repair(bytes));
}

fn archive(bytes: &[u8]) {
    let (whole, entries, failure) = read(bytes, usize::MAX);
    match failure {
        None => assert!(whole == bytes, "the parts are not the whole"),
        Some(_) => assert!(bytes.starts_with(&whole), "the parts are no beginning of the whole"),
    }
    let sips = read(bytes, 1 + bytes.len() % 700);
    assert_eq!((&sips.1, &sips.2), (&entries, &failure), "in small pieces it reads differently");
    // What the pieces held of a failing entry's content may be less.
    assert!(failure.is_some() || sips.0 == whole);
    for entry in &entries {
        written_anew(entry);
    }
}

/// Writes an entry as a committed layer would have it, and reads it back.
fn written_anew(entry: &Entry) {
    let (Ok(uid), Ok(gid)) = (u32::try_from(entry.uid), u32::try_from(entry.gid)) else { return };
    // Paths of a file system have no NUL and are not empty; a file's has no slash at its end.
    let slash = entry.path.ends_with(b"/") && entry.kind == Kind::File;
    if entry.path.is_empty() || entry.path.contains(&0) || entry.link.contains(&0) || slash || entry.sparse.is_some() {
        return;
    }
    let mut writer = Writer::new(Vec::new());
    let Entry { path, link, kind, mode, mtime, xattrs, .. } = entry;
    let size = if entry.size > 1 << 33 { entry.size } else { 0 };
    let new = WriteEntry { path, link, kind: *kind, mode: *mode, uid, gid, mtime: *mtime, size, xattrs };
    writer.entry(&new).expect("write to memory");
    let mut reader = Reader::new(&writer.out[..], ());
    let again = reader.next().expect("what we write can be read").expect("there is an entry");
    let expected = Entry { size, ..entry.clone() };
    assert_eq!(again, expected);
}
