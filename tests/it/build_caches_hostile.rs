//! Caches of builds that lie, are damaged, or are cut off: nothing is believed that does not follow from the build itself.

use crate::build_caches::{FILE, another_store, app, build, files, imported, performed, read};
use crate::support::registry::{Content, Deed, Packed, Registry, digest, layer};
use crate::support::{World, busybox_tar, host, requires, wait_for};
use std::path::Path;
use std::time::{Duration, Instant};

/// The key of the step of a title, in a store that has performed it.
pub(super) fn key(world: &World, title: &str) -> String {
    let entries = std::fs::read_dir(world.root.join("build/cache")).unwrap().flatten();
    let mut records = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "json"));
    let of_title =
        |entry: &std::fs::DirEntry| std::fs::read_to_string(entry.path()).unwrap().contains(&format!("\"{title}\""));
    let found = records.find(of_title).expect("a record of that title");
    format!("sha256:{}", found.path().file_stem().unwrap().to_str().unwrap())
}

pub(super) fn steps(list: &[(&str, u64, bool)]) -> serde_json::Value {
    let step = |(key, below, layer): &(&str, u64, bool)| serde_json::json!({ "key": key, "below": below, "layer": layer, "created": "2026-01-01T00:00:00Z", "title": "forged\u{1b}[2J" });
    serde_json::json!({ "steps": list.iter().map(step).collect::<Vec<_>>() })
}

#[test]
fn a_cache_is_believed_on_its_own_chain_and_nowhere_else() {
    requires!(root);
    let mut world = app("FROM busybox\nRUN echo made > /made\n");
    build(&world, &[]);
    let key = key(&world, "RUN echo made > /made");
    let (base, forged) = (std::fs::read(busybox_tar()).unwrap(), layer(&[("made", b"forged\n")]));
    let escape = {
        let mut tar = layer(&[("zzzz", b"x")]);
        // A name that the writer of the tests would refuse.
        tar[..4].copy_from_slice(b"../x");
        let sum = tar[..512]
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum::<u32>();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar
    };
    let other = layer(&[("other", b"base")]);
    let mut content = Content::default();
    let mut image = |tag: &str, layers: &[Vec<u8>], carried: serde_json::Value| {
        content.image_for(&format!("cache:{tag}"), layers, Packed::Gzip, "amd64", &|config| {
            config["io.bulkhead.cache.v1"] = carried.clone();
        })
    };
    image("right", &[base.clone(), forged.clone()], steps(&[(&key, 1, true)]));
    image("parent", &[other, forged.clone()], steps(&[(&key, 1, true)]));
    image("nothing", std::slice::from_ref(&forged), steps(&[(&key, 0, true)]));
    image("above", &[base.clone(), forged.clone()], steps(&[(&key, 2, true)]));
    image("huge", &[base.clone(), forged.clone()], steps(&[(&key, 18_446_744_073_709_551_615, false)]));
    image("many", &[base.clone(), forged.clone()], steps(&vec![(key.as_str(), 1, true); 10_001]));
    image("escape", &[base.clone(), escape], steps(&[(&key, 1, true)]));
    image("plain", &[base.clone(), forged.clone()], serde_json::Value::Null);
    let liar = image("liar", &[base, forged.clone()], steps(&[(&key, 1, true)]));
    // The same manifest, and a config that says something else of the second layer.
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&content.manifests[&format!("cache@{liar}")].1).unwrap();
    let id = manifest["config"]["digest"].as_str().unwrap().to_owned();
    let mut changed: serde_json::Value = serde_json::from_slice(&content.blobs[&id]).unwrap();
    changed["rootfs"]["diff_ids"][1] = digest(b"another").into();
    let bytes = serde_json::to_vec(&changed).unwrap();
    manifest["config"]["digest"] = digest(&bytes).into();
    manifest["config"]["size"] = bytes.len().into();
    content.blobs.insert(digest(&bytes), bytes);
    content.manifest("cache:liar", crate::support::registry::MANIFEST, serde_json::to_vec(&manifest).unwrap());
    // A configuration that is no text, and one that is longer than it may be.
    for (tag, bytes) in [
        ("bomb", crate::support::registry::pack(&vec![b' '; 1 << 20], Packed::Gzip)),
        ("long", vec![b' '; (8 << 20) + 1]),
    ] {
        manifest["config"]["digest"] = digest(&bytes).into();
        manifest["config"]["size"] = bytes.len().into();
        content.blobs.insert(digest(&bytes), bytes);
        content.manifest(
            &format!("cache:{tag}"),
            crate::support::registry::MANIFEST,
            serde_json::to_vec(&manifest).unwrap(),
        );
    }
    let registry = Registry::serve(&world, content);
    for (tag, made, words) in [
        // Who is named is trusted with what a step leads to.
        ("right", "forged", &[][..]),
        ("parent", "made", &[]),
        ("nothing", "made", &[]),
        ("above", "made", &["is of no use", "whose layer it lacks"]),
        ("huge", "made", &["is of no use", "layers it lacks"]),
        ("many", "made", &["is of no use", "more build steps than are read"]),
        ("escape", "made", &["cannot be used, and is performed", "../x"]),
        ("plain", "made", &["is of no use", "carries no build steps"]),
        ("liar", "made", &["cannot be used, and is performed", "uncompressed layer"]),
        ("bomb", "made", &["is of no use", "read image config"]),
        ("long", "made", &["is of no use", "longer than 8388608 bytes"]),
    ] {
        another_store(&mut world, &format!("store-{tag}"));
        let from = format!("{}/cache:{tag}", registry.address);
        let built = build(&world, &["--cache-from", &from]);
        for word in words {
            assert!(built.stderr.contains(word), "{tag}: {word:?}: {built:?}");
        }
        assert_eq!(built.stderr.contains("WARNING"), !words.is_empty(), "{tag}: {built:?}");
        assert!(!built.stderr.contains('\u{1b}') && !built.stdout.contains('\u{1b}'), "{tag}: {built:?}");
        assert_eq!(read(&world, "/made"), made, "{tag}");
        assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0, "{tag}");
    }
    assert!(!world.path("x").exists() && !Path::new("/x").exists());
    // A record of one's own is not replaced, though its layer is gone.
    another_store(&mut world, "store-own");
    build(&world, &[]);
    world.ok(&["rmi", "app:1"]);
    let record = |world: &World| {
        std::fs::read(world.root.join(format!("build/cache/{}.json", key.trim_start_matches("sha256:")))).unwrap()
    };
    let own: serde_json::Value = serde_json::from_slice(&record(&world)).unwrap();
    let chain = own["layer"]["chain_id"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    std::fs::remove_dir_all(world.root.join("snapshots").join(chain)).unwrap();
    let built = build(&world, &["--cache-from", &format!("{}/cache:right", registry.address)]);
    assert_eq!((performed(&built), read(&world, "/made")), (vec!["RUN".to_owned()], "made".to_owned()), "{built:?}");
}

#[test]
fn a_hostile_directory_is_read_by_descriptor_and_a_damaged_one_costs_its_steps() {
    requires!(root);
    let mut world = app("FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\n");
    build(&world, &["--cache-to", "type=local,dest=good"]);
    let good = files(&world.path("good"));
    let id = read(&world, "/id");
    let largest = |below: usize| {
        let mut names: Vec<_> = good.iter().filter(|(name, _)| name.starts_with("blobs/")).collect();
        names.sort_by_key(|(_, bytes)| bytes.len());
        names[below].0.clone()
    };
    // Blobs by length: the layer of one small file, then documents, then busybox.
    let documents: Vec<&String> =
        good.iter().filter(|(_, bytes)| bytes.starts_with(b"{")).map(|(name, _)| name).collect();
    let layer = good
        .iter()
        .find(|(name, bytes)| {
            name.starts_with("blobs/") && bytes.starts_with(&[0x1f, 0x8b]) && **name != largest(good.len() - 3)
        })
        .unwrap()
        .0
        .clone();
    let config =
        (*documents.iter().find(|name| String::from_utf8_lossy(&good[**name]).contains("diff_ids")).unwrap()).clone();
    let text = |name: &str| String::from_utf8(good[name].clone()).unwrap();
    type Change<'c> = Box<dyn Fn(&Path) + 'c>;
    let put = |name: &str, bytes: Vec<u8>| -> Change<'_> {
        let name = name.to_owned();
        Box::new(move |at| std::fs::write(at.join(&name), &bytes).unwrap())
    };
    let flipped = {
        let mut bytes = good[&layer].clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    let outside = world.write("outside", &good[&layer]);
    let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
        ("flipped", put(&layer, flipped), &["cannot be used, and is performed"]),
        ("cut", put(&layer, good[&layer][..20].to_vec()), &["cannot be used, and is performed", "another length"]),
        ("gone", Box::new(|at| std::fs::remove_file(at.join(&layer)).unwrap()), &["and is performed", "open"]),
        (
            "link",
            Box::new(|at| {
                std::fs::remove_file(at.join(&layer)).unwrap();
                std::os::unix::fs::symlink(&outside, at.join(&layer)).unwrap();
            }),
            &["cannot be used, and is performed", "os error 40"],
        ),
        (
            "pipe",
            Box::new(|at| {
                std::fs::remove_file(at.join(&layer)).unwrap();
                host("mkfifo", &[at.join(&layer).to_str().unwrap()]).ok();
            }),
            &["cannot be used, and is performed", "Invalid argument"],
        ),
        (
            "directory",
            Box::new(|at| {
                std::fs::rename(at.join("blobs"), at.join("other")).unwrap();
                std::os::unix::fs::symlink("other", at.join("blobs")).unwrap();
            }),
            &["is of no use", "os error 40"],
        ),
        (
            "config",
            put(&config, text(&config).replace("\"below\":1", "\"below\":0").into_bytes()),
            &["is of no use", "digest is"],
        ),
        (
            "climbs",
            put(
                "index.json",
                text("index.json").replace("\"digest\":\"sha256:", "\"digest\":\"sha256:../../").into_bytes(),
            ),
            &["is of no use", "read index"],
        ),
        (
            "huge",
            put("index.json", text("index.json").replace("\"size\":", "\"size\":9999999").into_bytes()),
            &["is of no use", "64 MiB"],
        ),
        ("longer", put("index.json", vec![b' '; (8 << 20) + 1]), &["is of no use", "longer than a document"]),
        ("no index", Box::new(|at| std::fs::remove_file(at.join("index.json")).unwrap()), &["is of no use", "open"]),
    ];
    for (name, change, words) in cases {
        let at = world.path("hostile");
        let _ = std::fs::remove_dir_all(&at);
        host("cp", &["-a", world.path("good").to_str().unwrap(), at.to_str().unwrap()]).ok();
        change(&at);
        another_store(&mut world, &format!("store-{}", name.replace(' ', "-")));
        let built = build(&world, &["--cache-from", "type=local,src=hostile"]);
        for word in words {
            assert!(built.stderr.contains(word), "{name}: {word:?}: {built:?}");
        }
        assert_eq!((performed(&built), imported(&built)), (vec!["RUN".to_owned()], 0), "{name}: {built:?}");
        assert_ne!(read(&world, "/id"), id, "{name}");
    }
    another_store(&mut world, "store-good");
    assert_eq!(imported(&build(&world, &["--cache-from", "type=local,src=good"])), 1);
    assert_eq!(read(&world, "/id"), id);
}

#[test]
fn a_killed_export_leaves_the_cache_that_was_there() {
    requires!(root);
    let mut world = app("FROM busybox\nCOPY file /file\nRUN cat /proc/sys/kernel/random/uuid > /id\n");
    let flags = ["--cache-to", "type=local,dest=cache"];
    build(&world, &flags);
    let (before, id) = (files(&world.path("cache")), read(&world, "/id"));
    for (point, kept) in
        [("cache.blob:1", true), ("cache.blob:2", true), ("cache.complete", true), ("cache.replaced", false)]
    {
        world.root = world.path("root");
        world.write("app/file", point);
        let words = [&["build", "--network", "none", "-q"], &flags[..], &["app"]].concat();
        let cut = world.bulkhead_in(&words, None, &[("BULKHEAD_FAULT", &format!("{point}:kill"))]);
        assert_eq!(cut.code, 137, "{point}: {cut:?}");
        let after = files(&world.path("cache"));
        assert_eq!(after["index.json"] == before["index.json"], kept, "{point}");
        if kept {
            assert!(before.iter().all(|(name, bytes)| after[name] == *bytes), "{point}: what it names is there");
            world.write("app/file", "linked");
        }
        another_store(&mut world, &format!("store-{}", point.replace([':', '.'], "-")));
        let built = build(&world, &["--cache-from", "type=local,src=cache"]);
        assert_eq!((performed(&built), imported(&built)), (vec![], 2), "{point}: {built:?}");
        assert_eq!(read(&world, "/id") == id, kept, "{point}");
    }
    // The next one sweeps what they left.
    world.root = world.path("root");
    build(&world, &flags);
    let names: Vec<String> = files(&world.path("cache")).into_keys().collect();
    assert!(names.len() == before.len() && !names.iter().any(|name| name.contains("draft")), "{names:?}");
}

#[test]
fn an_interruption_ends_the_export_and_the_import_at_once() {
    requires!(root);
    let mut world = app(FILE);
    build(&world, &["--cache-to", "type=local,dest=cache"]);
    // A server that begins to answer and does not go on.
    let stuck = |_: &crate::support::registry::Asked, _| {
        Deed::Raw(vec![(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{".to_vec(), Duration::from_secs(60))])
    };
    let registry = Registry::misbehave(&world, Content::default(), stuck);
    let cache = format!("type=registry,ref={}/cache:1", registry.address);
    let interrupted = |world: &World, flag: &str| {
        let before = registry.asked().len();
        let child = world.spawn(&["build", "--network", "none", flag, &cache, "-t", "app:1", "app"]);
        wait_for("the cache to be asked for", 30, || (registry.asked().len() > before).then_some(()));
        let began = Instant::now();
        host("kill", &["-INT", &child.id().to_string()]).ok();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{flag}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(began.elapsed() < Duration::from_secs(2), "{flag} took {:?}", began.elapsed());
    };
    interrupted(&world, "--cache-to");
    assert!(!world.inspect("app:1", "{{.Id}}").is_empty(), "the image was built before");
    another_store(&mut world, "second");
    interrupted(&world, "--cache-from");
    world.bulkhead(&["inspect", "app:1"]).fails(1, &["app:1"]);
    assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0);
    build(&world, &["--cache-from", "type=local,src=cache"]);
}
