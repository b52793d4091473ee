//! Real launches of a small root file system through the sandbox's own interface.

use crate::support::bundle::*;
use bulkhead::base::ContainerId;
use bulkhead::sandbox::*;
use bulkhead::security::CapabilitySet;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

#[test]
fn a_container_starts_and_ends() {
    alone("a_container_starts_and_ends", || {
        let root = Box::new();
        assert_eq!(root.sh("echo hello; exit 7"), (7, "hello\n".to_owned()));
    });
}

#[test]
fn ids_and_namespaces_are_the_containers_own() {
    alone("ids_and_namespaces_are_the_containers_own", || {
        let root = Box::new();
        let own =
            |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_string_lossy().into_owned();
        let (code, text) = root
            .sh("id; hostname; for n in user mnt net pid ipc uts cgroup time; do readlink /proc/self/ns/$n; done; \
             cat /proc/self/uid_map; umask; pwd; echo $HOME; ls /proc | grep -c '^[0-9]'");
        assert_eq!(code, 0, "{text}");
        for name in ["user", "mnt", "net", "pid", "ipc", "uts", "cgroup", "time"] {
            assert!(text.contains(&format!("{name}:[")) && !text.contains(&own(name)), "{name}: {text}");
        }
        assert!(text.contains("uid=0(root) gid=0(root)"), "{text}");
        assert!(text.contains(&format!("0 {} ", root.base)) && text.contains("65536"), "{text}");
        assert!(text.contains("0022\n/\n/root\n"), "{text}");
    });
}

#[test]
fn user_in_every_form() {
    alone("user_in_every_form", || {
        let root = Box::new();
        let cases = [
            ("app", "uid=1000(app) gid=1001(app) groups=4(adm),1001(app) /home/app"),
            ("1000:4", "uid=1000(app) gid=4(adm) groups=4(adm) /home/app"),
            ("4321", "uid=4321 gid=0(root) groups=0(root) /"),
            ("app:4321", "uid=1000(app) gid=4321 groups=4321 /home/app"),
        ];
        for (user, expected) in cases {
            let mut bundle = root.bundle(&["sh", "-c", "echo $(id) $HOME"]);
            bundle.process.user = user.to_owned();
            let (code, text) = run(&bundle);
            assert_eq!((code, text.trim()), (0, expected), "{user}");
        }
        for (user, expected) in [("65536", "outside"), ("nobody", "unable to find user nobody")] {
            let mut bundle = root.bundle(&["true"]);
            bundle.process.user = user.to_owned();
            let (code, text) = run(&bundle);
            assert!(code == -1 && text.contains(expected), "{user}: {text}");
        }
    });
}

#[test]
fn hostile_account_files_neither_hang_nor_read_the_host() {
    alone("hostile_account_files_neither_hang_nor_read_the_host", || {
        let root = Box::new();
        let passwd = root.lower("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/proc/self/root/etc/shadow", &passwd).unwrap();
        // A link through the kernel's own links is not followed, not even inside the container.
        let refused = "read /etc/passwd of the image: symbolic link loop";
        for user in ["", "0", "app"] {
            let mut bundle = root.bundle(&["true"]);
            bundle.process.user = user.to_owned();
            assert_eq!(run(&bundle), (-1, refused.to_owned()), "{user:?}");
        }
        std::fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &passwd,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        let mut bundle = root.bundle(&["true"]);
        bundle.process.user = "app".to_owned();
        let (code, text) = run(&bundle);
        assert!(code == -1 && text.contains("not a regular file"), "{text}");
    });
}

#[test]
fn start_failures_speak_as_docker_does() {
    alone("start_failures_speak_as_docker_does", || {
        let root = Box::new();
        let cases = [
            ("nosuch", LaunchErrorKind::NotFound, "exec: \"nosuch\": executable file not found in $PATH"),
            ("/nosuch", LaunchErrorKind::NotFound, "exec: \"/nosuch\": no such file or directory"),
            ("/plain", LaunchErrorKind::NotExecutable, "exec: \"/plain\": permission denied"),
            ("/dir", LaunchErrorKind::NotExecutable, "exec: \"/dir\": is a directory"),
            ("/bin/script", LaunchErrorKind::NotFound, "exec: \"/bin/script\": no such file or directory"),
            ("/proc/self/exe", LaunchErrorKind::NotExecutable, "exec: \"/proc/self/exe\": permission denied"),
        ];
        for (program, kind, message) in cases {
            let error = launch(&root.bundle(&[program])).map(drop).unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (kind, message), "{program}");
        }
        // CVE-2019-5736: our own program as interpreter; Landlock knows no place of it.
        let error = launch(&root.bundle(&["/bin/self"])).map(drop).unwrap_err();
        assert_eq!(error.kind, LaunchErrorKind::NotExecutable, "{error}");
    });
}

#[test]
fn an_added_process_is_inside_the_same_walls() {
    alone("an_added_process_is_inside_the_same_walls", || {
        let root = Box::new();
        let mut live =
            launch(&root.bundle(&["sh", "-c", "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done"])).unwrap();
        let (_, text) = live.exec(&["sh", "-c", "for n in user mnt net pid ipc uts cgroup time; do test $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) || echo $n differs; done; \
            cat /proc/self/cgroup; readlink /proc/1/exe; echo to-init > /proc/1/fd/1; kill -HUP 1; ps; grep -c . /proc/1/environ"]);
        assert!(
            !text.lines().any(|line| line.ends_with(" differs"))
                && text.contains("/bin/busybox")
                && !text.contains("keeper"),
            "{text}"
        );
        assert!(!text.contains("/bulkhead/"), "the view starts at the container's own group: {text}");
        let (code, text) = live.exec(&["nosuch"]);
        assert!(code == -1 && text.contains("not found in $PATH"), "{text}");
        let mut as_user = process(&["sh", "-c", "id -u; grep CapEff /proc/self/status; grep NoNew /proc/self/status"]);
        as_user.user = "app".into();
        let (_, text) = live.exec_as(&as_user, false);
        assert!(text.contains("1000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1"), "{text}");
        let (_, text) = live.exec_as(&process(&["grep", "CapBnd", "/proc/self/status"]), true);
        assert!(text.contains("1ff") || text.contains("3ff"), "{text}");
        // Nothing inside names the keeper, and everything inside is gone after this while it still serves.
        // (`kill -9 -1` spares its caller and the first process.)
        let mut bystander = process(&["sleep", "600"]);
        bystander.env.push("MARK=1".into());
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let streams = [null.as_fd(), null.as_fd(), null.as_fd()];
        let added = live.running.exec(&bystander, Some(streams), false).unwrap();
        assert_eq!(live.exec(&["sh", "-c", "kill -9 -1; echo alive"]), (0, "alive\n".to_owned()));
        assert_eq!(bulkhead::sys::process::wait_exit(added.child.pid), Ok(137), "everything else inside is killed");
        assert_eq!(live.exec(&["echo", "served"]), (0, "served\n".to_owned()), "the keeper is not inside");
        live.running.freeze().unwrap();
        assert!(live.exec(&["true"]).1.contains("paused"));
        live.running.thaw().unwrap();
        assert_eq!(live.exec(&["true"]).0, 0);
        let output = live.kill();
        assert!(output.contains("to-init") && output.contains("hup"), "{output}");
    });
}

#[test]
fn landlock_alone_refuses_a_leaked_directory_of_the_host() {
    alone("landlock_alone_refuses_a_leaked_directory_of_the_host", || {
        let root = Box::new();
        let directory: OwnedFd = std::fs::File::open("/etc").unwrap().into();
        let try_it = |change: &dyn Fn(&mut Bundle)| {
            let mut bundle = root.bundle(&["sh", "-c", "cat /proc/self/fd/0/passwd >/dev/null 2>&1 && echo WON"]);
            change(&mut bundle);
            let (output, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
            let streams = [directory.as_fd(), write.as_fd(), write.as_fd()];
            let running = Launch::begin(&bundle, Launch::look(), Some(streams), None, None).unwrap().finish().unwrap();
            drop(write);
            Live { running, output: output.into() }.end().1.contains("WON")
        };
        let others_off = |bundle: &mut Bundle| {
            bundle.hardening.masked_paths.clear();
            bundle.hardening.readonly_paths.clear();
            bundle.hardening.no_new_privileges = false;
            // With SYS_ADMIN there are no file rules, which `Enforced` says.
            bundle.hardening.capabilities = CapabilitySet(0x1ff_ffff_ffff & !(1 << 21));
        };
        assert!(try_it(&|bundle| bundle.hardening.landlock = false), "every other wall up: it is reached");
        assert!(!try_it(&others_off), "Landlock alone refuses it");
        assert!(!try_it(&|_| {}));
    });
}

#[test]
fn a_terminal_controls_its_process() {
    alone("a_terminal_controls_its_process", || {
        let root = Box::new();
        let mut bundle = root.bundle(&[
            "sh",
            "-c",
            "tty; test -c /dev/console && echo console; stat -c %u /dev/pts/0; read x; echo got $x",
        ]);
        bundle.process.tty = true;
        bundle.process.tty_size = Some((24, 80));
        let mut running = Launch::begin(&bundle, Launch::look(), None, None, None).unwrap().finish().unwrap();
        let mut terminal = std::fs::File::from(running.terminal.take().unwrap());
        let (mut text, mut byte) = (String::new(), [0]);
        // What is typed is echoed at once, so it waits until the program has said its part.
        while !text.ends_with("console\r\n0\r\n") && terminal.read_exact(&mut byte).is_ok() {
            text.push(byte[0].into());
        }
        terminal.write_all(b"word\n").unwrap();
        let mut rest = Vec::new();
        let _ = terminal.read_to_end(&mut rest);
        text.push_str(&String::from_utf8_lossy(&rest));
        assert!(text.starts_with("/dev/pts/0\r\nconsole\r\n0\r\n") && text.contains("got word"), "{text}");
        assert_eq!(bulkhead::sys::process::wait_exit(running.init.pid), Ok(0));
        running.destroy(true);
    });
}

#[test]
fn our_init_forwards_and_reaps() {
    alone("our_init_forwards_and_reaps", || {
        let root = Box::new();
        let mut bundle = root.bundle(&[
            "sh",
            "-c",
            "trap 'echo term; exit 9' TERM; (sleep 0.01 &); echo up; while :; do sleep 0.05; done",
        ]);
        bundle.init = true;
        let mut live = launch(&bundle).unwrap();
        let mut up = [0; 3];
        live.output.read_exact(&mut up).unwrap();
        let (_, text) = live.exec(&["sh", "-c", "sleep 0.1; ps; readlink /proc/1/exe || echo hidden"]);
        assert!(!text.contains("Z ") && text.contains("hidden"), "{text}");
        live.running.signal(libc::SIGTERM).unwrap();
        assert_eq!(live.end(), (9, "term\n".to_owned()));
    });
}

#[test]
fn limits_are_in_force() {
    alone("limits_are_in_force", || {
        let root = Box::new();
        let mut bundle =
            root.bundle(&["sh", "-c", "ulimit -n; (for i in $(seq 60); do sleep 1 & done) 2>&1 | grep -c fork; true"]);
        bundle.cgroup.limits.pids = Some(20);
        bundle.process.rlimits = vec![("nofile".into(), 100, 200)];
        let (_, text) = run(&bundle);
        assert!(text.starts_with("100\n") && !text.ends_with("\n0\n"), "{text}");
        let mut bundle = root.bundle(&["sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1"]);
        bundle.cgroup.limits.memory = Some(20 << 20);
        bundle.cgroup.limits.memory_swap = Some(20 << 20);
        let live = launch(&bundle).unwrap();
        let mut running = live.running;
        assert_ne!(bulkhead::sys::process::wait_exit(running.init.pid), Ok(0));
        assert!(running.oom_killed());
        running.kill_all().unwrap();
        running.destroy(true);
    });
}

#[test]
fn a_restart_keeps_user_and_network_namespaces() {
    alone("a_restart_keeps_user_and_network_namespaces", || {
        let root = Box::new();
        let mut bundle = root.bundle(&[
            "sh",
            "-c",
            "readlink /proc/self/ns/user; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; id -u",
        ]);
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let mut kept: Option<Kept> = None;
        let mut texts = Vec::new();
        for _ in 0..3 {
            bundle.cgroup.path = bulkhead::sandbox::group_name(&ContainerId::generate());
            let (output, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
            let streams = [null.as_fd(), write.as_fd(), write.as_fd()];
            let running =
                Launch::begin(&bundle, Launch::look(), Some(streams), kept.as_ref(), None).unwrap().finish().unwrap();
            drop(write);
            let mut text = String::new();
            std::fs::File::from(output).read_to_string(&mut text).unwrap();
            bulkhead::sys::process::wait_exit(running.init.pid).unwrap();
            kept = Some(running.destroy(true).0);
            texts.push(text.lines().map(str::to_owned).collect::<Vec<_>>());
        }
        assert_eq!(texts[0][..2], texts[1][..2]);
        assert_eq!(texts[1][..2], texts[2][..2]);
        assert_eq!(texts[2][3], "0");
    });
}

#[test]
fn the_hosts_user_namespace_and_others_namespaces() {
    alone("the_hosts_user_namespace_and_others_namespaces", || {
        let root = Box::new();
        let mut bundle =
            root.bundle(&["sh", "-c", "cat /proc/self/uid_map; readlink /proc/self/ns/net; ls /sys/class/net"]);
        bundle.userns = UserNamespace::Host { because: "because --net=host".into() };
        bundle.namespaces.net = Namespace::Host;
        let (code, text) = run(&bundle);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert!(code == 0 && text.contains("4294967295") && text.contains(&*own.to_string_lossy()), "{text}");
        // Another container's network, with its user namespace.
        let first = launch(&root.bundle(&["sleep", "100"])).unwrap();
        let other = Box::new();
        let mut bundle = other.bundle(&["readlink", "/proc/self/ns/net"]);
        let file = |name: &str| PathBuf::from(format!("/proc/{}/ns/{name}", first.running.init.pid));
        let net = std::fs::read_link(file("net")).unwrap().to_string_lossy().into_owned();
        bundle.namespaces.net = Namespace::Join(file("net"));
        let (code, text) = run(&bundle);
        assert!(code == -1 && text.contains("another user namespace"), "{text}");
        bundle.userns = UserNamespace::Join { path: file("user"), base: root.base };
        assert_eq!(run(&bundle), (0, format!("{net}\n")));
        first.kill();
    });
}

/// Everything of ours that can be left behind.
fn leftovers() -> (usize, usize) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    // Network namespaces of tests beside this one come and go there.
    let mounts = mounts.lines().filter(|line| !line.contains("/netns")).count();
    (mounts, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

#[test]
fn two_hundred_cycles_leave_nothing() {
    alone("two_hundred_cycles_leave_nothing", || {
        let root = Box::new();
        root.sh("true");
        let before = leftovers();
        for cycle in 0..200 {
            let (args, expected): (&[&str], i32) = if cycle % 4 == 3 { (&["nosuch"], -1) } else { (&["true"], 0) };
            let bundle = root.bundle(args);
            let path = bundle.cgroup.path.clone();
            assert_eq!(run(&bundle).0, expected, "cycle {cycle}");
            for place in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
                assert!(!Path::new(place).join(&path).exists(), "cycle {cycle}");
            }
        }
        assert_eq!(leftovers(), before);
        assert_eq!(bulkhead::sys::process::reap_any(), Err(rustix::io::Errno::CHILD), "a child is left");
    });
}

/// `cargo test --test it sandbox::speed -- --ignored --nocapture`: medians of a launch to the end, in microseconds.
#[test]
#[ignore = "a measurement"]
fn speed() {
    alone("speed", || {
        let root = Box::new();
        let bundle = root.bundle(&["/bin/true"]);
        let null: OwnedFd = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
        let mut times: [Vec<u128>; 4] = Default::default();
        for _ in 0..200 {
            let began = std::time::Instant::now();
            let pending = Launch::begin(&bundle, Launch::look(), Some([null.as_fd(); 3]), None, None).unwrap();
            times[0].push(began.elapsed().as_micros());
            let running = pending.finish().unwrap();
            times[1].push(began.elapsed().as_micros());
            bulkhead::sys::process::wait_exit(running.init.pid).unwrap();
            times[2].push(began.elapsed().as_micros());
            running.destroy(true);
            times[3].push(began.elapsed().as_micros());
        }
        let medians = times.map(|mut list| {
            list.sort_unstable();
            list[list.len() / 2]
        });
        let _ = writeln!(std::io::stderr(), "begun, running, ended, destroyed: {medians:?} us");
    });
}
