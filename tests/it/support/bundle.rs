//! Small root file systems for launches through the sandbox's own interface.

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
    pub(crate) base: u32,
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
            links_follow: true,
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
    pub(crate) fn sh(&self, line: &str) -> (i32, String) {
        run(&self.bundle(&["sh", "-c", line]))
    }
}

pub(crate) fn process(args: &[&str]) -> Process {
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
pub(crate) fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

pub(crate) fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A running container whose output is collected.
pub(crate) struct Live {
    pub(crate) running: Running,
    pub(crate) output: std::fs::File,
}

pub(crate) fn launch(bundle: &Bundle) -> Result<Live, LaunchError> {
    launch_on(bundle, Launch::look())
}

pub(crate) fn launch_on(bundle: &Bundle, host: &HostFeatures) -> Result<Live, LaunchError> {
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let (output, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let streams = [null.as_fd(), write.as_fd(), write.as_fd()];
    let running = Launch::begin(bundle, host, Some(streams), None, None)?.finish()?;
    Ok(Live { running, output: output.into() })
}

impl Live {
    pub(crate) fn exec(&mut self, args: &[&str]) -> (i32, String) {
        self.exec_as(&process(args), false)
    }

    pub(crate) fn exec_as(&mut self, process: &Process, privileged: bool) -> (i32, String) {
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

    pub(crate) fn kill(self) -> String {
        self.running.signal(libc::SIGKILL).unwrap();
        self.end().1
    }
}

pub(crate) fn run(bundle: &Bundle) -> (i32, String) {
    match launch(bundle) {
        Ok(live) => live.end(),
        Err(error) => (-1, error.message),
    }
}
