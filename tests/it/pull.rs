//! `pull`, and pulling by itself, from registries that behave and from those that do not.

use crate::support::registry::{Asked, Content, Deed, Packed, Registry, digest, layer, noise, serve};
use crate::support::{World, busybox_tar, host, requires, wait_for};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Layers of an image that runs: busybox, and a file above it.
fn layers() -> Vec<Vec<u8>> {
    let small = layer(&[("etc/marker", b"pulled\n")]);
    vec![std::fs::read(busybox_tar()).unwrap(), small]
}

/// A small image that does not run, with one layer of noise.
fn noisy(length: usize) -> Content {
    let mut content = Content::default();
    content.image("app:1", &[layer(&[("noise", &noise(length))])], Packed::Gzip);
    content
}

/// The packed layer of [`noisy`]: digest and bytes.
fn blob(content: &Content) -> (String, Vec<u8>) {
    let largest = content.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    (largest.0.clone(), largest.1.clone())
}

fn is_blob(asked: &Asked, digest: &str) -> bool {
    asked.path.ends_with(&format!("/blobs/{digest}"))
}

/// Short deadlines, so that a test does not wait for a minute.
fn impatient(world: &World) {
    let text = "[registry]\nconnect_timeout = '2s'\nidle_timeout = '400ms'\ndocument_timeout = '800ms'\n";
    world.write("bulkhead.toml", text);
}

fn settings(world: &World) -> String {
    world.path("bulkhead.toml").to_string_lossy().into_owned()
}

/// Runs the program with the world's settings and Docker's configuration directory.
fn run(world: &World, arguments: &[&str]) -> crate::support::Outcome {
    let docker = world.path("docker").to_string_lossy().into_owned();
    world.bulkhead_in(arguments, None, &[("BULKHEAD_CONFIG", &settings(world)), ("DOCKER_CONFIG", &docker)])
}

/// Nothing of a failed pull is in the store.
#[track_caller]
fn nothing_left(world: &World) {
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
fn refused(world: &World, registry: &Registry, words: &[&str]) -> String {
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

/// Stores name and password for a registry as Docker does.
fn login(world: &World, registry: &str) {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode("me:secret");
    world.write("docker/config.json", format!("{{\"auths\":{{{registry:?}:{{\"auth\":\"{pair}\"}}}}}}"));
}

const BASIC: &str = "Basic bWU6c2VjcmV0";

#[test]
fn cve_2020_15157_credentials_are_proved_to_those_they_are_for_alone() {
    requires!(root);
    let world = World::new();
    impatient(&world);
    // The blobs lie elsewhere, and that place asks for credentials too.
    let content = noisy(50_000);
    let (name, bytes) = blob(&content);
    let store = Registry::misbehave(&world, Content::default(), move |asked, _| match asked.path.as_str() {
        "/signed?key=1" => Deed::Answer(200, Vec::new(), bytes.clone()),
        _ => Deed::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())], Vec::new()),
    });
    let place = format!("http://{}/signed?key=1", store.address);
    let to = Arc::new(Mutex::new(place));
    let target = Arc::clone(&to);
    let registry = Registry::misbehave(&world, content, move |asked, _| match asked.field("authorization") {
        Some(BASIC) if is_blob(asked, &name) => {
            Deed::Answer(307, vec![("Location", target.lock().unwrap().clone())], Vec::new())
        }
        Some(BASIC) => Deed::Serve,
        _ => Deed::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())], Vec::new()),
    });
    let image = format!("{}/app:1", registry.address);
    refused(&world, &registry, &["refuses access to app", "bulkhead login"]);
    login(&world, &registry.address.replace("127.0.0.1", "localhost"));
    refused(&world, &registry, &["refuses access to app"]);
    login(&world, &registry.address);
    run(&world, &["pull", &image]).ok();
    assert!(!store.asked().is_empty());
    assert!(store.asked().iter().all(|asked| asked.field("authorization").is_none()), "{:?}", store.asked());
    world.ok(&["rmi", &image]);
    // A place that wants credentials gets none.
    *to.lock().unwrap() = format!("http://{}/private", store.address);
    refused(&world, &registry, &["401"]);
    assert!(store.asked().iter().all(|asked| asked.field("authorization").is_none()), "{:?}", store.asked());
}

#[test]
fn redirects_end_and_lead_only_to_addresses() {
    requires!(root);
    let world = World::new();
    impatient(&world);
    let content = noisy(1000);
    let (name, _) = blob(&content);
    for (location, words) in [("", "no address"), ("ftp://x/", "no address"), ("?again", "more than 8 redirects")] {
        let name = name.clone();
        let registry = Registry::misbehave(&world, content.clone(), move |asked, _| match asked.path.contains(&name) {
            true => Deed::Answer(302, vec![("Location", location.to_owned())], Vec::new()),
            false => Deed::Serve,
        });
        refused(&world, &registry, &[words]);
        // The config, the layer, and eight redirects.
        let asked = registry.blobs().len();
        assert!(asked <= 10, "{location:?}: asked {asked} times");
    }
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

#[test]
fn tokens_are_fetched_from_the_place_the_registry_names() {
    requires!(root);
    let world = World::new();
    impatient(&world);
    let place = Registry::misbehave(&world, Content::default(), |asked, _| match asked.field("authorization") {
        None | Some(BASIC) if asked.path.contains("scope=repository%3Aapp%3Apull&") || asked.path.ends_with("pull") => {
            Deed::Answer(200, Vec::new(), br#"{"token":"the-token","expires_in":300}"#.to_vec())
        }
        _ => Deed::Answer(401, Vec::new(), br#"{"details":"who are you"}"#.to_vec()),
    });
    let challenge = |realm: &str| format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:app:pull\"");
    let wanted = Arc::new(Mutex::new(challenge(&format!("http://{}/token", place.address))));
    let field = Arc::clone(&wanted);
    let registry = Registry::misbehave(&world, noisy(1000), move |asked, _| match asked.field("authorization") {
        Some("Bearer the-token") => Deed::Serve,
        _ => Deed::Answer(401, vec![("WWW-Authenticate", field.lock().unwrap().clone())], Vec::new()),
    });
    let image = format!("{}/app:1", registry.address);
    run(&world, &["pull", &image]).ok();
    assert_eq!(place.asked().len(), 1, "one token serves for everything: {:?}", place.asked());
    assert!(place.asked()[0].path.starts_with("/token?service=s&scope="), "{:?}", place.asked());
    world.ok(&["rmi", &image]);
    login(&world, &registry.address);
    run(&world, &["pull", &image]).ok();
    assert_eq!(place.asked()[1].field("authorization"), Some(BASIC));
    assert!(registry.asked().iter().all(|asked| asked.field("authorization") != Some(BASIC)));
    world.ok(&["rmi", &image]);
    for (realm, words) in
        [("", "no address to ask"), ("file:///etc/passwd", "no address to ask"), ("http://127.0.0.1:1/", "connect to")]
    {
        *wanted.lock().unwrap() = challenge(realm);
        refused(&world, &registry, &[words]);
    }
}

#[test]
fn cve_2021_41092_a_missing_helper_sends_nothing() {
    requires!(root);
    let world = World::new();
    let registry = Registry::misbehave(&world, noisy(1000), |asked, _| match asked.field("authorization") {
        Some(BASIC) => Deed::Serve,
        _ => Deed::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())], Vec::new()),
    });
    let helper = world.write(
        "bin/docker-credential-test",
        "#!/bin/sh\nread -r server\n[ \"$1\" = get ] || exit 1\n[ \"$server\" = \"$EXPECT\" ] || { echo 'credentials not found in native keychain'; exit 1; }\necho '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"secret\"}'\n",
    );
    host("chmod", &["+x", helper.to_str().unwrap()]).ok();
    let path = format!("{}:{}", helper.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let docker = world.path("docker").to_string_lossy().into_owned();
    let image = format!("{}/app:1", registry.address);
    let pull = |config: &str, expect: &str| {
        world.write("docker/config.json", config);
        let more = [("DOCKER_CONFIG", docker.as_str()), ("PATH", &path), ("EXPECT", expect)];
        world.bulkhead_in(&["pull", &image], None, &more)
    };
    pull(&format!("{{\"credHelpers\":{{{:?}:\"test\"}}}}", registry.address), &registry.address).ok();
    world.ok(&["rmi", &image]);
    pull("{\"credsStore\":\"test\"}", &registry.address).ok();
    world.ok(&["rmi", &image]);
    pull("{\"credsStore\":\"test\"}", "another").fails(1, &["refuses access"]);
    pull("{\"credsStore\":\"absent\"}", "").fails(1, &["docker-credential-absent get", "cannot be started"]);
    pull("{\"credsStore\":\"../test\"}", "").fails(1, &["no slash"]);
    pull("{", "").fails(1, &["config.json", "not JSON"]);
}

/// Ends a child and returns its exit code.
fn code_of(mut child: Child, signal: nix::sys::signal::Signal) -> (Option<i32>, Duration) {
    let began = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
    let status = child.wait().unwrap();
    (status.code(), began.elapsed())
}

#[test]
fn an_interrupted_pull_ends_at_once_and_leaves_nothing() {
    requires!(root);
    let world = World::new();
    let content = noisy(3_000_000);
    let (name, bytes) = blob(&content);
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).into_bytes();
    let half = [&begun[..], &bytes[..1_500_000]].concat();
    for part in ["/manifests/1".to_owned(), format!("/blobs/{name}")] {
        let (half, path) = (half.clone(), part.clone());
        let registry =
            Registry::misbehave(&world, content.clone(), move |asked, _| match asked.path.ends_with(&path) {
                true => Deed::Raw(vec![(half.clone(), Duration::from_secs(60))]),
                false => Deed::Serve,
            });
        let child = world.spawn(&["pull", &format!("{}/app:1", registry.address)]);
        wait_for("the pull to be under way", 30, || {
            registry.asked().iter().any(|asked| asked.path.ends_with(&part)).then_some(())
        });
        let (code, took) = code_of(child, nix::sys::signal::Signal::SIGINT);
        assert_eq!(code, Some(130), "{part}");
        assert!(took < Duration::from_secs(2), "{part} took {took:?}");
        nothing_left(&world);
    }
}

#[test]
fn a_layer_is_unpacked_while_it_comes() {
    requires!(root);
    let world = World::new();
    let mut content = Content::default();
    content.image("app:1", &[layer(&[("early", b"here"), ("late", &noise(4_000_000))])], Packed::Gzip);
    let (name, bytes) = blob(&content);
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).into_bytes();
    let first = [&begun[..], &bytes[..3_000_000]].concat();
    let seen = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&seen);
    let registry = Registry::misbehave(&world, content, move |asked, before| match before {
        0 if is_blob(asked, &name) => {
            let mut pieces = vec![(first.clone(), Duration::from_millis(20))];
            // Nothing more before the file has been seen.
            pieces.extend(
                (0..500)
                    .take_while(|_| !waits.load(Ordering::Relaxed))
                    .map(|_| (Vec::new(), Duration::from_millis(20))),
            );
            Deed::Raw(pieces)
        }
        _ => Deed::Serve,
    });
    let mut child = world.spawn(&["pull", &format!("{}/app:1", registry.address)]);
    let ingest = world.root.join("content/ingest");
    wait_for("the first file of the layer", 9, || {
        let found = host("find", &[ingest.to_str()?, "-name", "early"]).stdout;
        (!found.is_empty()).then_some(())
    });
    assert!(child.try_wait().unwrap().is_none(), "the pull is still under way");
    seen.store(true, Ordering::Relaxed);
    assert!(child.wait().unwrap().success());
}

#[test]
fn two_pulls_of_one_image_share_the_work() {
    requires!(root);
    let world = World::new();
    let content = noisy(2_000_000);
    let (name, bytes) = blob(&content);
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).into_bytes();
    let (first, last) = ([&begun[..], &bytes[..1000]].concat(), bytes[1000..].to_vec());
    let layer = name.clone();
    let registry = Registry::misbehave(&world, content, move |asked, _| match is_blob(asked, &name) {
        true => Deed::Raw(vec![(first.clone(), Duration::from_millis(1500)), (last.clone(), Duration::ZERO)]),
        false => Deed::Serve,
    });
    let image = format!("{}/app:1", registry.address);
    let children = [world.spawn(&["pull", &image]), world.spawn(&["pull", &image])];
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(registry.blobs().iter().filter(|asked| is_blob(asked, &layer)).count(), 1, "{:?}", registry.blobs());
    assert_eq!(world.ok(&["images", "-q"]).lines().count(), 1);
}

#[test]
fn run_create_and_build_pull_by_themselves() {
    requires!(root);
    let world = World::new();
    let mut content = Content::default();
    content.image("app:1", &layers(), Packed::Gzip);
    let registry = Registry::serve(&world, content);
    let image = format!("{}/app:1", registry.address);
    let ran = world.bulkhead(&["run", "--rm", "--network", "none", &image, "cat", "/etc/marker"]);
    assert!(ran.stderr.contains("Unable to find image") && ran.stderr.contains("Pull complete"), "{ran:?}");
    assert_eq!(ran.ok(), "pulled");
    let count = || registry.asked().len();
    let before = count();
    world.ok(&["run", "--rm", "--network", "none", &image, "true"]);
    assert_eq!(count(), before, "an image that is here is not asked for");
    world.ok(&["run", "--rm", "--network", "none", "--pull", "always", &image, "true"]);
    assert!(count() > before);
    world.ok(&["rmi", &image]);
    world.bulkhead(&["run", "--pull", "never", &image, "true"]).fails(125, &["no such image", "bulkhead pull"]);
    world.bulkhead(&["run", "--pull", "sometimes", &image, "true"]).fails(125, &["--pull"]);
    world.bulkhead(&["run", &format!("{}/none:1", registry.address), "true"]).fails(125, &["there is no image"]);
    let quiet = world.bulkhead(&["create", "-q", "--network", "none", "--name", "cc", &image]);
    assert_eq!(quiet.stderr, "");
    quiet.ok();
    world.ok(&["rm", "cc"]);
    world.ok(&["rmi", &image]);
    let directory = world.write("ctx/Dockerfile", format!("FROM {image}\nRUN cat /etc/marker > /copy\n"));
    let directory = directory.parent().unwrap().to_str().unwrap();
    world.bulkhead(&["build", "--network", "none", "-t", "made", directory]).ok();
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "made", "cat", "/copy"]), "pulled");
    let before = count();
    world.bulkhead(&["build", "--network", "none", "-t", "made", directory]).ok();
    assert_eq!(count(), before);
    world.bulkhead(&["build", "--network", "none", "--pull", "-t", "made", directory]).ok();
    assert!(count() > before);
}

#[test]
fn mirrors_are_asked_first_and_the_registry_after_them() {
    requires!(root);
    let world = World::new();
    let content = noisy(1000);
    let (name, bytes) = blob(&content);
    let wrong = {
        let mut wrong = bytes.clone();
        wrong[20] ^= 1;
        wrong
    };
    let upstream = Registry::serve(&world, content.clone());
    let whole = Registry::serve(&world, content.clone());
    let spoiled = Registry::misbehave(&world, content, move |asked, _| match is_blob(asked, &name) {
        true => Deed::Answer(200, Vec::new(), wrong.clone()),
        false => Deed::Serve,
    });
    let image = format!("{}/app:1", upstream.address);
    let with = |mirrors: &[&str]| {
        let text = format!("[registry.mirrors]\n{:?} = {mirrors:?}\n", upstream.address);
        world.write("bulkhead.toml", text);
        let outcome = run(&world, &["pull", &image]);
        world.bulkhead(&["rmi", &image]);
        outcome
    };
    with(&[&whole.address]).ok();
    assert_eq!(upstream.asked().len(), 0, "a mirror that has it is enough");
    let said = with(&["127.0.0.1:1", &format!("http://{}", spoiled.address)]);
    assert!(said.stderr.contains("Connection refused") && said.stderr.contains("digest is"), "{said:?}");
    said.ok();
    assert!(upstream.blobs().iter().any(|asked| asked.path.ends_with(&digest(&bytes))));
    nothing_left(&world);
}

#[test]
fn proxies_are_used_as_the_variables_say() {
    requires!(root);
    let world = World::new();
    world.write("bulkhead.toml", "[registry]\ninsecure = ['reg.example']\n");
    let content = noisy(1000);
    let all = content.clone();
    let proxy = Registry::misbehave(&world, content, move |asked, _| {
        let Some(path) = asked.path.strip_prefix("http://reg.example/") else {
            return Deed::Answer(403, vec![], vec![]);
        };
        let (status, fields, body) = serve(&Asked { path: format!("/{path}"), ..asked.clone() }, &all);
        Deed::Answer(status, fields, body)
    });
    let address = format!("http://me:secret@{}", proxy.address);
    let settings = settings(&world);
    let pull = |https: &str, http: &str, none: &str| {
        let more = [("https_proxy", https), ("http_proxy", http), ("no_proxy", none), ("BULKHEAD_CONFIG", &settings)];
        world.bulkhead_in(&["pull", "reg.example/app:1"], None, &more)
    };
    pull(&address, &address, "").ok();
    let asked = proxy.asked();
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("CONNECT", "reg.example:443"));
    assert!(
        asked.len() > 3 && asked.iter().all(|asked| asked.field("proxy-authorization") == Some(BASIC)),
        "{asked:?}"
    );
    world.ok(&["rmi", "reg.example/app:1"]);
    pull("socks5://x", "", "").fails(1, &["HTTPS_PROXY names no proxy we can use"]);
    pull(&address, &address, "reg.example").fails(1, &["find the address of reg.example"]);
    assert_eq!(proxy.asked().len(), asked.len());
    nothing_left(&world);
}

#[test]
fn all_tags_are_read_page_by_page() {
    requires!(root);
    let world = World::new();
    let mut content = Content::default();
    let tar = layer(&[("a", b"a")]);
    for tag in ["one", "two", "three"] {
        content.image(&format!("app:{tag}"), std::slice::from_ref(&tar), Packed::Gzip);
    }
    let registry = Registry::misbehave(&world, content, |asked, _| match asked.path.as_str() {
        "/v2/app/tags/list" => {
            let link = "</v2/app/tags/list?last=two>; rel=\"next\"".to_owned();
            Deed::Answer(200, vec![("Link", link)], br#"{"name":"app","tags":["one","two"]}"#.to_vec())
        }
        "/v2/app/tags/list?last=two" => {
            let link = "</v2/app/tags/list?last=three>; rel=\"next\"".to_owned();
            Deed::Answer(200, vec![("Link", link)], br#"{"tags":["three"]}"#.to_vec())
        }
        // A page that brings nothing more is the last.
        "/v2/app/tags/list?last=three" => {
            let link = "</v2/app/tags/list>; rel=\"next\"".to_owned();
            Deed::Answer(200, vec![("Link", link)], br#"{"tags":null}"#.to_vec())
        }
        "/v2/away/tags/list" => {
            Deed::Answer(200, vec![("Link", "<ftp://x/y>; rel=\"next\"".to_owned())], br#"{"tags":["a"]}"#.to_vec())
        }
        "/v2/odd/tags/list" => Deed::Answer(200, Vec::new(), b"<html>".to_vec()),
        _ => Deed::Serve,
    });
    let name = |repository: &str| format!("{}/{repository}", registry.address);
    world.ok(&["pull", "-q", "--all-tags", &name("app")]);
    let listed = world.ok(&["images", "--format", "{{.Tag}}"]);
    let mut tags: Vec<&str> = listed.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["one", "three", "two"]);
    world.bulkhead(&["pull", "-a", &name("away")]).fails(1, &["no address"]);
    world.bulkhead(&["pull", "-a", &name("odd")]).fails(1, &["list of tags"]);
    world.bulkhead(&["pull", "-a", &name("absent")]).fails(1, &["absent"]);
}

#[test]
fn a_name_is_refused_at_once_where_no_name_server_can_be_reached() {
    requires!(root);
    let world = World::new();
    let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if resolver.contains("127.") {
        return crate::support::tell("the resolver is this machine's own: its answer is what counts");
    }
    // The world has loopback alone.
    let began = Instant::now();
    world.bulkhead(&["pull", "no-such-registry.example/app"]).fails(1, &["no name server can be reached"]);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
