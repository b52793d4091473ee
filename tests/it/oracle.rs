//! The same command lines on docker and here. `tests/oracle.sh` starts the engine; the lines stand in `tests/data/oracle`,
//! and with those that must differ stands why.

use crate::support::{Outcome, World, busybox_tar, docker, host, requires};
use std::sync::{Mutex, PoisonError};

/// One line of a file and why the two differ there, if they do.
struct Line<'t> {
    text: &'t str,
    differs: Option<&'t str>,
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut differs = None;
    for text in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match text.strip_prefix("differs: ") {
            Some(reason) => differs = Some(reason),
            None => lines.push(Line { text, differs: differs.take() }),
        }
    }
    lines
}

/// All tests share one engine.
static ENGINE: Mutex<()> = Mutex::new(());

/// Plays the lines of a file on both, one after the other, and compares code and stdout.
fn play(world: &World, file: &str) {
    let _alone = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    for id in docker(&["ps", "-aq"]).ok().lines() {
        docker(&["rm", "-f", "-v", id]);
    }
    docker(&["import", "--change", "CMD [\"sh\"]", busybox_tar().to_str().unwrap(), "busybox:latest"]).ok();
    world.busybox();
    world.write("entry/Dockerfile", "FROM busybox\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"cmd\"]\n");
    let build = ["build", "-q", "-t", "entry", world.path("entry").to_str().unwrap()].map(str::to_owned);
    let build = build.each_ref().map(String::as_str);
    world.ok(&build);
    docker(&build).ok();
    let environment = world.write("env", "# comment\nA=1\n\n  B=2\nC=x y\nD\nE=\"q\"\n");
    let socket = std::env::var("BULKHEAD_TEST_DOCKER").unwrap();
    let mut ours =
        format!("{} --root {} --run {}", crate::support::BULKHEAD, world.root.display(), world.run.display());
    if let Some(name) = &world.netns {
        ours = format!("nsenter --net=/run/netns/{name} -- {ours}");
    }
    let theirs = format!("docker -H {socket}");
    let mut wrong = Vec::new();
    for Line { text, differs } in lines(file) {
        let say = |program: &str| -> Outcome {
            let script = format!("ENV_FILE={}; c() {{ {program} \"$@\"; }}; c {text}", environment.display());
            host("sh", &["-c", &script])
        };
        let (ours, theirs) = (say(&ours), say(&theirs));
        let same = (ours.code, &ours.stdout) == (theirs.code, &theirs.stdout);
        match differs {
            None if !same => wrong.push(format!(
                "{text}\n  ours   {} {:?} {:?}\n  docker {} {:?} {:?}",
                ours.code, ours.stdout, ours.stderr, theirs.code, theirs.stdout, theirs.stderr
            )),
            Some(reason) if same => wrong.push(format!("{text}\n  is the same now, although: {reason}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} lines:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn oracle_run_has_dockers_flags_codes_and_output() {
    requires!(root, oracle);
    play(&World::new(), include_str!("../data/oracle/run.txt"));
}

#[test]
fn oracle_containers_live_as_dockers_do() {
    requires!(root, oracle);
    play(&World::new(), include_str!("../data/oracle/life.txt"));
}

#[test]
fn oracle_same_image_configuration_from_one_dockerfile() {
    requires!(root, oracle);
    let _alone = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Tells everything of a tree that an archive carries: modes, owners, kinds, links, contents.
const TELL: &str = "cd /w && find . | sort | while read -r path; do stat -c '%n %f %u:%g' \"$path\"; \
    if [ -L \"$path\" ]; then readlink \"$path\"; elif [ -f \"$path\" ]; then stat -c %h \"$path\"; md5sum < \"$path\"; fi; done";

#[test]
fn oracle_images_survive_the_way_through_the_other_and_back() {
    requires!(root, oracle);
    let _alone = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.busybox();
    docker(&["import", "--change", "CMD [\"sh\"]", busybox_tar().to_str().unwrap(), "busybox:latest"]).ok();
    // Later layers remove, replace and change what earlier ones made.
    world.write(
        "c/Dockerfile",
        "FROM busybox\nRUN mkdir -p /w/kept /w/gone/deep /w/swap /w/turns && echo a > /w/kept/a && chown 1234:5678 /w/kept/a \
         && chmod 4750 /w/kept/a && ln /w/kept/a /w/kept/hard && ln -s ../kept/a /w/kept/soft && echo b > /w/gone/deep/b \
         && echo c > /w/swap/c && chmod 1777 /w/turns && head -c 3000000 /dev/zero > /w/zeros && mkfifo /w/pipe\n\
         RUN rm -r /w/gone /w/swap && mkdir /w/swap && echo d > /w/swap/d && rmdir /w/turns && echo file > /w/turns\n\
         COPY --chown=7:8 data /w/\nRUN mv /w/kept/hard '/w/a name with spaces, ümlaut'\nENV A=\"b c\"\nLABEL x=y\nCMD [\"cat\", \"/w/swap/d\"]\n",
    );
    world.write(&format!("c/data/{}/file", "long".repeat(40)), "deep");
    let directory = world.path("c");
    let directory = directory.to_str().unwrap();
    let archive = |name: &str| world.path(name).to_str().unwrap().to_owned();
    let here = |words: &[&str]| world.bulkhead(words).ok();
    let there = |words: &[&str]| docker(words).ok();
    // What each says of an image: its id, its layers, its configuration, and the tree its containers see.
    let told = |by: &dyn Fn(&[&str]) -> String, image: &str| {
        let format =
            "{{.Id}} {{json .RootFS.Layers}} {{json .Config.Env}} {{json .Config.Labels}} {{json .Config.Cmd}}";
        let said = by(&["image", "inspect", "--format", format, image]);
        format!("{said}\n{}", by(&["run", "--rm", "--network", "none", image, "sh", "-c", TELL]))
    };
    for (origin, maker, other) in [
        ("docker", &there as &dyn Fn(&[&str]) -> String, &here as &dyn Fn(&[&str]) -> String),
        ("bulkhead", &here, &there),
    ] {
        let image = format!("trip-{origin}:1");
        let (out, back) = (archive(&format!("{origin}-out.tar")), archive(&format!("{origin}-back.tar")));
        maker(&["build", "-q", "-t", &image, directory]);
        let at_first = told(maker, &image);
        assert!(at_first.contains("ümlaut") && !at_first.contains("gone"), "{at_first}");
        maker(&["save", "-o", &out, &image]);
        other(&["load", "-i", &out]);
        assert_eq!(told(other, &image), at_first, "made by {origin}, seen by the other");
        other(&["save", "-o", &back, &image]);
        maker(&["rmi", &image]);
        maker(&["load", "-i", &back]);
        assert_eq!(told(maker, &image), at_first, "made by {origin}, back from the other");
        other(&["rmi", &image]);
        maker(&["rmi", &image]);
    }
}
