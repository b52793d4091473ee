//! `build --check`: what in a Dockerfile is allowed and seldom meant.
//!
//! Pure: given the text, the settings and lookups of what an image sets and what `.dockerignore` leaves out, it finds. The
//! rules are BuildKit's (*Docker docs, "Build checks"*).

mod file;
mod options;
mod rule;
mod stage;
#[cfg(test)]
mod tests;

pub use options::{Options, OptionsError};
pub use rule::{Finding, Rule};

use super::dockerfile::{DockerfileError, parse, parse_tree};
use super::graph::Settings;
use super::ignore::Ignore;

/// Name of the build argument that takes the place of `# check=`.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In order of their lines.
    pub findings: Vec<Finding>,
    /// Findings are errors.
    pub error: bool,
}

/// The Dockerfile cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It is none.
    #[error("parse the Dockerfile")]
    Dockerfile(#[from] DockerfileError),
    /// Its `# check=`.
    #[error(transparent)]
    Options(#[from] OptionsError),
}

/// Checks a Dockerfile. `environment` returns the environment that an image sets (`NAME=value`), or `None` when the image
/// cannot be looked at; what is used on top of such a one may all be defined.
///
/// # Errors
/// When it is no Dockerfile, or its `# check=` cannot be read.
pub fn check(
    text: &str,
    settings: &Settings,
    ignore: &Ignore,
    environment: &mut dyn FnMut(&str) -> Option<Vec<String>>,
) -> Result<Report, CheckError> {
    let tree = parse_tree(text)?;
    let file = parse(text)?;
    let given = settings.build_args.iter().rev().find(|(name, _)| name == ARGUMENT).map(|(_, value)| value.as_str());
    let options = Options::parse(given.or(file.directives.check.as_deref()).unwrap_or_default())?;
    let mut findings = Vec::new();
    file::look(&tree, text, &mut findings);
    stage::look(&file, settings, ignore, environment, &mut findings);
    findings.retain(|finding| options.holds(finding.rule));
    findings.sort_by_key(|finding| (finding.lines.first, finding.rule));
    Ok(Report { findings, error: options.error })
}

impl Report {
    /// Returns the names of the rules that found something, each once.
    pub fn rules(&self) -> Vec<&'static str> {
        let mut rules: Vec<Rule> = self.findings.iter().map(|finding| finding.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules.iter().map(|rule| rule.name()).collect()
    }
}
