//! Writing netlink messages: every length field is computed here and nowhere else.

use super::NetlinkError;

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Marks an attribute that holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;

/// Request flag: this is a request (`NLM_F_REQUEST`).
pub(in crate::network) const REQUEST: u16 = 0x1;
/// Request flag: answer with an acknowledgement (`NLM_F_ACK`).
pub(in crate::network) const ACK: u16 = 0x4;
/// Request flag: refuse what exists (`NLM_F_EXCL`).
pub(in crate::network) const EXCLUSIVE: u16 = 0x200;
/// Request flag: make what is missing (`NLM_F_CREATE`).
pub(in crate::network) const CREATE: u16 = 0x400;
/// Request flag: add behind what is there (`NLM_F_APPEND`).
pub(in crate::network) const APPEND: u16 = 0x800;
/// Request flag: return everything (`NLM_F_DUMP`).
pub(in crate::network) const DUMP: u16 = 0x300;

/// One netlink message being written.
///
/// A value too long for its length field spoils the whole message, which is then refused by [`Message::finish`]: no
/// length is ever cut off or wrapped (the class of CVE-2021-43784).
#[derive(Clone, Debug)]
pub(in crate::network) struct Message {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Message {
    /// Begins a message of this type with its family's fixed header.
    pub(in crate::network) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        let mut message = Self { bytes, too_long: false };
        message.pad();
        message
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Adds an attribute with these bytes.
    pub(in crate::network) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let Ok(length) = u16::try_from(value.len().saturating_add(4)) else {
            self.too_long = true;
            return;
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Adds a text with its closing NUL; a text with a NUL inside spoils the message.
    pub(in crate::network) fn text(&mut self, kind: u16, value: &str) {
        if value.as_bytes().contains(&0) {
            self.too_long = true;
            return;
        }
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// Adds a number in the machine's order (rtnetlink).
    pub(in crate::network) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Adds a number in network order (nfnetlink).
    pub(in crate::network) fn number_be(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Adds an attribute that holds what `fill` adds.
    pub(in crate::network) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => {
                self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
                self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
            }
            Err(_) => self.too_long = true,
        }
    }

    /// Adds raw bytes: a fixed header inside a nested attribute.
    pub(in crate::network) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Asks for an acknowledgement as well.
    pub(in crate::network) fn acknowledge(&mut self) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | ACK;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// Ends the message.
    ///
    /// # Errors
    /// When a value did not fit into its length field.
    pub(in crate::network) fn finish(mut self, sequence: u32) -> Result<Vec<u8>, NetlinkError> {
        if self.too_long {
            return Err(NetlinkError::TooLong);
        }
        let length = u32::try_from(self.bytes.len()).map_err(|_| NetlinkError::TooLong)?;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::netlink::parse::{Attributes, Replies};
    use proptest::prelude::*;

    #[test]
    fn cve_2021_43784_a_value_longer_than_its_length_field_is_refused() {
        for length in [65_531, 65_532, 65_535, 65_536, 131_072, 1 << 20] {
            let mut message = Message::new(1, REQUEST, &[]);
            message.attribute(1, &vec![b'x'; length]);
            let finished = message.finish(1);
            assert_eq!(finished.is_ok(), length <= 65_531, "{length}");
        }
        // The sum of small attributes inside a nested one overflows as well.
        let mut message = Message::new(1, REQUEST, &[]);
        message.nested(2, |m| (0..2000).for_each(|_| m.attribute(1, &[0; 60])));
        assert!(matches!(message.finish(1), Err(NetlinkError::TooLong)));
    }

    #[test]
    fn a_text_with_a_nul_inside_is_refused() {
        let mut message = Message::new(1, REQUEST, &[]);
        message.text(3, "eth0\0evil");
        assert!(message.finish(1).is_err());
    }

    #[test]
    fn the_layout_is_the_kernels() {
        let mut message = Message::new(16, REQUEST | ACK, &[1, 2, 3, 4]);
        message.text(3, "lo");
        message.nested(18, |m| m.attribute(1, &[9]));
        let bytes = message.finish(7).unwrap();
        let expected: Vec<u8> = [
            &40u32.to_ne_bytes()[..],
            &16u16.to_ne_bytes(),
            &5u16.to_ne_bytes(),
            &7u32.to_ne_bytes(),
            &[0; 4],
            &[1, 2, 3, 4],
            &7u16.to_ne_bytes(),
            &3u16.to_ne_bytes(),
            b"lo\0\0",
            &12u16.to_ne_bytes(),
            &(18u16 | NESTED).to_ne_bytes(),
            &5u16.to_ne_bytes(),
            &1u16.to_ne_bytes(),
            &[9, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::vec((0u16..0x3fff, prop::collection::vec(any::<u8>(), 0..200)), 0..20)) {
            let mut message = Message::new(20, REQUEST, &[7; 8]);
            for (kind, value) in &values {
                message.attribute(*kind, value);
            }
            let bytes = message.finish(1).unwrap();
            let reply = Replies::new(&bytes).next().unwrap().unwrap();
            let read: Vec<(u16, Vec<u8>)> = Attributes::new(&reply.body[8..]).map(|a| a.map(|(k, v)| (k, v.to_vec())).unwrap()).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for reply in Replies::new(&bytes) {
                let Ok(reply) = reply else { break };
                for attribute in Attributes::new(reply.body) {
                    if attribute.is_err() { break }
                }
            }
        }
    }
}
