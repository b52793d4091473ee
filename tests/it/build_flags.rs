//! Flags of `build`: where the result goes, what is said of it, what is checked and explained.

use crate::support::git::Served;
use crate::support::{World, host, requires};

/// A context `app` in a world with busybox.
fn app(file: &str, files: &[(&str, &str)]) -> World {
    let world = World::new();
    world.busybox();
    world.write("app/Dockerfile", file);
    for (name, text) in files {
        world.write(&format!("app/{name}"), text);
    }
    world
}

/// Ids of the images that are there.
fn images(world: &World) -> Vec<String> {
    world.ok(&["images", "-q"]).lines().map(str::to_owned).collect()
}

#[test]
fn the_result_goes_where_output_says() {
    requires!(root, program "tar");
    let world = app("FROM scratch\nCOPY --chmod=750 --chown=7:8 a dir/\nCOPY b /\n", &[("a", "A"), ("b", "B")]);
    let before = images(&world);
    world.ok(&["build", "-o", "out", "app"]);
    assert_eq!(std::fs::read_to_string(world.path("out/dir/a")).unwrap(), "A");
    let stat = host("stat", &["-c", "%a %u:%g", world.path("out/dir/a").to_str().unwrap()]).ok();
    assert_eq!(stat, "750 0:0", "files of a directory are the caller's");
    world.write("out/kept", "kept");
    world.ok(&["build", "--output", "type=local,dest=out", "app"]);
    assert!(world.path("out/kept").exists() && world.path("out/b").exists(), "what is there stays");
    world.ok(&["build", "-o", "type=tar,dest=files.tar", "app"]);
    let list = host("tar", &["-tvf", world.path("files.tar").to_str().unwrap(), "--numeric-owner"]).ok();
    assert!(list.contains("-rwxr-x--- 7/8") && list.contains("dir/a"), "{list}");
    let stdout = world.bulkhead(&["build", "-o", "-", "app"]).code(0);
    assert!(stdout.stdout.contains("ustar"), "a tar on stdout");
    assert_eq!(images(&world), before, "none of these makes an image");
    // Archives are read again under their names, and leave no image behind either.
    for kind in ["oci", "docker"] {
        world.ok(&["build", "-t", "given:1", "-o", &format!("type={kind},dest=image.tar"), "app"]);
        assert_eq!(images(&world), before);
        assert!(world.ok(&["load", "-i", "image.tar"]).contains("given:1"));
        world.ok(&["rmi", "given:1"]);
    }
    world.ok(&["build", "-t", "one:1", "-o", "type=image,name=two:1", "-o", "type=local,dest=both", "app"]);
    assert_eq!(world.inspect("one:1", "{{.Id}}"), world.inspect("two:1", "{{.Id}}"));
    assert!(world.path("both/b").exists());
    world.ok(&["build", "-t", "none:1", "-o", "type=cacheonly", "app"]);
    world.bulkhead(&["inspect", "none:1"]).fails(1, &["none:1"]);
    world.bulkhead(&["build", "-o", "type=floppy", "app"]).fails(125, &["floppy"]);
    world.bulkhead(&["build", "-o", "-", "-q", "app"]).fails(125, &["stdout"]);
}

#[test]
fn an_image_of_a_layout_stands_for_a_name() {
    requires!(root, program "tar");
    let world = app("FROM base\nCOPY --from=base /own /copied\nRUN cat /own /copied\n", &[]);
    world.write("base/Dockerfile", "FROM busybox\nENV FROM_LAYOUT=yes\nCOPY own /\n");
    world.write("base/own", "of the layout");
    world.ok(&["build", "-t", "base:1", "-o", "type=oci,dest=base.tar", "base"]);
    world.ok(&["builder", "prune", "-af"]);
    world.untar("base.tar", "layout");
    let before = images(&world);
    let build_in = |root: &str, layout: &str, more: &[&str]| {
        let context = format!("base=oci-layout://{layout}");
        let flags = ["--root", root, "build", "--build-context", &context, "-t", "made:1"];
        world.bulkhead(&[&flags, more, &["app"]].concat())
    };
    let root = world.root.to_str().unwrap().to_owned();
    let build = |layout: &str, more: &[&str]| build_in(&root, layout, more);
    build("layout", &[]).code(0);
    assert!(world.inspect("made:1", "{{.Config.Env}}").contains("FROM_LAYOUT=yes"));
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "made:1", "cat", "/copied"]), "of the layout");
    assert_eq!(images(&world).len(), before.len() + 1, "the layout's image is none of the store");
    let manifest = std::fs::read_to_string(world.path("layout/index.json")).unwrap();
    let digest = manifest.split("sha256:").nth(1).unwrap()[..64].to_owned();
    build("layout:1", &["--no-cache"]).code(0);
    build(&format!("layout@sha256:{digest}"), &["--no-cache"]).code(0);
    build("layout:2", &[]).fails(1, &["has no image tagged 2; it has 1"]);
    build("nowhere:2", &[]).fails(125, &["there is no directory nowhere"]);
    // A Dockerfile names no directory of the host.
    let layout = world.path("layout");
    world.write("app/Dockerfile", format!("FROM oci-layout://{}\n", layout.display()));
    world.bulkhead(&["build", "app"]).fails(1, &["oci-layout"]);
    // What is damaged or led elsewhere is refused.
    world.write("app/Dockerfile", "FROM base\n");
    let blobs = || std::fs::read_dir(world.path("layout/blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let largest = blobs().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, &bytes).unwrap();
    build_in("empty", "layout", &[]).fails(1, &["sha256:"]);
    std::fs::remove_file(&largest).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &largest).unwrap();
    build_in("empty", "layout", &[]).fails(1, &["blobs/sha256"]);
    std::fs::remove_file(world.path("layout/index.json")).unwrap();
    build_in("empty", "layout", &[]).fails(1, &["index.json"]);
}

#[test]
fn ids_metadata_and_annotations_are_written() {
    requires!(root, program "tar");
    let world = app("FROM busybox\nLABEL a=1\n", &[]);
    let flags = ["--iidfile", "id", "--metadata-file", "meta.json", "--label", "b=2", "--annotation", "org.x=y z"];
    world.ok(&[&["build", "-t", "app:1"], &flags[..], &["app"]].concat());
    let id = world.inspect("app:1", "{{.Id}}");
    assert_eq!(std::fs::read_to_string(world.path("id")).unwrap(), id);
    let text = std::fs::read_to_string(world.path("meta.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    assert_eq!(metadata["image.name"], "docker.io/library/app:1");
    assert_eq!(world.inspect("app:1", "{{json .Config.Labels}}"), r#"{"a":"1","b":"2"}"#);
    world.ok(&["save", "-o", "app.tar", "app:1"]);
    let manifest = metadata["containerimage.digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let member = format!("blobs/sha256/{manifest}");
    let manifest = host("tar", &["-xOf", world.path("app.tar").to_str().unwrap(), &member]).ok();
    assert!(manifest.contains(r#""annotations":{"org.x":"y z"}"#), "{manifest}");
    world.bulkhead(&["build", "--annotation", "index:a=b", "app"]).fails(125, &["manifest"]);
    world.ok(&["build", "-q", "--sbom=false", "--provenance=false", "app"]);
}

#[test]
fn explain_names_the_file_the_variable_and_the_parent() {
    requires!(root);
    let world = app(
        "FROM busybox\nARG V=1\nRUN echo $V > /v\nCOPY . /src\nRUN cat /src/a > /copy\n",
        &[("a", "1"), ("dir/b", "1")],
    );
    let explain = |more: &[&str]| world.ok(&[&["build", "--explain"], more, &["app"]].concat());
    assert_eq!(explain(&[]).matches("nothing like it is in the cache").count(), 3);
    let again = explain(&[]);
    assert_eq!(again.matches("nothing it is made of has changed").count(), 3, "{again}");
    world.write("app/dir/b", "2");
    world.write("app/new", "2");
    let changed = explain(&[]);
    assert!(changed.contains("done    [3/4] COPY . /src\n        file dir/b changed; file new is new\n"), "{changed}");
    assert!(changed.contains("what is below it changed: COPY . /src"), "{changed}");
    let lines = explain(&["--format", "json", "--build-arg", "V=2"]);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["reasons"][0], serde_json::json!({ "kind": "variable", "name": "V", "change": "changed" }));
    assert_eq!((first["cached"].as_bool(), first["line"].as_u64()), (Some(false), Some(3)));
    assert!(explain(&["--no-cache", "--build-arg", "V=2"]).contains("the cache was not to be used"));
    assert_eq!(explain(&["--build-arg", "V=2"]).matches("cached  ").count(), 3);
}

#[test]
fn check_finds_and_the_build_tells() {
    requires!(root);
    let world = app("FROM busybox AS Base\nENV API_KEY=1\nCMD echo\n", &[]);
    let found = world.bulkhead(&["build", "--check", "app"]);
    assert_eq!(found.code, 1, "{found:?}");
    for text in [
        "Check complete, 3 warnings have been found!",
        "WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
        ">>>    3 | CMD echo",
    ] {
        assert!(found.stdout.contains(text), "{text}: {}", found.stdout);
    }
    assert_eq!(images(&world).len(), 1, "nothing is built");
    let json = world.bulkhead(&["build", "--call", "check", "--format", "json", "app"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["warnings"][1]["ruleName"], "SecretsUsedInArgOrEnv");
    let built = world.bulkhead(&["build", "app"]).code(0);
    assert!(built.stderr.contains("3 warnings found") && built.stderr.contains("(line 3)"), "{}", built.stderr);
    world.write("app/Dockerfile", "# check=error=true\nFROM busybox\nCMD echo\n");
    world.bulkhead(&["build", "app"]).fails(1, &["lint violation found for rules: JSONArgsRecommended"]);
    world.write("app/Dockerfile", "# check=skip=JSONArgsRecommended;error=true\nFROM busybox\nCMD echo\n");
    assert_eq!(world.ok(&["build", "--check", "app"]), "Check complete, no warnings found.");
    world.ok(&["build", "app"]);
    world.write("app/Dockerfile", "FROM busybox\nRUNN x\n");
    world.bulkhead(&["build", "--check", "app"]).fails(1, &["Dockerfile:2", "RUNN"]);
}

#[test]
fn an_archive_on_stdin_is_a_context() {
    requires!(root, program "tar");
    let world = app("FROM scratch\nCOPY . /all/\n", &[("a", "A"), ("hidden", "H"), (".dockerignore", "hidden\n")]);
    world.write("app/sub/other.df", "FROM busybox\nCOPY a /only\n");
    let directory = world.path("app");
    for (archive, flags) in [("plain.tar", "-cf"), ("gzip.tar.gz", "-czf")] {
        let archive = world.path(archive);
        host("tar", &["-C", directory.to_str().unwrap(), flags, archive.to_str().unwrap(), "."]).ok();
        let bytes = std::fs::read(archive).unwrap();
        world.bulkhead_with(&["build", "-o", "out", "-"], Some(&bytes)).ok();
        assert!(world.path("out/all/a").exists() && !world.path("out/all/hidden").exists());
        world.bulkhead_with(&["build", "-t", "sub:1", "-f", "sub/other.df", "-"], Some(&bytes)).ok();
        assert_eq!(world.ok(&["run", "--rm", "--network", "none", "sub:1", "cat", "/only"]), "A");
        std::fs::remove_dir_all(world.path("out")).unwrap();
    }
    let left = std::fs::read_dir(world.root.join("content/ingest")).unwrap().count();
    assert_eq!(left, 0, "what was unpacked is gone");
    world.bulkhead_with(&["build", "-f", "x", "-"], Some(b"FROM busybox\n")).fails(1, &["no archive"]);
    world.bulkhead_with(&["build", "-"], Some(b"\x1f\x8b\x08broken")).fails(1, &[]);
}

#[test]
fn an_epoch_gives_the_same_digests_in_another_store() {
    requires!(root);
    let file = "FROM busybox\nCOPY . /src\nWORKDIR /work\nRUN mkdir -p /made/dir && echo x > /made/dir/file\nENV A=1\n";
    // The same base in each store: an imported one tells when that was.
    let origin = app(file, &[]);
    let base = origin.path("base.tar");
    origin.ok(&["save", "-o", base.to_str().unwrap(), "busybox"]);
    let build = |flags: &[&str], epoch: Option<&str>| {
        let world = World::new();
        world.ok(&["load", "-i", base.to_str().unwrap()]);
        for (name, text) in [("Dockerfile", file), ("a", "A"), ("dir/b", "B")] {
            world.write(&format!("app/{name}"), text);
        }
        let variables: Vec<(&str, &str)> = epoch.iter().map(|epoch| ("SOURCE_DATE_EPOCH", *epoch)).collect();
        let id = world.bulkhead_in(&[&["build", "-q"], flags, &["app"]].concat(), None, &variables).ok();
        let created = world.inspect(&id, "{{.Created}}");
        (id, created)
    };
    let (first, created) = build(&[], Some("1000000000"));
    assert_eq!(created, "2001-09-09T01:46:40Z");
    // Long enough for the times of files to be others.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(build(&[], Some("1000000000")).0, first);
    assert_ne!(build(&[], Some("1000000001")).0, first);
    let (rewritten, created) = build(&["--rewrite-timestamp"], None);
    assert_eq!((created.as_str(), &build(&["--rewrite-timestamp"], None).0), ("1970-01-01T00:00:00Z", &rewritten));
}

#[test]
fn stages_without_cache_progress_for_programs_and_the_tree_of_layers() {
    requires!(root);
    let uuid = "cat /proc/sys/kernel/random/uuid";
    let file =
        format!("FROM busybox AS one\nRUN {uuid} > /one\nFROM busybox\nRUN {uuid} > /two\nCOPY --from=one /one /\n");
    let world = app(&file, &[]);
    let build = |flags: &[&str]| {
        world.ok(&[&["build", "-t", "app:1"], flags, &["app"]].concat());
        let seen = world.ok(&["run", "--rm", "--network", "none", "app:1", "cat", "/one", "/two"]);
        seen.split('\n').map(str::to_owned).collect::<Vec<_>>()
    };
    let first = build(&[]);
    assert_eq!(build(&[]), first);
    let filtered = build(&["--no-cache-filter", "one"]);
    assert!(filtered[0] != first[0] && filtered[1] == first[1], "{first:?} {filtered:?}");
    let raw = world.bulkhead(&["build", "--progress", "rawjson", "--no-cache", "app"]).code(0);
    let lines: Vec<serde_json::Value> =
        raw.stderr.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let completed = lines.iter().filter(|line| line["vertexes"][0]["completed"].is_string()).count();
    assert_eq!(completed, 5, "{}", raw.stderr);
    let tree = world.ok(&["image", "tree", "busybox", "app:1"]);
    assert!(tree.starts_with("└─ ") && tree.contains("1 layer  busybox:latest"), "{tree}");
    assert!(tree.contains("   └─ ") && tree.contains("2 layers  app:1") && tree.contains("2 images: "), "{tree}");
}

#[test]
fn a_large_copy_says_how_far_it_is() {
    requires!(root);
    let large = "x".repeat(9 << 20);
    let world = app("FROM scratch\nCOPY large /\nCOPY small /\n", &[("large", &large), ("small", "y")]);
    let plain = world.bulkhead(&["build", "--progress", "plain", "app"]).code(0);
    let told: Vec<&str> = plain.stderr.lines().filter(|line| line.contains(" / ")).collect();
    assert!(told.len() == 1 && told[0].ends_with(" 9.44MB / 9.44MB"), "{}", plain.stderr);
}

#[test]
fn a_repository_is_a_context() {
    requires!(root, program "git");
    let world = World::new();
    let mut served = Served::new(&world, "served");
    served.commit("app.git", &[("Dockerfile", "FROM scratch\nCOPY . /all/\n"), ("a", "first")]);
    served.git("app.git", &["tag", "v1"]);
    std::os::unix::fs::symlink("/etc", world.path("served/app.git/out")).unwrap();
    served.commit("app.git", &[("a", "second"), ("sub/Dockerfile", "FROM scratch\nCOPY b /\n"), ("sub/b", "B")]);
    let read = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    world.ok(&["build", "-o", "head", "git://127.0.0.1/app.git"]);
    assert_eq!(read("head/all/a"), "second");
    assert!(!world.path("head/all/.git").exists(), "the repository itself is no part of it");
    world.ok(&["build", "-o", "tag", "git://127.0.0.1/app.git#v1"]);
    assert_eq!(read("tag/all/a"), "first");
    let commit = served.git("app.git", &["rev-parse", "--short", "v1"]);
    world.ok(&["build", "-o", "commit", &format!("git://127.0.0.1/app.git#{commit}")]);
    assert_eq!(read("commit/all/a"), "first");
    world.ok(&["build", "-o", "sub", "git://127.0.0.1/app.git#:sub"]);
    assert_eq!(read("sub/b"), "B");
    world.bulkhead(&["build", "git://127.0.0.1/app.git#nowhere"]).fails(1, &["nowhere"]);
    world.bulkhead(&["build", "git://127.0.0.1/app.git#:out"]).fails(1, &["\"out\""]);
    served.end();
    world.bulkhead(&["build", "git://127.0.0.1/other.git"]).fails(1, &["other.git"]);
    assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0);
}
