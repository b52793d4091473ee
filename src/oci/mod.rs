//! OCI and Docker image types, and image references.
//!
//! Owns what an image says about itself as data: the config, manifest, index and layout documents, and the names people
//! give to images. Makes no system call and opens no file; reading is bounded by the callers and never panics.

mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod manifest;
mod purl;
mod reference;

pub use config::{ContainerConfig, Empty, HealthConfig, History, ImageConfig, Platform, RootFs};
pub use manifest::{Descriptor, Index, LayoutMarker, Manifest, media};
pub use purl::package_url;
pub use reference::{Reference, ReferenceError};

/// Serialises as Go's `encoding/json` does: compact, with `<`, `>`, `&` and the two Unicode line separators escaped.
///
/// Docker's configs are written by Go, and an image id is the digest of these bytes.
///
/// # Errors
/// When the value cannot be serialised (a map with keys that are no strings).
pub fn to_go_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    let mut out = Vec::with_capacity(text.len() + 16);
    // These characters occur only inside strings, so replacing them everywhere is right.
    for character in text.chars() {
        match character {
            '<' => out.extend_from_slice(b"\\u003c"),
            '>' => out.extend_from_slice(b"\\u003e"),
            '&' => out.extend_from_slice(b"\\u0026"),
            '\u{2028}' => out.extend_from_slice(b"\\u2028"),
            '\u{2029}' => out.extend_from_slice(b"\\u2029"),
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(out)
}
