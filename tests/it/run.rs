//! `run`: exit codes, streams, environment, user, names, what is left behind.

use crate::support::{BULKHEAD, World, requires, wait_for};
use std::io::Write as _;

#[test]
fn exit_codes_are_those_people_know() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137)] {
        world.throwaway().sh(&format!("sh -c '{script}'; exit $?")).run().code(code);
    }
    world.throwaway().program(&["no-such-program"]).run().fails(127, &["no-such-program"]);
    world.throwaway().program(&["/etc/passwd"]).run().fails(126, &["/etc/passwd"]);
    world.throwaway().program(&["/etc"]).run().fails(126, &["/etc"]);
    world.bulkhead(&["run", "--rm", "--no-such-flag", image]).fails(125, &["--no-such-flag"]);
    world.bulkhead(&["run", "--rm", "--pull", "never", "no-such-image:1"]).fails(125, &["no-such-image:1"]);
    world.bulkhead(&["no-such-verb"]).fails(1, &["no-such-verb"]);
    assert_eq!(world.ok(&["ps", "-aq"]), "", "a refused run leaves no container");
}

#[test]
fn stdout_and_stderr_stay_two_streams_and_stdin_arrives() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    let seen = world.throwaway().sh("echo out; echo err >&2").run().code(0);
    assert_eq!((seen.stdout.as_str(), seen.stderr.as_str()), ("out\n", "err\n"));
    let big = "0123456789abcdef".repeat(64 * 1024);
    let seen =
        world.bulkhead_with(&["run", "-i", "--rm", "--network", "none", image, "wc", "-c"], Some(big.as_bytes()));
    assert_eq!(seen.ok(), big.len().to_string());
    let echoed =
        world.bulkhead_with(&["run", "-i", "--rm", "--network", "none", image, "cat"], Some(big.as_bytes())).ok();
    assert!(echoed == big, "a megabyte goes through unchanged ({} bytes came back)", echoed.len());
    let without = world.bulkhead_with(&["run", "--rm", "--network", "none", image, "wc", "-c"], Some(b"unseen"));
    assert_eq!(without.ok(), "0", "without -i nothing of our stdin is read");
}

#[test]
fn environment_comes_from_image_file_and_flags_in_that_order() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    let file = world.write("env", "# a comment\nA=file\nB=file\nEMPTY=\nFROM_HOST\n");
    let mut command = world.command(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--env-file",
        file.to_str().unwrap(),
        "-e",
        "B=flag",
        "-e",
        "C=x y",
        "--hostname",
        "box",
        image,
        "env",
    ]);
    let output = command.env("FROM_HOST", "given").env("UNASKED", "secret").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["A=file", "B=flag", "C=x y", "EMPTY=", "FROM_HOST=given", "HOSTNAME=box", "HOME=/root"] {
        assert!(text.lines().any(|seen| seen == line), "{line} in {text}");
    }
    assert!(text.lines().any(|line| line.starts_with("PATH=/")), "{text}");
    assert!(!text.contains("UNASKED"), "the caller's environment stays outside: {text}");
}

#[test]
fn users_take_every_form_of_the_image_specification() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let cases = [
        ("daemon", "uid=1(daemon) gid=1(daemon)"),
        ("1", "uid=1(daemon) gid=1(daemon)"),
        ("daemon:users", "uid=1(daemon) gid=100(users)"),
        ("1:100", "uid=1(daemon) gid=100(users)"),
        ("4321", "uid=4321 gid=0(root)"),
        ("4321:8765", "uid=4321 gid=8765"),
        ("0", "uid=0(root) gid=0(root)"),
    ];
    for (user, expected) in cases {
        let seen = world.throwaway().with(&["-u", user]).program(&["id"]).run().ok();
        assert!(seen.starts_with(expected), "-u {user}: {seen}");
    }
    let groups = world.throwaway().with(&["-u", "daemon"]).program(&["id", "-G"]).run().ok();
    assert!(groups.split(' ').any(|group| group == "100"), "supplementary groups of the image apply: {groups}");
    for (user, word) in [
        ("nobody-here", "nobody-here"),
        ("0:no-group", "no-group"),
        ("-1", "-1"),
        ("65536", "65536"),
        ("4294967296", "4294967296"),
    ] {
        world.throwaway().with(&["-u", user]).program(&["id"]).run().fails(125, &[word]);
    }
}

#[test]
fn working_directory_is_made_and_entrypoint_replaced() {
    requires!(root);
    let world = World::new();
    world.busybox();
    assert_eq!(world.throwaway().with(&["-w", "/new/deep"]).program(&["pwd"]).run().ok(), "/new/deep");
    assert_eq!(world.throwaway().with(&["--entrypoint", "echo"]).program(&["a", "b"]).run().ok(), "a b");
    assert_eq!(world.throwaway().with(&["--hostname", "box"]).program(&["hostname"]).run().ok(), "box");
}

#[test]
fn detached_prints_the_id_and_prefixes_find_it() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let id = world.container("one").idle().start();
    assert_eq!(id.len(), 64);
    assert_eq!(world.ok(&["ps", "-q"]), id[..12]);
    assert_eq!(world.inspect(&id[..4], "{{.Name}}"), "/one");
    world.container("one").program(&["true"]).begin().fails(125, &["one", "in use"]);
    world.container("bad name").program(&["true"]).begin().fails(125, &["bad name"]);
    assert_eq!(world.ok(&["rm", "-f", "one"]), "one");
    world.bulkhead(&["inspect", "one"]).fails(1, &["one"]);
}

#[test]
fn removed_with_rm_whatever_the_end() {
    requires!(root);
    let world = World::new();
    world.busybox();
    for script in ["true", "exit 3", "kill -9 1; sleep 0.01"] {
        world.throwaway().sh(script).run();
    }
    let id = world.throwaway().idle().start();
    world.ok(&["stop", "-t", "0", &id]);
    wait_for("the container to be gone", 10, || world.ok(&["ps", "-aq"]).is_empty().then_some(()));
}

#[test]
fn signals_of_the_foreground_reach_the_program() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    let script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = world.spawn(&["run", "--rm", "--network", "none", "--name", "sig", image, "sh", "-c", script]);
    world.wait_said("sig", "ready", 1);
    crate::support::host("kill", &["-TERM", &child.id().to_string()]).ok();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(9));
    let mut out = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut out).unwrap();
    assert!(out.ends_with("got\n"), "{out}");
}

#[test]
fn killing_the_command_line_leaves_the_container_running() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    let mut child =
        world.spawn(&["run", "--network", "none", "--name", "left", image, "sh", "-c", "echo ready; sleep 600"]);
    wait_for("the program to be ready", 20, || {
        world.bulkhead(&["logs", "left"]).stdout.contains("ready").then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(world.inspect("left", "{{.State.Status}}"), "running");
    assert_eq!(world.ok(&["exec", "left", "echo", "alive"]), "alive");
}

#[test]
fn a_terminal_is_a_terminal() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let seen = world.throwaway().with(&["-t"]).sh("test -t 1 && tty && echo line").run().ok();
    assert!(seen.contains("/dev/pts/0") && seen.contains("line\r"), "{seen:?}");
    world.throwaway().with(&["-it"]).program(&["sh"]).run().fails(1, &["not a TTY"]);
}

#[test]
fn limits_and_tuning_reach_the_kernel() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    let run = |flags: &[&str], script: &str| {
        let mut arguments = vec!["run", "--rm", "--network", "none"];
        arguments.extend(flags);
        arguments.extend([image, "sh", "-c", script]);
        world.ok(&arguments)
    };
    assert_eq!(run(&["--ulimit", "nofile=123:456"], "ulimit -Sn; ulimit -Hn"), "123\n456");
    assert_eq!(run(&["--shm-size", "8m"], "df -m /dev/shm | awk 'NR==2 {print $2}'"), "8");
    assert_eq!(run(&["--tmpfs", "/scratch:size=4m"], "df -m /scratch | awk 'NR==2 {print $2}'"), "4");
    assert_eq!(run(&["--sysctl", "kernel.msgmax=4096"], "cat /proc/sys/kernel/msgmax"), "4096");
    assert_eq!(run(&["--read-only"], "touch /x 2>/dev/null; echo $?"), "1");
    assert_eq!(run(&["--read-only", "--tmpfs", "/tmp"], "echo ok > /tmp/x && cat /tmp/x"), "ok");
    assert_eq!(
        run(&["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status | tr -d '\\t '"),
        "Cpus_allowed_list:0"
    );
    assert!(!run(&["--init"], "cat /proc/1/comm").contains("sh"), "with --init process 1 is ours");
    world.throwaway().with(&["--memory", "32m"]).sh("tail -c 200m /dev/zero").run().code(137);
    let forks = run(&["--pids-limit", "8"], "(for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done) 2>&1; true");
    assert!(forks.contains("fork") || forks.contains("unavailable"), "the ninth process is refused: {forks}");
    let refused = world.throwaway().with(&["--sysctl", "kernel.core_pattern=|/x"]).program(&["true"]).run();
    refused.fails(125, &["kernel.core_pattern"]);
}

#[test]
fn interactive_input_ends_when_stdin_ends() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    let mut child = world.spawn(&["run", "-i", "--rm", "--network", "none", image, "sh"]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"echo one; exit 5\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), b"one\n".as_slice()));
}

#[test]
fn a_directory_serves_as_root() {
    requires!(root);
    let world = World::new();
    let directory = world.rootfs();
    let place = directory.to_str().unwrap();
    let seen = world.ok(&["run", "--rm", "--network", "none", "--rootfs", place, "sh", "-c", "id -u; echo x > /made"]);
    assert_eq!(seen, "0");
    let missing = world.path("missing");
    world.bulkhead(&["run", "--rm", "--rootfs", missing.to_str().unwrap(), "true"]).fails(125, &["missing"]);
}

/// Version 1 groups without a real-time budget refuse such tasks: nothing could be started from `chrt -f`.
#[test]
fn a_real_time_caller_starts_ordinary_processes() {
    requires!(root, program "chrt");
    let world = World::new();
    let image = world.busybox();
    let (root, run) = (world.root.to_str().unwrap(), world.run.to_str().unwrap());
    let urgent = |words: &[&str]| {
        let flags = ["-n", "5", "chrt", "--fifo", "10", BULKHEAD, "--root", root, "--run", run];
        world.host("nice", &[&flags, words].concat()).ok()
    };
    let ordinary = |who: &str, stat: &str| {
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
        // proc_pid_stat(5): nice is field 19, the policy 41; the first two were cut off.
        assert_eq!((fields[16], fields[38]), ("5", "0"), "nice and policy of {who}: {stat}");
    };
    urgent(&["run", "-d", "--network", "none", "--name", "urgent", image, "sleep", "600"]);
    for verb in ["run", "restart"] {
        let read = |file: String| std::fs::read_to_string(file).unwrap();
        let init = world.inspect("urgent", "{{.State.Pid}}");
        let init_stat = read(format!("/proc/{init}/stat"));
        let shim = init_stat.rsplit_once(") ").unwrap().1.split_whitespace().nth(1).unwrap();
        let children = read(format!("/proc/{shim}/task/{shim}/children"));
        assert!(children.split_whitespace().count() >= 2, "keeper and first process: {children}");
        for pid in children.split_whitespace().chain([shim]) {
            ordinary(&format!("process {pid} after {verb}"), &read(format!("/proc/{pid}/stat")));
        }
        ordinary(&format!("exec after {verb}"), &urgent(&["exec", "urgent", "cat", "/proc/self/stat"]));
        urgent(&["restart", "-t", "0", "urgent"]);
    }
    let file = world.write("context/Dockerfile", format!("FROM {image}\nRUN cat /proc/self/stat >/stat\n"));
    urgent(&["build", "-q", "--network", "none", "-t", "step", file.parent().unwrap().to_str().unwrap()]);
    ordinary("a build step", &world.ok(&["run", "--rm", "--network", "none", "step", "cat", "/stat"]));
}
