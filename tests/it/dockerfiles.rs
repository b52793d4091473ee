//! Dockerfiles and what becomes of them: `tests/data/dockerfile/<case>/{Dockerfile,context,flags,tree}`, where `tree` holds the files
//! below `/out` and the image's configuration.

use crate::support::{World, host, requires};
use std::path::{Path, PathBuf};

/// Lists `/img/out`: modes, owners, targets of links, contents.
const LIST: &str = "FROM busybox\nRUN --mount=from=case:1,target=/img cd /img/out && find . | sort | while read -r path; do \
    stat -c '%A %u:%g %n' \"$path\" >> /list; \
    if [ -L \"$path\" ]; then echo \"  -> $(readlink \"$path\")\" >> /list; \
    elif [ -f \"$path\" ]; then sed 's/^/  | /' \"$path\" >> /list; fi; done\n";

fn cases() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dockerfile");
    let entries = std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|case| case.join("tree").exists()).collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Builds a case in a world and describes what came out.
fn describe(world: &World, case: &Path) -> String {
    let flags = std::fs::read_to_string(case.join("flags")).unwrap_or_default();
    let context = case.join("context");
    let context = if context.is_dir() { context } else { world.path("nothing") };
    std::fs::create_dir_all(&context).unwrap();
    let context = context.to_str().unwrap();
    let file = case.join("Dockerfile");
    let mut arguments = vec!["build", "-t", "case:1", "-f", file.to_str().unwrap()];
    let flags: Vec<String> = flags.split_whitespace().map(|word| word.replace("{context}", context)).collect();
    arguments.extend(flags.iter().map(String::as_str));
    arguments.push(context);
    let built = world.bulkhead(&arguments);
    assert_eq!(built.code, 0, "{}: {}", case.display(), built.stderr);
    tell(world)
}

/// Describes `case:1`.
pub(crate) fn tell(world: &World) -> String {
    world.write("list/Dockerfile", LIST);
    world.ok(&["build", "--no-cache", "-t", "list:1", world.path("list").to_str().unwrap()]);
    let tree = world.ok(&["run", "--rm", "--network", "none", "list:1", "cat", "/list"]);
    let config: serde_json::Value = serde_json::from_str(&world.inspect("case:1", "{{json .Config}}")).unwrap();
    let lines = config.as_object().unwrap().iter().filter(|(_, value)| !is_empty(value));
    let config: Vec<String> = lines.map(|(name, value)| format!("{name} {value}")).collect();
    format!("{tree}\n---\n{}\n", config.join("\n"))
}

/// What says nothing differs between engines and is left out.
fn is_empty(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Bool(flag) => !flag,
        serde_json::Value::String(text) => text.is_empty(),
        serde_json::Value::Array(list) => list.is_empty(),
        serde_json::Value::Object(map) => map.is_empty(),
        serde_json::Value::Number(_) => false,
    }
}

#[test]
fn trees_and_configurations_come_out_as_written_down() {
    requires!(root);
    let world = World::new();
    world.busybox();
    for case in cases() {
        let found = describe(&world, &case);
        if std::env::var_os("BULKHEAD_BLESS").is_some() {
            std::fs::write(case.join("tree"), &found).unwrap();
        }
        let expected = std::fs::read_to_string(case.join("tree")).unwrap();
        assert_eq!(found, expected, "{}\n{found}", case.display());
    }
}

#[test]
fn a_step_without_walls_needs_the_operator_and_the_command_line() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let file = "FROM busybox\nRUN --security=insecure grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status > /walls; mkdir /m && mount -t tmpfs none /m && echo mounted >> /walls\n\
                RUN grep Seccomp: /proc/self/status >> /walls\n";
    let context = crate::support::build::Context::new(&world, "insecure", file, &[]);
    context.build(&[]).fails(1, &["--security=insecure is not allowed", ":2", "allow_insecure"]);
    context.build(&["--allow", "security.insecure"]).fails(125, &["allow_insecure = true"]);
    let settings = world.write("settings.toml", "[build]\nallow_insecure = true\n");
    let directory = world.path("insecure");
    let build = |flags: &[&str]| {
        let mut command =
            world.command(&[&["build", "-t", "insecure:1"], flags, &[directory.to_str().unwrap()]].concat());
        crate::support::Outcome::of(command.env("BULKHEAD_CONFIG", &settings), None)
    };
    build(&[]).fails(1, &["--security=insecure is not allowed"]);
    build(&["--allow", "security.insecure"]).ok();
    let walls = context.run("cat /walls");
    let lines: Vec<&str> = walls.lines().collect();
    assert!(
        lines[0].starts_with("CapEff:\t000001ff") && lines[1] == "NoNewPrivs:\t0" && lines[2] == "Seccomp:\t0",
        "{walls}"
    );
    assert_eq!((lines[3], lines[4]), ("mounted", "Seccomp:\t2"), "and the next step has them again");
}

#[test]
fn links_are_followed_inside_the_tree_and_never_out_of_it() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let outside = world.write("outside/file", "outside-t5\n");
    let file = format!(
        "FROM busybox\nRUN mkdir /in && ln -s {} /in/abs && ln -s ../../../../../tmp /in/up && ln -s loop /in/loop\n\
         COPY a.txt /in/up/through\nCOPY a.txt /in/abs/below/x\nCOPY --link a.txt /in/up/own\nCOPY a.txt /in/name\n",
        outside.parent().unwrap().display()
    );
    let context = crate::support::build::Context::new(&world, "links", &file, &[("a.txt", "A\n")]);
    context.build(&[]).ok();
    let place = outside.parent().unwrap().display().to_string();
    assert_eq!(
        context.run(&format!(
            "cat /tmp/through {place}/below/x /in/up/own; ls -d /tmp/through; test -L /in/up || echo directory"
        )),
        "A\nA\nA\n/tmp/through\ndirectory"
    );
    assert!(!outside.parent().unwrap().join("below").exists());
    let evil = crate::support::build::Context::new(&world, "evil", "FROM busybox\nCOPY link /x\n", &[]);
    std::os::unix::fs::symlink(&outside, world.path("evil/link")).unwrap();
    evil.build(&[]).fails(1, &["link", ":2"]);
    let round = crate::support::build::Context::new(&world, "round", "FROM links:1\nCOPY Dockerfile /in/loop/x\n", &[]);
    round.build(&[]).fails(1, &[":2"]);
    assert_eq!(host("cat", &[outside.to_str().unwrap()]).ok(), "outside-t5");
}
