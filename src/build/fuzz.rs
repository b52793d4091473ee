//! What outsiders' texts go through here, as functions of bytes; see `fuzz/` and `crate::fuzz_tests`.

use super::dockerfile::{DockerfileError, Mode, expand, parse, parse_tree, parse_trigger};
use super::glob::{Component, PathPattern, clean};
use super::graph::{CopyFrom, Graph, Operation, Settings, Start, plan};
use super::ignore::Ignore;
use crate::base::Digest;
use crate::oci::{ContainerConfig, ImageConfig, Platform};
use crate::step::BaseImage;

/// A Dockerfile: tree, typed form, triggers, replacement of variables. Line ends of either kind mean the same, and an error
/// stands at a place in the file.
pub fn dockerfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let tree = parse_tree(text);
    let typed = parse(text);
    assert!(tree.is_ok() || typed.is_err(), "what has no tree has no instructions");
    let lines = text.split('\n').count();
    let within = |error: &DockerfileError| {
        let line = usize::try_from(error.at.line).unwrap_or(usize::MAX);
        assert!((1..=lines).contains(&line) && error.at.column > 0, "{error} is not in the file");
        assert!(error.excerpt(text).len() <= 8 * text.len() + 200, "an excerpt is a part of the file");
    };
    typed.as_ref().err().into_iter().chain(tree.as_ref().err()).for_each(within);
    if let Ok(tree) = &tree {
        let dump = tree.dump();
        assert!(dump.len() <= 8 * text.len() + 100);
        let mut last = 0;
        for node in &tree.nodes {
            assert!(last < node.lines.first && node.lines.first <= node.lines.last, "lines go on");
            last = node.lines.last;
        }
        assert!(usize::try_from(last).is_ok_and(|last| last <= lines));
        if !text.contains('\r') && tree.nodes.iter().all(|node| node.heredocs.is_empty() && node.trigger.is_none()) {
            let other = parse_tree(&text.replace('\n', "\r\n")).map(|tree| tree.dump());
            assert_eq!(other.as_ref(), Ok(&dump), "line ends of DOS mean the same");
        }
    }
    for line in text.lines().take(8) {
        let _ = parse_trigger(line);
        words(line);
    }
}

/// Replacement of variables, in every way.
fn words(line: &str) {
    let long = "ab*c/".repeat(200);
    let lookup = |name: &str| match name.len() % 3 {
        0 => Some("a b$c\\'\"*".to_owned()),
        1 => Some(long.clone()),
        _ => None,
    };
    for bits in 0..16_u8 {
        let mode = Mode {
            raw_quotes: bits & 1 != 0,
            raw_escapes: bits & 2 != 0,
            keep_unset: bits & 4 != 0,
            plain_quotes: bits & 8 != 0,
            ..Mode::word(if bits % 3 == 0 { '`' } else { '\\' })
        };
        let Ok(expanded) = expand(line, mode, &lookup) else { continue };
        if !line.contains(['$', '\\', '`', '\'', '"']) {
            assert_eq!(expanded.text, line, "a plain text is itself");
            let plain: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(expanded.words, plain, "its words are parted by blanks");
        }
        assert!(expanded.words.iter().map(String::len).sum::<usize>() <= expanded.text.len());
    }
}

fn amd64() -> Platform {
    Platform { architecture: "amd64".into(), os: "linux".into(), ..Platform::default() }
}

/// An image of any name but `missing`; some have triggers or a configuration of their own.
fn image(reference: &str, _: &Platform) -> Option<BaseImage> {
    let id = Digest::of(reference.as_bytes());
    let mut config = ContainerConfig { env: vec!["PATH=/bin".into(), "E".into()], ..ContainerConfig::default() };
    if reference.starts_with('t') {
        config.on_build = vec!["COPY --from=assets a /b".into(), "RUN echo $X".into(), "bad".into()];
        config.on_build.truncate(reference.len());
    }
    let config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), config, ..ImageConfig::default() };
    (reference != "missing").then_some(BaseImage { chain: vec![id.clone()], id, config })
}

/// Bytes a plan may take for a file of 16 KiB.
const MOST: usize = 128 << 20;

/// A Dockerfile's graph: the same every time, no larger than a builder's memory, stages stand on earlier ones, and
/// histories name steps that are there.
pub fn graph(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(file) = parse(text) else { return };
    let (settings, mut images) = (
        Settings {
            build_args: vec![("GIVEN".into(), "from outside".into()), ("http_proxy".into(), "http://secret".into())],
            platform: amd64(),
            build_platform: amd64(),
            ..Settings::default()
        },
        image,
    );
    let Ok(graph) = plan(&file, &settings, &mut images) else { return };
    let dump = graph.dump();
    assert!(dump.len() <= MOST, "a plan of {} bytes", dump.len());
    assert!(!dump.contains("http://secret"), "the proxy is in no key and no history");
    if dump.len() < 1 << 20 {
        let again = plan(&file, &settings, &mut images).map(|graph| graph.dump());
        assert_eq!(again.as_ref(), Ok(&dump), "a plan is the same every time");
    }
    stands(&graph);
}

fn stands(graph: &Graph) {
    assert!(graph.target < graph.stages.len());
    for (index, stage) in graph.stages.iter().enumerate() {
        assert!(!matches!(stage.start, Start::Stage(base) if base >= index), "a stage stands on an earlier one");
        for node in &stage.nodes {
            let Operation::Copy(copy) = &node.operation else { continue };
            assert!(!matches!(copy.from, CopyFrom::Stage(from) if from >= index), "a copy is from an earlier stage");
            assert!(copy.destination.starts_with('/'), "{:?}", copy.destination);
        }
        let mut named = stage.history.iter().filter_map(|entry| entry.node);
        assert!(stage.nodes.iter().enumerate().all(|(number, _)| named.next() == Some(number)), "each step, in order");
        assert_eq!(named.next(), None);
        assert!(stage.config.config.working_dir.is_empty() || stage.config.config.working_dir.starts_with('/'));
    }
}

/// A `.dockerignore`, its last line the path to judge; one pattern is compared with a plain reading of it.
pub fn ignore(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let text = text.trim_start_matches('\u{feff}');
    let (patterns, path) = text.rsplit_once('\n').unwrap_or((text, "a/b"));
    let Ok(ignore) = Ignore::parse(patterns) else { return };
    let path = clean(path).join("/");
    let judged = ignore.ignores(&path);
    assert!(!judged || !ignore.is_empty());
    // A line that says the same again changes nothing, and neither do comments and blanks.
    let last = patterns.lines().last().unwrap_or_default();
    let again = Ignore::parse(&format!("# c\n\n{patterns}\n{last}\n \t\n")).expect("it was read before");
    assert_eq!(again.ignores(&path), judged, "{patterns:?} {path:?}");
    // A walk that prunes finds the same.
    let mut inherited = super::ignore::Inherited::default();
    let mut pruned = false;
    for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
        let verdict = ignore.judge(&path[..end], &inherited);
        pruned |= verdict.prune && end < path.len();
        inherited = verdict.inherited;
    }
    assert!(!pruned || judged, "what was pruned could have been taken back: {patterns:?} {path:?}");
    if patterns.len() < 24 && path.len() < 24 {
        alone(patterns, &path, judged);
    }
}

/// One pattern without `**`, compared step by step with the path and its parents. A class of characters may take a slash
/// (moby's does), so patterns with one are left out.
fn alone(pattern: &str, path: &str, judged: bool) {
    let special = |c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}';
    if pattern.is_empty()
        || pattern.contains("**")
        || pattern.contains('[')
        || pattern.contains(special)
        || pattern.starts_with(['!', '#'])
    {
        return;
    }
    let steps = clean(pattern);
    let relative = !pattern.split('/').any(|step| step == "..");
    let names: Vec<&str> = path.split('/').collect();
    if steps.is_empty() || !relative || path.is_empty() {
        return;
    }
    let fits = names.len() >= steps.len() && steps.iter().zip(&names).all(|(step, name)| naive(step, name));
    assert_eq!(judged, fits, "{pattern:?} {path:?}");
}

/// Go's `filepath.Match` in the plainest way: every star tries every length. The pattern is known to be good.
fn naive(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    let first = |name: &str| name.chars().next().map(|c| (c, name[c.len_utf8()..].to_owned()));
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| naive(rest.as_str(), &name[at..]))
        }
        Some('?') => first(name).is_some_and(|(_, behind)| naive(rest.as_str(), &behind)),
        Some('[') => {
            let Some((c, behind)) = first(name) else { return false };
            let mut negated = false;
            let (mut within, mut any) = (false, false);
            loop {
                let mut next = || match rest.next() {
                    Some('\\') => rest.next().map(|c| (c, true)),
                    c => c.map(|c| (c, false)),
                };
                let Some((low, escaped)) = next() else { return false };
                if low == '^' && !escaped && !any && !negated {
                    negated = true;
                    continue;
                }
                if low == ']' && !escaped && any {
                    break;
                }
                any = true;
                let high = if rest.as_str().starts_with('-') {
                    rest.next();
                    let Some((high, _)) = (match rest.next() {
                        Some('\\') => rest.next().map(|c| (c, true)),
                        c => c.map(|c| (c, false)),
                    }) else {
                        return false;
                    };
                    high
                } else {
                    low
                };
                within |= (low..=high).contains(&c);
            }
            within != negated && naive(rest.as_str(), &behind)
        }
        Some('\\') => {
            let wanted = rest.next();
            first(name).is_some_and(|(c, behind)| Some(c) == wanted && naive(rest.as_str(), &behind))
        }
        Some(wanted) => first(name).is_some_and(|(c, behind)| c == wanted && naive(rest.as_str(), &behind)),
    }
}

/// A pattern of `COPY`, its last line the path to compare, against a plain reading of it.
pub fn glob(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pattern, path) = text.rsplit_once('\n').unwrap_or((text, "a/b"));
    if let Ok(component) = Component::parse(pattern) {
        let matches = component.matches(path);
        if pattern.matches('*').count() < 5 && path.len() < 40 && pattern.len() < 60 {
            assert_eq!(matches, naive(pattern, path), "{pattern:?} {path:?}");
        }
    }
    if let Ok(pattern) = PathPattern::parse(pattern) {
        let _ = pattern.is_wild();
    }
}
