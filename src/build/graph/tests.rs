//! Golden texts of graphs: `tests/data/graph/<case>/{Dockerfile,expected}`; a case without a Dockerfile is that of the parser.

use super::*;
use crate::build::dockerfile::parse;
use crate::oci::{ContainerConfig, Empty};
use std::path::Path;

fn amd64() -> Platform {
    Platform { architecture: "amd64".into(), os: "linux".into(), ..Platform::default() }
}

/// Every image exists; `trigger` has triggers and `ports` a configuration of its own.
fn image(reference: &str, platform: &Platform) -> Option<BaseImage> {
    let id = Digest::of(reference.as_bytes());
    let mut config =
        ContainerConfig { env: vec!["PATH=/bin".into()], cmd: Some(vec!["base".into()]), ..ContainerConfig::default() };
    match reference {
        "trigger" => config.on_build = vec!["COPY --from=assets a /b".into(), "RUN echo $X".into()],
        "ports" => {
            config.exposed_ports.insert("1/tcp".into(), Empty {});
            (config.user, config.working_dir) = ("app".into(), "/srv".into());
        }
        "missing" => return None,
        _ => {}
    }
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: "linux".into(),
        config,
        ..ImageConfig::default()
    };
    Some(BaseImage { chain: vec![id.clone()], id, config })
}

fn settings() -> Settings {
    Settings {
        build_args: vec![("GIVEN".into(), "from outside".into()), ("http_proxy".into(), "http://secret".into())],
        platform: amd64(),
        build_platform: amd64(),
        ..Settings::default()
    }
}

fn describe(text: &str, settings: &Settings) -> String {
    match plan(&parse(text).unwrap(), settings, &mut image) {
        Ok(graph) => graph.dump(),
        Err(error) => {
            let mut text = format!("error: {error}\n");
            let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error.problem);
            while let Some(error) = cause {
                text += &format!("caused by: {error}\n");
                cause = error.source();
            }
            text + &error.hint().map(|h| format!("hint: {h}\n")).unwrap_or_default()
        }
    }
}

#[test]
fn graphs_come_out_as_written_down() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let dir = data.join("graph");
    let mut cases: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    for case in cases {
        let parsers = data.join("dockerfile").join(case.file_name().unwrap()).join("Dockerfile");
        let file = Some(case.join("Dockerfile")).filter(|own| own.exists()).unwrap_or(parsers);
        let found = describe(&std::fs::read_to_string(file).unwrap(), &settings());
        if std::env::var_os("BULKHEAD_BLESS").is_some() {
            #[expect(clippy::disallowed_methods, reason = "golden file of a test")]
            std::fs::write(case.join("expected"), &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(case.join("expected")).unwrap_or_default(), "{}", case.display());
    }
}

#[test]
fn the_target_decides_which_stages_are_planned() {
    let text = "FROM a AS one\nRUN 1\nFROM b AS two\nRUN 2\nFROM missing AS three\nRUN 3\n";
    let with = |target: &str| Settings { target: Some(target.into()), ..settings() };
    let labels = |target| {
        plan(&parse(text).unwrap(), &with(target), &mut image)
            .map(|g| g.stages.iter().map(|s| s.label.clone()).collect::<Vec<_>>())
    };
    assert_eq!(labels("Two").unwrap(), ["two"]);
    assert_eq!(labels("0").unwrap(), ["one"]);
    assert!(matches!(labels("four").unwrap_err().problem, PlanProblem::NoTarget { .. }));
    assert!(matches!(labels("three").unwrap_err().problem, PlanProblem::NoImage(_)));
}

#[test]
fn proxies_are_in_the_step_but_not_in_the_key_or_the_history() {
    let graph = plan(&parse("FROM a\nRUN x\n").unwrap(), &settings(), &mut image).unwrap();
    let Operation::Run(run) = &graph.stages[0].nodes[0].operation else { panic!() };
    assert_eq!(run.hidden_env, ["http_proxy=http://secret"]);
    assert!(!graph.dump().contains("secret"));
}

/// `ENV A=$A$A` doubles, and every `RUN` has the environment whole: 17 lines and 500 more asked for gigabytes.
#[test]
fn few_lines_do_not_make_a_plan_of_gigabytes() {
    let double = format!("FROM a\nENV A=xxxxxxxxxxxxxxxx\n{}", "ENV A=$A$A\n".repeat(15));
    let refused = |text: &str| {
        let found = plan(&parse(text).unwrap(), &settings(), &mut image);
        let error = found.err().unwrap_or_else(|| panic!("planned: {}", text.len()));
        assert!(matches!(error.problem, PlanProblem::TooLarge { .. }), "{error}");
        assert!(error.hint().is_some());
    };
    for line in ["RUN x\n", "LABEL a=$A\n", "COPY $A b\n", "EXPOSE 1-65535\n"] {
        refused(&format!("{double}{}", line.repeat(500)));
    }
    refused(&format!("{double}ENV{}\n", " B=$A".repeat(500)));
    refused(&format!("{double}{}", "COPY <<E b\n$A\nE\n".repeat(200)));
    let stages: String = (0..500)
        .map(|n| {
            format!(
                "FROM base AS s{n}\n{}",
                if n > 0 { format!("COPY --from=s{} a b\n", n - 1) } else { String::new() }
            )
        })
        .collect();
    refused(&format!("{} AS base\n{}{stages}", "FROM a", double.trim_start_matches("FROM a\n")));
    assert!(plan(&parse(&format!("{double}{}", "RUN x\n".repeat(20))).unwrap(), &settings(), &mut image).is_ok());
}
