//! A layout in a directory (*OCI image-spec "Image Layout"*), which may come from anywhere: walked by descriptor, nothing in it
//! is followed.

use super::documents::{Document, Documents, Shelf, image_documents};
use super::error::{ImageError, Result};
use super::import::Expected;
use super::index::{Layer, chain_ids};
use super::ingest::Ingest;
use super::store::{Images, MAX_DOCUMENT};
use super::unpack::Source;
use crate::base::Digest;
use crate::oci::{Descriptor, ImageConfig, Index, Platform};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// File that says what is in the directory.
pub(super) const INDEX: &str = "index.json";
/// Where the blobs lie.
pub(super) const BLOBS: &str = "blobs/sha256";
/// Annotation of an entry that holds its tag, or its whole name.
const NAME: &str = "org.opencontainers.image.ref.name";

/// A directory in the form of a layout.
#[derive(Debug)]
pub struct Layout {
    pub(super) root: OwnedFd,
    pub(super) path: PathBuf,
}

/// Which image of a layout is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutImage {
    /// The one tagged `latest`, else the only one.
    Only,
    /// The one of that tag.
    Tag(String),
    /// The one of that digest.
    Digest(Digest),
}

/// What was taken in of a layout's image.
#[derive(Clone, Debug)]
pub struct LayoutLayers {
    /// The image's id.
    pub id: Digest,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Chain ids of its layers, bottom first.
    pub chain: Vec<Digest>,
    /// Its config.
    pub config: ImageConfig,
}

/// Opens something below a directory; links are not followed, whatever part of the path they are.
pub(super) fn open_below(root: &OwnedFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // A pipe in the place of a file is not waited for.
    openat2(root, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty(), resolve)
}

impl Layout {
    /// Opens the layout of a directory.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).map_err(|e| ImageError::io("open", path)(e.into()))?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Takes a layer of it in, on top of `parent`.
    ///
    /// # Errors
    /// When its blob is missing, or is not what its digests say, or the store cannot be written.
    pub fn take_layer(
        &self,
        images: &Images,
        diff_id: &Digest,
        blob: &Descriptor,
        parent: Option<&Digest>,
    ) -> Result<Layer> {
        let name = format!("{BLOBS}/{}", blob.digest.hex());
        let file = self.file(&name)?;
        let length = file.metadata().map_err(ImageError::io("look at", &self.path.join(&name)))?.len();
        self.check_length(&name, blob.size, length)?;
        let source = Source::Region { file: &file, offset: 0, length };
        let ingest = Ingest::begin(&images.paths)?;
        images.ingest_layer(&ingest, source, parent, Expected { diff_id: Some(diff_id), blob: Some(&blob.digest) })
    }

    pub(super) fn file(&self, name: &str) -> Result<File> {
        let path = || self.path.join(name);
        let open = || -> rustix::io::Result<File> {
            let file = open_below(&self.root, name, OFlags::RDONLY)?;
            let kind = FileType::from_raw_mode(fstat(&file)?.st_mode);
            if kind == FileType::RegularFile { Ok(file.into()) } else { Err(Errno::INVAL) }
        };
        open().map_err(|errno| ImageError::io("open", &path())(errno.into()))
    }

    pub(super) fn read(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.file(name)?;
        file.take(most + 1).read_to_end(&mut bytes).map_err(ImageError::io("read", &self.path.join(name)))?;
        if bytes.len() as u64 > most {
            let document = self.path.join(name).display().to_string();
            return Err(ImageError::Invalid { document, what: "is longer than a document may be" });
        }
        Ok(bytes)
    }

    /// Reads a document that a descriptor names.
    fn document(&self, wanted: &Descriptor) -> Result<Vec<u8>> {
        let name = format!("{BLOBS}/{}", wanted.digest.hex());
        let bytes = self.read(&name, wanted.size.min(MAX_DOCUMENT))?;
        self.check_length(&name, wanted.size, bytes.len() as u64)?;
        let found = Digest::of(&bytes);
        if found == wanted.digest {
            return Ok(bytes);
        }
        let what = format!("blob {}", self.path.join(name).display());
        Err(ImageError::Digest { what, expected: wanted.digest.clone(), found })
    }

    fn check_length(&self, name: &str, expected: u64, found: u64) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        let document = self.path.join(name).display().to_string();
        Err(ImageError::Invalid { document, what: "has another length than its descriptor says" })
    }

    /// Reads the documents of one of its images.
    fn documents(&self, wanted: &LayoutImage, platform: &Platform) -> Result<Documents> {
        let shown = self.path.display().to_string();
        let index = self.read(INDEX, MAX_DOCUMENT)?;
        let index: Index = serde_json::from_slice(&index).map_err(ImageError::document(&format!("{shown}/{INDEX}")))?;
        let has = || index.manifests.iter().filter_map(name).map(str::to_owned).collect();
        let entry = find(&index.manifests, wanted).ok_or_else(|| {
            let wanted = match wanted {
                LayoutImage::Only => "tagged latest, nor just one".to_owned(),
                LayoutImage::Tag(tag) => format!("tagged {tag}"),
                LayoutImage::Digest(digest) => digest.to_string(),
            };
            ImageError::NotInLayout { path: self.path.clone(), wanted, has: has() }
        })?;
        image_documents(self, self.manifest(entry)?, &shown, platform)
    }
}

impl Shelf for Layout {
    fn manifest(&self, wanted: &Descriptor) -> Result<Document> {
        let bytes = self.document(wanted)?;
        Ok(Document { bytes, digest: wanted.digest.clone(), media_type: wanted.media_type.clone() })
    }

    fn config(&self, wanted: &Descriptor) -> Result<Vec<u8>> {
        self.document(wanted)
    }
}

/// The name of an entry.
fn name(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(NAME).map(String::as_str)
}

/// Finds what is meant among the entries of a layout.
fn find<'e>(entries: &'e [Descriptor], wanted: &LayoutImage) -> Option<&'e Descriptor> {
    // A name may be whole (`example.org/a/b:tag`); its tag counts then.
    let tag = |entry: &Descriptor| name(entry).map(|name| name.rsplit([':', '/']).next().unwrap_or(name).to_owned());
    let tagged = |wanted: &str| entries.iter().find(|entry| tag(entry).as_deref() == Some(wanted));
    match wanted {
        LayoutImage::Only => tagged("latest").or(if let [only] = entries { Some(only) } else { None }),
        LayoutImage::Tag(wanted) => tagged(wanted),
        LayoutImage::Digest(digest) => entries.iter().find(|entry| entry.digest == *digest),
    }
}

impl Images {
    /// Takes in the layers of a layout's image for a platform. No record names them: the caller holds them as long as it
    /// needs them ([`Images::hold`]).
    ///
    /// # Errors
    /// When the layout has no such image, anything of it is missing or is not what its digest says, or the store cannot be
    /// written.
    pub fn take_from_layout(&self, layout: &Layout, wanted: &LayoutImage, platform: &Platform) -> Result<LayoutLayers> {
        let found = layout.documents(wanted, platform)?;
        let diff_ids = &found.config.rootfs.diff_ids;
        let chain = chain_ids(diff_ids);
        for (at, blob) in found.manifest.layers.iter().enumerate() {
            if self.snapshots.layer(&chain[at])?.is_none() {
                layout.take_layer(self, &diff_ids[at], blob, at.checked_sub(1).map(|below| &chain[below]))?;
            }
        }
        let (id, manifest) = (found.manifest.config.digest, found.document.digest);
        Ok(LayoutLayers { id, manifest, chain, config: found.config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_by_its_tag_its_digest_or_for_being_the_only_one() {
        let entry = |letter: &str, name: &str| {
            let mut entry = Descriptor::new("", Digest::of(letter.as_bytes()), 1);
            if !name.is_empty() {
                entry.annotations.insert(NAME.to_owned(), name.to_owned());
            }
            entry
        };
        let several = [entry("a", ""), entry("b", "v1"), entry("c", "example.org:5000/x/y:latest")];
        let found = |entries: &[Descriptor], wanted| {
            let at = find(entries, &wanted).map(|found| found.digest.clone());
            ["a", "b", "c"].into_iter().find(|letter| at == Some(Digest::of(letter.as_bytes())))
        };
        assert_eq!(found(&several, LayoutImage::Only), Some("c"));
        assert_eq!(found(&several, LayoutImage::Tag("v1".into())), Some("b"));
        assert_eq!(found(&several, LayoutImage::Tag("v2".into())), None);
        assert_eq!(found(&several, LayoutImage::Digest(Digest::of(b"a"))), Some("a"));
        assert_eq!(found(&several[..1], LayoutImage::Only), Some("a"));
        assert_eq!(found(&several[1..2], LayoutImage::Only), Some("b"));
        assert_eq!(found(&several[..2], LayoutImage::Only), None);
        assert_eq!(found(&several[..1], LayoutImage::Tag("latest".into())), None);
    }
}
