//! Manifests and blobs: read with their digests, the long ones as they come and from where they were cut.

use super::client::{Repository, refused};
use super::error::{RegistryError, Result};
use super::retry::{Rest, rest_of};
use crate::base::{Digest, Sha256};
use crate::image::documents::Document;
use crate::image::store::MAX_DOCUMENT;
use crate::oci::media;
use std::io::{self, Write};

/// Longest manifest or index, in bytes (*distribution-spec "Pushing Manifests"* asks for 4 MiB at least).
const MAX_MANIFEST: u64 = 4 << 20;
/// Bytes read at once.
const CHUNK: usize = 512 << 10;
/// Bytes after which a connection counts as good again.
const PROGRESS: u64 = 1 << 20;
/// What we read of manifests.
const ACCEPT: [&str; 4] = [media::INDEX, media::MANIFEST, media::DOCKER_LIST, media::DOCKER_MANIFEST];

impl Repository<'_, '_> {
    /// Reads a manifest or an index by tag or digest; `None` when there is none.
    ///
    /// # Errors
    /// When the registry cannot be asked, refuses, or answers with other bytes than it says.
    pub(super) fn manifest(&self, name: &str) -> Result<Option<Document>> {
        let url = self.url(&format!("manifests/{name}"))?;
        let accept = [("Accept", ACCEPT.join(", "))];
        self.client.patiently(|| {
            let (head, mut body) = self.ask("GET", &url, &accept, None, true)?;
            match head.status {
                200 => {}
                404 => return Ok(None),
                _ => return Err(refused(&head, &url, body)),
            }
            let bytes = body.document(MAX_MANIFEST, &format!("the manifest {name}"))?;
            let digest = Digest::of(&bytes);
            // What was asked for by digest must have it; what was asked for by tag must be what the registry says it is.
            let said = head.field("docker-content-digest").filter(|said| said.starts_with("sha256:"));
            for expected in [Some(name).filter(|name| name.contains(':')), said].into_iter().flatten() {
                if digest.as_str() != expected {
                    let url = url.to_string();
                    let expected = expected.parse();
                    let expected =
                        expected.map_err(|_| RegistryError::Malformed { url, what: "the digest is none" })?;
                    return Err(RegistryError::Digest { what: format!("manifest {name}"), expected, found: digest });
                }
            }
            let media_type = head.field("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
            Ok(Some(Document { bytes, digest, media_type: media_type.trim().to_owned() }))
        })
    }

    /// Reads a small blob whole.
    ///
    /// # Errors
    /// When the registry cannot be asked, refuses, or answers with other bytes than announced.
    pub(super) fn small_blob(&self, digest: &Digest, size: u64, what: &str) -> Result<Vec<u8>> {
        if size > MAX_DOCUMENT {
            return Err(RegistryError::TooLong { what: what.to_owned(), most: MAX_DOCUMENT });
        }
        let mut bytes = Vec::new();
        self.blob(digest, size, what, &mut bytes, &mut |_| {})?;
        Ok(bytes)
    }

    /// Passes a blob on as it comes, and goes on where a connection was cut. `progress` is told each number of bytes. When
    /// this succeeds, all bytes of the blob have been written and have its digest and size.
    ///
    /// # Errors
    /// When the registry cannot be asked, refuses, answers with other bytes than announced, or `to` takes no more.
    pub(super) fn blob(
        &self,
        digest: &Digest,
        size: u64,
        what: &str,
        to: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut passed = Passed { hash: Sha256::new(), size, what, to, progress };
        let (mut failures, mut mark) = (0, 0);
        loop {
            match self.rest_of_blob(digest, &mut passed) {
                Ok(()) => break,
                // Cut after its last byte: there is no rest to ask for.
                Err(error) if error.is_passing() && passed.hash.length == size => break,
                Err(error) if error.is_passing() => {
                    let at = passed.hash.length;
                    failures = if at >= mark + PROGRESS { 1 } else { failures + 1 };
                    mark = at;
                    self.client.rest_after(error, failures)?;
                }
                Err(error) => return Err(error),
            }
        }
        let found = passed.hash.finish();
        if found == *digest {
            return Ok(());
        }
        Err(RegistryError::Digest { what: what.to_owned(), expected: digest.clone(), found })
    }

    /// Reads a blob from where it is known to, up to its end or the next cut.
    fn rest_of_blob(&self, digest: &Digest, passed: &mut Passed<'_>) -> Result<()> {
        let at = passed.hash.length;
        let url = self.url(&format!("blobs/{digest}"))?;
        let range: Vec<_> = (at > 0).then(|| ("Range", format!("bytes={at}-"))).into_iter().collect();
        let (head, mut body) = self.ask("GET", &url, &range, None, true)?;
        if !matches!(head.status, 200 | 206) {
            return Err(refused(&head, &url, body));
        }
        let malformed = |what| RegistryError::Malformed { url: url.to_string(), what };
        let from = rest_of(at, passed.size, head.status, head.field("content-range")).map_err(malformed)?;
        let mut skip = if let Rest::Skip(bytes) = from { bytes } else { 0 };
        let expected = passed.size - at + skip;
        if let Some(found) = body.length().filter(|length| *length != expected) {
            return Err(RegistryError::Length { what: passed.what.to_owned(), expected, found });
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(count);
            skip -= known as u64;
            passed.pass(&buffer[known..count])?;
        }
        let found = passed.hash.length;
        if found == passed.size {
            return Ok(());
        }
        // A body without a length ends where the connection does: perhaps it was cut.
        let source = io::ErrorKind::UnexpectedEof.into();
        Err(RegistryError::Transfer { url: url.to_string(), source })
    }
}

/// What has been passed on of a blob.
struct Passed<'p> {
    hash: Sha256,
    size: u64,
    what: &'p str,
    to: &'p mut dyn Write,
    progress: &'p mut dyn FnMut(u64),
}

impl Passed<'_> {
    fn pass(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > self.size - self.hash.length {
            return Err(RegistryError::TooLong { what: self.what.to_owned(), most: self.size });
        }
        self.to.write_all(bytes).map_err(|source| RegistryError::Io { action: "pass the layer on", source })?;
        self.hash.update(bytes);
        (self.progress)(bytes.len() as u64);
        Ok(())
    }
}
