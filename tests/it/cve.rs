//! Known vulnerability classes of runtimes and builders, tried here. `tests/cve.sh` lists them; `SECURITY.md` explains.

use crate::support::{World, busybox_tar, host, requires};
use std::path::{Path, PathBuf};

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file of the host that nothing may touch.
pub(crate) struct Canary(pub(crate) PathBuf);

impl Canary {
    pub(crate) fn new(world: &World) -> Self {
        Self(world.write("canary/file", "alive\n"))
    }

    /// As [`Canary::new`] where whoever comes by may make files, a container's root too: no permission hides a way out.
    pub(crate) fn open(world: &World) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let canary = Self::new(world);
        for (place, mode) in [("", 0o755), ("canary", 0o777)] {
            std::fs::set_permissions(world.path(place), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        canary
    }

    pub(crate) fn check(&self, what: &str) {
        assert_eq!(std::fs::read_to_string(&self.0).unwrap(), "alive\n", "{what}");
        let beside = std::fs::read_dir(self.0.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1, "{what} made a file beside the canary");
    }
}

/// Makes a tar with python, so that members no ordinary tool writes are possible. `body` sees `t` (a TarFile) and `add`.
pub(crate) fn hostile_tar(world: &World, name: &str, body: &str) -> PathBuf {
    let path = world.path(&format!("{name}.tar"));
    let script = format!(
        "import tarfile, io, sys\nt = tarfile.open(sys.argv[1], 'w', format=tarfile.PAX_FORMAT)\n\
         def add(name, kind=tarfile.REGTYPE, link='', data=b'', mode=0o644, pax=None, dev=(0, 0)):\n    i = tarfile.TarInfo(name)\n    i.type, i.linkname, i.size, i.mode = kind, link, len(data), mode\n    i.devmajor, i.devminor = dev\n    i.pax_headers = pax or {{}}\n    t.addfile(i, io.BytesIO(data))\nD, L, H, C, F = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE\ncanary = sys.argv[2]\n{body}\nt.close()\n"
    );
    host("python3", &["-c", &script, text(&path), text(&world.path("canary"))]).ok();
    path
}

#[test]
fn cve_2014_9356_archive_members_stay_inside_the_root() {
    requires!(root, program "python3");
    let world = World::new();
    let canary = Canary::new(&world);
    for (name, body) in [
        ("dotdot", "add('../../../../../../../..' + canary + '/file', data=b'dead')"),
        ("absolute", "add(canary + '/file', data=b'dead')"),
        ("link-out", "add('out', L, canary)\nadd('out/file', data=b'dead')\nadd('out/new', data=b'dead')"),
        (
            "link-up",
            "add('a', D, mode=0o755)\nadd('a/up', L, '../../../../../../../../..' + canary)\nadd('a/up/file', data=b'dead')",
        ),
        ("hardlink-out", "add('h', H, canary + '/file')\nadd('h', data=b'dead')"),
        ("hardlink-dotdot", "add('h', H, '../../../../../../..' + canary + '/file')\nadd('h', data=b'dead')"),
        ("hardlink-through-link", "add('out', L, canary)\nadd('h', H, 'out/file')\nadd('h', data=b'dead')"),
        ("whiteout-out", "add('out', L, canary)\nadd('out/.wh.file', data=b'')"),
        ("opaque-out", "add('out', L, canary)\nadd('out/.wh..wh..opq', data=b'')"),
        ("whiteout-dotdot", "add('.wh...', data=b'')\nadd('a/.wh...', data=b'')"),
        ("pax-path", "add('x', data=b'dead', pax={'path': '../../../../../../..' + canary + '/file'})"),
        ("pax-link", "add('x', L, 'y', pax={'linkpath': canary})\nadd('x/file', data=b'dead')"),
        ("replace-directory-by-link", "add('d', D, mode=0o755)\nadd('d', L, canary)\nadd('d/file', data=b'dead')"),
    ] {
        let tar = hostile_tar(&world, name, body);
        let reference = format!("{name}:1");
        let seen = world.bulkhead(&["import", text(&tar), &reference]);
        canary.check(name);
        if seen.code == 0 {
            world.bulkhead(&["run", "--rm", "--network", "none", &reference, "/nothing"]);
            canary.check(name);
        } else {
            assert!(seen.stderr.starts_with("error: "), "{name}: {seen:?}");
        }
    }
}

#[test]
fn cve_2021_21285_hostile_metadata_ends_with_an_error() {
    requires!(root, program "python3");
    let world = World::new();
    for (name, body) in [
        ("huge-pax", "add('x', data=b'', pax={'comment': 'x' * (80 << 20)})"),
        ("many-pax", "add('x', data=b'', pax={f'k{i}': 'v' for i in range(20000)})"),
        ("deep", "add('/'.join(['d'] * 5000), D, mode=0o755)"),
        ("long-name", "add('n' * 5000, data=b'')"),
        ("negative-size", "add('x', data=b'', pax={'size': '-5'})"),
        ("endless-size", "add('x', data=b'', pax={'size': '9' * 30})"),
        ("huge-uid", "add('x', data=b'', pax={'uid': '4294967295'})"),
    ] {
        let tar = hostile_tar(&world, name, body);
        let started = std::time::Instant::now();
        let seen = world.bulkhead(&["import", text(&tar), "x:1"]);
        assert!(seen.code == 0 || (seen.code == 1 && seen.stderr.starts_with("error: ")), "{name}: {seen:?}");
        assert!(started.elapsed().as_secs() < 20, "{name} took {:?}", started.elapsed());
    }
    let bombs = [
        ("manifest.json", "[".repeat(200_000)),
        (
            "manifest.json",
            r#"[{"Config":"../../../etc/passwd","RepoTags":["a:1"],"Layers":["../../etc/shadow"]}]"#.to_owned(),
        ),
    ];
    for (name, content) in bombs {
        let directory = world.path("bomb");
        let _ = std::fs::create_dir(&directory);
        std::fs::write(directory.join(name), content).unwrap();
        host("tar", &["-C", text(&directory), "-cf", text(&world.path("bomb.tar")), "."]).ok();
        let said = world.bulkhead(&["load", "-i", text(&world.path("bomb.tar"))]).fails(1, &["bomb.tar"]);
        assert!(!said.contains("root:"), "{said}");
    }
}

#[test]
fn cve_2019_5736_the_runtimes_binary_is_out_of_reach() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let before = std::fs::read(crate::support::BULKHEAD).unwrap();
    // As program, as interpreter, and as a file found through every process that can be seen.
    let seen = world.bulkhead(&["run", "--rm", "--network", "none", "busybox", "/proc/self/exe", "--help"]);
    assert!(!seen.stdout.contains("bulkhead"), "our program is not entered: {seen:?}");
    let script = "printf '#!/proc/self/exe\\n' > /evil; chmod 755 /evil; /evil 2>&1; \
                  for p in /proc/[0-9]*; do e=$(readlink $p/exe); case $e in *busybox*|'') ;; *) echo REACHED $p $e; echo x >> $p/exe && echo WROTE;; esac; done; true";
    world.ok(&["run", "-d", "--network", "none", "--name", "vv", "busybox", "sh", "-c", "while :; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in *bulkhead*) echo REACHED; echo x > $p/exe;; esac; done; done"]);
    for _ in 0..20 {
        let seen = world.bulkhead(&["exec", "vv", "sh", "-c", script]);
        assert!(!seen.stdout.contains("WROTE"), "{seen:?}");
    }
    assert_eq!(world.ok(&["logs", "vv"]), "", "no process on its way to a program showed ours");
    world.ok(&["rm", "-f", "vv"]);
    assert!(std::fs::read(crate::support::BULKHEAD).unwrap() == before, "the binary is unchanged");
}

#[test]
fn cve_2024_21626_no_descriptor_of_the_host_is_inherited() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let list =
        world.ok(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", "ls /proc/self/fd; ls /proc/1/fd"]);
    assert!(list.lines().all(|line| ["0", "1", "2", "3"].contains(&line)), "{list}");
    world.ok(&["run", "-d", "--network", "none", "--name", "vv", "busybox", "sleep", "600"]);
    for number in 0..40 {
        let directory = format!("/proc/self/fd/{number}");
        for arguments in [
            vec!["run", "--rm", "--network", "none", "-w", &directory, "busybox", "pwd"],
            vec!["exec", "-w", &directory, "vv", "pwd"],
        ] {
            let seen = world.bulkhead(&arguments);
            assert!(seen.code != 0 || seen.stdout.starts_with('/'), "{arguments:?}: {seen:?}");
            assert!(!seen.stdout.contains("unreachable"), "{arguments:?}: {seen:?}");
        }
    }
}

#[test]
fn cve_2022_0492_release_agents_and_nested_escapes() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let script = "unshare -Urm sh -c 'mkdir /tmp/c; mount -t cgroup -o memory c /tmp/c && echo WON' 2>/dev/null; mount -t cgroup -o rdma c /mnt 2>/dev/null && echo WON; \
                  find /sys/fs/cgroup -name release_agent 2>/dev/null | grep -q . && echo WON; \
                  for d in /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo 'WON' $d; done; true";
    let seen = world.ok(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    assert!(!seen.contains("WON"), "{seen}");
}

#[test]
fn cve_2022_0811_sysctls_cannot_be_smuggled() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for value in [
        "kernel.core_pattern=|/x",
        "kernel.shm_rmid_forced=1+kernel.core_pattern=|/x",
        "net.ipv4.ip_forward=1\nkernel.core_pattern=|/x",
        "kernel/core_pattern=x",
        "net.ipv4/../../kernel/core_pattern=x",
        "vm.overcommit_memory=1",
        "kernel.msgmax",
    ] {
        world
            .bulkhead(&["run", "--rm", "--network", "none", "--sysctl", value, "busybox", "true"])
            .fails(125, &["sysctl"]);
    }
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

#[test]
fn cve_2022_23648_image_volumes_do_not_reach_host_paths() {
    requires!(root);
    let world = World::new();
    let canary = Canary::new(&world);
    let up = format!("VOLUME /../../../../../../../..{}", world.path("canary").display());
    for (name, change) in [("up", up.as_str()), ("proc", "VOLUME /proc/self"), ("root", "VOLUME /")] {
        let reference = format!("v-{name}:1");
        let tar = busybox_tar();
        if world.bulkhead(&["import", "--change", change, text(&tar), &reference]).code == 0 {
            let seen = world.bulkhead(&[
                "run",
                "--rm",
                "--network",
                "none",
                &reference,
                "find",
                "/",
                "-name",
                "file",
                "-maxdepth",
                "9",
            ]);
            assert!(!seen.stdout.contains("canary/file"), "{name}: {seen:?}");
        }
        canary.check(name);
    }
}

#[test]
fn cve_2022_24769_nothing_is_inheritable_or_ambient() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.ok(&["run", "-d", "--network", "none", "--name", "vv", "busybox", "sleep", "600"]);
    for user in ["0", "daemon"] {
        let run = world
            .throwaway()
            .with(&["-u", user])
            .program(&["grep", "-E", "^Cap(Inh|Amb)", "/proc/self/status"])
            .run()
            .ok();
        let exec = world.ok(&["exec", "-u", user, "vv", "grep", "-E", "^Cap(Inh|Amb)", "/proc/self/status"]);
        for seen in [run, exec] {
            assert!(seen.lines().all(|line| line.ends_with("0000000000000000")), "{user}: {seen}");
        }
    }
}

#[test]
fn cve_2022_36109_supplementary_groups_are_those_of_the_image() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.ok(&["run", "-d", "--network", "none", "--name", "vv", "busybox", "sleep", "600"]);
    assert_eq!(world.ok(&["exec", "-u", "daemon", "vv", "id", "-G"]), "1 100");
    assert_eq!(world.ok(&["exec", "-u", "4321", "vv", "id", "-G"]), "0");
    let outside = world.inspect("vv", "{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{outside}/status")).unwrap();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap().trim().to_owned();
    assert!(
        groups.split_whitespace().all(|group| group.parse::<u32>().unwrap() >= 65536),
        "no group of the host: {groups}"
    );
}

#[test]
fn cve_2019_16884_mounts_over_proc_are_refused() {
    requires!(root);
    let world = World::new();
    world.busybox();
    for target in ["/proc", "/proc/self/attr", "/proc/sys", "/tmp/../proc/1"] {
        world
            .bulkhead(&["run", "--rm", "--network", "none", "-v", &format!("vol:{target}"), "busybox", "true"])
            .fails(125, &["/proc"]);
    }
}

#[test]
fn cve_2021_30465_links_of_an_image_do_not_move_mounts() {
    requires!(root);
    let world = World::new();
    let canary = Canary::new(&world);
    let directory = world.path("linked");
    std::fs::create_dir(&directory).unwrap();
    host("tar", &["-C", text(&directory), "-xf", text(&busybox_tar())]).ok();
    std::os::unix::fs::symlink(world.path("canary"), directory.join("data")).unwrap();
    std::os::unix::fs::symlink("/proc/self", directory.join("self")).unwrap();
    host("tar", &["-C", text(&directory), "-cf", text(&world.path("linked.tar")), "."]).ok();
    world.ok(&["import", text(&world.path("linked.tar")), "linked:1"]);
    let volume =
        world.bulkhead(&["run", "--rm", "--network", "none", "-v", "vol:/data", "linked:1", "touch", "/data/new"]);
    canary.check("a volume over a link");
    assert!(volume.code == 0 || volume.code == 125, "{volume:?}");
    world
        .bulkhead(&["run", "--rm", "--network", "none", "-v", "vol:/self/attr", "linked:1", "true"])
        .fails(125, &["/"]);
    world.bulkhead(&["run", "--rm", "--network", "none", "-w", "/data/made", "linked:1", "true"]);
    canary.check("a working directory behind a link");
}

#[test]
fn cve_2025_31133_masks_hold_when_dev_null_is_a_link() {
    requires!(root);
    let world = World::new();
    let canary = Canary::new(&world);
    let directory = world.path("null");
    std::fs::create_dir_all(directory.join("dev/pts")).unwrap();
    host("tar", &["-C", text(&directory), "-xf", text(&busybox_tar())]).ok();
    std::os::unix::fs::symlink(&canary.0, directory.join("dev/null")).unwrap();
    std::os::unix::fs::symlink(&canary.0, directory.join("dev/pts/0")).unwrap();
    host("tar", &["-C", text(&directory), "-cf", text(&world.path("null.tar")), "."]).ok();
    world.ok(&["import", text(&world.path("null.tar")), "null:1"]);
    let seen = world.ok(&[
        "run",
        "--rm",
        "-t",
        "--network",
        "none",
        "null:1",
        "sh",
        "-c",
        "echo x > /dev/null; test -c /dev/null && wc -c < /proc/keys; stat -c %F /dev/pts/0",
    ]);
    assert!(seen.contains('0') && seen.contains("character special file"), "{seen}");
    canary.check("masks and terminals");
}

#[test]
fn cve_2024_9676_account_files_are_read_with_a_bound() {
    requires!(root);
    let world = World::new();
    let directory = world.path("fifo");
    std::fs::create_dir(&directory).unwrap();
    host("tar", &["-C", text(&directory), "-xf", text(&busybox_tar())]).ok();
    for file in ["passwd", "group"] {
        host("sh", &["-ec", &format!("cd {}/etc; rm {file}; mkfifo {file}", directory.display())]).ok();
    }
    host("tar", &["-C", text(&directory), "-cf", text(&world.path("fifo.tar")), "."]).ok();
    world.ok(&["import", text(&world.path("fifo.tar")), "fifo:1"]);
    let started = std::time::Instant::now();
    world.bulkhead(&["run", "--rm", "--network", "none", "-u", "daemon", "fifo:1", "true"]).fails(125, &["passwd"]);
    assert!(started.elapsed().as_secs() < 5);
}

#[test]
fn cve_2024_40635_ids_do_not_wrap_round() {
    requires!(root);
    let world = World::new();
    world.busybox();
    for user in ["4294967296", "4294967295", "18446744073709551616", "-1", "65536:0", "0:65536", "1e3", "0x0"] {
        world
            .bulkhead(&["run", "--rm", "--network", "none", "-u", user, "busybox", "id"])
            .fails(125, &[user.split(':').next().unwrap()]);
    }
}

#[test]
fn cve_2021_41091_state_is_closed_to_other_users() {
    requires!(root);
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.busybox();
    world.ok(&["run", "-d", "--network", "none", "--name", "vv", "-v", "vol:/d", "busybox", "sleep", "600"]);
    for directory in [&world.root, &world.run] {
        let mode = std::fs::metadata(directory).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o007, 0, "{} is {mode:o}", directory.display());
    }
    // Only what is ours stands between: the place itself is open.
    std::fs::set_permissions(world.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let shadow = host(
        "setpriv",
        &[
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "find",
            text(&world.root),
            "-maxdepth",
            "4",
            "-readable",
            "-type",
            "f",
        ],
    );
    assert_eq!(shadow.stdout, "", "files that another user can read");
}

#[test]
fn cve_2020_15257_no_socket_of_ours_is_reachable_from_a_shared_network() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let seen = world.ok(&["run", "--rm", "--net=host", "busybox", "cat", "/proc/net/unix"]);
    let ours: Vec<&str> = seen.lines().filter(|line| line.contains(" @") && line.contains("bulkhead")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[test]
fn cve_2020_13401_router_advertisements_are_ignored() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let seen = world.ok(&["run", "--rm", "busybox", "sh", "-c", "cat /proc/sys/net/ipv6/conf/*/accept_ra 2>/dev/null"]);
    let known = !Path::new("/proc/sys/net/ipv6").exists() || seen.lines().count() > 2;
    assert!(known && seen.lines().all(|line| line == "0"), "{seen}");
}

/// Tells whether a client of the service of a test said that it is the last.
fn world_is_done(mut connection: &std::net::TcpStream) -> bool {
    let _ = connection.set_read_timeout(Some(std::time::Duration::from_millis(100)));
    let mut word = [0; 3];
    std::io::Read::read_exact(&mut connection, &mut word).is_ok_and(|()| word == *b"end")
}

#[test]
fn cve_2020_8558_loopback_services_of_the_host_stay_its_own() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let service = world.within(|| std::net::TcpListener::bind("127.0.0.1:7777").unwrap());
    let server = std::thread::spawn(move || {
        for connection in service.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut &connection, b"secret\n");
            if world_is_done(&connection) {
                break;
            }
        }
    });
    let script = "g=$(ip route | awk '/default/ {print $3}'); ip route add 127.0.0.2/32 via $g 2>/dev/null; for a in 127.0.0.1 127.0.0.2 $g; do timeout 2 nc -w1 $a 7777 </dev/null | grep -q secret && echo WON $a; done; true";
    let seen = world.ok(&["run", "--rm", "-p", "9999:80", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", script]);
    let route = world.host("sh", &["-c", "cat /proc/sys/net/ipv4/conf/*/route_localnet"]).stdout;
    let own = world.host("sh", &["-c", "sleep 0.2 | busybox nc -w1 127.0.0.1 7777"]).stdout;
    world.within(|| {
        std::io::Write::write_all(&mut std::net::TcpStream::connect("127.0.0.1:7777").unwrap(), b"end").unwrap()
    });
    server.join().unwrap();
    assert_eq!(own, "secret\n", "the service is there");
    assert!(!seen.contains("WON"), "{seen}");
    assert!(route.lines().all(|line| line == "0"), "{route}");
}

#[test]
fn cve_2016_9962_an_added_process_cannot_be_taken_over() {
    requires!(root);
    let world = World::new();
    world.busybox();
    // The container watches for newcomers and tries to look through them while they are being made.
    let watch = "while :; do for p in /proc/[0-9]*; do for f in $p/fd/*; do case $(readlink $f) in /|*bulkhead*|*overlay*|/run/*) echo REACHED $f $(readlink $f);; esac; done; done; done 2>/dev/null";
    world.container("vv").with(&["--cap-add", "SYS_PTRACE"]).sh(watch).start();
    for _ in 0..30 {
        world.ok(&["exec", "vv", "true"]);
    }
    let said = world.ok(&["logs", "vv"]);
    assert!(!said.contains("REACHED"), "{said}");
}
