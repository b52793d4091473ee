//! What the integration tests share: a world of their own per test, loud skips, and the search for leftovers.
//!
//! A [`World`] has its own `--root`, `--run` and network namespace, so tests run side by side without seeing each other's
//! bridges and rules. When it is dropped, its containers are removed and nothing of it may be left: mount, process,
//! control group, link, rule, file in the run directory.

pub(crate) mod build;
pub(crate) mod bundle;
mod container;
pub(crate) mod git;
mod leftovers;
mod needs;
mod outcome;
pub(crate) mod registry;

pub(crate) use self::leftovers::empty_groups;
use self::leftovers::machine;
pub(crate) use self::needs::*;
pub(crate) use self::outcome::{Outcome, docker, host};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// The program under test.
pub(crate) const BULKHEAD: &str = env!("CARGO_BIN_EXE_bulkhead");

/// Longest a single command may take, in seconds.
const COMMAND_SECONDS: &str = "120";

/// Says what a suite has done, past the test runner's capture.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}: {text}", test_name());
}

/// Name of the running test.
pub(crate) fn test_name() -> String {
    std::thread::current().name().unwrap_or("test").to_owned()
}

/// Where base images are kept between runs.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("BULKHEAD_TEST_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/bulkhead-tests"),
        PathBuf::from,
    )
}

/// Seed of this run's rotating slices; `tests/run.sh` prints it.
pub(crate) fn seed() -> u64 {
    std::env::var("BULKHEAD_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Waits until `ready` returns something; panics after `seconds` with `what`.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, seconds: u64, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "waited {seconds} s for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Version and patch level of the kernel.
pub(crate) fn kernel() -> (u32, u32) {
    let release = host("uname", &["-r"]).ok();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Tests that look at the whole machine run alone; all others share.
static MACHINE: RwLock<()> = RwLock::new(());
static WORLDS: AtomicU32 = AtomicU32::new(0);

enum Share {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()>, before: BTreeSet<String> },
}

/// One test's own installation and its own "host" network namespace.
pub(crate) struct World {
    directory: tempfile::TempDir,
    /// `--root`.
    pub(crate) root: PathBuf,
    /// `--run`.
    pub(crate) run: PathBuf,
    /// Name of the network namespace that plays the host; `None` is the machine's own.
    pub(crate) netns: Option<String>,
    ids: Mutex<BTreeSet<String>>,
    share: Share,
}

impl World {
    /// A world beside others, in a network namespace of its own.
    pub(crate) fn new() -> Self {
        Self::build(Share::Shared { _guard: MACHINE.read().unwrap_or_else(std::sync::PoisonError::into_inner) }, true)
    }

    /// A world alone on the machine: at its end the whole machine is compared with before.
    pub(crate) fn alone() -> Self {
        let guard = MACHINE.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self::build(Share::Alone { _guard: guard, before: machine() }, true)
    }

    /// A world alone in the machine's own network namespace, for tests that need the package registries.
    pub(crate) fn online() -> Self {
        let guard = MACHINE.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self::build(Share::Alone { _guard: guard, before: machine() }, false)
    }

    fn build(share: Share, own_network: bool) -> Self {
        let base = std::env::var_os("BULKHEAD_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        // Short, because socket paths end at 107 bytes.
        let directory = tempfile::Builder::new().prefix("bh").rand_bytes(6).tempdir_in(base).expect("make a directory");
        let (root, run) = (directory.path().join("root"), directory.path().join("run"));
        let netns = own_network.then(|| {
            let name = format!("bhtest-{}-{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
            host("ip", &["netns", "add", &name]).ok();
            host("ip", &["-n", &name, "link", "set", "lo", "up"]).ok();
            name
        });
        Self { directory, root, run, netns, ids: Mutex::default(), share }
    }

    /// A scratch path of this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a scratch file, making its directories, and returns its path.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("make directories");
        std::fs::write(&path, text).expect("write a file");
        path
    }

    /// The program with this world's directories, inside its network namespace. The process is the program itself.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.inside(BULKHEAD);
        command.arg("--root").arg(&self.root).arg("--run").arg(&self.run).args(arguments);
        command
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = match &self.netns {
            Some(name) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{name}")).arg("--").arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .env_remove("BULKHEAD_ROOT")
            .env_remove("BULKHEAD_RUN")
            .env("NO_COLOR", "1")
            .current_dir(self.directory.path());
        command
    }

    /// Runs a program of the host where this world's published ports are.
    pub(crate) fn host(&self, program: &str, arguments: &[&str]) -> Outcome {
        let mut command = self.inside("timeout");
        Outcome::of(command.args(["-k", "5", COMMAND_SECONDS, program]).args(arguments), None)
    }

    /// Acts in a thread that is where this world's published ports are.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let run = || {
            if let Some(name) = &self.netns {
                let namespace = std::fs::File::open(format!("/run/netns/{name}")).expect("open the namespace");
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            }
            act()
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// Runs the program to its end.
    pub(crate) fn bulkhead(&self, arguments: &[&str]) -> Outcome {
        self.bulkhead_with(arguments, None)
    }

    /// Runs the program with something on its stdin.
    pub(crate) fn bulkhead_with(&self, arguments: &[&str], input: Option<&[u8]>) -> Outcome {
        self.bulkhead_in(arguments, input, &[])
    }

    /// Runs the program with something on its stdin and more in its environment.
    pub(crate) fn bulkhead_in(&self, arguments: &[&str], input: Option<&[u8]>, more: &[(&str, &str)]) -> Outcome {
        let mut command = self.inside("timeout");
        command
            .envs(more.iter().copied())
            .args(["-k", "5", COMMAND_SECONDS, BULKHEAD, "--root"])
            .arg(&self.root)
            .arg("--run")
            .arg(&self.run)
            .args(arguments);
        let outcome = Outcome::of(&mut command, input);
        self.note();
        outcome
    }

    /// Runs the program, asserts success and returns stdout without its last newline.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.bulkhead(arguments).ok()
    }

    /// Starts the program and leaves it running; stdin, stdout and stderr are pipes.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("start the program")
    }

    /// `inspect --format TEMPLATE NAME`.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(&["inspect", "--format", template, name])
    }

    /// Kills the shim of a running container, which dies with it.
    pub(crate) fn kill_shim(&self, name: &str) {
        let state = self.run.join(self.inspect(name, "{{.Id}}")).join("state.json");
        let state: serde_json::Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
        host("kill", &["-9", &state["shim_pid"].to_string()]).ok();
    }

    /// Waits until a container has a status.
    #[track_caller]
    pub(crate) fn wait_status(&self, name: &str, status: &str) {
        wait_for(&format!("{name} to be {status}"), 30, || {
            let seen = self.bulkhead(&["inspect", "--format", "{{.State.Status}}", name]);
            (seen.stdout.trim() == status).then_some(())
        });
    }

    /// Imports the busybox image as `busybox:latest` and returns that name.
    #[track_caller]
    pub(crate) fn busybox(&self) -> &'static str {
        let tar = busybox_tar();
        self.ok(&["import", "--change", "CMD [\"sh\"]", tar.to_str().expect("a plain path"), "busybox:latest"]);
        "busybox:latest"
    }

    /// Imports a base image of `examples/images/make.sh` under the reference it stands for.
    #[track_caller]
    pub(crate) fn base_image(&self, name: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/images/make.sh");
        let script = script.to_str().expect("a plain path");
        let reference = host(script, &["--list"]).ok().lines().find_map(|line| {
            let (key, value) = line.split_once(' ')?;
            (key == name).then(|| value.trim().to_owned())
        });
        let reference = reference.expect("a known image");
        let tar = cache().join(format!("{name}.tar"));
        let mut arguments = vec!["import".to_owned()];
        for line in host(script, &["--changes", name]).ok().lines() {
            arguments.extend(["--change".to_owned(), line.to_owned()]);
        }
        arguments.extend([tar.to_string_lossy().into_owned(), reference.clone()]);
        self.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        reference
    }

    /// Takes an archive of this world apart into a new directory of it.
    pub(crate) fn untar(&self, archive: &str, into: &str) -> PathBuf {
        let (archive, directory) = (self.path(archive), self.path(into));
        std::fs::create_dir(&directory).expect("make a directory");
        host("tar", &["-C", directory.to_str().unwrap(), "-xf", archive.to_str().unwrap()]).ok();
        directory
    }

    /// A busybox root directory of this world's own.
    pub(crate) fn rootfs(&self) -> PathBuf {
        let directory = self.path("rootfs");
        if !directory.exists() {
            std::fs::create_dir_all(&directory).expect("make a directory");
            host(
                "tar",
                &[
                    "-C",
                    directory.to_str().expect("a plain path"),
                    "-xf",
                    busybox_tar().to_str().expect("a plain path"),
                ],
            )
            .ok();
        }
        directory
    }

    /// Remembers the ids of containers, so that their control groups and processes can be looked for.
    pub(crate) fn note(&self) {
        for directory in [self.root.join("containers"), self.run.clone()] {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    self.ids.lock().expect("no panic while noting").insert(name);
                }
            }
        }
    }
}

/// The busybox image, made once per machine by `examples/images/make.sh`.
pub(crate) fn busybox_tar() -> PathBuf {
    static MADE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/images/make.sh");
        PathBuf::from(host(script.to_str().expect("a plain path"), &["busybox"]).ok())
    })
    .clone()
}
