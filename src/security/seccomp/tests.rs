//! The compiler against a plain reading of the profile, against libseccomp, and against hostile profiles.

use super::fuzz::reference;
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const DOCKER_SHAPED: &str = include_str!("../../../tests/data/seccomp/docker-shaped.json");

fn options(capabilities: CapabilitySet) -> ProfileOptions {
    ProfileOptions { capabilities, kernel: (6, 18), i386: false }
}

fn file(text: &str) -> ProfileSource<'_> {
    ProfileSource::File { name: "test", text }
}

/// Argument vectors around the values that profiles compare with.
fn vectors() -> Vec<[u64; 6]> {
    let high = 1_u64 << 32;
    let firsts = [
        0,
        1,
        2,
        5,
        6,
        7,
        8,
        16,
        17,
        38,
        40,
        0x2_0000,
        0x2_0008,
        0xffff_ffff,
        0x7e02_0000,
        0x3d_0f00,
        0x5412,
        high,
        high + 1,
        high + 5,
        u64::MAX,
        0x5412 | high,
    ];
    let build = |(at, first): (usize, &u64)| {
        let second = firsts[(at * 7 + 3) % firsts.len()];
        let third = [0, 3, 4, 12, high, u64::MAX][at % 6];
        [*first, second, third, 0, u64::MAX, at as u64]
    };
    firsts.iter().enumerate().map(build).collect()
}

fn check_profile(text: &str, options: &ProfileOptions) {
    let profile = Profile::parse("test", text).unwrap();
    let filter = compile_profile(file(text), options).unwrap();
    for number in (0..=600).chain([0x3fff_ffff]) {
        for arguments in vectors() {
            let (verdict, _) = run(&filter.instructions, &Call::x86_64(number, arguments)).unwrap();
            let expected = reference(&profile, options, &syscalls::X86_64, number, &arguments);
            assert_eq!(verdict, expected, "{number} {arguments:x?}");
        }
    }
}

#[test]
fn compiled_verdicts_are_those_of_the_text() {
    let admin = CapabilitySet::DEFAULT.with(Capability::SYS_ADMIN);
    for capabilities in [CapabilitySet::EMPTY, CapabilitySet::DEFAULT, CapabilitySet::ALL, admin] {
        check_profile(DOCKER_SHAPED, &options(capabilities));
        check_profile(ProfileSource::Default.text(), &options(capabilities));
        check_profile(ProfileSource::Strict.text(), &options(capabilities));
    }
    check_profile(DOCKER_SHAPED, &ProfileOptions { kernel: (4, 7), ..options(CapabilitySet::DEFAULT) });
}

#[test]
fn a_profile_of_dockers_size_fits_700_instructions() {
    let filter = compile_profile(file(DOCKER_SHAPED), &options(CapabilitySet::DEFAULT)).unwrap();
    assert!(filter.instructions.len() <= 700, "{}", filter.instructions.len());
    let longest =
        (0..=470).map(|number| run(&filter.instructions, &Call::x86_64(number, [0; 6])).unwrap().1).max().unwrap();
    assert!(longest < 60, "{longest} instructions for one call");
}

#[test]
fn i386_opens_only_when_profile_and_option_ask() {
    let asked = ProfileOptions { i386: true, ..options(CapabilitySet::DEFAULT) };
    let profile = Profile::parse("test", DOCKER_SHAPED).unwrap();
    let filter = compile_profile(file(DOCKER_SHAPED), &asked).unwrap();
    for number in 0..=600 {
        for arguments in vectors() {
            let (verdict, _) = run(&filter.instructions, &Call::i386(number, arguments)).unwrap();
            assert_eq!(verdict, reference(&profile, &asked, &syscalls::I386, number, &arguments), "i386 {number}");
            let (verdict, _) = run(&filter.instructions, &Call::x86_64(number, arguments)).unwrap();
            assert_eq!(verdict, reference(&profile, &asked, &syscalls::X86_64, number, &arguments), "{number}");
        }
    }
    let closed = compile_profile(file(DOCKER_SHAPED), &options(CapabilitySet::DEFAULT)).unwrap();
    assert_eq!(run(&closed.instructions, &Call::i386(20, [0; 6])).unwrap().0, KILL_PROCESS);
    assert!(matches!(compile_profile(ProfileSource::Default, &asked), Err(SeccompError::NoI386)));
}

#[test]
fn the_kernel_takes_what_we_compile() {
    let asked = ProfileOptions { i386: true, ..options(CapabilitySet::DEFAULT) };
    for (text, options) in [(DOCKER_SHAPED, asked), (DOCKER_SHAPED, options(CapabilitySet::ALL))] {
        let filter = compile_profile(file(text), &options).unwrap();
        load_in_thread(&filter.instructions, || {
            assert_eq!(crate::sys::seccomp::raw_call(libc::SYS_getppid, [0; 6]).map(|pid| pid > 0), Ok(true));
            assert_eq!(crate::sys::seccomp::raw_call(9999, [0; 6]), Err(libc::ENOSYS));
        });
    }
}

fn load_in_thread(program: &[u64], body: impl FnOnce() + Send) {
    let inside = || {
        rustix::thread::set_no_new_privs(true).unwrap();
        crate::sys::seccomp::load(program).unwrap();
        body();
    };
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap());
}

#[test]
fn both_spellings_and_both_formats_are_read() {
    let verdict = |text: &str, number| {
        let filter = compile_profile(file(text), &options(CapabilitySet::EMPTY)).unwrap();
        run(&filter.instructions, &Call::x86_64(number, [0; 6])).unwrap().0
    };
    let old = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
        {"name":"read","action":"SCMP_ACT_ALLOW","args":null},
        {"name":"write","action":"SCMP_ACT_TRAP","args":[]},
        {"names":["open"],"action":"SCMP_ACT_KILL","comment":"x","includes":{},"excludes":{"caps":null}}]}"#;
    assert_eq!([0, 1, 2, 3].map(|number| verdict(old, number)), [ALLOW, TRAP, KILL_THREAD, ERRNO | 1]);
    let oci = r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[
        {"names":["read","nonesuch"],"action":"SCMP_ACT_ERRNO","errnoRet":22},
        {"names":["write"],"action":"SCMP_ACT_TRACE","errnoRet":7}]}"#;
    assert_eq!([0, 1, 2].map(|number| verdict(oci, number)), [ERRNO | 22, TRACE | 7, ALLOW]);
    // A deny-list lets new calls pass; the x32 twins of what it denies stay closed all the same.
    assert_eq!(verdict(oci, 2000), ALLOW);
    assert_eq!(verdict(oci, rules::X32_BIT), ERRNO | 38);
    let empty = r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","defaultErrnoRet":null}"#;
    assert_eq!(verdict(empty, 0), KILL_PROCESS);
    assert_eq!(verdict(empty, 2000), ERRNO | 38);
    assert_eq!(verdict(r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":null}"#, 2000), LOG);
}

#[test]
fn malformed_profiles_are_errors() {
    let check = |text: &str, expected: &str| {
        let error = compile_profile(file(text), &options(CapabilitySet::EMPTY)).map(|_| ()).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let shown = format!("{error}: {source}");
        assert!(shown.contains(expected), "{shown}");
    };
    let rule = |rule: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{rule}]}}"#);
    let argument =
        |argument: &str| rule(&format!(r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{argument}]}}"#));
    check("", "EOF while parsing");
    check("[]", "parse seccomp profile test");
    check("null", "parse seccomp profile test");
    check("{}", "missing field `defaultAction`");
    check(r#"{"defaultAction":"allow"}"#, "unknown variant `allow`");
    check(r#"{"defaultAction":7}"#, "parse seccomp profile test");
    check(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY is not supported");
    check(r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":70000}"#, "errno 70000");
    check(r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":-1}"#, "invalid value");
    check(r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}"#, "not supported");
    check(r#"{"defaultAction":"SCMP_ACT_ALLOW","precedence":"last"}"#, "unknown variant `last`");
    check(&rule("7"), "invalid type");
    check(&rule(r#"{"names":"read","action":"SCMP_ACT_ALLOW"}"#), "invalid type");
    check(&rule(r#"{"names":["read"]}"#), "missing field `action`");
    check(&rule(r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"five"}}"#), "minKernel");
    check(
        &rule(r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99999999999.1"}}"#),
        "minKernel",
    );
    check(&argument(r#"{"index":6,"value":0,"op":"SCMP_CMP_EQ"}"#), "index 6");
    check(&argument(r#"{"index":-1,"value":0,"op":"SCMP_CMP_EQ"}"#), "invalid value");
    check(&argument(r#"{"index":0,"value":18446744073709551616,"op":"SCMP_CMP_EQ"}"#), "parse seccomp profile");
    check(&argument(r#"{"index":0,"value":0,"op":"EQ"}"#), "unknown variant `EQ`");
    check(&"[".repeat(100_000), "parse seccomp profile");
    check(&format!(r#"{{"x":{}"#, r#"{"x":"#.repeat(100_000)), "EOF while parsing");
    check(&" ".repeat((1 << 20) + 1), "longer than");
}

#[test]
fn a_profile_with_too_many_conditions_is_refused() {
    let conditions = |index: u64| {
        json!({"names": ["read", "write", "open"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": index * 3, "op": "SCMP_CMP_GT"}, {"index": 1, "value": index << 33, "op": "SCMP_CMP_LT"}]})
    };
    let profile =
        |count| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": (0..count).map(conditions).collect::<Vec<_>>()});
    let compile = |count| compile_profile(file(&profile(count).to_string()), &options(CapabilitySet::EMPTY));
    // Far jumps: every one of these alternatives fails over to the next, a thousand instructions long.
    check_profile(&profile(200).to_string(), &options(CapabilitySet::EMPTY));
    assert!(matches!(compile(3000), Err(SeccompError::TooLong(length)) if length > 4096));
}

/// Values that make the comparisons' edges meet.
fn value() -> impl Strategy<Value = u64> {
    let edges = vec![
        0,
        1,
        2,
        3,
        7,
        0xffff_ffff,
        1 << 32,
        (1 << 32) | 1,
        (1 << 32) | 2,
        2 << 32,
        1 << 63,
        u64::MAX,
        u64::MAX - 1,
    ];
    prop_oneof![8 => prop::sample::select(edges), 1 => any::<u64>()]
}

fn argument() -> impl Strategy<Value = Value> {
    let operators = vec!["NE", "LT", "LE", "EQ", "EQ", "GE", "GT", "MASKED_EQ"];
    (0_u32..3, value(), value(), prop::sample::select(operators)).prop_map(|(index, value, two, operator)| {
        json!({"index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{operator}")})
    })
}

fn entry() -> impl Strategy<Value = Value> {
    let names = vec!["read", "write", "open", "close", "socket", "ioctl", "clone", "listns", "nonesuch"];
    let actions = vec!["ALLOW", "ALLOW", "ALLOW", "ERRNO", "KILL_PROCESS", "LOG", "TRAP"];
    (
        prop::collection::vec(prop::sample::select(names), 1..4),
        prop::sample::select(actions),
        prop::option::of(0_u32..40),
        prop::collection::vec(argument(), 0..4),
        prop::option::of(prop::sample::select(vec!["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NONE"])),
    )
        .prop_map(|(names, action, errno, arguments, capability)| {
            let mut entry = json!({"names": names, "action": format!("SCMP_ACT_{action}"), "args": arguments});
            if let Some(errno) = errno {
                entry["errnoRet"] = errno.into();
            }
            if let Some(capability) = capability {
                let key = if errno.is_some() { "includes" } else { "excludes" };
                entry[key] = json!({"caps": [capability]});
            }
            entry
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_profiles_compile_to_what_they_say(
        entries in prop::collection::vec(entry(), 0..30),
        default in prop::sample::select(vec!["ERRNO", "ALLOW", "KILL"]),
        precedence in prop::sample::select(vec!["first", "libseccomp"]),
        vectors in prop::collection::vec([value(), value(), value()], 1..12),
    ) {
        let text = json!({
            "defaultAction": format!("SCMP_ACT_{default}"), "precedence": precedence, "syscalls": entries,
        }).to_string();
        let options = options(CapabilitySet::DEFAULT);
        let profile = Profile::parse("test", &text).unwrap();
        let filter = compile_profile(file(&text), &options).unwrap();
        prop_assert!(interpret::is_well_formed(&filter.instructions));
        for number in [0, 1, 2, 3, 4, 16, 41, 56, 337, 470, 471] {
            for [a, b, c] in &vectors {
                let arguments = [*a, *b, *c, 0, 0, 0];
                let (verdict, _) = run(&filter.instructions, &Call::x86_64(number, arguments)).unwrap();
                prop_assert_eq!(verdict, reference(&profile, &options, &syscalls::X86_64, number, &arguments));
            }
        }
    }

    #[test]
    fn any_text_is_a_profile_or_an_error(text in "\\PC{0,200}") {
        let _ = compile_profile(file(&text), &options(CapabilitySet::EMPTY));
    }

    #[test]
    fn any_words_run_or_are_refused(words in prop::collection::vec(any::<u64>(), 0..40)) {
        let _ = run(&words, &Call::x86_64(1, [1; 6]));
        let _ = interpret::reads_arguments(&words, &Call::x86_64(1, [1; 6]));
        if interpret::is_well_formed(&words) {
            prop_assert!(run(&words, &Call::x86_64(1, [1; 6])).is_some());
        }
    }
}

/// Builds the same filter with libseccomp and compares every number with every vector.
#[test]
fn verdicts_equal_libseccomps() {
    let Some(program) = libseccomp_program(DOCKER_SHAPED) else {
        crate::tests::skip("needs cc and libseccomp-dev");
        return;
    };
    assert_eq!(compare(DOCKER_SHAPED, &program), 601 * 22);
}

/// Compares our program of a profile with another one; returns the number of comparisons.
fn compare(text: &str, program: &[u64]) -> usize {
    let ours = compile_profile(file(text), &options(CapabilitySet::DEFAULT)).unwrap();
    let mut compared = 0;
    for number in 0..=600_u32 {
        for arguments in vectors() {
            let call = Call::x86_64(number, arguments);
            let (mine, _) = run(&ours.instructions, &call).unwrap();
            let (theirs, _) = run(program, &call).unwrap();
            // libseccomp gives its default to numbers that runc then patches to ENOSYS.
            let unknown = syscall_name(number).is_none();
            let theirs = if unknown && theirs == ERRNO | 1 { ERRNO | 38 } else { theirs };
            assert_eq!(mine, theirs, "{number} {:?} {arguments:x?}", syscall_name(number));
            compared += 1;
        }
    }
    compared
}

/// Does all comparisons for a profile of your own: `BULKHEAD_TEST_PROFILE=FILE cargo test own_profile -- --ignored --nocapture`.
#[test]
#[ignore = "needs a profile in BULKHEAD_TEST_PROFILE"]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn own_profile() {
    let path = std::env::var_os("BULKHEAD_TEST_PROFILE").expect("BULKHEAD_TEST_PROFILE names a profile");
    let text = std::fs::read_to_string(path).unwrap();
    let options = options(CapabilitySet::DEFAULT);
    let start = std::time::Instant::now();
    let filter = compile_profile(file(&text), &options).unwrap();
    let time = start.elapsed();
    println!("{} instructions in {time:?}, {:?}", filter.instructions.len(), filter.count());
    check_profile(&text, &options);
    if let Some(program) = libseccomp_program(&text) {
        println!("{} verdicts equal libseccomp's {} instructions", compare(&text, &program), program.len());
    }
}

/// Returns libseccomp's program for the Docker-shaped profile, with the rules added as runc adds them.
#[expect(clippy::disallowed_methods, reason = "the oracle is a C program")]
fn libseccomp_program(profile: &str) -> Option<Vec<u64>> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let directory = tempfile::tempdir().unwrap();
    let binary = directory.path().join("oracle");
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/seccomp/oracle.c");
    let built = Command::new("cc").arg("-o").arg(&binary).arg(source).arg("-lseccomp").stderr(Stdio::null()).status();
    if !built.is_ok_and(|status| status.success()) {
        return None;
    }
    let mut child = Command::new(&binary).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(oracle_rules(profile).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "oracle: {:?}", output.status);
    // struct sock_filter, little-endian: code, jt, jf, k.
    let (instructions, _) = output.stdout.as_chunks::<8>();
    let pack = |bytes: &[u8; 8]| {
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        let k = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        interpret::Instruction { code, jt: bytes[2], jf: bytes[3], k }.pack()
    };
    Some(instructions.iter().map(pack).collect())
}

/// Reads the profile as plain JSON and writes the oracle's rules, for the default capabilities.
fn oracle_rules(text: &str) -> String {
    let profile: Value = serde_json::from_str(text).unwrap();
    let held: Vec<String> = CapabilitySet::DEFAULT.names().iter().map(|name| format!("CAP_{name}")).collect();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let mut text = "1\n".to_owned();
    for entry in profile["syscalls"].as_array().unwrap() {
        let (includes, excludes) = (&entry["includes"], &entry["excludes"]);
        let arches = list(&includes["arches"]);
        let applies = list(&excludes["caps"]).iter().all(|name| !held.contains(name))
            && list(&includes["caps"]).iter().all(|name| held.contains(name))
            && (arches.is_empty() || arches.iter().any(|arch| arch == "amd64"));
        if !applies {
            continue;
        }
        let action = if entry["action"] == "SCMP_ACT_ALLOW" { -1 } else { entry["errnoRet"].as_i64().unwrap() };
        let conditions: Vec<(u64, String)> =
            entry["args"].as_array().into_iter().flatten().map(oracle_condition).collect();
        let mut indexes: Vec<u64> = conditions.iter().map(|(index, _)| *index).collect();
        indexes.dedup();
        let numbers = list(&entry["names"]).into_iter().filter_map(|name| syscalls::number(&syscalls::X86_64, &name));
        for number in numbers {
            if indexes.len() < conditions.len() {
                for (_, condition) in &conditions {
                    text += &format!("{action} {number} 1 {condition}\n");
                }
            } else {
                let all: Vec<&str> = conditions.iter().map(|(_, condition)| condition.as_str()).collect();
                text += &format!("{action} {number} {} {}\n", all.len(), all.join(" "));
            }
        }
    }
    text
}

fn oracle_condition(argument: &Value) -> (u64, String) {
    // enum scmp_compare of seccomp.h.
    let names = ["", "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let name = argument["op"].as_str().unwrap().trim_start_matches("SCMP_CMP_").to_owned();
    let operator = names.iter().position(|known| *known == name).unwrap();
    let index = argument["index"].as_u64().unwrap();
    let two = argument["valueTwo"].as_u64().unwrap_or(0);
    (index, format!("{index} {operator} {} {two}", argument["value"].as_u64().unwrap()))
}

/// Names times conditions: a profile of 20 kB made 40 thousand rules, one of a megabyte filled the memory.
#[test]
fn a_profile_whose_names_and_conditions_multiply_is_refused_before_they_do() {
    let names = vec!["bpf"; 200];
    let conditions = vec![json!({"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}); 200];
    let entry = json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": conditions});
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [entry]}).to_string();
    let refused = compile_profile(file(&profile), &options(CapabilitySet::DEFAULT));
    assert!(matches!(refused, Err(SeccompError::TooManyRules(_))), "{refused:?}");
}
