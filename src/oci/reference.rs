//! Image references (*distribution "reference grammar"*), normalised as Docker does.

use crate::base::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The registry of names that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The namespace of names on the default registry that have one part.
const DEFAULT_NAMESPACE: &str = "library/";
/// The tag of names that have neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Longest repository name with its registry, in bytes.
const MAX_NAME: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;

/// A complete image name: registry, repository, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// Host and port of the registry.
    pub registry: String,
    /// Path on the registry.
    pub repository: String,
    /// Tag.
    pub tag: Option<String>,
    /// Digest of the manifest.
    pub digest: Option<Digest>,
}

/// A text that is no image reference, in Docker's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Any other fault.
    #[error("invalid reference format")]
    Format,
    /// Upper-case letters in the repository.
    #[error("invalid reference format: repository name must be lowercase")]
    Uppercase,
    /// Too long.
    #[error("repository name must not be more than {MAX_NAME} characters")]
    TooLong,
    /// Reads like an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
}

impl Reference {
    /// Returns the short form people type: without the default registry and namespace.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    /// Returns the short form of the name without tag and digest, the `REPOSITORY` column.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix(DEFAULT_NAMESPACE) {
            Some(short) if !short.contains('/') => short.to_owned(),
            // `docker.io/a.b/c` without its registry would be an image of the registry `a.b`.
            _ if split_domain(&self.repository).1 != self.repository => self.name(),
            _ => self.repository.clone(),
        }
    }

    /// Returns registry and repository without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| ReferenceError::Format)?)),
            None => (text, None),
        };
        let (domain, remainder) = split_domain(rest);
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) && is_path(&path.to_ascii_lowercase()) {
            return Err(ReferenceError::Uppercase);
        }
        if !is_path(path) || !is_domain(domain) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        let registry = if domain == "index.docker.io" { DEFAULT_REGISTRY } else { domain };
        let namespace = if registry == DEFAULT_REGISTRY && !path.contains('/') { DEFAULT_NAMESPACE } else { "" };
        if registry.len() + 1 + namespace.len() + path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository: format!("{namespace}{path}"), tag, digest })
    }
}

/// Splits `host/path`, where the first part is a host only when it looks like one.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, rest)) => {
            let fine = !address.is_empty() && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
            return fine && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    port.is_none_or(is_port)
        && host.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_component)
}

/// `[a-z0-9]+` groups joined by one of `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(|b| alphanumeric(*b)) || !bytes.last().is_some_and(|b| alphanumeric(*b)) {
        return false;
    }
    bytes
        .split(|b| alphanumeric(*b))
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

fn is_tag(text: &str) -> bool {
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

impl fmt::Display for Reference {
    /// Prints the complete form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, complete: &str, familiar: &str) {
        let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(reference.to_string(), complete, "{text}");
        assert_eq!(reference.familiar(), familiar, "{text}");
        assert_eq!(complete.parse::<Reference>().unwrap(), reference);
    }

    /// `docker.io/a.b/c` was shown as `a.b/c`, which is an image of the registry `a.b`.
    #[test]
    fn a_short_form_is_never_the_name_of_another_image() {
        for name in ["docker.io/a.b/c", "docker.io/localhost/c", "docker.io/b_c.a/d", "docker.io/library/a/b"] {
            let reference: Reference = name.parse().unwrap();
            assert_eq!(reference.familiar().parse(), Ok(reference.clone()), "{}", reference.familiar());
        }
    }

    #[test]
    fn names_are_completed_as_docker_completes_them() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        check("busybox", "docker.io/library/busybox:latest", "busybox:latest");
        check("python:3.8-slim-buster", "docker.io/library/python:3.8-slim-buster", "python:3.8-slim-buster");
        check("me/app", "docker.io/me/app:latest", "me/app:latest");
        check("library/busybox", "docker.io/library/busybox:latest", "busybox:latest");
        check("docker.io/a/b/c:x", "docker.io/a/b/c:x", "a/b/c:x");
        check("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest");
        check("localhost/x", "localhost/x:latest", "localhost/x:latest");
        check("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y");
        check("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest");
        check("ghcr.io/a--b/c__d.e_f:V1", "ghcr.io/a--b/c__d.e_f:V1", "ghcr.io/a--b/c__d.e_f:V1");
        check(
            &format!("busybox@{digest}"),
            &format!("docker.io/library/busybox@{digest}"),
            &format!("busybox@{digest}"),
        );
        check(&format!("a:b@{digest}"), &format!("docker.io/library/a:b@{digest}"), &format!("a:b@{digest}"));
    }

    #[test]
    fn wrong_names_are_refused_in_dockers_words() {
        for bad in [
            "",
            ":x",
            "a:",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a___b",
            "a._b",
            "a b",
            "a:b:c",
            "a@sha256:00",
            "a:-x",
            "../a",
            "a/../b",
            "é",
            "https://x/y",
        ] {
            assert_eq!(bad.parse::<Reference>(), Err(ReferenceError::Format), "{bad:?}");
        }
        assert_eq!("Foo".parse::<Reference>(), Err(ReferenceError::Uppercase));
        assert_eq!("a/Foo:x".parse::<Reference>(), Err(ReferenceError::Uppercase));
        assert!(matches!("a".repeat(64).parse::<Reference>(), Err(ReferenceError::LooksLikeId(_))));
        assert_eq!("a".repeat(300).parse::<Reference>(), Err(ReferenceError::TooLong));
        assert_eq!(format!("a:{}", "t".repeat(129)).parse::<Reference>(), Err(ReferenceError::Format));
    }
}
