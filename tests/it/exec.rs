//! `exec`: the same walls as PID 1, and everything Docker's can do.

use crate::support::{World, requires, wait_for};

fn sleeper(world: &World, flags: &[&str]) -> String {
    let image = world.busybox();
    let mut arguments = vec!["run", "-d", "--network", "none"];
    arguments.extend(flags);
    arguments.extend([image, "sh", "-c", "trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done"]);
    let id = world.ok(&arguments);
    world.wait_said(&id, "ready", 1);
    id
}

#[test]
fn exec_runs_beside_process_one_and_returns_its_code() {
    requires!(root);
    let world = World::new();
    let id = sleeper(&world, &["-e", "A=1", "-w", "/tmp"]);
    world.bulkhead(&["exec", &id, "sh", "-c", "exit 42"]).code(42);
    world.bulkhead(&["exec", &id, "no-such-program"]).fails(127, &["no-such-program"]);
    world.bulkhead(&["exec", &id, "/etc/passwd"]).fails(126, &["/etc/passwd"]);
    world.bulkhead(&["exec", "nobody", "true"]).fails(1, &["nobody"]);
    assert_eq!(world.ok(&["exec", &id, "sh", "-c", "echo $A; pwd"]), "1\n/tmp");
    assert_eq!(
        world.ok(&["exec", "-e", "A=2", "-w", "/etc", "-u", "daemon", &id, "sh", "-c", "echo $A; pwd; id -un"]),
        "2\n/etc\ndaemon"
    );
    assert_eq!(world.bulkhead_with(&["exec", "-i", &id, "cat"], Some(b"given")).ok(), "given");
    let seen = world.ok(&[
        "exec",
        &id,
        "sh",
        "-c",
        "ls /proc | grep -c '^1$'; readlink /proc/1/ns/pid; readlink /proc/self/ns/pid",
    ]);
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!((lines[0], lines[1] == lines[2]), ("1", true), "{seen}");
}

#[test]
fn exec_signals_reads_and_writes_process_one() {
    requires!(root);
    let world = World::new();
    let id = sleeper(&world, &[]);
    world.ok(&["exec", &id, "kill", "-HUP", "1"]);
    world.wait_said(&id, "hup", 1);
    world.ok(&["exec", &id, "sh", "-c", "echo written > /proc/1/fd/1"]);
    world.wait_said(&id, "written", 1);
    assert!(world.ok(&["exec", &id, "readlink", "/proc/1/exe"]).ends_with("busybox"));
    assert_eq!(world.ok(&["exec", &id, "readlink", "/proc/1/cwd"]), "/");
}

#[test]
fn exec_attaches_a_debugger_with_the_capability() {
    requires!(root, program "strace");
    let world = World::new();
    let strace = std::fs::canonicalize("/usr/bin/strace").unwrap();
    // strace is dynamic: it comes with the libraries of the host, read-only.
    let flags = ["--cap-add", "SYS_PTRACE", "-v", "/usr:/host/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro"];
    let id = sleeper(&world, &flags);
    let program = format!("/host{}", strace.display());
    let seen = world.bulkhead(&[
        "exec",
        "-e",
        "LD_LIBRARY_PATH=/host/usr/lib/x86_64-linux-gnu",
        &id,
        "timeout",
        "1",
        &program,
        "-f",
        "-p",
        "1",
    ]);
    assert!(seen.stderr.contains("attached"), "{seen:?}");
}

#[test]
fn exec_stands_under_the_same_walls() {
    requires!(root);
    let world = World::new();
    let id = sleeper(&world, &[]);
    let fields = "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/$P/status";
    let one = world.ok(&["exec", "-e", "P=1", &id, "sh", "-c", fields]);
    let own = world.ok(&["exec", "-e", "P=self", &id, "sh", "-c", fields]);
    assert_eq!(one, own);
    let groups = |who: &str| world.ok(&["exec", &id, "cat", &format!("/proc/{who}/cgroup")]);
    assert_eq!(groups("1"), groups("self"), "an added process is in the container's control groups");
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"] {
        let link = |who: &str| world.ok(&["exec", &id, "readlink", &format!("/proc/{who}/ns/{namespace}")]);
        assert_eq!(link("1"), link("self"), "{namespace}");
    }
}

#[test]
fn exec_detached_goes_on_and_dies_with_the_container() {
    requires!(root);
    let world = World::new();
    let id = sleeper(&world, &[]);
    assert_eq!(world.ok(&["exec", "-d", &id, "sh", "-c", "echo here > /tmp/mark; sleep 600"]), "");
    wait_for("the detached process", 10, || {
        (world.bulkhead(&["exec", &id, "cat", "/tmp/mark"]).stdout == "here\n").then_some(())
    });
    world.ok(&["stop", "-t", "0", &id]);
    world.bulkhead(&["exec", &id, "true"]).fails(1, &["not running"]);
}
