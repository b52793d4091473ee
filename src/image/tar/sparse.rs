//! Sparse files: where their segments lie, in the four forms of GNU tar.

use super::extensions::Extensions;
use super::header::{BLOCK, Header, sparse_pairs};
use super::pax;
use super::reader::{Entry, MAX_FILE, Reader, Sink, TarError};
use std::io::Read;

/// Most segments of a sparse file.
const MAX_SEGMENTS: usize = 100_000;
/// Longest number of a sparse file's table, in bytes; the largest has 20 digits.
const MAX_DIGITS: usize = 64;

impl<R: Read, S: Sink> Reader<R, S> {
    /// Finds the segments of a sparse file in whichever of the four forms they are written.
    pub(super) fn sparse_map(
        &mut self,
        letter: u8,
        header: &Header<'_>,
        ext: &Extensions,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let at = self.position;
        let fail = |what| TarError::Header { at, what };
        let (segments, real) = if letter == b'S' {
            let (mut segments, mut more, real) = header.gnu_sparse().ok_or_else(|| fail("malformed sparse header"))?;
            while more {
                let block = self.must_block()?;
                segments.extend(sparse_pairs(&block[..504]).ok_or_else(|| fail("malformed sparse table"))?);
                more = block[504] != 0;
                if segments.len() > MAX_SEGMENTS {
                    return Err(fail("too many segments in a sparse file"));
                }
            }
            (segments, real)
        } else if ext.sparse_major == Some(1) {
            (self.sparse_table()?, ext.sparse_size.ok_or_else(|| fail("sparse file without a size"))?)
        } else if ext.sparse {
            if !ext.sparse_map.len().is_multiple_of(2) {
                return Err(fail("malformed sparse map"));
            }
            let pairs = ext.sparse_map.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            (pairs, ext.sparse_size.ok_or_else(|| fail("sparse file without a size"))?)
        } else {
            return Ok(());
        };
        let mut end = 0u64;
        let mut stored = 0u64;
        for (offset, length) in &segments {
            let next = offset.checked_add(*length).ok_or_else(|| fail("sparse segment out of range"))?;
            if *offset < end || next > real {
                return Err(fail("sparse segments overlap or leave the file"));
            }
            end = next;
            stored += length;
        }
        if stored != self.left || real > MAX_FILE || segments.len() > MAX_SEGMENTS {
            return Err(fail("sparse segments do not fit the content"));
        }
        entry.size = real;
        entry.sparse = Some(segments);
        Ok(())
    }

    /// Reads the table at the start of the content (GNU sparse 1.0): decimal numbers on lines, padded to a block.
    fn sparse_table(&mut self) -> Result<Vec<(u64, u64)>, TarError> {
        let fail = |at| TarError::Header { at, what: "malformed sparse table" };
        let mut text = Vec::new();
        let mut wanted = None;
        let mut numbers: Vec<u64> = Vec::new();
        let mut from = 0;
        while wanted.is_none_or(|wanted| numbers.len() < wanted) {
            if self.left < BLOCK as u64 || text.len() > 40 * MAX_SEGMENTS {
                return Err(fail(self.position));
            }
            text.extend_from_slice(&self.must_block()?);
            self.left -= BLOCK as u64;
            while let Some(line) = text[from..].iter().position(|b| *b == b'\n') {
                let value = pax::decimal(&text[from..from + line]).ok_or_else(|| fail(self.position))?;
                from += line + 1;
                match wanted {
                    None if value as usize > MAX_SEGMENTS => return Err(fail(self.position)),
                    None => wanted = Some(value as usize * 2),
                    Some(_) => numbers.push(value),
                }
                if wanted == Some(numbers.len()) {
                    break;
                }
            }
            // Looked at again with every block, so a line may not go on for ever.
            if text.len() - from > MAX_DIGITS && wanted != Some(numbers.len()) {
                return Err(fail(self.position));
            }
        }
        Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, WriteEntry, Writer};
    use super::*;
    use std::io::Write as _;

    /// The table was looked through from its start with every block: four megabytes without an end of line took seconds.
    #[test]
    fn a_sparse_table_without_line_ends_is_refused_at_its_first_block() {
        let content = vec![b'1'; 1 << 20];
        let mut records = Vec::new();
        for (key, value) in [("major", "1"), ("minor", "0"), ("realsize", "9")] {
            pax::append(&mut records, format!("GNU.sparse.{key}").as_bytes(), value.as_bytes());
        }
        let mut writer = Writer::new(Vec::new());
        let mut entry = |name: &[u8], content: &[u8]| {
            let size = content.len() as u64;
            let (kind, xattrs) = (Kind::File, &[][..]);
            let entry =
                WriteEntry { path: name, link: b"", kind, mode: 0, uid: 0, gid: 0, mtime: (0, 0), size, xattrs };
            writer.entry(&entry).and_then(|()| writer.out.write_all(content)).unwrap();
        };
        entry(b"x", &records);
        entry(b"table", &content);
        let mut archive = writer.finish().unwrap();
        // The first entry becomes an extended header of the second.
        archive[156] = b'x';
        let archive = super::super::repair(&archive);
        match Reader::new(&archive[..], ()).next() {
            Err(TarError::Header { at, what: "malformed sparse table" }) => assert!(at <= 4 * BLOCK as u64, "{at}"),
            other => panic!("{other:?}"),
        }
    }
}
