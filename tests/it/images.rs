//! Images: `import load save images tag rmi history image inspect`, and archives that are not what they should be.

use crate::support::{BULKHEAD, World, busybox_tar, host, requires};
use std::path::Path;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn import_tag_list_and_remove() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let table = world.ok(&["images"]);
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1], row[2].len()), ("busybox", "latest", 12));
    world.ok(&["tag", "busybox", "other/name:1.0"]);
    assert_eq!(world.ok(&["images", "-q"]).lines().count(), 2);
    assert_eq!(world.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().count(), 2);
    let id = world.ok(&["image", "inspect", "--format", "{{.Id}}", "other/name:1.0"]);
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert!(world.ok(&["rmi", "other/name:1.0"]).starts_with("Untagged:"));
    world.ok(&["run", "-d", "--network", "none", "--name", "user", "busybox", "sleep", "600"]);
    let user = world.inspect("user", "{{.Id}}");
    world.bulkhead(&["rmi", "busybox"]).fails(1, &["busybox", &user[..12]]);
    world.ok(&["rm", "-f", "user"]);
    world.ok(&["rmi", "busybox"]);
    assert_eq!(world.ok(&["images", "-q"]), "");
    let blobs = std::fs::read_dir(world.root.join("content/blobs/sha256")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0, "what no image needs is gone");
    world.bulkhead(&["rmi", "busybox"]).fails(1, &["busybox"]);
    world.bulkhead(&["tag", "nothing", "x"]).fails(1, &["nothing"]);
    world.bulkhead(&["tag", "nothing", "UPPER"]).fails(1, &["UPPER"]);
}

#[test]
fn saved_images_load_again_and_others_can_read_them() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let id = world.ok(&["image", "inspect", "--format", "{{.Id}}", "busybox"]);
    let file = world.path("saved.tar");
    world.ok(&["save", "-o", text(&file), "busybox"]);
    let names = host("tar", &["-tf", text(&file)]).ok();
    for name in ["manifest.json", "index.json", "oci-layout"] {
        assert!(names.lines().any(|line| line == name), "{name} in {names}");
    }
    world.ok(&["rmi", "busybox"]);
    let said = world.ok(&["load", "-i", text(&file)]);
    assert!(said.contains("busybox:latest"), "{said}");
    assert_eq!(world.ok(&["image", "inspect", "--format", "{{.Id}}", "busybox"]), id);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "busybox", "echo", "works"]), "works");
    let stream = std::fs::read(&file).unwrap();
    world.bulkhead_with(&["load"], Some(&stream)).ok();
}

#[test]
fn an_oci_layout_made_by_others_loads() {
    requires!(root, program "skopeo");
    let world = World::new();
    world.busybox();
    let (saved, layout, archive) = (world.path("saved.tar"), world.path("layout"), world.path("layout.tar"));
    world.ok(&["save", "-o", text(&saved), "busybox"]);
    let to = format!("oci:{}:busybox:again", layout.display());
    host(
        "skopeo",
        &["copy", "-q", "--dest-compress", "--insecure-policy", &format!("docker-archive:{}", saved.display()), &to],
    )
    .ok();
    host("tar", &["-C", text(&layout), "-cf", text(&archive), "."]).ok();
    world.ok(&["rmi", "busybox"]);
    world.ok(&["load", "-i", text(&archive)]);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "busybox:again", "echo", "works"]), "works");
}

#[test]
fn history_and_configuration_come_from_import_changes() {
    requires!(root);
    let world = World::new();
    let tar = busybox_tar();
    let changes = [
        "ENV A=1 B=2",
        "WORKDIR /srv",
        "USER daemon",
        "EXPOSE 80/tcp",
        "VOLUME /data",
        "LABEL k=v",
        "STOPSIGNAL SIGUSR1",
        "ENTRYPOINT [\"sh\", \"-c\"]",
        "CMD [\"pwd; id -un; echo $A$B\"]",
    ];
    let mut arguments = vec!["import", "-m", "made here"];
    for change in &changes {
        arguments.extend(["--change", change]);
    }
    arguments.extend([text(&tar), "made:1"]);
    world.ok(&arguments);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "made:1"]), "/srv\ndaemon\n12");
    let config: serde_json::Value =
        serde_json::from_str(&world.ok(&["image", "inspect", "--format", "{{json .Config}}", "made:1"])).unwrap();
    assert_eq!(config["ExposedPorts"], serde_json::json!({"80/tcp": {}}));
    assert_eq!(config["Volumes"], serde_json::json!({"/data": {}}));
    assert_eq!((config["StopSignal"].as_str(), config["User"].as_str()), (Some("SIGUSR1"), Some("daemon")));
    let history = world.ok(&["history", "--format", "{{.Comment}}", "made:1"]);
    assert_eq!(history, "made here");
    world.bulkhead(&["import", "--change", "RUN true", text(&tar), "x"]).fails(1, &["RUN"]);
}

#[test]
fn broken_archives_say_what_is_wrong_and_leave_nothing() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let saved = world.path("saved.tar");
    world.ok(&["save", "-o", text(&saved), "busybox"]);
    world.ok(&["rmi", "busybox"]);
    let whole = std::fs::read(&saved).unwrap();
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("zeros", vec![0; 1 << 16]),
        ("noise", (0..1_u32 << 16).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
    ];
    for part in [1000, whole.len() / 2, whole.len() - 3000] {
        cases.push(("truncated", whole[..part].to_vec()));
    }
    let mut flipped = whole.clone();
    let at = flipped.len() / 2;
    flipped[at] ^= 0x40;
    cases.push(("one bit flipped", flipped));
    for (what, bytes) in cases {
        let file = world.write("broken.tar", &bytes);
        let seen = world.bulkhead(&["load", "-i", text(&file)]);
        assert_eq!(seen.code, 1, "{what}: {seen:?}");
        assert!(seen.stderr.starts_with("error: ") && seen.stderr.contains("broken.tar"), "{what}: {}", seen.stderr);
        assert_eq!(world.ok(&["images", "-q"]), "", "{what} leaves no image");
    }
    let left: Vec<_> = std::fs::read_dir(world.root.join("content/ingest"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    world.bulkhead(&["load", "-i", text(&world.path("missing.tar"))]).fails(1, &["missing.tar"]);
}

#[test]
fn another_architecture_is_refused() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let saved = world.path("saved");
    world.ok(&["save", "-o", text(&world.path("saved.tar")), "busybox"]);
    std::fs::create_dir(&saved).unwrap();
    host("tar", &["-C", text(&saved), "-xf", text(&world.path("saved.tar"))]).ok();
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(saved.join("manifest.json")).unwrap()).unwrap();
    let config = manifest[0]["Config"].as_str().unwrap();
    let other = std::fs::read_to_string(saved.join(config)).unwrap().replace("\"amd64\"", "\"riscv64\"");
    std::fs::write(saved.join("other.json"), other).unwrap();
    let manifest =
        serde_json::json!([{"Config": "other.json", "RepoTags": ["other:1"], "Layers": manifest[0]["Layers"]}]);
    std::fs::write(saved.join("manifest.json"), manifest.to_string()).unwrap();
    for name in ["index.json", "oci-layout"] {
        std::fs::remove_file(saved.join(name)).unwrap();
    }
    host("tar", &["-C", text(&saved), "-cf", text(&world.path("other.tar")), "."]).ok();
    world.bulkhead(&["load", "-i", text(&world.path("other.tar"))]).fails(1, &["riscv64", "amd64"]);
    assert!(!world.ok(&["images"]).contains("other"));
}

/// Runs the program under strace and returns its renames and syncs, in order.
fn writes(world: &World, arguments: &[&str]) -> Vec<String> {
    let trace = world.path("trace");
    let calls = "trace=rename,renameat,renameat2,fsync,fdatasync,syncfs,sync";
    let mut words = vec!["-f", "-y", "-o", text(&trace), "-e", calls, "--", crate::support::BULKHEAD];
    words.extend(["--root", text(&world.root), "--run", text(&world.run)]);
    words.extend(arguments);
    world.host("strace", &words).ok();
    joined(&std::fs::read_to_string(trace).unwrap())
}

/// Puts the halves of a call together that strace wrote apart because another process spoke in between; the whole stands
/// where the call ended.
fn joined(trace: &str) -> Vec<String> {
    let mut begun = std::collections::HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let (pid, call) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, first);
            continue;
        }
        let rest = call.split_once(" resumed>").filter(|_| call.trim_start().starts_with("<..."));
        calls.push(match rest.and_then(|(_, rest)| Some((begun.remove(pid)?, rest))) {
            Some((first, rest)) => format!("{pid} {first}{rest}"),
            None => line.to_owned(),
        });
    }
    calls
}

#[test]
fn calls_that_strace_cut_in_two_are_joined() {
    let trace = "7 renameat2(AT_FDCWD, \"a\", AT_FDCWD, \"b\", RENAME_NOREPLACE <unfinished ...>\n8 sync() = 0\n\
                 7 <... renameat2 resumed>) = 0\n8 +++ exited with 0 +++\n";
    let whole = "7 renameat2(AT_FDCWD, \"a\", AT_FDCWD, \"b\", RENAME_NOREPLACE) = 0";
    assert_eq!(joined(trace), ["8 sync() = 0", whole, "8 +++ exited with 0 +++"]);
}

/// The order in which a power cut may find things: layers in place, all of it synced, then the record.
#[track_caller]
fn check_order(calls: &[String], layers: usize) {
    let all = calls.join("\n");
    let at = |what: &str, found: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let places: Vec<usize> = (0..calls.len()).filter(|i| found(&calls[*i])).collect();
        assert!(!places.is_empty(), "no {what} in\n{all}");
        places
    };
    // The second path of a rename stands before the flags or the closing bracket.
    let put = at("layer put in place", &|call| {
        call.contains("NOREPLACE") && call.contains("/snapshots/") && call.ends_with("= 0")
    });
    let sync = at("sync", &|call| call.contains(" syncfs(") && call.ends_with("= 0"));
    let record = at("record", &|call| call.contains(" rename") && call.contains("images/references.json\""));
    assert_eq!((put.len(), sync.len(), record.len()), (layers, 1, 1), "{all}");
    assert!(put.last() < sync.first() && sync.last() < record.first(), "{all}");
    let flushed =
        calls[..record[0]].iter().any(|call| call.contains(" fsync(") && call.contains("images/references.json"));
    assert!(flushed, "the record's own text is synced before it takes its place\n{all}");
}

#[test]
fn layers_are_on_disk_before_the_record_that_names_them() {
    requires!(root, program "strace");
    let world = World::new();
    world.busybox();
    let saved = world.path("saved.tar");
    world.write("ctx/Dockerfile", "FROM busybox\nCOPY Dockerfile /\nRUN echo 1 > /one\nRUN echo 2 > /two\n");
    let context = world.path("ctx");
    let build = ["build", "-t", "built:1", text(&context)];
    check_order(&writes(&world, &build), 3);
    let syncs = |calls: &[String]| calls.iter().filter(|call| call.contains("sync")).count();
    assert_eq!(syncs(&writes(&world, &build)), 0, "nothing new, nothing to flush");
    assert_eq!(
        syncs(&writes(&world, &["run", "--rm", "--network", "none", "built:1", "true"])),
        0,
        "a start flushes nothing"
    );
    world.ok(&["save", "-o", text(&saved), "built:1"]);
    world.ok(&["rmi", "built:1", "busybox"]);
    world.ok(&["image", "prune", "-af"]);
    std::fs::remove_dir_all(world.root.join("build/cache")).unwrap();
    world.ok(&["image", "prune", "-af"]);
    check_order(&writes(&world, &["load", "-i", text(&saved)]), 4);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "built:1", "cat", "/one", "/two"]), "1\n2");
}

#[test]
fn podman_takes_what_we_save_and_we_what_it_saves() {
    requires!(root, program "podman");
    let world = World::new();
    world.busybox();
    let id = world.ok(&["image", "inspect", "--format", "{{.Id}}", "busybox"]);
    let (saved, root, run) = (world.path("saved.tar"), world.path("podman/root"), world.path("podman/run"));
    world.ok(&["save", "-o", text(&saved), "busybox"]);
    world.ok(&["rmi", "busybox"]);
    let podman = |words: &[&str]| {
        let own = ["--root", text(&root), "--runroot", text(&run), "--storage-driver=vfs", "--cgroup-manager=cgroupfs"];
        let all: Vec<&str> = own
            .into_iter()
            .chain(["--events-backend=none", "--log-level=error"])
            .chain(words.iter().copied())
            .collect();
        host("podman", &all).ok()
    };
    podman(&["load", "-q", "-i", text(&saved)]);
    assert_eq!(podman(&["images", "-q", "--no-trunc"]), id, "the same image there");
    for format in ["docker-archive", "oci-archive"] {
        let back = world.path(format);
        podman(&["save", "-q", "--format", format, "-o", text(&back), "busybox"]);
        world.ok(&["load", "-i", text(&back)]);
        assert_eq!(world.ok(&["run", "--rm", "--network", "none", "busybox", "echo", "works"]), "works", "{format}");
        if format == "docker-archive" {
            assert_eq!(world.ok(&["image", "inspect", "--format", "{{.Id}}", "busybox"]), id, "and here again");
        }
        world.ok(&["rmi", "busybox"]);
    }
}

#[test]
fn in_a_chroot_it_is_said_that_nothing_can_be_unpacked_there() {
    requires!(root);
    let world = World::new();
    let place = world.path("all").display().to_string();
    std::fs::create_dir(&place).unwrap();
    let script = "mount --rbind / \"$0\" && exec chroot \"$0\" \"$@\"";
    let (root, run, tar) = (world.root.to_str().unwrap(), world.run.to_str().unwrap(), busybox_tar());
    let inside = [BULKHEAD, "--root", root, "--run", run, "import", tar.to_str().unwrap(), "x"];
    let seen = host("unshare", &[&["-m", "sh", "-c", script, &place][..], &inside].concat());
    seen.fails(
        1,
        &["confine the unpacking process", "the kernel makes no user namespaces here: in a chroot", "pivot_root"],
    );
    assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0, "nothing is left");
    let packed = world.path("x.tar.gz").display().to_string();
    host("sh", &["-c", "gzip -c \"$0\" > \"$1\"", tar.to_str().unwrap(), &packed]).ok();
    let inside = [&inside[..6], &[&packed, "x"]].concat();
    let seen = host("unshare", &[&["-m", "sh", "-c", script, &place][..], &inside].concat());
    seen.fails(1, &["confine the inflating process", "the kernel makes no user namespaces here"]);
}
