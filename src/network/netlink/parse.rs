//! Reading netlink answers: bounds are checked, nothing is trusted.

use super::NetlinkError;
use super::message::HEADER;

/// One message of an answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) struct Reply<'a> {
    /// Message type.
    pub kind: u16,
    /// Number of the request it answers.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages of one datagram.
pub(in crate::network) struct Replies<'a>(&'a [u8]);

impl<'a> Replies<'a> {
    pub(in crate::network) fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let (Some(length), Some(kind), Some(sequence)) = (u32_at(rest, 0), u16_at(rest, 4), u32_at(rest, 8)) else {
            return Some(Err(NetlinkError::Malformed));
        };
        let length = length as usize;
        let Some(body) = rest.get(HEADER..length) else {
            return Some(Err(NetlinkError::Malformed));
        };
        self.0 = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Reply { kind, sequence, body }))
    }
}

/// The attributes of a message or of a nested attribute, flags taken off their types.
#[derive(Clone, Copy)]
pub(in crate::network) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(in crate::network) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the first attribute of a type; a malformed rest counts as absent.
    pub(in crate::network) fn find(self, wanted: u16) -> Option<&'a [u8]> {
        self.map_while(Result::ok).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) else {
            return Some(Err(NetlinkError::Malformed));
        };
        let length = usize::from(length);
        let Some(value) = rest.get(4..length) else {
            return Some(Err(NetlinkError::Malformed));
        };
        self.0 = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((kind & 0x3fff, value)))
    }
}

/// Reads a number in the machine's order.
pub(in crate::network) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Reads a number in the machine's order.
pub(in crate::network) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Reads a number in network order.
pub(in crate::network) fn u32_be(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Reads a text up to its NUL.
pub(in crate::network) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
