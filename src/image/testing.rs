//! What the tests of this module share: stores, archives, trees.

use super::tar::{Kind, WriteEntry, Writer};
use super::{Image, Images, ImportOptions};
use crate::base::Digest;
use crate::store::{Paths, StoreError};
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

/// A store in a directory of its own; `canary` lies beside its root.
pub(super) struct Store {
    directory: tempfile::TempDir,
    pub(super) paths: Paths,
    pub(super) images: Images,
}

impl Store {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths { root: directory.path().join("root"), run: directory.path().join("run") };
        let mut canary = File::create(directory.path().join("canary")).unwrap();
        canary.write_all(b"unchanged").unwrap();
        let images = Images::open(&paths).unwrap();
        Self { directory, paths, images }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn import(&self, archive: &[u8]) -> super::error::Result<Image> {
        let options = ImportOptions { reference: "test".parse().ok(), ..ImportOptions::default() };
        self.images.import(&file(archive), &options)
    }

    /// The tree of an image's only layer.
    pub(super) fn tree(&self, image: &Image) -> PathBuf {
        self.paths.snapshots().join(image.chain()[0].hex()).join("fs")
    }

    /// Nothing is left of work in progress, and nothing outside the store was touched.
    pub(super) fn check_clean(&self) {
        let names = |path: &Path| -> Vec<String> {
            let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(names(&self.paths.root.join("content/ingest")), Vec::<String>::new());
        let mut outside = names(self.directory.path());
        outside.retain(|name| !matches!(name.as_str(), "root" | "run" | "canary"));
        assert_eq!(outside, Vec::<String>::new());
        assert_eq!(std::fs::read(self.directory.path().join("canary")).unwrap(), b"unchanged");
    }

    pub(super) fn layers(&self) -> usize {
        self.images.snapshots().keys().len()
    }
}

/// An image `two:1` of two layers: the second adds, hides one file by a whiteout, and makes a directory opaque.
pub(super) fn two_layers(store: &Store) -> Image {
    let base = store.import(&Archive::new().directory("etc").file("etc/a", b"1").file("etc/b", b"2").finish()).unwrap();
    let active = store.images.snapshots().prepare("step", &base).unwrap();
    let upper = active.store.join(&active.upper);
    std::fs::create_dir(upper.join("etc")).unwrap();
    File::create(upper.join("etc/c")).unwrap().write_all(b"3").unwrap();
    std::fs::hard_link(upper.join("etc/c"), upper.join("etc/d")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, upper.join("etc/a"), rustix::fs::FileType::CharacterDevice, 0.into(), 0)
        .unwrap();
    std::fs::create_dir(upper.join("var")).unwrap();
    rustix::fs::setxattr(upper.join("var"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    let layer = store.images.commit_layer("step", &super::diff::Options { clamp: Some(1_000_000_000) }).unwrap();
    let mut config = base.config.clone();
    config.config.env = vec!["A=<b>".to_owned()];
    let layers = [base.layers[0].clone(), layer];
    store.images.create_image(config, &layers, &["two:1".parse().unwrap()]).unwrap()
}

/// Nobody but images and containers needs a layer.
pub(super) fn no_roots() -> Result<Vec<Digest>, StoreError> {
    Ok(Vec::new())
}

/// A file with this content, at its beginning.
pub(super) fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

/// Builds an archive entry by entry.
pub(super) struct Archive(pub(super) Writer<Vec<u8>>);

impl Archive {
    pub(super) fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    pub(super) fn add(mut self, kind: Kind, path: &str, link: &str, content: &[u8]) -> Self {
        self.put(kind, path, link, content, &[]);
        self
    }

    pub(super) fn put(&mut self, kind: Kind, path: &str, link: &str, content: &[u8], xattrs: &[(Vec<u8>, Vec<u8>)]) {
        let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
        let size = content.len() as u64;
        let entry = WriteEntry {
            path: path.as_bytes(),
            link: link.as_bytes(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: (1_000_000_000, 0),
            size,
            xattrs,
        };
        self.0.entry(&entry).unwrap();
        self.0.out.extend_from_slice(content);
    }

    pub(super) fn file(self, path: &str, content: &[u8]) -> Self {
        self.add(Kind::File, path, "", content)
    }

    pub(super) fn directory(self, path: &str) -> Self {
        self.add(Kind::Directory, &format!("{path}/"), "", b"")
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

/// Runs a program of the host.
#[expect(clippy::disallowed_methods, reason = "the tests compare with programs of the host")]
pub(super) fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
