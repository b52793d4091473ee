//! The 512-byte header block (*tar(5)*, POSIX.1-2001 "pax").

/// Bytes in a block.
pub(in crate::image) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) enum Kind {
    /// A regular file.
    File,
    /// A further name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
}

/// Where the content of a sparse file lies in it: offset and length.
pub(super) type Segments = Vec<(u64, u64)>;

/// One header block, with fields where they lie.
pub(super) struct Header<'a>(pub(super) &'a [u8; BLOCK]);

/// Tells whether bytes are a header: it carries the sum of its own bytes.
pub(in crate::image) fn is_tar(head: &[u8]) -> bool {
    head.try_into().is_ok_and(|head: &[u8; BLOCK]| Header(head).checksum_fits())
}

impl<'a> Header<'a> {
    /// Tells whether the stored checksum fits, computed over unsigned or (as old programs did) signed bytes.
    pub(super) fn checksum_fits(&self) -> bool {
        let Some(stored) = number(&self.0[148..156]) else { return false };
        let (mut unsigned, mut signed) = (0u64, 0i64);
        for (at, byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += u64::from(byte);
            signed += i64::from(byte as i8);
        }
        stored == unsigned as i64 || stored == signed
    }

    /// Returns the type letter.
    pub(super) fn letter(&self) -> u8 {
        self.0[156]
    }

    /// Returns the name, with the ustar prefix where there is one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if &self.0[257..263] == b"ustar\0" { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Returns the link target.
    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    /// Returns permission bits.
    pub(super) fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    /// Returns the owner.
    pub(super) fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    /// Returns the group.
    pub(super) fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    /// Returns the length of the content in the archive.
    pub(super) fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    /// Returns the modification time in seconds.
    pub(super) fn mtime(&self) -> Option<i64> {
        number(&self.0[136..148])
    }

    /// Returns the four (offset, length) pairs of an old GNU sparse header, whether more blocks follow, and the real size.
    pub(super) fn gnu_sparse(&self) -> Option<(Segments, bool, u64)> {
        let real = u64::try_from(number(&self.0[483..495])?).ok()?;
        Some((sparse_pairs(&self.0[386..482])?, self.0[482] != 0, real))
    }
}

/// Reads the pairs of a GNU sparse table up to the first empty one.
pub(super) fn sparse_pairs(table: &[u8]) -> Option<Segments> {
    let mut pairs = Vec::new();
    for pair in table.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        pairs.push((u64::try_from(number(&pair[..12])?).ok()?, u64::try_from(number(&pair[12..])?).ok()?));
    }
    Some(pairs)
}

/// Returns a field's bytes up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

/// Reads a number: octal digits between blanks and NULs, or GNU's base-256 with the top bit set; empty is zero.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => {
            let negative = first & 0x40 != 0;
            let mut value: i64 = if negative { -1 } else { 0 };
            for (at, byte) in field.iter().enumerate() {
                let byte = if at == 0 { if negative { byte | 0x80 } else { byte & 0x7f } } else { *byte };
                if at == 0 {
                    value = if negative { i64::from(byte as i8) } else { i64::from(byte) };
                    continue;
                }
                value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
            }
            Some(value)
        }
        _ => {
            let digits: &[u8] = text(field).trim_ascii();
            let mut value = 0i64;
            for digit in digits {
                if !(b'0'..=b'7').contains(digit) {
                    return None;
                }
                value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
            }
            Some(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 644 \0\0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\x01\0\0"), Some(65536));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"99"), None);
        assert_eq!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }
}
