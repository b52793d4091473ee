//! Verbs about registries: `pull push login logout`, and pulling by itself where an image is missing.

mod download;
mod layers;
mod login;
mod pull;
mod push;

pub(super) use download::{download_now, interruptible};
pub(super) use pull::{Policy, platform, policy, pull_now, pull_shown};
pub(super) use push::{push_cache_shown, push_now};

use super::error::{Failure, exit};
use super::verbs::{Verb, verb};
use crate::image::registry::RegistryError;

/// The verbs of this directory.
pub(super) static VERBS: &[Verb] = &[
    verb(
        &["pull", "image pull"],
        "pull [OPTIONS] NAME[:TAG|@DIGEST]",
        "Download an image from a registry",
        (1, 1),
        pull::flags,
        pull::run,
    ),
    verb(
        &["push", "image push"],
        "push [OPTIONS] NAME[:TAG]",
        "Upload an image to a registry",
        (1, 1),
        push::flags,
        push::run,
    ),
    verb(&["login"], "login [OPTIONS] [SERVER]", "Log in to a registry", (0, 1), login::login_flags, login::login),
    verb(&["logout"], "logout [SERVER]", "Log out from a registry", (0, 1), |flags| flags, login::logout),
];

/// Makes a failure of what a registry said, with the command that helps.
pub(super) fn failure(error: &RegistryError) -> Failure {
    with_hint(Failure::from_error(exit::FAILED, error), error)
}

/// Adds the command that helps with what a registry said.
pub(super) fn with_hint(failure: Failure, error: &RegistryError) -> Failure {
    let hint = match error {
        RegistryError::Denied { repository, .. } if repository.is_empty() => "check name and password".to_owned(),
        RegistryError::Denied { registry, .. } => {
            format!("check the name; 'bulkhead login {registry}' if it needs a login")
        }
        RegistryError::Unknown { .. } => "check name and tag; 'bulkhead images' lists what is here".to_owned(),
        RegistryError::Tls { host, .. } => format!(
            "a certificate of its own goes into /etc/docker/certs.d/{host}/ca.crt; 'insecure = [\"{host}\"]' under [registry] in bulkhead.toml does without"
        ),
        RegistryError::Resolve { .. } | RegistryError::Connect { .. } => {
            "check the name and the network; [registry.mirrors] in bulkhead.toml names other places, 'bulkhead load' needs none"
                .to_owned()
        }
        RegistryError::Platform { has, .. } if !has.is_empty() => "'bulkhead pull --platform' chooses another".to_owned(),
        RegistryError::Status { status: 429, .. } => "wait, or 'bulkhead login': who is known may ask more often".to_owned(),
        RegistryError::Transfer { .. } | RegistryError::TimedOut { .. } | RegistryError::Status { .. } => {
            "the registry may be better later: give the command again".to_owned()
        }
        _ => return failure,
    };
    failure.hint(hint)
}
