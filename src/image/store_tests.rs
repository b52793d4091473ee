//! Images by name, removed and collected: what goes and what others keep.

use super::Removed;
use super::error::ImageError;
use super::testing::{Archive, Store, no_roots, two_layers};
use crate::base::Digest;
use crate::store::{Durability, is_locked, write_bytes};
use std::cell::Cell;
use std::fs::File;
use std::io::Write;

#[test]
fn names_ids_and_beginnings_of_ids_find_an_image() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let image = two_layers(&store);
    for name in [
        "two:1",
        "docker.io/library/two:1",
        image.id.as_str(),
        image.id.hex(),
        image.id.short(),
        &format!("two@{}", image.manifest),
    ] {
        assert_eq!(store.images.resolve(name).unwrap().id, image.id, "{name}");
    }
    assert!(matches!(store.images.resolve("two"), Err(ImageError::NotFound(name)) if name == "two:latest"));
    assert!(matches!(store.images.resolve("Two"), Err(ImageError::Reference(_))));
    let error = (0..16)
        .map(|n| store.images.resolve(&format!("{n:x}")))
        .find(|r| matches!(r, Err(ImageError::Ambiguous { .. })));
    let ids: Vec<char> = store.images.list().unwrap().iter().map(|i| i.id.hex().chars().next().unwrap()).collect();
    assert_eq!(error.is_some(), ids[0] == ids[1]);
    assert_eq!(store.images.list().unwrap().len(), 2);
}

#[test]
fn removal_goes_by_names_and_spares_what_others_use() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let image = two_layers(&store);
    let nobody = |_: &Digest| Vec::new();
    store.images.tag(&image, &"other:1".parse().unwrap()).unwrap();
    assert!(matches!(
        store.images.remove(image.id.short(), false, &nobody, &no_roots),
        Err(ImageError::ManyNames { .. })
    ));
    assert_eq!(
        store.images.remove("other:1", false, &nobody, &no_roots).unwrap(),
        [Removed::Untagged("other:1".parse().unwrap())]
    );
    let busy = store.images.remove("two:1", false, &|_| vec!["web".to_owned()], &no_roots).unwrap_err();
    assert!(busy.to_string().contains("web"), "{busy}");
    let removed = store.images.remove("two:1", false, &nobody, &no_roots).unwrap();
    // The lower layer belongs to the other image too.
    assert_eq!(
        removed,
        [
            Removed::Untagged("two:1".parse().unwrap()),
            Removed::Deleted(image.id.clone()),
            Removed::Deleted(image.chain()[1].clone())
        ]
    );
    assert!(matches!(store.images.resolve("two:1"), Err(ImageError::NotFound(_))));
    let base = store.images.resolve("test").unwrap();
    store.images.snapshots().prepare("container", &base).unwrap();
    store.images.remove("test", true, &|_| vec!["web".to_owned()], &no_roots).unwrap();
    assert_eq!(store.layers(), 2, "a container's snapshot keeps its layers");
    let collected = store.images.collect(&|_| true, &no_roots).unwrap();
    assert_eq!((collected.layers, collected.snapshots), (0, 0));
    let collected = store.images.collect(&|_| false, &no_roots).unwrap();
    assert_eq!((collected.layers, collected.snapshots), (1, 1));
    assert_eq!(store.layers(), 0);
    assert_eq!(std::fs::read_dir(store.paths.root.join("content/blobs/sha256")).unwrap().count(), 0);
    store.check_clean();
}

#[test]
fn what_a_killed_process_left_is_collected_and_what_a_living_one_does_is_spared() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let image = two_layers(&store);
    let dead = store.paths.root.join("content/ingest/12345-0/0/fs");
    std::fs::create_dir_all(&dead).unwrap();
    File::create(store.paths.root.join("content/ingest/12345-0/lock")).unwrap();
    let hold = store.images.hold().unwrap();
    assert!(!dead.exists());
    store.images.remove("two:1", false, &|_| Vec::new(), &no_roots).unwrap();
    assert_eq!(store.layers(), 2, "layers stay while somebody works");
    drop(hold);
    store.images.collect(&|_| true, &|| Ok(vec![image.chain()[1].clone()])).unwrap();
    assert_eq!(store.layers(), 2, "roots and what lies below them stay");
    store.images.collect(&|_| true, &no_roots).unwrap();
    assert_eq!(store.layers(), 1);
}

/// They were read before the lock: a build that ended in between lost the layers of its new steps.
#[test]
fn roots_are_read_when_nobody_can_add_one_any_more() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let image = two_layers(&store);
    let asked = Cell::new(0);
    let roots = || {
        asked.set(asked.get() + 1);
        for lock in ["images/lock", "content/ingest.lock"] {
            assert!(is_locked(&store.paths.root.join(lock)), "{lock} is free");
        }
        Ok(vec![image.chain()[1].clone()])
    };
    store.images.remove("two:1", false, &|_| Vec::new(), &roots).unwrap();
    store.images.collect(&|_| true, &roots).unwrap();
    assert_eq!((asked.get(), store.layers()), (2, 2));
}

#[test]
fn an_import_that_is_killed_leaves_only_what_is_collected() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let (read, write) = rustix::pipe::pipe().unwrap();
    let read = File::from(read);
    let import = || i32::from(store.images.import(&read, &super::ImportOptions::default()).is_err());
    let worker = crate::sys::worker::Worker::fork(&[std::os::fd::AsFd::as_fd(&read)], import).unwrap();
    // An archive that never ends: its second file is announced and does not come.
    let archive = Archive::new().file("first", b"1").file("second", &[0; 4096]).finish();
    let mut write = File::from(write);
    write.write_all(&archive[..1600]).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let begun = || {
        std::fs::read_dir(store.paths.root.join("content/ingest"))
            .is_ok_and(|all| all.flatten().any(|one| one.path().join("0/fs/first").exists()))
    };
    while !begun() {
        assert!(std::time::Instant::now() < deadline, "the import never began");
        std::thread::yield_now();
    }
    drop(worker);
    assert!(begun(), "a killed process cleans nothing");
    store.images.collect(&|_| true, &no_roots).unwrap();
    store.check_clean();
    assert_eq!(store.layers(), 0);
}

#[test]
fn a_writable_tree_costs_no_file_for_its_record_unless_an_attribute_cannot_hold_it() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let snapshots = store.images.snapshots();
    for count in [0, 1, 3, 499] {
        let chain: Vec<_> = (0..count).map(|n| Digest::of(format!("{count} {n}").as_bytes())).collect();
        for id in &chain {
            std::fs::create_dir_all(store.paths.snapshots().join(id.hex()).join("fs")).unwrap();
        }
        let key = format!("tree-{count}");
        let made = snapshots.prepare(&key, &chain).unwrap();
        assert_eq!(snapshots.mounts(&key).unwrap(), made, "{count} layers");
        let directory = store.paths.snapshots().join(&key);
        let mut names: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        if count <= 3 {
            assert_eq!(names, ["fs", "work"], "{count} layers");
        }
        // What an earlier version, or a file system without attributes, has.
        let text = br#"{"schema":1,"active":{"chain":[],"created":"2026-01-01T00:00:00Z"}}"#;
        write_bytes(&directory.join("meta.json"), text, Durability::Atomic).unwrap();
        assert_eq!(snapshots.mounts(&key).unwrap().lowers.len(), 0, "the file counts");
        snapshots.remove(&key).unwrap();
        assert!(!directory.exists() && snapshots.mounts(&key).is_err());
    }
}
