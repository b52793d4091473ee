//! Full disks: each command says so, loses nothing, and works again once there is room.

use crate::support::{Outcome, World, busybox_tar, host, kernel, requires, wait_for};
use std::path::{Path, PathBuf};

/// A world whose directory `which` is a small file system of its own.
pub(crate) struct Small {
    pub(crate) place: PathBuf,
    pub(crate) world: World,
}

impl Small {
    fn new(which: fn(&World) -> &PathBuf, mebibytes: u32) -> Self {
        let world = World::new();
        let place = which(&world).clone();
        std::fs::create_dir_all(&place).unwrap();
        let options = format!("size={mebibytes}m,mode=0700");
        host("mount", &["-t", "tmpfs", "-o", &options, "bulkhead-test", place.to_str().unwrap()]).ok();
        Self { place, world }
    }

    /// A small store. Before Linux 6.3 a tmpfs takes no id-mapped mounts, and so no containers.
    pub(crate) fn store(mebibytes: u32) -> Self {
        if kernel() >= (6, 3) { Self::new(|world| &world.root, mebibytes) } else { Self::ext4(mebibytes + 8) }
    }

    /// As [`Small::new`] with the store on the file system of most machines.
    fn ext4(mebibytes: u32) -> Self {
        let world = World::new();
        let place = world.root.clone();
        std::fs::create_dir_all(&place).unwrap();
        let disk = world.path("disk");
        std::fs::File::create(&disk).unwrap().set_len(u64::from(mebibytes) << 20).unwrap();
        host("mkfs.ext4", &["-q", "-b", "4096", "-m", "0", "-F", disk.to_str().unwrap()]).ok();
        host("mount", &["-o", "loop", disk.to_str().unwrap(), place.to_str().unwrap()]).ok();
        host("chmod", &["0700", place.to_str().unwrap()]).ok();
        Self { place, world }
    }

    /// A command that makes room works although there is none; returns how much it made, in bytes.
    #[track_caller]
    fn frees(&self, command: &[&str]) -> u64 {
        self.fill();
        let seen = self.world.bulkhead(command);
        assert_eq!(seen.code, 0, "{command:?} on a full disk: {seen:?}");
        room(&self.place)
    }

    /// Leaves no room at all: neither bytes nor one more page. A container that empties a file of its own gives a page back
    /// meanwhile, so it may take more than one go.
    fn fill(&self) {
        let line = format!("head -c 1G /dev/zero >> {} 2>/dev/null; true", self.place.join("filler").display());
        wait_for("the disk to be full", 20, || {
            host("sh", &["-c", &line]);
            (room(&self.place) < 4096).then_some(())
        });
    }

    fn make_room(&self) {
        std::fs::remove_file(self.place.join("filler")).unwrap();
    }

    /// Refused with one error that says what is full, and where.
    #[track_caller]
    fn refused(&self, seen: &Outcome) {
        assert_ne!(seen.code, 0, "{seen:?}");
        let errors = seen.stderr.lines().filter(|line| line.contains("error: ")).count();
        assert!(errors == 1 && seen.stderr.to_lowercase().contains("no space left"), "one error, why: {seen:?}");
        let place = self.place.parent().unwrap().to_str().unwrap();
        assert!(seen.stderr.contains(place), "where: {seen:?}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for id in self.world.bulkhead(&["ps", "-aq"]).stdout.lines() {
            self.world.bulkhead(&["rm", "-f", "-v", id]);
        }
        host("umount", &["-l", self.place.to_str().unwrap()]);
    }
}

/// Bytes that are free.
pub(crate) fn room(place: &Path) -> u64 {
    let text = host("stat", &["-f", "-c", "%a %S", place.to_str().unwrap()]).ok();
    let (blocks, size) = text.split_once(' ').unwrap();
    blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap()
}

#[test]
fn a_full_store_refuses_each_command_in_words_and_works_again() {
    requires!(root);
    let small = Small::store(24);
    let world = &small.world;
    world.busybox();
    world.write("context/Dockerfile", "FROM busybox\nCOPY data /data\nRUN head -c 300000 /dev/zero > /made\n");
    world.write("context/data", "d".repeat(300_000));
    let context = world.path("context");
    let context = context.to_str().unwrap();
    world.ok(&["build", "-q", "-t", "saved:1", context]);
    let saved = world.path("saved.tar");
    let saved = saved.to_str().unwrap();
    world.ok(&["save", "-o", saved, "saved:1"]);
    world.ok(&["rmi", "saved:1"]);
    let _ = std::fs::remove_dir_all(world.root.join("build/cache"));
    std::fs::create_dir(world.root.join("build/cache")).unwrap();
    world.ok(&["image", "prune", "-f"]);
    let tar = busybox_tar();
    let before = world.files();
    let commands: &[&[&str]] = &[
        &["import", tar.to_str().unwrap(), "second:1"],
        &["load", "-i", saved],
        &["build", "--no-cache", "-t", "built:1", context],
        &["create", "--network", "none", "--name", "made", "busybox", "true"],
        &["run", "--network", "none", "--name", "made", "busybox", "true"],
        &["run", "-d", "--network", "none", "--name", "made", "-v", "data:/etc", "busybox", "sleep", "600"],
        &["volume", "create", "data"],
        &["tag", "busybox", "other:1"],
    ];
    for command in commands {
        small.fill();
        small.refused(&world.bulkhead(command));
        small.make_room();
        assert_eq!(
            world.ok(&["images", "--format", "{{.Repository}}"]),
            "busybox",
            "{command:?} lost or made an image"
        );
        assert_eq!(world.ok(&["ps", "-aq"]), "", "{command:?} left a container");
        world.ok(&["image", "prune", "-f"]);
        world.ok(&["volume", "ls"]);
        let more: Vec<_> =
            world.files().into_iter().filter(|path| !before.contains(path) && !path.contains("cache/")).collect();
        assert!(more.is_empty(), "{command:?} left {more:?}");
        world.bulkhead(command).ok();
        for undo in [
            &["rm", "-f", "-v", "made"][..],
            &["volume", "rm", "-f", "data"],
            &["rmi", "-f", "second:1", "saved:1", "built:1", "other:1"],
        ] {
            world.bulkhead(undo);
        }
        let _ = std::fs::remove_dir_all(world.root.join("build/cache"));
        std::fs::create_dir(world.root.join("build/cache")).unwrap();
        world.ok(&["image", "prune", "-f"]);
    }
}

#[test]
fn a_container_lives_through_a_full_disk() {
    requires!(root);
    let small = Small::store(24);
    let world = &small.world;
    world.busybox();
    // It tells how far it is on a file system of its own.
    let script = "i=0; while :; do i=$((i+1)); echo line $i; echo $i > /dev/shm/now; echo x > /tmp/now 2>/dev/null; sleep 0.01; done";
    world.ok(&["run", "-d", "--network", "none", "--name", "talks", "busybox", "sh", "-c", script]);
    let last = || world.ok(&["logs", "--tail", "1", "talks"]);
    wait_for("a first line", 10, || (!last().is_empty()).then_some(()));
    small.fill();
    let before = last();
    assert!(before.starts_with("line "), "the log can be read: {before}");
    world.ok(&["exec", "talks", "true"]);
    assert_eq!(world.inspect("talks", "{{.State.Status}}"), "running");
    // Long enough for the log to want more than the page it has begun.
    let turns = || world.ok(&["exec", "talks", "cat", "/dev/shm/now"]).parse::<u64>().unwrap_or(0);
    let begun = turns();
    wait_for("the container to go on", 60, || (turns() > begun + 300).then_some(()));
    small.make_room();
    let then = last();
    wait_for("the log to go on", 10, || (last() != then).then_some(()));
    world.ok(&["stop", "-t", "0", "talks"]);
    world.ok(&["rm", "talks"]);
}

#[test]
fn a_full_run_directory_refuses_a_start_and_keeps_what_runs() {
    requires!(root);
    let small = Small::new(|world| &world.run, 1);
    let world = &small.world;
    world.busybox();
    world.ok(&["run", "-d", "--name", "old", "-p", "8080:80", "busybox", "sleep", "600"]);
    small.fill();
    let seen = world.bulkhead(&["run", "-d", "--name", "new", "-p", "8081:80", "busybox", "sleep", "600"]);
    small.refused(&seen);
    world.bulkhead(&["rm", "-f", "new"]);
    world.ok(&["exec", "old", "true"]);
    assert_eq!(world.inspect("old", "{{.State.Status}}"), "running");
    small.make_room();
    world.ok(&["run", "-d", "--name", "new", "-p", "8081:80", "busybox", "sleep", "600"]);
    small.fill();
    world.ok(&["rm", "-f", "old", "new"]);
    small.make_room();
}

/// Whatever ends or removes something works on a full disk: it is what one does then.
fn what_makes_room_works(small: &Small) {
    const LARGE: u64 = 1 << 20;
    let world = &small.world;
    world.busybox();
    let quiet: &[&str] = &["run", "--network", "none"];
    let large = "head -c 1200000 /dev/urandom > /large/file";
    world.write("context/Dockerfile", "FROM busybox\nRUN mkdir /large && head -c 1200000 /dev/urandom > /large/file\n");
    let context = world.path("context");
    world.ok(&["build", "-q", "-t", "built:1", context.to_str().unwrap()]);
    let directory = world.write("tree/file", "l".repeat(1_200_000)).parent().unwrap().to_owned();
    let tar = world.path("large.tar");
    host("tar", &["-C", directory.to_str().unwrap(), "-cf", tar.to_str().unwrap(), "."]).ok();
    world.ok(&["import", tar.to_str().unwrap(), "large:1"]);
    world.ok(&[quiet, &["--rm", "-v", "data:/large", "busybox", "sh", "-c", large]].concat());
    world.ok(&["create", "--network", "none", "--name", "created", "busybox", "true"]);
    world.ok(&[quiet, &["--name", "ended", "busybox", "sh", "-c", &format!("mkdir /large; {large}")]].concat());
    let heeds = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    for name in ["stopped", "killed", "forced", "brief", "last"] {
        let rm: &[&str] = if name == "brief" { &["--rm"] } else { &[] };
        world.ok(&[quiet, &["-d", "--name", name], rm, &["busybox", "sh", "-c", heeds]].concat());
    }
    wait_for("the signal to be heeded", 10, || (world.ok(&["logs", "stopped"]) == "ready").then_some(()));

    small.frees(&["stop", "-t", "20", "stopped"]);
    assert_eq!(world.inspect("stopped", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}"), "exited 3 ");
    small.frees(&["kill", "killed"]);
    wait_for("the killed one to be seen", 10, || {
        (world.inspect("killed", "{{.State.ExitCode}}") == "137").then_some(())
    });
    small.frees(&["kill", "brief"]);
    let brief = || world.ok(&["ps", "-aq", "--filter", "name=brief"]);
    wait_for("one with --rm to go", 10, || brief().is_empty().then_some(()));
    small.frees(&["rm", "stopped"]);
    small.frees(&["rm", "-f", "forced"]);
    small.frees(&["rm", "created"]);
    assert!(small.frees(&["rm", "ended"]) > LARGE);
    assert!(small.frees(&["volume", "rm", "data"]) > LARGE);
    assert!(small.frees(&["rmi", "large:1"]) > LARGE);
    // The build cache keeps its layer.
    small.frees(&["rmi", "built:1"]);
    assert_eq!(world.ok(&["images", "--format", "{{.Repository}}"]), "busybox");
    assert!(small.frees(&["builder", "prune", "-af"]) > LARGE);
    small.frees(&["container", "prune", "-f"]);
    small.frees(&["stop", "-t", "0", "last"]);
    small.frees(&["container", "prune", "-f"]);
    assert_eq!(world.ok(&["ps", "-aq"]), "");
    small.frees(&["image", "prune", "-af"]);
    small.make_room();
    assert_eq!(world.ok(&["images", "-q"]), "");
    world.busybox();
    world.ok(&[quiet, &["--rm", "busybox", "true"]].concat());
}

#[test]
fn what_makes_room_works_on_a_full_disk() {
    requires!(root);
    what_makes_room_works(&Small::store(24));
}

#[test]
fn what_makes_room_works_on_a_full_ext4() {
    requires!(root, program "mkfs.ext4");
    what_makes_room_works(&Small::ext4(48));
}

#[test]
fn a_lease_that_was_refused_or_died_in_the_making_does_not_stay() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let create = ["create", "--network", "none", "busybox", "true"];
    let drafts = || world.files().into_iter().filter(|path| path.starts_with("root/leases/")).count();
    world.bulkhead_in(&create, None, &[("BULKHEAD_FAULT", "lease.take:1:nospace")]).fails(125, &["No space left"]);
    assert_eq!(drafts(), 0, "nobody else may be there to take it away");
    assert_ne!(world.bulkhead_in(&create, None, &[("BULKHEAD_FAULT", "lease.take:1:kill")]).code, 0);
    assert_eq!(drafts(), 1, "the dead cannot");
    world.ok(&["ps"]);
    assert_eq!(drafts(), 0, "who looks does");
}

#[test]
fn a_store_that_takes_no_mapped_mounts_is_said_with_the_way_out() {
    requires!(root);
    let world = World::new();
    let place = world.root.clone();
    std::fs::create_dir_all(&place).unwrap();
    host("mount", &["-t", "ramfs", "bulkhead-test", place.to_str().unwrap()]).ok();
    let small = Small { place, world };
    let tar = busybox_tar();
    let said = small.world.bulkhead(&["import", tar.to_str().unwrap(), "x:1"]).fails(1, &["id-mapped", "--root"]);
    assert!(!said.contains("gave up"), "{said}");
}
