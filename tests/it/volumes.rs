//! Volumes and mounts: named, anonymous, bind, tmpfs; `-v` and `--mount`; who owns what.

use crate::support::{World, requires};
use std::os::unix::fs::{MetadataExt, chown};

fn run(world: &World, flags: &[&str], script: &str) -> String {
    let mut arguments = vec!["run", "--rm", "--network", "none"];
    arguments.extend(flags);
    arguments.extend(["busybox:latest", "sh", "-c", script]);
    world.ok(&arguments)
}

#[test]
fn named_volumes_are_made_filled_and_kept() {
    requires!(root);
    let world = World::new();
    world.busybox();
    assert_eq!(world.ok(&["volume", "create", "mine"]), "mine");
    run(&world, &["-v", "mine:/data"], "echo kept > /data/file; chown 1:100 /data/file");
    assert_eq!(run(&world, &["-v", "mine:/data"], "cat /data/file; stat -c %u:%g /data/file"), "kept\n1:100");
    assert_eq!(
        run(&world, &["-v", "new:/etc"], "cat /etc/passwd | head -1"),
        "root:x:0:0:root:/root:/bin/sh",
        "filled from the image on first use"
    );
    assert_eq!(
        run(
            &world,
            &["--mount", "type=volume,source=empty,target=/etc,volume-nocopy"],
            "ls /etc | grep -c passwd || true"
        ),
        "0"
    );
    assert!(run(&world, &["-v", "mine:/data:ro"], "(echo x > /data/x) 2>&1 || true").contains("Read-only"));
    let names = world.ok(&["volume", "ls", "-q"]);
    assert_eq!(names.lines().collect::<Vec<_>>(), ["empty", "mine", "new"]);
    let data = world.ok(&["volume", "inspect", "--format", "{{.Mountpoint}}", "mine"]);
    let meta = std::fs::metadata(format!("{data}/file")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1, 100), "ids on disk are the ids inside");
    world.container("user").with(&["-v", "mine:/data"]).program(&["true"]).create();
    world.bulkhead(&["volume", "rm", "mine"]).fails(1, &["mine", "in use"]);
    world.ok(&["rm", "user"]);
    assert_eq!(world.ok(&["volume", "rm", "mine", "new", "empty"]), "mine\nnew\nempty");
    world.bulkhead(&["volume", "rm", "mine"]).fails(1, &["mine"]);
    world.bulkhead(&["volume", "create", "../evil"]).fails(1, &["../evil"]);
}

#[test]
fn anonymous_volumes_go_with_rm_v() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("a1").with(&["-v", "/data"]).program(&["true"]).create();
    assert_eq!(world.ok(&["volume", "ls", "-q"]).lines().count(), 1);
    world.ok(&["rm", "a1"]);
    assert_eq!(world.ok(&["volume", "ls", "-q"]).lines().count(), 1, "without -v it stays");
    world.container("b1").with(&["-v", "/data"]).program(&["true"]).create();
    world.ok(&["rm", "-v", "b1"]);
    assert_eq!(world.ok(&["volume", "ls", "-q"]).lines().count(), 1);
    run(&world, &["-v", "/data"], "true");
    assert_eq!(world.ok(&["volume", "ls", "-q"]).lines().count(), 1, "--rm takes its own with it");
}

#[test]
fn two_containers_share_a_volume_as_equals() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("s1").with(&["-v", "shared:/d"]).idle().start();
    world.container("s2").with(&["-v", "shared:/d"]).idle().start();
    world.ok(&["exec", "s1", "sh", "-c", "echo from-one > /d/f; chown 999:999 /d/f"]);
    assert_eq!(world.ok(&["exec", "s2", "stat", "-c", "%u:%g", "/d/f"]), "999:999");
    world.ok(&["exec", "-u", "999:999", "s2", "sh", "-c", "echo from-two >> /d/f"]);
    assert_eq!(world.ok(&["exec", "s1", "cat", "/d/f"]), "from-one\nfrom-two");
    let map = |name: &str| world.ok(&["exec", name, "cat", "/proc/self/uid_map"]);
    assert_ne!(map("s1"), map("s2"), "each has its own range");
}

#[test]
fn binds_keep_the_callers_ownership() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let directory = world.path("bind");
    std::fs::create_dir(&directory).unwrap();
    let bind = format!("{}:/b", directory.display());
    run(&world, &["-v", &bind], "touch /b/root; touch /b/five; chown 5:5 /b/five");
    assert_eq!(std::fs::metadata(directory.join("root")).unwrap().uid(), 0);
    assert_eq!(std::fs::metadata(directory.join("five")).unwrap().uid(), 5);
    let theirs = world.path("theirs");
    std::fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(1234), Some(1234)).unwrap();
    run(&world, &["-v", &format!("{}:/b", theirs.display())], "echo x > /b/file");
    let meta = std::fs::metadata(theirs.join("file")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1234, 1234), "the container's root writes as the owner of the directory");
    let missing = world.path("missing/deep");
    run(&world, &["-v", &format!("{}:/b", missing.display())], "touch /b/x");
    assert!(missing.join("x").exists(), "-v makes a missing source");
    let refused = format!("type=bind,source={},target=/b", world.path("nowhere").display());
    world.throwaway().with(&["--mount", &refused]).program(&["true"]).run().fails(125, &["nowhere"]);
}

#[test]
fn a_bound_file_and_read_only_binds() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = world.write("conf", "setting\n");
    let bind = format!("{}:/etc/conf:ro", file.display());
    let seen = run(&world, &["-v", &bind], "cat /etc/conf; echo x > /etc/conf || echo refused");
    assert!(seen.starts_with("setting") && seen.ends_with("refused"), "{seen}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "setting\n");
}

#[test]
fn a_file_system_that_cannot_be_mapped_is_said_with_the_way_out() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let seen = world.throwaway().with(&["-v", "/proc/bus:/b"]).program(&["true"]).run();
    let text = seen.fails(125, &["/proc/bus", "proc"]);
    assert!(text.contains("--userns"), "{text}");
}

#[test]
fn what_is_written_twice_or_nowhere_is_refused() {
    requires!(root);
    let world = World::new();
    world.busybox();
    for (flag, value, word) in [
        ("-v", "relative/path:/x", "relative"),
        ("-v", "name:relative", "relative"),
        ("-v", "a:/x:rw:ro:z:q", "a:/x"),
        ("-v", "name:/", "/"),
        ("--mount", "type=bind,target=/x", "Source"),
        ("--mount", "type=nothing,target=/x", "nothing"),
        ("--mount", "type=volume,target=/x,color=red", "color"),
        ("--tmpfs", "relative", "relative"),
    ] {
        world.throwaway().with(&[flag, value]).program(&["true"]).run().fails(125, &[word]);
    }
    let twice = world.throwaway().with(&["-v", "a:/x", "-v", "b:/x"]).program(&["true"]).run();
    twice.fails(125, &["/x"]);
}
