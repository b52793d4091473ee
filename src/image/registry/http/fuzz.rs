//! Heads of answers as a function of bytes.

use super::head::{Head, chunk_length};

/// A head is read the same however much came after it, and not before it is whole.
pub(in crate::image::registry) fn head(bytes: &[u8]) {
    let _ = chunk_length(bytes);
    let Ok(Some((head, length))) = Head::parse(bytes) else { return };
    assert_eq!(Head::parse(&bytes[..length]), Ok(Some((head.clone(), length))));
    assert_eq!(Head::parse(&bytes[..length - 1]), Ok(None));
    for method in ["GET", "HEAD"] {
        let _ = head.framing(method);
    }
    let fit = |value: &str| !value.contains(['\r', '\n', '\0']);
    assert!(head.fields("location").all(fit));
}
