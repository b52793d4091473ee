//! `build --cache-to` and `--cache-from`: what others did is taken, on its own chain alone, and what is no good costs nothing but
//! the step.

use crate::push::Distribution;
use crate::support::registry::{Content, Deed, Packed, Registry, digest, layer};
use crate::support::{Outcome, World, busybox_tar, host, requires, wait_for};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// A stage whose result is the same each time, and a target whose first step never gives the same again.
const FILE: &str = "FROM busybox AS make\nRUN seq 1 1000 > /made\nFROM busybox\nWORKDIR /work\n\
                    RUN cat /proc/sys/kernel/random/uuid > /id\nCOPY --link file /linked\nCOPY --from=make /made /copied\nENV A=1\n";

/// A context `app` in a world with busybox.
fn app(file: &str) -> World {
    let world = World::new();
    world.busybox();
    world.ok(&["save", "-o", "base.tar", "busybox"]);
    world.write("app/Dockerfile", file);
    world.write("app/file", "linked");
    world
}

/// Goes on with an empty store that has the same busybox.
fn another_store(world: &mut World, name: &str) {
    world.root = world.path(name);
    world.ok(&["load", "-i", "base.tar"]);
}

fn build(world: &World, flags: &[&str]) -> Outcome {
    let all = [&["build", "--network", "none", "--explain", "-t", "app:1"], flags, &["app"]].concat();
    world.bulkhead(&all).code(0)
}

/// The steps that were performed, by what follows `[...]`.
fn performed(built: &Outcome) -> Vec<String> {
    let steps = built.stdout.lines().filter_map(|line| line.strip_prefix("done    ["));
    steps.map(|line| line.split_once("] ").unwrap().1.split(' ').next().unwrap().to_owned()).collect()
}

fn imported(built: &Outcome) -> usize {
    built.stdout.matches("its result was taken from ").count()
}

fn read(world: &World, path: &str) -> String {
    world.ok(&["run", "--rm", "--network", "none", "app:1", "cat", path])
}

/// What is below a directory: path and bytes.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
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

/// The key of the step of a title, in a store that has performed it.
fn key(world: &World, title: &str) -> String {
    let entries = std::fs::read_dir(world.root.join("build/cache")).unwrap().flatten();
    let mut records = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "json"));
    let of_title =
        |entry: &std::fs::DirEntry| std::fs::read_to_string(entry.path()).unwrap().contains(&format!("\"{title}\""));
    let found = records.find(of_title).expect("a record of that title");
    format!("sha256:{}", found.path().file_stem().unwrap().to_str().unwrap())
}

fn steps(list: &[(&str, u64, bool)]) -> serde_json::Value {
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
