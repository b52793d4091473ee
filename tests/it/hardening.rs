//! The walls by the flags of the command line, and what goes on behind them. The matrix of all walls is in `walls.rs`.

use crate::support::{BULKHEAD, World, requires, wait_for};

/// What takes each wall down. The read-only root is put up instead (`--read-only`), because it is not there by itself.
const WALLS: [(&str, &[&str]); 6] = [
    ("userns", &["--userns", "host"]),
    ("seccomp", &["--security-opt", "seccomp=unconfined"]),
    ("landlock", &["--security-opt", "landlock=off"]),
    ("masks", &["--security-opt", "systempaths=unconfined"]),
    ("no_new_privs", &["--security-opt", "no-new-privileges=false"]),
    ("capabilities", &["--cap-add", "ALL"]),
];

/// Flags that take down one wall.
fn without(wall: &str) -> Vec<&'static str> {
    WALLS.iter().filter(|(name, _)| *name == wall).flat_map(|(_, flags)| flags.iter().copied()).collect()
}

/// Flags that take down every wall but one.
fn only(wall: &str) -> Vec<&'static str> {
    WALLS.iter().filter(|(name, _)| *name != wall).flat_map(|(_, flags)| flags.iter().copied()).collect()
}

/// Runs a script with flags; tells whether it said `WON`, and all it said.
fn attack(world: &World, flags: &[&str], script: &str) -> (bool, String) {
    let seen = world.throwaway().with(flags).sh(script).run();
    let text = format!("{flags:?}\n{}{}", seen.stdout, seen.stderr);
    (seen.stdout.lines().any(|line| line == "WON"), text)
}

#[test]
fn each_flag_takes_down_the_wall_it_names() {
    requires!(root);
    let world = World::new();
    world.busybox();
    // A copy of busybox as `su` with the set-uid bit, and a root without a password, used by an ordinary user.
    let become_root = r"printf 'root::0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n' > /etc/passwd; mkdir /s; cp /bin/busybox /s/su; \
        chmod 4755 /s/su; su -s /bin/sh daemon -c '/s/su root -c id' | grep -q uid=0 && echo WON";
    for (wall, script) in [
        ("seccomp", "unshare -U true && echo WON"),
        ("capabilities", "mount -t tmpfs none /tmp && echo WON"),
        ("masks", "grep -q CPU0 /proc/interrupts && echo WON"),
        ("no_new_privs", become_root),
        // Belongs to the host's root alone, and is not masked.
        ("userns", "cat /proc/vmallocinfo >/dev/null && echo WON"),
    ] {
        for (flags, works) in [(without(wall), true), (Vec::new(), false)] {
            let (won, text) = attack(&world, &flags, script);
            assert_eq!(won, works, "{wall}: {text}");
        }
    }
}

#[test]
fn landlock_refuses_signals_where_the_pid_namespace_is_the_hosts() {
    requires!(root, landlock >= 6);
    let world = World::new();
    world.busybox();
    let mut flags = Vec::new();
    for (wall, works) in [("landlock", true), ("none", true), ("only", false), ("all", false)] {
        flags.clear();
        match wall {
            "landlock" => flags.extend(without("landlock")),
            "none" => flags.extend(only("none")),
            "only" => flags.extend(only("landlock")),
            _ => {}
        }
        flags.extend(["--pid", "host"]);
        let mut victim = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let (_, text) = attack(&world, &flags, &format!("kill -9 {} && echo WON", victim.id()));
        std::thread::sleep(std::time::Duration::from_millis(50));
        let ended = victim.try_wait().unwrap().is_some();
        let _ = victim.kill();
        let _ = victim.wait();
        assert_eq!(ended, works, "{wall}: {text}");
    }
}

#[test]
fn a_read_only_root_stays_read_only() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let script =
        "mount -o remount,rw / 2>/dev/null; mount -o remount,bind,rw / 2>/dev/null; echo x > /etc/passwd && echo WON";
    let none = || only("none");
    let privileged = || vec!["--privileged"];
    for (flags, read_only, works) in [
        (Vec::new(), false, true),
        (none(), false, true),
        (privileged(), false, true),
        (only("userns"), true, false),
        // Nothing of the tree is locked here; the file system itself has nothing writable.
        (none(), true, false),
        (privileged(), true, false),
        (Vec::new(), true, false),
    ] {
        let mut flags = flags;
        if read_only {
            flags.push("--read-only");
        }
        let (won, text) = attack(&world, &flags, script);
        assert_eq!(won, works, "{text}");
    }
}

/// Its mount alone was read-only, which `SYS_ADMIN` in the host's user namespace takes back.
#[test]
fn a_read_only_directory_stays_read_only() {
    requires!(root);
    let world = World::new();
    let directory = world.rootfs();
    std::fs::write(directory.join("owned"), "").unwrap();
    std::os::unix::fs::chown(directory.join("owned"), Some(33), Some(33)).unwrap();
    let bind = format!("{}:/new/place", world.write("bound/file", "").parent().unwrap().display());
    let script = "mount -o remount,rw / 2>/dev/null; mount -o remount,bind,rw / 2>/dev/null; \
        stat -c %u /owned; touch /new/place/x && echo bind; touch /tmp/x && echo tmpfs; echo x > /etc/passwd && echo WON";
    let admin = || vec!["--userns", "host", "--cap-add", "SYS_ADMIN"];
    for (flags, read_only, works) in [
        (admin(), false, true),
        (admin(), true, false),
        (vec!["--privileged"], true, false),
        (only("none"), true, false),
        (Vec::new(), true, false),
    ] {
        let seal = if read_only { &["--read-only"][..] } else { &[] };
        let place = ["-v", &bind, "--tmpfs", "/tmp", "--rootfs", directory.to_str().unwrap(), "sh", "-c", script];
        let seen = world.bulkhead(&[&["run", "--rm", "--network", "none"], &flags[..], seal, &place].concat());
        let said: Vec<&str> = seen.stdout.lines().collect();
        let expected = if works { &["33", "bind", "tmpfs", "WON"][..] } else { &["33", "bind", "tmpfs"] };
        assert_eq!(said, expected, "{flags:?} {seen:?}");
    }
    // Two overlays upon each other are all the kernel takes.
    let (root, run) = (world.root.to_str().unwrap(), world.run.to_str().unwrap());
    let script = "mkdir empty one two && mount -t overlay -o lowerdir=rootfs:empty x one && \
        mount -t overlay -o lowerdir=one:empty x two && exec \"$@\"";
    let words = ["-m", "sh", "-c", script, "sh", BULKHEAD, "--root", root, "--run", run, "run", "--rm", "--read-only"];
    let place = ["--network", "none", "--rootfs", "two", "true"];
    let seen = world.host("unshare", &[&words[..], &admin(), &place].concat());
    seen.fails(125, &["/two read-only against SYS_ADMIN", "invalid argument; leave out --userns=host"]);
}

#[test]
fn a_sealed_root_has_its_mounts_and_keeps_what_was_written_before() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let flags = ["--read-only", "--userns", "host", "--cap-add", "SYS_ADMIN", "--network", "none"];
    let more = ["-v", "data:/new/data", "--tmpfs", "/tmp", "-w", "/made/here", "--name", "sealed"];
    let script = "pwd; touch /new/data/x /tmp/x && echo volumes; touch /x 2>/dev/null || echo sealed; cat /etc/hostname >/dev/null && echo own";
    world.ok(&[&["create"], &flags[..], &more, &["busybox", "sh", "-c", script]].concat());
    for _ in 0..2 {
        let seen = world.ok(&["start", "-a", "sealed"]);
        assert_eq!(seen, "/made/here\nvolumes\nsealed\nown");
    }
}

/// Sockets that forge what other machines would have said, and the two that `ping` uses.
const SOCKETS: &str = r"
import socket, struct
def attempt(name, act):
    try: act(); print(name, 'yes')
    except OSError as error: print(name, 'no')
S, I = socket.socket, socket.AF_INET
def echo(kind):
    s = S(I, kind, socket.IPPROTO_ICMP); s.settimeout(2)
    s.sendto(bytes([8, 0, 0xf7, 0xff, 0, 0, 0, 0]), ('127.0.0.1', 0)); s.recv(99)
def option(level, name):
    s = S(I, socket.SOCK_RAW, socket.IPPROTO_ICMP); s.setsockopt(level, name, 1)
attempt('raw-echo', lambda: echo(socket.SOCK_RAW))
attempt('ping-socket', lambda: echo(socket.SOCK_DGRAM))
attempt('whole-packets', lambda: S(I, socket.SOCK_RAW, 255))
attempt('own-header', lambda: option(0, 3))
attempt('foreign-address', lambda: option(0, 19))
attempt('raw-tcp', lambda: S(I, socket.SOCK_RAW, 6))
attempt('neighbours', lambda: S(socket.AF_INET6, socket.SOCK_RAW, 58))
attempt('packets', lambda: S(17, socket.SOCK_RAW, 0))
";

#[test]
fn ping_works_and_forges_nothing() {
    requires!(root, image "python");
    let world = World::new();
    world.busybox();
    let image = world.base_image("python");
    let program = world.write("sockets.py", SOCKETS);
    let bind = format!("{}:/sockets.py:ro", program.display());
    let run = |flags: &[&str]| {
        let seen =
            world.bulkhead(&[&["run", "--rm", "-v", &bind], flags, &[&image, "python3", "/sockets.py"]].concat());
        let said =
            |word: &str| seen.stdout.lines().filter_map(|line| line.strip_suffix(word)).collect::<Vec<_>>().join(" ");
        (said(" yes"), said(" no"))
    };
    let forging = "whole-packets own-header foreign-address raw-tcp neighbours packets";
    assert_eq!(run(&[]), ("raw-echo ping-socket".to_owned(), forging.to_owned()));
    assert_eq!(run(&["-u", "1000"]).0, "ping-socket");
    let every = format!("raw-echo ping-socket {forging}");
    // Without packet sockets on a kernel that has none.
    assert!(
        every.starts_with(&run(&["--cap-add", "NET_RAW"]).0) && run(&["--cap-add", "NET_RAW"]).0.contains("own-header")
    );
    for flags in
        [&["--cap-drop", "NET_RAW"][..], &["--security-opt", "seccomp=unconfined"], &["--security-opt", "strict"]]
    {
        assert_eq!(run(flags).0, "ping-socket", "{flags:?}");
    }
    assert_eq!(run(&["--net", "host"]).0, "", "the host's network is not pinged from unasked");
    // By the program everybody has, and by one that carries the capability as Debian's does.
    let ping = ["ping", "-c", "1", "-W", "2", "127.0.0.1"];
    let seen = world.ok(&[&["run", "--rm", "busybox"], &ping[..]].concat());
    assert!(seen.contains("1 packets received"), "{seen}");
    let carry = "import os, shutil, struct, sys\nshutil.copy('/usr/bin/env', '/own')\n\
        os.setxattr('/own', 'security.capability', struct.pack('<5I', 0x02000001, 1 << 13, 0, 0, 0))\n\
        os.spawnl(os.P_WAIT, '/own', 'own', 'true') and sys.exit(1)\n\
        os.setgid(1000); os.setuid(1000); os.execl('/own', 'own', 'true')";
    world.ok(&["run", "--rm", &image, "python3", "-c", carry]);
}

#[test]
fn devices_are_those_given() {
    requires!(root);
    let world = World::new();
    world.busybox();
    // Open and control: the device answers, though it belongs to the host's root with mode 0660.
    let script = "test -c /dev/loop-control && (exec 3<>/dev/loop-control) && echo WON";
    let (won, text) = attack(&world, &["--device", "/dev/loop-control"], script);
    assert!(won, "{text}");
    let (won, text) = attack(&world, &["--device", "/dev/loop-control", "--security-opt", "strict"], script);
    assert!(won, "a device asked for by name is given at every level: {text}");
    assert!(!attack(&world, &[], script).0);
    let tun = "tunctl -f /dev/net/tun -t t0 && ls /sys/class/net | grep -qx t0 && echo WON";
    let (won, text) = attack(&world, &["--device", "/dev/net/tun", "--cap-add", "NET_ADMIN"], tun);
    assert!(won, "{text}");
    let (won, text) = attack(&world, &["--device", "/dev/loop-control:/elsewhere:r"], "exec 3</elsewhere && echo WON");
    assert!(won, "{text}");
    if crate::support::need_cgroup_v2().is_ok() || std::path::Path::new("/sys/fs/cgroup/devices").exists() {
        let (won, text) = attack(&world, &["--device", "/dev/loop-control:/d:r"], "(exec 3<>/d) && echo WON");
        assert!(!won, "read only: {text}");
        // A node made inside, with every other wall down but the control group's.
        let flags = only("none");
        let script = |number: &str| format!("mknod /dev/made c {number} && (exec 3<>/dev/made) && echo WON");
        let (won, text) = attack(&world, &flags, &script("1 3"));
        assert!(won, "a null device may be made and opened: {text}");
        let (won, text) = attack(&world, &flags, &script("10 237"));
        assert!(!won && text.contains("not permitted"), "the host's loop control: {text}");
    }
    for bad in ["/dev/nothing", "/etc/passwd"] {
        world.throwaway().with(&["--device", bad]).program(&["true"]).run().fails(125, &[bad]);
    }
}

#[test]
fn privileged_is_what_it_says() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let script = "test -c /dev/loop-control && test -w /proc/sys/kernel/hostname && mount -t tmpfs none /tmp && \
                  grep -q 'Seccomp:.0' /proc/self/status && grep -q 'NoNewPrivs:.0' /proc/self/status && echo WON";
    let (won, text) = attack(&world, &["--privileged"], script);
    assert!(won, "{text}");
    assert!(!attack(&world, &[], script).0);
}

#[test]
fn namespaces_of_the_host_are_joined_when_asked_for() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let run = |flags: &[&str], script: &str| world.throwaway().with(flags).sh(script).run().ok();
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_string_lossy().into_owned();
    for name in ["pid", "ipc", "uts"] {
        let script = format!("readlink /proc/self/ns/{name}");
        assert_eq!(run(&[&format!("--{name}"), "host"], &script), own(name), "{name}");
        assert_ne!(run(&[], &script), own(name), "{name}");
    }
    assert_eq!(run(&["--userns", "host"], "readlink /proc/self/ns/user"), own("user"));
    assert_eq!(run(&["--uts", "host"], "hostname"), rustix::system::uname().nodename().to_string_lossy());
    // Own ids stay where a namespace is shared without them being in the way.
    assert_ne!(run(&["--ipc", "host"], "readlink /proc/self/ns/user"), own("user"));
    assert_ne!(
        run(&["--pid", "host", "--userns", "private"], "readlink /proc/self/ns/user; ls /proc/1 >/dev/null"),
        own("user")
    );
}

#[test]
fn kernel_parameters_are_the_containers_own_or_refused() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let read = |flags: &[&str], path: &str| world.throwaway().with(flags).program(&["cat", path]).run().ok();
    // Before Linux 6.12 some of a network namespace's parameters are the first user namespace's alone.
    let (flag, place) = ("net.core.somaxconn=77", "/proc/sys/net/core/somaxconn");
    if world.throwaway().program(&["ls", "/proc/sys/net/core"]).run().ok().contains("somaxconn") {
        assert_eq!(read(&["--sysctl", flag], place), "77");
    } else {
        let hidden = ["run", "--rm", "--network", "none", "--sysctl", flag, "busybox", "true"];
        world.bulkhead(&hidden).fails(125, &["net.core.somaxconn", "--userns=host"]);
        assert_eq!(read(&["--sysctl", flag, "--userns", "host"], place), "77");
    }
    assert_eq!(read(&["--sysctl", "net.ipv4.ip_default_ttl=77"], "/proc/sys/net/ipv4/ip_default_ttl"), "77");
    assert_eq!(read(&["--sysctl", "kernel.shm_rmid_forced=1"], "/proc/sys/kernel/shm_rmid_forced"), "1");
    assert_eq!(read(&["--sysctl", "fs.mqueue.msg_max=20"], "/proc/sys/fs/mqueue/msg_max"), "20");
    // What an ordinary user of an ordinary image relies on.
    assert_eq!(read(&[], "/proc/sys/net/ipv4/ping_group_range"), "0\t65535");
    assert_eq!(read(&[], "/proc/sys/net/ipv4/ip_unprivileged_port_start"), "0");
    assert_eq!(
        read(
            &["--sysctl", "net.ipv4.ip_unprivileged_port_start=1024"],
            "/proc/sys/net/ipv4/ip_unprivileged_port_start"
        ),
        "1024"
    );
    for (flags, key, why) in [
        (&["--network", "none"][..], "kernel.core_pattern=x", "whole host"),
        (&["--network", "none", "--userns", "host"], "kernel.core_pattern=x", "whole host"),
        (&["--network", "none", "--privileged"], "vm.overcommit_memory=1", "whole host"),
        (&["--network", "host"], "net.core.somaxconn=77", "host's network namespace"),
        (&["--network", "none", "--ipc", "host"], "kernel.shm_rmid_forced=1", "host's ipc namespace"),
    ] {
        let mut arguments = vec!["run", "--rm", "--sysctl", key];
        arguments.extend(flags);
        arguments.extend(["busybox", "true"]);
        world.bulkhead(&arguments).fails(125, &["sysctl", why]);
    }
}

#[test]
fn limits_of_a_process_are_as_asked() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let run = |flags: &[&str], script: &str| world.throwaway().with(flags).sh(script).run().ok();
    assert_eq!(run(&["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn"), "100\n200");
    assert_eq!(run(&["--ulimit", "core=0"], "ulimit -c"), "0");
    assert_eq!(run(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500");
    assert_eq!(run(&["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status"), "Cpus_allowed_list:\t0");
    assert_eq!(run(&["--group-add", "44", "--group-add", "users"], "id -G"), "0 44 100");
}

#[test]
fn an_init_of_ours_reaps_and_forwards_behind_the_filter() {
    requires!(root);
    let world = World::new();
    world.busybox();
    for level in [&[][..], &["--security-opt", "strict"], &["--security-opt", "no-new-privileges=false"]] {
        let script = "trap 'exit 9' TERM; (sleep 0.05 &); while :; do sleep 0.1; done";
        world.container("reaped").with(&["--init"]).with(level).sh(script).start();
        // A child of the shell is a zombie for a moment; one that nobody reaps stays.
        std::thread::sleep(std::time::Duration::from_millis(300));
        wait_for("no zombie", 10, || {
            let list = world.ok(&["exec", "reaped", "ps", "-o", "pid,stat,comm"]);
            (!list.contains(" Z ")).then_some(())
        });
        world.ok(&["stop", "-t", "5", "reaped"]);
        assert_eq!(world.inspect("reaped", "{{.State.ExitCode}}"), "9", "{level:?}");
        world.ok(&["rm", "reaped"]);
    }
}

#[test]
fn an_owner_of_a_bind_and_the_process_change_places() {
    requires!(root);
    use std::os::unix::fs::MetadataExt;
    let world = World::new();
    world.busybox();
    let own = world.path("own");
    let owners = |name: &str| std::fs::metadata(own.join(name)).map(|found| (found.uid(), found.gid())).unwrap();
    let bind = format!("{}:/own", own.display());
    for (owner, user, inside) in
        [(1000, "0", "0:0"), (1000, "1000:1000", "1000:1000"), (1000, "daemon", "1:1"), (100_000, "0", "0:0")]
    {
        let _ = std::fs::remove_dir_all(&own);
        std::fs::create_dir(&own).unwrap();
        std::os::unix::fs::chown(&own, Some(owner), Some(owner)).unwrap();
        let script = "stat -c %u:%g /own && touch /own/mine";
        assert_eq!(world.throwaway().with(&["-u", user, "-v", &bind]).sh(script).run().ok(), inside);
        assert_eq!(owners("mine"), (owner, owner), "what {user} writes belongs to {owner}");
    }
    // Ids of services stay what they are, so that a data directory can be given to one.
    let script = "touch /own/a /own/b && chown 999:999 /own/a && chown 0:0 /own/b && stat -c %u /own/a";
    assert_eq!(world.throwaway().with(&["-v", &bind]).sh(script).run().ok(), "999");
    assert_eq!((owners("a"), owners("b").0), ((999, 999), 100_000));
}

#[test]
fn a_service_on_the_hosts_network_may_use_port_80() {
    requires!(root, program "curl");
    let world = World::new();
    world.busybox();
    let seen = world.bulkhead(&[
        "run",
        "-d",
        "--net=host",
        "--name",
        "web",
        "busybox",
        "httpd",
        "-f",
        "-p",
        "127.0.0.1:80",
        "-h",
        "/etc",
    ]);
    assert!(seen.code == 0 && seen.stderr.contains("--net=host"), "said in words: {seen:?}");
    wait_for("the page", 10, || {
        let page = world.host("curl", &["-s", "-m", "2", "http://127.0.0.1/group"]).stdout;
        page.contains("root").then_some(())
    });
    let enforced = world.inspect("web", "{{json .Enforced}}");
    assert!(enforced.contains("host: --net=host") && !enforced.contains("none: unconfined"), "{enforced}");
    world.ok(&["rm", "-f", "web"]);
}

#[test]
fn what_is_enforced_is_said_and_required() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("said").idle().start();
    let enforced: serde_json::Value = serde_json::from_str(&world.inspect("said", "{{json .Enforced}}")).unwrap();
    let text = enforced.to_string().to_ascii_lowercase();
    for layer in ["userns", "seccomp", "landlock", "capabilities", "no_new_privileges"] {
        assert!(text.contains(layer) || text.contains(&layer.replace('_', "")), "{layer} in {text}");
    }
    let info = world.ok(&["info", "--security"]).to_ascii_lowercase();
    for layer in ["userns", "seccomp", "landlock"] {
        assert!(info.contains(layer), "{layer} in {info}");
    }
    // On every kernel: what it has is said and may be demanded, and no more than that.
    let abi = crate::support::landlock_abi();
    assert!(text.contains(&format!("(abi {abi})")), "{text}");
    let demand = |least: i64| {
        let demand = format!("landlock>={least}");
        world.throwaway().with(&["--require", &demand]).program(&["true"]).run()
    };
    demand(1).ok();
    demand(abi).ok();
    demand(abi + 1).fails(125, &["landlock", "is not met", &format!("(ABI {abi})")]);
    world.throwaway().with(&["--require", "landlock>=99"]).program(&["true"]).run().fails(125, &["landlock", "99"]);
    world
        .throwaway()
        .with(&["--require", "landlock>=1", "--security-opt", "landlock=off"])
        .program(&["true"])
        .run()
        .fails(125, &["landlock"]);
    let seen = world
        .throwaway()
        .with(&["--privileged"])
        .sh("grep CapEff /proc/self/status; awk '{print $3}' /proc/self/uid_map")
        .run()
        .code(0);
    assert!(seen.stdout.contains("4294967295"), "privileged is the host's user namespace: {seen:?}");
    assert_eq!(seen.stderr.lines().count(), 1, "one line of warning: {}", seen.stderr);
}

#[test]
fn ordinary_work_goes_on_behind_the_walls() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let script = "set -e; cd /tmp; echo a > f; ln f g; ln -s f h; mv f ../root/f; chown 5:5 g; chmod 4755 g; mkfifo p; mkdir -p d/e; mv d /var/d; \
                  (sleep 5 & kill $!); dd if=/dev/zero of=/dev/null bs=1k count=1 2>/dev/null; cat /dev/urandom | head -c 4 | wc -c; hostname; \
                  echo x > /dev/full 2>/dev/null && exit 9; ulimit -n >/dev/null; date >/dev/null; test -w /dev/shm; echo all";
    assert!(attack(&world, &[], script).1.ends_with("all\n"));
    assert!(attack(&world, &[], "awk '{print $3}' /proc/self/uid_map").1.contains("65536"));
}
