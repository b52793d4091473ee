//! Known vulnerability classes that an image, a Dockerfile or a shared volume carries, and the list of all of them.

use crate::cve::{Canary, hostile_tar, text};
use crate::support::{Outcome, World, busybox_tar, host, need_full, requires};
use std::path::Path;

const NO_NETWORK: [&str; 4] = ["run", "--rm", "--network", "none"];

/// A busybox image whose root was changed by a shell line (`$1`: the canary's directory).
fn image(world: &World, name: &str, changes: &[&str], line: &str) -> (String, Outcome) {
    let (directory, tar) = (world.path(name), world.path(&format!("{name}.tar")));
    std::fs::create_dir(&directory).unwrap();
    host("tar", &["-C", text(&directory), "-xf", text(&busybox_tar())]).ok();
    let script = format!("cd {} && {line}", directory.display());
    host("sh", &["-ec", &script, "sh", text(&world.path("canary"))]).ok();
    host("tar", &["-C", text(&directory), "-cf", text(&tar), "."]).ok();
    let reference = format!("{name}:1");
    let mut arguments = vec!["import"];
    changes.iter().for_each(|change| arguments.extend(["--change", change]));
    let seen = world.bulkhead(&[&arguments[..], &[text(&tar), &reference]].concat());
    (reference, seen)
}

fn build(world: &World, name: &str, dockerfile: &str) -> Outcome {
    world.write(&format!("{name}/Dockerfile"), dockerfile);
    world.bulkhead(&["build", "-t", &format!("{name}:1"), text(&world.path(name))])
}

#[test]
fn cve_2015_3629_links_of_an_image_do_not_take_the_engines_own_files() {
    requires!(root);
    let world = World::new();
    let canary = Canary::open(&world);
    for (name, line) in [
        (
            "file",
            "ln -s $1/file etc/hosts; ln -s $1/new etc/resolv.conf; ln -s ../../../../../../../..$1/file etc/hostname",
        ),
        ("directory", "rm -r etc; ln -s $1 etc"),
        ("dev", "rm -r dev; ln -s $1 dev"),
        ("tmp", "rm -r tmp root; ln -s $1 tmp; ln -s $1 root"),
    ] {
        let (reference, imported) = image(&world, name, &[], line);
        imported.ok();
        let flags = ["--tmpfs", "/tmp/made", "-w", "/root/made"];
        let seen = world.bulkhead(&[&["run", "--rm"], &flags[..], &[&reference, "true"]].concat());
        assert!(seen.code == 0 || seen.code == 125, "{name}: {seen:?}");
        canary.check(name);
    }
}

#[test]
fn cve_2015_3630_switches_of_the_kernel_are_closed() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let switches = "/proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/panic /proc/sysrq-trigger \
                    /sys/kernel/uevent_helper /proc/sys/vm/drop_caches /proc/sys/fs/suid_dumpable /proc/irq/default_smp_affinity";
    let script = format!("for f in {switches}; do test -e $f && (exec 3>>$f) 2>/dev/null && echo $f; done; true");
    let open = world.bulkhead(&[&NO_NETWORK[..], &["--privileged", "busybox", "sh", "-c", &script]].concat());
    assert!(open.stdout.lines().count() > 4, "what privileged containers may do: {open:?}");
    for flags in [&[][..], &["--cap-add", "ALL"], &["--userns", "host"]] {
        let seen = world.bulkhead(&[&NO_NETWORK[..], flags, &["busybox", "sh", "-c", &script]].concat()).code(0);
        assert_eq!(seen.stdout, "", "{flags:?}");
    }
}

#[test]
fn cve_2019_19921_volumes_of_an_image_do_not_cover_proc() {
    requires!(root);
    let world = World::new();
    for (name, place) in
        [("proc", "/proc"), ("below", "/proc/self/attr"), ("dots", "/tmp/../proc"), ("sys", "/sys/kernel")]
    {
        let change = format!("VOLUME {place}");
        let (reference, imported) = image(&world, name, &[&change], "true");
        if imported.code == 0 {
            world.bulkhead(&[&NO_NETWORK[..], &[&reference, "true"]].concat()).fails(125, &["/"]);
        }
    }
    let (reference, imported) = image(&world, "plain", &["VOLUME /data"], "true");
    imported.ok();
    world.ok(&[&NO_NETWORK[..], &[&reference, "test", "-d", "/data"]].concat());
}

#[test]
fn cve_2023_28642_a_linked_proc_or_sys_is_refused() {
    requires!(root);
    let world = World::new();
    Canary::new(&world);
    for place in ["proc", "sys"] {
        for (number, target) in ["/tmp", "$1", "../../..$1", "/"].iter().enumerate() {
            let (reference, imported) =
                image(&world, &format!("{place}{number}"), &[], &format!("rmdir {place}; ln -s {target} {place}"));
            imported.ok();
            let said = world.bulkhead(&[&NO_NETWORK[..], &[&reference, "true"]].concat()).fails(125, &[place]);
            assert!(said.contains("not a link"), "{said}");
        }
    }
}

#[test]
fn cve_2021_32760_unpacking_changes_no_permissions_of_the_host() {
    requires!(root, program "python3");
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let world = World::new();
    let canary = Canary::new(&world);
    std::fs::set_permissions(&canary.0, std::fs::Permissions::from_mode(0o640)).unwrap();
    let look = || {
        let found = std::fs::metadata(&canary.0).unwrap();
        let above = std::fs::metadata(world.path("canary")).unwrap();
        let attributes = |place: &Path| {
            let mut names = vec![0; 4096];
            let length = rustix::fs::listxattr(place, &mut names[..]).unwrap();
            String::from_utf8_lossy(&names[..length]).into_owned()
        };
        let named = (attributes(&canary.0), attributes(&world.path("canary")));
        (found.mode(), found.uid(), found.mtime(), above.mode(), above.uid(), named)
    };
    let before = look();
    for (name, body) in [
        ("link-then-mode", "add('l', L, canary + '/file')\nadd('l', H, 'l', mode=0o4777)"),
        ("hard-link-mode", "add('h', H, canary + '/file', mode=0o4777)"),
        ("directory-over-link", "add('d', L, canary)\nadd('d', D, mode=0o777)"),
        ("through-a-link", "add('d', L, canary)\nadd('d/file', H, 'd/file', mode=0o777)"),
        (
            "attributes",
            "add('l', L, canary + '/file')\nadd('l', L, canary + '/file', pax={'SCHILY.xattr.user.x': 'y', 'mtime': '1'})",
        ),
        // What the engine itself sets, with all its rights, once the unpacker has ended.
        (
            "capability-behind-a-link",
            "cap = '\\1\\0\\0\\2\\0 ' + 14 * '\\0'\nadd('d', D, mode=0o755)\nadd('d/file', data=b'x', pax={'SCHILY.xattr.security.capability': cap})\nadd('d', L, canary)",
        ),
        (
            "opaque-behind-a-link",
            "add('d/canary', D, mode=0o755)\nadd('d/canary/.wh..wh..opq')\nadd('d', L, canary[:-len('/canary')])",
        ),
    ] {
        let tar = hostile_tar(&world, name, body);
        let seen = world.bulkhead(&["import", text(&tar), "x:1"]);
        assert!(seen.code == 0 || !name.contains("behind"), "{name}: {seen:?}");
        assert_eq!(look(), before, "{name}");
        canary.check(name);
    }
}

#[test]
fn cve_2022_0185_doors_to_holes_of_the_kernel_are_closed() {
    requires!(root, image "python");
    let world = World::new();
    let image = world.base_image("python");
    // unshare(NEWUSER), unshare(NEWUSER | NEWCGROUP), fsopen, a netfilter socket, keyctl, io_uring, userfaultfd, bpf.
    let program = "import ctypes, os\nc = ctypes.CDLL(None, use_errno=True)\n\
        calls = [(272, 0x10000000), (272, 0x12000000), (430, 0, 0), (41, 16, 3, 12), (250, 0, 0), (425, 1, 0), (323, 1), (321, 99, 0, 0)]\n\
        for call in calls:\n    if os.fork() == 0:\n        ctypes.set_errno(0); r = c.syscall(*call); print(call[0], r >= 0 or ctypes.get_errno() not in (1, 38, 93), flush=True); os._exit(0)\n    os.wait()";
    let run = |flags: &[&str]| {
        let seen = world.bulkhead(&[&NO_NETWORK[..], flags, &[&image, "python3", "-c", program]].concat()).code(0);
        seen.stdout.lines().filter(|line| line.ends_with("True")).count()
    };
    assert!(run(&["--security-opt", "seccomp=unconfined"]) >= 3, "the filter is what closes them");
    assert_eq!(run(&[]), 0);
    assert_eq!(run(&["--userns", "host"]), 0);
}

#[test]
fn cve_2023_25809_control_groups_cannot_be_written() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let script = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo made $d; done; \
                  find /sys/fs/cgroup -type f 2>/dev/null | while read f; do (echo 1 >> $f) 2>/dev/null && echo wrote $f; done; true";
    for flags in [&[][..], &["--cgroupns", "host"], &["--userns", "host"], &["--userns", "host", "--cgroupns", "host"]]
    {
        let seen = world.bulkhead(&[&NO_NETWORK[..], flags, &["busybox", "sh", "-c", script]].concat()).code(0);
        assert_eq!(seen.stdout, "", "{flags:?}");
    }
}

#[test]
fn cve_2021_21284_the_containers_root_outside_reaches_no_state() {
    requires!(root, program "setpriv");
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.busybox();
    world.container("vv").with(&["-v", "vol:/d"]).sh("echo x > /d/x; sleep 600").start();
    std::fs::set_permissions(world.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let pid = world.inspect("vv", "{{.State.Pid}}");
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    let base = map.split_whitespace().nth(1).unwrap().to_owned();
    let ids = [format!("--reuid={base}"), format!("--regid={base}"), "--clear-groups".to_owned()];
    let find = |place: &Path| {
        let arguments =
            [ids[0].as_str(), &ids[1], &ids[2], "find", text(place), "-mindepth", "1", "-readable", "-o", "-writable"];
        host("setpriv", &arguments).stdout
    };
    assert_eq!((find(&world.root), find(&world.run)), (String::new(), String::new()));
    let open = world.write("open/file", "x");
    assert_ne!(find(open.parent().unwrap()), "", "a directory that is open is read");
}

#[test]
fn cve_2024_45310_a_raced_volume_makes_nothing_on_the_host() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let canary = Canary::open(&world);
    let directory = canary.0.parent().unwrap().display();
    // One container turns a directory of the shared volume into links and back, others mount below it.
    let swap = format!(
        "cd /v; while :; do mkdir -p sub; rm -rf sub; ln -s {directory} sub; rm -f sub; ln -s /proc sub; rm -f sub; \
         ln -s /../../../../../..{directory} sub; rm -f sub; done"
    );
    world.ok(&["run", "-d", "--network", "none", "--name", "swap", "-v", "vol:/v", "busybox", "sh", "-c", &swap]);
    let rounds = if need_full().is_ok() { 1000 } else { 25 };
    let mut started = 0;
    for round in 0..rounds {
        let own = world.write("own", "x");
        let file = format!("{}:/v/sub/file", own.display());
        let flags =
            ["-v", "vol:/v", "-v", "other:/v/sub/deep", "-v", &file, "--tmpfs", "/v/sub/tmp", "-w", "/v/sub/work"];
        let seen = world.bulkhead(&[&NO_NETWORK[..], &flags, &["busybox", "true"]].concat());
        assert!(seen.code == 0 || seen.code == 125, "round {round}: {seen:?}");
        started += u32::from(seen.code == 0);
        canary.check("a raced volume");
    }
    world.ok(&["rm", "-f", "swap"]);
    let plain = ["-v", "vol:/v", "-v", "other:/v/sub/deep", "busybox", "rm", "-rf", "/v/sub/work"];
    assert!(
        started > 0 || world.bulkhead(&[&NO_NETWORK[..], &plain].concat()).code <= 1,
        "mounts there work without a race"
    );
}

#[test]
fn cve_2024_23652_a_build_step_does_not_remove_files_of_the_host() {
    requires!(root);
    let world = World::new();
    let canary = Canary::new(&world);
    let beside = world.path("canary");
    // Without /etc: one that mounts made can be moved, one of a layer below could only be copied.
    let (reference, imported) = image(&world, "bare", &[], "rm -r etc; rmdir sys proc dev");
    imported.ok();
    for name in ["hosts", "resolv.conf"] {
        // Empty, as the places of mounts are.
        std::fs::write(beside.join(name), "").unwrap();
    }
    // What the step's mounts needed is taken out of the tree afterwards, along a path that the step has turned round.
    let file = format!(
        "FROM {reference}\nRUN mv /etc /elsewhere && ln -s {} /etc && rm -rf /tmp && ln -s {} /tmp\n",
        beside.display(),
        beside.display()
    );
    let seen = build(&world, "turned", &file);
    seen.ok();
    for name in ["hosts", "resolv.conf"] {
        std::fs::remove_file(beside.join(name)).unwrap_or_else(|error| panic!("{name} was removed: {error}"));
    }
    canary.check("a build step");
}

#[test]
fn cve_2024_23651_sources_of_a_build_stay_in_their_tree() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let canary = Canary::new(&world);
    let directory = world.path("canary").display().to_string();
    let stage = format!(
        "FROM busybox AS s\nRUN ln -s {directory} /out && ln -s ../../../../../../..{directory} /up\nFROM busybox\n"
    );
    let context = world.path("linked");
    std::fs::create_dir(&context).unwrap();
    std::os::unix::fs::symlink(&directory, context.join("out")).unwrap();
    for (name, file) in [
        ("context", "FROM busybox\nCOPY out/file /got\n".to_owned()),
        ("context-add", "FROM busybox\nADD out/file /got\n".to_owned()),
        ("stage", format!("{stage}COPY --from=s /out/file /got\n")),
        ("stage-up", format!("{stage}COPY --from=s /up/file /got\n")),
        ("target", format!("FROM busybox\nRUN ln -s {directory} /to\nCOPY Dockerfile /to/file\n")),
        ("workdir", format!("FROM busybox\nRUN ln -s {directory} /to\nWORKDIR /to/made\nRUN touch here\n")),
    ] {
        std::fs::write(context.join("Dockerfile"), file).unwrap();
        let seen = world.bulkhead(&["build", "-t", "got:1", text(&context)]);
        canary.check(name);
        if seen.code == 0 {
            let got = world.bulkhead(&[&NO_NETWORK[..], &["got:1", "cat", "/got"]].concat());
            assert!(!got.stdout.contains("alive"), "{name} read the host: {got:?}");
        }
    }
}

#[test]
fn cve_2024_24557_the_cache_knows_the_whole_parent() {
    requires!(root);
    let world = World::new();
    let tar = busybox_tar();
    let mut seen = Vec::new();
    for change in ["ENV WHO=first", "ENV WHO=second", "USER daemon"] {
        world.ok(&["import", "--change", change, text(&tar), "parent:1"]);
        build(&world, "child", "FROM parent:1\nRUN echo $WHO $(id -u) > /tmp/who\n").ok();
        seen.push(world.ok(&[&NO_NETWORK[..], &["child:1", "cat", "/tmp/who"]].concat()));
    }
    assert_eq!(seen, ["first 0", "second 0", "1"]);
}

#[test]
fn cve_environment_values_stay_values() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let script = "tr '\\0' '#' < /proc/1/environ; true";
    let seen =
        world.ok(&[&NO_NETWORK[..], &["-e", "A=1\nINJECTED=2", "-e", "B=$(id)${HOME}", "busybox", "sh", "-c", script]]
            .concat());
    assert!(seen.contains("#A=1\nINJECTED=2#") || seen.contains("A=1\nINJECTED=2#"), "{seen}");
    assert!(seen.contains("B=$(id)${HOME}#") && !seen.contains("#INJECTED"), "{seen}");
}

/// Every test named after a vulnerability stands in the list of `SECURITY.md`, and the list names only tests that exist.
#[test]
fn the_list_of_vulnerabilities_is_true() {
    let sources = [
        include_str!("cve.rs"),
        include_str!("cve_images.rs"),
        include_str!("pull.rs"),
        include_str!("pull_trust.rs"),
        include_str!("../../src/network/tests/traffic.rs"),
        include_str!("../../src/network/netlink/message.rs"),
    ];
    let tests: Vec<&str> = sources
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.trim().strip_prefix("fn ")?.split('(').next().filter(|name| name.starts_with("cve_")))
        .collect();
    let text = include_str!("../../SECURITY.md");
    let named: Vec<&str> = text.split('`').filter(|word| word.starts_with("cve_") && !word.contains("...")).collect();
    for test in &tests {
        assert!(named.contains(test), "SECURITY.md does not list {test}");
    }
    for name in named {
        assert!(tests.contains(&name), "SECURITY.md lists {name}, and there is no such test");
    }
}
