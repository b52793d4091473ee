//! The host of the tests.

use super::super::*;
use crate::oci::{ContainerConfig, Platform, RootFs};
use crate::step::{
    CacheTree, CacheWish, ImportEvent, Imported, Moved, Remote, RemoteWish, RunOrder, StepMount, StepSource, Tree,
};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
#[error("no image {0}")]
pub(super) struct NoImage(String);

pub(super) struct Fake {
    pub(super) dir: tempfile::TempDir,
    pub(super) count: AtomicU32,
    pub(super) ran: Mutex<Vec<String>>,
    pub(super) unpacked: AtomicU32,
    pub(super) images: Mutex<Vec<(ImageConfig, Vec<Digest>)>>,
    /// Two commands meet here.
    pub(super) together: Barrier,
    pub(super) halted: AtomicBool,
    /// What addresses serve.
    pub(super) served: Mutex<String>,
    /// What other caches have, by key.
    pub(super) foreign: Mutex<BTreeMap<Digest, Foreign>>,
}

/// What a step led to elsewhere: the chain it stood on, and its layer.
pub(super) type Foreign = (Option<Digest>, Option<CommittedLayer>);

pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) root: File,
    pub(super) chain: Vec<Digest>,
}

impl Tree for Directory {
    fn root(&self) -> Result<BorrowedFd<'_>, std::io::Error> {
        Ok(self.root.as_fd())
    }
}

pub(super) struct FakeCache(Directory, bool);

impl Tree for FakeCache {
    fn root(&self) -> Result<BorrowedFd<'_>, std::io::Error> {
        self.0.root()
    }
}

impl CacheTree for FakeCache {
    fn is_new(&self) -> bool {
        self.1
    }
}

pub(super) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(from).unwrap(), to).unwrap();
        } else if from.is_dir() {
            copy_tree(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

pub(super) fn list(dir: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &name, found);
        } else {
            found.push(format!("{name}={}", String::from_utf8_lossy(&fs::read(entry.path()).unwrap())));
        }
    }
    found.sort();
}

impl Fake {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Self {
            dir,
            count: AtomicU32::new(0),
            ran: Mutex::default(),
            unpacked: AtomicU32::new(0),
            images: Mutex::default(),
            together: Barrier::new(2),
            halted: AtomicBool::new(false),
            served: Mutex::new("one".into()),
            foreign: Mutex::default(),
        };
        fs::create_dir(fake.path(&[])).unwrap();
        copy_tree(&fake.path(&[]), &fake.path(&[Digest::of(b"base")]));
        fs::create_dir(fake.path(&[Digest::of(b"base")]).join("etc")).unwrap();
        fake
    }

    pub(super) fn path(&self, chain: &[Digest]) -> PathBuf {
        self.dir.path().join(chain.last().map_or("empty", |d| d.hex()))
    }

    pub(super) fn files(&self, chain: &[Digest]) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.path(chain), "", &mut found);
        found
    }
}

impl BuildHost for Fake {
    type Error = NoImage;
    type Active = Directory;
    type View = Directory;
    type Cache = FakeCache;

    fn resolve_image(&self, reference: &str, _: &Platform) -> Result<BaseImage, NoImage> {
        if reference == "missing" {
            return Err(NoImage(reference.into()));
        }
        let id = Digest::of(b"base");
        let config = ImageConfig {
            os: "linux".into(),
            architecture: "amd64".into(),
            created: Some(Timestamp(1)),
            config: ContainerConfig { env: vec!["PATH=/bin".into()], ..ContainerConfig::default() },
            rootfs: RootFs { diff_ids: vec![id.clone()], ..RootFs::default() },
            history: vec![History { created_by: "base".into(), ..History::default() }],
            ..ImageConfig::default()
        };
        Ok(BaseImage { id: id.clone(), config, chain: vec![id] })
    }

    fn has_layer(&self, chain_id: &Digest) -> Result<bool, NoImage> {
        Ok(self.path(std::slice::from_ref(chain_id)).exists())
    }

    fn prepare(&self, chain: &[Digest]) -> Result<Directory, NoImage> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join(format!("active-{number}"));
        copy_tree(&self.path(chain), &path);
        Ok(Directory { root: File::open(&path).unwrap(), path, chain: chain.to_vec() })
    }

    fn view(&self, chain: &[Digest]) -> Result<Directory, NoImage> {
        let path = self.path(chain);
        Ok(Directory { root: File::open(&path).unwrap(), path, chain: chain.to_vec() })
    }

    fn cache(&self, wish: &CacheWish) -> Result<FakeCache, NoImage> {
        let path = self.dir.path().join(format!("cache-{}", wish.key.hex()));
        let new = wish.filled && !path.exists();
        fs::create_dir_all(&path).unwrap();
        Ok(FakeCache(Directory { root: File::open(&path).unwrap(), path, chain: Vec::new() }, new))
    }

    fn filled(&self, cache: &FakeCache) -> Result<(), NoImage> {
        assert!(cache.1);
        Ok(())
    }

    fn look(&self, wish: &RemoteWish, _: Moved<'_>) -> Result<Remote<Directory>, NoImage> {
        self.ran.lock().unwrap().push(format!("look {}", wish.shown()));
        let state = self.served.lock().unwrap().clone();
        Ok(Remote { state, name: "named".into(), files: None })
    }

    fn fetch(&self, wish: &RemoteWish, found: &Remote<Directory>, moved: Moved<'_>) -> Result<Directory, NoImage> {
        self.ran.lock().unwrap().push(format!("fetch {} {}", wish.shown(), found.name));
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join(format!("fetched-{number}"));
        fs::create_dir(&path).unwrap();
        let name = if let RemoteWish::File(file) = wish { file.name.as_str() } else { "tree" };
        moved(1, Some(1));
        File::create(path.join(name)).unwrap().write_all(found.state.as_bytes()).unwrap();
        Ok(Directory { root: File::open(&path).unwrap(), path, chain: Vec::new() })
    }

    fn run(
        &self,
        active: &Directory,
        order: &RunOrder,
        mounts: &[StepMount<'_, Self>],
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<i32, NoImage> {
        for mount in mounts {
            let path = match &mount.source {
                StepSource::Tree(tree, path) => tree.path.join(path.trim_start_matches('/')),
                StepSource::Cache(cache) => cache.0.path.clone(),
                StepSource::Tmpfs(_) => self.path(&[]),
            };
            let mut found = Vec::new();
            if path.is_dir() {
                list(&path, "", &mut found)
            } else {
                found.push(fs::read_to_string(path).unwrap())
            }
            self.ran.lock().unwrap().push(format!("{} holds {}", mount.target, found.join(" ")));
        }
        let line = order.args.last().unwrap();
        self.ran.lock().unwrap().push(line.clone());
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["write", path, text] => File::create(active.path.join(path)).unwrap().write_all(text.as_bytes()).unwrap(),
            // Only another command that runs meanwhile lets this one end.
            ["meet", path] => {
                self.together.wait();
                File::create(active.path.join(path)).unwrap();
            }
            ["endless"] => {
                self.together.wait();
                while !self.halted.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                return Err(NoImage("it was ended".into()));
            }
            ["fail", "together"] => {
                self.together.wait();
                return Ok(4);
            }
            ["fail"] => {
                output(b"first\n");
                output(b"boom\n");
                return Ok(3);
            }
            _ => {}
        }
        Ok(0)
    }

    fn unpack(&self, file: File) -> Result<Option<Directory>, NoImage> {
        if !std::io::read_to_string(file).unwrap().contains("ustar") {
            return Ok(None);
        }
        self.unpacked.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join("archive");
        fs::create_dir_all(path.join("unpacked")).unwrap();
        Ok(Some(Directory { root: File::open(&path).unwrap(), path, chain: Vec::new() }))
    }

    fn commit(&self, active: Directory) -> Result<CommittedLayer, NoImage> {
        let mut found = Vec::new();
        list(&active.path, "", &mut found);
        let diff_id = Digest::of(found.join("\n").as_bytes());
        let chain_id = Digest::of(format!("{:?} {diff_id}", active.chain.last()).as_bytes());
        let target = self.path(std::slice::from_ref(&chain_id));
        if !target.exists() {
            fs::rename(&active.path, target).unwrap();
        }
        Ok(CommittedLayer { diff_id, chain_id, size: 0 })
    }

    fn import(
        &self,
        key: &Digest,
        parent: Option<&Digest>,
        only: Option<&CommittedLayer>,
        tell: &(dyn Fn(ImportEvent<'_>) + Sync),
    ) -> Result<Option<Imported>, NoImage> {
        let foreign = self.foreign.lock().unwrap();
        let Some((of, layer)) = foreign.get(key).filter(|(of, _)| of.as_ref() == parent) else { return Ok(None) };
        if only.is_some() && layer.as_ref() != only {
            tell(ImportEvent::Warning("another layer"));
            return Ok(None);
        }
        if let Some(layer) = layer {
            fs::create_dir_all(self.path(std::slice::from_ref(&layer.chain_id))).unwrap();
        }
        self.ran.lock().unwrap().push(format!("import on {}", of.is_some()));
        Ok(Some(Imported { layer: layer.clone(), created: Timestamp(5_000_000_000), from: "afar".into() }))
    }

    fn rest(&self, time: Duration) -> Result<(), NoImage> {
        std::thread::sleep(time);
        Ok(())
    }

    fn rebase(&self, layer: &CommittedLayer, chain: &[Digest]) -> Result<CommittedLayer, NoImage> {
        let Some(parent) = chain.last() else { return Ok(layer.clone()) };
        let chain_id = Digest::of(format!("{parent} {}", layer.diff_id).as_bytes());
        let target = self.path(std::slice::from_ref(&chain_id));
        if !target.exists() {
            copy_tree(&self.path(chain), &target);
            for file in self.files(std::slice::from_ref(&layer.chain_id)) {
                let (name, text) = file.split_once('=').unwrap();
                let path = target.join(name.trim_start_matches('/'));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
            }
        }
        Ok(CommittedLayer { chain_id, ..layer.clone() })
    }

    fn halt(&self) {
        self.halted.store(true, Ordering::Relaxed);
    }

    fn create_image(
        &self,
        config: &ImageConfig,
        chain: &[Digest],
        _: &[String],
        _: &BTreeMap<String, String>,
    ) -> Result<Digest, NoImage> {
        self.images.lock().unwrap().push((config.clone(), chain.to_vec()));
        Ok(Digest::of(&serde_json::to_vec(config).unwrap()))
    }
}
