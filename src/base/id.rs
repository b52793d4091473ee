//! Container identifiers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A container's identifier: 64 lower-case hexadecimal digits, as Docker prints it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// A text that is no container identifier.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not 64 lower-case hexadecimal digits")]
pub struct IdError(String);

impl ContainerId {
    /// Makes a new identifier from the kernel's random bytes.
    pub fn generate() -> Self {
        Self(hex(&random::<32>()))
    }

    /// Returns the 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns it in base64 (*RFC 4648* section 5, no padding), 43 bytes. A symbolic link's text of fewer than 60 bytes stands in the
    /// inode itself on ext4; a longer one costs a block, and its removal the time to give that back.
    pub fn packed(&self) -> String {
        let digits = self.0.as_bytes().chunks(2);
        let value = |digit: u8| (digit as char).to_digit(16).map_or(0, |value| value as u8);
        URL_SAFE_NO_PAD.encode(digits.map(|pair| value(pair[0]) << 4 | value(pair[1])).collect::<Vec<_>>())
    }

    /// Reads what [`Self::packed`] made.
    pub fn unpack(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == 32)?;
        Some(Self(hex(&bytes)))
    }

    /// Returns the first 12 digits, the form of tables and host names.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

/// Makes a name for a file that several processes make one of at once: 16 hexadecimal digits. Process numbers would not do:
/// they are given again, and differ in no way between namespaces.
pub(crate) fn unique_name() -> String {
    hex(&random::<8>())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    let mut filled = 0;
    while filled < bytes.len() {
        // getrandom(2) gives at least 256 bytes at once; a signal before the pool is ready is the only retry.
        if let Ok(n) = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            filled += n;
        }
    }
    bytes
}

/// Spells bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// Tells whether a text is exactly `len` lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl TryFrom<String> for ContainerId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        if is_hex(&text, 64) { Ok(Self(text)) } else { Err(IdError(text)) }
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> String {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_valid_and_differ() {
        let (a, b) = (ContainerId::generate(), ContainerId::generate());
        assert_ne!(a, b);
        assert!(ContainerId::try_from(a.to_string()).is_ok());
        assert_eq!(a.packed().len(), 43);
        assert_eq!(ContainerId::unpack(&a.packed()), Some(a.clone()));
        assert_eq!(ContainerId::unpack(a.as_str()), None);
    }

    #[test]
    fn ids_with_path_parts_are_refused() {
        for bad in ["", "../x", &"A".repeat(64), &"a".repeat(63)] {
            assert!(ContainerId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
