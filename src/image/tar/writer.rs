//! Writes a tar stream the same way every time: ustar headers, PAX records only where ustar cannot say it.

use super::header::{BLOCK, Kind};
use super::pax;
use std::io::{self, Write};

/// An entry to write.
#[derive(Clone, Debug)]
pub(in crate::image) struct WriteEntry<'a> {
    /// Path without a leading slash; directories with a trailing one.
    pub(in crate::image) path: &'a [u8],
    /// Target of links.
    pub(in crate::image) link: &'a [u8],
    /// What it is; devices are never written.
    pub(in crate::image) kind: Kind,
    /// Permission bits.
    pub(in crate::image) mode: u32,
    /// Owner.
    pub(in crate::image) uid: u32,
    /// Group.
    pub(in crate::image) gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub(in crate::image) mtime: (i64, u32),
    /// Length of the content that follows.
    pub(in crate::image) size: u64,
    /// Extended attributes, sorted by name.
    pub(in crate::image) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// A writer of headers; the caller writes each entry's content to `out` itself.
pub(in crate::image) struct Writer<W> {
    /// Where it goes.
    pub(in crate::image) out: W,
    open: u64,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub(in crate::image) fn new(out: W) -> Self {
        Self { out, open: 0 }
    }

    /// Writes an entry's headers.
    pub(in crate::image) fn entry(&mut self, entry: &WriteEntry<'_>) -> io::Result<()> {
        self.pad()?;
        let mut records = Vec::new();
        let path = split_path(entry.path);
        if path.is_none() {
            pax::append(&mut records, b"path", entry.path);
        }
        if entry.link.len() > 100 {
            pax::append(&mut records, b"linkpath", entry.link);
        }
        if entry.size > OCTAL_11 {
            pax::append(&mut records, b"size", entry.size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
            if u64::from(id) > OCTAL_7 {
                pax::append(&mut records, key, id.to_string().as_bytes());
            }
        }
        if entry.mtime.1 != 0 || entry.mtime.0 < 0 || entry.mtime.0 as u64 > OCTAL_11 {
            pax::append(&mut records, b"mtime", mtime_text(entry.mtime).as_bytes());
        }
        for (name, value) in entry.xattrs {
            pax::append_attribute(&mut records, name, value);
        }
        if !records.is_empty() {
            let name = [b"PaxHeaders.0/", last_bytes(entry.path, 80)].concat();
            let header = header((b"", &name), b"", b'x', (0o644, 0, 0), records.len() as u64, 0);
            self.out.write_all(&header)?;
            records.resize(records.len().next_multiple_of(BLOCK), 0);
            self.out.write_all(&records)?;
        }
        let letter = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Device => b'3',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        let path = path.unwrap_or((b"", &entry.path[..entry.path.len().min(100)]));
        let ids = (entry.mode & 0o7777, entry.uid, entry.gid);
        let mtime = if (0..=OCTAL_11 as i64).contains(&entry.mtime.0) { entry.mtime.0 as u64 } else { 0 };
        let link = &entry.link[..entry.link.len().min(100)];
        let size = if entry.size > OCTAL_11 { 0 } else { entry.size };
        self.out.write_all(&header(path, link, letter, ids, size, mtime))?;
        self.open = entry.size;
        Ok(())
    }

    /// Writes a small file with its content; owner root, mode 0644.
    pub(in crate::image) fn file(&mut self, path: &str, mtime: i64, content: &[u8]) -> io::Result<()> {
        self.entry(&WriteEntry {
            path: path.as_bytes(),
            link: b"",
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (mtime, 0),
            size: content.len() as u64,
            xattrs: &[],
        })?;
        self.out.write_all(content)
    }

    /// Fills the last content up to a whole block.
    fn pad(&mut self) -> io::Result<()> {
        let rest = (BLOCK as u64 - self.open % BLOCK as u64) % BLOCK as u64;
        self.open = 0;
        self.out.write_all(&[0; BLOCK][..rest as usize])
    }

    /// Writes the end mark.
    pub(in crate::image) fn finish(mut self) -> io::Result<W> {
        self.pad()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

/// Largest number of eleven octal digits.
const OCTAL_11: u64 = 0o77_777_777_777;
/// Largest number of seven octal digits.
const OCTAL_7: u64 = 0o7_777_777;

fn mtime_text((seconds, nanos): (i64, u32)) -> String {
    match (seconds, nanos) {
        (_, 0) => seconds.to_string(),
        (..0, _) => {
            let rest = format!("{:09}", 1_000_000_000 - nanos);
            format!("-{}.{}", -(seconds + 1), rest.trim_end_matches('0'))
        }
        _ => format!("{seconds}.{}", format!("{nanos:09}").trim_end_matches('0')),
    }
}

/// Splits a path into ustar's prefix and name; `None` when it does not fit.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The name keeps at least one byte besides a directory's final slash.
    let from = path.len().saturating_sub(101);
    let cut = (from..path.len().saturating_sub(1)).find(|at| path[*at] == b'/')?;
    (cut <= 155 && cut > 0).then(|| (&path[..cut], &path[cut + 1..]))
}

fn last_bytes(path: &[u8], most: usize) -> &[u8] {
    &path[path.len().saturating_sub(most)..]
}

fn header(path: (&[u8], &[u8]), link: &[u8], letter: u8, ids: (u32, u32, u32), size: u64, mtime: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, path.1);
    put(100, format!("{:07o}", ids.0).as_bytes());
    put(108, format!("{:07o}", if u64::from(ids.1) > OCTAL_7 { 0 } else { ids.1 }).as_bytes());
    put(116, format!("{:07o}", if u64::from(ids.2) > OCTAL_7 { 0 } else { ids.2 }).as_bytes());
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{mtime:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[letter]);
    put(157, link);
    put(257, b"ustar\x0000");
    put(345, path.0);
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let xattrs = vec![(b"security.capability".to_vec(), vec![1, 0, 10, 0]), (b"user.a".to_vec(), b"b".to_vec())];
        let long = [b"d/".repeat(120), b"file".to_vec()].concat();
        let monster = vec![b'x'; 300];
        for path in [&b"a"[..], b"dir/", &long, &monster, &b"y".repeat(100)] {
            for mtime in [(0, 0), (5, 0), (5, 250_000_000), (-2, 750_000_000), (1 << 40, 1)] {
                let directory = path.ends_with(b"/");
                let mut writer = Writer::new(Vec::new());
                let kind = if directory { Kind::Directory } else { Kind::File };
                let size = if directory { 0 } else { 3 };
                let entry = WriteEntry {
                    path,
                    link: b"",
                    kind,
                    mode: 0o4755,
                    uid: 65535,
                    gid: 3_000_000,
                    mtime,
                    size,
                    xattrs: &xattrs,
                };
                writer.entry(&entry).unwrap();
                writer.out.extend_from_slice(&b"abc"[..size as usize]);
                writer.file("last", 1, b"content").unwrap();
                let archive = writer.finish().unwrap();
                assert_eq!(archive.len() % BLOCK, 0);
                let mut reader = Reader::new(&archive[..], ());
                let read = reader.next().unwrap().unwrap();
                assert_eq!((&read.path[..], read.kind, read.mtime, read.size), (path, kind, mtime, size));
                assert_eq!((read.mode, read.uid, read.gid), (0o4755, 65535, 3_000_000));
                assert_eq!(read.xattrs, xattrs);
                let last = reader.next().unwrap().unwrap();
                assert_eq!(last.path, b"last");
                assert_eq!(reader.content(100).unwrap(), Some(&b"content"[..]));
                assert!(reader.next().unwrap().is_none());
            }
        }
    }
}
