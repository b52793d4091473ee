//! What the unpacking process tells its parent: one message at the end, little-endian, checked again on arrival.

use std::io::{self, Read};

/// Most bytes of a report.
const MAX_REPORT: u64 = 64 << 20;
/// Most device names kept for the record.
const MAX_DEVICES: usize = 64;

/// A finished or failed unpacking.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Why it failed; empty when it did not.
    pub(super) failure: String,
    /// Whether the split form gives the tar back (nothing was overwritten).
    pub(super) exact: bool,
    /// Entries unpacked.
    pub(super) entries: u64,
    /// Bytes of file content unpacked.
    pub(super) size: u64,
    /// Directories that hide what lies below them.
    pub(super) opaque: Vec<Vec<u8>>,
    /// Files with capabilities, and the value of the attribute.
    pub(super) capabilities: Vec<(Vec<u8>, Vec<u8>)>,
    /// Device nodes that were left out.
    pub(super) devices: Vec<Vec<u8>>,
}

impl Report {
    /// Notes a device node.
    pub(super) fn device(&mut self, path: &[u8]) {
        if self.devices.len() < MAX_DEVICES {
            self.devices.push(path.to_vec());
        }
    }

    /// Writes the report as bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.exact)];
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        let mut text = |letter: u8, bytes: &[u8]| {
            out.push(letter);
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        self.opaque.iter().for_each(|path| text(b'o', path));
        self.devices.iter().for_each(|path| text(b'd', path));
        for (path, value) in &self.capabilities {
            text(b'c', path);
            text(b'v', value);
        }
        text(b'e', self.failure.as_bytes());
        out
    }

    /// Reads a report; `None` when the process ended without a whole one.
    pub(super) fn read(from: impl Read) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        from.take(MAX_REPORT).read_to_end(&mut bytes)?;
        Ok(Self::decode(&bytes))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (exact, rest) = bytes.split_first()?;
        let (entries, rest) = rest.split_first_chunk()?;
        let (size, mut rest) = rest.split_first_chunk()?;
        let mut report = Self {
            exact: *exact == 1,
            entries: u64::from_le_bytes(*entries),
            size: u64::from_le_bytes(*size),
            ..Self::default()
        };
        loop {
            let (letter, after) = rest.split_first()?;
            let (length, after) = after.split_first_chunk()?;
            let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            match letter {
                b'o' => report.opaque.push(text.to_vec()),
                b'd' => report.device(text),
                b'c' => report.capabilities.push((text.to_vec(), Vec::new())),
                b'v' => report.capabilities.last_mut()?.1 = text.to_vec(),
                b'e' if after.is_empty() => {
                    report.failure = String::from_utf8_lossy(text).into_owned();
                    return Some(report);
                }
                _ => return None,
            }
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_report_counts_as_none() {
        let report = Report {
            exact: true,
            entries: 3,
            size: 9,
            opaque: vec![b"a".to_vec()],
            capabilities: vec![(b"b".to_vec(), vec![1; 20])],
            devices: vec![b"dev/null".to_vec()],
            failure: "x".to_owned(),
        };
        let bytes = report.encode();
        assert_eq!(Report::read(&bytes[..]).unwrap(), Some(report));
        for cut in 0..bytes.len() {
            assert_eq!(Report::decode(&bytes[..cut]), None, "{cut}");
        }
    }
}
