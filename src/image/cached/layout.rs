//! A cache in a directory (*OCI image-spec "Image Layout"*), which may come from anywhere: walked by descriptor, nothing in it is
//! followed. Blobs are put beside those that are there, then `index.json` takes the place of the one before; what neither
//! names goes last. Whoever reads meanwhile, or is left with what a killed writer made, has the cache before or the new one.

use super::super::documents::Document;
use super::super::error::{ImageError, Result};
use super::super::index::Layer;
use super::super::layout::{BLOBS, INDEX, Layout, open_below};
use super::super::registry::{Format, RegistryError};
use super::super::store::{Images, MAX_DOCUMENT};
use super::{CACHE_FIELD, CacheImage, StepTable, documents, read_steps};
use crate::base::Digest;
use crate::oci::{Descriptor, Index, LayoutMarker, media, to_go_json};
use crate::store::FileLock;
use crate::sys::fault::{self, Point};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// How the names of files begin that are not in their places yet.
const DRAFT: &str = ".bulkhead-draft-";
/// Bytes written at once.
const CHUNK: usize = 1 << 20;

impl Layout {
    /// Reads the steps of all its images.
    ///
    /// # Errors
    /// When a document is missing, is not what its digest says, or makes no sense.
    pub fn steps(&self) -> Result<StepTable> {
        let bytes = self.read(INDEX, MAX_DOCUMENT)?;
        let digest = Digest::of(&bytes);
        let first = Document { bytes, digest, media_type: media::INDEX.to_owned() };
        read_steps(self, first, &self.path.display().to_string())
    }
}

impl Images {
    /// Writes a cache to a directory, which holds nothing or an older cache: that one is replaced. `told` hears of each further
    /// number of bytes of layers (uncompressed) and says whether to go on.
    ///
    /// # Errors
    /// When the directory holds something else or is being written to, a layer is missing or damaged, or the system refuses.
    /// The cache that was there is whole then.
    pub fn write_cache(
        &self,
        path: &Path,
        images: &[CacheImage],
        format: Format,
        told: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<()> {
        let made = std::fs::create_dir_all(path);
        made.map_err(ImageError::io("make directory", path))?;
        let refuse = |why| ImageError::CachePlace { path: path.to_owned(), why };
        let layout = Layout::open(path)?;
        let lock = FileLock::try_acquire_dir(path)?;
        let _lock = lock.ok_or_else(|| refuse("somebody else writes there"))?;
        layout.check_is_ours()?;
        let place = layout.place()?;
        let _hold = self.hold()?;
        let mut known: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        let mut listed = Vec::with_capacity(images.len());
        for image in images {
            let mut layers = Vec::new();
            for layer in self.layers_of(&image.chain)? {
                let blob = match known.get(&layer.diff_id) {
                    Some(blob) => blob.clone(),
                    None => place.layer(self, &layer, format, told)?,
                };
                known.insert(layer.diff_id.clone(), blob.clone());
                layers.push((layer.diff_id, blob));
            }
            listed.push((image, layers));
        }
        let documents = documents(&listed)?;
        let mut kept: BTreeSet<String> = known.into_values().map(|blob| blob.digest.hex().to_owned()).collect();
        let index = (Digest::of(&documents.index), documents.index);
        let top = Descriptor::new(media::INDEX, index.0.clone(), index.1.len() as u64);
        for (digest, bytes) in documents.configs.iter().chain(&documents.manifests).chain([&index]) {
            place.document(digest, bytes)?;
            kept.insert(digest.hex().to_owned());
        }
        fault::fail(Point::CacheComplete).map_err(ImageError::io("write", path))?;
        let mut index = Index {
            schema_version: 2,
            media_type: media::INDEX.to_owned(),
            manifests: vec![top],
            extra: Default::default(),
        };
        index.extra.insert("annotations".to_owned(), serde_json::json!({ CACHE_FIELD: "1" }));
        let index = to_go_json(&index).map_err(ImageError::document(INDEX))?;
        place.root_file(INDEX, &index)?;
        fault::cut(Point::CacheReplaced);
        place.sweep(&kept)
    }
}

impl Layout {
    /// Makes sure that the directory holds nothing but a cache of ours, or what is left of one that was begun.
    fn check_is_ours(&self) -> Result<()> {
        let refuse = |why| ImageError::CachePlace { path: self.path.clone(), why };
        let failed = |errno: Errno| ImageError::io("read directory", &self.path)(errno.into());
        for entry in Dir::read_from(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy();
            if !matches!(&*name, "." | ".." | "oci-layout" | "blobs" | INDEX) && !name.starts_with(DRAFT) {
                return Err(refuse("it holds files that belong to no build cache"));
            }
        }
        match open_below(&self.root, INDEX, OFlags::RDONLY) {
            Err(Errno::NOENT) => return Ok(()),
            other => drop(other.map_err(|_| refuse("its index.json is no file"))?),
        }
        let index: Option<Index> = serde_json::from_slice(&self.read(INDEX, MAX_DOCUMENT)?).ok();
        let mark = |index: Index| index.extra.get("annotations")?.get(CACHE_FIELD).cloned();
        index.and_then(mark).map(drop).ok_or_else(|| refuse("it holds images, or the cache of another builder"))
    }

    /// Makes the directories, and the mark of a layout.
    fn place(&self) -> Result<Place<'_>> {
        let failed = |errno: Errno| ImageError::io("make a layout in", &self.path)(errno.into());
        for name in ["blobs", BLOBS] {
            match mkdirat(&self.root, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        let blobs = open_below(&self.root, BLOBS, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let place = Place { layout: self, blobs };
        let marker = LayoutMarker { image_layout_version: "1.0.0".to_owned() };
        let marker = to_go_json(&marker).map_err(ImageError::document("oci-layout"))?;
        place.root_file("oci-layout", &marker)?;
        Ok(place)
    }
}

/// A directory that a cache is written to.
struct Place<'l> {
    layout: &'l Layout,
    blobs: OwnedFd,
}

impl Place<'_> {
    fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> ImageError + use<> {
        let path = self.layout.path.join(name);
        move |source| ImageError::Io { action: "write", path, source }
    }

    /// Writes a file of the directory itself.
    fn root_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let write = || -> io::Result<()> {
            let draft = Draft::new(&self.layout.root)?;
            (&draft.file).write_all(bytes)?;
            draft.put(name)
        };
        write().map_err(self.failed(name))
    }

    /// Writes a document, unless it is there.
    fn document(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.has(digest, bytes.len() as u64) {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            let draft = Draft::new(&self.blobs)?;
            (&draft.file).write_all(bytes)?;
            draft.put(digest.hex())
        };
        write().map_err(self.failed(digest.hex()))
    }

    /// Writes the blob of a layer, unless one that it became before is there.
    fn layer(
        &self,
        images: &Images,
        layer: &Layer,
        format: Format,
        told: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Descriptor> {
        let remembered = images.remembered_blobs(layer, format);
        if let Some(blob) = remembered.into_iter().find(|blob| self.has(&blob.digest, blob.size)) {
            return Ok(blob);
        }
        let write = || -> io::Result<Descriptor> {
            let draft = Draft::new(&self.blobs)?;
            let mut out = BufWriter::with_capacity(CHUNK, &draft.file);
            let go_on = |count| match told(count) {
                true => Ok(()),
                // No `Interrupted` of the system's, which is tried again.
                false => Err(io::Error::other(ImageError::from(RegistryError::Interrupted))),
            };
            let blob = images.pack_layer(layer, format, &go_on, &mut out)?;
            out.flush()?;
            drop(out);
            fault::fail(Point::CacheBlob)?;
            draft.put(blob.digest.hex())?;
            Ok(blob)
        };
        let blob = write().map_err(|error| match ImageError::of_packing(error) {
            Ok(found) => found,
            Err(error) => self.failed(layer.diff_id.hex())(error),
        })?;
        images.remember_blob(layer, &blob);
        Ok(blob)
    }

    /// Tells whether a blob is there, whole.
    fn has(&self, digest: &Digest, size: u64) -> bool {
        let whole = || -> Option<bool> {
            let mut file = self.layout.file(&format!("{BLOBS}/{}", digest.hex())).ok()?;
            if file.metadata().ok()?.len() != size {
                return None;
            }
            let (mut hash, mut buffer) = (crate::base::Sha256::new(), vec![0; CHUNK]);
            loop {
                match file.read(&mut buffer).ok()? {
                    0 => return Some(hash.finish() == *digest),
                    count => hash.update(&buffer[..count]),
                }
            }
        };
        whole().unwrap_or(false)
    }

    /// Removes blobs that the cache does not name, and drafts of writers that were killed.
    fn sweep(&self, kept: &BTreeSet<String>) -> Result<()> {
        let sweep = |directory: &OwnedFd, goes: &dyn Fn(&str) -> bool| -> rustix::io::Result<()> {
            for entry in Dir::read_from(directory)? {
                let entry = entry?;
                if entry.file_name().to_str().is_ok_and(goes) {
                    unlinkat(directory, entry.file_name(), AtFlags::empty())?;
                }
            }
            Ok(())
        };
        let draft = |name: &str| name.starts_with(DRAFT);
        let old = |name: &str| draft(name) || (Digest::from_hex(name).is_ok() && !kept.contains(name));
        let swept = sweep(&self.blobs, &old).and_then(|()| sweep(&self.layout.root, &draft));
        swept.map_err(|errno| ImageError::io("remove old blobs from", &self.layout.path)(errno.into()))
    }
}

/// A file that is not in its place yet; it goes when it is dropped before.
struct Draft<'d> {
    directory: &'d OwnedFd,
    name: String,
    file: File,
}

impl<'d> Draft<'d> {
    fn new(directory: &'d OwnedFd) -> io::Result<Self> {
        let name = format!("{DRAFT}{}", crate::base::unique_name());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, &name, flags, Mode::from_raw_mode(0o644))?;
        Ok(Self { directory, name, file: file.into() })
    }

    /// Puts it in its place.
    fn put(&self, name: &str) -> io::Result<()> {
        Ok(renameat(self.directory, &self.name, self.directory, name)?)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
    }
}
