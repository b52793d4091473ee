//! Registries as the engine asks them: the operator's rules, the system's certificates, the user's credentials.

use super::credentials::Logins;
use super::{Engine, EngineError};
use crate::config::Registries;
use crate::image::registry::{
    Client, Credential, Credentials, Format, LayerEvent, Notice, Options, Proxies, Pulled, Pushed, RegistryError, Trust,
};
use crate::image::{Attestation, ImageError, Images};
use crate::oci::{Platform, Reference};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

/// Where systems keep the certificates they trust: Debian and Arch, Fedora, SUSE, Alpine and the BSDs.
const ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Where certificates of single hosts lie; Docker's own directory among them.
const HOSTS: [&str; 2] = ["/etc/bulkhead/certs.d", "/etc/docker/certs.d"];

/// What goes on between a caller and a registry.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// Readable when the caller wants to stop.
    pub interrupt: Option<BorrowedFd<'a>>,
    /// Told how a pull gets on, by several threads.
    pub tell: &'a (dyn Fn(LayerEvent<'_>) + Sync),
    /// Told what goes wrong and is tried again.
    pub notice: &'a (dyn Fn(Notice<'_>) + Sync),
}

/// Pulls an image that a build needs, and shows how that gets on.
pub type Fetch<'a> = &'a (dyn Fn(&Reference, &Platform) -> Result<(), EngineError> + Sync);

impl Engine {
    /// Pulls an image for a platform, with the credentials of the user whose environment we run in.
    ///
    /// # Errors
    /// When it cannot be had, or the store cannot be written; nothing of it is left then.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        attention: Attention<'_>,
    ) -> Result<Pulled, EngineError> {
        let logins = Logins::of_user();
        let client = self.registry_client(&logins, attention)?;
        Images::open(&self.paths)?.pull(&client, reference, platform, attention.tell).map_err(of_images)
    }

    /// Lists the tags that a registry has of a name's repository.
    ///
    /// # Errors
    /// When there is no such repository, or the registry cannot be asked.
    pub fn tags(&self, name: &Reference, attention: Attention<'_>) -> Result<Vec<String>, EngineError> {
        let logins = Logins::of_user();
        self.registry_client(&logins, attention)?.tags(name).map_err(of_images)
    }

    /// Pushes an image to the registry of its name, its layers compressed where the registry does not have them.
    ///
    /// # Errors
    /// When there is no such image, or the registry cannot be asked or refuses.
    pub fn push(
        &self,
        name: &Reference,
        how: (Format, &[Attestation]),
        attention: Attention<'_>,
    ) -> Result<Pushed, EngineError> {
        let logins = Logins::of_user();
        let client = self.registry_client(&logins, attention)?;
        Images::open(&self.paths)?.push(&client, name, how, attention.tell).map_err(of_images)
    }

    /// Asks a registry whether it takes a credential.
    ///
    /// # Errors
    /// When it does not, or cannot be asked.
    pub fn login(&self, registry: &str, credential: &Credential, attention: Attention<'_>) -> Result<(), EngineError> {
        let only = Only(credential);
        self.registry_client(&only, attention)?.verify(registry).map_err(failed)
    }

    /// Makes a client of registries.
    pub(super) fn registry_client<'a>(
        &self,
        credentials: &'a dyn Credentials,
        attention: Attention<'a>,
    ) -> Result<Client<'a>, EngineError> {
        self.client_with(self.settings.registry.clone(), credentials, attention)
    }

    /// Makes a client that keeps to rules.
    pub(super) fn client_with<'a>(
        &self,
        rules: Registries,
        credentials: &'a dyn Credentials,
        attention: Attention<'a>,
    ) -> Result<Client<'a>, EngineError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // Named by the user, it is the one file that counts (*openssl-env(7)*).
        let roots = match variable("SSL_CERT_FILE") {
            Some(file) => vec![file],
            None => ROOTS.map(PathBuf::from).to_vec(),
        };
        let options = Options {
            rules,
            trust: Trust { roots, hosts: HOSTS.map(PathBuf::from).to_vec() },
            proxies: proxies()?,
            credentials,
            interrupt: attention.interrupt,
            notice: attention.notice,
        };
        Client::new(options).map_err(failed)
    }
}

/// Reads the variables that name proxies; the small spelling counts first, as with curl.
fn proxies() -> Result<Proxies, EngineError> {
    let text = |name: &str| std::env::var(name.to_ascii_lowercase()).or_else(|_| std::env::var(name)).ok();
    let [https, http, none] = ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"].map(text);
    Proxies::read(https.as_deref(), http.as_deref(), none.as_deref()).map_err(|what| failed(RegistryError::Proxy(what)))
}

/// One credential, whoever asks.
struct Only<'c>(&'c Credential);

impl Credentials for Only<'_> {
    fn find(&self, _: &str) -> Result<Option<Credential>, String> {
        Ok(Some(self.0.clone()))
    }
}

/// Makes a use case's error of what images say.
pub(super) fn of_images(error: ImageError) -> EngineError {
    match error {
        ImageError::Registry(error) => failed(error),
        other => other.into(),
    }
}

/// Makes a use case's error of a registry's.
pub(super) fn failed(error: RegistryError) -> EngineError {
    match error {
        RegistryError::Interrupted => EngineError::Interrupted,
        other => EngineError::Image(other.into()),
    }
}
