//! What a build fetches by itself: files and repositories of `ADD`, and contexts and Dockerfiles that have an address.
//!
//! Nobody is told who we are: no credentials of registries, no keys but those of an agent that the build was given. What an
//! address served last is kept in `build/cache/url-*`: with it the server says that nothing has changed, and nothing comes.

use super::build::{Builder, LayerView};
use super::build_git::{Fetching, GitAccess};
use super::registry::failed;
use super::request::NetworkMode;
use super::{Attention, Engine, EngineError};
use crate::base::Digest;
use crate::config::Registries;
use crate::image::registry::{Client, Credential, Credentials, Download, Progress, Validators, Wanted};
use crate::image::{Extracted, Images};
use crate::step::{Material, Moved, Remote, RemoteFile, RemoteWish, Repository};
use crate::store::{Durability, StoreError, read_json, write_json};
use rustix::event::epoll;
use rustix::fs::{Mode, OFlags, Timespec, Timestamps, fchmod, futimens, openat};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Most bytes of one file.
const MOST: u64 = 32 << 30;

/// What an address served.
#[derive(Debug, Serialize, Deserialize)]
struct Served {
    schema: u32,
    validators: Validators,
    digest: Digest,
    modified: Option<i64>,
}

/// Nobody: what is fetched here is told to anybody.
struct Anonymous;

impl Credentials for Anonymous {
    fn find(&self, _: &str) -> Result<Option<Credential>, String> {
        Ok(None)
    }
}

/// A file that was fetched; it is gone with this value.
#[derive(Debug)]
pub struct Fetched {
    /// What it is.
    pub download: Download,
    /// The file, from its beginning.
    pub file: File,
    /// The directory it lies in.
    pub place: Extracted,
}

/// How a file is fetched.
#[derive(Clone, Copy, Default)]
struct Manner<'m> {
    expected: Option<&'m Digest>,
    known: Option<&'m Validators>,
    /// Names and redirects may lead to this machine.
    own: bool,
}

impl Engine {
    /// Fetches a file that the caller named, wherever that leads.
    ///
    /// # Errors
    /// When it is not to be had, or the store cannot be written; nothing of it is left then.
    pub fn fetch_file(
        &self,
        address: &str,
        attention: Attention<'_>,
        progress: Progress<'_>,
    ) -> Result<Fetched, EngineError> {
        let client = self.plain_client(attention)?;
        let images = Images::open(&self.paths)?;
        let manner = Manner { own: true, ..Manner::default() };
        let fetched = fetch(&client, &images, (address, "file"), manner, progress)?;
        fetched.ok_or_else(|| EngineError::RemoteChanged(address.to_owned()))
    }

    /// Makes a client for files: no rule of the operator's for registries holds for them but their deadlines.
    fn plain_client<'a>(&self, attention: Attention<'a>) -> Result<Client<'a>, EngineError> {
        let rules = Registries { insecure: Vec::new(), mirrors: Default::default(), ..self.settings.registry.clone() };
        self.client_with(rules, &Anonymous, attention)
    }
}

/// Fetches a file into a directory of its own under a name; `None` when it is as it was.
fn fetch(
    client: &Client<'_>,
    images: &Images,
    (address, name): (&str, &str),
    manner: Manner<'_>,
    progress: Progress<'_>,
) -> Result<Option<Fetched>, EngineError> {
    let place = images.workspace()?;
    let path = place.path().join(name);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(place.root(), name, flags, Mode::from_raw_mode(0o600));
    let mut file = File::from(file.map_err(|errno| StoreError::io("create", &path)(errno.into()))?);
    let Manner { expected, known, own } = manner;
    let wanted = Wanted { address, known, expected, most: MOST, own };
    let Some(download) = client.download(&wanted, &mut file, progress).map_err(failed)? else { return Ok(None) };
    // *Dockerfile reference "ADD"*: mode 600, and the time the server says; without one it is 1970, as in BuildKit.
    let time = Timespec { tv_sec: download.modified.unwrap_or(0), tv_nsec: 0 };
    fchmod(&file, Mode::from_raw_mode(0o600))
        .and_then(|()| futimens(&file, &Timestamps { last_access: time, last_modification: time }))
        .map_err(|errno| StoreError::io("set the time of", &path)(errno.into()))?;
    let from_start = std::io::Seek::rewind(&mut file);
    from_start.map_err(StoreError::io("read", &path))?;
    Ok(Some(Fetched { download, file, place }))
}

/// What a file's step has in its key.
fn state(digest: &Digest, modified: Option<i64>) -> String {
    format!("{digest} {}", modified.unwrap_or(0))
}

impl Builder<'_> {
    /// Finds out what a place holds: nothing is fetched where that can be known without.
    pub(super) fn look_at(&self, wish: &RemoteWish, moved: Moved<'_>) -> Result<Remote<LayerView>, EngineError> {
        let found = self.look(wish, moved)?;
        self.note(match (wish, found.state.split(' ').next().and_then(|digest| digest.parse().ok())) {
            (RemoteWish::File(_), Some(digest)) => Material::content(wish.shown(), &digest),
            _ => Material::commit(wish.shown(), &found.state),
        });
        Ok(found)
    }

    fn look(&self, wish: &RemoteWish, moved: Moved<'_>) -> Result<Remote<LayerView>, EngineError> {
        match wish {
            // What must have a digest is known by it.
            RemoteWish::File(RemoteFile { checksum: Some(checksum), .. }) => Ok(known_as(checksum.to_string(), None)),
            RemoteWish::File(file) => self.look_at_file(file, moved),
            RemoteWish::Repository(repository) => {
                let ends = self.end_descriptors();
                let fetching = Fetching { repository, access: self.git_access(repository)?, ends: &ends };
                let found = fetching.look(&self.images)?;
                Ok(Remote { state: found.commit, name: found.name, files: found.files.map(tree) })
            }
        }
    }

    fn look_at_file(&self, file: &RemoteFile, moved: Moved<'_>) -> Result<Remote<LayerView>, EngineError> {
        let path = self.served(&file.address);
        let served: Option<Served> = read_json(&path).ok().filter(|served: &Served| served.schema == 1);
        let known = served.as_ref().map(|served| &served.validators);
        let known = known.filter(|known| known.etag.is_some() || known.last_modified.is_some());
        match (self.file(file, Manner { known, ..Manner::default() }, moved)?, &served) {
            (Some(fetched), _) => {
                let Download { digest, modified, validators, .. } = &fetched.download;
                let served =
                    Served { schema: 1, validators: validators.clone(), digest: digest.clone(), modified: *modified };
                // Forgotten, it comes once more.
                let _ = write_json(&path, &served, Durability::Atomic);
                Ok(known_as(state(digest, *modified), Some(of_file(fetched))))
            }
            (None, Some(served)) => Ok(known_as(state(&served.digest, served.modified), None)),
            (None, None) => Err(EngineError::RemoteChanged(file.address.clone())),
        }
    }

    /// Fetches what [`Self::look_at`] has found.
    pub(super) fn fetch_remote(
        &self,
        wish: &RemoteWish,
        found: &Remote<LayerView>,
        moved: Moved<'_>,
    ) -> Result<LayerView, EngineError> {
        match wish {
            RemoteWish::File(file) => {
                let manner = Manner { expected: file.checksum.as_ref(), ..Manner::default() };
                let fetched = self.file(file, manner, moved)?;
                let same = |fetched: &Fetched| {
                    let Download { digest, modified, .. } = &fetched.download;
                    file.checksum.is_some() || state(digest, *modified) == found.state
                };
                let fetched = fetched.filter(same).ok_or_else(|| EngineError::RemoteChanged(wish.shown()))?;
                Ok(of_file(fetched))
            }
            RemoteWish::Repository(repository) => {
                let ends = self.end_descriptors();
                let fetching = Fetching { repository, access: self.git_access(repository)?, ends: &ends };
                fetching.fetch(&self.images, &found.state, &found.name).map(tree)
            }
        }
    }

    fn file(&self, file: &RemoteFile, manner: Manner<'_>, moved: Moved<'_>) -> Result<Option<Fetched>, EngineError> {
        let ends = self.any_end()?;
        let attention = Attention { interrupt: Some(ends.as_fd()), tell: &|_| {}, notice: &|_| {} };
        let client = self.engine.plain_client(attention)?;
        // A Dockerfile may come from anywhere: what it names does not lead back here unless it says so itself, or the build
        // has the host's network.
        let own = self.options.network == NetworkMode::Host;
        let (named, manner) = ((file.address.as_str(), file.name.as_str()), Manner { own, ..manner });
        fetch(&client, &self.images, named, manner, &mut |bytes, of| moved(bytes, of))
    }

    fn served(&self, address: &str) -> PathBuf {
        let directory = self.engine.paths.root.join("build/cache");
        directory.join(format!("url-{}", Digest::of(address.as_bytes()).hex()))
    }

    /// A Dockerfile names the server, so keys are those of the agent that `--ssh` gives to everybody.
    fn git_access(&self, repository: &Repository) -> Result<GitAccess, EngineError> {
        let agent = self.options.agents.iter().find(|(id, _)| id == "default");
        match (repository.protocol, agent) {
            ("ssh", None) => Err(EngineError::NoRepositoryAgent(repository.shown())),
            ("ssh", Some((_, socket))) => Ok(GitAccess::Agent(socket.clone())),
            _ => Ok(GitAccess::Nobody),
        }
    }

    fn end_descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.interrupt.into_iter().chain([self.halted.as_fd()]).collect()
    }

    /// One descriptor that is readable when the build is to end, for whatever reason.
    pub(super) fn any_end(&self) -> Result<OwnedFd, EngineError> {
        let make = || -> Result<OwnedFd, rustix::io::Errno> {
            let all = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            for (number, fd) in self.end_descriptors().into_iter().enumerate() {
                epoll::add(&all, fd, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
            }
            Ok(all)
        };
        make().map_err(|errno| EngineError::Output(errno.into()))
    }
}

fn known_as(state: String, files: Option<LayerView>) -> Remote<LayerView> {
    Remote { state, name: String::new(), files }
}

fn tree((root, place): (OwnedFd, Extracted)) -> LayerView {
    LayerView::Fetched(root, place)
}

fn of_file(fetched: Fetched) -> LayerView {
    LayerView::Archive(fetched.place)
}
