//! The house rules of `ARCHITECTURE.md`, checked on the sources as text.
//!
//! The floors are read from the code map in `ARCHITECTURE.md`, so the document and the check cannot drift apart. Code of
//! tests (`#[cfg(test)]` items, `tests.rs`, `*_tests.rs`, `tests/`) is held only to the length of a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Longest file, in lines.
const MAX_LINES: usize = 800;

/// Imports across one floor that are wanted, each with its reason.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("sandbox", "security", "the sandbox applies what security decides"),
    ("sys", "base", "system calls speak in ids, sizes and durations"),
];

/// Imports that go down and are refused all the same.
const REFUSED: &[(&str, &[&str], &str)] = &[
    ("shim", &["network", "volume", "image", "step", "config"], "the shim links no driver and stays small"),
    (
        "build",
        &["shim", "sandbox", "security", "network", "volume", "sys"],
        "build reaches the system through engine; only its cache's own records are store's",
    ),
    ("cli", &["sandbox", "network", "volume"], "a door asks engine"),
];

/// A word that may stand only in some places.
struct Word {
    text: &'static str,
    /// Path prefixes below `src/` that may use it.
    allowed: &'static [&'static str],
    why: &'static str,
}

const WORDS: &[Word] = &[
    Word { text: "println!", allowed: &["cli/"], why: "only cli prints" },
    Word { text: "print!", allowed: &["cli/"], why: "only cli prints" },
    Word { text: "eprintln!", allowed: &["cli/"], why: "only cli prints" },
    Word { text: "eprint!", allowed: &["cli/"], why: "only cli prints" },
    Word { text: "dbg!", allowed: &[], why: "a debugging aid" },
    Word { text: "io::stdout", allowed: &["cli/"], why: "only cli prints" },
    Word { text: "io::stderr", allowed: &["cli/"], why: "only cli prints" },
    Word { text: "env::var", allowed: &["cli/", "engine/"], why: "nothing below engine reads the environment" },
    Word { text: "env::vars", allowed: &["cli/", "engine/"], why: "nothing below engine reads the environment" },
    Word { text: "env::var_os", allowed: &["cli/", "engine/"], why: "nothing below engine reads the environment" },
    Word { text: "env::args", allowed: &["cli/", "main.rs"], why: "arguments are cli's" },
    Word { text: "env::args_os", allowed: &["cli/", "main.rs"], why: "arguments are cli's" },
    Word { text: "env::current_dir", allowed: &["cli/"], why: "relative paths are resolved by cli" },
    Word { text: "env::home_dir", allowed: &["cli/"], why: "where state lives is decided by cli" },
    Word { text: "env::temp_dir", allowed: &["cli/"], why: "where state lives is decided by cli" },
    Word { text: "env::set_var", allowed: &[], why: "not safe beside other threads" },
    Word { text: "unsafe", allowed: &["sys/"], why: "unsafe lives in sys alone" },
    Word { text: "tokio", allowed: &[], why: "no module may be asynchronous yet" },
    Word { text: "wasmtime", allowed: &[], why: "only plugin/ may name it, and it does not exist yet" },
    Word { text: "async fn", allowed: &[], why: "no module may be asynchronous yet" },
    Word { text: ".await", allowed: &[], why: "no module may be asynchronous yet" },
    Word { text: "todo!", allowed: &[], why: "unfinished" },
    Word { text: "unimplemented!", allowed: &[], why: "unfinished" },
    Word { text: "process::exit", allowed: &["cli/", "sys/"], why: "destructors must run" },
    Word { text: "thread::spawn", allowed: &[], why: "namespaces need one thread; workers use std::thread::scope" },
    Word { text: "pre_exec", allowed: &[], why: "children start through sys::spawn_role or sandbox::launch" },
    Word {
        text: "sys::mount",
        allowed: &["sandbox/", "sys/", "image/unpack/", "shim/"],
        why: "only the sandbox mounts",
    },
    Word { text: "sys::netlink", allowed: &["network/", "sys/"], why: "only network speaks netlink" },
];

/// Whether `text[at..]` starts with `word` and it stands by itself.
fn word_at(text: &str, at: usize, word: &str) -> bool {
    let part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = text.as_bytes();
    let first = word.as_bytes()[0];
    let open_left = first.is_ascii_alphanumeric() && at > 0 && part(bytes.get(at - 1));
    let last = word.as_bytes()[word.len() - 1];
    let open_right = last.is_ascii_alphanumeric() && part(bytes.get(at + word.len()));
    !open_left && !open_right
}

/// Blanks out comments, strings and characters, keeping every line where it is.
fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let blank = |out: &mut Vec<u8>, byte: u8| out.push(if byte == b'\n' { b'\n' } else { b' ' });
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let end = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
        } else if rest.starts_with(b"/*") {
            block_comment_end(bytes, at)
        } else if let Some(end) = raw_string_end(bytes, at).filter(|_| !word_before) {
            end
        } else if rest[0] == b'"' {
            quoted_end(bytes, at + 1, b'"')
        } else if rest[0] == b'\'' && is_character(rest) {
            quoted_end(bytes, at + 1, b'\'')
        } else {
            out.push(rest[0]);
            at += 1;
            continue;
        };
        for byte in &bytes[at..end.min(bytes.len())] {
            blank(&mut out, *byte);
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A lifetime is a quote that no second quote closes after one character.
fn is_character(rest: &[u8]) -> bool {
    rest.get(1) == Some(&b'\\') || {
        let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]).into_owned();
        let mut characters = text.chars();
        characters.next().is_some() && characters.next() == Some('\'')
    }
}

fn quoted_end(bytes: &[u8], mut at: usize, close: u8) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == close => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    at += usize::from(matches!(bytes[at], b'b' | b'c'));
    if bytes.get(at) != Some(&b'r') {
        return None;
    }
    at += 1;
    let hashes = bytes[at..].iter().take_while(|byte| **byte == b'#').count();
    at += hashes;
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let found = bytes[at + 1..].windows(close.len()).position(|window| window == close);
    Some(found.map_or(bytes.len(), |length| at + 1 + length + close.len()))
}

/// Blanks out every item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let bytes = out.as_bytes();
        let mut at = start + "#[cfg(test)]".len();
        let mut depth = 0_usize;
        while at < bytes.len() {
            match bytes[at] {
                b'{' => depth += 1,
                b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(bytes[at - 1], b'}' | b';') {
                break;
            }
        }
        let blanked: String = out[start..at].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..at, &blanked);
    }
    out
}

/// Top modules that `code` names through `crate::`, `crate::{...}` or a chain of `super::`, with their lines.
fn imports(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut roots: Vec<usize> =
        code.match_indices("crate::").filter(|(at, word)| word_at(code, *at, word)).map(|(at, _)| at + 7).collect();
    let climb = "super::".repeat(depth);
    roots.extend(
        code.match_indices(&climb)
            .filter(|(at, _)| !code[..*at].ends_with("super::") && word_at(code, *at, "super"))
            .map(|(at, _)| at + climb.len()),
    );
    for at in roots {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut level, mut name_starts) = (0_usize, true);
            for (offset, character) in group.char_indices() {
                match character {
                    '{' => level += 1,
                    '}' if level == 0 => break,
                    '}' => level -= 1,
                    ',' if level == 0 => name_starts = true,
                    c if name_starts && (c.is_alphanumeric() || c == '_') => {
                        found.push((line, first_word(&group[offset..])));
                        name_starts = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push((line, first_word(rest)));
        }
    }
    found.sort();
    found
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The floors of the code map: module to floor.
fn floors(architecture: &str) -> BTreeMap<String, u32> {
    let mut map = BTreeMap::new();
    for line in architecture.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(floor) = cells.get(1).and_then(|cell| cell.parse::<u32>().ok()) else { continue };
        for name in cells.get(2).unwrap_or(&"").split(',') {
            map.insert(name.trim().trim_matches('`').to_owned(), floor);
        }
    }
    map
}

/// One source file: its path below `src/` with forward slashes, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or("")
    }

    /// How many `super` lead from this file's module to the crate root.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if self.path.ends_with("mod.rs") { parts - 1 } else { parts }
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.split('/').any(|part| part == "tests")
    }
}

/// Everything that is wrong with one file, a line each.
fn violations(source: &Source, floors: &BTreeMap<String, u32>) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = source.text.lines().count();
    if lines > MAX_LINES {
        wrong.push(format!("src/{}: {lines} lines, more than {MAX_LINES}: split by noun or by phase", source.path));
    }
    if source.is_test() {
        return wrong;
    }
    let code = without_tests(&code_only(&source.text));
    words(source, &code, &mut wrong);
    if matches!(source.path.as_str(), "main.rs" | "lib.rs") {
        return wrong;
    }
    let module = source.module();
    let Some(&here) = floors.get(module) else {
        wrong.push(format!("src/{}: module {module} stands on no floor of ARCHITECTURE.md", source.path));
        return wrong;
    };
    for (line, target) in imports(&code, source.depth()) {
        let Some(&there) = floors.get(&target).filter(|_| target != module) else { continue };
        let sideways = SIDEWAYS.iter().any(|(from, to, _)| *from == module && *to == target);
        if there > here || (there == here && !sideways) {
            let direction = if there > here { "up" } else { "sideways" };
            wrong.push(format!(
                "src/{}:{line}: {module} (floor {here}) imports {direction}: {target} (floor {there})",
                source.path
            ));
        }
        if let Some((_, _, why)) = REFUSED.iter().find(|(from, to, _)| *from == module && to.contains(&target.as_str()))
        {
            wrong.push(format!("src/{}:{line}: {module} imports {target}, but {why}", source.path));
        }
    }
    wrong
}

fn words(source: &Source, code: &str, wrong: &mut Vec<String>) {
    for word in WORDS.iter().filter(|word| !word.allowed.iter().any(|prefix| source.path.starts_with(prefix))) {
        for (at, _) in code.match_indices(word.text).filter(|(at, _)| word_at(code, *at, word.text)) {
            let line = code[..at].matches('\n').count() + 1;
            wrong.push(format!("src/{}:{line}: `{}` here, but {}", source.path, word.text, word.why));
        }
    }
    for (number, line) in source.text.lines().enumerate() {
        for mark in ["TODO", "FIXME", "XXX"] {
            let named = line.find(mark).filter(|at| word_at(line, *at, mark));
            if named.is_some_and(|at| !line[at..].contains('#')) && line.contains("//") {
                wrong.push(format!("src/{}:{}: {mark} without the number of an issue", source.path, number + 1));
            }
        }
    }
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("list {}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("directory entry").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let root = repository().join("src");
    rust_files(&root)
        .iter()
        .map(|path| Source {
            path: path.strip_prefix(&root).expect("below src").to_string_lossy().replace('\\', "/"),
            text: read(path),
        })
        .collect()
}

fn real_floors() -> BTreeMap<String, u32> {
    floors(&read(&repository().join("ARCHITECTURE.md")))
}

fn report(wrong: &[String]) {
    let mut text = String::new();
    for line in wrong {
        let _ = writeln!(text, "  {line}");
    }
    assert!(wrong.is_empty(), "{} house rules broken:\n{text}", wrong.len());
}

#[test]
fn every_source_keeps_the_house_rules() {
    let floors = real_floors();
    let wrong: Vec<String> = sources().iter().flat_map(|source| violations(source, &floors)).collect();
    report(&wrong);
}

#[test]
fn the_code_map_names_every_module_and_no_other() {
    let floors = real_floors();
    let mut wrong = Vec::new();
    let declared: Vec<String> = read(&repository().join("src/lib.rs"))
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned))
        .collect();
    for module in &declared {
        if !floors.contains_key(module) {
            wrong.push(format!("module {module} is missing from the code map of ARCHITECTURE.md"));
        }
    }
    for module in floors.keys().filter(|module| !declared.contains(module)) {
        wrong.push(format!("the code map of ARCHITECTURE.md names {module}, which lib.rs does not declare"));
    }
    for module in &declared {
        let face = read(&repository().join("src").join(module).join("mod.rs"));
        if !face.starts_with("//! ") {
            wrong.push(format!("src/{module}/mod.rs does not open with what the module owns"));
        }
    }
    report(&wrong);
}

#[test]
fn test_files_are_short_and_every_one_is_registered() {
    let directory = repository().join("tests/it");
    let main = read(&directory.join("main.rs"));
    let mut wrong = Vec::new();
    for path in rust_files(&directory) {
        let lines = read(&path).lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
        let name = path.file_stem().expect("file name").to_string_lossy().into_owned();
        let nested = path.parent() != Some(directory.as_path());
        if name != "main" && !nested && !main.contains(&format!("mod {name};")) {
            wrong.push(format!("tests/it/{name}.rs is not registered in main.rs and would never run"));
        }
    }
    report(&wrong);
}

#[test]
fn the_readme_has_exactly_two_set_up_commands() {
    let readme = read(&repository().join("README.md"));
    let commands: Vec<&str> = readme.lines().filter(|line| line.starts_with("bash ")).collect();
    assert_eq!(commands, ["bash examples/quickstart/run.sh", "bash tests/run.sh"]);
    for command in commands {
        let script = command.trim_start_matches("bash ");
        assert!(repository().join(script).is_file(), "README.md names {script}, which is not there");
    }
}

fn judge(path: &str, text: &str) -> Vec<String> {
    let map = floors(
        "| 4 | `engine` | x |\n| 3 | `shim` | x |\n| 2 | `sandbox` | x |\n| 2 | `security` | x |\n| 2 | `network`, `image` | x |\n| 0 | `sys`, `base` | x |",
    );
    violations(&Source { path: path.to_owned(), text: text.to_owned() }, &map)
}

/// The check itself must be able to fail: each bad snippet breaks one rule, each good one none.
#[test]
fn the_check_sees_what_it_is_there_to_see() {
    let bad = [
        ("network/a.rs", "use crate::engine::X;"),
        ("network/a.rs", "use crate::{base::Id, image};"),
        ("network/a.rs", "fn f() { crate::security::g() }"),
        ("security/a.rs", "use crate::sandbox::Bundle;"),
        ("network/deep/b.rs", "use super::super::super::engine::X;"),
        ("network/mod.rs", "use super::image::X;"),
        ("shim/a.rs", "use crate::network::Draft;"),
        ("base/a.rs", "use crate::sys::x;"),
        ("nowhere/a.rs", "fn f() {}"),
        ("network/a.rs", "fn f() { println!(\"x\") }"),
        ("network/a.rs", "fn f() { let _ = std::env::var(\"X\"); }"),
        ("network/a.rs", "fn f() { unsafe { g() } }"),
        ("engine/a.rs", "use tokio::net;"),
        ("engine/a.rs", "// TODO later"),
        ("engine/a.rs", "fn f<'a>(x: &'a str) { todo!() }"),
        ("sys/a.rs", &"\n".repeat(MAX_LINES + 1)),
    ];
    for (path, text) in bad {
        assert_eq!(judge(path, text).len(), 1, "{path}: {text} gave {:?}", judge(path, text));
    }
    let good = [
        ("network/a.rs", "use crate::{base::{Id, engine}, sys};"),
        ("network/a.rs", "use super::super::network::X;"),
        ("network/a.rs", "use super::engine;"),
        ("sandbox/a.rs", "use crate::security::Hardening;"),
        ("network/a.rs", "// crate::engine is above, println! prints\n/* unsafe /* nested */ unsafe */"),
        (
            "network/a.rs",
            "const A: &str = \"unsafe \\\" unsafe\"; const B: &str = r#\"crate::engine \" todo!\"#; const C: char = '\"'; // '",
        ),
        ("network/a.rs", "#[cfg(test)]\nmod tests { use crate::engine::X; fn f() { println!(\"{}\", 1) } }"),
        ("network/tests.rs", "use crate::engine::X;"),
        ("sys/a.rs", "fn f() { unsafe { g() } }"),
        ("network/a.rs", "#![allow(unsafe_code)]\nfn environment::variable() {}"),
        ("engine/a.rs", "// TODO(#12): later"),
    ];
    for (path, text) in good {
        assert_eq!(judge(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}
