//! `build`: the Dockerfiles of the tutorials, the cache, and mistakes shown with their line.

use crate::support::{World, build::Context, requires, wait_for};

#[test]
fn every_instruction_of_a_tutorial_does_what_it_says() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "From busybox\n# a comment\nARG VERSION=1\nENV A one\nENV B=2 C=\"three four\"\nWORKDIR /app\nWORKDIR sub\n\
                COPY --chown=daemon:users a.txt d* ./\nADD b.txt /abs/\nRUN echo $VERSION $A > made && \\\n    # inside\n    echo second >> made\n\
                SHELL [\"/bin/sh\", \"-ec\"]\nRUN false || echo shell > /shell\nUSER daemon\nRUN id -un > /tmp/user\nEXPOSE 80 53/udp\nVOLUME /data\n\
                LABEL a=b\nSTOPSIGNAL SIGINT\nHEALTHCHECK --interval=5s CMD true\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"default\"]\n";
    let context =
        Context::new(&world, "all", file, &[("a.txt", "A"), ("dir1/x", "X"), ("dir2/y", "Y"), ("b.txt", "B")]);
    context.build(&["--build-arg", "VERSION=7"]).ok();
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "all:1"]), "entry default");
    let shell =
        |script: &str| world.ok(&["run", "--rm", "--network", "none", "--entrypoint", "sh", "all:1", "-c", script]);
    assert_eq!(shell("pwd; cat made; cat /shell /tmp/user"), "/app/sub\n7 one\nsecond\nshell\ndaemon");
    assert_eq!(
        shell("stat -c %U:%G a.txt x y; cat a.txt x y /abs/b.txt; echo; stat -c %u /abs/b.txt"),
        "daemon:users\ndaemon:users\ndaemon:users\nAXYB\n0"
    );
    assert_eq!(shell("echo $A-$B-$C-$VERSION"), "one-2-three four-", "ARG is not in the environment of the container");
    let config = world.ok(&[
        "image",
        "inspect",
        "--format",
        "{{.Config.StopSignal}} {{json .Config.ExposedPorts}} {{json .Config.Shell}} {{.Config.User}}",
        "all:1",
    ]);
    assert_eq!(config, r#"SIGINT {"53/udp":{},"80/tcp":{}} ["/bin/sh","-ec"] daemon"#);
}

#[test]
fn a_rebuild_is_cached_until_something_it_used_changes() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /first\nCOPY a.txt /\nRUN cat /proc/sys/kernel/random/uuid > /second\n";
    let context = Context::new(&world, "cache", file, &[("a.txt", "1"), ("unused.txt", "1")]);
    context.build(&[]).ok();
    let (id, seen) = (context.id(), context.run("cat /first /second"));
    let again = context.build(&[]).code(0);
    assert_eq!(context.id(), id);
    assert!((again.stdout + &again.stderr).to_ascii_uppercase().contains("CACHED"), "the cache is said");
    world.write("cache/unused.txt", "2");
    context.build(&[]).ok();
    assert_eq!(context.id(), id, "a file that no instruction names changes nothing");
    world.write("cache/a.txt", "2");
    context.build(&[]).ok();
    let changed = context.run("cat /first /second");
    assert_eq!(changed.lines().next(), seen.lines().next(), "what stands before the change is kept");
    assert_ne!(changed.lines().nth(1), seen.lines().nth(1), "what stands behind it is done again");
    context.build(&["--no-cache"]).ok();
    assert_ne!(context.run("cat /first"), changed.lines().next().unwrap());
}

#[test]
fn stages_are_built_as_needed_and_copied_from() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox AS one\nRUN echo made > /out\nFROM busybox AS unused\nRUN exit 9\nFROM busybox AS two\nCOPY --from=one /out /a\nCOPY --from=0 /out /b\nCOPY --from=busybox:latest /etc/group /c\nFROM two\nRUN cat /a /b > /both\n";
    let context = Context::new(&world, "stages", file, &[]);
    context.build(&[]).ok();
    assert_eq!(context.run("cat /both; head -1 /c"), "made\nmade\nroot:x:0:");
    context.build(&["--target", "one"]).ok();
    assert_eq!(context.run("cat /out; ls /a 2>/dev/null || echo none"), "made\nnone");
    context.build(&["--target", "nowhere"]).fails(1, &["nowhere"]);
}

#[test]
fn dockerignore_wildcards_and_whiteouts() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox\nCOPY . /all/\nCOPY *.json pack* /some/\nRUN rm -rf /all/dir /etc/group && mkdir /all/dir && touch /all/dir/new\n";
    let files = [
        (".dockerignore", "# no\n*.log\n!keep.log\nsecret/\n"),
        ("x.log", ""),
        ("keep.log", ""),
        ("secret/s", ""),
        ("package.json", ""),
        ("package-lock.json", ""),
        ("dir/old", ""),
    ];
    let context = Context::new(&world, "ignore", file, &files);
    context.build(&[]).ok();
    assert_eq!(
        context.run("cd /all; find . -type f | sort"),
        "./.dockerignore\n./Dockerfile\n./dir/new\n./keep.log\n./package-lock.json\n./package.json"
    );
    assert_eq!(context.run("ls /some"), "package-lock.json\npackage.json");
    assert_eq!(context.run("ls /etc/group 2>/dev/null || echo gone"), "gone");
}

#[test]
fn steps_run_behind_the_same_walls() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox\nRUN grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status > /walls; awk '{print $3}' /proc/self/uid_map >> /walls; \
                [ \"$(head -c 4 /proc/kcore 2>/dev/null | wc -c)\" = 0 ] || echo open >> /walls; mount -t tmpfs none /mnt 2>/dev/null && echo mounted >> /walls; true\n";
    let context = Context::new(&world, "walls", file, &[]);
    context.build(&[]).ok();
    let now = context
        .run("grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; awk '{print $3}' /proc/self/uid_map");
    assert_eq!(context.run("cat /walls"), now);
}

#[test]
fn a_failing_step_says_which_and_leaves_no_image() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let context = Context::new(&world, "fails", "FROM busybox\nRUN true\nRUN echo before; exit 42\n", &[]);
    let text = context.build(&[]).fails(1, &["42", "exit 42"]);
    assert!(text.contains("Dockerfile:3") || text.contains("line 3"), "the line is shown: {text}");
    assert!(!world.ok(&["images"]).contains("fails"));
    assert_eq!(world.ok(&["ps", "-aq"]), "");
}

#[test]
fn mistakes_are_shown_with_their_line() {
    requires!(root);
    let world = World::new();
    world.busybox();
    for (name, file, line, word) in [
        ("unknown", "FROM busybox\nRUNN true\n", 2, "RUNN"),
        ("nofrom", "RUN true\n", 1, "FROM"),
        ("badflag", "FROM busybox\n\nCOPY --nope a b\n", 3, "nope"),
        ("missing", "FROM busybox\nCOPY nothing.txt /\n", 2, "nothing.txt"),
        ("escape", "FROM busybox\nCOPY ../../etc/passwd /\n", 2, "etc/passwd"),
        ("nostage", "FROM busybox\nCOPY --from=later /a /b\n", 2, "later"),
        ("badport", "FROM busybox\nEXPOSE eighty\n", 2, "eighty"),
        ("empty", "\n# nothing\n", 0, "no instructions"),
    ] {
        let text = Context::new(&world, name, file, &[]).build(&[]).fails(1, &[word]);
        if line > 0 {
            assert!(
                text.contains(&format!(":{line}")) || text.contains(&format!("line {line}")),
                "{name}: line {line} in {text}"
            );
        }
    }
    world.bulkhead(&["build", world.path("nowhere").to_str().unwrap()]).fails(1, &["nowhere"]);
}

#[test]
fn a_dockerfile_elsewhere_and_from_stdin() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let context = Context::new(
        &world,
        "where",
        "FROM busybox\nRUN exit 1\n",
        &[("other.df", "FROM busybox\nCOPY other.df /here\n")],
    );
    let other = world.path("where/other.df");
    context.build(&["-f", other.to_str().unwrap()]).ok();
    assert_eq!(context.run("test -f /here && echo yes"), "yes");
    let seen =
        world.bulkhead_with(&["build", "-q", "-t", "stdin:1", "-"], Some(b"FROM busybox\nRUN echo hi > /x\n")).ok();
    assert!(seen.starts_with("sha256:") && seen.len() == 71, "-q prints the id alone: {seen}");
}

#[test]
fn what_is_bound_into_steps_is_in_no_layer_and_no_key() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let secret = world.write("outside/secret.conf", "token=zq7xw9\n");
    let file = "FROM busybox\nRUN cd /etc/app && cat s* | wc -c > /seen; touch /proof\nRUN true\n";
    let context = Context::new(&world, "bound", file, &[]);
    let bind = format!("{}:/etc/app/secret.conf:ro", secret.display());
    context.build(&["-v", &bind]).ok();
    assert_eq!(context.run("cat /seen; ls -d /etc/app 2>/dev/null || echo none"), "13\nnone");
    let tar = world.path("bound.tar");
    world.ok(&["save", "-o", tar.to_str().unwrap(), "bound:1"]);
    let bytes = std::fs::read(&tar).unwrap();
    let holds = |word: &[u8]| bytes.windows(word.len()).any(|part| part == word);
    assert!(holds(b"proof") && !holds(b"zq7xw9") && !holds(b"secret.conf"), "the bound file has left no trace");
    let id = context.id();
    context.build(&[]).ok();
    assert_eq!(context.id(), id, "without the bind the steps are cached all the same");
    context.build(&["-v", "/nowhere/at/all:/x"]).fails(1, &["/nowhere/at/all"]);
    context.build(&["-v", "volume:/x"]).fails(125, &["/SRC:/DST"]);
}

#[test]
fn add_unpacks_archives_over_what_is_there() {
    requires!(root, program "tar");
    let world = World::new();
    world.busybox();
    let file = "FROM busybox\nRUN mkdir -p /in/dir && echo old > /in/dir/kept && echo old > /in/file && ln -s /in /link\n\
                ADD pack.tar.gz /link/\nADD --chown=daemon pack.tar.gz /owned/\nCOPY pack.tar.gz /copied\n";
    let context = Context::new(&world, "add", file, &[]);
    for (name, text) in [("tree/dir/new", "new\n"), ("tree/file", "new\n"), ("tree/tool", "#!/bin/sh\n")] {
        world.write(name, text);
    }
    let (tree, archive) = (world.path("tree"), world.path("add/pack.tar.gz"));
    let tree = tree.to_str().unwrap();
    crate::support::host("chmod", &["4755", &format!("{tree}/tool")]).ok();
    crate::support::host(
        "tar",
        &["--owner=7", "--group=8", "--numeric-owner", "-C", tree, "-czf", archive.to_str().unwrap(), "."],
    )
    .ok();
    context.build(&[]).ok();
    assert_eq!(
        context.run("cat /in/dir/kept /in/dir/new /in/file; stat -c '%a %u:%g' /in/tool /owned/tool /owned; test -f /copied && echo whole"),
        "old\nnew\nnew\n4755 7:8\n4755 7:8\n755 1:1\nwhole"
    );
}

#[test]
fn here_documents_are_scripts_and_files() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox\nARG WHO=me\nRUN <<EOT\necho one > /lines\necho two >> /lines\nEOT\n\
                USER daemon\nRUN <<SCRIPT\n#!/bin/sh -e\necho $0 $(id -un) > /tmp/script\nSCRIPT\n\
                COPY <<FILE /etc/conf\nfor $WHO\nFILE\n";
    let context = Context::new(&world, "heredoc", file, &[]);
    context.build(&[]).ok();
    assert_eq!(context.run("cat /lines /tmp/script /etc/conf"), "one\ntwo\n/dev/pipes/SCRIPT daemon\nfor me");
}

/// Starts a build whose step never ends, and waits until it runs.
fn endless(world: &World) -> std::process::Child {
    Context::new(world, "endless", "FROM busybox\nRUN echo begun; sleep 1000\n", &[]);
    let directory = world.path("endless");
    let mut child = world.spawn(&["build", "--progress=plain", "-t", "endless:1", directory.to_str().unwrap()]);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with(" begun")), "the step runs");
    child
}

fn snapshots(world: &World) -> usize {
    // The layer of places is nobody's.
    let entries = std::fs::read_dir(world.root.join("snapshots")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name() != ".places").count()
}

#[test]
fn an_interrupted_build_ends_at_once_and_takes_its_step_down() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let before = snapshots(&world);
    let mut child = endless(&world);
    crate::support::host("kill", &["-INT", &child.id().to_string()]).ok();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(snapshots(&world), before);
    assert_eq!(std::fs::read_dir(world.root.join("leases")).unwrap().count(), 0);
    assert!(!world.ok(&["images"]).contains("endless"));
}

/// What the shim of the only step noted: pids of the shim and of the step's first process.
fn step(world: &World) -> (i64, i64) {
    let state = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("state.json")).ok();
    let state = std::fs::read_dir(&world.run).unwrap().flatten().find_map(state).expect("a step runs");
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    (state["shim_pid"].as_i64().unwrap(), state["pid"].as_i64().unwrap())
}

fn gone(pid: i64) -> Option<()> {
    (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
}

fn leases(world: &World) -> usize {
    std::fs::read_dir(world.root.join("leases")).unwrap().count()
}

#[test]
fn a_step_dies_with_its_builder_however_that_was_killed() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let before = snapshots(&world);
    let mut child = endless(&world);
    let (shim, init) = step(&world);
    child.kill().unwrap();
    wait_for("the step to die with its builder", 2, || gone(init));
    child.wait().unwrap();
    wait_for("the supervisor to end", 5, || gone(shim));
    // No further command is needed.
    wait_for("the tree and the lease to go", 5, || (snapshots(&world) == before && leases(&world) == 0).then_some(()));
    let left = || std::fs::read_dir(&world.run).unwrap().flatten().any(|entry| entry.file_name().len() == 64);
    assert!(!left(), "the step's run directory is gone");
}

#[test]
fn what_a_build_killed_with_its_supervisor_left_goes_with_the_next_look() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let before = snapshots(&world);
    for look in [&["ps"][..], &["images"], &["run", "--rm", "--network", "none", "busybox", "true"]] {
        let mut child = endless(&world);
        let (shim, init) = step(&world);
        // The supervisor first: nobody is left to take anything down.
        crate::support::host("kill", &["-STOP", &child.id().to_string()]).ok();
        crate::support::host("kill", &["-9", &shim.to_string()]).ok();
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for("the step to die with its supervisor", 5, || gone(init));
        assert_eq!((snapshots(&world), leases(&world)), (before + 1, 1), "{look:?}");
        world.ok(look);
        assert_eq!((snapshots(&world), leases(&world)), (before, 0), "{look:?}");
    }
}

#[test]
fn a_container_becomes_an_image() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let script = "echo made > /x; rm /etc/group";
    world.ok(&["run", "--network", "none", "-e", "A=1", "--name", "cc", "busybox", "sh", "-c", script]);
    let id = world.ok(&["commit", "-m", "a remark", "-c", "CMD [\"cat\", \"/x\"]", "-c", "ENV B=2", "cc", "snap:1"]);
    assert_eq!(world.inspect("snap:1", "{{.Id}}"), id);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "snap:1"]), "made");
    let shell = ["run", "--rm", "--network", "none", "snap:1", "sh", "-c", "echo $A$B$HOSTNAME; ls /etc/group || true"];
    let seen = world.ok(&shell);
    assert!(seen.starts_with("12") && seen.len() == 14, "the host name is the new container's own: {seen}");
    assert!(!world.inspect("snap:1", "{{json .Config.Env}}").contains("HOSTNAME"));
    assert!(world.ok(&["history", "--no-trunc", "snap:1"]).contains("a remark"));
    world.bulkhead(&["commit", "-c", "RUN true", "cc"]).fails(1, &["RUN"]);
    world.bulkhead(&["commit", "nobody"]).fails(1, &["nobody"]);
}

#[test]
fn independent_stages_run_side_by_side() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let stage = |name: &str| format!("FROM busybox AS {name}\nRUN date +%s >/{name}; sleep 2; date +%s >>/{name}\n");
    let stages: String = ["a", "b", "c", "d"].map(stage).concat();
    let copies: String = ["a", "b", "c", "d"].map(|name| format!("COPY --from={name} /{name} /\n")).concat();
    let context = Context::new(&world, "side", &format!("{stages}FROM busybox\n{copies}"), &[]);
    context.build(&[]).ok();
    let times: Vec<u64> = context.run("cat /a /b /c /d").lines().map(|line| line.parse().unwrap()).collect();
    let spans: Vec<_> = times.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
    assert_eq!(spans.len(), 4);
    let at_once = |moment: u64| spans.iter().filter(|span| span.contains(&moment)).count();
    let most = spans.iter().map(|span| at_once(span.start)).max();
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(most, Some(processors.min(4)), "as many at once as there are processors: {spans:?}");
}

#[test]
fn a_failing_stage_ends_the_others_and_says_which_failed() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let before = snapshots(&world);
    let file = "FROM busybox AS slow\nRUN sleep 1000\nFROM busybox AS bad\nRUN sleep 0.5; echo the reason >&2; exit 7\n\
                FROM busybox\nCOPY --from=slow /x /\nCOPY --from=bad /x /\n";
    let context = Context::new(&world, "ends", file, &[]);
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return crate::support::skip("a_failing_stage_ends_the_others", "needs two processors");
    }
    let text = context.build(&["--progress=plain"]).fails(1, &["the reason", "exit code 7", "CANCELED"]);
    assert!(text.contains("Dockerfile:4") && text.contains(">>>    4 | RUN sleep 0.5"), "{text}");
    assert_eq!((snapshots(&world), leases(&world)), (before, 0), "the step that was ended is taken down");
}

#[test]
fn two_builds_of_one_tree_share_their_steps() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /first\nRUN cat /proc/sys/kernel/random/uuid > /second\n";
    let context = Context::new(&world, "shared", file, &[]);
    let directory = world.path("shared");
    let builds: Vec<_> =
        ["one:1", "two:1"].map(|tag| world.spawn(&["build", "-q", "-t", tag, directory.to_str().unwrap()])).into();
    let ids: Vec<_> = builds
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert_eq!(ids[0], ids[1], "each step was done once");
    context.build(&[]).ok();
    assert_eq!(context.id(), ids[0].trim());
}

#[test]
fn what_a_killed_build_has_finished_is_used_by_its_retry() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox AS side\nRUN cat /proc/sys/kernel/random/uuid > /side\nFROM busybox\nCOPY a /\n\
                RUN cat /proc/sys/kernel/random/uuid > /own\nCOPY --from=side /side /\n";
    let context = Context::new(&world, "retry", file, &[("a", "1")]);
    let directory = world.path("retry");
    // Each step has one of these; the last record is written when all but one are there.
    for (fault, least) in [("step.committed:1", 0), ("step.committed:3", 1), ("step.committed:4", 2)] {
        world.ok(&["builder", "prune", "-af"]);
        let arguments = ["build", "--progress=plain", "-t", "retry:1", directory.to_str().unwrap()];
        let killed = world.bulkhead_in(&arguments, None, &[("BULKHEAD_FAULT", fault)]);
        assert_eq!(killed.code, 137, "{killed:?}");
        let again = context.build(&["--progress=plain"]).code(0);
        let cached = again.stderr.lines().filter(|line| line.ends_with(" CACHED")).count();
        // The two FROM are always there.
        assert!(cached >= 2 + least, "{fault}: {cached} steps were cached: {}", again.stderr);
        assert_eq!(context.run("wc -c < /side; wc -c < /own; cat /a"), "37\n37\n1");
    }
}
