//! Pushing an image: its layers side by side, each put together, compressed and sent in one pass, then its documents.

use super::client::{Access, Client, Repository, refused};
use super::compress::{Format, compress};
use super::endpoint::for_push;
use super::error::{RegistryError, Result as Asked};
use super::http::{Payload, Request};
use super::pull::LayerEvent;
use super::url::Url;
use crate::base::{Digest, Sha256};
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

type Tell<'t> = &'t (dyn Fn(LayerEvent<'_>) + Sync);

impl Images {
    /// Pushes the image of a name to that name's registry. Layers are named by their diff ids in events; their bytes are
    /// those of the uncompressed tars.
    ///
    /// # Errors
    /// When there is no such image, its layers are damaged, the registry cannot be asked or refuses.
    pub fn push(&self, client: &Client<'_>, name: &Reference, format: Format, tell: Tell<'_>) -> Result<Pushed> {
        let image = self.resolve(&name.to_string())?;
        let nowhere = || RegistryError::Resolve { host: name.registry.clone(), reason: "it is no host".to_owned() };
        let endpoint = for_push(&name.registry, &client.rules).ok_or_else(nowhere)?;
        let place = Repository { client, endpoint, path: name.repository.clone(), access: Access::Push };
        let named: Vec<(Digest, u64)> = image.layers.iter().map(|l| (l.diff_id.clone(), l.tar_size)).collect();
        tell(LayerEvent::Layers(&named));
        let _hold = self.hold()?;
        let came = self.came_as(&image);
        let work = Work { images: self, place: &place, format, tell };
        let layers = work.all(&image, came.as_ref())?;
        let config = self.blob(&image.id)?;
        work.document_blob(&image.id, &config)?;
        let (bytes, kind) = self.manifest_for(&image, came, config.len() as u64, layers)?;
        let digest = Digest::of(&bytes);
        let tag = name.tag.as_deref().unwrap_or(digest.as_str());
        work.manifest(tag, &kind, &bytes)?;
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
}

/// One push.
struct Work<'w, 'a> {
    images: &'w Images,
    place: &'w Repository<'w, 'a>,
    format: Format,
    tell: Tell<'w>,
}

impl Work<'_, '_> {
    /// Pushes all layers, some at a time; the first failure ends the others.
    fn all(&self, image: &Image, came: Option<&(Vec<u8>, Manifest)>) -> Result<Vec<Descriptor>> {
        let halt = &self.place.client.http.halt;
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Result<Descriptor>)>> = Mutex::default();
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(layer) = image.layers.get(at) else { return };
                let result = self.layer(layer, came.map(|(_, manifest)| &manifest.layers[at]));
                let failed = result.is_err();
                done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                if failed {
                    next.store(image.layers.len(), Ordering::Relaxed);
                    halt.stop();
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..image.layers.len().min(AT_ONCE) {
                scope.spawn(work);
            }
            work();
        });
        super::first_failure(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Pushes one layer, unless the registry has it in a form we know of.
    fn layer(&self, layer: &Layer, came: Option<&Descriptor>) -> Result<Descriptor> {
        let path = self.images.remembered(layer);
        let mut remembered: Remembered = read_json(&path).unwrap_or_default();
        let kind = match self.format {
            Format::Gzip => media::LAYER_GZIP,
            Format::Zstd => media::LAYER_ZSTD,
            Format::None => media::LAYER,
        };
        for known in came.into_iter().chain(remembered.blobs.iter().filter(|known| known.media_type == kind)) {
            if self.has(&known.digest)? {
                (self.tell)(LayerEvent::Exists(&layer.diff_id));
                return Ok(known.clone());
            }
        }
        let sent = self.place.client.patiently(|| self.send(layer, kind));
        let descriptor = sent.map_err(|error| match error {
            // What is damaged here is said as it was found, not as a failure of the connection.
            RegistryError::Io { source, .. } if source.get_ref().is_some_and(|inner| inner.is::<ImageError>()) => {
                match source.into_inner().map(|inner| inner.downcast::<ImageError>()) {
                    Some(Ok(found)) => *found,
                    _ => ImageError::NotFound(format!("layer {}", layer.diff_id)),
                }
            }
            other => other.into(),
        })?;
        remembered.blobs.retain(|known| known.digest != descriptor.digest);
        remembered.blobs.push(descriptor.clone());
        let forgotten = remembered.blobs.len().saturating_sub(REMEMBERED);
        remembered.blobs.drain(..forgotten);
        remembered.schema = 1;
        // Forgotten, it is made once more.
        let _ = write_json(&path, &remembered, Durability::Atomic);
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
    fn send(&self, layer: &Layer, kind: &str) -> Asked<Descriptor> {
        let url = self.begin()?;
        (self.tell)(LayerEvent::Again(&layer.diff_id));
        let mut hash = Sha256::new();
        let mut produce = |out: &mut dyn Write| {
            let mut out = Hashed { out, hash: &mut hash };
            let tar = |to: &mut dyn Write| {
                let mut told = Told { to, tell: self.tell, diff_id: &layer.diff_id };
                self.images.write_layer(layer, &mut told).map_err(|error| match error {
                    ImageError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => source,
                    other => io::Error::other(other),
                })
            };
            compress(self.format, tar, &mut out)
        };
        let fields = vec![("Content-Type", "application/octet-stream".to_owned())];
        let request = Request { fields, payload: Payload::Pieces(&mut produce), ..Request::new("PATCH", &url) };
        let (head, body) = self.place.client.http.send(self.place.signed(request))?;
        if !matches!(head.status, 201 | 202 | 204) {
            return Err(refused(&head, &url, body));
        }
        body.drain();
        let next = self.place.redirect(&url, head.field("location").unwrap_or_default(), 0)?;
        let size = hash.length;
        let digest = hash.finish();
        self.end(&next, &digest, None)?;
        Ok(Descriptor::new(kind, digest, size))
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
    fn document_blob(&self, digest: &Digest, bytes: &[u8]) -> Asked<()> {
        if self.has(digest)? {
            return Ok(());
        }
        self.place.client.patiently(|| self.end(&self.begin()?, digest, Some(bytes)))
    }

    fn manifest(&self, name: &str, kind: &str, bytes: &[u8]) -> Asked<()> {
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
    tell: Tell<'t>,
    diff_id: &'t Digest,
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        (self.tell)(LayerEvent::Bytes(self.diff_id, count as u64));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
