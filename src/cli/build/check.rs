//! `build --check`, and the same findings at the end of a build.

use super::progress::Progress;
use crate::build::check::{self, CheckError, Report};
use crate::build::dockerfile::{DockerfileError, excerpt};
use crate::build::{BuildEvent, Context as Files, Settings};
use crate::cli::context::{Context, out, talk};
use crate::cli::error::{Failure, Outcome, clean, exit};
use crate::image::Images;
use serde_json::json;

/// What stands around the lines of a file.
const RULE: &str = "--------------------";

fn name(files: &Files) -> String {
    files.dockerfile_path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Looks at a Dockerfile; base images that are not here are taken to define every variable.
fn look(context: &Context<'_>, files: &Files, settings: &Settings) -> Result<Report, CheckError> {
    let images = Images::open(context.paths()).ok();
    let mut environment = |image: &str| Some(images.as_ref()?.resolve(image).ok()?.config.config.env);
    check::check(&files.dockerfile, settings, &files.ignore, &mut environment)
}

/// `build --check`: the findings on stdout; exit code 1 when there are some.
pub(super) fn run(context: &Context<'_>, files: &Files, settings: &Settings, format: Option<&str>) -> Outcome {
    let report = match look(context, files, settings) {
        Ok(report) => report,
        Err(error) => return Err(refused(&error, files)),
    };
    match format {
        None | Some("text") => out(text(&report, files))?,
        Some("json") => out(format!("{:#}\n", as_json(&report)))?,
        Some(other) => return Err(Failure::new(exit::USAGE, format!("--format {other}: it is text or json"))),
    }
    Ok(u8::from(!report.findings.is_empty()))
}

fn refused(error: &CheckError, files: &Files) -> Failure {
    let failure = Failure::from_error(exit::FAILED, error);
    let CheckError::Dockerfile(wrong) = error else { return failure };
    let wrong: &DockerfileError = wrong;
    talk(format!("{}:{}\n{}\n", name(files), wrong.at.line, wrong.excerpt(&files.dockerfile)));
    match wrong.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn text(report: &Report, files: &Files) -> String {
    let mut text = match report.findings.len() {
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for finding in &report.findings {
        let lines = excerpt(&files.dockerfile, finding.lines, None);
        text.push_str(&format!(
            "\nWARNING: {} - {}\n{}\n{}:{}\n{RULE}\n{lines}{RULE}\n",
            finding.rule.name(),
            finding.rule.page(),
            clean(&finding.message),
            name(files),
            finding.lines.first
        ));
    }
    text
}

/// In the form of BuildKit's subrequest `lint`.
fn as_json(report: &Report) -> serde_json::Value {
    let warning = |finding: &check::Finding| {
        json!({
            "ruleName": finding.rule.name(),
            "description": finding.rule.about(),
            "url": finding.rule.page(),
            "detail": finding.message,
            "location": { "ranges": [{
                "start": { "line": finding.lines.first },
                "end": { "line": finding.lines.last },
            }] },
        })
    };
    json!({ "warnings": report.findings.iter().map(warning).collect::<Vec<_>>() })
}

/// Findings of a Dockerfile that is going to be built: told in the end, or an error where it says `# check=error=true`.
/// What is no Dockerfile is the build's to tell.
pub(super) fn before_build(context: &Context<'_>, files: &Files, settings: &Settings) -> Result<Report, Failure> {
    let report = match look(context, files, settings) {
        Ok(report) => report,
        Err(CheckError::Dockerfile(_)) => return Ok(Report::default()),
        Err(error) => return Err(Failure::from_error(exit::FAILED, &error)),
    };
    if report.error && !report.findings.is_empty() {
        talk(text(&report, files));
        return Err(Failure::failed(format!("lint violation found for rules: {}", report.rules().join(", ")))
            .hint("'# check=' at the head of the Dockerfile says which rules count: skip=RULE, error=false"));
    }
    Ok(report)
}

/// What is said of them when the build has ended.
pub(super) fn after_build(report: &Report, progress: &mut Progress) {
    let count = report.findings.len();
    if count == 0 {
        return;
    }
    if progress.is_for_programs() {
        return report.findings.iter().for_each(|finding| {
            progress.event(BuildEvent::Warning { text: &finding.to_string() });
        });
    }
    let lines: String = report.findings.iter().map(|finding| format!(" - {}\n", clean(&finding.to_string()))).collect();
    let plural = if count == 1 { "" } else { "s" };
    talk(format!("\n {count} warning{plural} found (use --check to see the lines):\n{lines}"));
}
