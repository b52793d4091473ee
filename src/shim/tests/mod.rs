//! Real shims around plain processes: everything of a shim but the walls.

mod lifecycle;
mod plain;
mod streams;
mod throughput;

use super::protocol::NetworkHandles;
use super::*;
use crate::base::ContainerId;
use crate::sandbox::{Bundle, Cgroup, Launch, Limits, Namespace, Namespaces, Process, Root, UserNamespace};
use crate::security::{CapabilitySet, Hardening, Level};
use plain::PlainJail;
use rustix::fd::OwnedFd;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A directory that stands for a container's, and the shim's plan.
struct Fixture {
    dir: tempfile::TempDir,
    plan: ShimPlan,
}

/// A plan that runs a shell script.
fn script(script: &str) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let new = || Namespace::Host;
    let bundle = Bundle {
        id: ContainerId::generate(),
        root: Root::Directory(PathBuf::from("/")),
        root_readonly: false,
        userns: UserNamespace::Host { because: "test".to_owned() },
        namespaces: Namespaces { net: new(), pid: new(), ipc: new(), uts: new(), cgroup: new(), time: new() },
        links_follow: true,
        hostname: String::new(),
        domainname: String::new(),
        process: process(script),
        mounts: Vec::new(),
        shm_size: 0,
        devices: Vec::new(),
        sysctls: Vec::new(),
        cgroup: Cgroup { path: String::new(), limits: Limits::default() },
        hardening: Hardening {
            level: Level::Default,
            capabilities: CapabilitySet(0),
            no_new_privileges: true,
            seccomp: None,
            landlock: false,
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
        },
        init: false,
        require: Vec::new(),
    };
    let plan = ShimPlan {
        bundle,
        host: Launch::look().clone(),
        stdin_open: false,
        state: StateFiles {
            live: at("run/state.json"),
            last: Some(LastState { file: at("state.json"), spare: at("run.state.json") }),
        },
        run_dir: at("run"),
        log: Some(LogPlan { dir: at("log"), max_size: 1 << 20, max_files: 5 }),
        restart: RestartPolicy::No,
        stop_signal: 15,
        stop_timeout: 10,
        health: None,
        cleanup: Vec::new(),
        starter_finishes: false,
        dies_with_starter: false,
    };
    Fixture { dir, plan }
}

fn process(script: &str) -> Process {
    Process {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        cwd: "/".to_owned(),
        user: String::new(),
        groups: Vec::new(),
        tty: false,
        tty_size: None,
        rlimits: Vec::new(),
        oom_score_adj: 0,
    }
}

impl Fixture {
    /// Starts a shim up to the point where the network would be made.
    fn launch(&self) -> LaunchConn {
        let mut launch = Seed::fork_with::<PlainJail>(true).unwrap().become_shim().unwrap();
        launch.launch(self.plan.clone()).unwrap();
        launch
    }

    /// Starts the container.
    fn start(&self) -> Client {
        let mut launch = self.launch();
        launch.proceed(NetworkHandles::default(), &[]).unwrap();
        launch.into_client()
    }

    /// Starts the container with a client attached.
    fn start_attached(&self) -> (Client, UnixStream) {
        let mut launch = self.launch();
        let stream = launch.attach(true, true).unwrap();
        launch.proceed(NetworkHandles::default(), &[]).unwrap();
        (launch.into_client(), stream.into())
    }

    fn connect(&self) -> Client {
        Client::connect(&self.plan.run_dir).unwrap()
    }

    fn state(&self) -> State {
        self.plan.state.read().unwrap().unwrap()
    }

    fn log(&self) -> String {
        let mut reader = LogReader::open(&self.plan.log.as_ref().unwrap().dir, LogOptions::default()).unwrap();
        let mut text = String::new();
        while let Some(entry) = reader.next().unwrap() {
            text.push_str(if entry.stream == LogStream::Stderr { "!" } else { "" });
            text.push_str(std::str::from_utf8(entry.bytes).unwrap());
        }
        text
    }
}

/// Reads one frame of an attached stream; `None` at the end.
fn frame(stream: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).ok()?;
    let mut payload = vec![0; u32::from_be_bytes(header[4..].try_into().unwrap()) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((header[0], payload))
}

/// Reads a stream to its end: stdout, stderr, exit code.
fn read_all(stream: &mut UnixStream) -> (Vec<u8>, Vec<u8>, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match frame(stream).expect("the stream ends with an end frame") {
            (1, bytes) => out.extend(bytes),
            (2, bytes) => err.extend(bytes),
            (3, code) => return (out, err, String::from_utf8(code).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

/// Waits for something to become true.
fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pipe() -> (std::fs::File, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read.into(), write)
}

fn write_all(stream: &mut UnixStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}
