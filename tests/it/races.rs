//! Two commands at once on one thing: whatever the order, exactly one outcome of each kind, and nothing left.
//!
//! A commit plays a few rounds of each race, `just full` 10,000 in all (or as many as fit into 50 minutes, and says so).

use crate::support::{World, busybox_tar, need_full, requires, seed, tell};
use std::process::{Child, Output};
use std::time::{Duration, Instant};

/// Rounds of `just full`, over all races.
const FULL: u32 = 10_000;
/// Longest time for them.
const LONGEST: Duration = Duration::from_secs(50 * 60);
/// Rounds of each race per commit.
const SLICE: u32 = 2;

type Race = fn(&World, u32);

/// Name, how many rounds of 100 it gets in full, one round.
const RACES: &[(&str, u32, Race)] = &[
    ("create/create", 35, two_for_a_name),
    ("rm/start", 15, rm_start),
    ("stop/kill", 12, stop_kill),
    ("exec/stop", 10, exec_stop),
    ("create/rmi", 10, create_rmi),
    ("build/build", 6, build_build),
    ("import/import", 12, import_import),
];

/// Gives the commands a start that differs by microseconds from round to round.
fn at_once(world: &World, round: u32, first: &[&str], second: &[&str]) -> (Output, Output) {
    let wait = Duration::from_micros(u64::from(round.wrapping_mul(2_654_435_761) >> 18) % 12_000);
    let (early, late) = if round.is_multiple_of(2) { (first, second) } else { (second, first) };
    let one = world.spawn(early);
    std::thread::sleep(wait);
    let two = world.spawn(late);
    let end = |child: Child| child.wait_with_output().unwrap();
    let (one, two) = (end(one), end(two));
    if round.is_multiple_of(2) { (one, two) } else { (two, one) }
}

/// Succeeded, or failed with one of these words.
#[track_caller]
fn fine(output: &Output, words: &[&str]) -> bool {
    let text = String::from_utf8_lossy(&output.stderr);
    let said = words.iter().any(|word| text.contains(word));
    assert!(output.status.success() || said, "{output:?} says none of {words:?}");
    assert!(!text.contains("panicked"), "{text}");
    output.status.success()
}

#[track_caller]
fn empty(world: &World) {
    assert_eq!(world.ok(&["ps", "-aq"]), "");
}

fn two_for_a_name(world: &World, round: u32) {
    let create: &[&str] = &["create", "--network", "none", "--name", "prize", "busybox", "true"];
    let (one, two) = at_once(world, round, create, create);
    let won = [fine(&one, &["in use"]), fine(&two, &["in use"])];
    assert!(won[0] != won[1], "exactly one wins: {one:?} {two:?}");
    assert_eq!(world.ok(&["ps", "-aq"]).lines().count(), 1);
    world.ok(&["rm", "prize"]);
    empty(world);
}

fn rm_start(world: &World, round: u32) {
    world.ok(&["create", "--name", "both", "-p", "8080:80", "busybox", "sleep", "600"]);
    let (removed, started) = at_once(world, round, &["rm", "both"], &["start", "both"]);
    let removed = fine(&removed, &["running"]);
    let started = fine(&started, &["No such container", "no such container"]);
    assert!(removed != started, "one of them wins: removed {removed}, started {started}");
    if started {
        assert_eq!(world.inspect("both", "{{.State.Status}}"), "running");
        world.ok(&["rm", "-f", "both"]);
    }
    empty(world);
}

fn stop_kill(world: &World, round: u32) {
    world.ok(&["run", "-d", "--network", "none", "--name", "both", "busybox", "sleep", "600"]);
    let (stopped, killed) = at_once(world, round, &["stop", "-t", "1", "both"], &["kill", "both"]);
    assert!(fine(&stopped, &[]), "stop is content with one that has ended");
    fine(&killed, &["not running"]);
    assert_eq!(world.inspect("both", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    world.ok(&["rm", "both"]);
    empty(world);
}

fn exec_stop(world: &World, round: u32) {
    world.ok(&["run", "-d", "--network", "none", "--name", "both", "busybox", "sleep", "600"]);
    let (ran, stopped) = at_once(world, round, &["exec", "both", "true"], &["stop", "-t", "0", "both"]);
    assert!(fine(&stopped, &[]));
    // An added process may be ended with its container.
    if ran.status.code() != Some(137) {
        fine(&ran, &["not running", "ended"]);
    }
    assert_eq!(world.inspect("both", "{{.State.Status}}"), "exited");
    world.ok(&["rm", "both"]);
    empty(world);
}

fn create_rmi(world: &World, round: u32) {
    world.ok(&["tag", "busybox", "base:1"]);
    world.ok(&["commit", &world.ok(&["create", "--network", "none", "busybox", "true"]), "second:1"]);
    let made = world.ok(&["ps", "-aq"]);
    world.ok(&["rm", &made]);
    world.ok(&["rmi", "base:1"]);
    let create = ["create", "--network", "none", "--name", "both", "second:1", "true"];
    let (created, removed) = at_once(world, round, &create, &["rmi", "second:1"]);
    let created = fine(&created, &["second:1", "layer", "No such image", "image"]);
    let removed = fine(&removed, &["in use", "using", "is used"]);
    assert!(created || removed, "one of them wins");
    if created {
        // Its layers were kept for it, whether the name is gone or not.
        assert_eq!(world.ok(&["start", "-a", "both"]), "");
        world.ok(&["rm", "both"]);
    }
    world.bulkhead(&["rmi", "second:1"]);
    empty(world);
    assert_eq!(world.ok(&["images", "-q"]).lines().count(), 1);
}

fn build_build(world: &World, round: u32) {
    world.write("race/Dockerfile", "FROM busybox\nCOPY data /data\nRUN cat /data > /made\n");
    world.write("race/data", format!("round {round}"));
    let place = world.path("race");
    let build = |tag| ["build", "-q", "-t", tag, place.to_str().unwrap()];
    let (one, two) = at_once(world, round, &build("one:1"), &build("two:1"));
    assert!(fine(&one, &[]) && fine(&two, &[]));
    for tag in ["one:1", "two:1"] {
        assert_eq!(world.ok(&["run", "--rm", "--network", "none", tag, "cat", "/made"]), format!("round {round}"));
    }
    world.ok(&["rmi", "one:1", "two:1"]);
    empty(world);
}

fn import_import(world: &World, round: u32) {
    let tar = busybox_tar();
    let import = |name| ["import", tar.to_str().unwrap(), name];
    let (one, two) = at_once(world, round, &import("one:1"), &import("two:1"));
    assert!(fine(&one, &[]) && fine(&two, &[]));
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "one:1", "echo", "fine"]), "fine");
    world.ok(&["rmi", "one:1"]);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "two:1", "echo", "fine"]), "fine");
    world.ok(&["rmi", "two:1"]);
}

#[test]
fn two_commands_at_once_leave_one_outcome() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.ok(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    let before = world.files();
    let full = need_full().is_ok();
    let begun = Instant::now();
    let first = u32::try_from(seed() % 1_000_000).unwrap_or(0);
    let mut played = 0;
    let most = if full { FULL } else { SLICE * u32::try_from(RACES.len()).unwrap_or(1) };
    'all: for round in 0.. {
        for (name, weight, race) in RACES {
            if full && round % 100 >= weight * 100 / 35 {
                continue;
            }
            if played == most || (full && begun.elapsed() > LONGEST) {
                break 'all;
            }
            let number = first.wrapping_add(round);
            let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| race(&world, number)));
            assert!(tried.is_ok(), "{name}, BULKHEAD_TEST_SEED={first}, round {round}");
            played += 1;
        }
    }
    tell(&format!("{played} of {most} rounds played in {} s, seed {first}", begun.elapsed().as_secs()));
    let _ = std::fs::remove_dir_all(world.root.join("build/cache"));
    world.ok(&["image", "prune", "-f"]);
    let stays = |path: &&String| path.contains("cache") || path.ends_with("/last");
    let left: Vec<_> = world.files().difference(&before).filter(|path| !stays(path)).cloned().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn of_fifty_who_want_a_name_one_gets_it() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let words: &[&str] = &["create", "--network", "none", "--name", "prize", "busybox", "true"];
    let children: Vec<Child> = (0..50).map(|_| world.spawn(words)).collect();
    let outputs: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let won = outputs.iter().filter(|output| fine(output, &["in use"])).count();
    assert_eq!(won, 1);
    assert_eq!(world.ok(&["ps", "-aq"]).lines().count(), 1);
    world.ok(&["rm", "prize"]);
    let left = world
        .files()
        .into_iter()
        .filter(|path| path.starts_with("root/containers/") || path.starts_with("root/names/"));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
}
