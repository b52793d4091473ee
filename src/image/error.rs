//! What can go wrong with images.

use super::registry::RegistryError;
use super::unpack::UnpackError;
use crate::base::Digest;
use crate::oci::ReferenceError;
use crate::store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// An image could not be found, read, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image of that name or id.
    #[error("no such image: {0}")]
    NotFound(String),
    /// Several images' ids begin like this.
    #[error("image id {prefix:?} is ambiguous: {}", matches.join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// Short ids of the first matches.
        matches: Vec<String>,
    },
    /// The text is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A container uses the image.
    #[error("conflict: unable to remove {name:?} (must force): container {} is using its image {}", containers.join(", "), image.short())]
    InUse {
        /// What was to be removed.
        name: String,
        /// The image.
        image: Digest,
        /// Who uses it.
        containers: Vec<String>,
    },
    /// An id was given of an image with several names.
    #[error("conflict: unable to delete {} (must be forced): image is referenced in multiple repositories: {}", image.short(), names.join(", "))]
    ManyNames {
        /// The image.
        image: Digest,
        /// Its names.
        names: Vec<String>,
    },
    /// The archive was made for another machine.
    #[error("image {name} is for {found}, this machine runs {wanted}; build or load it for {wanted}")]
    Platform {
        /// The image.
        name: String,
        /// Its platform.
        found: String,
        /// Ours.
        wanted: String,
    },
    /// The archive is neither a docker-archive nor an OCI layout.
    #[error(
        "archive holds no image: neither manifest.json nor index.json was found; a root file system is taken in with 'bulkhead import'"
    )]
    NotAnImage,
    /// The archive names a file it does not hold.
    #[error("archive is incomplete: {document} names {member}, which is not there; make the archive again")]
    Missing {
        /// Which document names it.
        document: &'static str,
        /// What is missing.
        member: String,
    },
    /// Bytes do not have the digest they should.
    #[error("{what}: digest is {found}, expected {expected}; the archive is damaged, make or fetch it again")]
    Digest {
        /// Which bytes.
        what: String,
        /// What they should have.
        expected: Digest,
        /// What they have.
        found: Digest,
    },
    /// A document of the archive or store makes no sense.
    #[error("read {document}")]
    Document {
        /// Which one.
        document: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A document is acceptable in form only.
    #[error("{document}: {what}")]
    Invalid {
        /// Which one.
        document: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A registry could not be asked, or what it gave cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A build cache is not written where something else is.
    #[error("write a build cache to {}: {why}; name an empty directory, or one that holds a cache of ours", path.display())]
    CachePlace {
        /// The directory.
        path: PathBuf,
        /// What is in the way.
        why: &'static str,
    },
    /// A layout does not have the image that is asked for.
    #[error("the layout {} has no image {wanted}{}", path.display(), if has.is_empty() { String::new() } else { format!("; it has {}", has.join(", ")) })]
    NotInLayout {
        /// Its directory.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// Names of the images there are.
        has: Vec<String>,
    },
    /// A layer could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The outer archive is damaged.
    #[error("read archive: {0}")]
    Archive(String),
    /// A record could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// Wraps a refusal of the system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Wraps a refusal that concerns no path.
    pub(super) fn stream(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: PathBuf::from("archive"), source }
    }

    /// Takes out what was found while a layer was put together for somebody else; the error itself where it is another.
    pub(super) fn of_packing(error: io::Error) -> Result<Self, io::Error> {
        error.downcast::<Self>()
    }

    /// Wraps a malformed document.
    pub(super) fn document(name: &str) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Document { document: name.to_owned(), source }
    }
}

/// The outcome of an image operation.
pub(super) type Result<T, E = ImageError> = std::result::Result<T, E>;
