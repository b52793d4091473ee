//! What `README.md` promises a newcomer: the tour works as it is printed, and bash completes.

use crate::support::{BULKHEAD, Outcome, World, requires, wait_for};

/// Runs shell lines in the repository, with the program under test as `bulkhead`.
fn shell(world: &World, text: &str) -> Outcome {
    let programs = world.path("bin");
    if !programs.exists() {
        std::fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink(BULKHEAD, programs.join("bulkhead")).unwrap();
    }
    let path = format!("PATH={}:{}", programs.display(), std::env::var("PATH").unwrap());
    let root = format!("BULKHEAD_ROOT={}", world.root.display());
    let run = format!("BULKHEAD_RUN={}", world.run.display());
    let text = format!("cd {} && {text}", env!("CARGO_MANIFEST_DIR"));
    let seen = world.host("env", &[&path, &root, &run, "bash", "-c", &text]);
    world.note();
    seen
}

/// Types a line at a terminal, and `exit` behind it.
fn type_in(world: &World, line: &str) -> Outcome {
    shell(world, &format!("script -qec {} /dev/null <<< exit", quoted(line)))
}

/// A word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[test]
fn bash_completes_verbs_flags_and_names() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("first-one").program(&["true"]).create();
    world.ok(&["volume", "create", "stuff"]);
    // What readline hands over: the words, and three arguments.
    let script = r#"source <(bulkhead completion bash)
        offer() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _bulkhead_names "$1" "${@: -1}" "${@: -2:1}"
            echo "${COMPREPLY[*]:-(nothing)}"
        }
        offer bulkhead renam; offer bulkhead run --publish-; offer bulkhead logs -f f; offer bulkhead run -it bus
        offer bulkhead --root x image rm b; offer bulkhead volume rm s; offer bulkhead inspect ""; offer bulkhead exec -e fi
        offer bulkhead run --privileged bus; offer bulkhead rm -fv fi; offer bulkhead run -a bus
        offer bulkhead run -ite bus; offer bulkhead container run --name bus; offer bulkhead wait - fi"#;
    let seen = shell(&world, script).ok();
    let offered: Vec<&str> = seen.lines().collect();
    let expected =
        ["rename", "--publish-all", "first-one", "busybox", "busybox", "stuff", "first-one busybox", "(nothing)"];
    assert_eq!(offered[..8], expected, "{seen}");
    // Which flags take a value is a matter of the verb.
    let expected = ["busybox", "first-one", "(nothing)", "(nothing)", "(nothing)", "first-one"];
    assert_eq!(offered[8..], expected, "{seen}");
}

#[test]
fn the_tour_works_as_printed() {
    requires!(root, program "curl", program "script");
    let world = World::new();
    let readme = include_str!("../../README.md");
    let tour = readme.split("## A short tour").nth(1).and_then(|rest| rest.split("```").nth(1)).unwrap();
    let lines: Vec<&str> = tour.lines().map(|line| line.split("  #").next().unwrap().trim()).collect();
    assert!(lines.iter().filter(|line| line.contains("bulkhead")).count() >= 7, "{lines:?}");
    for line in lines.into_iter().filter(|line| !line.is_empty()) {
        if line.starts_with("curl") {
            // Nobody types as fast as this test; the server needs a moment.
            wait_for("the page", 20, || type_in(&world, line).stdout.contains("hello from").then_some(()));
        } else {
            type_in(&world, line).ok();
        }
    }
    assert_eq!(world.ok(&["ps", "-aq"]), "", "the tour cleans up after itself");
}
