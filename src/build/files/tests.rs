//! Trees made in a temporary directory, copied and compared.

use super::*;
use crate::build::ignore::Ignore;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

#[expect(clippy::disallowed_methods, reason = "files of a test")]
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content.strip_prefix("-> ") {
            Some(target) => symlink(target, path).unwrap(),
            None => fs::write(path, content).unwrap(),
        }
    }
    dir
}

fn root(dir: &tempfile::TempDir) -> fs::File {
    fs::File::open(dir.path()).unwrap()
}

/// Lists a tree: `path=content`, `path -> target`, `path/`.
fn list(dir: &Path) -> Vec<String> {
    fn below(top: &Path, here: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().display().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_symlink() {
                found.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
            } else if meta.is_dir() {
                found.push(format!("{name}/"));
                below(top, &path, found);
            } else {
                found.push(format!("{name}={}", fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    below(dir, dir, &mut found);
    found.sort();
    found
}

fn copy(
    from: &tempfile::TempDir,
    ignore: &str,
    sources: &[&str],
    into: &tempfile::TempDir,
    path: &str,
) -> Result<(), CopyError> {
    let ignore = Ignore::parse(ignore).unwrap();
    let (source, target) = (root(from), root(into));
    let tree = Source { root: source.as_fd(), ignore: Some(&ignore), exclude: None };
    let mut picked = Vec::new();
    for text in sources {
        picked.extend(tree.pick(text)?);
    }
    let destination = Destination { root: target.as_fd(), options: CopyOptions::default() };
    for one in &picked {
        destination.copy(source.as_fd(), one, path, picked.len() > 1, &Progress::untold())?;
    }
    Ok(())
}

#[test]
fn sources_go_where_the_reference_says() {
    if !crate::tests::root() {
        return;
    }
    let context = tree(&[
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("dir/c", "c"),
        ("dir/sub/d", "d"),
        ("dir/link", "-> c"),
        ("to-dir", "-> dir"),
        ("odd[1]", "o"),
    ]);
    for (sources, path, expected) in [
        (&["a.txt"][..], "/x", &["x=a"][..]),
        (&["a.txt"], "/x/", &["x/", "x/a.txt=a"]),
        (&["/../a.txt"], "/x", &["x=a"]),
        (&["*.txt"], "/x/", &["x/", "x/a.txt=a", "x/b.txt=b"]),
        (&["?.txt", "dir/c"], "/x/", &["x/", "x/a.txt=a", "x/b.txt=b", "x/c=c"]),
        (&["dir"], "/x", &["x/", "x/c=c", "x/link -> c", "x/sub/", "x/sub/d=d"]),
        (&["dir/"], "/x/y/", &["x/", "x/y/", "x/y/c=c", "x/y/link -> c", "x/y/sub/", "x/y/sub/d=d"]),
        (&["to-dir/sub"], "/", &["d=d"]),
        (&["dir/link"], "/x", &["x=c"]),
        (&["**/d"], "/x/", &["x/", "x/d=d"]),
        (&["odd\\[1]"], "/x", &["x=o"]),
        (&["dir/s*"], "/x/", &["x/", "x/d=d"]),
    ] {
        let into = tree(&[]);
        copy(&context, "", sources, &into, path).unwrap_or_else(|e| panic!("{sources:?}: {e}"));
        assert_eq!(list(into.path()), expected, "{sources:?} {path}");
    }
    let into = tree(&[("file", "f"), ("dir/keep", "k")]);
    assert!(matches!(copy(&context, "", &["missing"], &into, "/x"), Err(CopyError::Source(SourceError::NotFound(_)))));
    assert!(matches!(copy(&context, "", &["*.md"], &into, "/x"), Err(CopyError::Source(SourceError::NoMatch(_)))));
    assert!(matches!(copy(&context, "", &["a.txt/x"], &into, "/x"), Err(CopyError::Source(SourceError::NotFound(_)))));
    assert!(matches!(copy(&context, "", &["dir"], &into, "/file"), Err(CopyError::NotDirectory(_))));
    assert!(matches!(copy(&context, "", &["*.txt"], &into, "/new"), Err(CopyError::NeedsDirectory(_))));
    copy(&context, "", &["a.txt"], &into, "/dir").unwrap();
    copy(&context, "", &["b.txt"], &into, "/file").unwrap();
    assert_eq!(list(into.path()), ["dir/", "dir/a.txt=a", "dir/keep=k", "file=b"]);
}

#[test]
fn links_lead_nowhere_outside() {
    if !crate::tests::root() {
        return;
    }
    let outside = tree(&[("canary", "alive")]);
    let away = outside.path().to_str().unwrap();
    let context = tree(&[
        ("out", &format!("-> {away}/canary")),
        ("up", "-> ../../../../../../etc/passwd"),
        ("loop", "-> loop"),
        ("f", "f"),
    ]);
    let into = tree(&[("esc", &format!("-> {away}")), ("file", &format!("-> {away}/canary")), ("loop", "-> loop")]);
    assert!(matches!(copy(&context, "", &["out"], &into, "/x"), Err(CopyError::Source(SourceError::NotFound(_)))));
    assert!(matches!(copy(&context, "", &["up"], &into, "/x"), Err(CopyError::Source(SourceError::NotFound(_)))));
    assert!(copy(&context, "", &["loop"], &into, "/x").is_err());
    assert!(copy(&context, "", &["f"], &into, "/loop").is_err());
    copy(&context, "", &["f"], &into, "/esc/canary").unwrap();
    copy(&context, "", &["f"], &into, "/file").unwrap();
    assert_eq!(list(outside.path()), ["canary=alive"]);
    assert!(list(into.path()).iter().any(|l| *l == format!("{}/canary=f", &away[1..])));
}

#[test]
fn ignored_files_are_not_there() {
    if !crate::tests::root() {
        return;
    }
    let context = tree(&[("a", "a"), ("b/c", "c"), ("b/d", "d"), ("e/f", "f"), ("link", "-> b/c")]);
    let into = tree(&[]);
    copy(&context, "b\n!b/d\ne\n", &["."], &into, "/").unwrap();
    assert_eq!(list(into.path()), ["a=a", "b/", "b/d=d", "link -> b/c"]);
    for source in ["e", "e/f", "b/c", "link"] {
        let refused = copy(&context, "b\n!b/d\ne\n", &[source], &into, "/x");
        assert!(matches!(refused, Err(CopyError::Source(SourceError::Ignored(_)))), "{source}: {refused:?}");
    }
    copy(&context, "b\n!b/d\ne\n", &["b"], &into, "/only").unwrap();
    assert!(into.path().join("only/d").exists() && !into.path().join("only/c").exists());
}

#[test]
fn modes_and_times_are_kept_and_owners_are_root_or_as_asked() {
    if !crate::tests::root() {
        return;
    }
    let context = tree(&[("d/run.sh", "x")]);
    fs::set_permissions(context.path().join("d/run.sh"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(context.path().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    let into = tree(&[("etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:70:71::/:/bin/sh\n"), ("etc/group", "web:x:80:\n")]);
    copy(&context, "", &["d"], &into, "/kept").unwrap();
    let meta = fs::metadata(into.path().join("kept/run.sh")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o4751);
    assert_eq!(meta.mtime_nsec(), fs::metadata(context.path().join("d/run.sh")).unwrap().mtime_nsec());
    // The directory itself is no content of its own: it is made as any that is missing.
    assert_eq!(fs::metadata(into.path().join("kept")).unwrap().mode() & 0o7777, 0o755);
    let file = root(&into);
    for (text, uid, gid) in
        [("app", 70, 71), ("app:web", 70, 80), ("5", 5, 5), ("5:6", 5, 6), (":web", 0, 80), ("root", 0, 0)]
    {
        assert_eq!(resolve_owner(file.as_fd(), text).unwrap(), Owner { uid, gid }, "{text}");
    }
    for bad in ["nobody", "app:nogroup", "a:b:c"] {
        assert!(resolve_owner(file.as_fd(), bad).is_err(), "{bad}");
    }
}

#[test]
fn an_account_file_that_is_a_pipe_is_refused_and_not_waited_for() {
    let into = tree(&[("etc/x", "")]);
    rustix::fs::mknodat(root(&into), "etc/passwd", rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    assert!(matches!(resolve_owner(root(&into).as_fd(), "app"), Err(OwnerError::File(..))));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "files of a test")]
fn the_digest_tells_content_modes_and_names_but_not_times() {
    let context = tree(&[("a", "one"), ("d/b", "two")]);
    let file = root(&context);
    let tell = |text: &str| {
        let source = Source { root: file.as_fd(), ignore: None, exclude: None };
        digest(file.as_fd(), &source.pick(text).unwrap(), &StatCache::default(), false, &|_, _| ()).unwrap().digest
    };
    let first = tell(".");
    fs::write(context.path().join("a"), "one").unwrap();
    assert_eq!(first, tell("."), "times play no part");
    fs::write(context.path().join("a"), "eno").unwrap();
    assert_ne!(first, tell("."), "content does");
    fs::write(context.path().join("a"), "one").unwrap();
    fs::set_permissions(context.path().join("d/b"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(first, tell("."), "modes do");
    fs::set_permissions(context.path().join("d/b"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(first, tell("."));
    fs::rename(context.path().join("d"), context.path().join("e")).unwrap();
    assert_ne!(first, tell("."), "names do");
}

#[test]
fn files_that_several_threads_read_keep_their_places() {
    let files: Vec<(String, String)> = (0..500).map(|n| (format!("d{}/{n}", n % 7), format!("content {n}"))).collect();
    let context = tree(&files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>());
    let file = root(&context);
    let source = Source { root: file.as_fd(), ignore: None, exclude: None };
    let of = |picked: &[Picked]| digest(file.as_fd(), picked, &StatCache::default(), false, &|_, _| ()).unwrap();
    let whole = source.pick(".").unwrap();
    let prints = of(&whole).prints;
    assert_eq!(prints.len(), 500 + 7 + 1);
    for (entry, print) in whole[0].entries.iter().zip(prints) {
        if entry.kind == Kind::File {
            let alone = source.pick(&entry.path.to_string_lossy()).unwrap();
            assert_eq!(of(&alone).prints, [print], "{:?}", entry.path);
        }
    }
}

#[test]
fn a_settled_file_is_hashed_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stat");
    let old = Stamp { file: (1, 2), size: 3, mtime: 4, ctime: 5 };
    let fresh = Stamp { ctime: crate::base::Timestamp::now().0, file: (1, 3), ..old };
    let cache = StatCache::load(&path);
    cache.put(old, blake3::hash(b"x"));
    cache.put(fresh, blake3::hash(b"y"));
    cache.save().unwrap();
    let cache = StatCache::load(&path);
    assert_eq!(cache.get(&old), Some(blake3::hash(b"x")));
    assert_eq!(cache.get(&fresh), None, "it may change within the same tick");
    assert_eq!(cache.get(&Stamp { size: 4, ..old }), None);
}
