//! The same Dockerfiles built by BuildKit, by buildah and here: files below `/out` and configuration, fact by fact. Cases are
//! `tests/data/oracle/dockerfiles/<case>/{Dockerfile,context,flags}`; in `differs` stands where we must not agree, and why.

use crate::support::{Outcome, World, busybox_tar, docker, host, requires, tell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A difference that is meant: `BUILDER: PART OF THE FACT: reason`.
struct Known<'t> {
    builder: &'t str,
    fact: &'t str,
}

fn known(text: &str) -> Vec<Known<'_>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.splitn(3, ": ");
            let (builder, fact) = (parts.next().unwrap(), parts.next().expect("BUILDER: FACT: reason"));
            assert!(parts.next().is_some_and(|reason| reason.len() > 10), "why? {line}");
            Known { builder, fact }
        })
        .collect()
}

/// Splits a description into facts that stand for themselves: what a file holds is told with its name.
fn facts(description: &str) -> BTreeSet<String> {
    let mut name = String::new();
    let mut number = 0;
    let mut fact = |line: &str| match line.strip_prefix("  ") {
        Some(content) => {
            number += 1;
            format!("{name} line {number} {content}")
        }
        None => {
            (name, number) = (line.rsplit(" ./").next().unwrap_or(line).to_owned(), 0);
            line.to_owned()
        }
    };
    description.lines().filter(|line| *line != "---").map(&mut fact).collect()
}

/// Builds with Debian's client, which has BuildKit built in.
fn buildkit(world: &World, words: &[&str]) -> Outcome {
    let socket = std::env::var("BULKHEAD_TEST_DOCKER").unwrap_or_default();
    let mut command = std::process::Command::new("timeout");
    command.args(["-k", "5", "120", "/usr/bin/docker", "-H", &socket, "build", "-q", "-t", "case:1"]).args(words);
    command.env("DOCKER_BUILDKIT", "1").current_dir(world.path(""));
    Outcome::of(&mut command, None)
}

fn buildah(world: &World, words: &[&str]) -> Outcome {
    let (root, run) = (world.path("buildah"), world.path("buildah-run"));
    let store = ["--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap(), "--storage-driver", "vfs"];
    world.host("buildah", &[&store[..], words].concat())
}

/// Takes an image that another engine saved as `case:1` and describes it.
fn loaded(world: &World, archive: &Path) -> String {
    world.bulkhead(&["rmi", "-f", "case:1"]);
    world.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
    let told = crate::dockerfiles::tell(world);
    std::fs::remove_file(archive).unwrap();
    told
}

fn cases() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oracle/dockerfiles");
    let mut found: Vec<_> = std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn oracle_same_trees_and_configurations_from_the_same_dockerfiles() {
    requires!(root, oracle, program "/usr/bin/docker");
    let world = World::new();
    world.busybox();
    docker(&["import", "--change", "CMD [\"sh\"]", busybox_tar().to_str().unwrap(), "busybox:latest"]).ok();
    let archive = world.path("image.tar");
    let place = archive.to_str().unwrap();
    let with_buildah =
        crate::support::need_program("buildah").is_ok() && crate::support::need_program("skopeo").is_ok();
    if with_buildah {
        world.ok(&["save", "-o", place, "busybox:latest"]);
        let store = format!(
            "containers-storage:[vfs@{}+{}]",
            world.path("buildah").display(),
            world.path("buildah-run").display()
        );
        let to = format!("{store}docker.io/library/busybox:latest");
        host("skopeo", &["copy", "-q", "--insecure-policy", &format!("docker-archive:{place}"), &to]).ok();
        std::fs::remove_file(&archive).unwrap();
    } else {
        tell("without buildah, which is not installed");
    }
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let flags = std::fs::read_to_string(case.join("flags")).unwrap_or_default();
        let (file, context) = (case.join("Dockerfile"), case.join("context"));
        let context = if context.is_dir() { context } else { case.clone() };
        let mut words: Vec<&str> = flags.split_whitespace().collect();
        words.extend(["-f", file.to_str().unwrap(), context.to_str().unwrap()]);
        world.bulkhead(&[&["build", "--network", "none", "-t", "case:1"], &words[..]].concat()).ok();
        let ours = facts(&crate::dockerfiles::tell(&world));
        let differs = std::fs::read_to_string(case.join("differs")).unwrap_or_default();
        let differs = known(&differs);
        let mut compare = |builder: &str, theirs: &BTreeSet<String>| {
            compared += 1;
            let meant: Vec<&Known<'_>> = differs.iter().filter(|known| known.builder == builder).collect();
            let of = |fact: &str| meant.iter().position(|known| fact.contains(known.fact));
            let mut seen = BTreeSet::new();
            for (who, fact) in
                ours.difference(theirs).map(|f| ("ours", f)).chain(theirs.difference(&ours).map(|f| (builder, f)))
            {
                match of(fact) {
                    Some(at) => drop(seen.insert(at)),
                    None => wrong.push(format!("{name}: only {who}: {fact}")),
                }
            }
            let gone = (0..meant.len()).filter(|at| !seen.contains(at));
            wrong.extend(gone.map(|at| format!("{name}: {builder} is the same now: {}", meant[at].fact)));
        };
        buildkit(&world, &words).ok();
        docker(&["save", "-o", place, "case:1"]).ok();
        compare("buildkit", &facts(&loaded(&world, &archive)));
        if with_buildah {
            let build = [
                "bud",
                "-q",
                "--isolation",
                "chroot",
                "--layers",
                "--pull-never",
                "--format",
                "docker",
                "-t",
                "case:1",
            ];
            buildah(&world, &[&build, &words[..]].concat()).ok();
            buildah(&world, &["push", "-q", "case:1", &format!("docker-archive:{place}:case:1")]).ok();
            compare("buildah", &facts(&loaded(&world, &archive)));
        }
    }
    assert!(
        compared >= 5 && wrong.is_empty(),
        "{compared} compared, {} facts differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
