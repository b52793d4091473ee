//! Whom we trust: the system's certificates, those of `certs.d`, or, where the operator said so, anybody.

use super::error::{RegistryError, Result};
use super::url::{Origin, port_of};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Where certificates lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Files with the system's roots; the first that exists counts.
    pub roots: Vec<PathBuf>,
    /// Directories with `<host[:port]>/{*.crt, *.cert, *.key}`, as Docker's `certs.d`.
    pub hosts: Vec<PathBuf>,
}

/// Makes TLS configurations, each once, and only when a connection wants one.
pub(super) struct Tls {
    trust: Trust,
    /// Hosts whose certificates are not checked.
    unchecked: Box<dyn Fn(&Origin) -> bool + Send + Sync>,
    known: Mutex<HashMap<Origin, Arc<ClientConfig>>>,
}

impl Tls {
    pub(super) fn new(trust: Trust, unchecked: impl Fn(&Origin) -> bool + Send + Sync + 'static) -> Self {
        Self { trust, unchecked: Box::new(unchecked), known: Mutex::default() }
    }

    /// Returns the configuration for a host.
    ///
    /// # Errors
    /// When certificates cannot be read.
    pub(super) fn config(&self, origin: &Origin) -> Result<Arc<ClientConfig>> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(config) = known.get(origin) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(origin)?);
        known.insert(origin.clone(), Arc::clone(&config));
        Ok(config)
    }

    fn make(&self, origin: &Origin) -> Result<ClientConfig> {
        let bad = |reason: rustls::Error| RegistryError::Tls { host: origin.authority(), reason: reason.to_string() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = self.host_files(origin);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(bad)?;
        let builder = if (self.unchecked)(origin) {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
        } else {
            let mut roots = RootCertStore::empty();
            if let Some(file) = self.trust.roots.iter().find(|file| file.is_file()) {
                // A root we cannot use is no reason to distrust the others.
                roots.add_parsable_certificates(certificates(file)?);
            }
            for file in own.iter().filter(|file| has_extension(file, "crt")) {
                roots.add_parsable_certificates(certificates(file)?);
            }
            builder.with_root_certificates(roots)
        };
        let client = own.iter().find(|file| has_extension(file, "cert"));
        let Some(certificate) = client else { return Ok(builder.with_no_client_auth()) };
        let key = certificate.with_extension("key");
        let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| unreadable(&key, &error))?;
        builder
            .with_client_auth_cert(certificates(certificate)?, private)
            .map_err(|error| unreadable(certificate, &error))
    }

    /// Lists the files of a host's directories, in order.
    fn host_files(&self, origin: &Origin) -> Vec<PathBuf> {
        let mut names = vec![format!("{}:{}", origin.host, origin.port)];
        if origin.port == port_of(true) {
            names.push(origin.host.clone());
        }
        let mut files: Vec<PathBuf> = self
            .trust
            .hosts
            .iter()
            .flat_map(|directory| names.iter().map(move |name| directory.join(name)))
            .filter_map(|directory| std::fs::read_dir(directory).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .collect();
        files.sort();
        files
    }
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Certificates { path: path.display().to_string(), reason: error.to_string() }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(file, &error))?;
    all.collect::<std::result::Result<_, _>>().map_err(|error| unreadable(file, &error))
}

/// Takes any certificate (`insecure` in `bulkhead.toml`); that the other side has its key is still checked.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
