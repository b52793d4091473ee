//! Giving images out: one tar that is a docker-archive and an OCI layout at once, as Docker 25 writes it.

use super::archive::blob_name;
use super::attest::{Attestation, attest};
use super::error::{ImageError, Result};
use super::import::open_directory;
use super::index::{Index, Layer};
use super::split::assemble;
use super::store::{Image, Images, find, manifest_of};
use super::tar::{Kind, WriteEntry, Writer};
use crate::base::{Digest, Sha256};
use crate::oci::{Descriptor, LayoutMarker, Reference, media, to_go_json};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// One entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Images {
    /// Writes images as one archive; the same images give the same bytes.
    ///
    /// A bare repository name stands for all its tags, an id for the image without a name.
    ///
    /// # Errors
    /// When an image is missing, a layer is damaged (the archive is then of no use), or writing fails.
    pub fn save(&self, names: &[String], out: &mut dyn Write) -> Result<()> {
        self.write_archive(&self.chosen(names)?, &[], out)
    }

    /// Writes one image as an archive, under these names and no others, with what is said about it.
    ///
    /// # Errors
    /// As [`Images::save`].
    pub fn save_as(
        &self,
        image: &Image,
        references: &[Reference],
        attestations: &[Attestation],
        out: &mut dyn Write,
    ) -> Result<()> {
        self.write_archive(&[(image.clone(), references.to_vec())], attestations, out)
    }

    fn write_archive(
        &self,
        images: &[(Image, Vec<Reference>)],
        attestations: &[Attestation],
        out: &mut dyn Write,
    ) -> Result<()> {
        let mut tar = Writer::new(out);
        let wrote = ImageError::stream("write");
        directories(&mut tar).map_err(wrote)?;
        let mut written = BTreeSet::new();
        let mut saved = Vec::new();
        let mut manifests = Vec::new();
        for (image, references) in images {
            for layer in &image.layers {
                if written.insert(layer.diff_id.clone()) {
                    entry(&mut tar, &blob_name(&layer.diff_id), layer.tar_size).map_err(ImageError::stream("write"))?;
                    self.write_layer(layer, &mut tar.out)?;
                }
            }
            let config = self.blob(&image.id)?;
            let mut manifest = manifest_of(&image.id, config.len() as u64, &image.layers);
            manifest.extra.extend(self.annotations(image));
            let manifest = to_go_json(&manifest).map_err(ImageError::document("manifest"))?;
            let mut descriptor = Descriptor::new(media::MANIFEST, Digest::of(&manifest), manifest.len() as u64);
            let mut documents = vec![(image.id.clone(), config), (descriptor.digest.clone(), manifest)];
            if !attestations.is_empty() {
                let attested = attest(&descriptor, &image.config.platform(), references, attestations)?;
                descriptor = Descriptor::new(media::INDEX, attested.index.0.clone(), attested.index.1.len() as u64);
                documents.extend(attested.blobs);
                documents.extend([attested.manifest, attested.index]);
            }
            for (digest, bytes) in documents {
                let name = blob_name(&digest);
                if written.insert(digest) {
                    tar.file(&name, 0, &bytes).map_err(ImageError::stream("write"))?;
                }
            }
            saved.push(SavedImage {
                config: blob_name(&image.id),
                repo_tags: (!references.is_empty()).then(|| references.iter().map(Reference::familiar).collect()),
                layers: image.layers.iter().map(|layer| blob_name(&layer.diff_id)).collect(),
            });
            manifests.extend(named(&descriptor, references));
        }
        let index = crate::oci::Index {
            schema_version: 2,
            media_type: media::INDEX.to_owned(),
            manifests,
            extra: serde_json::Map::new(),
        };
        let marker = LayoutMarker { image_layout_version: "1.0.0".to_owned() };
        let documents = [
            ("index.json", to_go_json(&index)),
            ("manifest.json", to_go_json(&saved)),
            ("oci-layout", to_go_json(&marker)),
        ];
        for (name, bytes) in documents {
            tar.file(name, 0, &bytes.map_err(ImageError::document(name))?).map_err(ImageError::stream("write"))?;
        }
        tar.finish().and_then(|out| out.flush()).map_err(ImageError::stream("write"))
    }

    /// Finds the images to save, each once, with the names it is saved under.
    fn chosen(&self, names: &[String]) -> Result<Vec<(Image, Vec<Reference>)>> {
        let index = Index::read(&self.paths)?;
        let mut order: Vec<Digest> = Vec::new();
        let mut given: BTreeMap<Digest, BTreeSet<Reference>> = BTreeMap::new();
        let mut choose = |id: &Digest, reference: Option<Reference>| {
            if !order.contains(id) {
                order.push(id.clone());
            }
            given.entry(id.clone()).or_default().extend(reference);
        };
        for name in names {
            let reference: Option<Reference> = name.parse().ok();
            let bare = !name.contains('@') && !name.rsplit('/').next().unwrap_or(name).contains(':');
            let of_repository =
                |known: &Reference| bare && reference.as_ref().is_some_and(|wanted| wanted.name() == known.name());
            let tags: Vec<(Reference, &Digest)> = index
                .references
                .iter()
                .filter_map(|(name, id)| Some((name.parse::<Reference>().ok()?, id)))
                .filter(|(known, _)| of_repository(known))
                .collect();
            if tags.is_empty() {
                let id = find(&index, name)?;
                let by_name = reference.filter(|reference| index.references.contains_key(&reference.to_string()));
                choose(&id, by_name);
            }
            for (reference, id) in tags {
                choose(id, Some(reference));
            }
        }
        let image = |id: Digest| {
            let references =
                given.remove(&id).unwrap_or_default().into_iter().filter(|reference| reference.tag.is_some()).collect();
            Ok((self.image(&index, &id)?, references))
        };
        order.into_iter().map(image).collect()
    }

    /// Writes the exact tar of a layer.
    ///
    /// # Errors
    /// When the layer is missing or its files no longer give the tar it came as, or writing fails.
    pub fn write_layer(&self, layer: &Layer, out: &mut dyn Write) -> Result<()> {
        let directory = self.snapshots.directory(layer.chain_id.hex());
        let missing = || ImageError::NotFound(format!("layer {}", layer.chain_id));
        let meta = self.snapshots.layer(&layer.chain_id)?.ok_or_else(missing)?;
        let (found, _) = if meta.exact {
            let path = directory.join("split");
            let split = File::open(&path).map_err(ImageError::io("open", &path))?;
            let tree = open_directory(&directory.join("fs"))?;
            assemble(&split, tree.as_fd(), out).map_err(ImageError::io("put together the tar of", &directory))?
        } else {
            let path = directory.join("tar.zst");
            let tar = File::open(&path).and_then(zstd::Decoder::new).map_err(ImageError::io("open", &path))?;
            copy_hashed(tar, out).map_err(ImageError::io("read", &path))?
        };
        if found == layer.diff_id {
            return Ok(());
        }
        let what = format!("layer {} in {}", layer.diff_id.short(), directory.display());
        Err(ImageError::Digest { what, expected: layer.diff_id.clone(), found })
    }
}

fn copy_hashed(mut from: impl io::Read, out: &mut dyn Write) -> io::Result<(Digest, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            let length = hash.length;
            return Ok((hash.finish(), length));
        }
        hash.update(&buffer[..count]);
        out.write_all(&buffer[..count])?;
    }
}

fn directories(tar: &mut Writer<&mut dyn Write>) -> io::Result<()> {
    for path in ["blobs/", "blobs/sha256/"] {
        tar.entry(&WriteEntry { path: path.as_bytes(), kind: Kind::Directory, mode: 0o755, ..blank() })?;
    }
    Ok(())
}

fn entry(tar: &mut Writer<&mut dyn Write>, path: &str, size: u64) -> io::Result<()> {
    tar.entry(&WriteEntry { path: path.as_bytes(), size, ..blank() })
}

fn blank() -> WriteEntry<'static> {
    WriteEntry {
        path: b"",
        link: b"",
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        size: 0,
        xattrs: &[],
    }
}

/// Returns the entries of a manifest in a layout's index: one per name, or one without a name.
fn named(descriptor: &Descriptor, references: &[Reference]) -> Vec<Descriptor> {
    if references.is_empty() {
        return vec![descriptor.clone()];
    }
    let one = |reference: &Reference| {
        let mut descriptor = descriptor.clone();
        descriptor.annotations.insert("io.containerd.image.name".to_owned(), reference.to_string());
        let tag = reference.tag.clone().unwrap_or_default();
        descriptor.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag);
        descriptor
    };
    references.iter().map(one).collect()
}
