//! The build cache: what it holds, what goes by itself, `builder prune` and `builder du`.

use crate::support::{World, host, requires};

/// Builds an image of a few bytes whose first stage makes a file of one megabyte that only the cache keeps.
fn build(world: &World, name: &str) -> String {
    let config = world.write("bulkhead.toml", "[build]\ncache_max_size = '3500k'\n");
    let file = format!(
        "FROM busybox AS big\nRUN head -c 1048576 /dev/urandom > /{name}\nFROM busybox\nCOPY --from=big /etc/group /{name}\n"
    );
    world.write(&format!("{name}/Dockerfile"), file);
    let directory = world.path(name);
    let tag = format!("{name}:1");
    let mut command = world.command(&["build", "--progress=plain", "-t", &tag, directory.to_str().unwrap()]);
    let output = command.env("BULKHEAD_CONFIG", config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

/// Layers in the store.
fn layers(world: &World) -> usize {
    // The layer of places is nobody's.
    let entries = std::fs::read_dir(world.root.join("snapshots")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name() != ".places").count()
}

/// Files of one megabyte in the store.
fn large(world: &World) -> usize {
    let root = world.root.join("snapshots");
    host("find", &[root.to_str().unwrap(), "-type", "f", "-size", "1024k"]).ok().lines().count()
}

fn cached(text: &str) -> usize {
    text.matches("CACHED").count()
}

#[test]
fn the_cache_keeps_to_its_limit_by_itself_and_to_what_was_used_last() {
    requires!(root);
    let world = World::new();
    world.busybox();
    for name in ["one", "two", "three"] {
        build(&world, name);
    }
    assert_eq!(large(&world), 3);
    assert_eq!(cached(&build(&world, "one")), cached(&build(&world, "two")), "both are cached in full, and used again");
    build(&world, "four");
    assert_eq!(large(&world), 3);
    let files = world.root.join("snapshots");
    let names = host("find", &[files.to_str().unwrap(), "-type", "f", "-size", "1024k", "-printf", "%f\n"]).ok();
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["four", "one", "two"], "the least recently used is gone");
    for name in ["one", "two", "three", "four"] {
        assert_eq!(
            world.ok(&["run", "--rm", "--network", "none", &format!("{name}:1"), "ls", &format!("/{name}")]),
            format!("/{name}")
        );
    }
    // The step that was given up is done again; the copy from its stage is not, for what it copies is the same.
    let steps = cached(&build(&world, "two"));
    assert_eq!(cached(&build(&world, "three")) + 1, steps);
}

#[test]
fn builder_du_and_prune_tell_and_take_what_only_the_cache_holds() {
    requires!(root);
    let world = World::new();
    world.busybox();
    build(&world, "one");
    let du = world.ok(&["builder", "du", "--verbose"]);
    let header: Vec<&str> = du.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["ID", "RECLAIMABLE", "SIZE", "LAST", "ACCESSED", "CREATED", "SHARED", "DESCRIPTION"]);
    let big = du.lines().find(|line| line.contains("RUN head")).expect("the step is listed");
    assert!(big.contains("true") && big.contains("1.05MB"), "{du}");
    assert!(du.contains("Reclaimable:  1.05MB"), "{du}");
    assert!(du.lines().any(|line| line.contains("COPY") && line.contains("false")), "an image holds this one: {du}");
    let ids = world.ok(&["builder", "du", "--format", "{{.ID}} {{.Shared}}"]);
    assert!(ids.lines().all(|line| line.len() > 12) && ids.contains("true") && ids.contains("false"), "{ids}");
    // Used a moment ago, and less than what may stay: nothing goes.
    assert_eq!(world.ok(&["builder", "prune", "-f", "--filter", "until=1h"]), "Total reclaimed space: 0B");
    assert_eq!(world.ok(&["builder", "prune", "-f", "--keep-storage", "2m"]), "Total reclaimed space: 0B");
    let said = world.ok(&["builder", "prune", "-f"]);
    assert!(
        said.starts_with("Deleted build cache objects:\n") && said.ends_with("Total reclaimed space: 1.05MB"),
        "{said}"
    );
    assert_eq!(large(&world), 0);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "one:1", "ls", "/one"]), "/one");
    let left = layers(&world);
    assert!(
        world.ok(&["builder", "prune", "-af"]).contains("Deleted build cache objects:"),
        "steps of images are left"
    );
    assert_eq!(layers(&world), left, "their layers are the image's");
    assert_eq!(world.ok(&["builder", "prune", "-af"]), "Total reclaimed space: 0B");
    assert_eq!(std::fs::read_dir(world.root.join("build/cache")).unwrap().count(), 0);
    world.bulkhead(&["builder", "prune", "-f", "--filter", "type=x"]).fails(1, &["type", "until"]);
    world.bulkhead(&["builder", "prune", "-f", "--filter", "until=soon"]).fails(125, &["soon"]);
    world.bulkhead(&["builder", "prune", "--keep-storage", "much"]).fails(125, &["much"]);
}

#[test]
fn removing_an_image_leaves_the_cache_what_it_stands_on() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let before = layers(&world);
    build(&world, "one");
    let steps = cached(&build(&world, "one"));
    assert!(steps > 1, "{steps}");
    for remove in [&["rmi", "one:1"][..], &["image", "prune", "-af"]] {
        world.ok(remove);
        assert!(!world.ok(&["images", "--format", "{{.Repository}}"]).contains("one"));
        if remove[0] == "image" {
            // Its name is gone, its layer is not: the cache stands on that, too.
            assert_eq!(world.ok(&["images", "-q"]), "");
            world.busybox();
        }
        assert_eq!(cached(&build(&world, "one")), steps, "{remove:?} made the next build do steps again");
        assert_eq!(world.ok(&["run", "--rm", "--network", "none", "one:1", "ls", "/one"]), "/one");
    }
    world.ok(&["rmi", "one:1"]);
    assert_eq!(large(&world), 1);
    assert!(world.ok(&["builder", "prune", "-f"]).ends_with("Total reclaimed space: 1.05MB"));
    assert_eq!(layers(&world), before, "with the cache everything goes");
}

#[test]
fn what_a_running_build_stands_on_is_never_taken() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let before = layers(&world);
    world.write("slow/Dockerfile", "FROM busybox\nRUN echo one > /one\nRUN echo begun; while [ ! -e /etc/end/now ]; do sleep 0.1; done; cat /one\n");
    let end = world.write("end/not-yet", "").parent().unwrap().to_owned();
    let (bind, directory) = (format!("{}:/etc/end", end.display()), world.path("slow"));
    let mut child =
        world.spawn(&["build", "--progress=plain", "-v", &bind, "-t", "slow:1", directory.to_str().unwrap()]);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with(" begun")), "the step runs");
    assert_eq!(layers(&world), before + 2, "a layer and a tree");
    world.ok(&["builder", "prune", "-af"]);
    world.ok(&["image", "prune", "-f"]);
    assert_eq!(layers(&world), before + 2);
    std::fs::write(end.join("now"), "").unwrap();
    assert!(lines.map(Result::unwrap).any(|line| line.ends_with(" one")), "the first step's file is still there");
    assert!(child.wait().unwrap().success());
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "slow:1", "cat", "/one"]), "one");
}
