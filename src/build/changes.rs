//! Instructions given outside a Dockerfile that set a configuration: `import --change`, `commit --change`.

use super::dockerfile::{DockerfileError, Instruction, parse};
use super::graph::{PlanError, Settings, plan};
use crate::base::Digest;
use crate::oci::{ContainerConfig, ImageConfig, Platform};
use crate::step::BaseImage;

/// What may stand in a change.
const ALLOWED: &str =
    "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR";

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It is no instruction.
    #[error("{change:?}: {}", source.problem)]
    Syntax {
        /// As given.
        change: String,
        /// What is wrong.
        source: DockerfileError,
    },
    /// An instruction that does not set the configuration.
    #[error("{change:?}: {keyword} is not a valid change; valid are {ALLOWED}")]
    NotAllowed {
        /// As given.
        change: String,
        /// Its word.
        keyword: &'static str,
    },
    /// A value that cannot be used.
    #[error("{}", source.problem)]
    Value {
        /// What is wrong.
        source: PlanError,
    },
}

/// Returns the configuration that the changes lead to, starting from another.
///
/// # Errors
/// At the first change that is none.
pub fn changed_config(base: &ContainerConfig, changes: &[String]) -> Result<ContainerConfig, ChangeError> {
    if changes.is_empty() {
        return Ok(base.clone());
    }
    let mut text = "FROM base\n".to_owned();
    let mut path = base.env.iter().any(|entry| entry.starts_with("PATH="));
    for change in changes {
        let refuse = |source| ChangeError::Syntax { change: change.clone(), source };
        let file = parse(&format!("FROM base\n{change}\n")).map_err(refuse)?;
        let not_allowed = |keyword| ChangeError::NotAllowed { change: change.clone(), keyword };
        if file.stages.len() > 1 {
            return Err(not_allowed("FROM"));
        }
        for statement in file.stages.iter().flat_map(|stage| &stage.statements) {
            match &statement.instruction {
                Instruction::Env(pairs) => path |= pairs.iter().any(|pair| pair.name == "PATH"),
                Instruction::Workdir(_)
                | Instruction::Cmd(_)
                | Instruction::Entrypoint(_)
                | Instruction::Expose(_)
                | Instruction::Healthcheck(_)
                | Instruction::Label(_)
                | Instruction::Onbuild(_)
                | Instruction::Shell(_)
                | Instruction::StopSignal(_)
                | Instruction::User(_)
                | Instruction::Volume(_) => {}
                other => return Err(not_allowed(other.keyword())),
            }
        }
        text.push_str(change);
        text.push('\n');
    }
    let file = parse(&text).map_err(|source| ChangeError::Syntax { change: changes.join("; "), source })?;
    let platform = Platform::host();
    let settings = Settings { platform: platform.clone(), build_platform: platform, ..Settings::default() };
    // Triggers of the base are kept, not performed.
    let config = ContainerConfig { on_build: Vec::new(), ..base.clone() };
    let image =
        BaseImage { id: Digest::of(b""), config: ImageConfig { config, ..ImageConfig::default() }, chain: Vec::new() };
    let graph =
        plan(&file, &settings, &mut |_, _| Some(image.clone())).map_err(|source| ChangeError::Value { source })?;
    let mut config = graph.stages.into_iter().nth(graph.target).map(|stage| stage.config.config).unwrap_or_default();
    // A build gives every image a search path; a change gives one when it says so.
    if !path {
        config.env.retain(|entry| !entry.starts_with("PATH="));
    }
    config.on_build.splice(0..0, base.on_build.iter().cloned());
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<ContainerConfig, ChangeError> {
        changed_config(&ContainerConfig::default(), &changes.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn changes_set_the_configuration_and_nothing_else() {
        assert_eq!(changed(&[]).unwrap(), ContainerConfig::default());
        let config =
            changed(&["ENV A=1 B=$A", "cmd [\"a\", \"b c\"]", "WORKDIR srv", "EXPOSE 80", "USER 1:2"]).unwrap();
        assert_eq!(config.env, ["A=1", "B="]);
        assert_eq!(config.cmd, Some(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv", "1:2"));
        assert!(config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(changed(&["ENV PATH=/x"]).unwrap().env, ["PATH=/x"]);
        let again = changed_config(&config, &["ENV B=2".to_owned(), "ENTRYPOINT [\"e\"]".to_owned()]).unwrap();
        assert_eq!(
            (&again.env[..], again.cmd, again.user),
            (&["A=1".to_owned(), "B=2".to_owned()][..], None, config.user)
        );
    }

    #[test]
    fn what_is_no_change_is_refused_with_its_text() {
        for (change, word) in [
            ("RUN true", "RUN is not a valid change"),
            ("FROM x", "FROM is not a valid change"),
            ("USER a\nCOPY a b", "COPY is not a valid change"),
            ("ENVV a=b", "unknown instruction ENVV"),
            ("EXPOSE x", "EXPOSE \"x\""),
            ("STOPSIGNAL NONE", "STOPSIGNAL"),
        ] {
            let error = changed(&[change]).unwrap_err().to_string();
            assert!(error.contains(word), "{change}: {error}");
        }
    }
}
