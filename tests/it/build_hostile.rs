//! Hostile contexts, Dockerfiles and repositories: what a build may not reach, leave behind or take down.

use crate::support::{World, build::Context, host, requires, wait_for};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What must be read nowhere.
const SECRET: &str = "host-secret-q7";

/// A directory outside every context with a file that tells where it was read.
fn outside(world: &World) -> PathBuf {
    world.write("outside/file", SECRET);
    world.path("outside")
}

/// Tells whether any file below a directory holds the secret.
fn holds_secret(directory: &Path) -> bool {
    host("grep", &["-rqs", SECRET, directory.to_str().unwrap()]).code == 0
}

#[test]
fn a_context_that_changes_under_a_build_leads_nowhere_out_of_it() {
    requires!(root);
    let world = World::new();
    let outside = outside(&world);
    let file = "FROM scratch\nCOPY . /all/\nCOPY swap/file /one\nADD turn /two\nCOPY swa*/fil* /three/\n";
    // As long as the secret: a changed length would be noticed by itself.
    Context::new(&world, "raced", file, &[("swap/file", "inside-file-q7"), ("turn", "inside-file-q7")]);
    let at = |name: &str| world.path("raced").join(name);
    symlink(&outside, at("swap.link")).unwrap();
    symlink(outside.join("file"), at("turn.link")).unwrap();
    let (done, turns) = (AtomicBool::new(false), AtomicU32::new(0));
    let (mut built, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        // A directory and a file change places with links all the time, in one step each: the names are always there.
        scope.spawn(|| {
            let exchange = |name: &str| {
                let (one, other) = (at(name), at(&format!("{name}.link")));
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, flags).unwrap();
            };
            while !done.load(Ordering::Relaxed) {
                exchange("swap");
                exchange("turn");
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..25 {
            let name = format!("out{round}");
            let seen = world.bulkhead(&["build", "--no-cache", "-o", &name, at("").to_str().unwrap()]);
            if seen.code == 0 {
                built += 1
            } else {
                refused += 1
            }
            assert!(!holds_secret(&world.path(&name)) && !seen.stderr.contains(SECRET), "round {round}: {seen:?}");
            let told = ["changed while it was read", "is not there", "nothing matches", "read \"", "no directory"];
            assert!(seen.code == 0 || told.iter().any(|text| seen.stderr.contains(text)), "round {round}: {seen:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(turns.into_inner() > 100 && refused > 0, "{built} built, {refused} refused: nothing was raced");
    assert!(!holds_secret(&world.root), "nothing of it is in the store");
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), SECRET);
}

#[test]
fn dots_in_sources_and_targets_end_at_the_root_of_their_tree() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let outside = outside(&world);
    let up = format!("{}{}", "../".repeat(12), outside.strip_prefix("/").unwrap().display());
    let stage = "FROM busybox AS s\nRUN mkdir /d && echo inside > /d/f\nFROM busybox\n";
    for (name, lines) in [
        ("copy", format!("FROM busybox\nCOPY {up}/file /got/\n")),
        ("copy-all", format!("FROM busybox\nCOPY {up} /got/\n")),
        ("through", format!("FROM busybox\nCOPY here/../{up}/file /got/\n")),
        ("wild", format!("FROM busybox\nCOPY {up}/f* /got/\n")),
        ("json", format!("FROM busybox\nCOPY [\"{up}/file\", \"/got/\"]\n")),
        ("add", format!("FROM busybox\nADD {up}/file /got/\n")),
        ("parents", format!("FROM busybox\nCOPY --parents {up}/file /got/\n")),
        ("link", format!("FROM busybox\nCOPY --link {up}/file /got/\n")),
        ("stage", format!("{stage}COPY --from=s {up}/file /got/\n")),
        ("bind", format!("FROM busybox\nRUN --mount=source={up},target=/m cp -r /m /got\n")),
        ("dockerfile-dots", format!("FROM busybox\nCOPY --exclude=x ./../{up}/file /got/\n")),
    ] {
        let context = Context::new(&world, name, &lines, &[("here/x", "x")]);
        let seen = context.build(&[]);
        assert!(seen.code != 0, "{name}: there is nothing of that name in the context: {seen:?}");
        let said = seen.fails(1, &[]);
        assert!(!said.contains(SECRET), "{name}: {said}");
    }
    // What is there is found: dots end at the root, as with Docker.
    let context = Context::new(
        &world,
        "roots",
        "FROM busybox\nCOPY ../../../here/x /../../../got/../got/a\nCOPY here/../../../here/x /got/b\nWORKDIR ../../../../w\n",
        &[("here/x", "x")],
    );
    context.build(&[]).ok();
    assert_eq!(context.run("cat /got/a /got/b; ls -d /w; pwd"), "xx/w\n/w");
    assert!(!world.path("got").exists() && !Path::new("/got").exists());
}

#[test]
fn a_stage_that_fills_the_disk_fails_alone_and_gives_it_back() {
    requires!(root);
    let small = crate::disk::Small::store(48);
    let world = &small.world;
    world.busybox();
    world.ok(&["run", "-d", "--network", "none", "--name", "beside", "busybox", "sleep", "600"]);
    let before = crate::disk::room(&small.place);
    let run = Context::new(
        world,
        "run",
        "FROM busybox\nRUN echo first > /first\nRUN dd if=/dev/zero of=/big bs=1M count=900\n",
        &[],
    );
    let seen = run.build(&[]);
    seen.fails(1, &["Dockerfile:3", "No space left"]);
    let copy = Context::new(world, "copy", "FROM busybox\nCOPY big /a\nCOPY big /b\nCOPY big /c\n", &[]);
    std::fs::File::create(world.path("copy/big")).unwrap().set_len(30 << 20).unwrap();
    copy.build(&[]).fails(1, &["Dockerfile:", "No space left"]);
    let given_back = |what: &str| {
        wait_for(what, 10, || (before.saturating_sub(crate::disk::room(&small.place)) < 2 << 20).then_some(()));
    };
    given_back("the room of the steps to be given back");
    let cache = "FROM busybox\nRUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/big bs=1M count=900\n";
    Context::new(world, "cache", cache, &[]).build(&[]).fails(1, &["Dockerfile:2", "No space left"]);
    world.ok(&["builder", "prune", "-af"]);
    given_back("the room of the cache to be given back");
    assert_eq!(world.inspect("beside", "{{.State.Status}}"), "running");
    assert_eq!(world.ok(&["exec", "beside", "echo", "lives"]), "lives");
    let good = Context::new(world, "good", "FROM busybox\nRUN echo made > /made\n", &[]);
    good.build(&[]).ok();
    assert_eq!(good.run("cat /made"), "made");
    world.ok(&["rm", "-f", "beside"]);
}

/// Processes that carry a word on their command line.
fn carrying(word: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split('\0').any(|part| part == word)).count()
}

#[test]
fn a_step_that_forks_without_end_is_held_and_taken_down() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let settings = world.write("settings.toml", "[limits]\npids = 64\n");
    // Every process it makes carries the word, so that they can be counted from outside; without a limit there would be 1,000.
    let file = "FROM busybox\nRUN echo begun; sh -c 'i=0; while [ $i -lt 1000 ]; do sleep 98761 & i=$((i+1)); done'; exec sleep 98761\n";
    Context::new(&world, "bomb", file, &[]);
    let directory = world.path("bomb");
    let mut command = world.command(&["build", "--progress=plain", "--network=none", directory.to_str().unwrap()]);
    command.env("BULKHEAD_CONFIG", &settings).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with(" begun")));
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    // It has as many as it may, and no more, for as long as it likes.
    wait_for("the limit to be reached", 20, || (carrying("98761") >= 60).then_some(()));
    for _ in 0..50 {
        assert!(carrying("98761") <= 64 && child.try_wait().unwrap().is_none(), "{} processes", carrying("98761"));
    }
    world.ok(&["run", "--rm", "--network", "none", "busybox", "true"]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT).ok();
    let code = wait_for("the build to end", 20, || child.try_wait().unwrap());
    assert!(!code.success(), "{code:?}: {:?}", reader.join());
    wait_for("its processes to be gone", 10, || (carrying("98761") == 0).then_some(()));
}

#[test]
fn the_doors_of_a_step_are_those_of_run() {
    requires!(root, program "musl-gcc");
    let world = World::new();
    world.busybox();
    let context = Context::new(&world, "doors", "FROM busybox\nCOPY doors /doors\n", &[]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/doors/doors.c");
    let program = world.path("doors/doors");
    host("musl-gcc", &["-O1", "-static", "-o", program.to_str().unwrap(), source.to_str().unwrap()]).ok();
    context.build(&[]).ok();
    let facts = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    for (network, flags) in [("none", &[][..]), ("default", &[]), ("none", &["--user", "daemon"])] {
        let user = flags.get(1).map_or(String::new(), |user| format!("USER {user}\n"));
        let told = format!("FROM doors:1\nRUN mkdir -m 777 /told\n{user}RUN /doors > /told/all\n");
        let step = Context::new(&world, "told", &told, &[]);
        step.build(&["--network", network]).ok();
        let there = facts(&step.run("cat /told/all"));
        let words = [&["run", "--rm", "--network", if network == "default" { "bridge" } else { network }], flags];
        let told = world.path("here");
        std::fs::create_dir_all(&told).unwrap();
        let here = facts(&world.ok(&[&words.concat()[..], &["doors:1", "sh", "-c", "/doors"]].concat()));
        assert!(here.len() > 700 && here.contains("status Seccomp:\t2"), "the probe has looked: {}", here.len());
        // The step's files are not copied into memory: they are bound from where the builder wrote them.
        let known = |fact: &String| {
            let point = fact.strip_prefix("mount ").and_then(|rest| rest.split(' ').next());
            matches!(point, Some("/etc/hosts" | "/etc/hostname" | "/etc/resolv.conf"))
        };
        let differ: Vec<_> = here.symmetric_difference(&there).filter(|fact| !known(fact)).collect();
        assert!(differ.is_empty(), "{network} {flags:?}: {differ:#?}");
        for mount in here.union(&there).filter(|fact| known(fact)) {
            assert!(mount.contains("nosuid") && mount.contains("nodev"), "{mount}");
        }
    }
}

/// The watched directories that were opened meanwhile.
fn opened(world: &World, watched: &[&str], act: impl FnOnce()) -> Vec<String> {
    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
    let queue = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    let numbers: Vec<i32> = watched
        .iter()
        .map(|name| add_watch(&queue, world.path(name), WatchFlags::OPEN | WatchFlags::ACCESS).unwrap())
        .collect();
    act();
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 1 << 20];
    let (mut reader, mut seen) = (Reader::new(&queue, &mut buffer), BTreeSet::new());
    while let Ok(event) = reader.next() {
        // Its parent tells of it, too; only what the directory says of itself has no name.
        if event.file_name().is_none() {
            seen.extend(numbers.iter().position(|number| *number == event.wd()));
        }
    }
    seen.into_iter().map(|at| watched[at].to_owned()).collect()
}

#[test]
fn what_dockerignore_leaves_out_is_not_walked() {
    requires!(root);
    let world = World::new();
    let all = [
        "walked",
        "walked/kept",
        "walked/lost",
        "walked/lost/deep",
        "walked/part",
        "walked/part/back",
        "walked/part/gone",
    ];
    for name in all {
        world.write(&format!("{name}/file"), name);
    }
    world.write("walked/.dockerignore", "lost\n**/gone\npart\n!part/back\n");
    for file in ["COPY . /all/", "COPY * /all/", "ADD kept part /all/", "COPY **/file /all/"] {
        world.write("walked/Dockerfile", format!("FROM scratch\n{file}\n"));
        let seen = opened(&world, &all, || {
            drop(world.ok(&["build", "--no-cache", "-o", "out", world.path("walked").to_str().unwrap()]))
        });
        let walked = ["walked", "walked/kept", "walked/part", "walked/part/back"];
        assert!(seen.iter().all(|name| walked.contains(&name.as_str())), "{file}: {seen:?}");
        assert!(walked[1..].iter().all(|name| seen.iter().any(|found| found == name)), "{file}: {seen:?}");
    }
}
