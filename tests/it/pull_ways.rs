//! Pulls beside each other, by other commands, by way of mirrors and proxies, and those that are interrupted.

use crate::pull::{blob, is_blob, layers, noisy, nothing_left, run, settings};
use crate::pull_trust::BASIC;
use crate::support::registry::{Asked, Content, Deed, Packed, Registry, digest, layer, noise, serve};
use crate::support::{World, host, requires, wait_for};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
