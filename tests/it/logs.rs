//! `logs`: both streams in order, following, selecting, rotating.

use crate::support::{World, requires};

#[test]
fn order_of_both_streams_is_kept() {
    requires!(root);
    let world = World::new();
    world.busybox();
    // Two pipes have no common order by themselves; what is said one after the other, even shortly, keeps it.
    let script = "for i in 1 2 3 4 5; do echo out$i; sleep 0.05; echo err$i >&2; sleep 0.05; done";
    world.container("lines").sh(script).run().ok();
    let seen = world.bulkhead(&["logs", "lines"]).code(0);
    assert_eq!((seen.stdout.lines().count(), seen.stderr.lines().count()), (5, 5), "two streams stay two streams");
    let mut command = world.command(&["logs", "lines"]);
    let both = world.path("both");
    let file = std::fs::File::create(&both).unwrap();
    command.stdout(file.try_clone().unwrap()).stderr(file);
    assert!(command.status().unwrap().success());
    let expected: String = (1..=5).map(|i| format!("out{i}\nerr{i}\n")).collect();
    assert_eq!(std::fs::read_to_string(both).unwrap(), expected);
}

#[test]
fn tail_times_since_and_until() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("lines").sh("echo a; echo b; echo c; printf no-newline").run().ok();
    assert_eq!(world.ok(&["logs", "--tail", "2", "lines"]), "c\nno-newline");
    assert_eq!(world.ok(&["logs", "--tail", "0", "lines"]), "");
    assert_eq!(world.ok(&["logs", "--tail", "all", "lines"]), "a\nb\nc\nno-newline");
    let timed = world.ok(&["logs", "-t", "--tail", "4", "lines"]);
    let (stamp, text) = timed.lines().next().unwrap().split_once(' ').unwrap();
    assert!(stamp.ends_with('Z') && stamp.contains('T') && stamp.contains('.') && text == "a", "{timed}");
    assert_eq!(world.ok(&["logs", "--since", "1h", "lines"]).lines().count(), 4);
    assert_eq!(world.ok(&["logs", "--until", "1h", "lines"]), "");
    assert_eq!(world.ok(&["logs", "--since", "2001-01-01T00:00:00Z", "--until", "2001-01-02T00:00:00Z", "lines"]), "");
    world.bulkhead(&["logs", "--since", "yesterdayish", "lines"]).fails(125, &["yesterdayish"]);
    world.bulkhead(&["logs", "--tail", "many", "lines"]).fails(125, &["many"]);
}

#[test]
fn follow_ends_with_the_container_and_with_an_interrupt() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("first").sh("echo first; until test -f /go; do sleep 0.05; done; echo last").start();
    let following = world.spawn(&["logs", "-f", "first"]);
    world.wait_said("first", "first", 1);
    world.ok(&["exec", "first", "touch", "/go"]);
    let output = following.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"first\nlast\n".as_slice()));
    world.container("second").idle().start();
    let mut following = world.spawn(&["logs", "-f", "second"]);
    crate::support::host("kill", &["-INT", &following.id().to_string()]).ok();
    following.wait().unwrap();
    assert_eq!(world.inspect("second", "{{.State.Status}}"), "running");
}

#[test]
fn logs_are_capped_without_being_asked() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("big").sh("yes 0123456789012345678901234567890123456789 | head -n 2000000; echo the end").start();
    assert_eq!(world.ok(&["wait", "big"]), "0");
    assert_eq!(world.ok(&["logs", "--tail", "1", "big"]), "the end");
    let id = world.inspect("big", "{{.Id}}");
    let directory = world.root.join("containers").join(&id);
    let used = crate::support::host("du", &["-sm", directory.to_str().unwrap()]).ok();
    let mebibytes: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    assert!(mebibytes <= 56, "78 MiB of output keep {mebibytes} MiB");
    let kept = world.bulkhead(&["logs", "big"]).code(0).stdout.len();
    assert!(kept >= 38 << 20, "the newest {kept} bytes are kept");
}
