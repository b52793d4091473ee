//! Layers that are used again though something below or beside them has changed.

use crate::support::{World, requires};

/// Builds `app` as `app:1` and returns the instructions that were performed, `FROM` aside.
#[track_caller]
fn performed(world: &World, flags: &[&str]) -> Vec<String> {
    let built = world.bulkhead(&[&["build", "--progress", "rawjson", "-t", "app:1", "app"], flags].concat()).code(0);
    let lines = built.stderr.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let vertexes = lines.map(|line| line["vertexes"][0].clone()).filter(|vertex| vertex["completed"].is_string());
    let done = vertexes.filter(|vertex| vertex["cached"] != true);
    let mut names: Vec<String> =
        done.map(|vertex| vertex["name"].as_str().unwrap().split_once("] ").unwrap().1.to_owned()).collect();
    names.sort();
    names
}

fn run(world: &World, script: &str) -> String {
    world.ok(&["run", "--rm", "--network", "none", "app:1", "sh", "-c", script])
}

#[test]
fn a_linked_copy_is_the_same_layer_on_another_base() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let tail = "COPY --link --chown=5:6 --chmod=640 dir /data/deep/\nADD --link pack.tar /data/\nRUN cat /data/deep/a > /read\n";
    world
        .write("app/Dockerfile", format!("FROM busybox\nARG V\nRUN mkdir -p /data && echo $V > /data/version\n{tail}"));
    world.write("app/dir/a", "A");
    world.write("app/dir/sub/b", "B");
    std::os::unix::fs::symlink("a", world.path("app/dir/link")).unwrap();
    let tar = crate::support::registry::layer(&[("packed", b"packed")]);
    world.write("app/pack.tar", tar);
    let (copy, add, read) = (
        "COPY --link --chown=5:6 --chmod=640 dir /data/deep/",
        "ADD --link pack.tar /data/",
        "RUN cat /data/deep/a > /read",
    );
    let base = "RUN mkdir -p /data && echo $V > /data/version";
    let seen = "cat /data/version /data/deep/a /data/deep/sub/b /data/deep/link /data/packed /read; stat -c '%u:%g %a' /data/deep /data/deep/a";
    assert_eq!(performed(&world, &["--build-arg", "V=1"]), [add, copy, read, base]);
    assert_eq!(run(&world, seen), "1\nABApackedA5:6 640\n5:6 640");
    world.ok(&["tag", "app:1", "one:1"]);
    assert_eq!(performed(&world, &["--build-arg", "V=2"]), [read, base], "only what stands on the change");
    assert_eq!(run(&world, seen), "2\nABApackedA5:6 640\n5:6 640");
    assert_eq!(performed(&world, &["--build-arg", "V=2"]), Vec::<String>::new());
    assert_eq!(performed(&world, &["--build-arg", "V=1"]), Vec::<String>::new(), "the other base is still known");
    assert_eq!(performed(&world, &["--build-arg", "V=2"]), Vec::<String>::new());
    // The layer is whole on its own: what it was made from may go, and it is what its digest says.
    world.ok(&["rmi", "one:1"]);
    world.ok(&["builder", "prune", "-a", "-f"]);
    assert_eq!(run(&world, seen), "2\nABApackedA5:6 640\n5:6 640");
    world.ok(&["save", "-o", "app.tar", "app:1"]);
    let other = World::new();
    other.ok(&["load", "-i", world.path("app.tar").to_str().unwrap()]);
    assert_eq!(run(&other, seen), "2\nABApackedA5:6 640\n5:6 640");
    // A change of its own files, and names of owners, which are those of the base, still count.
    world.write("app/dir/a", "changed");
    assert!(performed(&world, &["--build-arg", "V=2"]).contains(&copy.to_owned()));
    world.write("app/Dockerfile", "FROM busybox\nARG V\nRUN echo $V > /version\nCOPY --link --chown=daemon dir /d/\n");
    performed(&world, &["--build-arg", "V=1"]);
    assert_eq!(performed(&world, &["--build-arg", "V=2"]).len(), 2, "names are looked up in the base");
}

#[test]
fn a_copy_from_a_stage_that_changed_elsewhere_is_kept() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox AS make\nARG V\nRUN echo $V > /version && mkdir -p /out/sub && echo made > /out/a && echo more > /out/sub/b\n\
                ARG OWNER=0\nRUN chown $OWNER /out/a\nFROM busybox\nCOPY --from=make /out /in\nRUN cat /in/a /in/sub/b > /read\n\
                COPY --from=make /version /\n";
    world.write("app/Dockerfile", file);
    let (copy, version) = ("COPY --from=make /out /in", "COPY --from=make /version /");
    let all = performed(&world, &["--build-arg", "V=1"]);
    assert_eq!(all.len(), 5, "{all:?}");
    let again = performed(&world, &["--build-arg", "V=2"]);
    assert_eq!(again.len(), 3, "the stage, and the file that is another: {again:?}");
    assert!(!again.contains(&copy.to_owned()) && again.contains(&version.to_owned()), "{again:?}");
    assert_eq!(run(&world, "cat /read /version"), "made\nmore\n2");
    assert_eq!(performed(&world, &["--build-arg", "V=2"]), Vec::<String>::new());
    // Owners come along, so they count.
    let owned = performed(&world, &["--build-arg", "V=2", "--build-arg", "OWNER=7"]);
    assert!(owned.contains(&copy.to_owned()), "{owned:?}");
    assert_eq!(run(&world, "stat -c %u /in/a"), "7");
    // The image that is copied from may change as well.
    for (text, count) in [("one", 2), ("two", 0)] {
        world
            .write("other/Dockerfile", format!("FROM scratch\nCOPY <<x /beside\n{text}\nx\nCOPY <<y /file\nsame\ny\n"));
        world.ok(&["build", "-q", "-t", "other:1", "other"]);
        world.write("app/Dockerfile", "FROM busybox\nCOPY --from=other:1 /file /\nRUN cat /file\n");
        assert_eq!(performed(&world, &[]).len(), count, "{text}");
    }
}

#[test]
fn parents_keep_their_modes_and_owners() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox AS make\nRUN mkdir -p /a/b/c && echo x > /a/b/c/file && chmod 711 /a/b && chown 5:6 /a/b/c && chmod 2750 /a/b/c\n\
                FROM busybox\nCOPY --from=make --parents /a/b/c/file /kept/\nCOPY --from=make --parents --chown=9 --chmod=700 /a/./b/c/file /given/\n\
                COPY --parents up/down/file /context/\n";
    world.write("app/Dockerfile", file);
    world.write("app/up/down/file", "f");
    let mode = |path: &str, mode| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(world.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("app/up", 0o700);
    mode("app/up/down", 0o755);
    performed(&world, &[]);
    assert_eq!(
        run(
            &world,
            "stat -c '%a %u:%g %n' /kept/a /kept/a/b /kept/a/b/c /given/b /given/b/c /context/up /context/up/down"
        ),
        "755 0:0 /kept/a\n711 0:0 /kept/a/b\n2750 5:6 /kept/a/b/c\n700 9:9 /given/b\n700 9:9 /given/b/c\n\
         700 0:0 /context/up\n755 0:0 /context/up/down"
    );
    mode("app/up", 0o750);
    assert_eq!(performed(&world, &[]), ["COPY --parents up/down/file /context/"], "a mode that comes along counts");
}
