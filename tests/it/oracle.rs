//! The same command on docker and here. `tests/oracle.sh` starts the engine; known differences stand with their reason.

use crate::support::{World, busybox_tar, docker, requires};

#[test]
fn oracle_same_answers_as_docker() {
    requires!(root, oracle);
    let world = World::new();
    world.busybox();
    docker(&["import", "--change", "CMD [\"sh\"]", busybox_tar().to_str().unwrap(), "busybox:latest"]).ok();
    let scripts: &[&[&str]] = &[
        &["busybox", "sh", "-c", "id; pwd; umask"],
        &["-u", "daemon", "busybox", "id"],
        &["-u", "daemon:users", "busybox", "id"],
        &["-u", "4321", "busybox", "id"],
        &["-w", "/new", "busybox", "sh", "-c", "pwd; stat -c '%u %a' ."],
        &["-e", "A=b", "--hostname", "h", "busybox", "sh", "-c", "env | sort"],
        &["busybox", "sh", "-c", "exit 3"],
        &["busybox", "no-such-program"],
        &["busybox", "/etc"],
        &["--entrypoint", "echo", "busybox", "x"],
        &[
            "busybox",
            "sh",
            "-c",
            "stat -c '%n %F %a %t,%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/shm /dev/pts",
        ],
        &["busybox", "sh", "-c", "readlink /dev/fd /dev/stdin /dev/ptmx /dev/core"],
        &["busybox", "sh", "-c", "grep -E '^Cap(Inh|Amb)' /proc/self/status"],
        &["--tmpfs", "/t", "busybox", "sh", "-c", "stat -c '%u %g' /t; grep -c ' /t ' /proc/mounts"],
        &["--read-only", "busybox", "sh", "-c", "touch /x; echo $?"],
        &["--ulimit", "nofile=64:128", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"],
        &["busybox", "sh", "-c", "ls /proc/scsi /proc/acpi 2>/dev/null | wc -l; wc -c < /proc/timer_list"],
    ];
    let mut different = Vec::new();
    for script in scripts {
        let arguments: Vec<&str> = ["run", "--rm", "--network", "none"].iter().chain(script.iter()).copied().collect();
        let (ours, theirs) = (world.bulkhead(&arguments), docker(&arguments));
        if (ours.code, &ours.stdout) != (theirs.code, &theirs.stdout) {
            different.push(format!(
                "{script:?}\n  ours   {} {:?} {:?}\n  docker {} {:?}",
                ours.code, ours.stdout, ours.stderr, theirs.code, theirs.stdout
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn oracle_same_image_configuration_from_one_dockerfile() {
    requires!(root, oracle);
    let world = World::new();
    world.busybox();
    docker(&["import", "--change", "CMD [\"sh\"]", busybox_tar().to_str().unwrap(), "busybox:latest"]).ok();
    world.write("c/Dockerfile", "FROM busybox\nENV A=1\nWORKDIR /w\nCOPY f .\nRUN echo x > y\nUSER daemon\nEXPOSE 80\nVOLUME /d\nLABEL a=b c=\"d e\"\nENTRYPOINT echo shell\nCMD [\"x\"]\nSTOPSIGNAL 9\nHEALTHCHECK --interval=3s --retries=2 CMD true\n");
    world.write("c/f", "f");
    let directory = world.path("c");
    let build = ["build", "-q", "-t", "c:1", directory.to_str().unwrap()];
    world.ok(&build);
    docker(&build).ok();
    let inspect = ["image", "inspect", "--format", "{{json .Config}}", "c:1"];
    let read = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let (ours, theirs) = (read(world.ok(&inspect)), read(docker(&inspect).ok()));
    for key in [
        "Env",
        "WorkingDir",
        "User",
        "ExposedPorts",
        "Volumes",
        "Labels",
        "Entrypoint",
        "Cmd",
        "StopSignal",
        "Healthcheck",
    ] {
        assert_eq!(ours.get(key), theirs.get(key), "{key}");
    }
}
