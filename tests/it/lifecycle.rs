//! `create start stop kill restart rm ps wait inspect attach`: the life of a container as the command line shows it.

use crate::support::{World, host, requires, wait_for};
use std::time::Instant;

#[test]
fn created_started_stopped_started_removed() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let id = world.container("life").sh("echo run >> /count; cat /count | wc -l; exec sleep 600").create();
    assert_eq!((id.len(), world.inspect("life", "{{.State.Status}}").as_str()), (64, "created"));
    assert_eq!(world.ok(&["start", "life"]), "life");
    assert_eq!(world.inspect("life", "{{.State.Status}} {{.State.Running}}"), "running true");
    world.bulkhead(&["rm", "life"]).fails(1, &["life", "running"]);
    world.wait_said("life", "1", 1);
    assert_eq!(world.ok(&["stop", "-t", "0", "life"]), "life");
    assert_eq!(world.inspect("life", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    world.ok(&["start", "life"]);
    world.wait_said("life", "2", 1);
    world.ok(&["restart", "-t", "0", "life"]);
    world.wait_said("life", "3", 1);
    world.ok(&["rm", "-f", "life"]);
    assert_eq!(world.ok(&["ps", "-aq"]), "");
}

#[test]
fn wait_prints_the_code_and_several_names_work_at_once() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("w1").sh("exit 3").start();
    world.container("w2").sh("exit 4").start();
    assert_eq!(world.ok(&["wait", "w1", "w2"]), "3\n4");
    assert_eq!(world.ok(&["rm", "w1", "w2"]), "w1\nw2");
    let partly = world.nameless().program(&["true"]).start();
    world.ok(&["wait", &partly]);
    let seen = world.bulkhead(&["rm", "nobody", &partly]);
    assert_eq!((seen.code, seen.stdout.trim()), (1, partly.as_str()), "the others are removed all the same");
    let seen = world.bulkhead(&["rm", "-f", "nobody"]);
    assert!(seen.code == 0 && seen.stderr.contains("nobody"), "said, but with -f what is gone is no failure: {seen:?}");
}

#[test]
fn a_process_one_that_ignores_term_is_noticed_and_said() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("deaf").idle().start();
    let started = Instant::now();
    let seen = world.bulkhead(&["stop", "-t", "1", "deaf"]).code(0);
    assert!(started.elapsed().as_secs() < 8, "took {:?}", started.elapsed());
    assert!(
        seen.stderr.contains("TERM") && seen.stderr.contains("--init"),
        "the reason and the way out are said: {}",
        seen.stderr
    );
}

#[test]
fn several_that_do_not_heed_a_stop_take_their_time_together() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let names = ["deaf1", "deaf2", "deaf3"];
    for name in names {
        world.container(name).idle().start();
    }
    let started = Instant::now();
    let seen = world.bulkhead(&["stop", "-t", "4", "deaf1", "nobody", "deaf2", "deaf3"]).code(1);
    assert_eq!(seen.stdout, "deaf1\ndeaf2\ndeaf3\n");
    for word in ["No such container: nobody", "hint: 'bulkhead ps -a'"] {
        assert!(seen.stderr.contains(word), "{}", seen.stderr);
    }
    assert!(started.elapsed().as_secs() < 10, "took {:?}", started.elapsed());
}

#[test]
fn many_are_removed_in_their_order_whatever_they_are() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    let names: Vec<String> = (0..20).map(|n| format!("many{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        // One that never ran and one that ended are among them.
        let program: &[&str] = if n == 6 { &["true"] } else { &["sleep", "600"] };
        let how: &[&str] = if n == 5 { &["create"] } else { &["run", "-d"] };
        world.ok(&[how, &["--network", "none", "--name", name, image], program].concat());
    }
    world.ok(&["wait", "many6"]);
    let mut arguments = vec!["rm", "-f", "nobody", "many3"];
    arguments.extend(names.iter().map(String::as_str));
    let seen = world.bulkhead(&arguments).code(0);
    let order = std::iter::once("many3").chain(names.iter().map(String::as_str).filter(|name| *name != "many3"));
    assert_eq!(seen.stdout, order.map(|name| format!("{name}\n")).collect::<String>());
    // The one that was named twice is gone when its second turn comes.
    assert_eq!(seen.stderr, "No such container: nobody\nNo such container: many3\n");
    assert_eq!(world.ok(&["ps", "-aq"]), "");
}

#[test]
fn kill_sends_what_it_is_told() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let script = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done";
    world.container("killed").sh(script).start();
    world.wait_said("killed", "ready", 1);
    for signal in ["USR1", "SIGUSR1", "10"] {
        let before = world.ok(&["logs", "killed"]).matches("usr1").count();
        assert_eq!(world.ok(&["kill", "-s", signal, "killed"]), "killed");
        world.wait_said("killed", "usr1", before + 1);
    }
    world.ok(&["kill", "killed"]);
    world.wait_status("killed", "exited");
    assert_eq!(world.inspect("killed", "{{.State.ExitCode}}"), "137");
    world.bulkhead(&["kill", "killed"]).fails(1, &["not running"]);
}

#[test]
fn ps_has_dockers_columns_filters_and_formats() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let id = world.container("up").with(&["--label", "team=a"]).idle().start();
    world.container("over").sh("exit 3").start();
    world.wait_status("over", "exited");
    let table = world.ok(&["ps", "-a"]);
    let header: Vec<&str> =
        table.lines().next().unwrap().split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(header, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    assert!(table.lines().nth(1).unwrap().ends_with("over"), "newest first: {table}");
    assert!(table.contains("Exited (3) ") && table.contains("Up ") && table.contains("\"sleep 600\""), "{table}");
    assert_eq!(world.ok(&["ps", "--format", "{{.Names}}"]), "up");
    assert_eq!(world.ok(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!(world.ok(&["ps", "-a", "-f", "status=exited", "--format", "{{.Names}}"]), "over");
    assert_eq!(world.ok(&["ps", "-f", "label=team=a", "--format", "{{.Names}}|{{.State}}"]), "up|running");
    assert_eq!(world.ok(&["ps", "-f", "name=u", "-f", "ancestor=busybox", "-q"]), id[..12]);
    let json: serde_json::Value = serde_json::from_str(&world.ok(&["ps", "--format", "json"])).unwrap();
    for key in [
        "Command",
        "CreatedAt",
        "ID",
        "Image",
        "Labels",
        "LocalVolumes",
        "Mounts",
        "Names",
        "Networks",
        "Ports",
        "RunningFor",
        "Size",
        "State",
        "Status",
    ] {
        assert!(json.get(key).is_some(), "{key} in {json}");
    }
    world.bulkhead(&["ps", "-f", "colour=red"]).fails(1, &["colour"]);
    world.bulkhead(&["ps", "--format", "{{.Nothing}}"]).fails(1, &["Nothing"]);
}

#[test]
fn prune_keeps_what_runs_and_what_filters_spare() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("up").idle().start();
    for (name, label) in [("old", "keep=no"), ("kept", "keep=yes"), ("bare", "other")] {
        world.container(name).with(&["--label", label]).sh("echo 12345 > /f").run().ok();
    }
    let names = || world.ok(&["ps", "-a", "--format", "{{.Names}}"]);
    world.bulkhead(&["container", "prune", "-f", "--filter", "colour=red"]).fails(125, &["colour", "until"]);
    let said = world.ok(&["container", "prune", "-f", "--filter", "until=1h"]);
    assert_eq!((said.as_str(), names().as_str()), ("Total reclaimed space: 0B", "bare\nkept\nold\nup"));
    let filters = ["--filter", "label=keep", "--filter", "label!=keep=yes"];
    let said = world.ok(&[&["container", "prune", "-f"][..], &filters].concat());
    assert!(said.starts_with("Deleted Containers:\n") && said.ends_with("Total reclaimed space: 6B"), "{said}");
    assert_eq!(names(), "bare\nkept\nup");
    world.ok(&["container", "prune", "-f"]);
    assert_eq!(names(), "up");
}

#[test]
fn a_container_between_two_runs_says_that_it_restarts() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("again").with(&["--restart", "always"]).sh("exit 1").start();
    // The waits double: after a few runs it is between two for seconds.
    wait_for("a long wait", 60, || {
        (world.inspect("again", "{{.RestartCount}}").parse::<u32>().unwrap() >= 5).then_some(())
    });
    world.wait_status("again", "restarting");
    assert!(world.ok(&["ps", "--format", "{{.Status}}"]).starts_with("Restarting (1) "));
    world.bulkhead(&["exec", "again", "true"]).fails(1, &["is restarting"]);
    world.bulkhead(&["attach", "again"]).fails(1, &["restarting"]);
    world.ok(&["stop", "again"]);
    assert_eq!(world.inspect("again", "{{.State.Status}}"), "exited");
}

#[test]
fn inspect_takes_go_templates() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("seen").with(&["-e", "A=1", "-e", "B=2", "--label", "k=v"]).idle().start();
    assert_eq!(world.inspect("seen", "{{json .Config.Cmd}}"), r#"["sleep","600"]"#);
    assert_eq!(world.inspect("seen", "{{index .Config.Labels \"k\"}}"), "v");
    assert_eq!(
        world
            .inspect("seen", "{{range .Config.Env}}{{println .}}{{end}}")
            .lines()
            .filter(|line| ["A=1", "B=2"].contains(line))
            .count(),
        2
    );
    assert_eq!(world.inspect("seen", "{{.State.Status | json}}"), r#""running""#);
    assert_eq!(world.inspect("seen", "{{if .State.Running}}yes{{else}}no{{end}}"), "yes");
    let all: serde_json::Value = serde_json::from_str(&world.ok(&["inspect", "seen", "busybox:latest"])).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let seen = world.bulkhead(&["inspect", "nobody"]);
    assert_eq!((seen.code, seen.stdout.trim()), (1, "[]"));
    world.bulkhead(&["inspect", "--format", "{{.State", "seen"]).fails(1, &["unclosed action"]);
}

#[test]
fn restart_policies_are_obeyed() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("again").with(&["--restart", "on-failure:2"]).sh("echo go; exit 1").start();
    world.wait_said("again", "go", 3);
    world.wait_status("again", "exited");
    assert_eq!(world.inspect("again", "{{.RestartCount}}"), "2");
    world.container("always").with(&["--restart", "always"]).sh("echo go; sleep 0.1").start();
    world.wait_said("always", "go", 2);
    world.ok(&["stop", "-t", "0", "always"]);
    assert_eq!(world.inspect("always", "{{.State.Status}}"), "exited", "a stopped container stays stopped");
}

#[test]
fn unless_stopped_goes_on_until_it_is_stopped_by_hand() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let script = "echo go; test -f /second && exec sleep 600; touch /second; exit 3";
    world.container("again").with(&["--restart", "unless-stopped"]).sh(script).start();
    world.wait_said("again", "go", 2);
    world.wait_status("again", "running");
    world.ok(&["kill", "again"]);
    world.wait_status("again", "exited");
    assert_eq!(world.ok(&["logs", "again"]).matches("go").count(), 2, "killed by hand, it stays down");
}

#[test]
fn signals_reach_the_container_unless_told_otherwise() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    let script = "trap 'echo int; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let interrupted = |name: &str, flags: &[&str]| {
        let line = [&["run", "--network", "none", "--name", name][..], flags, &[image, "sh", "-c", script]].concat();
        let child = world.spawn(&line);
        world.wait_said(name, "ready", 1);
        host("kill", &["-INT", &child.id().to_string()]).ok();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(interrupted("passed", &[]), (Some(5), "ready\nint\n".to_owned()));
    assert_eq!(interrupted("kept", &["--sig-proxy=false"]), (Some(130), "ready\n".to_owned()));
    assert_eq!(world.inspect("kept", "{{.State.Status}}"), "running", "it was our end, not the container's");
}

#[test]
fn output_that_cannot_be_written_is_said_and_a_reader_that_left_is_not() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    let say = |line: &[&str]| {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = world.command(line).stdout(full).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for line in [&["ps"][..], &["run", "--rm", "--network", "none", image, "echo", "x"]] {
        let (code, text) = say(line);
        assert!(code == Some(1) && text.contains("write to stdout: No space left"), "{line:?}: {text}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = world.command(&["images"]).stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let gone = gone.wait_with_output().unwrap();
    assert_eq!((gone.status.code(), String::from_utf8(gone.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn attach_shows_what_is_said_from_now_on() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("talker").with(&["-i"]).sh("while read line; do echo got $line; done").start();
    let seen = world.bulkhead_with(&["attach", "talker"], Some(b"one\ntwo\n")).code(0);
    assert_eq!(seen.stdout, "got one\ngot two\n");
}

#[test]
fn health_is_shown_and_checks_stand_under_the_same_walls() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let flags = [
        "--health-cmd",
        "grep -q '^Seccomp:.2' /proc/self/status && kill -0 1 && echo from-check >/proc/1/fd/1 && test -f /ok",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
    ];
    world.container("checked").with(&flags).sh("touch /ok; exec sleep 600").start();
    wait_for("healthy", 20, || (world.inspect("checked", "{{.State.Health.Status}}") == "healthy").then_some(()));
    assert!(world.ok(&["ps", "--format", "{{.Status}}"]).contains("(healthy)"));
    assert!(world.ok(&["logs", "checked"]).contains("from-check"), "a check reaches the first process's stdout");
    world.ok(&["exec", "checked", "rm", "/ok"]);
    wait_for("unhealthy", 20, || (world.inspect("checked", "{{.State.Health.Status}}") == "unhealthy").then_some(()));
}
