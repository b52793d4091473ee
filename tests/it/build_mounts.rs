//! `RUN --mount`: what a step is given and what is left of it; `--network` and `--security` of a step.

use crate::support::{World, build::Context, requires, wait_for};

const UUID: &str = "cat /proc/sys/kernel/random/uuid";

#[test]
fn a_cache_stays_between_builds_and_is_in_no_layer() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox\nWORKDIR /w\nRUN --mount=type=cache,target=/var/cache/x,id=one \\\n  \
                cat /var/cache/x/* > /seen 2>/dev/null; echo $RANDOM >> /var/cache/x/log; echo tok$((40+2))en > /var/cache/x/private\n\
                RUN --mount=type=cache,target=c,uid=1,gid=2,mode=0751 stat -c '%u:%g %a %n' c > /owner\n";
    let context = Context::new(&world, "cached", file, &[]);
    context.build(&[]).ok();
    assert_eq!(context.run("cat /seen; cat /owner; ls -d /var/cache /w/c 2>/dev/null || true"), "1:2 751 c");
    let tar = world.path("cached.tar");
    world.ok(&["save", "-o", tar.to_str().unwrap(), "cached:1"]);
    let archive = std::fs::read(&tar).unwrap();
    let holds = |word: &[u8]| archive.windows(word.len()).any(|part| part == word);
    assert!(holds(b"owner") && !holds(b"tok42en"), "what lies in the cache is in no layer");
    context.build(&["--no-cache"]).ok();
    assert_eq!(context.run("grep -c tok42en /seen"), "1", "the second build finds what the first left");
    assert_eq!(context.run("ls /var/cache 2>/dev/null | wc -l"), "0");
    // Another name, owner or mode is another cache.
    let other = "FROM busybox\nRUN --mount=type=cache,target=/x,id=two ls /x > /seen\n";
    let other = Context::new(&world, "other", other, &[]);
    other.build(&[]).ok();
    assert_eq!(other.run("cat /seen"), "");
}

#[test]
fn caches_of_steps_are_listed_and_pruned_but_not_while_used() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file =
        "FROM busybox\nRUN --mount=type=cache,target=/c,id=kept head -c 300000 /dev/zero > /c/zeros; ls /c > /seen\n";
    let context = Context::new(&world, "pruned", file, &[]);
    context.build(&[]).ok();
    let listed = world.ok(&["builder", "du", "--verbose"]);
    assert!(listed.contains("type=cache,id=kept") && listed.contains("kB"), "{listed}");
    world.ok(&["builder", "prune", "-f", "--keep-storage", "10m"]);
    assert!(world.ok(&["builder", "du", "--verbose"]).contains("type=cache,id=kept"));
    let slow = "FROM busybox\nRUN --mount=type=cache,target=/c,id=kept echo begun; [ -e /c/zeros ] && sleep 2\n";
    Context::new(&world, "slow", slow, &[]);
    let directory = world.path("slow");
    let mut child = world.spawn(&["build", "--progress=plain", "-t", "slow:1", directory.to_str().unwrap()]);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with(" begun")));
    assert!(!world.ok(&["builder", "prune", "-af"]).contains("cache mount"), "a cache in use stays");
    for line in lines {
        line.unwrap();
    }
    assert!(child.wait().unwrap().success());
    assert!(world.ok(&["builder", "prune", "-f"]).contains("cache mount kept"));
    assert!(!world.ok(&["builder", "du", "--verbose"]).contains("type=cache,id=kept"));
    context.build(&["--no-cache"]).ok();
}

#[test]
fn a_cache_begins_with_what_its_from_holds() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox AS seed\nRUN mkdir -p /s/dir && echo seeded > /s/dir/f && chown 5:6 /s/dir/f && ln -s /etc/passwd /s/out\n\
                FROM busybox\nRUN --mount=type=cache,from=seed,source=/s,target=/c cat /c/dir/f > /seen; stat -c %u:%g /c/dir/f >> /seen; \
                readlink /c/out >> /seen; echo more >> /c/dir/f\n";
    let context = Context::new(&world, "seeded", file, &[]);
    context.build(&[]).ok();
    assert_eq!(context.run("cat /seen"), "seeded\n5:6\n/etc/passwd");
    Context::new(&world, "seeded", &file.replace("> /seen;", "> /seen; true;"), &[]).build(&[]).ok();
    assert_eq!(context.run("head -2 /seen"), "seeded\nmore");
}

#[test]
fn binds_come_from_context_stage_and_image_and_lose_what_is_written() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox AS tools\nRUN mkdir /deep && echo tool > /deep/tool && ln -s /deep/tool /link && ln -s ../../../etc/hostname /up\n\
                FROM busybox\nWORKDIR /w\n\
                RUN --mount=target=src cat src/a.txt > /out; ls src >> /out; echo no > src/a.txt 2>/dev/null && echo written >> /out; true\n\
                RUN --mount=target=src,rw echo mine > src/a.txt && cat src/a.txt >> /out && stat -c %u:%g src/a.txt >> /out\n\
                RUN --mount=type=bind,source=a.txt,target=/etc/a.conf cat /etc/a.conf >> /out\n\
                RUN --mount=from=tools,source=/link,target=/t --mount=from=0,target=/all cat /t /all/deep/tool >> /out\n\
                RUN --mount=from=busybox:latest,source=/etc/group,target=/g,readwrite echo x >> /g && head -1 /g >> /out\n";
    let context =
        Context::new(&world, "binds", file, &[("a.txt", "A\n"), ("no.log", ""), (".dockerignore", "*.log\n")]);
    context.build(&[]).ok();
    assert_eq!(
        context.run("cat /out; ls -A /w; ls -d /t /all /g /etc/a.conf 2>/dev/null || true"),
        "A\nDockerfile\na.txt\nmine\n0:0\nA\ntool\ntool\nroot:x:0:"
    );
    assert_eq!(std::fs::read_to_string(world.path("binds/a.txt")).unwrap(), "A\n", "the context is untouched");
    let group = world.ok(&["run", "--rm", "--network", "none", "busybox", "cat", "/etc/group"]);
    assert!(!group.lines().any(|line| line == "x"), "the image is untouched");
}

#[test]
fn a_hostile_source_stays_inside_its_tree() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let outside = world.write("outside/secret", "host-secret-k3\n");
    let up = format!("../../../../../../..{}", outside.display());
    for (name, mount, inside) in [
        ("dots", format!("source={up},target=/x"), false),
        ("link", "source=link,target=/x".to_owned(), false),
        ("stage", format!("from=evil,source={up},target=/x"), false),
        ("stagelink", "from=evil,source=/out,target=/x".to_owned(), false),
        ("cache", format!("type=cache,source={up},target=/x"), true),
        ("seed", "type=cache,from=evil,source=/out,target=/x".to_owned(), false),
        ("whole", "target=/x".to_owned(), true),
    ] {
        let file = format!(
            "FROM busybox AS evil\nRUN ln -s {} /out\nFROM busybox\nRUN --mount={mount} find /x -type f -exec cat {{}} + > /seen; cat /x/link /x >> /seen 2>/dev/null; true\n",
            outside.display()
        );
        let context = Context::new(&world, name, &file, &[]);
        let link = world.path(&format!("{name}/link"));
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        let built = context.build(&[]);
        assert_eq!(built.code == 0, inside, "{name}: {}", built.stderr);
        if inside {
            assert!(!context.run("cat /seen").contains("host-secret"), "{name}");
        }
        assert!(!built.stderr.contains("host-secret"), "{name}");
    }
}

#[test]
fn a_tmpfs_is_limited_and_gone() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox\nRUN --mount=type=tmpfs,target=/m,size=1m cp /bin/busybox /tmp/b; \
                (head -c 2m /dev/zero > /m/big) 2>/dev/null || echo full > /out; stat -f -c %T /m >> /out; rm -f /tmp/b\n\
                RUN ls -A /m >> /out 2>/dev/null || echo gone >> /out\n";
    let context = Context::new(&world, "memory", file, &[]);
    context.build(&[]).ok();
    assert_eq!(context.run("cat /out"), "full\ntmpfs\ngone");
}

#[test]
fn a_secret_is_in_no_layer_no_history_and_no_log() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let secret = world.write("elsewhere/token", "tok-9f3kq71z");
    let file = "FROM busybox\nRUN --mount=type=secret,id=token cat /run/secrets/token | wc -c > /out; stat -c '%a %u:%g' /run/secrets/token >> /out; \
                (echo x >> /run/secrets/token) 2>/dev/null || echo sealed >> /out\n\
                USER daemon\n\
                RUN --mount=type=secret,id=token,target=/home/x/t,uid=1,gid=1,mode=0440 wc -c < /home/x/t > /tmp/mine; stat -c %a /home/x/t >> /tmp/mine\n\
                RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=none echo ${#TOKEN} > /tmp/var; ls /run/secrets >> /tmp/var 2>/dev/null || true\n\
                RUN --mount=type=secret,id=token cat /run/secrets/token || true\n\
                RUN --mount=type=secret,id=token,env=TOKEN,required echo \"it is $TOKEN.\"; env | tr 'k' 'k'\n";
    let context = Context::new(&world, "secrets", file, &[]);
    let flag = format!("id=token,src={}", secret.display());
    let built = context.build(&["--progress=plain", "--secret", &flag]).code(0);
    assert!(built.stderr.contains("it is ***.") && built.stderr.contains("TOKEN=***"), "{}", built.stderr);
    assert_eq!(context.run("cat /out"), "12\n400 0:0\nsealed");
    assert_eq!(
        context.run("cat /tmp/mine /tmp/var; ls -A /home/x; ls -d /run/secrets 2>/dev/null || true"),
        "12\n440\n12"
    );
    let tar = world.path("secrets.tar");
    world.ok(&["save", "-o", tar.to_str().unwrap(), "secrets:1"]);
    let holds = |bytes: &[u8]| bytes.windows(12).any(|part| part == b"tok-9f3kq71z");
    assert!(
        !holds(&std::fs::read(&tar).unwrap()) && !holds(built.stderr.as_bytes()) && !holds(built.stdout.as_bytes())
    );
    assert!(!holds(world.ok(&["history", "--no-trunc", "secrets:1"]).as_bytes()));
    // Nothing of the store or of what dies with the boot holds it either.
    for directory in [&world.root, &world.run] {
        let found = world.host("grep", &["-r", "-l", "-a", "tok-9f3kq71z", directory.to_str().unwrap()]);
        assert_eq!(found.stdout, "", "the secret lies in the store");
    }
    let id = context.id();
    let changed = world.write("elsewhere/other", "tok-changed-1\n");
    context.build(&["--secret", &format!("id=token,src={}", changed.display())]).ok();
    assert_eq!(context.id(), id, "a secret is in no key");
    let needs = "FROM busybox\nRUN true\nRUN --mount=type=secret,id=token,required true\n";
    Context::new(&world, "needs", needs, &[])
        .build(&[])
        .fails(1, &["needs secret \"token\"", "--secret id=token", ":3"]);
    context.build(&["--secret", "id=token,src=/nowhere"]).fails(125, &["/nowhere"]);
}

#[test]
fn an_agent_is_reached_through_a_socket_of_the_step() {
    requires!(root, program "ssh-agent", program "ssh-add", program "ssh-keygen");
    let world = World::new();
    world.busybox();
    // The agent of somebody who is not root refuses ids it does not know; that of root knows root alone.
    let socket = world.path("agent.sock");
    let mut agent = std::process::Command::new("ssh-agent")
        .args(["-D", "-a", socket.to_str().unwrap()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the agent", 5, || socket.exists().then_some(()));
    let key = world.path("key");
    world
        .host("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "key-of-the-test", "-f", key.to_str().unwrap()])
        .ok();
    let mut add = std::process::Command::new("ssh-add");
    assert!(
        add.env("SSH_AUTH_SOCK", &socket).arg(&key).stderr(std::process::Stdio::null()).status().unwrap().success()
    );
    // The host's client, for the image has none.
    let (usr, lib, lib64) = ("/usr:/usr:ro", "/usr/lib:/lib:ro", "/usr/lib64:/lib64:ro");
    let ask = "/usr/bin/ssh-add -l";
    let file = format!(
        "FROM busybox\nRUN --mount=type=ssh {ask} | grep -c key-of-the-test > /out; echo $SSH_AUTH_SOCK >> /out; stat -c '%a %u' $SSH_AUTH_SOCK >> /out\n\
         USER daemon\nRUN --mount=type=ssh,id=mine,target=/tmp/a,uid=1,required {ask} | grep -c key-of-the-test > /tmp/out\n"
    );
    let context = Context::new(&world, "agent", &file, &[]);
    let (default, mine) = (format!("default={}", socket.display()), format!("mine={}", socket.display()));
    let tools = ["--progress=plain", "-v", usr, "-v", lib, "-v", lib64];
    let built = context.build(&[&tools[..], &["--ssh", &default, "--ssh", &mine]].concat());
    let without = context.build(&["--no-cache", "--ssh", &default]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    built.ok();
    assert_eq!(
        context.run("cat /out; cat /tmp/out; ls /run/buildkit 2>/dev/null || true"),
        "1\n/run/buildkit/ssh_agent.0\n600 0\n1"
    );
    without.fails(1, &["SSH agent \"mine\"", "--ssh mine"]);
}

#[test]
fn sharing_decides_who_may_use_a_cache_at_once() {
    requires!(root);
    let world = World::new();
    world.busybox();
    // Each step says that it is there and waits for the other, for a second at most.
    let meet = |name: &str, sharing: &str| {
        let file = format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,id=meet-{sharing},sharing={sharing} touch /c/{name}; \
             for i in $(seq 20); do [ -e /c/one -a -e /c/two ] && break; usleep 50000; done; ls /c | grep -cv seen > /met; touch /c/{name}-seen; \
             for i in $(seq 20); do [ $(cat /met) = 1 -o -e /c/one-seen -a -e /c/two-seen ] && break; usleep 50000; done; rm /c/{name}\n"
        );
        Context::new(&world, &format!("{name}-{sharing}"), &file, &[]);
        world.spawn(&[
            "build",
            "-t",
            &format!("{name}-{sharing}:1"),
            world.path(&format!("{name}-{sharing}")).to_str().unwrap(),
        ])
    };
    for (sharing, met) in [("shared", "2 2"), ("private", "1 1"), ("locked", "1 1")] {
        let children = ["one", "two"].map(|name| meet(name, sharing));
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let seen = ["one", "two"]
            .map(|name| world.ok(&["run", "--rm", "--network", "none", &format!("{name}-{sharing}:1"), "cat", "/met"]));
        assert_eq!(seen.join(" "), met, "{sharing}");
    }
}

#[test]
fn a_step_has_the_network_it_asks_for() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox\nRUN --network=none ls /sys/class/net > /none; ip route >> /none\nRUN --network=default ip -4 -o addr show dev eth0 | wc -l > /default\n";
    let context = Context::new(&world, "net", file, &[]);
    context.build(&[]).ok();
    assert_eq!(context.run("cat /none /default"), "lo\n1");
    let host = Context::new(&world, "hostnet", "FROM busybox\nRUN --network=host true\n", &[]);
    host.build(&[]).fails(1, &["--network=host", ":2"]);
    host.build(&["--network", "host"]).ok();
    let device = Context::new(&world, "device", "FROM busybox\nRUN --device=vendor.com/gpu=all true\n", &[]);
    device.build(&[]).fails(1, &["vendor.com/gpu=all", ":2"]);
    let insecure = Context::new(&world, "insecure", &format!("FROM busybox\nRUN --security=insecure {UUID}\n"), &[]);
    insecure.build(&[]).fails(1, &["--security=insecure", ":2"]);
}

#[test]
fn a_cache_is_counted_after_its_use_and_not_again() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let build = |text: &str| {
        let line = "RUN --mount=type=cache,target=/c head -c 1000000 /dev/urandom >> /c/file; true";
        world.write("app/Dockerfile", format!("FROM busybox\n{line} {text}\n"));
        world.ok(&["build", "-q", "app"]);
        let held = world.ok(&["builder", "du", "--verbose"]);
        let line = held.lines().find(|line| line.contains("id=/c")).unwrap_or_else(|| panic!("{held}")).to_owned();
        line.split_whitespace().find(|word| word.ends_with("MB")).unwrap_or_else(|| panic!("{line}")).to_owned()
    };
    assert!(build("first").starts_with("1"), "as much as was written");
    let mounts = world.root.join("build/mounts");
    let key = std::fs::read_dir(&mounts).unwrap().next().unwrap().unwrap().path();
    // What nobody's step has written is not looked for until the next use.
    std::fs::write(key.join("0/data/more"), vec![1; 3_000_000]).unwrap();
    let held = world.ok(&["builder", "du", "--verbose"]);
    assert!(held.lines().any(|line| line.contains("id=/c") && line.contains(" 1")), "{held}");
    assert!(build("second").starts_with("5"), "it was used: 2 and 3 MB");
}
