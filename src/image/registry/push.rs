//! Pushing an image: its layers side by side, each put together, compressed and sent in one pass, then its documents.

use super::client::{Access, Client, Repository, refused};
use super::compress::{Format, compress};
use super::endpoint::for_push;
use super::error::{RegistryError, Result as Asked};
use super::http::{Payload, Request};
use super::pull::LayerEvent;
use super::url::Url;
use crate::base::{Digest, Sha256};
use crate::image::attest::{Attestation, attest};
use crate::image::error::{ImageError, Result};
use crate::image::index::Layer;
use crate::image::store::{Image, Images};
use crate::oci::{Descriptor, Manifest, Reference, media, to_go_json};
use crate::store::{Durability, read_json, write_json};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Layers that are pushed at a time; each is compressed on all processors.
const AT_ONCE: usize = 2;
/// Other repositories that a registry is asked to take a blob from.
const ELSEWHERE: usize = 3;
/// Forms of a layer that are remembered.
const REMEMBERED: usize = 8;

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest on the registry.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// `pushed.json` beside a layer: the blobs it became. What a registry still has of them is not made again.
#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    schema: u32,
    blobs: Vec<Descriptor>,
}

pub(super) type Tell<'t> = &'t (dyn Fn(LayerEvent<'_>) + Sync);

impl Images {
    /// Pushes the image of a name to that name's registry, and what is said about it. Layers are named by their diff ids in
    /// events; their bytes are those of the uncompressed tars.
    ///
    /// # Errors
    /// When there is no such image, its layers are damaged, the registry cannot be asked or refuses.
    pub fn push(
        &self,
        client: &Client<'_>,
        name: &Reference,
        (format, attestations): (Format, &[Attestation]),
        tell: Tell<'_>,
    ) -> Result<Pushed> {
        let image = self.resolve(&name.to_string())?;
        let nowhere = || RegistryError::Resolve { host: name.registry.clone(), reason: "it is no host".to_owned() };
        let endpoint = for_push(&name.registry, &client.rules).ok_or_else(nowhere)?;
        let others = elsewhere(&image, name);
        let place = Repository { client, endpoint, path: name.repository.clone(), access: Access::Push, others };
        let named: Vec<(Digest, u64)> = image.layers.iter().map(|l| (l.diff_id.clone(), l.tar_size)).collect();
        tell(LayerEvent::Layers(&named));
        let _hold = self.hold()?;
        let came = self.came_as(&image);
        let work = Work { images: self, place: &place, format, tell };
        let layers = work.all(&image.layers, came.as_ref().map(|(_, manifest)| manifest))?;
        let config = self.blob(&image.id)?;
        work.document_blob(&image.id, &config)?;
        let (bytes, kind) = self.manifest_for(&image, came, config.len() as u64, layers)?;
        let mut top = (Digest::of(&bytes), kind, bytes);
        if !attestations.is_empty() {
            let manifest = Descriptor::new(&top.1, top.0.clone(), top.2.len() as u64);
            let attested = attest(&manifest, &image.config.platform(), std::slice::from_ref(name), attestations)?;
            for (digest, bytes) in &attested.blobs {
                work.document_blob(digest, bytes)?;
            }
            work.manifest(top.0.as_str(), &top.1, &top.2)?;
            work.manifest(attested.manifest.0.as_str(), media::MANIFEST, &attested.manifest.1)?;
            top = (attested.index.0, media::INDEX.to_owned(), attested.index.1);
        }
        let (digest, kind, bytes) = top;
        work.manifest(name.tag.as_deref().unwrap_or(digest.as_str()), &kind, &bytes)?;
        self.note_digest(&image.id, name, &digest)?;
        Ok(Pushed { digest, size: bytes.len() as u64 })
    }

    /// Returns the manifest an image came with, when its layers are compressed there.
    fn came_as(&self, image: &Image) -> Option<(Vec<u8>, Manifest)> {
        let bytes = self.blob(&image.manifest).ok()?;
        let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
        let plain = |layer: &Descriptor| image.layers.iter().any(|own| own.diff_id == layer.digest);
        let fits = manifest.layers.len() == image.layers.len() && !manifest.layers.iter().any(plain);
        fits.then_some((bytes, manifest))
    }

    /// Returns the manifest to push and its kind: the one the image came with where all its blobs are the same.
    fn manifest_for(
        &self,
        image: &Image,
        came: Option<(Vec<u8>, Manifest)>,
        config_size: u64,
        layers: Vec<Descriptor>,
    ) -> Result<(Vec<u8>, String)> {
        if let Some((bytes, manifest)) = came
            && manifest.config.digest == image.id
            && manifest.layers.iter().map(|layer| &layer.digest).eq(layers.iter().map(|layer| &layer.digest))
        {
            let kind = if manifest.media_type.is_empty() { media::MANIFEST.to_owned() } else { manifest.media_type };
            return Ok((bytes, kind));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.to_owned(),
            config: Descriptor::new(media::CONFIG, image.id.clone(), config_size),
            layers,
            extra: serde_json::Map::new(),
        };
        let bytes = to_go_json(&manifest).map_err(ImageError::document("the manifest to push"))?;
        Ok((bytes, media::MANIFEST.to_owned()))
    }

    fn remembered(&self, layer: &Layer) -> PathBuf {
        self.snapshots.directory(layer.chain_id.hex()).join("pushed.json")
    }

    /// Returns the blobs that a layer became in a format before; the same layer gives the same ones.
    pub(in crate::image) fn remembered_blobs(&self, layer: &Layer, format: Format) -> Vec<Descriptor> {
        let remembered: Remembered = read_json(&self.remembered(layer)).unwrap_or_default();
        let of_format = |blob: &Descriptor| blob.media_type == format.media_type();
        remembered.blobs.into_iter().filter(of_format).collect()
    }

    /// Remembers a blob that a layer became.
    pub(in crate::image) fn remember_blob(&self, layer: &Layer, blob: &Descriptor) {
        let path = self.remembered(layer);
        let mut remembered: Remembered = read_json(&path).unwrap_or_default();
        remembered.blobs.retain(|known| known.digest != blob.digest);
        remembered.blobs.push(blob.clone());
        let forgotten = remembered.blobs.len().saturating_sub(REMEMBERED);
        remembered.blobs.drain(..forgotten);
        remembered.schema = 1;
        // Forgotten, it is made once more.
        let _ = write_json(&path, &remembered, Durability::Atomic);
    }

    /// Puts a layer together and compresses it to `out`; `told` hears of each further number of its uncompressed bytes, and may
    /// fail. Returns what it became.
    pub(in crate::image) fn pack_layer(
        &self,
        layer: &Layer,
        format: Format,
        told: &(dyn Fn(u64) -> io::Result<()> + Sync),
        out: &mut dyn Write,
    ) -> io::Result<Descriptor> {
        let mut hash = Sha256::new();
        let tar = |to: &mut dyn Write| {
            self.write_layer(layer, &mut Told { to, told }).map_err(|error| match error {
                ImageError::Io { source, .. }
                    if source.kind() == io::ErrorKind::BrokenPipe
                        || source.get_ref().is_some_and(|inner| inner.is::<ImageError>()) =>
                {
                    source
                }
                other => io::Error::other(other),
            })
        };
        compress(format, tar, &mut Hashed { out, hash: &mut hash })?;
        let size = hash.length;
        Ok(Descriptor::new(format.media_type(), hash.finish(), size))
    }
}

/// One push.
pub(super) struct Work<'w, 'a> {
    pub(super) images: &'w Images,
    pub(super) place: &'w Repository<'w, 'a>,
    pub(super) format: Format,
    pub(super) tell: Tell<'w>,
}

impl Work<'_, '_> {
    /// Pushes all layers, some at a time; the first failure ends the others.
    pub(super) fn all(&self, layers: &[Layer], came: Option<&Manifest>) -> Result<Vec<Descriptor>> {
        let halt = &self.place.client.http.halt;
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Result<Descriptor>)>> = Mutex::default();
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(layer) = layers.get(at) else { return };
                let result = self.layer(layer, came.map(|manifest| &manifest.layers[at]));
                let failed = result.is_err();
                done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                if failed {
                    next.store(layers.len(), Ordering::Relaxed);
                    halt.stop();
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..layers.len().min(AT_ONCE) {
                scope.spawn(work);
            }
            work();
        });
        super::first_failure(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Pushes one layer, unless the registry has it in a form we know of.
    fn layer(&self, layer: &Layer, came: Option<&Descriptor>) -> Result<Descriptor> {
        let remembered = self.images.remembered_blobs(layer, self.format);
        for known in came.into_iter().chain(&remembered) {
            if self.has(&known.digest)? || self.mount(&known.digest)? {
                (self.tell)(LayerEvent::Exists(&layer.diff_id));
                return Ok(known.clone());
            }
        }
        let sent = self.place.client.patiently(|| self.send(layer));
        let descriptor = sent.map_err(|error| match error {
            // What is damaged here is said as it was found, not as a failure of the connection.
            RegistryError::Io { action, source } => {
                ImageError::of_packing(source).unwrap_or_else(|source| RegistryError::Io { action, source }.into())
            }
            other => other.into(),
        })?;
        self.images.remember_blob(layer, &descriptor);
        (self.tell)(LayerEvent::Done(&layer.diff_id));
        Ok(descriptor)
    }

    /// Asks whether the repository has a blob.
    fn has(&self, digest: &Digest) -> Asked<bool> {
        let url = self.place.url(&format!("blobs/{digest}"))?;
        self.place.client.patiently(|| {
            let (head, body) = self.place.ask("HEAD", &url, &[], None, true)?;
            match head.status {
                200 => Ok(true),
                404 => Ok(false),
                _ => Err(refused(&head, &url, body)),
            }
        })
    }

    /// Has the registry take a blob over from another of its repositories (*distribution-spec "Mounting a blob from another
    /// repository"*); false where it does not.
    fn mount(&self, digest: &Digest) -> Asked<bool> {
        let uploads = self.place.url("blobs/uploads/")?;
        for other in &self.place.others {
            let url = uploads.with_query(&[("mount", digest.as_str()), ("from", other)]);
            let (head, body) = match self.place.client.patiently(|| self.place.ask("POST", &url, &[], None, false)) {
                // What may not be read there is sent.
                Err(RegistryError::Denied { .. }) => return Ok(false),
                other => other?,
            };
            body.drain();
            match (head.status, head.field("location")) {
                (201, _) => return Ok(true),
                // It began an upload instead, which is not needed here; one that is not ended goes by itself.
                (202, Some(location)) => {
                    if let Ok(begun) = self.place.redirect(&uploads, location, 0)
                        && let Ok((_, body)) = self.place.ask("DELETE", &begun, &[], None, false)
                    {
                        body.drain();
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// Begins an upload and returns where it goes on.
    fn begin(&self) -> Asked<Url> {
        let url = self.place.url("blobs/uploads/")?;
        let (head, body) = self.place.ask("POST", &url, &[], None, false)?;
        if head.status != 202 {
            return Err(refused(&head, &url, body));
        }
        body.drain();
        self.place.redirect(&url, head.field("location").unwrap_or_default(), 0)
    }

    /// Puts a layer together, compresses and sends it (*distribution-spec "Pushing a blob in chunks"*, one chunk of unknown
    /// length).
    fn send(&self, layer: &Layer) -> Asked<Descriptor> {
        let url = self.begin()?;
        (self.tell)(LayerEvent::Again(&layer.diff_id));
        let told = |count| {
            (self.tell)(LayerEvent::Bytes(&layer.diff_id, count));
            Ok(())
        };
        let mut made = None;
        let mut produce = |out: &mut dyn Write| {
            made = Some(self.images.pack_layer(layer, self.format, &told, out)?);
            Ok(())
        };
        let fields = vec![("Content-Type", "application/octet-stream".to_owned())];
        let request = Request { fields, payload: Payload::Pieces(&mut produce), ..Request::new("PATCH", &url) };
        let (head, body) = self.place.client.http.send(self.place.signed(request))?;
        if !matches!(head.status, 201 | 202 | 204) {
            return Err(refused(&head, &url, body));
        }
        body.drain();
        let next = self.place.redirect(&url, head.field("location").unwrap_or_default(), 0)?;
        let what = "the answer came before the layer was sent";
        let descriptor = made.ok_or_else(|| RegistryError::Malformed { url: url.to_string(), what })?;
        self.end(&next, &descriptor.digest, None)?;
        Ok(descriptor)
    }

    /// Ends an upload, with all its bytes where none were sent before.
    fn end(&self, url: &Url, digest: &Digest, bytes: Option<&[u8]>) -> Asked<()> {
        let url = url.with_query(&[("digest", digest.as_str())]);
        let fields = [("Content-Type", "application/octet-stream".to_owned())];
        let (head, body) = self.place.ask("PUT", &url, &fields, bytes, false)?;
        if head.status != 201 {
            return Err(refused(&head, &url, body));
        }
        body.drain();
        Ok(())
    }

    /// Pushes a small blob, unless the registry has it.
    pub(super) fn document_blob(&self, digest: &Digest, bytes: &[u8]) -> Asked<()> {
        if self.has(digest)? {
            return Ok(());
        }
        self.place.client.patiently(|| self.end(&self.begin()?, digest, Some(bytes)))
    }

    pub(super) fn manifest(&self, name: &str, kind: &str, bytes: &[u8]) -> Asked<()> {
        let url = self.place.url(&format!("manifests/{name}"))?;
        let fields = [("Content-Type", kind.to_owned())];
        self.place.client.patiently(|| {
            let (head, body) = self.place.ask("PUT", &url, &fields, Some(bytes), false)?;
            match head.status {
                200..=204 => {
                    body.drain();
                    Ok(())
                }
                _ => Err(refused(&head, &url, body)),
            }
        })
    }
}

/// Returns the other repositories of a name's registry that are known to have an image: it came from there, or was pushed there.
fn elsewhere(image: &Image, name: &Reference) -> Vec<String> {
    let of_registry = |known: &&Reference| known.registry == name.registry && known.repository != name.repository;
    image.digests.iter().filter(of_registry).map(|known| known.repository.clone()).take(ELSEWHERE).collect()
}

/// Hashes what goes out.
struct Hashed<'h> {
    out: &'h mut dyn Write,
    hash: &'h mut Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Tells how many bytes of a layer are on their way.
struct Told<'t> {
    to: &'t mut dyn Write,
    told: &'t (dyn Fn(u64) -> io::Result<()> + Sync),
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        (self.told)(count as u64)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
