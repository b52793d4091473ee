//! The matrix of walls: each has an attack that works when only that wall is down, and fails when only that wall is up.
//!
//! Containers are launched through the sandbox's own interface, because no flag may take down some of these walls one by
//! one. The "host" here has network, ipc and uts namespaces of its own, so that no attack reaches the machine. The table
//! in `SECURITY.md` is compared with [`MATRIX`].

use crate::support::bundle::{Box, Live, alone};
use crate::support::{need_landlock, need_program, skip};
use bulkhead::sandbox::{Bundle, Device, Launch, Namespace, Pending, UserNamespace as Users};
use bulkhead::security::seccomp::{ProfileOptions, ProfileSource, load_profile};
use bulkhead::security::{Capability, CapabilitySet};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

/// What stands between a workload and the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wall {
    UserNamespace,
    PidNamespace,
    NetworkNamespace,
    IpcNamespace,
    UtsNamespace,
    CgroupNamespace,
    Capabilities,
    NoNewPrivileges,
    Seccomp,
    Landlock,
    Masks,
    ReadOnlyPaths,
    Devices,
    Pids,
    Memory,
    Rlimits,
    /// Asked for, so it is up only in the attacks on it.
    ReadOnlyRoot,
}

use Wall::*;

/// Every wall of a container with default options; limits have the values that the attacks need.
const DEFAULT: [Wall; 16] = [
    UserNamespace,
    PidNamespace,
    NetworkNamespace,
    IpcNamespace,
    UtsNamespace,
    CgroupNamespace,
    Capabilities,
    NoNewPrivileges,
    Seccomp,
    Landlock,
    Masks,
    ReadOnlyPaths,
    Devices,
    Pids,
    Memory,
    Rlimits,
];

/// Wall, attack, test: the rows of the table in `SECURITY.md`.
const MATRIX: [(&str, &str, &str); 20] = [
    ("user namespace", "read what only the host's root may (`/proc/vmallocinfo`)", "user_namespace"),
    ("pid namespace", "see a process of the host", "pid_namespace"),
    ("network namespace", "talk to a service on the host's loopback", "network_namespace"),
    ("ipc namespace", "find the host's shared memory", "ipc_namespace"),
    ("uts namespace", "learn the host's name", "uts_namespace"),
    ("cgroup namespace", "learn the place among the host's control groups", "cgroup_namespace"),
    ("capabilities", "mount a file system", "capabilities"),
    ("no_new_privs", "become root by a set-user-id program", "no_new_privileges"),
    ("seccomp", "make a user namespace, the door to most kernel holes", "seccomp"),
    ("Landlock", "read a directory of the host through a leaked descriptor", "landlock_and_a_leaked_directory"),
    ("Landlock", "control a device by a node that was not given", "landlock_and_device_control"),
    ("Landlock", "make a device node (other walls refuse it too)", "landlock_and_device_nodes"),
    ("Landlock", "write to a read-only root whose mount was made writable", "landlock_and_the_read_only_root"),
    ("masked paths", "read the host's interrupts", "masked_paths"),
    ("read-only paths", "change a kernel parameter", "read_only_paths"),
    ("devices", "open a device of the host (`/dev/kmsg`)", "devices"),
    ("pids limit", "start more processes than allowed", "pids_limit"),
    ("memory limit", "take more memory than allowed", "memory_limit"),
    ("ulimits", "open more files than allowed", "ulimits"),
    ("read-only root", "write to the root, remounting it first", "read_only_root"),
];

/// A try to get through.
struct Attack<'a> {
    /// The wall it is about.
    wall: Wall,
    /// Shell lines; they say `WON` when it worked.
    script: &'a str,
    /// Changes every launch of this attack alike.
    also: &'a dyn Fn(&mut Bundle),
    /// What becomes standard input instead of nothing.
    leak: Option<&'a str>,
    /// Help from the host's root in the running container's mount namespace: arguments of busybox.
    help: Option<&'a [&'a str]>,
    /// Whether other walls stand against it too: then it fails with all but this one up.
    held_by_others: bool,
}

impl<'a> Attack<'a> {
    fn on(wall: Wall, script: &'a str) -> Self {
        Self { wall, script, also: &|_| {}, leak: None, help: None, held_by_others: false }
    }

    /// Tries it four times: with all walls but this one, with none, with this one alone, with all.
    #[track_caller]
    fn check(&self) {
        let root = Box::new();
        furnish(&root);
        let but: Vec<Wall> = DEFAULT.into_iter().filter(|wall| *wall != self.wall).collect();
        let all: Vec<Wall> = but.iter().copied().chain([self.wall]).collect();
        let tries = [
            ("all but this", but, !self.held_by_others),
            ("none", Vec::new(), true),
            ("this alone", vec![self.wall], false),
            ("all", all, false),
        ];
        for (name, up, works) in tries {
            let (won, text) = self.try_behind(&root, &up);
            assert_eq!(won, works, "{:?}, {name}: {text}", self.wall);
        }
    }

    fn try_behind(&self, root: &Box, up: &[Wall]) -> (bool, String) {
        let wait = if self.help.is_some() { "until test -e /dev/go; do sleep 0.02; done; " } else { "" };
        let mut bundle = root.bundle(&["sh", "-c", &format!("{wait}{}", self.script)]);
        put_up(&mut bundle, up);
        (self.also)(&mut bundle);
        if up.contains(&Seccomp) {
            let options = ProfileOptions { capabilities: bundle.hardening.capabilities, kernel: (6, 18), i386: false };
            bundle.hardening.seccomp = Some(load_profile(ProfileSource::Default, &options).unwrap());
        }
        let stdin: OwnedFd = std::fs::File::open(self.leak.unwrap_or("/dev/null")).unwrap().into();
        let (output, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let streams = [stdin.as_fd(), write.as_fd(), write.as_fd()];
        let running = match Launch::begin(&bundle, Launch::look(), Some(streams), None, None).and_then(Pending::finish)
        {
            Ok(running) => running,
            Err(error) => return (false, format!("not started: {error}")),
        };
        drop(write);
        if let Some(arguments) = self.help {
            inside(running.init.pid, arguments);
            inside(running.init.pid, &["touch", "/dev/go"]);
        }
        let (code, text) = Live { running, output: output.into() }.end();
        let line = text.lines().any(|line| line == "WON");
        (line, format!("exit {code}: {text}"))
    }
}

/// Runs busybox as the host's root in a container's mount and pid namespaces.
fn inside(pid: i32, arguments: &[&str]) {
    let mut command = Command::new("nsenter");
    let status = command.args(["-t", &pid.to_string(), "-m", "-p", "/bin/busybox"]).args(arguments).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

/// What the attacks find in the image.
fn furnish(root: &Box) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir(root.lower("s")).unwrap();
    std::fs::copy("/bin/busybox", root.lower("s/su")).unwrap();
    std::fs::set_permissions(root.lower("s/su"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::write(root.lower("etc/passwd"), "root::0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n").unwrap();
}

/// Takes down every wall that is not named.
fn put_up(bundle: &mut Bundle, up: &[Wall]) {
    let down = |wall: Wall| !up.contains(&wall);
    let namespaces = &mut bundle.namespaces;
    for (wall, namespace) in [
        (PidNamespace, &mut namespaces.pid),
        (NetworkNamespace, &mut namespaces.net),
        (IpcNamespace, &mut namespaces.ipc),
        (UtsNamespace, &mut namespaces.uts),
        (CgroupNamespace, &mut namespaces.cgroup),
    ] {
        if down(wall) {
            *namespace = Namespace::Host;
        }
    }
    if down(UserNamespace) {
        bundle.userns = Users::Host { because: "a test".to_owned() };
    }
    let hardening = &mut bundle.hardening;
    hardening.capabilities = if down(Capabilities) { CapabilitySet::ALL } else { CapabilitySet::DEFAULT };
    hardening.no_new_privileges = !down(NoNewPrivileges);
    hardening.landlock = !down(Landlock);
    hardening.masked_paths = if down(Masks) { Vec::new() } else { vec!["/proc/interrupts".to_owned()] };
    hardening.readonly_paths = if down(ReadOnlyPaths) { Vec::new() } else { vec!["/proc/sys".to_owned()] };
    if down(Devices) {
        bundle.devices.push(kernel_log());
    }
    bundle.cgroup.limits.pids = (!down(Pids)).then_some(20);
    bundle.cgroup.limits.memory = (!down(Memory)).then_some(40 << 20);
    bundle.cgroup.limits.memory_swap = bundle.cgroup.limits.memory;
    if !down(Rlimits) {
        bundle.process.rlimits = vec![("nofile".to_owned(), 40, 40)];
    }
    bundle.root_readonly = !down(ReadOnlyRoot);
}

fn kernel_log() -> Device {
    Device {
        target: "/dev/kmsg".to_owned(),
        block: false,
        number: (1, 11),
        mode: 0o600,
        owner: (0, 0),
        access: "rwm".to_owned(),
    }
}

/// `SYS_ADMIN` away: with it the program lays no Landlock rules on files and its filter lets namespaces pass.
fn without_sys_admin(bundle: &mut Bundle) {
    bundle.hardening.capabilities = bundle.hardening.capabilities.without(Capability::SYS_ADMIN);
}

/// Runs a test body in a process with one thread whose network, ipc and uts namespaces play the host's.
fn on_a_host_of_its_own(test: &str, body: impl FnOnce()) {
    for program in ["ip", "ipcmk", "nsenter"] {
        if let Err(why) = need_program(program) {
            skip(test, &why);
            return;
        }
    }
    alone(&format!("walls::{test}"), || {
        use nix::sched::CloneFlags;
        let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        nix::sched::unshare(own).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        body();
    });
}

#[test]
fn user_namespace() {
    on_a_host_of_its_own("user_namespace", || {
        Attack::on(UserNamespace, "cat /proc/vmallocinfo >/dev/null && echo WON").check();
    });
}

#[test]
fn pid_namespace() {
    on_a_host_of_its_own("pid_namespace", || {
        use std::os::unix::process::CommandExt;
        let mut victim = Command::new("sleep").arg0("bulkhead-victim").arg("600").spawn().unwrap();
        // In two parts, so that the script's own command line is not what is found.
        let script = "grep -q bulkhead''-victim /proc/[0-9]*/cmdline 2>/dev/null && echo WON";
        let result = std::panic::catch_unwind(|| Attack::on(PidNamespace, script).check());
        victim.kill().unwrap();
        victim.wait().unwrap();
        result.unwrap();
    });
}

#[test]
fn network_namespace() {
    on_a_host_of_its_own("network_namespace", || {
        let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = service.local_addr().unwrap().port();
        let server = bulkhead::sys::fork::fork(|| {
            for connection in service.incoming().flatten() {
                let _ = (&connection).write_all(b"secret\n");
            }
            0
        })
        .unwrap();
        let script = format!("nc -w 2 127.0.0.1 {port} </dev/null 2>/dev/null | grep -q secret && echo WON");
        let result = std::panic::catch_unwind(|| Attack::on(NetworkNamespace, &script).check());
        server.kill();
        result.unwrap();
    });
}

#[test]
fn ipc_namespace() {
    on_a_host_of_its_own("ipc_namespace", || {
        assert!(Command::new("ipcmk").args(["-M", "4096", "-p", "0666"]).status().unwrap().success());
        Attack::on(IpcNamespace, "test $(wc -l < /proc/sysvipc/shm) -gt 1 && echo WON").check();
    });
}

#[test]
fn uts_namespace() {
    on_a_host_of_its_own("uts_namespace", || {
        nix::unistd::sethostname("the-hosts-own-name").unwrap();
        Attack::on(UtsNamespace, "test $(hostname) = the-hosts-own-name && echo WON").check();
    });
}

#[test]
fn cgroup_namespace() {
    on_a_host_of_its_own("cgroup_namespace", || {
        Attack::on(CgroupNamespace, "grep -q /bulkhead- /proc/self/cgroup && echo WON").check();
    });
}

#[test]
fn capabilities() {
    on_a_host_of_its_own("capabilities", || {
        Attack::on(Capabilities, "mount -t tmpfs none /tmp && echo WON").check();
    });
}

#[test]
fn no_new_privileges() {
    on_a_host_of_its_own("no_new_privileges", || {
        let user = |bundle: &mut Bundle| bundle.process.user = "app".to_owned();
        let script = "/s/su root -c id 2>/dev/null | grep -q uid=0 && echo WON";
        Attack { also: &user, ..Attack::on(NoNewPrivileges, script) }.check();
    });
}

#[test]
fn seccomp() {
    on_a_host_of_its_own("seccomp", || {
        let script = "busybox unshare -U true && echo WON";
        Attack { also: &without_sys_admin, ..Attack::on(Seccomp, script) }.check();
    });
}

#[test]
fn landlock_and_a_leaked_directory() {
    if let Err(why) = need_landlock(2) {
        skip("landlock_and_a_leaked_directory", &why);
        return;
    }
    on_a_host_of_its_own("landlock_and_a_leaked_directory", || {
        let script = "cat /proc/self/fd/0/hostname >/dev/null 2>&1 && echo WON";
        Attack { also: &without_sys_admin, leak: Some("/etc"), ..Attack::on(Landlock, script) }.check();
    });
}

#[test]
fn landlock_and_device_control() {
    if let Err(why) = need_landlock(5) {
        skip("landlock_and_device_control", &why);
        return;
    }
    on_a_host_of_its_own("landlock_and_device_control", || {
        // A second node of the terminal multiplexer, which every container may open; its driver answers this ioctl.
        let help = ["mknod", "-m", "666", "/dev/other", "c", "5", "2"];
        let script = "busybox stty -F /dev/other | grep -q speed && echo WON";
        Attack { also: &without_sys_admin, help: Some(&help), ..Attack::on(Landlock, script) }.check();
    });
}

#[test]
fn landlock_and_device_nodes() {
    if let Err(why) = need_landlock(2) {
        skip("landlock_and_device_nodes", &why);
        return;
    }
    on_a_host_of_its_own("landlock_and_device_nodes", || {
        let script = "mknod /dev/other c 1 3 && echo WON";
        Attack { also: &without_sys_admin, held_by_others: true, ..Attack::on(Landlock, script) }.check();
    });
}

#[test]
fn landlock_and_the_read_only_root() {
    if let Err(why) = need_landlock(2) {
        skip("landlock_and_the_read_only_root", &why);
        return;
    }
    on_a_host_of_its_own("landlock_and_the_read_only_root", || {
        let read_only = |bundle: &mut Bundle| {
            without_sys_admin(bundle);
            bundle.root_readonly = true;
        };
        let help = ["mount", "-o", "remount,bind,rw", "/"];
        let attack = Attack {
            also: &read_only,
            help: Some(&help),
            ..Attack::on(Landlock, "(echo x > /new) 2>/dev/null && echo WON")
        };
        attack.check();
        // And the mount alone, which nobody made writable.
        let root = Box::new();
        furnish(&root);
        let (won, text) = Attack { help: None, ..attack }.try_behind(&root, &[]);
        assert!(!won, "{text}");
    });
}

#[test]
fn masked_paths() {
    on_a_host_of_its_own("masked_paths", || {
        Attack::on(Masks, "grep -q CPU0 /proc/interrupts && echo WON").check();
    });
}

#[test]
fn read_only_paths() {
    on_a_host_of_its_own("read_only_paths", || {
        // One that belongs to the ipc namespace, so that the container's root may write it.
        let place = "/proc/sys/kernel/shm_rmid_forced";
        let script = format!("(echo 1 >{place}) 2>/dev/null; grep -qx 1 {place} && echo 0 >{place} && echo WON");
        Attack::on(ReadOnlyPaths, &script).check();
    });
}

#[test]
fn devices() {
    on_a_host_of_its_own("devices", || {
        // The kernel's log, opened for writing; nothing is written.
        let node = "/dev/kmsg";
        let script = format!("(test -c {node} || mknod {node} c 1 11) && (exec 3>{node}) 2>/dev/null && echo WON");
        Attack::on(Devices, &script).check();
    });
}

#[test]
fn pids_limit() {
    on_a_host_of_its_own("pids_limit", || {
        let script = "for i in $(seq 30); do sleep 1 >/dev/null 2>&1 & done; echo WON";
        Attack::on(Pids, script).check();
    });
}

#[test]
fn memory_limit() {
    on_a_host_of_its_own("memory_limit", || {
        Attack::on(Memory, "dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null && echo WON").check();
    });
}

#[test]
fn ulimits() {
    on_a_host_of_its_own("ulimits", || {
        let script = "i=10; while test $i -lt 60; do eval \"exec $i</dev/null\" || exit; i=$((i+1)); done; echo WON";
        Attack::on(Rlimits, script).check();
    });
}

#[test]
fn read_only_root() {
    on_a_host_of_its_own("read_only_root", || {
        let script = "mount -o remount,rw / 2>/dev/null; mount -o remount,bind,rw / 2>/dev/null; (echo x > /new) 2>/dev/null && echo WON";
        Attack::on(ReadOnlyRoot, script).check();
    });
}

#[test]
fn the_table_of_the_walls_is_the_matrix() {
    let text = include_str!("../../SECURITY.md");
    for (wall, attack, test) in MATRIX {
        assert!(include_str!("walls.rs").contains(&format!("\nfn {test}() {{")), "no test {test}");
        let row = format!("| {wall} | {attack} | `walls::{test}` |");
        assert!(text.contains(&row), "SECURITY.md lacks: {row}");
    }
    assert_eq!(text.matches("| `walls::").count(), MATRIX.len(), "SECURITY.md has rows that no test stands behind");
}
