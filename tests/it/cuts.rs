//! `kill -9` and failing calls at every point of `sys::fault`: the same command given again succeeds, and nothing is left.
//!
//! Each scenario is run once undisturbed while its passes through all points are counted; every pass then is a place to
//! die at. A commit walks through a slice chosen by the seed, `just full` through all of them.

use crate::support::registry::{Content, Packed, Registry, layer};
use crate::support::{Outcome, World, busybox_tar, empty_groups, need_full, requires, seed, tell};
use bulkhead::sys::fault::Point;
use std::collections::BTreeSet;

/// Passes of one point in one command that are tried: the first ones, the last, and one between.
const PASSES: u32 = 4;
/// Faults that a commit tries.
const SLICE: usize = 36;
/// Long words of a scenario that stand for paths of the world.
const TAR: &str = "@tar";
const SAVED: &str = "@saved";
const CONTEXT: &str = "@context";
const MOUNTS: &str = "@mounts";
const NAMED: &str = "named=@named";
const GIVEN: &str = "type=local,dest=@given";
const PULLED: &str = "@pulled";

type Words = &'static [&'static str];

/// A command that is disturbed.
struct Scenario {
    name: &'static str,
    /// What stands before it.
    prepare: &'static [Words],
    command: Words,
    /// Prints something when the command has done its work, and cannot be given again for that reason.
    done: Words,
    /// What takes half-made things away that have the name the command wants; may fail.
    clear: &'static [Words],
    /// What takes away what the command made.
    undo: &'static [Words],
}

const RM: Words = &["rm", "-f", "-v", "cut"];
const RUNNING: Words = &["ps", "-q", "--filter", "name=cut", "--filter", "status=running"];
const MAKE_MOUNTS: Words =
    &["build", "--no-cache", "--network", "none", "--build-context", NAMED, "-t", "built:1", MOUNTS];
const PRUNE: Words = &["builder", "prune", "-a", "-f"];
const GONE: Words = &["ps", "-aq", "--filter", "name=cut"];

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "import",
        prepare: &[],
        command: &["import", TAR, "second:1"],
        done: &[],
        clear: &[],
        undo: &[&["rmi", "second:1"]],
    },
    Scenario {
        name: "load",
        prepare: &[],
        command: &["load", "-i", SAVED],
        done: &[],
        clear: &[],
        undo: &[&["rmi", "saved:1"]],
    },
    Scenario {
        name: "rmi",
        prepare: &[&["load", "-i", SAVED]],
        command: &["rmi", "saved:1"],
        done: &["images", "-q", "saved"],
        clear: &[],
        undo: &[],
    },
    Scenario {
        name: "run in the background",
        prepare: &[],
        command: &[
            "run",
            "-d",
            "--name",
            "cut",
            "-p",
            "8080:80",
            "-v",
            "/etc",
            "-v",
            "kept:/etc/more",
            "busybox",
            "sleep",
            "600",
        ],
        done: RUNNING,
        clear: &[RM],
        undo: &[RM, &["volume", "rm", "-f", "kept"]],
    },
    Scenario {
        name: "run to the end",
        prepare: &[],
        command: &["run", "--rm", "--name", "cut", "-p", "8080:80", "-v", "/data", "busybox", "true"],
        done: &[],
        clear: &[RM],
        undo: &[],
    },
    Scenario {
        name: "create",
        prepare: &[],
        command: &["create", "--name", "cut", "-v", "/data", "busybox", "true"],
        done: GONE,
        clear: &[RM],
        undo: &[RM],
    },
    Scenario {
        name: "start",
        prepare: &[&["create", "--name", "cut", "-p", "8080:80", "busybox", "sleep", "600"]],
        command: &["start", "cut"],
        done: RUNNING,
        clear: &[],
        undo: &[RM],
    },
    Scenario {
        name: "stop",
        prepare: &[&["run", "-d", "--name", "cut", "-p", "8080:80", "busybox", "sleep", "600"]],
        command: &["stop", "-t", "0", "cut"],
        done: &[],
        clear: &[],
        undo: &[RM],
    },
    Scenario {
        name: "restart",
        prepare: &[&["run", "-d", "--name", "cut", "-p", "8080:80", "busybox", "sleep", "600"]],
        command: &["restart", "-t", "0", "cut"],
        done: &[],
        clear: &[],
        undo: &[RM],
    },
    Scenario {
        name: "rm",
        prepare: &[&["run", "-d", "--name", "cut", "-p", "8080:80", "-v", "/data", "busybox", "sleep", "600"]],
        command: RM,
        done: &[],
        clear: &[],
        undo: &[],
    },
    Scenario {
        name: "build",
        prepare: &[],
        command: &["build", "--no-cache", "-t", "built:1", CONTEXT],
        done: &[],
        clear: &[],
        undo: &[&["rmi", "built:1"]],
    },
    // The directory is no part of the store, and what is left in it goes with the next export.
    Scenario {
        name: "cache export",
        prepare: &[],
        command: &["build", "--no-cache", "-t", "built:1", "--cache-to", GIVEN, CONTEXT],
        done: &[],
        clear: &[],
        undo: &[&["rmi", "built:1"]],
    },
    Scenario {
        name: "pull",
        prepare: &[],
        command: &["pull", "-q", PULLED],
        done: &[],
        clear: &[],
        undo: &[&["rmi", PULLED]],
    },
    // Caches, one of them filled from a stage; binds of a stage and of a context with a name.
    Scenario {
        name: "mounts of steps",
        prepare: &[],
        command: MAKE_MOUNTS,
        done: &[],
        clear: &[],
        undo: &[&["rmi", "built:1"], PRUNE],
    },
    Scenario {
        name: "builder prune",
        prepare: &[MAKE_MOUNTS, &["rmi", "built:1"]],
        command: PRUNE,
        done: &[],
        clear: &[],
        undo: &[],
    },
    Scenario {
        name: "commit",
        prepare: &[&["run", "--name", "cut", "--network", "none", "busybox", "touch", "/made"]],
        command: &["commit", "cut", "committed:1"],
        done: &[],
        clear: &[],
        undo: &[&["rmi", "committed:1"], RM],
    },
    Scenario {
        name: "rename",
        prepare: &[&["create", "--name", "cut", "busybox", "true"]],
        command: &["rename", "cut", "cut2"],
        done: &["ps", "-aq", "--filter", "name=cut2"],
        clear: &[],
        undo: &[&["rm", "cut2"]],
    },
    Scenario {
        name: "volume rm",
        prepare: &[&["volume", "create", "kept"]],
        command: &["volume", "rm", "kept"],
        done: &["volume", "ls", "-q"],
        clear: &[],
        undo: &[],
    },
    Scenario {
        name: "volume create",
        prepare: &[],
        command: &["volume", "create", "kept"],
        done: &[],
        clear: &[],
        undo: &[&["volume", "rm", "kept"]],
    },
    Scenario {
        name: "network prune",
        prepare: &[],
        command: &["network", "prune", "-f"],
        done: &[],
        clear: &[],
        undo: &[&["run", "--rm", "-p", "8080:80", "busybox", "true"]],
    },
];

/// One fault to try.
#[derive(Clone, Debug)]
struct Cut {
    point: Point,
    nth: u32,
    action: &'static str,
}

impl Cut {
    fn text(&self) -> String {
        format!("{}:{}:{}", self.point.name(), self.nth, self.action)
    }
}

/// A world with an image, an archive and a build context.
struct Bench {
    world: World,
    registry: Registry,
    /// Control groups without processes that were there before.
    foreign: BTreeSet<String>,
    before: std::cell::RefCell<BTreeSet<String>>,
    /// What earlier failures left, which is not counted again.
    known: std::cell::RefCell<Vec<String>>,
}

impl Bench {
    fn new() -> Self {
        let world = World::new();
        world.busybox();
        // Two stages that go side by side.
        let file = "FROM busybox AS side\nRUN echo side > /side\nFROM busybox\nCOPY data /data\nRUN echo made > /made\n\
                    COPY --from=side /side /side\n";
        world.write("context/Dockerfile", file);
        world.write("context/data", "some data");
        let file = "FROM busybox AS seed\nRUN mkdir /s && echo seed > /s/f\nFROM busybox\n\
                    RUN --mount=type=cache,target=/c,from=seed,source=/s --mount=type=cache,target=/d,sharing=locked cat /c/f > /d/g\n\
                    RUN --mount=from=seed,target=/s --mount=from=named,target=/n,rw cp /n/f /made && echo x > /n/x\nCOPY --from=named f /f\n";
        world.write("mounts/Dockerfile", file);
        world.write("named/f", "named");
        let mut content = Content::default();
        let layers = [layer(&[("one", &[1; 3000])]), layer(&[("two", &[2; 300_000])])];
        content.image("app:1", &layers, Packed::Gzip);
        let registry = Registry::serve(&world, content);
        let saved = world.path("saved.tar");
        let context = world.path("context");
        world.ok(&["build", "-q", "-t", "saved:1", context.to_str().unwrap()]);
        world.ok(&["save", "-o", saved.to_str().unwrap(), "saved:1"]);
        let packed = crate::support::host("gzip", &["-k", saved.to_str().unwrap()]);
        packed.ok();
        world.ok(&["rmi", "saved:1"]);
        // The bridge of the first container stays, and so does its network's place in the run directory.
        world.ok(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
        let foreign = empty_groups();
        let bench = Self { world, registry, foreign, before: Default::default(), known: Default::default() };
        // The directories that pulls and caches of steps lie in stay, too, and what is known of the blob that busybox became.
        let given: Words = &["build", "-t", "built:1", "--cache-to", GIVEN, CONTEXT];
        let remove: Words = &["rmi", "built:1"];
        for words in [&["pull", "-q", PULLED][..], &["rmi", PULLED], MAKE_MOUNTS, remove, given, remove, PRUNE] {
            bench.say(words, &[]).ok();
        }
        bench.forget_build_cache();
        // The layers that the cache kept when the image went.
        bench.world.ok(&["image", "prune", "-f"]);
        bench.before.replace(bench.files());
        bench
    }

    fn words(&self, words: Words) -> Vec<String> {
        let place = |word: &&str| match *word {
            TAR => busybox_tar().to_str().unwrap().to_owned(),
            SAVED => self.world.path("saved.tar.gz").to_str().unwrap().to_owned(),
            CONTEXT => self.world.path("context").to_str().unwrap().to_owned(),
            MOUNTS => self.world.path("mounts").to_str().unwrap().to_owned(),
            NAMED => format!("named={}", self.world.path("named").display()),
            GIVEN => format!("type=local,mode=max,dest={}", self.world.path("given").display()),
            PULLED => format!("{}/app:1", self.registry.address),
            other => other.to_owned(),
        };
        words.iter().map(place).collect()
    }

    fn say(&self, words: Words, more: &[(&str, &str)]) -> Outcome {
        let words = self.words(words);
        self.world.bulkhead_in(&words.iter().map(String::as_str).collect::<Vec<_>>(), None, more)
    }

    /// What lies in the directories, but for what is meant to stay.
    fn files(&self) -> BTreeSet<String> {
        let stays = |path: &String| path.ends_with(".bpf") || path.ends_with("/last");
        self.world.files().into_iter().filter(|path| !stays(path)).collect()
    }

    /// Cached steps keep their layers, which is what a cache is for and would hide what else stays.
    fn forget_build_cache(&self) {
        for entry in std::fs::read_dir(self.world.root.join("build/cache")).into_iter().flatten().flatten() {
            if !entry.file_name().to_string_lossy().contains(".tmp") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    fn passes(&self, scenario: &Scenario) -> Vec<u32> {
        let file = self.world.path("counts");
        let _ = std::fs::remove_file(&file);
        for words in scenario.prepare {
            self.say(words, &[]).ok();
        }
        self.say(scenario.command, &[("BULKHEAD_FAULT_COUNTS", file.to_str().unwrap())]).ok();
        self.undo(scenario);
        self.settled(&format!("{}, undisturbed", scenario.name));
        let bytes = std::fs::read(&file).unwrap();
        bytes.chunks_exact(4).map(|four| u32::from_ne_bytes(four.try_into().unwrap())).collect()
    }

    fn undo(&self, scenario: &Scenario) {
        for words in scenario.undo {
            // A shim that is to die while it is told to end makes the first try fail; giving the command again mends it.
            if self.say(words, &[]).code != 0 {
                self.say(words, &[]).ok();
            }
        }
    }

    /// Waits until nothing of the scenario is left; looking (`ps`) is what takes down what the dead left.
    fn settled(&self, what: &str) {
        self.forget_build_cache();
        let mut left = Vec::new();
        let mut first = Vec::new();
        // Whatever its container is called: one whose id nobody has heard of, too.
        let mut groups: BTreeSet<_> = empty_groups().difference(&self.foreign).cloned().collect();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        loop {
            self.world.ok(&["ps", "-aq"]);
            self.world.ok(&["image", "prune", "-f"]);
            self.world.ok(&["volume", "ls", "-q"]);
            left.clear();
            let known = self.known.borrow().clone();
            left.extend(self.world.look().into_iter().filter(|item| !known.contains(item)));
            let files = self.files();
            let before = self.before.borrow().clone();
            left.extend(files.difference(&before).map(|path| format!("more: {path}")));
            left.extend(before.difference(&files).map(|path| format!("less: {path}")));
            groups = groups.intersection(&empty_groups()).cloned().collect();
            left.extend(groups.iter().map(|group| format!("control group without processes: {group}")));
            if left.is_empty() {
                return;
            }
            if first.is_empty() {
                first.clone_from(&left);
            }
            assert!(std::time::Instant::now() < end, "{what}: left behind: {left:#?} (at first: {first:#?})");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn cut(&self, scenario: &Scenario, cut: &Cut) {
        let what = format!("{} with BULKHEAD_FAULT={}", scenario.name, cut.text());
        for words in scenario.prepare {
            let seen = self.say(words, &[]);
            assert_eq!(seen.code, 0, "{what}: {words:?}: {seen:?}");
        }
        let seen = self.say(scenario.command, &[("BULKHEAD_FAULT", &cut.text())]);
        assert!(!seen.stderr.contains("panicked"), "{what}: {seen:?}");
        // Before anything takes them down: their control groups are looked for.
        self.world.note();
        if cut.action != "kill" && seen.code != 0 {
            assert!(seen.stderr.contains("error"), "{what} fails and does not say why: {seen:?}");
        }
        let done = !scenario.done.is_empty() && {
            let there = !self.say(scenario.done, &[]).stdout.trim().is_empty();
            there != matches!(scenario.name, "rmi" | "volume rm")
        };
        if !done {
            for words in scenario.clear {
                self.say(words, &[]);
            }
            let again = self.say(scenario.command, &[]);
            assert_eq!(again.code, 0, "{what}: first {seen:?}\nthen {again:?}");
        }
        self.undo(scenario);
        self.settled(&what);
    }
}

/// Every fault of a scenario whose passes were counted.
fn cuts(passes: &[u32]) -> Vec<Cut> {
    let mut all = Vec::new();
    for (point, passes) in Point::ALL.iter().zip(passes) {
        let mut tried: BTreeSet<u32> = (1..=(*passes).min(PASSES)).collect();
        tried.extend([*passes / 2 + 1, *passes].into_iter().filter(|nth| (1..=*passes).contains(nth)));
        for nth in tried {
            let actions: &[&str] = if point.can_fail() { &["kill", "nospace", "io"] } else { &["kill"] };
            all.extend(actions.iter().map(|action| Cut { point: *point, nth, action }));
        }
    }
    all
}

#[test]
fn what_was_cut_off_at_any_point_can_be_done_again() {
    requires!(root);
    let bench = Bench::new();
    let only = std::env::var("BULKHEAD_TEST_CUT").ok();
    let mut all = Vec::new();
    let mut reached = vec![0_u32; Point::ALL.len()];
    for scenario in SCENARIOS {
        let passes = bench.passes(scenario);
        for (sum, passes) in reached.iter_mut().zip(&passes) {
            *sum += passes;
        }
        all.extend(cuts(&passes).into_iter().map(|cut| (scenario, cut)));
    }
    let missed: Vec<_> = Point::ALL.iter().zip(&reached).filter(|(_, sum)| **sum == 0).map(|(p, _)| p.name()).collect();
    assert!(missed.is_empty(), "no scenario passes {missed:?}: a fault there is never tried");
    let total = all.len();
    if let Some(only) = &only {
        // BULKHEAD_TEST_CUT=SCENARIO/POINT:N:ACTION, or a part of it, repeats what failed.
        all.retain(|(scenario, cut)| format!("{}/{}", scenario.name, cut.text()).contains(only));
        assert!(!all.is_empty(), "no fault is called {only:?}");
    } else if need_full().is_err() {
        let step = total.div_ceil(SLICE).max(1);
        let first = usize::try_from(seed()).unwrap_or(0) % step;
        all = all.into_iter().skip(first).step_by(step).collect();
    }
    let mut failed = Vec::new();
    for (scenario, cut) in &all {
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.cut(scenario, cut)));
        if tried.is_err() {
            failed.push(format!("{}/{}", scenario.name, cut.text()));
            // Further faults must not be blamed for what this one left.
            for words in [
                RM,
                &["rmi", "second:1", "saved:1", "built:1", "committed:1"],
                &["rmi", PULLED],
                PRUNE,
                &["volume", "rm", "-f", "kept"],
            ] {
                bench.say(words, &[]);
            }
            bench.say(&["run", "--rm", "-p", "8080:80", "busybox", "true"], &[]);
            bench.before.replace(bench.files());
            bench.known.replace(bench.world.look());
        }
    }
    tell(&format!("{} of {total} faults tried, {} points, seed {}", all.len(), Point::ALL.len(), seed()));
    assert!(failed.is_empty(), "{} of {} faults failed: {failed:#?}", failed.len(), all.len());
}
