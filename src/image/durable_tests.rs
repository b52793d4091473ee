//! What a power cut leaves, played: records of another boot, files without content.

use super::testing::{Archive, Store, file, no_roots};
use super::{Images, Layer, diff};
use crate::sys::writeback::dirty_pages;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

const CONTENT: &[u8] = b"the whole content";
/// Number of a file system without a disk (*statfs(2)*).
const TMPFS: u64 = 0x0102_1994;
/// How often a thing is tried that another test's sync may hide.
const ROUNDS: u8 = 8;

fn archive() -> Vec<u8> {
    Archive::new().file("file", CONTENT).finish()
}

/// A layer that no image names, as a build step leaves it.
fn unnamed(images: &Images) -> Layer {
    images.layer_from_tar(&file(&archive()), None).unwrap()
}

fn directory(store: &Store, layer: &Layer) -> PathBuf {
    store.paths.snapshots().join(layer.chain_id.hex())
}

fn cut(path: &Path) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
}

/// Starts the machine again: whatever says this boot says `was` now. Returns the store as the next command sees it.
fn reboot(store: &Store, was: &str) -> Images {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let layers = std::fs::read_dir(store.paths.snapshots()).unwrap().map(|entry| entry.unwrap().path());
    let records = layers.map(|layer| layer.join("meta.json")).chain([store.paths.root.join("images/references.json")]);
    for record in records.filter(|record| record.exists()) {
        let text = std::fs::read_to_string(&record).unwrap().replace(id.trim(), was);
        crate::store::write_bytes(&record, text.as_bytes(), crate::store::Durability::Atomic).unwrap();
    }
    Images::open(&store.paths).unwrap()
}

#[test]
fn a_layer_that_was_never_synced_does_not_outlive_its_boot() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let layer = unnamed(&store.images);
    assert!(
        store.images.snapshots().layer(&layer.chain_id).unwrap().is_some(),
        "it is used as long as nothing happens"
    );
    cut(&directory(&store, &layer).join("fs/file"));
    let images = reboot(&store, "first");
    assert_eq!(images.snapshots().layer(&layer.chain_id).unwrap(), None);
    assert_eq!(unnamed(&images), layer, "it is taken in again");
    assert_eq!(std::fs::read(directory(&store, &layer).join("fs/file")).unwrap(), CONTENT);
    store.check_clean();
}

#[test]
fn a_layer_of_an_image_outlives_every_boot() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let image = store.import(&archive()).unwrap();
    let images = reboot(&store, "first");
    assert!(images.snapshots().layer(&image.chain()[0]).unwrap().is_some());
    // So does what lay there before the sync, named or not, and nothing that came later.
    let other = images.layer_from_tar(&file(&Archive::new().file("other", b"1").finish()), None).unwrap();
    store.import(&Archive::new().file("third", b"1").finish()).unwrap();
    let late = images.layer_from_tar(&file(&Archive::new().file("late", b"1").finish()), None).unwrap();
    let images = reboot(&store, "second");
    assert!(images.snapshots().layer(&other.chain_id).unwrap().is_some());
    assert_eq!(images.snapshots().layer(&late.chain_id).unwrap(), None);
}

#[test]
fn a_torn_record_of_a_layer_is_no_layer() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let layer = unnamed(&store.images);
    cut(&directory(&store, &layer).join("meta.json"));
    assert_eq!(store.images.snapshots().layer(&layer.chain_id).unwrap(), None);
    assert_eq!(unnamed(&store.images), layer);
    assert!(store.images.snapshots().layer(&layer.chain_id).unwrap().is_some());
    store.check_clean();
}

#[test]
fn what_did_not_survive_is_collected_whoever_needs_it() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let image = store.import(&Archive::new().file("kept", b"1").finish()).unwrap();
    let layer = unnamed(&store.images);
    let images = reboot(&store, "the boot before");
    let collected = images.collect(&|_| true, &|| Ok(vec![layer.chain_id.clone()])).unwrap();
    assert_eq!(collected.layers, 1);
    assert!(!directory(&store, &layer).exists());
    let index = || std::fs::read_to_string(store.paths.root.join("images/references.json")).unwrap();
    assert!(index().contains("the boot before"), "a layer of it is still here");
    images.remove(image.id.as_str(), true, &|_| Vec::new(), &no_roots).unwrap();
    images.collect(&|_| true, &no_roots).unwrap();
    assert!(!index().contains("the boot before"));
}

#[test]
fn a_damaged_document_is_written_again() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let image = store.import(&archive()).unwrap();
    let config = store.images.blob(&image.id).unwrap();
    // A power cut between the documents and the record.
    std::fs::remove_file(store.paths.root.join("images/references.json")).unwrap();
    cut(&store.paths.blob(&image.id));
    store.images.create_image(serde_json::from_slice(&config).unwrap(), &image.layers, &[]).unwrap();
    assert_eq!(store.images.blob(&image.id).unwrap(), config);
}

/// The file `large` below a directory must be on its way to the disk, though nobody has synced it.
fn begun(directory: BorrowedFd<'_>) {
    let large = rustix::fs::openat(directory, "large", OFlags::RDONLY, Mode::empty()).unwrap();
    if rustix::fs::fstatfs(&large).unwrap().f_type as u64 == TMPFS {
        return crate::tests::skip("the temporary directory has no disk");
    }
    match dirty_pages(large.as_fd()) {
        Err(Errno::NOSYS) => crate::tests::skip("needs Linux 6.5 (cachestat)"),
        dirty => assert_eq!(dirty, Ok(0)),
    }
}

#[test]
fn what_is_unpacked_is_on_its_way_to_the_disk_before_it_is_synced() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let archive = Archive::new().file("large", &[7; 1 << 20]).finish();
    for _ in 0..ROUNDS {
        begun(store.images.extract(&file(&archive)).unwrap().root());
    }
}

#[test]
fn what_a_step_wrote_is_on_its_way_to_the_disk_before_it_is_synced() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    for round in 0..ROUNDS {
        let active = store.images.snapshots().prepare("step", []).unwrap();
        let mut large = std::fs::File::create(active.store.join(&active.upper).join("large")).unwrap();
        large.write_all(&[round; 1 << 20]).unwrap();
        let layer = store.images.commit_layer("step", &diff::Options::default()).unwrap();
        begun(std::fs::File::open(directory(&store, &layer).join("fs")).unwrap().as_fd());
    }
}
