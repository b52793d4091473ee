//! The user's credentials: Docker's `config.json` and the programs it names (*docker-credential-helpers*).

use crate::base::with_causes;
use crate::config::{DockerConfig, StoredLogin, credential_key};
use crate::image::registry::{Credential, Credentials};
use crate::store::{Durability, write_bytes};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::Stdio;

/// What a helper calls the name of an identity token.
const TOKEN_NAME: &str = "<token>";
/// What a helper says when it has nothing.
const NOT_FOUND: &str = "credentials not found";

/// Credentials could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// There is no place for them.
    #[error("no place for credentials: neither DOCKER_CONFIG nor HOME is set")]
    NoPlace,
    /// The file cannot be read, understood or written.
    #[error("{action} {}: {reason}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The helper failed.
    #[error("docker-credential-{helper} {action}: {reason}")]
    Helper {
        /// Its name.
        helper: String,
        /// What it was asked for.
        action: &'static str,
        /// What it said.
        reason: String,
    },
}

/// What a helper keeps.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Where credentials were kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// In the file itself, readable to whoever reads the file.
    File(PathBuf),
    /// By a helper of this name.
    Helper(String),
}

/// The logins of a user.
#[derive(Clone, Debug)]
pub struct Logins {
    path: Option<PathBuf>,
}

impl Logins {
    /// Finds the file of the user whose environment we run in: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    pub fn of_user() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let directory = variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")));
        Self { path: directory.map(|directory| directory.join("config.json")) }
    }

    fn file_error(&self, action: &'static str, reason: impl ToString) -> CredentialError {
        let path = self.path.clone().unwrap_or_default();
        CredentialError::File { action, path, reason: reason.to_string() }
    }

    fn read(&self) -> Result<DockerConfig, CredentialError> {
        let Some(path) = &self.path else { return Ok(DockerConfig::default()) };
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(DockerConfig::default()),
            Err(error) => Err(self.file_error("read", error)),
            Ok(text) => DockerConfig::parse(&text).map_err(|error| self.file_error("read", error)),
        }
    }

    fn write(&self, config: &DockerConfig) -> Result<PathBuf, CredentialError> {
        use std::os::unix::fs::DirBuilderExt;
        let path = self.path.clone().ok_or(CredentialError::NoPlace)?;
        // What the name leads to is replaced, so that a link to the file stays one.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        if let Some(directory) = path.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|error| self.file_error("make the directory of", error))?;
        }
        write_bytes(&path, config.text().as_bytes(), Durability::Synced)
            .map_err(|error| self.file_error("write", with_causes(&error)))?;
        Ok(path)
    }

    /// Finds the credential of a registry.
    ///
    /// # Errors
    /// When the file or the helper fails.
    pub fn get(&self, registry: &str) -> Result<Option<Credential>, CredentialError> {
        let (config, key) = (self.read()?, credential_key(registry));
        if let Some(helper) = config.helper(key) {
            return match ask(helper, "get", key.as_bytes()) {
                Err(CredentialError::Helper { reason, .. }) if reason.contains(NOT_FOUND) => Ok(None),
                Err(error) => Err(error),
                Ok(answer) => {
                    let kept: Kept = serde_json::from_slice(&answer).map_err(|error| CredentialError::Helper {
                        helper: helper.to_owned(),
                        action: "get",
                        reason: format!("its answer cannot be read: {error}"),
                    })?;
                    Ok(Some(match kept.username.as_str() {
                        TOKEN_NAME => Credential::Identity(kept.secret),
                        _ => Credential::Password { username: kept.username, password: kept.secret },
                    }))
                }
            };
        }
        let login = config.login(key).map_err(|error| self.file_error("read", error))?;
        Ok(login.map(|StoredLogin { username, password, identity, registry }| {
            if !registry.is_empty() {
                Credential::Registry(registry)
            } else if !identity.is_empty() {
                Credential::Identity(identity)
            } else {
                Credential::Password { username, password }
            }
        }))
    }

    /// Keeps name and password for a registry; tells where.
    ///
    /// # Errors
    /// When the file or the helper fails.
    pub fn keep(&self, registry: &str, username: &str, password: &str) -> Result<Keeper, CredentialError> {
        let (mut config, key) = (self.read()?, credential_key(registry));
        let Some(helper) = config.helper(key).map(str::to_owned) else {
            config.set(key, Some((username, password)));
            return Ok(Keeper::File(self.write(&config)?));
        };
        let kept = Kept { server: key.to_owned(), username: username.to_owned(), secret: password.to_owned() };
        let text = serde_json::to_vec(&kept).unwrap_or_default();
        ask(&helper, "store", &text)?;
        config.set(key, None);
        self.write(&config)?;
        Ok(Keeper::Helper(helper))
    }

    /// Forgets a registry's login; returns whether there was one.
    ///
    /// # Errors
    /// When the file or the helper fails.
    pub fn forget(&self, registry: &str) -> Result<bool, CredentialError> {
        let (mut config, key) = (self.read()?, credential_key(registry));
        let mut forgotten = false;
        if let Some(helper) = config.helper(key) {
            match ask(helper, "erase", key.as_bytes()) {
                Err(CredentialError::Helper { reason, .. }) if reason.contains(NOT_FOUND) => {}
                other => forgotten = other.map(|_| true)?,
            }
        }
        if config.remove(key) {
            self.write(&config)?;
            forgotten = true;
        }
        Ok(forgotten)
    }
}

impl Credentials for Logins {
    fn find(&self, registry: &str) -> Result<Option<Credential>, String> {
        self.get(registry).map_err(|error| error.to_string())
    }
}

/// Runs a helper with something on its stdin and returns its stdout.
#[expect(
    clippy::disallowed_methods,
    reason = "a credential helper is a program of the user's own, run with the user's rights"
)]
fn ask(helper: &str, action: &'static str, input: &[u8]) -> Result<Vec<u8>, CredentialError> {
    let failed = |reason: String| CredentialError::Helper { helper: helper.to_owned(), action, reason };
    // It is looked up by name in PATH: a path would be another program than the name says.
    if helper.contains(['/', '\0']) {
        return Err(failed("its name may have no slash".to_owned()));
    }
    let mut command = std::process::Command::new(format!("docker-credential-{helper}"));
    command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(format!("it cannot be started: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has its own reason to fail.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = if output.stdout.trim_ascii().is_empty() { &output.stderr } else { &output.stdout };
    let said: String = String::from_utf8_lossy(said).trim().chars().take(400).collect();
    Err(failed(if said.is_empty() { format!("it failed ({})", output.status) } else { said }))
}
