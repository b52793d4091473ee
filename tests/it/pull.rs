//! `pull`, and pulling by itself, from registries that behave and from those that do not.

use crate::support::registry::{Asked, Content, Deed, Packed, Registry, digest, layer, noise, serve};
use crate::support::{World, busybox_tar, requires, wait_for};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Layers of an image that runs: busybox, and a file above it.
pub(super) fn layers() -> Vec<Vec<u8>> {
    let small = layer(&[("etc/marker", b"pulled\n")]);
    vec![std::fs::read(busybox_tar()).unwrap(), small]
}

/// A small image that does not run, with one layer of noise.
pub(super) fn noisy(length: usize) -> Content {
    let mut content = Content::default();
    content.image("app:1", &[layer(&[("noise", &noise(length))])], Packed::Gzip);
    content
}

/// The packed layer of [`noisy`]: digest and bytes.
pub(super) fn blob(content: &Content) -> (String, Vec<u8>) {
    let largest = content.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    (largest.0.clone(), largest.1.clone())
}

pub(super) fn is_blob(asked: &Asked, digest: &str) -> bool {
    asked.path.ends_with(&format!("/blobs/{digest}"))
}

/// Short deadlines, so that a test does not wait for a minute.
pub(super) fn impatient(world: &World) {
    let text = "[registry]\nconnect_timeout = '2s'\nidle_timeout = '400ms'\ndocument_timeout = '800ms'\n";
    world.write("bulkhead.toml", text);
}

pub(super) fn settings(world: &World) -> String {
    world.path("bulkhead.toml").to_string_lossy().into_owned()
}

/// Runs the program with the world's settings and Docker's configuration directory.
pub(super) fn run(world: &World, arguments: &[&str]) -> crate::support::Outcome {
    let docker = world.path("docker").to_string_lossy().into_owned();
    world.bulkhead_in(arguments, None, &[("BULKHEAD_CONFIG", &settings(world)), ("DOCKER_CONFIG", &docker)])
}

/// Nothing of a failed pull is in the store.
#[track_caller]
pub(super) fn nothing_left(world: &World) {
    assert_eq!(world.ok(&["images", "-q"]), "");
    let names = |path: &str| -> Vec<String> {
        let entries = std::fs::read_dir(world.root.join(path)).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect()
    };
    for place in ["snapshots", "content/ingest", "content/blobs/sha256"] {
        assert_eq!(names(place), Vec::<String>::new(), "{place}");
    }
}

/// A pull of `app:1` fails, says each of the words and leaves nothing.
#[track_caller]
pub(super) fn refused(world: &World, registry: &Registry, words: &[&str]) -> String {
    let said = run(world, &["pull", &format!("{}/app:1", registry.address)]).fails(1, words);
    nothing_left(world);
    said
}

#[test]
fn images_are_pulled_by_tag_and_digest_in_all_compressions() {
    requires!(root);
    let world = World::new();
    let (mut content, layers) = (Content::default(), layers());
    let gzip = content.image("app:gzip", &layers, Packed::Gzip);
    content.image("app:zstd", &layers, Packed::Zstd);
    content.image("app:plain", &layers, Packed::Plain);
    let registry = Registry::serve(&world, content);
    for tag in [":gzip", ":zstd", ":plain", &format!("@{gzip}")] {
        let name = format!("{}/app{tag}", registry.address);
        assert_eq!(world.ok(&["pull", &name]), name);
        assert_eq!(world.ok(&["run", "--rm", "--network", "none", &name, "cat", "/etc/marker"]), "pulled");
        let again = world.bulkhead(&["pull", &name]);
        assert!(again.stderr.contains("Image is up to date for"), "{again:?}");
        assert_eq!(world.ok(&["pull", "-q", &name]), name);
        world.ok(&["rmi", &name]);
        nothing_left(&world);
    }
    let name = format!("{}/app", registry.address);
    world.bulkhead(&["pull", &name]).fails(1, &["Using default tag: latest", "there is no image", ":latest"]);
    world.bulkhead(&["pull", "UPPER"]).fails(1, &["UPPER"]);
}

#[test]
fn a_moved_tag_is_pulled_again_and_shared_layers_are_not() {
    requires!(root);
    let world = World::new();
    let (base, mut content) = (layer(&[("base", &noise(10_000))]), Content::default());
    content.image("app:1", std::slice::from_ref(&base), Packed::Gzip);
    content.image("app:2", &[base, layer(&[("more", b"x")])], Packed::Gzip);
    let tag = Arc::new(Mutex::new("1"));
    let (moved, all) = (Arc::clone(&tag), content.clone());
    let registry = Registry::misbehave(&world, content, move |asked, _| {
        let mut asked = asked.clone();
        asked.path = asked.path.replace("/manifests/moving", &format!("/manifests/{}", moved.lock().unwrap()));
        let (status, fields, body) = serve(&asked, &all);
        Deed::Answer(status, fields, body)
    });
    let name = format!("{}/app:moving", registry.address);
    world.ok(&["pull", &name]);
    let first = world.ok(&["images", "-q"]);
    *tag.lock().unwrap() = "2";
    let second = world.bulkhead(&["pull", &name]);
    assert!(second.stderr.contains("Already exists") && second.stderr.contains("Downloaded newer"), "{second:?}");
    assert_ne!(world.ok(&["image", "inspect", "--format", "{{.Id}}", &name])[7..19], first[..12]);
    // Two configs, two layers: the shared one came once.
    assert_eq!(registry.blobs().len(), 4, "{:?}", registry.blobs());
}

#[test]
fn the_image_of_an_index_is_that_of_the_platform() {
    requires!(root);
    let world = World::new();
    let mut content = Content::default();
    let plain = |content: &mut Content, machine: &str| {
        let tar = layer(&[("machine", machine.as_bytes())]);
        content.image_for("app:x", &[tar], Packed::Gzip, machine, &|_| {})
    };
    let (amd, arm) = (plain(&mut content, "amd64"), plain(&mut content, "arm64"));
    content.index("app:both", &[(&arm, "arm64"), (&amd, "amd64")]);
    content.index("app:1", &[(&arm, "arm64")]);
    content.image_for("app:liar", &[], Packed::Gzip, "s390x", &|_| {});
    let registry = Registry::serve(&world, content);
    let name = |tag: &str| format!("{}/app:{tag}", registry.address);
    let machine = |name: &str| world.ok(&["image", "inspect", "--format", "{{.Architecture}}", name]);
    world.ok(&["pull", &name("both")]);
    assert_eq!(machine(&name("both")), "amd64");
    world.ok(&["pull", "--platform", "linux/arm64", &name("both")]);
    assert_eq!(machine(&name("both")), "arm64");
    world.ok(&["rmi", "-f", &name("both")]);
    world.bulkhead(&["image", "prune", "-af"]).ok();
    refused(&world, &registry, &["not there for linux/amd64", "it is for linux/arm64", "--platform"]);
    world.bulkhead(&["pull", &name("liar")]).fails(1, &["not there for linux/amd64", "linux/s390x"]);
    world.bulkhead(&["pull", "--platform", "a/b/c/d", &name("both")]).fails(125, &["--platform"]);
    nothing_left(&world);
}

#[test]
fn a_cut_blob_goes_on_where_it_was_cut() {
    requires!(root);
    let world = World::new();
    let content = noisy(3_000_000);
    let (name, bytes) = blob(&content);
    let half = bytes.len() / 2;
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
    let first = [begun.as_bytes(), &bytes[..half]].concat();
    let registry = Registry::misbehave(&world, content, move |asked, before| match before {
        0 if is_blob(asked, &name) => Deed::Raw(vec![(first.clone(), Duration::ZERO)]),
        _ => Deed::Serve,
    });
    let said = world.bulkhead(&["pull", &format!("{}/app:1", registry.address)]);
    assert!(said.stderr.contains("the connection broke") && said.stderr.contains("again in"), "{said:?}");
    said.ok();
    let ranges: Vec<Option<String>> = registry
        .blobs()
        .iter()
        .filter(|a| a.field("accept").is_none())
        .map(|a| a.field("range").map(str::to_owned))
        .collect();
    assert!(ranges.contains(&Some(format!("bytes={half}-"))), "{ranges:?}");
}

#[test]
fn a_registry_without_ranges_or_with_wrong_ones_is_managed() {
    requires!(root);
    let world = World::new();
    for (status, range, works) in [(200, "", true), (206, "bytes 0-9/10", false), (206, "", false)] {
        let content = noisy(200_000);
        let (name, bytes) = blob(&content);
        let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        let first = [begun.as_bytes(), &bytes[..1000]].concat();
        let registry = Registry::misbehave(&world, content, move |asked, before| match before {
            0 if is_blob(asked, &name) => Deed::Raw(vec![(first.clone(), Duration::ZERO)]),
            _ if is_blob(asked, &name) => {
                let fields = if range.is_empty() { Vec::new() } else { vec![("Content-Range", range.to_owned())] };
                Deed::Answer(status, fields, bytes.clone())
            }
            _ => Deed::Serve,
        });
        let image = format!("{}/app:1", registry.address);
        if works {
            world.ok(&["pull", &image]);
            world.ok(&["rmi", &image]);
        } else {
            refused(&world, &registry, &["range"]);
        }
    }
}

#[test]
fn what_is_not_what_it_says_is_refused_and_leaves_nothing() {
    requires!(root);
    let world = World::new();
    impatient(&world);
    let content = noisy(100_000);
    let (name, bytes) = blob(&content);
    let other = {
        let mut other = bytes.clone();
        *other.last_mut().unwrap() ^= 1;
        other
    };
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
    let long = [&bytes[..], b"and more"].concat();
    let piece = [format!("{:x}\r\n", bytes.len()).into_bytes(), bytes.clone(), b"\r\n".to_vec()].concat();
    let cases: Vec<(Deed, Vec<&str>)> = vec![
        (Deed::Answer(200, vec![], other), vec!["digest is", "expected", &name]),
        (Deed::Answer(200, vec![], long), vec!["bytes instead of"]),
        (Deed::Answer(200, vec![], bytes[..50_000].to_vec()), vec!["50000 bytes instead of"]),
        (Deed::Endless(head("Transfer-Encoding: chunked\r\n"), piece, Duration::ZERO), vec!["is longer than"]),
        (Deed::Endless(head(""), bytes.clone(), Duration::ZERO), vec!["is longer than"]),
        (Deed::Answer(404, vec![], vec![]), vec!["404"]),
        (
            Deed::Raw(vec![(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_vec(), Duration::ZERO)]),
            vec!["no number"],
        ),
        (Deed::Raw(vec![(b"SSH-2.0-OpenSSH\r\n".to_vec(), Duration::ZERO)]), vec!["not HTTP/1"]),
        (
            Deed::Raw(vec![
                (head("Transfer-Encoding: chunked\r\n"), Duration::ZERO),
                (b"zz\r\n".to_vec(), Duration::ZERO),
            ]),
            vec!["no length"],
        ),
    ];
    for (deed, words) in cases {
        let (name, once) = (name.clone(), Mutex::new(Some(deed)));
        let registry = Registry::misbehave(&world, content.clone(), move |asked, _| match is_blob(asked, &name) {
            true => once.lock().unwrap().take().unwrap_or(Deed::Serve),
            false => Deed::Serve,
        });
        let began = Instant::now();
        refused(&world, &registry, &words);
        assert!(began.elapsed() < Duration::from_secs(20), "{words:?} took {:?}", began.elapsed());
    }
}

#[test]
fn cve_2021_21285_documents_are_bounded_and_must_fit_together() {
    requires!(root);
    let world = World::new();
    impatient(&world);
    let tar = layer(&[("a", b"b")]);
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut content = Content::default();
        content.image_for("app:1", std::slice::from_ref(&tar), Packed::Gzip, "amd64", change);
        content
    };
    let plain = || changed(&|_| {});
    let other = digest(b"other");
    let cases: Vec<(Content, Vec<&str>)> = vec![
        (
            changed(&|config| config["rootfs"]["diff_ids"] = serde_json::json!([digest(b"other")])),
            vec!["uncompressed layer", &other],
        ),
        (changed(&|config| config["rootfs"]["diff_ids"] = serde_json::json!([])), vec!["another number of layers"]),
        (changed(&|config| config["rootfs"]["type"] = "x".into()), vec!["not of type"]),
        (changed(&|config| *config = serde_json::json!([])), vec!["read the image config"]),
    ];
    for (content, words) in cases {
        refused(&world, &Registry::serve(&world, content), &words);
    }
    let documents: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        ("application/json", b"{".to_vec(), vec!["read manifest"]),
        ("application/json", br#"{"schemaVersion":1}"#.to_vec(), vec!["schema version 1"]),
        ("text/html", b"{}".to_vec(), vec!["text/html", "not a kind of manifest"]),
        (crate::support::registry::MANIFEST, vec![b' '; 5 << 20], vec!["longer than 4194304 bytes"]),
    ];
    for (kind, bytes, words) in documents {
        let mut content = plain();
        content.manifest("app:1", kind, bytes);
        refused(&world, &Registry::serve(&world, content), &words);
    }
    let deeds: Vec<(Deed, Vec<&str>)> = vec![
        (
            Deed::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; 4096], Duration::ZERO),
            vec!["longer than 4194304"],
        ),
        (Deed::Answer(200, vec![("Docker-Content-Digest", other.clone())], b"{}".to_vec()), vec!["digest is", &other]),
        (Deed::Raw(vec![(vec![b'x'; 100_000], Duration::ZERO)]), vec!["not HTTP/1"]),
        (
            Deed::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".to_vec(), Duration::ZERO),
            vec!["the head of the answer is longer"],
        ),
    ];
    for (deed, words) in deeds {
        let once = Mutex::new(Some(deed));
        let registry = Registry::misbehave(&world, plain(), move |asked, _| match asked.path.contains("/manifests/") {
            true => once.lock().unwrap().take().unwrap_or(Deed::Serve),
            false => Deed::Serve,
        });
        refused(&world, &registry, &words);
    }
}

#[test]
fn drips_are_given_up() {
    requires!(root);
    let world = World::new();
    impatient(&world);
    let content = noisy(500_000);
    let (name, bytes) = blob(&content);
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).into_bytes();
    let rest = Duration::from_millis(20);
    for path in ["/manifests/1".to_owned(), format!("/blobs/{name}")] {
        let begun = begun.clone();
        let registry =
            Registry::misbehave(&world, content.clone(), move |asked, _| match asked.path.ends_with(&path) {
                true => Deed::Endless(begun.clone(), b" ".to_vec(), rest),
                false => Deed::Serve,
            });
        let began = Instant::now();
        refused(&world, &registry, &["too little came within"]);
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    }
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says() {
    requires!(root);
    let world = World::new();
    let busy = |status: u16, wait: &'static str, times: usize| {
        Registry::misbehave(&world, noisy(1000), move |asked, before| match asked.path.contains("/manifests/") {
            true if before < times => Deed::Answer(status, vec![("Retry-After", wait.to_owned())], Vec::new()),
            _ => Deed::Serve,
        })
    };
    let registry = busy(429, "2", 1);
    let name = format!("{}/app:1", registry.address);
    let began = Instant::now();
    let said = world.bulkhead(&["pull", &name]);
    assert!(said.stderr.contains("429; again in 2.0 s") && began.elapsed() >= Duration::from_secs(2), "{said:?}");
    said.ok();
    world.ok(&["rmi", &name]);
    let registry = busy(503, "0", 2);
    world.ok(&["pull", &format!("{}/app:1", registry.address)]);
    world.ok(&["rmi", &format!("{}/app:1", registry.address)]);
    let registry = busy(429, "3600", 9);
    let began = Instant::now();
    refused(&world, &registry, &["429"]);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(registry.asked().iter().filter(|asked| asked.path.contains("/manifests/")).count(), 1);
}

#[test]
fn layers_that_came_whole_go_with_the_one_that_did_not() {
    requires!(root);
    let world = World::new();
    let layers = [layer(&[("first", &noise(2000))]), layer(&[("second", &noise(200_000))])];
    let mut content = Content::default();
    content.image("app:1", &layers, Packed::Gzip);
    let (name, mut bytes) = blob(&content);
    *bytes.last_mut().unwrap() ^= 1;
    let arrived = Arc::new(AtomicBool::new(false));
    let (first, seen) = (world.root.join("snapshots"), Arc::clone(&arrived));
    let registry = Registry::misbehave(&world, content, move |asked, _| match is_blob(asked, &name) {
        true => {
            // The spoiled one comes once the other is in its place.
            wait_for("the first layer", 20, || {
                let entries = std::fs::read_dir(&first).ok()?.flatten();
                let layers = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
                (layers.count() == 1).then_some(())
            });
            seen.store(true, Ordering::Relaxed);
            Deed::Answer(200, Vec::new(), bytes.clone())
        }
        false => Deed::Serve,
    });
    refused(&world, &registry, &["digest is"]);
    assert!(arrived.load(Ordering::Relaxed));
}
