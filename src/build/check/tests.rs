//! One small Dockerfile for each rule, and one beside it that it leaves alone.

use super::*;
use crate::oci::Platform;

fn report(text: &str, ignore: &str) -> Report {
    let platform = Platform { architecture: "amd64".into(), os: "linux".into(), ..Platform::default() };
    let settings = Settings { platform: platform.clone(), build_platform: platform, ..Settings::default() };
    let mut environment = |image: &str| match image {
        "unknown" => None,
        _ => Some(vec!["BASE_DIR=/base".to_owned()]),
    };
    check(text, &settings, &Ignore::parse(ignore).unwrap(), &mut environment).unwrap()
}

#[track_caller]
fn finds(text: &str, expected: &[&str]) {
    let found: Vec<String> =
        report(text, "hidden\ndir/\n!dir/back\n").findings.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn a_plain_file_is_left_alone() {
    finds(
        "# syntax=docker/dockerfile:1\nARG TAG=1\nFROM --platform=$BUILDPLATFORM alpine:$TAG AS build\nARG A=1\nENV B=$A C=${BASE_DIR}/x\nWORKDIR /app\nWORKDIR sub\nRUN echo $UNKNOWN \\\n  # a comment\n  && true\nFROM build\nCOPY dir/back x /$B/\nEXPOSE 80/tcp 53/udp\nCMD [\"x\"]\n",
        &[],
    );
}

#[test]
fn letters_and_names() {
    finds("FROM a AS Build\n", &["StageNameCasing: Stage name 'Build' should be lowercase (line 1)"]);
    finds("FROM a as b\n", &["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"]);
    finds("from a AS b\nrun x\n", &["FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)"]);
    finds(
        "FROM a\nRUN x\nrun y\nCmd [\"x\"]\n",
        &[
            "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 3)",
            "ConsistentInstructionCasing: Command 'Cmd' should match the case of the command majority (uppercase) (line 4)",
        ],
    );
    finds(
        "FROM a AS x\nFROM a AS x\nFROM a AS scratch\n",
        &[
            "DuplicateStageName: Duplicate stage name \"x\", stage names should be unique (line 2)",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 3)",
        ],
    );
    finds("FROM a\nRUN x \\\n\n  && y\n", &["NoEmptyContinuation: Empty continuation line (line 3)"]);
    finds("FROM a\nRUN <<E\nx\n\ny\nE\nRUN true\n", &[]);
    finds(
        "FROM a\nMAINTAINER me\n",
        &["MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"],
    );
}

#[test]
fn commands_and_values() {
    finds(
        "FROM a\nCMD x\nENTRYPOINT y\n",
        &[
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
            "JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals (line 3)",
        ],
    );
    finds("FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nCMD x\n", &[]);
    finds(
        "FROM a\nCMD [\"1\"]\nCMD [\"2\"]\nFROM a\nCMD [\"3\"]\n",
        &[
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
        ],
    );
    finds(
        "FROM a\nENV A b\nLABEL c d\n",
        &[
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
            "LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format (line 3)",
        ],
    );
    finds(
        "FROM a\nWORKDIR app\nWORKDIR more\n",
        &[
            "WorkdirRelativePath: Relative workdir \"app\" can have unexpected results if the base image changes (line 2)",
        ],
    );
    finds(
        "ARG AUTH_TOKEN\nFROM a\nENV API_KEY=1 PUBLIC_KEY=2 KEYBOARD=3\nARG Secret\n",
        &[
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"AUTH_TOKEN\") (line 1)",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"API_KEY\") (line 3)",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"Secret\") (line 4)",
        ],
    );
    finds(
        "FROM a\nEXPOSE 80/TCP 127.0.0.1:80:81\n",
        &[
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:81' (line 2)",
        ],
    );
    finds(
        "FROM a\nCOPY hidden ./hidden/deep dir dir/back /\nADD hidden /\nCOPY --from=b hidden /\n",
        &[
            "CopyIgnoredFile: Attempting to Copy file \"hidden\" that is excluded by .dockerignore (line 2)",
            "CopyIgnoredFile: Attempting to Copy file \"hidden/deep\" that is excluded by .dockerignore (line 2)",
            "CopyIgnoredFile: Attempting to Add file \"hidden\" that is excluded by .dockerignore (line 3)",
        ],
    );
}

#[test]
fn variables_and_platforms() {
    finds(
        "ARG VERSION=1\nFROM a:${VERSOIN}\n",
        &[
            "UndefinedArgInFrom: FROM argument 'VERSOIN' is not declared (did you mean VERSION?) (line 2)",
            "InvalidDefaultArgInFrom: Default value for ARG a:${VERSOIN} results in empty or invalid base image name (line 2)",
        ],
    );
    finds(
        "ARG TAG\nFROM a:$TAG\n",
        &["InvalidDefaultArgInFrom: Default value for ARG a:$TAG results in empty or invalid base image name (line 2)"],
    );
    finds(
        "FROM a AS one\nENV DIR=/x\nCOPY x $DRI/\nFROM one\nCOPY x $DIR/\nFROM unknown\nCOPY x $ANYTHING/\n",
        &["UndefinedVar: Usage of undefined variable '$DRI' (did you mean $DIR?) (line 3)"],
    );
    finds(
        "FROM --platform=${TARGETPLATFORM} a\n",
        &[
            "RedundantTargetPlatform: Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior (line 1)",
        ],
    );
    finds(
        "FROM --platform=linux/arm64 a AS x\nFROM --platform=linux/arm64 a AS x_arm64\n",
        &[
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/arm64\" (line 1)",
        ],
    );
}

#[test]
fn the_directive_chooses_the_rules() {
    let text = |check: &str| format!("# check={check}\n# wrong\nFROM a AS B\nCMD x\n");
    let rules = |check: &str| report(&text(check), "").rules();
    assert_eq!(rules("skip=StageNameCasing"), ["JSONArgsRecommended"]);
    assert_eq!(rules("skip=all"), [""; 0]);
    assert_eq!(
        rules("experimental=InvalidDefinitionDescription"),
        ["StageNameCasing", "JSONArgsRecommended", "InvalidDefinitionDescription"]
    );
    assert!(report(&text("error=true"), "").error);
    let wrong = check(&text("sometimes"), &Settings::default(), &Ignore::default(), &mut |_| None);
    assert_eq!(
        wrong.unwrap_err().to_string(),
        "invalid check option \"sometimes\": it is written skip=RULE,RULE;experimental=RULE;error=true"
    );
}

#[test]
fn every_rule_has_a_name_that_is_found() {
    for rule in Rule::ALL {
        assert_eq!(Rule::named(rule.name()), Some(*rule));
        assert!(rule.page().ends_with('/') && !rule.about().is_empty());
    }
    assert_eq!(Rule::ALL.len(), 21);
}
