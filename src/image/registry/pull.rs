//! Pulling an image: its documents first, then its layers side by side, each unpacked while it comes.

use super::client::{Access, Client, Notice, Repository, refused};
use super::endpoint::for_pull;
use super::error::RegistryError;
use super::turn::Turn;
use crate::base::Digest;
use crate::image::documents::{Documents, image_documents};
use crate::image::error::{ImageError, Result};
use crate::image::import::{Expected, check, create, layer_of, magic, open_directory, sniff};
use crate::image::index::{Layer, chain_ids};
use crate::image::ingest::Ingest;
use crate::image::store::{Image, Images};
use crate::image::unpack::{Compression, Limits, Source, unpack};
use crate::oci::{Descriptor, Platform, Reference};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Longest page of a list of tags, bytes, and most tags.
const MAX_PAGE: u64 = 4 << 20;
const MAX_TAGS: usize = 100_000;
/// Layers that are pulled at a time, as Docker does.
const AT_ONCE: usize = 3;
/// Size of the pipe between a connection and the inflating process, in bytes.
const PIPE: usize = 1 << 20;

/// What happens to the layers of an image that is pulled or pushed. Those that are pulled are named by the digests of their
/// blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerEvent<'e> {
    /// The documents are here; these layers (digest and bytes) make the image, bottom first.
    Layers(&'e [(Digest, u64)]),
    /// A layer is here already.
    Exists(&'e Digest),
    /// Somebody else pulls the layer, or it waits for its turn.
    Waiting(&'e Digest),
    /// That many further bytes of a layer have come.
    Bytes(&'e Digest, u64),
    /// A layer is begun once more, from the beginning.
    Again(&'e Digest),
    /// A layer is here and unpacked.
    Done(&'e Digest),
}

/// An image that was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// Digest of what the name stands for on the registry: an index, or the image's manifest.
    pub digest: Digest,
    /// Whether it is another image than the name stood for here before.
    pub new: bool,
}

/// Where an event goes.
type Tell<'t> = &'t (dyn Fn(LayerEvent<'_>) + Sync);

/// One layer to pull.
pub(super) struct Wanted<'w> {
    pub(super) blob: &'w Descriptor,
    pub(super) diff_id: &'w Digest,
    pub(super) chain_id: &'w Digest,
    pub(super) parent: Option<&'w Digest>,
}

impl Images {
    /// Pulls the image of a name for a platform: by digest when the name has one, else by tag.
    ///
    /// What arrives is checked before anything names it: documents and blobs against their digests and lengths, layers
    /// against the config. After a failure nothing of it stays that was not here before.
    ///
    /// # Errors
    /// When no place has it, it is for other platforms, anything of it is not what its digest says, or the store cannot be
    /// written.
    pub fn pull(
        &self,
        client: &Client<'_>,
        reference: &Reference,
        platform: &Platform,
        tell: Tell<'_>,
    ) -> Result<Pulled> {
        let places: Vec<Repository<'_, '_>> = for_pull(&reference.registry, &client.rules)
            .into_iter()
            .map(|endpoint| Repository {
                client,
                endpoint,
                path: reference.repository.clone(),
                access: Access::Pull,
                others: Vec::new(),
            })
            .collect();
        let Found { place, digest, documents: found } = find(&places, reference, platform)?;
        let references = [kept_name(reference)];
        let before = self.resolve(&references[0].to_string()).ok().map(|image| image.id);
        let diff_ids = &found.config.rootfs.diff_ids;
        let chain = chain_ids(diff_ids);
        let wanted: Vec<Wanted<'_>> = (0..chain.len())
            .map(|at| Wanted {
                blob: &found.manifest.layers[at],
                diff_id: &diff_ids[at],
                chain_id: &chain[at],
                parent: at.checked_sub(1).map(|below| &chain[below]),
            })
            .collect();
        let named: Vec<(Digest, u64)> = wanted.iter().map(|w| (w.blob.digest.clone(), w.blob.size)).collect();
        tell(LayerEvent::Layers(&named));
        let ingest = Ingest::begin(&self.paths)?;
        let work = Work { images: self, ingest: &ingest, places: &places[place..], tell, added: Mutex::default() };
        let layers = work.all(&wanted);
        let added = work.added.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let record = |layers: Vec<Layer>| {
            self.record_image(&found.raw_config, Some(&found.document.bytes), &layers, &references)
        };
        match layers.and_then(record) {
            Ok(image) => {
                // What the name stood for, as `image inspect` shows it.
                self.note_digest(&image.id, reference, &digest)?;
                let new = before.as_ref() != Some(&image.id);
                Ok(Pulled { image, digest, new })
            }
            Err(error) => {
                let _ = self.remove_unused_layers(&added, &ingest, &|| Ok(Vec::new()));
                Err(error)
            }
        }
    }
}

impl Client<'_> {
    /// Lists the tags that a registry has of a name's repository (*distribution-spec "Listing Tags"*), in its order.
    ///
    /// # Errors
    /// When no place has the repository, or it has more than 100,000 tags.
    pub fn tags(&self, name: &Reference) -> Result<Vec<String>> {
        let mut last = None;
        for endpoint in for_pull(&name.registry, &self.rules) {
            let path = name.repository.clone();
            let place = Repository { client: self, endpoint, path, access: Access::Pull, others: Vec::new() };
            match tags_of(&place, name) {
                Err(error) if !is_interruption(&error) => last = Some(error),
                found => return found,
            }
        }
        let nobody = || RegistryError::Resolve { host: name.registry.clone(), reason: "it is no host".to_owned() };
        Err(last.unwrap_or_else(|| nobody().into()))
    }
}

/// Reads all pages of a list of tags.
fn tags_of(place: &Repository<'_, '_>, name: &Reference) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Page {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
    let (mut found, mut next) = (Vec::new(), Some(place.url("tags/list")?));
    while let Some(url) = next.take() {
        let (head, bytes) = place.client.patiently(|| {
            let (head, mut body) = place.ask("GET", &url, &[], None, true)?;
            match head.status {
                200 => Ok((head, body.document(MAX_PAGE, "a list of tags")?)),
                404 => {
                    let registry = place.endpoint.name.clone();
                    Err(RegistryError::Unknown { name: name.familiar_name(), registry })
                }
                _ => Err(refused(&head, &url, body)),
            }
        })?;
        let page: Page = serde_json::from_slice(&bytes).map_err(ImageError::document("list of tags"))?;
        let before = found.len();
        found.extend(page.tags.unwrap_or_default());
        if found.len() > MAX_TAGS {
            let most = MAX_TAGS as u64;
            return Err(RegistryError::TooLong { what: format!("the list of tags of {}", name.name()), most }.into());
        }
        // `<address>; rel="next"`; a page that brings nothing is the last, whatever it says.
        let link = head.field("link").and_then(|text| text.trim().strip_prefix('<')?.split_once('>'));
        if let Some((address, rest)) = link
            && rest.contains("next")
            && found.len() > before
        {
            next = Some(place.redirect(&url, address, 0)?);
        }
    }
    Ok(found)
}

/// Returns the name an image is kept under: what was pulled by digest has no tag, as with Docker.
fn kept_name(reference: &Reference) -> Reference {
    let tag = if reference.digest.is_some() { None } else { reference.tag.clone() };
    Reference { tag, ..reference.clone() }
}

/// An image's documents.
struct Found {
    /// Which place had them.
    place: usize,
    /// Of what the name stands for.
    digest: Digest,
    documents: Documents,
}

/// Asks one place after the other for an image's documents.
fn find(places: &[Repository<'_, '_>], reference: &Reference, platform: &Platform) -> Result<Found> {
    let mut last = None;
    for (at, place) in places.iter().enumerate() {
        match documents(place, reference, platform) {
            Ok((digest, documents)) => return Ok(Found { place: at, digest, documents }),
            Err(error) if places.len() > at + 1 && !is_interruption(&error) => {
                place.client.tell(Notice::Next { error: &error, endpoint: &places[at + 1].endpoint.name });
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    let nobody = || RegistryError::Resolve { host: reference.registry.clone(), reason: "it is no host".to_owned() };
    Err(last.unwrap_or_else(|| nobody().into()))
}

pub(super) fn is_interruption(error: &ImageError) -> bool {
    matches!(error, ImageError::Registry(RegistryError::Interrupted))
}

/// Reads an image's documents and checks what they say about each other.
fn documents(place: &Repository<'_, '_>, reference: &Reference, platform: &Platform) -> Result<(Digest, Documents)> {
    let name = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.as_str(),
        (None, Some(tag)) => tag,
        (None, None) => "latest",
    };
    let shown = reference.familiar();
    let first = place.manifest(name)?;
    let first =
        first.ok_or_else(|| RegistryError::Unknown { name: shown.clone(), registry: place.endpoint.name.clone() })?;
    Ok((first.digest.clone(), image_documents(place, first, &shown, platform)?))
}

/// The layers of one pull.
pub(super) struct Work<'w, 'a> {
    pub(super) images: &'w Images,
    pub(super) ingest: &'w Ingest,
    /// Places that may have the layers; the first had the documents.
    pub(super) places: &'w [Repository<'w, 'a>],
    pub(super) tell: Tell<'w>,
    /// Chain ids of what was not here before.
    pub(super) added: Mutex<Vec<Digest>>,
}

impl Work<'_, '_> {
    /// Pulls all layers, some at a time; the first failure ends the others.
    fn all(&self, wanted: &[Wanted<'_>]) -> Result<Vec<Layer>> {
        let halt = &self.places[0].client.http.halt;
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Result<Layer>)>> = Mutex::default();
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(layer) = wanted.get(at) else { return };
                let result = self.one(layer);
                let failed = result.is_err();
                done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, result));
                if failed {
                    next.store(wanted.len(), Ordering::Relaxed);
                    halt.stop();
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..wanted.len().min(AT_ONCE) {
                scope.spawn(work);
            }
            work();
        });
        super::first_failure(done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Pulls one layer, unless it is here or somebody else has just pulled it.
    pub(super) fn one(&self, wanted: &Wanted<'_>) -> Result<Layer> {
        let digest = &wanted.blob.digest;
        let known =
            || -> Result<Option<Layer>> { Ok(self.images.snapshots.layer(wanted.chain_id)?.as_ref().map(layer_of)) };
        let exists = |layer| {
            (self.tell)(LayerEvent::Exists(digest));
            Ok(layer)
        };
        if let Some(layer) = known()? {
            return exists(layer);
        }
        (self.tell)(LayerEvent::Waiting(digest));
        let turns = self.images.paths.root.join("content/pull.lock");
        let _turn = Turn::take(&turns, wanted.chain_id, &self.places[0].client.http.halt)?;
        if let Some(layer) = known()? {
            return exists(layer);
        }
        for (at, place) in self.places.iter().enumerate() {
            match self.from(place, wanted) {
                Ok(layer) => {
                    self.added.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(wanted.chain_id.clone());
                    (self.tell)(LayerEvent::Done(digest));
                    return Ok(layer);
                }
                Err(error) if at + 1 < self.places.len() && !is_interruption(&error) => {
                    place.client.tell(Notice::Next { error: &error, endpoint: &self.places[at + 1].endpoint.name });
                    (self.tell)(LayerEvent::Again(digest));
                }
                Err(error) => return Err(error),
            }
        }
        Err(RegistryError::Interrupted.into())
    }

    /// Pulls a layer from one place and unpacks it on the way.
    fn from(&self, place: &Repository<'_, '_>, wanted: &Wanted<'_>) -> Result<Layer> {
        let directory = self.ingest.layer()?;
        let split = create(&directory.join("split"))?;
        let tree = open_directory(&directory.join("fs"))?;
        let unpacked = self.streamed(place, wanted.blob, |file| {
            let mut head = Vec::new();
            let source = match sniff(file, &mut head)? {
                Source::Stream { file, head, .. } => Source::Stream { file, head, length: Some(wanted.blob.size) },
                region => region,
            };
            let compression = Compression::of(&magic(source)?);
            Ok(unpack(source, compression, tree.as_fd(), &split, Limits::default())?)
        })?;
        check("uncompressed layer", Some(wanted.diff_id), Some(&unpacked.diff_id))?;
        if unpacked.exact {
            return self.images.place_layer(&directory, wanted.parent, unpacked);
        }
        // Its archive overwrites its own entries and is kept whole, for which it must come once more.
        (self.tell)(LayerEvent::Again(&wanted.blob.digest));
        let path = self.ingest.fresh();
        let mut file = create(&path)?;
        self.blob(place, wanted.blob, &mut file)?;
        let source = Source::Region { file: &file, offset: 0, length: wanted.blob.size };
        let expected = Expected { diff_id: Some(wanted.diff_id), blob: Some(&wanted.blob.digest) };
        self.images.ingest_layer(self.ingest, source, wanted.parent, expected)
    }

    /// Has a blob come through a pipe to a reader beside it.
    fn streamed<T>(
        &self,
        place: &Repository<'_, '_>,
        blob: &Descriptor,
        reader: impl FnOnce(&File) -> Result<T>,
    ) -> Result<T> {
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (read, write) = pipe.map_err(|errno| ImageError::stream("make a pipe for the")(errno.into()))?;
        // A smaller pipe is slower and nothing else.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE);
        let (read, mut write) = (File::from(read), File::from(write));
        std::thread::scope(|scope| {
            let coming = scope.spawn(move || {
                let result = self.blob(place, blob, &mut write);
                // What is missing at the end of the pipe is known to the reader only now.
                drop(write);
                result
            });
            let result = reader(&read);
            drop(read);
            let came = coming.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match (came, result) {
                // The reader went away first: it knows why.
                (Err(RegistryError::Io { source, .. }), Err(error))
                    if source.kind() == std::io::ErrorKind::BrokenPipe =>
                {
                    Err(error)
                }
                (Err(error), _) => Err(error.into()),
                (Ok(()), result) => result,
            }
        })
    }

    fn blob(&self, place: &Repository<'_, '_>, blob: &Descriptor, to: &mut dyn Write) -> Result<(), RegistryError> {
        let what = format!("layer {}", blob.digest.short());
        place.blob(&blob.digest, blob.size, &what, to, &mut |count| (self.tell)(LayerEvent::Bytes(&blob.digest, count)))
    }
}
