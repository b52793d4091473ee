//! Shims around real sandboxes: what plain processes cannot show.

use crate::support::bundle::Box;
use bulkhead::sandbox::Launch;
use bulkhead::sandbox::Root;
use bulkhead::shim::protocol::NetworkHandles;
use bulkhead::shim::*;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A container of busybox with a directory of its own; ended when dropped.
struct Fixture {
    root: Box,
    plan: ShimPlan,
}

fn fixture(line: &str) -> Option<Fixture> {
    if let Err(why) = crate::support::need_root() {
        crate::support::skip(&crate::support::test_name(), &why);
        return None;
    }
    let root = Box::new();
    let mut bundle = root.bundle(&["sh", "-c", line]);
    bundle.cgroup.limits.memory = Some(64 << 20);
    let at = |name: &str| root.path(name);
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
    Some(Fixture { root, plan })
}

impl Fixture {
    fn start(&self) -> Client {
        let mut launch = Seed::fork().unwrap().become_shim().unwrap();
        let prepared = launch.launch(self.plan.clone()).unwrap();
        assert!(prepared.network.is_some() && prepared.pid > 0);
        launch.proceed(NetworkHandles::default(), &[]).unwrap();
        launch.into_client()
    }

    fn log(&self) -> String {
        let mut reader = LogReader::open(&self.root.path("log"), LogOptions::default()).unwrap();
        let mut text = String::new();
        while let Some(entry) = reader.next().unwrap() {
            text.push_str(std::str::from_utf8(entry.bytes).unwrap());
        }
        text
    }

    fn cgroup(&self) -> PathBuf {
        PathBuf::from("/sys/fs/cgroup/pids").join(&self.plan.bundle.cgroup.path)
    }
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_first_process_that_leads_its_own_group_is_reaped() {
    let Some(fixture) = fixture("echo hello; exit 6") else { return };
    assert_eq!(fixture.start().wait().unwrap(), 6);
    assert_eq!(fixture.log(), "hello\n");
    assert!(!is_alive(&fixture.plan.run_dir) && !fixture.cgroup().exists(), "nothing is left behind");
}

#[test]
fn a_pid_1_that_ignores_term_is_noticed_and_killed() {
    let Some(fixture) = fixture("exec sleep 100") else { return };
    let mut client = fixture.start();
    assert_eq!(client.stop(None, Some(0)).unwrap(), Stopped { killed: true, ignored: true });
    assert_eq!(client.wait().unwrap(), 137);
}

#[test]
fn a_restart_keeps_the_network_namespace() {
    let Some(mut fixture) = fixture("readlink /proc/self/ns/net; exit 1") else { return };
    fixture.plan.restart = RestartPolicy::OnFailure(2);
    // A volatile overlay cannot be mounted a second time.
    if let Root::Overlay { volatile, .. } = &mut fixture.plan.bundle.root {
        *volatile = false;
    }
    let code = fixture.start().wait().unwrap();
    let state = fixture.plan.state.read().unwrap().unwrap();
    assert_eq!((code, state.error.as_str()), (1, ""));
    let log = fixture.log();
    let runs: Vec<&str> = log.lines().collect();
    assert!(runs.len() == 3 && runs.iter().all(|run| *run == runs[0]), "{runs:?}");
}

#[test]
fn health_is_checked_inside_and_a_dead_shim_takes_its_container_along() {
    let Some(mut fixture) = fixture("exec sleep 100") else { return };
    fixture.plan.health = Some(HealthPlan {
        command: ["sh", "-c", "readlink /proc/1/exe"].map(str::to_owned).to_vec(),
        interval: 20_000_000,
        timeout: 5_000_000_000,
        start_period: 0,
        start_interval: 20_000_000,
        retries: 3,
    });
    let mut client = fixture.start();
    eventually("healthy", || {
        let health = client.state().unwrap().health.unwrap();
        assert_ne!(health.status, "unhealthy", "{health:?}");
        health.status == "healthy"
    });
    let state = client.state().unwrap();
    let health = state.health.unwrap();
    assert_eq!(health.log.last().unwrap().output, "/bin/busybox\n", "{health:?}");
    let shim = rustix::process::Pid::from_raw(state.shim_pid).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    eventually("the container is gone", || {
        std::fs::read_to_string(format!("/proc/{}/stat", state.pid)).map_or(true, |stat| stat.contains(") Z"))
    });
    assert!(!is_alive(&fixture.plan.run_dir));
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        let group = hierarchy.unwrap().path().join(&fixture.plan.bundle.cgroup.path);
        eventually("its control group is empty", || !group.exists() || std::fs::remove_dir(&group).is_ok());
    }
}

#[test]
fn a_container_killed_for_want_of_memory_says_so() {
    let Some(fixture) = fixture("exec dd if=/dev/zero of=/dev/null bs=200M count=1") else { return };
    let mut client = fixture.start();
    assert_eq!(client.wait().unwrap(), 137);
    let state = fixture.plan.state.read().unwrap().unwrap();
    assert!(state.oom_killed && state.exit_code == 137);
}
