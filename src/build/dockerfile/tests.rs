//! The language against the public test data (when it lies beside the repository) and against our own cases.

use super::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

/// Where the public test data lies: `BULKHEAD_TEST_DATA`, else `../shared/data` beside a directory above the repository.
fn shared_data() -> Option<PathBuf> {
    let given = std::env::var_os("BULKHEAD_TEST_DATA").map(PathBuf::from);
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(1).take(2).map(|dir| dir.join("shared/data"));
    given.into_iter().chain(above).find(|dir| dir.join("dockerfile").is_dir())
}

/// Returns the test data, or says why the test is skipped.
fn data() -> Option<PathBuf> {
    let dir = shared_data().map(|d| d.join("dockerfile"));
    if dir.is_none() {
        crate::tests::skip("the public test data is not beside the repository (set BULKHEAD_TEST_DATA)");
    }
    dir
}

fn own_cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dockerfile")
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    found.sort();
    assert!(!found.is_empty(), "{}", dir.display());
    found
}

#[test]
fn trees_are_those_of_buildkit() {
    let Some(data) = data() else { return };
    for case in folders(&data.join("parser/testfiles")) {
        let text = std::fs::read_to_string(case.join("Dockerfile")).unwrap();
        let tree = parse_tree(&text).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
        let expected = std::fs::read_to_string(case.join("result")).unwrap();
        assert_eq!(tree.dump().trim(), expected.trim(), "{}", case.display());
    }
}

#[test]
fn what_buildkit_refuses_is_refused() {
    let Some(data) = data() else { return };
    for case in folders(&data.join("parser/testfiles-negative")) {
        let text = std::fs::read_to_string(case.join("Dockerfile")).unwrap();
        assert!(parse_tree(&text).is_err(), "{}", case.display());
    }
}

#[test]
fn words_are_replaced_as_buildkit_does() {
    let Some(data) = data() else { return };
    let text = std::fs::read_to_string(data.join("shell/envVarTest")).unwrap();
    let vars = [("PWD", "/home"), ("SHELL", "bash"), ("KOREAN", "한국어"), ("NULL", "")];
    let lookup = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    let mut checked = 0;
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
        let parts: Vec<&str> = line.trim_start().split('|').map(str::trim).collect();
        let [platform, word, expected] = parts[..] else { panic!("{line}") };
        if platform == "W" {
            continue;
        }
        let result = expand(word, Mode::word('\\'), &lookup);
        match expected {
            "error" => assert!(result.is_err(), "{line}: {result:?}"),
            _ => assert_eq!(result.unwrap_or_else(|e| panic!("{line}: {e}")).text, expected, "{line}"),
        }
        checked += 1;
    }
    assert!(checked > 200);
}

#[test]
fn words_are_split_as_buildkit_does() {
    let Some(data) = data() else { return };
    let text = std::fs::read_to_string(data.join("shell/wordsTest")).unwrap();
    let mut vars: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        if let Some(var) = line.strip_prefix("ENV ") {
            let (name, value) = var.trim_start().split_once('=').unwrap();
            vars.retain(|(n, _)| n != name);
            vars.push((name.into(), value.into()));
            continue;
        }
        let (word, expected) = line.split_once('|').unwrap();
        let lookup = |name: &str| vars.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        match expand(word.trim(), Mode::word('\\'), &lookup) {
            Ok(found) => assert_eq!(
                found.words,
                expected.trim_start().split(',').map(str::to_owned).collect::<Vec<_>>(),
                "{line}"
            ),
            Err(_) => assert_eq!(expected.trim(), "error", "{line}"),
        }
    }
}

/// Each folder holds a Dockerfile and what becomes of it: the tree and the typed instructions, or the error.
#[test]
fn own_cases_come_out_as_written_down() {
    for case in folders(&own_cases()) {
        let text = std::fs::read_to_string(case.join("Dockerfile")).unwrap();
        let found = describe(&text);
        let expected = case.join("expected");
        if std::env::var_os("BULKHEAD_BLESS").is_some() {
            #[expect(clippy::disallowed_methods, reason = "golden file of a test")]
            std::fs::write(&expected, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(&expected).unwrap_or_default(), "{}", case.display());
    }
}

fn describe(text: &str) -> String {
    match (parse_tree(text), parse(text)) {
        (Ok(tree), Ok(file)) => {
            let mut found = tree.dump();
            for stage in &file.stages {
                found += &format!("\nlines {}-{}: {:?}\n", stage.lines.first, stage.lines.last, stage.from);
                for s in &stage.statements {
                    found += &format!("lines {}-{}: {:#?}\n", s.lines.first, s.lines.last, s.instruction);
                }
            }
            found
        }
        (_, Err(error)) => {
            let hint = error.hint().map(|h| format!("hint: {h}\n")).unwrap_or_default();
            format!("error: {error}\n{hint}{}", error.excerpt(text))
        }
        (Err(error), Ok(_)) => panic!("typed without a tree: {error}"),
    }
}

#[test]
fn every_expansion_form_gives_what_the_reference_says() {
    let vars = [("name", "foobarbaz"), ("empty", ""), ("path", "/a/b/c"), ("star", "a*b"), ("version", "1.2.3")];
    let lookup = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    for (word, expected) in [
        ("${name#f*b}", "arbaz"),
        ("${name##f*b}", "az"),
        ("${name%b*}", "foobar"),
        ("${name%%b*}", "foo"),
        ("${name#?oo}", "barbaz"),
        ("${name/ba/BA}", "fooBArbaz"),
        ("${name//ba/BA}", "fooBArBAz"),
        ("${name//b??/-}", "foo--"),
        ("${path//\\//_}", "_a_b_c"),
        ("${path##*/}", "c"),
        ("${path%/*}", "/a/b"),
        ("${star/\\*/x}", "axb"),
        ("${empty:-x}", "x"),
        ("${empty-x}", ""),
        ("${missing-x}", "x"),
        ("${empty+x}", "x"),
        ("${empty:+x}", ""),
        ("${missing/a/b}", ""),
        ("v${version%.*}", "v1.2"),
        ("${missing:-'a b'}", "a b"),
    ] {
        assert_eq!(expand(word, Mode::word('\\'), &lookup).map(|e| e.text).as_deref(), Ok(expected), "{word}");
    }
    for word in ["${name/a", "${name/a/b", "${name:x}", "${name!x}", "${missing:?no luck}", "${name#\\q}"] {
        assert!(expand(word, Mode::word('\\'), &lookup).is_err(), "{word}");
    }
}

#[test]
fn nesting_and_doubling_have_a_limit() {
    let deep = "${a:-".repeat(100_000);
    assert_eq!(expand(&deep, Mode::word('\\'), &|_| None), Err(ExpandError::TooDeep));
    let long = "x".repeat(1 << 19);
    assert_eq!(expand("$a$a$a$a", Mode::word('\\'), &|_| Some(long.clone())), Err(ExpandError::TooLong));
    assert!(parse(&format!("FROM a\n{}RUN x", "ONBUILD ".repeat(100_000))).is_err());
    assert!(parse(&format!("FROM a\nCMD {}", "[".repeat(100_000))).is_ok(), "falls back to a shell line");
}

/// A star keeps every length of the value alive: half a second for each `#*a*a...` of a long value.
#[test]
fn a_long_value_is_not_compared_with_a_long_pattern() {
    let value = "a".repeat(1 << 20);
    for form in ["#", "##", "%", "%%"] {
        let word = format!("${{A{form}{}b}}", "*a".repeat(500));
        let found = expand(&word, Mode::word('\\'), &|_| Some(value.clone()));
        assert!(found == Err(ExpandError::TooLong), "{form}");
        let short = expand(&format!("${{A{form}*a*a}}"), Mode::word('\\'), &|_| Some(value.clone()));
        assert!(short.is_ok(), "{form}");
    }
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text() {
    let file = parse("\u{feff}# escape=`\r\nFROM a`\r\nb\r\nRUN <<X\r\necho\r\nX\r\nCMD x\r\n").unwrap();
    assert_eq!(file.stages[0].from.image, "ab");
    let Instruction::Run(run) = &file.stages[0].statements[0].instruction else { panic!() };
    assert_eq!(run.heredocs[0].body, "echo\r\n");
    assert_eq!(file.stages[0].statements[1].lines, LineRange { first: 7, last: 7 });
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_dockerfile_like_text_makes_the_parser_panic(
        words in proptest::collection::vec(
            prop_oneof![
                Just("FROM"), Just("RUN"), Just("COPY"), Just("ADD"), Just("ENV"), Just("ONBUILD"), Just("HEALTHCHECK"), Just("CMD"), Just("LABEL"),
                Just("#!step"), Just("# escape=`"), Just("\n"), Just("\r\n"), Just(" "), Just("\\\n"), Just("`"), Just("<<EOF"), Just("<<-'E'"),
                Just("EOF"), Just("\nEOF\n"), Just("--mount="), Just("type=cache,"), Just("--from=x"), Just("--"), Just("[\"a\""), Just("]"), Just("${"),
                Just("}"), Just("$x"), Just("'"), Just("\""), Just("a=b"), Just("é\u{2028}"), Just("#"), Just("\t"), Just("\\"),
            ],
            0..60,
        )
    ) {
        let text = words.concat();
        if let Err(error) = parse(&text) {
            let _ = (error.to_string(), error.hint(), error.excerpt(&text));
        }
        let _ = parse_tree(&text).map(|t| t.dump());
    }

    #[test]
    fn no_word_makes_the_expansion_panic(word in "[a$ {}:/#%*?\\\\'\"+-]{0,40}") {
        let _ = expand(&word, Mode::word('\\'), &|n| (n == "a").then(|| "abab".to_owned()));
    }
}
