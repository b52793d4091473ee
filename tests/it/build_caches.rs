//! `build --cache-to` and `--cache-from`: what others did is taken, on its own chain alone, and what is no good costs nothing but
//! the step.

use crate::build_caches_hostile::{key, steps};
use crate::push::Distribution;
use crate::support::registry::{Content, Deed, Packed, Registry, digest, layer};
use crate::support::{Outcome, World, busybox_tar, host, requires};
use std::collections::BTreeMap;
use std::path::Path;

/// A stage whose result is the same each time, and a target whose first step never gives the same again.
pub(super) const FILE: &str = "FROM busybox AS make\nRUN seq 1 1000 > /made\nFROM busybox\nWORKDIR /work\n\
                    RUN cat /proc/sys/kernel/random/uuid > /id\nCOPY --link file /linked\nCOPY --from=make /made /copied\nENV A=1\n";

/// A context `app` in a world with busybox.
pub(super) fn app(file: &str) -> World {
    let world = World::new();
    world.busybox();
    world.ok(&["save", "-o", "base.tar", "busybox"]);
    world.write("app/Dockerfile", file);
    world.write("app/file", "linked");
    world
}

/// Goes on with an empty store that has the same busybox.
pub(super) fn another_store(world: &mut World, name: &str) {
    world.root = world.path(name);
    world.ok(&["load", "-i", "base.tar"]);
}

pub(super) fn build(world: &World, flags: &[&str]) -> Outcome {
    let all = [&["build", "--network", "none", "--explain", "-t", "app:1"], flags, &["app"]].concat();
    world.bulkhead(&all).code(0)
}

/// The steps that were performed, by what follows `[...]`.
pub(super) fn performed(built: &Outcome) -> Vec<String> {
    let steps = built.stdout.lines().filter_map(|line| line.strip_prefix("done    ["));
    steps.map(|line| line.split_once("] ").unwrap().1.split(' ').next().unwrap().to_owned()).collect()
}

pub(super) fn imported(built: &Outcome) -> usize {
    built.stdout.matches("its result was taken from ").count()
}

pub(super) fn read(world: &World, path: &str) -> String {
    world.ok(&["run", "--rm", "--network", "none", "app:1", "cat", path])
}

/// What is below a directory: path and bytes.
pub(super) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let list = host("find", &[directory.to_str().unwrap(), "-type", "f", "-printf", "%P\n"]).ok();
    list.lines().map(|name| (name.to_owned(), std::fs::read(directory.join(name)).unwrap())).collect()
}

/// The config document of an image of the store.
fn config(world: &World, name: &str) -> serde_json::Value {
    let id = world.inspect(name, "{{.Id}}").trim_start_matches("sha256:").to_owned();
    serde_json::from_slice(&std::fs::read(world.root.join("content/blobs/sha256").join(id)).unwrap()).unwrap()
}

#[test]
fn a_directory_gives_an_empty_store_what_the_first_one_did() {
    requires!(root);
    let mut world = app(FILE);
    let first = build(&world, &["--cache-to", "type=local,dest=max,mode=max", "--cache-to", "type=local,dest=min"]);
    assert!(first.stderr.contains("exporting build cache to"), "{first:?}");
    let (id, image) = (read(&world, "/id"), world.inspect("app:1", "{{.Id}}"));
    assert!(config(&world, "app:1").get("io.bulkhead.cache.v1").is_none(), "the image is what it is without");
    // Written again, in the other store too, it is the same bytes.
    build(&world, &["--cache-to", "type=local,dest=again,mode=max"]);
    assert!(files(&world.path("max")) == files(&world.path("again")), "the same steps, the same bytes");
    for (name, steps, taken) in [("max", &[][..], 5), ("min", &["RUN"][..], 4)] {
        another_store(&mut world, &format!("store-{name}"));
        let from = format!("type=local,src={name}");
        let built = build(&world, &["--cache-from", &from, "--cache-to", "type=local,dest=back,mode=max"]);
        assert_eq!(
            (performed(&built), imported(&built)),
            (steps.iter().map(|s| (*s).to_owned()).collect(), taken),
            "{built:?}"
        );
        assert!(!built.stderr.contains("WARNING"), "{built:?}");
        assert_eq!((read(&world, "/id"), read(&world, "/copied").lines().count()), (id.clone(), 1000), "{name}");
        assert_eq!((read(&world, "/linked"), world.inspect("app:1", "{{.Id}}")), ("linked".to_owned(), image.clone()));
        // They are its own now: nothing is asked for.
        let own = build(&world, &["--cache-from", "type=local,src=absent"]);
        assert_eq!((performed(&own), imported(&own), own.stderr.contains("absent")), (vec![], 0, false), "{own:?}");
        assert_eq!(world.bulkhead(&["builder", "prune", "-af"]).code, 0);
        if name == "max" {
            assert!(files(&world.path("max")) == files(&world.path("back")), "given on, it is the same");
        }
    }
    // Not to be used, it is not.
    let anew = build(&world, &["--no-cache", "--cache-from", "type=local,src=max"]);
    assert_eq!((performed(&anew).len(), imported(&anew)), (5, 0), "{anew:?}");
}

#[test]
fn a_directory_is_a_layout_and_nothing_else_is_replaced() {
    requires!(root, program "skopeo");
    let world = app(FILE);
    build(&world, &["--cache-to", "type=local,dest=cache,mode=max,compression=zstd"]);
    let inspected = host("skopeo", &["inspect", &format!("oci:{}", world.path("cache").display())]).ok();
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!((&inspected["Os"], inspected["Layers"].as_array().unwrap().len()), (&"linux".into(), 5), "{inspected}");
    let zstd =
        |files: &BTreeMap<String, Vec<u8>>| files.values().filter(|b| b.starts_with(b"\x28\xb5\x2f\xfd")).count();
    assert_eq!(zstd(&files(&world.path("cache"))), 6, "five layers of the target, one of the other stage");
    let copied = format!("oci:{}", world.path("copied").display());
    let from = format!("oci:{}", world.path("cache").display());
    host("skopeo", &["copy", "-q", "--insecure-policy", &from, &copied]).ok();
    // An older cache goes, and what a killed writer left; blobs that are still right stay as they are.
    let before = files(&world.path("cache"));
    world.write("cache/blobs/sha256/.bulkhead-draft-1", "half");
    world.write("app/file", "changed");
    build(&world, &["--cache-to", "type=local,dest=cache,mode=max,compression=zstd"]);
    let after = files(&world.path("cache"));
    assert_eq!(before.len(), after.len(), "{:?}", after.keys());
    let kept = after.keys().filter(|name| before.contains_key(*name)).count();
    assert!(
        (8..before.len()).contains(&kept),
        "the base, the other stage, what did not change: {kept} of {}",
        before.len()
    );
    // What is no cache of ours is not touched.
    world.write("mine/notes", "x");
    for (name, why) in [("mine", "belong to no build cache"), ("copied", "holds images")] {
        let kept = files(&world.path(name));
        let to = format!("type=local,dest={name}");
        world
            .bulkhead(&["build", "--cache-to", &to, "app"])
            .fails(1, &["export the build cache", why, "empty directory"]);
        assert!(files(&world.path(name)) == kept);
    }
    let refused = world.bulkhead(&["build", "--cache-to", "type=local,dest=mine,ignore-error=true", "app"]).code(0);
    assert!(refused.stderr.contains("warning: the build cache was not exported"), "{refused:?}");
    // A link in the place of the blobs' directory leads nowhere.
    std::fs::create_dir(world.path("outside")).unwrap();
    std::fs::create_dir(world.path("linked")).unwrap();
    std::os::unix::fs::symlink(world.path("outside"), world.path("linked/blobs")).unwrap();
    world.bulkhead(&["build", "--cache-to", "type=local,dest=linked", "app"]).fails(1, &["make a layout in"]);
    assert_eq!(files(&world.path("outside")).len(), 0);
}

#[test]
fn a_registry_keeps_a_cache_and_an_image_carries_one() {
    requires!(root, program "docker-registry", program "curl", program "skopeo");
    let mut world = app(FILE);
    let registry = Distribution::start(&world);
    let name = |tag: &str| format!("{}/team/app:{tag}", registry.address);
    let [max, min, flat] =
        ["max,mode=max", "min", "flat,image-manifest=true"].map(|tag| format!("type=registry,ref={}", name(tag)));
    let built = build(&world, &["--cache-to", &max, "--cache-to", &min, "--cache-to", &flat]);
    assert!(built.stderr.contains(": Pushed"), "{built:?}");
    let id = read(&world, "/id");
    let plain = world.inspect("app:1", "{{.Id}}");
    let raw = |tag: &str| {
        let raw =
            world.host("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{}", name(tag))]).ok();
        serde_json::from_str::<serde_json::Value>(&raw).unwrap()
    };
    assert_eq!(raw("max")["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(
        (raw("min")["manifests"].as_array().unwrap().len(), raw("flat")["layers"].as_array().unwrap().len()),
        (1, 5)
    );
    // The image itself, with its steps: another image, and the same steps.
    let inline = ["--push", "-t", &name("inline"), "--cache-to", "type=inline"];
    world.ok(&[&["build", "-q"], &inline[..], &["app"]].concat());
    let carried = config(&world, &name("inline"));
    assert_eq!(carried["io.bulkhead.cache.v1"]["steps"].as_array().unwrap().len(), 4, "{carried}");
    assert_ne!(world.inspect(&name("inline"), "{{.Id}}"), plain);
    world.ok(&["save", "-o", "inline.tar", &name("inline")]);
    let typed = |tag: &str| format!("type=registry,ref={}", name(tag));
    for (from, steps) in [
        (typed("max"), vec![]),
        (typed("min"), vec!["RUN"]),
        (typed("flat"), vec!["RUN"]),
        (typed("inline"), vec!["RUN"]),
        (name("inline"), vec!["RUN"]),
    ] {
        another_store(&mut world, &format!("store-{}", digest(from.as_bytes())));
        let built = build(&world, &["--cache-from", &from]);
        assert_eq!(
            (performed(&built), imported(&built)),
            (steps.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), 5 - steps.len()),
            "{from}: {built:?}"
        );
        assert_eq!((read(&world, "/id"), world.inspect("app:1", "{{.Id}}")), (id.clone(), plain.clone()), "{from}");
    }
    // An image that is here is asked first, and needs no registry.
    drop(registry);
    another_store(&mut world, "store-loaded");
    world.ok(&["load", "-i", "inline.tar"]);
    let built = build(&world, &["--cache-from", "127.0.0.1:5000/team/app:inline"]);
    // `COPY --link` was performed on nothing, which no layer of the image lies on.
    let mut steps = performed(&built);
    steps.sort();
    assert_eq!(steps, ["COPY", "RUN"], "{built:?}");
    assert_eq!(read(&world, "/id"), id);
    // An image made of one that carries steps does not carry them on.
    world.write("on/Dockerfile", "FROM 127.0.0.1:5000/team/app:inline\nRUN true\n");
    world.ok(&["build", "-q", "-t", "on:1", "on"]);
    assert!(config(&world, "on:1").get("io.bulkhead.cache.v1").is_none());
    world.bulkhead(&["build", "--cache-to", "type=inline", "-o", "out", "app"]).fails(125, &["--output makes none"]);
}

#[test]
fn what_is_not_there_costs_a_warning_and_what_is_not_needed_is_not_asked_for() {
    requires!(root);
    let world = app("FROM busybox\nRUN echo made > /made\n");
    let registry = Registry::serve(&world, Content::default());
    let from = format!("type=registry,ref={}/cache:1", registry.address);
    let first =
        build(&world, &["--cache-from", &from, "--cache-from", "type=local,src=absent", "--cache-from", "app:0"]);
    for text in [
        format!("{}/cache:1 is of no use: there is no image", registry.address),
        "absent is of no use: open".to_owned(),
        "app:0".to_owned(),
    ] {
        assert!(first.stderr.contains(&text), "{text}: {first:?}");
    }
    assert_eq!(performed(&first), ["RUN"]);
    let asked = registry.asked().len();
    let second = build(&world, &["--cache-from", &from]);
    assert_eq!((performed(&second).len(), registry.asked().len()), (0, asked), "{second:?}");
    // A place that nothing can be written to is an error, or a warning where that is asked for.
    let to = "type=registry,ref=127.0.0.1:1/cache";
    world.bulkhead(&["build", "-q", "--cache-to", to, "app"]).fails(1, &["push the build cache to 127.0.0.1:1/cache"]);
    let lenient = world.bulkhead(&["build", "-q", "--cache-to", &format!("{to},ignore-error=true"), "app"]).code(0);
    assert!(lenient.stderr.contains("the build cache was not exported"), "{lenient:?}");
    world.bulkhead(&["build", "--cache-to", "type=gha", "app"]).fails(125, &["none of registry, local, inline"]);
    world.bulkhead(&["build", "--cache-from", "type=s3,ref=x", "app"]).fails(125, &["neither registry"]);
}

#[test]
fn a_registry_is_asked_with_the_credentials_of_the_user() {
    requires!(root);
    let mut world = app("FROM busybox\nRUN echo made > /made\n");
    build(&world, &[]);
    let key = key(&world, "RUN echo made > /made");
    let mut content = Content::default();
    let layers = [std::fs::read(busybox_tar()).unwrap(), layer(&[("made", b"theirs\n")])];
    content.image_for("cache:1", &layers, Packed::Zstd, "amd64", &|config| {
        config["io.bulkhead.cache.v1"] = steps(&[(&key, 1, true)]);
    });
    let registry = Registry::misbehave(&world, content, |asked, _| match asked.field("authorization") {
        Some("Basic bWU6c2VjcmV0") => Deed::Serve,
        _ => Deed::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())], Vec::new()),
    });
    let docker = world.path("docker").to_string_lossy().into_owned();
    let from = format!("type=registry,ref={}/cache:1", registry.address);
    let auths = format!("{{\"auths\":{{{:?}:{{\"auth\":\"bWU6c2VjcmV0\"}}}}}}", registry.address);
    for (login, made) in [("{}", "made"), (auths.as_str(), "theirs")] {
        world.write("docker/config.json", login);
        another_store(&mut world, &format!("store-{made}"));
        let words = ["build", "--network", "none", "-t", "app:1", "--cache-from", &from, "app"];
        let built = world.bulkhead_in(&words, None, &[("DOCKER_CONFIG", &docker)]).code(0);
        assert_eq!(built.stderr.contains("refuses access"), made == "made", "{built:?}");
        assert_eq!(read(&world, "/made"), made);
    }
    // The base's layers are here: of the blobs, the config and the one layer came.
    let came: std::collections::BTreeSet<String> = registry.blobs().into_iter().map(|asked| asked.path).collect();
    assert_eq!(came.len(), 2, "{came:?}");
}
