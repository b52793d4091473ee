//! Start, stop, wait, restart, exec, health, death.

use super::*;
use crate::shim::protocol::{FailureKind, Reply, Request};
use rustix::fd::AsFd;

#[test]
fn a_container_runs_to_its_end_and_leaves_its_state() {
    let fixture = script("echo out; echo err >&2; exit 7");
    let (mut client, mut stream) = fixture.start_attached();
    assert_eq!(client.wait().unwrap(), 7);
    assert_eq!(read_all(&mut stream), (b"out\n".to_vec(), b"err\n".to_vec(), "7".to_owned()));
    let state = fixture.state();
    assert_eq!((state.status, state.exit_code, state.pid, state.stopped_by_user), (Status::Exited, 7, 0, false));
    assert!(state.started_at > crate::base::Timestamp::NEVER && state.finished_at >= state.started_at);
    assert_eq!(fixture.log(), "out\n!err\n");
    assert!(!is_alive(&fixture.plan.run_dir), "whoever has been told of the end finds the lock free");
    assert!(matches!(Client::connect(&fixture.plan.run_dir), Err(ShimError::NotRunning { .. })));
}

#[test]
fn a_signal_that_kills_gives_128_and_its_number() {
    let fixture = script("sleep 100");
    let mut client = fixture.start();
    fixture.connect().signal(9).unwrap();
    assert_eq!(client.wait().unwrap(), 137);
    assert!(fixture.state().stopped_by_user, "killed by hand");
}

#[test]
fn what_it_is_given_to_hold_a_shim_closes_when_it_ends() {
    let fixture = script("sleep 100");
    let mut client = fixture.start();
    let (mut reader, held) = pipe();
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    client.hold(vec![held]).unwrap();
    assert_eq!(client.state().unwrap().status, Status::Running, "the next question is answered");
    let open =
        |reader: &mut std::fs::File| reader.read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    assert!(open(&mut reader));
    client.signal(9).unwrap();
    assert_eq!(client.wait().unwrap(), 137);
    eventually("the last descriptor is closed", || !open(&mut reader));
}

#[test]
fn a_program_that_cannot_start_says_why() {
    for (program, kind, code) in
        [("/no/such", FailureKind::NotFound, 127), ("/etc/passwd", FailureKind::NotExecutable, 126)]
    {
        let mut fixture = script("");
        fixture.plan.bundle.process.args = vec![program.to_owned()];
        let mut launch = fixture.launch();
        match launch.proceed(NetworkHandles::default(), &[]) {
            Err(ShimError::Failed(failure)) => {
                assert!(failure.kind == kind && failure.message.contains(program), "{failure:?}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((fixture.state().exit_code, fixture.state().status), (code, Status::Created));
        assert!(!is_alive(&fixture.plan.run_dir));
    }
}

#[test]
fn a_start_whose_state_cannot_be_written_fails_and_leaves_no_process() {
    let mut fixture = script("");
    let mark = fixture.dir.path().join("mark").display().to_string();
    fixture.plan.bundle.process.args = vec!["/usr/bin/tail".to_owned(), "-F".to_owned(), mark.clone()];
    fixture.plan.state.live = fixture.dir.path().join("no/such/state.json");
    match fixture.launch().proceed(NetworkHandles::default(), &[]) {
        Err(ShimError::Failed(failure)) => {
            let said = failure.message.contains("write the state") && failure.message.contains("state.json");
            assert!(said && failure.errno == rustix::io::Errno::NOENT.raw_os_error(), "{failure:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!is_alive(&fixture.plan.run_dir));
    assert_eq!((fixture.state().status, fixture.state().exit_code), (Status::Created, 128));
    let runs = |entry: std::fs::DirEntry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&mark))
    };
    eventually("the program is killed", || !std::fs::read_dir("/proc").unwrap().flatten().any(runs));
}

#[test]
fn a_shim_whose_engine_dies_before_the_start_ends_silently() {
    let fixture = script("touch started");
    let seed = Seed::fork_with::<PlainJail>(true).unwrap();
    drop(seed);
    let launch = fixture.launch();
    assert!(is_alive(&fixture.plan.run_dir));
    drop(launch);
    eventually("the lock is given back", || !is_alive(&fixture.plan.run_dir));
    assert_eq!(fixture.plan.state.read().unwrap(), None);
}

#[test]
fn one_seed_gives_many_shims_and_two_cannot_serve_one_container() {
    let seed = Seed::fork_with::<PlainJail>(true).unwrap();
    let fixtures: Vec<Fixture> = (0..5).map(|n| script(&format!("exit {n}"))).collect();
    let clients: Vec<Client> = fixtures
        .iter()
        .map(|fixture| {
            let mut launch = seed.fork_shim().unwrap();
            launch.launch(fixture.plan.clone()).unwrap();
            let second = seed.fork_shim().unwrap().launch(fixture.plan.clone());
            assert!(matches!(second, Err(ShimError::Failed(_))), "{second:?}");
            launch.proceed(NetworkHandles::default(), &[]).unwrap();
            launch.into_client()
        })
        .collect();
    for (n, mut client) in clients.into_iter().enumerate() {
        assert_eq!(client.wait().unwrap(), n as i32);
    }
}

#[test]
fn stop_asks_first_and_kills_after_the_timeout() {
    if !crate::tests::root() {
        return;
    }
    let gentle = script("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    let mut client = gentle.start();
    eventually("the trap is set", || gentle.log() == "ready\n");
    assert_eq!(gentle.connect().stop(None, None).unwrap(), Stopped { killed: false, ignored: false });
    assert_eq!((client.wait().unwrap(), gentle.state().exit_code, gentle.state().stopped_by_user), (3, 3, true));

    let mut deaf = script("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    deaf.plan.bundle.namespaces.pid = Namespace::New;
    let client = deaf.start();
    eventually("the trap is set", || deaf.log() == "ready\n");
    let begun = Instant::now();
    assert_eq!(deaf.connect().stop(None, Some(1)).unwrap(), Stopped { killed: true, ignored: true });
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(deaf.state().exit_code, 137);
    drop(client);
}

#[test]
fn a_shutdown_of_the_host_stops_in_good_order_and_is_not_the_users_stop() {
    let mut fixture = script("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    fixture.plan.restart = RestartPolicy::UnlessStopped;
    let mut client = fixture.start();
    eventually("the trap is set", || fixture.log() == "ready\n");
    let shim = rustix::process::Pid::from_raw(fixture.state().shim_pid).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::TERM).unwrap();
    assert_eq!(client.wait().unwrap(), 3);
    let state = fixture.state();
    assert_eq!((state.status, state.exit_code, state.stopped_by_user), (Status::Exited, 3, false));
}

#[test]
fn a_second_stop_makes_the_first_more_urgent() {
    let fixture = script("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    let _client = fixture.start();
    eventually("the trap is set", || fixture.log() == "ready\n");
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| fixture.connect().stop(None, Some(-1)).unwrap());
        eventually("the first has been heard", || fixture.connect().state().unwrap().stopped_by_user);
        assert!(fixture.connect().stop(None, Some(0)).unwrap().killed);
        assert!(patient.join().unwrap().killed);
    });
}

#[test]
fn a_container_is_started_again_by_policy_until_it_is_stopped() {
    let mut fixture = script("echo run; exit 1");
    fixture.plan.restart = RestartPolicy::UnlessStopped;
    let mut client = fixture.start();
    eventually("three runs", || fixture.log() == "run\nrun\nrun\n");
    eventually("it waits for the next", || fixture.connect().state().unwrap().status == Status::Restarting);
    fixture.connect().stop(None, None).unwrap();
    assert_eq!(client.wait().unwrap(), 1);
    let state = fixture.state();
    assert!(state.restart_count >= 2 && state.stopped_by_user && state.status == Status::Exited, "{state:?}");
}

#[test]
fn on_failure_gives_up_after_its_count() {
    let mut fixture = script("echo run; exit 5");
    fixture.plan.restart = RestartPolicy::OnFailure(2);
    assert_eq!(fixture.start().wait().unwrap(), 5);
    assert_eq!((fixture.log().as_str(), fixture.state().restart_count), ("run\nrun\nrun\n", 2));
}

#[test]
fn exec_uses_the_callers_descriptors_and_tells_the_code() {
    let fixture = script("sleep 100");
    let mut client = fixture.start();
    let null = std::fs::File::open("/dev/null").unwrap();
    let (mut output, child) = pipe();
    let stdio = [null.as_fd(), child.as_fd(), child.as_fd()];
    let mut exec = fixture.connect().exec(process("echo one; echo two >&2; exit 9"), false, Some(stdio)).unwrap();
    drop(child);
    assert_eq!(exec.wait().unwrap(), 9);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one\ntwo\n");
    let mut missing = process("");
    missing.args = vec!["/no/such".to_owned()];
    assert!(matches!(fixture.connect().exec(missing, false, Some(stdio_of(&null))), Err(ShimError::Failed(_))));
    assert!(matches!(fixture.connect().exec(process("true"), false, None), Err(ShimError::Refused(_))));
    client.signal(9).unwrap();
    assert_eq!(client.wait().unwrap(), 137);
}

fn stdio_of(file: &std::fs::File) -> [rustix::fd::BorrowedFd<'_>; 3] {
    [file.as_fd(), file.as_fd(), file.as_fd()]
}

#[test]
fn a_paused_container_refuses_exec_and_can_be_stopped() {
    let fixture = script("sleep 100");
    let _client = fixture.start();
    let mut control = fixture.connect();
    control.pause().unwrap();
    assert!(matches!(control.pause(), Err(ShimError::Refused(_))));
    assert_eq!(control.state().unwrap().status, Status::Paused);
    let null = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(
        fixture.connect().exec(process("true"), false, Some(stdio_of(&null))),
        Err(ShimError::Refused(_))
    ));
    control.unpause().unwrap();
    assert!(matches!(control.unpause(), Err(ShimError::Refused(_))));
    control.pause().unwrap();
    assert!(!control.stop(None, None).unwrap().killed);
    assert_eq!(fixture.state().exit_code, 143);
}

#[test]
fn a_killed_shim_is_judged_dead() {
    let fixture = script("sleep 100");
    let mut client = fixture.start();
    let state = fixture.state();
    assert_eq!((state.status, shim_pid(&fixture.plan.run_dir)), (Status::Running, Some(state.shim_pid)));
    let kill = |pid| {
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
    };
    kill(state.shim_pid).unwrap();
    eventually("the lock is free", || !is_alive(&fixture.plan.run_dir));
    assert!(matches!(Client::connect(&fixture.plan.run_dir), Err(ShimError::NotRunning { .. })));
    assert!(matches!(client.state(), Err(ShimError::Gone { .. })), "nobody is there to be asked");
    drop(client);
    kill(state.pid).unwrap();
    // The next shim finds a socket file and a lock file of a dead one.
    let mut again = script("exit 4");
    again.plan.run_dir.clone_from(&fixture.plan.run_dir);
    again.plan.state.clone_from(&fixture.plan.state);
    assert_eq!(again.start().wait().unwrap(), 4);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a flag for the check, not a record")]
fn health_is_checked_on_time_and_a_slow_check_fails() {
    let millis = |n: u64| n * 1_000_000;
    let mut fixture = script("sleep 100");
    let flag = fixture.dir.path().join("healthy");
    let command = format!("echo looked; test -e {}", flag.display());
    let health = |command: &str, timeout| HealthPlan {
        command: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
        interval: millis(20),
        timeout,
        start_period: 0,
        start_interval: millis(20),
        retries: 2,
    };
    fixture.plan.health = Some(health(&command, millis(5000)));
    let _client = fixture.start();
    let status = || fixture.connect().state().unwrap().health.unwrap();
    eventually("unhealthy", || status().status == "unhealthy");
    assert!(status().failing_streak >= 2 && status().log.last().unwrap().output == "looked\n");
    assert_eq!(fixture.state().health.unwrap().status, "unhealthy");
    std::fs::write(&flag, "").unwrap();
    eventually("healthy", || status().status == "healthy");
    eventually("five results are kept", || status().log.len() == 5);
    fixture.connect().stop(None, None).unwrap();

    let mut slow = script("sleep 100");
    slow.plan.health = Some(health("exec sleep 100", millis(30)));
    let _client = slow.start();
    eventually("unhealthy", || slow.connect().state().unwrap().health.unwrap().status == "unhealthy");
    assert_eq!(slow.connect().state().unwrap().health.unwrap().log[0].exit_code, -1);
    slow.connect().stop(None, None).unwrap();
}

#[test]
fn many_clients_are_served_at_once() {
    let fixture = script("read line; echo $line");
    let (mut client, mut stream) = {
        let mut fixture_plan = fixture.plan.clone();
        fixture_plan.stdin_open = true;
        let mut launch = Seed::fork_with::<PlainJail>(true).unwrap().become_shim().unwrap();
        launch.launch(fixture_plan).unwrap();
        let stream = launch.attach(true, false).unwrap();
        launch.proceed(NetworkHandles::default(), &[]).unwrap();
        (launch.into_client(), UnixStream::from(stream))
    };
    let attached = std::sync::Barrier::new(51);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let mut control = fixture.connect();
                let mut stream: UnixStream = control.attach(false, true).unwrap().into();
                attached.wait();
                assert_eq!(read_all(&mut stream).0, b"hello\n");
            });
        }
        attached.wait();
        write_all(&mut stream, b"hello\n");
    });
    assert_eq!(client.wait().unwrap(), 0);
}

#[test]
fn rubbish_on_the_socket_harms_nobody() {
    use proptest::strategy::{Strategy, ValueTree};
    let fixture = script("sleep 100");
    let mut client = fixture.start();
    let mut runner = proptest::test_runner::TestRunner::default();
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..200);
    let address = fixture.plan.run_dir.join("shim.sock");
    for round in 0..300 {
        let mut rubbish = bytes.new_tree(&mut runner).unwrap().current();
        if round % 2 == 0 && rubbish.len() > 4 {
            // A frame that is whole, around something that is not.
            let length = (rubbish.len() - 4) as u32;
            rubbish[..4].copy_from_slice(&length.to_le_bytes());
        }
        let mut stream = UnixStream::connect(&address).unwrap();
        // The shim may hang up in the middle.
        let _ = stream.write_all(&rubbish);
    }
    let null = std::fs::File::open("/dev/null").unwrap();
    for request in [
        Request::Signal { signal: i32::MAX },
        Request::Signal { signal: -1 },
        Request::Proceed(NetworkHandles::default()),
    ] {
        let mut control = fixture.connect();
        control.send(&request, &[null.as_fd(); 20]).unwrap();
        assert!(
            matches!(control.receive("odd", Some(Duration::from_secs(5))).unwrap().0, Reply::Refused(_)),
            "{request:?}"
        );
    }
    assert_eq!(client.state().unwrap().status, Status::Running);
    client.signal(9).unwrap();
    assert_eq!(client.wait().unwrap(), 137);
}

#[test]
fn the_socket_and_lock_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = script("sleep 100");
    let client = fixture.start();
    for (name, mode) in [("", 0o700), ("shim.sock", 0o600), ("lock", 0o600)] {
        let found = std::fs::metadata(fixture.plan.run_dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    drop(client);
    fixture.connect().stop(None, Some(0)).unwrap();
}

#[test]
fn a_container_that_needs_its_starter_dies_with_the_connection() {
    let mut fixture = script("trap '' TERM HUP INT; echo ready; while :; do sleep 0.01; done");
    fixture.plan.starter_finishes = true;
    fixture.plan.dies_with_starter = true;
    let client = fixture.start();
    eventually("it runs", || fixture.log() == "ready\n");
    drop(fixture.connect());
    assert!(is_alive(&fixture.plan.run_dir), "another caller's end is nothing to it");
    drop(client);
    eventually("it is killed", || !is_alive(&fixture.plan.run_dir));
    assert_eq!((fixture.state().status, fixture.state().exit_code), (Status::Exited, 137));
}
