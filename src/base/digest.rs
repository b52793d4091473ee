//! Content digests (*OCI image-spec "Digests"*); sha256 is the only algorithm accepted.

use super::id::{hex, is_hex};
use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Write};

/// A `sha256:` digest with 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is no digest we accept.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a digest of the form sha256:<64 lower-case hexadecimal digits>")]
pub struct DigestError(String);

impl Digest {
    /// Returns the digest of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex(digest(&SHA256, bytes).as_ref())))
    }

    /// Returns `sha256:<hex>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the 64 hexadecimal digits without the algorithm.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// Returns the first 12 hexadecimal digits, the form of tables.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// Makes a digest from its 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is not 64 lower-case hexadecimal digits.
    pub fn from_hex(digits: &str) -> Result<Self, DigestError> {
        if is_hex(digits, 64) { Ok(Self(format!("sha256:{digits}"))) } else { Err(DigestError(digits.to_owned())) }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        match text.strip_prefix("sha256:") {
            Some(digits) if is_hex(digits, 64) => Ok(Self(text)),
            _ => Err(DigestError(text)),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl std::str::FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.to_owned().try_into()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A running sha256 over everything written to it.
#[derive(Clone)]
pub struct Sha256 {
    state: Context,
    /// Bytes hashed so far.
    pub length: u64,
}

impl Sha256 {
    /// Starts an empty hash.
    pub fn new() -> Self {
        Self { state: Context::new(&SHA256), length: 0 }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Returns the digest of all that was added.
    pub fn finish(self) -> Digest {
        Digest(format!("sha256:{}", hex(self.state.finish().as_ref())))
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Sha256 {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of(b"").as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn digests_with_path_parts_are_refused() {
        for bad in ["sha256:../../etc", "sha512:00", "", "e3b0"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }
}
