//! Settings: `bulkhead.toml` and defaults, and Docker's `config.json`. Given text, reads no environment.

mod docker;

pub use docker::{DockerConfig, DockerConfigError, StoredLogin, credential_key};

use crate::base::Bytes;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// Settings of the operator.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Published ports.
    pub publish: Publish,
    /// Logs of containers.
    pub log: Log,
    /// Limits of containers that name none.
    pub limits: DefaultLimits,
    /// The builder.
    pub build: Build,
    /// Registries.
    pub registry: Registries,
}

/// `[registry]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registries {
    /// Hosts (`host`, `host:port`, or a network like `10.0.0.0/8`) that need not prove who they are, and may be without TLS.
    /// This machine's own addresses are so always.
    pub insecure: Vec<String>,
    /// Where images of a registry are asked for first: `"docker.io" = ["mirror.lan:5000", "https://host/path"]`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Time for a connection, e.g. `"15s"`.
    #[serde(deserialize_with = "some_duration")]
    pub connect_timeout: Option<std::time::Duration>,
    /// Time within which the next bytes must come, e.g. `"30s"`.
    #[serde(deserialize_with = "some_duration")]
    pub idle_timeout: Option<std::time::Duration>,
    /// Time for a whole manifest, config or token, e.g. `"1m"`.
    #[serde(deserialize_with = "some_duration")]
    pub document_timeout: Option<std::time::Duration>,
}

/// `[build]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Build {
    /// Bytes the build cache may hold of its own, e.g. `"20g"`; the least recently used steps go first. A tenth of the file
    /// system unless set.
    #[serde(deserialize_with = "some_size")]
    pub cache_max_size: Option<Bytes>,
    /// Whether `build --allow security.insecure` may take the walls around steps away that say `RUN --security=insecure`.
    pub allow_insecure: bool,
}

/// `[publish]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publish {
    /// Address on the host of `-p` without one; all addresses unless set, as with Docker.
    pub address: IpAddr,
}

impl Default for Publish {
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Size at which a log file is rotated, e.g. `"10m"`.
    #[serde(deserialize_with = "size")]
    pub max_size: Bytes,
    /// Number of files kept.
    pub max_files: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { max_size: Bytes(10 << 20), max_files: 5 }
    }
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefaultLimits {
    /// Processes and threads.
    pub pids: u64,
    /// Share of the machine's memory in percent.
    pub memory_percent: u8,
}

impl Default for DefaultLimits {
    fn default() -> Self {
        Self { pids: 2048, memory_percent: 75 }
    }
}

fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn some_size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    size(deserializer).map(Some)
}

fn some_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<std::time::Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = crate::base::parse_go_duration(&text).map_err(serde::de::Error::custom)?;
    Ok(Some(duration))
}

/// The settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("read settings {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is not spelled as settings are.
    #[error("settings {}: {message}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected there.
        message: String,
    },
}

impl Settings {
    /// Reads a settings file; one that does not exist gives the defaults.
    ///
    /// # Errors
    /// When it exists and cannot be read or understood; unknown keys are errors.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        match std::fs::read_to_string(path) {
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SettingsError::Read { path: path.to_owned(), source }),
            Ok(text) => {
                toml::from_str(&text).map_err(|e| SettingsError::Form { path: path.to_owned(), message: e.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_override_defaults_and_unknown_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bulkhead.toml");
        assert_eq!(Settings::load(&path).unwrap(), Settings::default());
        crate::store::write_bytes(
            &path,
            b"[publish]\naddress = '127.0.0.1'\n[log]\nmax_size = '1m'\n[build]\ncache_max_size = '2g'",
            crate::store::Durability::Atomic,
        )
        .unwrap();
        let settings = Settings::load(&path).unwrap();
        assert_eq!(settings.publish.address, IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(settings.log, Log { max_size: Bytes(1 << 20), max_files: 5 });
        assert_eq!(settings.build.cache_max_size, Some(Bytes(2 << 30)));
        crate::store::write_bytes(&path, b"[pubish]\n", crate::store::Durability::Atomic).unwrap();
        assert!(Settings::load(&path).unwrap_err().to_string().contains("pubish"));
    }
}
