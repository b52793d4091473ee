//! Real launches of a small root file system through the sandbox's own interface.

use bulkhead::base::ContainerId;
use bulkhead::sandbox::*;
use bulkhead::security::{CapabilitySet, Hardening, HostFeatures, Level};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Runs a test body in a process with one thread, which launches need: this binary again, told to run just this test.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if let Err(why) = crate::support::need_root() {
        crate::support::skip(name, &why);
        return;
    }
    if std::env::var_os("BULKHEAD_TEST_ALONE").is_some() {
        // The harness has a thread of its own; a fork of it has not, and no other test runs here.
        let child = bulkhead::sys::fork::fork(|| {
            body();
            0
        });
        let code = bulkhead::sys::process::wait_exit(child.unwrap().pid()).unwrap();
        assert_eq!(code, 0, "{name} failed");
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "the test binary itself, with one thread")]
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let test = if name.contains("::") { name.to_owned() } else { format!("sandbox::{name}") };
    command.args([&test, "--exact", "--nocapture", "--include-ignored"]).env("BULKHEAD_TEST_ALONE", "1");
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// A root file system of busybox in a store of its own.
pub(crate) struct Box {
    dir: tempfile::TempDir,
    base: u32,
}

const APPLETS: [&str; 38] = [
    "sh", "true", "false", "cat", "echo", "id", "ls", "stat", "mkdir", "rm", "ln", "touch", "chown", "chmod", "mount",
    "umount", "ps", "kill", "sleep", "hostname", "readlink", "test", "grep", "wc", "mknod", "head", "dd", "mv", "cp",
    "env", "pwd", "umask", "tty", "sync", "ip", "find", "nc", "seq",
];

impl Box {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let lower = dir.path().join("lower");
        for part in ["bin", "etc", "tmp", "home/app", "dir", "proc-target"] {
            std::fs::create_dir_all(lower.join(part)).unwrap();
        }
        for part in ["upper", "work", "vol"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        std::fs::copy("/bin/busybox", lower.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", lower.join("bin").join(applet)).unwrap();
        }
        put(&lower.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n");
        put(&lower.join("etc/group"), "root:x:0:\nadm:x:4:app\napp:x:1001:\n");
        put(&lower.join("bin/script"), "#!/bin/nothing\n");
        put(&lower.join("bin/self"), "#!/proc/self/exe\n");
        put(&lower.join("plain"), "text\n");
        mode(&lower.join("bin/script"), 0o755);
        mode(&lower.join("bin/self"), 0o755);
        mode(&lower.join("tmp"), 0o1777);
        let slot = u32::from_le_bytes(ContainerId::generate().as_str().as_bytes()[..4].try_into().unwrap()) % 4000;
        Self { dir, base: 0x7000_0000 + slot * 65536 }
    }

    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.dir.path().join(part)
    }

    pub(crate) fn lower(&self, part: &str) -> PathBuf {
        self.path("lower").join(part)
    }

    pub(crate) fn bundle(&self, args: &[&str]) -> Bundle {
        let id = ContainerId::generate();
        Bundle {
            root: Root::Overlay {
                store: self.dir.path().to_owned(),
                lowers: vec!["lower".into()],
                upper: "upper".into(),
                work: "work".into(),
                volatile: true,
            },
            root_readonly: false,
            userns: UserNamespace::Range { base: self.base },
            namespaces: Namespaces {
                net: Namespace::New,
                pid: Namespace::New,
                ipc: Namespace::New,
                uts: Namespace::New,
                cgroup: Namespace::New,
                time: Namespace::New,
            },
            hostname: id.short().to_owned(),
            domainname: String::new(),
            process: process(args),
            mounts: Vec::new(),
            shm_size: 64 << 20,
            devices: Vec::new(),
            sysctls: Vec::new(),
            cgroup: Cgroup {
                path: bulkhead::sandbox::group_name(&id),
                limits: Limits { pids: Some(512), memory: Some(512 << 20), ..Limits::default() },
            },
            hardening: Hardening {
                level: Level::Default,
                capabilities: CapabilitySet(0xa804_25fb),
                no_new_privileges: true,
                seccomp: None,
                landlock: true,
                masked_paths: [
                    "/proc/acpi",
                    "/proc/kcore",
                    "/proc/keys",
                    "/proc/timer_list",
                    "/proc/scsi",
                    "/sys/firmware",
                ]
                .map(str::to_owned)
                .to_vec(),
                readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
                    .map(str::to_owned)
                    .to_vec(),
            },
            init: false,
            require: Vec::new(),
            id,
        }
    }

    /// Runs a shell line to its end; returns the exit code and what it wrote.
    fn sh(&self, line: &str) -> (i32, String) {
        run(&self.bundle(&["sh", "-c", line]))
    }
}

fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        cwd: String::new(),
        user: String::new(),
        groups: Vec::new(),
        tty: false,
        tty_size: None,
        rlimits: Vec::new(),
        oom_score_adj: 0,
    }
}

#[expect(clippy::disallowed_methods, reason = "fixtures, not records")]
fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A running container whose output is collected.
pub(crate) struct Live {
    pub(crate) running: Running,
    pub(crate) output: std::fs::File,
}

fn launch(bundle: &Bundle) -> Result<Live, LaunchError> {
    launch_on(bundle, Launch::look())
}

pub(crate) fn launch_on(bundle: &Bundle, host: &HostFeatures) -> Result<Live, LaunchError> {
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let (output, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let streams = [null.as_fd(), write.as_fd(), write.as_fd()];
    let running = Launch::begin_on(bundle, Some(streams), None, None, host)?.finish()?;
    Ok(Live { running, output: output.into() })
}

impl Live {
    fn exec(&mut self, args: &[&str]) -> (i32, String) {
        self.exec_as(&process(args), false)
    }

    fn exec_as(&mut self, process: &Process, privileged: bool) -> (i32, String) {
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let (output, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let streams = [null.as_fd(), write.as_fd(), write.as_fd()];
        let added = match self.running.exec(process, Some(streams), privileged) {
            Ok(added) => added,
            Err(error) => return (-1, error.message),
        };
        drop(write);
        let mut text = String::new();
        std::fs::File::from(output).read_to_string(&mut text).unwrap();
        (bulkhead::sys::process::wait_exit(added.child.pid).unwrap(), text)
    }

    /// Waits for the end; returns exit code and output.
    pub(crate) fn end(mut self) -> (i32, String) {
        let mut text = Vec::new();
        self.output.read_to_end(&mut text).unwrap();
        let code = bulkhead::sys::process::wait_exit(self.running.init.pid).unwrap();
        self.running.destroy(true);
        (code, String::from_utf8_lossy(&text).into_owned())
    }

    fn kill(self) -> String {
        self.running.signal(libc::SIGKILL).unwrap();
        self.end().1
    }
}

fn run(bundle: &Bundle) -> (i32, String) {
    match launch(bundle) {
        Ok(live) => live.end(),
        Err(error) => (-1, error.message),
    }
}

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
fn dev_has_what_programs_expect_and_no_more() {
    alone("dev_has_what_programs_expect_and_no_more", || {
        let root = Box::new();
        let (code, text) = root.sh("ls /dev; stat -c '%n %u %g %t:%T %a' /dev/null /dev/tty /dev/urandom; head -c 4 /dev/zero | wc -c; \
             echo x > /dev/null && mknod /tmp/n c 1 3 || echo refused; test -e /dev/ptmx && echo ptmx; touch /dev/shm/x && echo shm; \
             umount /dev/shm || echo kept; mount -t tmpfs x /tmp || echo nomount");
        assert_eq!(code, 0, "{text}");
        assert!(
            text.starts_with(
                "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
            ),
            "{text}"
        );
        assert!(text.contains("/dev/null 0 0 1:3 666\n/dev/tty 0 0 5:0 666\n/dev/urandom 0 0 1:9 666\n4\n"), "{text}");
        assert!(
            text.contains("refused\nptmx\nshm\n") && text.contains("kept\n") && text.contains("nomount\n"),
            "{text}"
        );
    });
}

#[test]
fn masks_and_read_only_paths_hold() {
    alone("masks_and_read_only_paths_hold", || {
        let root = Box::new();
        let (_, text) =
            root.sh("cat /proc/keys | wc -c; ls /sys/firmware | wc -l; ls /proc/scsi 2>/dev/null | wc -l; \
             echo 1 > /proc/sys/kernel/hostname || echo ro1; echo b > /proc/sysrq-trigger || echo ro2; \
             echo x > /sys/kernel/uevent_helper || echo ro3; ls /sys/fs/cgroup; cat /sys/fs/cgroup/pids/pids.max; \
             echo 9 > /sys/fs/cgroup/pids/pids.max || echo ro4");
        assert!(text.starts_with("0\n0\n0\n"), "{text}");
        for line in ["ro1", "ro2", "ro3", "ro4"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        if Path::new("/sys/fs/cgroup/pids").exists() {
            assert!(text.contains("512\n") && text.contains("memory\n"), "{text}");
        }
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
fn writes_are_stored_with_plain_ids() {
    alone("writes_are_stored_with_plain_ids", || {
        use std::os::unix::fs::MetadataExt;
        let root = Box::new();
        let (code, text) =
            root.sh("touch /a && chown 33:44 /a && touch /home/app/b && chown 65535 /plain && rm /dir -r");
        assert_eq!(code, 0, "{text}");
        let ids =
            |part: &str| std::fs::symlink_metadata(root.path("upper").join(part)).map(|m| (m.uid(), m.gid())).unwrap();
        assert_eq!((ids("a"), ids("home/app/b"), ids("plain"), ids("dir")), ((33, 44), (0, 0), (65535, 0), (0, 0)));
    });
}

#[test]
fn mounts_show_the_right_ids_and_flags() {
    alone("mounts_show_the_right_ids_and_flags", || {
        use std::os::unix::fs::MetadataExt;
        let root = Box::new();
        let vol = root.path("vol");
        put(&vol.join("seven"), "7\n");
        std::os::unix::fs::chown(vol.join("seven"), Some(7), Some(8)).unwrap();
        let owned = root.path("owned");
        std::fs::create_dir(&owned).unwrap();
        std::os::unix::fs::chown(&owned, Some(1234), Some(1235)).unwrap();
        let bind = |path: &Path, target: &str, readonly: bool, ids: BindIds| Mount {
            target: target.into(),
            source: MountSource::Bind { path: path.to_owned(), recursive: true, ids },
            readonly,
        };
        let mut bundle = root.bundle(&["sh", "-c", "stat -c '%u:%g' /vol/seven; touch /vol/new; touch /ro/x || echo ro; \
            stat -c '%u' /own; touch /own/mine; stat -c '%a' /t; touch /t/x; mkdir -p /t/y; cp /bin/busybox /t/true; /t/true || echo noexec; stat -c '%u' /hosts; cat /hosts; ls /deep/er"]);
        let hosts = root.path("hosts");
        put(&hosts, "hosts file\n");
        let UserNamespace::Range { base } = bundle.userns else { panic!("no range") };
        std::os::unix::fs::chown(&hosts, Some(base), Some(base)).unwrap();
        bundle.mounts = vec![
            bind(&vol, "/vol", false, BindIds::Same),
            bind(&vol, "/ro", true, BindIds::Same),
            bind(&owned, "/own", false, BindIds::Owner { uid: 1234, gid: 1235 }),
            Mount {
                target: "/t".into(),
                source: MountSource::Tmpfs { options: vec!["size=4m".into(), "mode=1770".into()] },
                readonly: false,
            },
            Mount { target: "/hosts".into(), source: MountSource::OwnFile(hosts), readonly: false },
            bind(&vol, "/deep/er", false, BindIds::Same),
        ];
        let (code, text) = run(&bundle);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.starts_with("7:8\n")
                && text.contains("ro\n0\n1770\n")
                && text.contains("noexec\n0\nhosts file\nnew\nseven\n"),
            "{text}"
        );
        assert_eq!(std::fs::metadata(vol.join("new")).unwrap().uid(), 0);
        assert_eq!(std::fs::metadata(owned.join("mine")).unwrap().uid(), 1234);
        for (target, why) in [
            ("/proc/x", "nothing may be mounted"),
            ("/sys/x", "nothing may"),
            ("/../x", "absolute path"),
            ("x", "absolute path"),
            ("/link/x", "leads it to"),
        ] {
            let mut bundle = root.bundle(&["true"]);
            let _ = std::os::unix::fs::symlink("/proc", root.lower("link"));
            bundle.mounts = vec![bind(&vol, target, false, BindIds::Same)];
            let (code, text) = run(&bundle);
            assert!(code == -1 && text.contains(why), "{target}: {text}");
        }
        let mut bundle = root.bundle(&["true"]);
        bundle.mounts = vec![bind(Path::new("/proc"), "/x", false, BindIds::Same)];
        let (code, text) = run(&bundle);
        assert!(code == -1 && text.contains("proc file system") && text.contains("--userns=host"), "{text}");
    });
}

#[test]
fn a_linked_proc_is_refused() {
    alone("a_linked_proc_is_refused", || {
        for name in ["proc", "sys", "dev"] {
            let root = Box::new();
            std::os::unix::fs::symlink("/tmp", root.lower(name)).unwrap();
            let (code, text) = root.sh("true");
            assert!(code == -1 && text.contains("not a link"), "{name}: {text}");
        }
    });
}

#[test]
fn a_read_only_root_refuses_writes_but_not_in_volumes() {
    alone("a_read_only_root_refuses_writes_but_not_in_volumes", || {
        let root = Box::new();
        let mut bundle = root.bundle(&[
            "sh",
            "-c",
            "touch /x 2>/dev/null || echo ro; touch /vol/x && echo rw; touch /dev/shm/x && echo shm; test -d /made/here && echo made",
        ]);
        bundle.root_readonly = true;
        bundle.process.cwd = "/made/here".into();
        let source = MountSource::Bind { path: root.path("vol"), recursive: false, ids: BindIds::Same };
        bundle.mounts = vec![Mount { target: "/vol".into(), source, readonly: false }];
        let (code, text) = run(&bundle);
        assert_eq!((code, text.as_str()), (0, "ro\nrw\nshm\nmade\n"));
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
            let running = Launch::begin(&bundle, Some(streams), None, None).unwrap().finish().unwrap();
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
fn landlock_alone_keeps_a_read_only_root() {
    use bulkhead::security::landlock::{RuleInput, RuleMount, rule_set};
    let mounts = vec![RuleMount { target: "/vol".into(), readonly: false }];
    let rules = rule_set(&RuleInput { abi: 7, root_readonly: true, mounts, ..RuleInput::default() });
    let writes = bulkhead::security::landlock::FsRights::from(landlock::AccessFs::WriteFile);
    let at = |path: &str| rules.rules.iter().find(|rule| rule.path == path).map(|rule| rule.rights.intersects(writes));
    assert_eq!((at("/"), at("/vol"), at("/dev")), (Some(false), Some(true), Some(true)));
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
        let mut running = Launch::begin(&bundle, None, None, None).unwrap().finish().unwrap();
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
fn a_working_directory_never_leads_out() {
    alone("a_working_directory_never_leads_out", || {
        let root = Box::new();
        for number in 3..40 {
            let mut bundle = root.bundle(&["pwd"]);
            bundle.process.cwd = format!("/proc/self/fd/{number}");
            // The magic link is not followed, or there is no such descriptor any more: the directory of the host that a
            // number may have stood for is never entered.
            let (code, text) = run(&bundle);
            let said = |why: &str| format!("chdir to cwd (\"/proc/self/fd/{number}\"): {why}");
            let refusals = [said("symbolic link loop"), said("no such file or directory")];
            assert!(code == -1 && refusals.contains(&text), "{number}: {text}");
        }
        let mut bundle = root.bundle(&["sh", "-c", "pwd; stat -c %u ."]);
        bundle.process.cwd = "/made/for/me".into();
        assert_eq!(run(&bundle), (0, "/made/for/me\n0\n".to_owned()));
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
            let running = Launch::begin(&bundle, Some(streams), kept.as_ref(), None).unwrap().finish().unwrap();
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
fn sys_admin_cannot_undo_the_mounts() {
    alone("sys_admin_cannot_undo_the_mounts", || {
        let root = Box::new();
        let mut bundle = root.bundle(&["sh", "-c", "id -u; mount -o remount,bind,dev / || echo kept1; mount -o remount,bind,rw /ro || echo kept2; umount /ro || echo kept3; mount -t tmpfs x /tmp && echo mounted; touch /x && echo w"]);
        bundle.hardening.capabilities.0 |= 1 << 21;
        let source = MountSource::Bind { path: root.path("vol"), recursive: false, ids: BindIds::Same };
        bundle.mounts = vec![Mount { target: "/ro".into(), source, readonly: true }];
        let (code, text) = run(&bundle);
        assert!(code == 0, "{text}");
        for word in ["kept1", "kept2", "kept3", "mounted", "w\n"] {
            assert!(text.contains(word), "{word}: {text}");
        }
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
            let pending = Launch::begin(&bundle, Some([null.as_fd(); 3]), None, None).unwrap();
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
