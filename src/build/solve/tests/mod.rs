//! Builds through a host whose snapshots are plain directories and whose commands are three words.

mod host;

use super::*;
use crate::build::dockerfile::LineRange;
use crate::oci::Platform;
use host::{Fake, NoImage};
use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What is not said otherwise.
fn case_request() -> BuildRequest {
    BuildRequest {
        settings: Settings::default(),
        tags: Vec::new(),
        no_cache: false,
        no_cache_stages: Vec::new(),
        explain: true,
        epoch: None,
        image: true,
        annotations: BTreeMap::new(),
        inline: false,
        parallel: 2,
    }
}

struct Case {
    host: Fake,
    context: tempfile::TempDir,
    cache: tempfile::TempDir,
    /// Why each step was or was not in the cache, in the last build.
    reasons: Mutex<Vec<String>>,
}

impl Case {
    fn new(files: &[(&str, &str)]) -> Self {
        let case = Self {
            host: Fake::new(),
            context: tempfile::tempdir().unwrap(),
            cache: tempfile::tempdir().unwrap(),
            reasons: Mutex::default(),
        };
        files.iter().for_each(|(name, text)| case.write(name, text.as_bytes()));
        case
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        File::create(self.context.path().join(name)).unwrap().write_all(bytes).unwrap();
    }

    /// Builds and returns the commands that were run as well.
    fn build(&self, no_cache: bool) -> (Result<Built, BuildError<NoImage>>, Vec<String>) {
        let context = Context::open(self.context.path(), None, self.cache.path()).unwrap();
        let platform = Platform { architecture: "amd64".into(), os: "linux".into(), ..Platform::default() };
        let settings = Settings { platform: platform.clone(), build_platform: platform, ..Settings::default() };
        let request = BuildRequest { settings, tags: vec!["t".into()], no_cache, parallel: 2, ..case_request() };
        self.host.ran.lock().unwrap().clear();
        self.host.halted.store(false, Ordering::Relaxed);
        let cache = BuildCache::new(self.cache.path());
        self.reasons.lock().unwrap().clear();
        let reasons = &self.reasons;
        let built = build(&self.host, &context, &cache, &request, &mut |event| {
            if let BuildEvent::Explained { reason, .. } = event {
                reasons.lock().unwrap().push(reason.to_string());
            }
        });
        (built, std::mem::take(&mut self.host.ran.lock().unwrap()))
    }
}

const PYTHON: &str = "FROM python\nWORKDIR /app\nCOPY requirements.txt requirements.txt\nRUN write app/deps installed\nCOPY . .\nCMD [\"python\", \"app.py\"]\n";

#[test]
fn a_build_makes_the_tree_the_configuration_and_the_history() {
    if !crate::tests::root() {
        return;
    }
    let case = Case::new(&[
        ("Dockerfile", PYTHON),
        ("requirements.txt", "flask"),
        ("app.py", "print"),
        (".dockerignore", "Dockerfile\n.dockerignore\n"),
    ]);
    let (built, ran) = case.build(false);
    let built = built.unwrap();
    assert_eq!(ran, ["write app/deps installed"]);
    assert_eq!(
        case.host.files(&built.chain),
        ["/app/app.py=print", "/app/deps=installed", "/app/requirements.txt=flask"]
    );
    assert_eq!(built.config.config.cmd.as_deref(), Some(&["python".to_owned(), "app.py".to_owned()][..]));
    assert_eq!(built.config.config.working_dir, "/app");
    let history: Vec<_> = built.config.history.iter().map(|h| (h.created_by.as_str(), h.empty_layer)).collect();
    assert_eq!(
        history,
        [
            ("base", false),
            ("WORKDIR /app", false),
            ("COPY requirements.txt requirements.txt # buildkit", false),
            ("RUN /bin/sh -c write app/deps installed # buildkit", false),
            ("COPY . . # buildkit", false),
            ("CMD [\"python\" \"app.py\"]", true),
        ]
    );
    assert_eq!(built.config.rootfs.diff_ids.len(), 5);
    assert_eq!(built.chain.len(), 5);
}

#[test]
fn only_what_depends_on_a_change_is_done_again() {
    if !crate::tests::root() {
        return;
    }
    let case = Case::new(&[
        ("Dockerfile", PYTHON),
        ("requirements.txt", "flask"),
        ("app.py", "print"),
        (".dockerignore", "Dockerfile\n.dockerignore\n"),
    ]);
    let first = case.build(false).0.unwrap();
    let prepared = case.host.count.load(Ordering::Relaxed);
    let (again, ran) = case.build(false);
    assert_eq!(
        (again.unwrap().image, ran, case.host.count.load(Ordering::Relaxed)),
        (first.image.clone(), vec![], prepared),
        "all cached: the same image, no tree made"
    );
    case.write("app.py", b"changed");
    let (changed, ran) = case.build(false);
    assert_ne!(changed.unwrap().image, first.image);
    assert!(ran.is_empty(), "the command does not read app.py");
    case.write("requirements.txt", b"django");
    assert_eq!(case.build(false).1.len(), 1);
    assert_eq!(case.build(true).1.len(), 1, "--no-cache does it again");
    let layer = first.chain[3].clone();
    case.write("requirements.txt", b"flask");
    fs::remove_dir_all(case.host.path(&[layer])).unwrap();
    assert_eq!(case.build(false).1.len(), 1, "a layer that is gone is made again");
}

#[test]
fn a_failing_step_shows_its_lines_and_the_end_of_its_output_and_keeps_what_was_done() {
    let text = "FROM base\nRUN write a b\nRUN \\\n  fail\nRUN never\n";
    let case = Case::new(&[("Dockerfile", text)]);
    let (failed, ran) = case.build(false);
    let error = failed.unwrap_err();
    assert_eq!(ran, ["write a b", "fail"]);
    assert!(
        matches!(&error, BuildError::Failed { code: 3, tail, lines: LineRange { first: 3, last: 4 }, .. } if tail == "first\nboom\n"),
        "{error:?}"
    );
    assert_eq!(
        error.excerpt(text).unwrap(),
        "       1 | FROM base\n       2 | RUN write a b\n>>>    3 | RUN \\\n>>>    4 |   fail\n       5 | RUN never\n"
    );
    assert_eq!(case.build(false).1, ["fail"]);
}

#[test]
fn stages_are_copied_from_and_those_not_needed_are_left_out() {
    if !crate::tests::root() {
        return;
    }
    let text = "FROM base AS build\nRUN write out made\nFROM base AS unused\nRUN never\nFROM scratch\nCOPY --from=build /out /bin/\nENV A=1\n";
    let case = Case::new(&[("Dockerfile", text)]);
    let (built, ran) = case.build(false);
    let built = built.unwrap();
    assert_eq!(ran, ["write out made"]);
    assert_eq!(case.host.files(&built.chain), ["/bin/out=made"]);
    assert_eq!(built.config.history.len(), 2);
    assert_eq!(case.build(false).0.unwrap().image, built.image);
}

#[test]
fn add_unpacks_archives_and_copies_what_is_none() {
    if !crate::tests::root() {
        return;
    }
    let case = Case::new(&[
        ("Dockerfile", "FROM base\nADD real.tar false.tar /x/\nCOPY real.tar /y\n"),
        ("false.tar", "no archive"),
    ]);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    archive.append_data(&mut header, "f", &b"x"[..]).unwrap();
    case.write("real.tar", &archive.into_inner().unwrap());
    let built = case.build(false).0;
    assert_eq!(case.host.unpacked.load(Ordering::Relaxed), 1);
    let chain = built.unwrap().chain;
    let top = case.host.path(&chain);
    assert!(top.join("x/unpacked").is_dir() && top.join("x/false.tar").is_file() && top.join("y").is_file());
}

#[test]
fn what_is_missing_is_named_with_its_line() {
    for (text, line, message) in [
        ("FROM base\nCOPY nothing /x\n", 2, "\"nothing\" is not there"),
        ("FROM base\nCOPY hidden /x\n", 2, "\"hidden\" is left out by .dockerignore"),
        ("FROM base\nRUN ok\nCOPY --chown=ghost Dockerfile /x\n", 3, "no user \"ghost\" in /etc/passwd of the image"),
        ("FROM missing\n", 1, "no image missing"),
    ] {
        let case = Case::new(&[("Dockerfile", text), ("hidden", "h"), (".dockerignore", "hidden\n")]);
        let error = case.build(false).0.unwrap_err();
        assert_eq!(error.lines().unwrap().first, line, "{text}");
        let mut cause: &dyn std::error::Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        assert_eq!(cause.to_string(), message);
    }
}

#[test]
fn stages_that_do_not_need_each_other_run_side_by_side() {
    if !crate::tests::root() {
        return;
    }
    let text = "FROM base AS one\nRUN meet a\nFROM base AS two\nRUN meet b\nFROM scratch\nCOPY --from=one /a /\nCOPY --from=two /b /\n";
    let case = Case::new(&[("Dockerfile", text)]);
    let built = case.build(false).0.unwrap();
    assert_eq!(case.host.files(&built.chain), ["/a=", "/b="]);
    assert_eq!(case.build(false).0.unwrap().image, built.image);
}

#[test]
fn the_same_step_of_two_stages_is_done_once() {
    if !crate::tests::root() {
        return;
    }
    let text = "FROM base AS one\nRUN write x once\nRUN write a 1\nFROM base AS two\nRUN write x once\nRUN write b 2\n\
                FROM scratch\nCOPY --from=one /x /a /one/\nCOPY --from=two /x /b /two/\n";
    let case = Case::new(&[("Dockerfile", text)]);
    for no_cache in [false, true] {
        let (built, mut ran) = case.build(no_cache);
        ran.sort();
        assert_eq!(ran, ["write a 1", "write b 2", "write x once"], "no_cache: {no_cache}");
        assert_eq!(case.host.files(&built.unwrap().chain), ["/one/a=1", "/one/x=once", "/two/b=2", "/two/x=once"]);
    }
}

#[test]
fn a_failing_step_ends_those_beside_it() {
    let text = "FROM base AS one\nRUN endless\nRUN never\nFROM base AS two\nRUN fail together\nFROM scratch\nCOPY --from=one / /\nCOPY --from=two / /\n";
    let case = Case::new(&[("Dockerfile", text)]);
    let (failed, mut ran) = case.build(false);
    ran.sort();
    assert_eq!(ran, ["endless", "fail together"]);
    let error = failed.unwrap_err();
    assert!(matches!(&error, BuildError::Failed { code: 4, lines, .. } if lines.first == 5), "{error:?}");
}

#[test]
fn a_step_that_another_build_performs_is_waited_for() {
    let case = Case::new(&[("Dockerfile", "FROM base\nRUN write a b\n")]);
    let first = case.build(false).0.unwrap();
    let cache = BuildCache::new(case.cache.path());
    let entry = cache.entries().unwrap().into_iter().find(|entry| entry.record.title == "RUN write a b").unwrap();
    // As the other build has it while it performs the step: the right to it, and no record yet.
    cache.remove(&entry.key).unwrap();
    let claim = cache.claim(&entry.key).unwrap().unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| case.build(false));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!second.is_finished(), "it waits");
        cache.put(&entry.key, &entry.record).unwrap();
        drop(claim);
        let (built, ran) = second.join().unwrap();
        assert_eq!((built.unwrap().image, ran), (first.image, vec![]));
    });
}

#[test]
fn mounts_show_trees_and_count_by_what_they_read() {
    if !crate::tests::root() {
        return;
    }
    let text = "FROM base AS tools\nRUN write tool made\nFROM base\n\
                RUN --mount=target=/src,rw --mount=from=tools,source=/tool,target=/t --mount=source=x*,target=/one \
                --mount=type=cache,from=tools,source=../tool,target=/c --mount=type=tmpfs,target=/m go\n";
    let case =
        Case::new(&[("Dockerfile", text), ("x*", "star"), ("seen", "1"), (".dockerignore", "hidden\nDockerfile\n")]);
    let mounted = |ran: &[String], target: &str| {
        ran.iter().find_map(|line| line.strip_prefix(&format!("{target} holds ")).map(str::to_owned)).unwrap()
    };
    let (built, ran) = case.build(false);
    built.unwrap();
    assert_eq!(mounted(&ran, "/src"), "/.dockerignore=hidden\nDockerfile\n /seen=1 /x*=star");
    assert_eq!((mounted(&ran, "/t"), mounted(&ran, "/one")), ("made".into(), "star".into()));
    assert_eq!((mounted(&ran, "/c"), mounted(&ran, "/m")), ("/tool=made".into(), String::new()));
    assert_eq!(ran.last().unwrap(), "go");
    case.write("hidden", b"1");
    assert!(case.build(false).1.is_empty(), "what is left out of the context changes nothing");
    case.write("seen", b"2");
    let again = case.build(false).1;
    assert!(mounted(&again, "/src").contains("/seen=2") && again.last().unwrap() == "go");
    let missing = Case::new(&[("Dockerfile", "FROM base\nRUN --mount=source=none,target=/x go\n")]);
    assert_eq!(missing.build(false).0.unwrap_err().lines().unwrap().first, 2);
}

#[test]
fn a_mount_of_a_stage_counts_by_what_it_shows() {
    if !crate::tests::root() {
        return;
    }
    let text = |tool: &str, other: &str| {
        format!(
            "FROM base AS tools\nRUN write tool {tool}\nRUN write other {other}\nFROM base\n\
             RUN --mount=from=tools,source=/tool,target=/t part\nRUN --mount=from=tools,target=/t whole\n"
        )
    };
    let case = Case::new(&[("Dockerfile", &text("1", "1"))]);
    let ran = |tool: &str, other: &str| {
        case.write("Dockerfile", text(tool, other).as_bytes());
        let (built, ran) = case.build(false);
        built.unwrap();
        ran.into_iter().filter(|line| line == "part" || line == "whole").collect::<Vec<_>>()
    };
    assert_eq!(ran("1", "1"), ["part", "whole"]);
    assert_eq!(ran("1", "2"), ["whole"], "what is mounted has not changed");
    assert_eq!(ran("2", "2"), ["part", "whole"]);
}

#[test]
fn a_rebuild_says_which_file_variable_or_parent_made_it_necessary() {
    if !crate::tests::root() {
        return;
    }
    let text = |value: &str| format!("FROM base\nENV A={value}\nRUN write x y\nCOPY a b /\nRUN write z z\n");
    let case = Case::new(&[("Dockerfile", &text("1")), ("a", "1"), ("b", "1")]);
    let reasons = |no_cache| {
        case.build(no_cache).0.unwrap();
        std::mem::take(&mut *case.reasons.lock().unwrap())
    };
    let (first, same) = ("nothing like it is in the cache", "nothing it is made of has changed");
    assert_eq!(reasons(false), [first; 3]);
    assert_eq!(reasons(false), [same; 3]);
    case.write("b", b"22");
    assert_eq!(reasons(false), [same, "file b changed", "what is below it changed: COPY a b /"]);
    case.write("Dockerfile", text("2").as_bytes());
    assert_eq!(
        reasons(false),
        [
            "variable A changed",
            "what is below it changed: RUN write x y",
            "variable A changed; what is below it changed: COPY a b /"
        ]
    );
    assert_eq!(reasons(true), ["the cache was not to be used"; 3]);
    // The first step was done anew, with another result in the real world; here the layers are the same.
    let top = case.build(false).0.unwrap().chain.pop().unwrap();
    fs::remove_dir_all(case.host.path(&[top])).unwrap();
    assert_eq!(reasons(false), [same, same, "its layer has been removed from the cache"]);
}

#[test]
fn an_epoch_dates_the_image_and_is_in_its_keys() {
    if !crate::tests::root() {
        return;
    }
    let case = Case::new(&[("Dockerfile", "FROM base\nRUN write x y\nENV A=1\n")]);
    let build_at = |epoch| {
        let context = Context::open(case.context.path(), None, case.cache.path()).unwrap();
        let request = BuildRequest { epoch, ..case_request() };
        build(&case.host, &context, &BuildCache::new(case.cache.path()), &request, &mut |_| {}).unwrap()
    };
    build_at(None);
    let dated = build_at(Some(7));
    assert_eq!(case.host.ran.lock().unwrap().len(), 2, "a layer with other times is another one");
    let times: Vec<_> = dated.config.history.iter().map(|entry| entry.created).collect();
    assert_eq!(times, [None, Some(Timestamp(7_000_000_000)), Some(Timestamp(7_000_000_000))]);
    assert_eq!(dated.config.created, Some(Timestamp(7_000_000_000)));
    assert_eq!(build_at(Some(7)).image, dated.image);
}

#[test]
fn what_is_fetched_is_asked_for_each_time_and_fetched_when_it_has_changed() {
    if !crate::tests::root() {
        return;
    }
    let case = Case::new(&[("Dockerfile", "FROM base\nADD https://u:p@host/dir/file?x=y /to/\n")]);
    let (built, ran) = case.build(false);
    let built = built.unwrap();
    assert_eq!(case.host.files(&built.chain), ["/to/file=one"]);
    assert_eq!(ran, ["look https://host/dir/file", "fetch https://host/dir/file named"]);
    assert_eq!(built.config.history[1].created_by, "ADD https://host/dir/file /to/ # buildkit");
    assert_eq!(case.build(false).1, ["look https://host/dir/file"], "what is served is the same");
    "two".clone_into(&mut case.host.served.lock().unwrap());
    let (built, ran) = case.build(false);
    assert_eq!((case.host.files(&built.unwrap().chain), ran.len()), (vec!["/to/file=two".to_owned()], 2));
    // The same bytes from elsewhere are the same step.
    case.write("Dockerfile", b"FROM base\nADD http://other/file /to/\n");
    assert_eq!(case.build(false).1, ["look http://other/file"]);
}

#[test]
fn a_linked_copy_stands_on_nothing_and_a_copy_from_a_stage_on_its_files() {
    if !crate::tests::root() {
        return;
    }
    let text = |version: &str| {
        format!(
            "FROM base AS make\nRUN write made {version}\nRUN write kept same\nFROM base\nRUN write version {version}\n\
             COPY --link file /linked\nCOPY --from=make /kept /etc/kept\nRUN write last {version}\n"
        )
    };
    let case = Case::new(&[("Dockerfile", &text("1")), ("file", "f")]);
    case.build(false).0.unwrap();
    case.write("Dockerfile", text("2").as_bytes());
    let (built, ran) = case.build(false);
    assert_eq!(ran.len(), 4, "{ran:?}");
    assert_eq!(case.host.files(&built.unwrap().chain), ["/etc/kept=same", "/last=2", "/linked=f", "/version=2"]);
    let reasons = case.reasons.lock().unwrap().join("\n");
    assert!(reasons.contains("nothing it is made of has changed"), "{reasons}");
    case.write("Dockerfile", text("1").as_bytes());
    assert_eq!(case.build(false).1, Vec::<String>::new(), "what was made before is still known");
}

#[test]
fn what_others_did_on_the_same_chain_is_taken_and_ones_own_record_stays() {
    if !crate::tests::root() {
        return;
    }
    let text = "FROM base AS one\nRUN write x 1\nFROM one AS two\nRUN write y 2\nFROM base\nCOPY --link file /l\nCOPY --from=two /y /\nENV A=1\n";
    let files = [("Dockerfile", text), ("file", "f")];
    let elsewhere = Case::new(&files);
    let built = elsewhere.build(false).0.unwrap();
    // The target first; the stage that another stands on is part of that one.
    let steps: Vec<Vec<(usize, bool, &str)>> = built
        .stages
        .iter()
        .map(|stage| stage.steps.iter().map(|step| (step.below, step.detached, step.title.as_str())).collect())
        .collect();
    let target = vec![(1, true, "COPY --link file /l"), (2, false, "COPY --from=two /y /")];
    assert_eq!(steps, [target, vec![(1, false, "RUN write x 1"), (2, false, "RUN write y 2")]]);
    let own = Case::new(&files);
    let records = || BuildCache::new(elsewhere.cache.path()).entries().unwrap();
    let give = |case: &Case, title: &str, change: &dyn Fn(&mut CacheRecord)| {
        let mut entry = records().into_iter().find(|entry| entry.record.title == title).unwrap();
        change(&mut entry.record);
        case.host.foreign.lock().unwrap().insert(entry.key, (entry.record.parent, entry.record.layer));
    };
    give(&own, "RUN write x 1", &|_| {});
    give(&own, "RUN write y 2", &|record| record.parent = Some(Digest::of(b"another chain")));
    let (_, ran) = own.build(false);
    // The rest was found to be there; the files of the fake's import are none, so what is copied is another.
    assert_eq!(ran[..2], ["import on true", "write y 2"], "{ran:?}");
    assert!(own.reasons.lock().unwrap().contains(&"its result was taken from afar".to_owned()));
    assert!(own.build(false).1.is_empty(), "its record is kept");
    assert_eq!(own.build(true).1, ["write x 1", "write y 2"], "--no-cache asks nobody");
    // A record of one's own is not replaced: neither by one with another layer, nor by one of another parent.
    let second = Case::new(&files);
    let before = second.build(false).0.unwrap().chain;
    let cache = BuildCache::new(second.cache.path());
    let entry = cache.entries().unwrap().into_iter().find(|entry| entry.record.title == "RUN write x 1").unwrap();
    let layer = entry.record.layer.clone().unwrap();
    fs::remove_dir_all(second.host.path(&[layer.chain_id])).unwrap();
    give(&second, "RUN write x 1", &|record| record.layer.as_mut().unwrap().diff_id = Digest::of(b"hostile"));
    let (again, ran) = second.build(false);
    assert_eq!((again.unwrap().chain, ran), (before, vec!["write x 1".to_owned()]));
}
