//! The image config (*OCI image-spec "Image Configuration"*) with Docker's additions.

use crate::base::{Digest, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The empty object that Go writes as the value of a set (`"80/tcp": {}`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Reads `null` as the default, as Go does.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An image config. Fields are written in alphabetical order, as Docker and BuildKit write them; unknown ones are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// CPU architecture in Go's words (`amd64`).
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// Who made it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Message of `import` or `commit`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// What a container of it runs with.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ContainerConfig,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// One entry per build step.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Operating system (`linux`).
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// The layers.
    #[serde(default, deserialize_with = "or_default")]
    pub rootfs: RootFs,
    /// CPU variant (`v8`).
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The `config` part: process, ports, volumes, health.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// User in any form of the specification.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports: `80/tcp`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Environment: `NAME=value`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Program and leading arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that get anonymous volumes.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Working directory.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks a container to stop.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Windows: the command is already escaped.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Instructions for builds that start from this image.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Shell of shell-form instructions.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A health check as images carry it (*Dockerfile reference "HEALTHCHECK"*); times in nanoseconds, 0 means inherited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthConfig {
    /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", line]`; empty inherits.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// Until a check has failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// In which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Between checks in the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// Failures in a row until unhealthy.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub retries: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// By whom.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// The instruction.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// A remark (`buildkit.dockerfile.v0`).
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// The layers of an image, bottom first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default = "RootFs::kind")]
    pub kind: String,
    /// Digests of the uncompressed layer tars.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

impl RootFs {
    fn kind() -> String {
        "layers".to_owned()
    }
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: Self::kind(), diff_ids: Vec::new() }
    }
}

/// What an image was made for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's words.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// CPU variant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Platform {
    /// Returns the platform of this program.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), ..Self::default() }
    }

    /// Reads `os/architecture[/variant]` or an architecture alone; `None` when it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<String> = text.to_ascii_lowercase().split('/').map(str::to_owned).collect();
        if parts.iter().any(String::is_empty) {
            return None;
        }
        match <[String; 1]>::try_from(parts) {
            Ok([one]) if one == "linux" => Some(Self::host()),
            Ok([architecture]) => Some(Self { architecture, os: "linux".to_owned(), ..Self::default() }),
            Err(mut parts) if parts.len() <= 3 => {
                let variant = if parts.len() == 3 { parts.remove(2) } else { String::new() };
                let architecture = parts.remove(1);
                Some(Self { architecture, os: parts.remove(0), variant, extra: Map::new() })
            }
            Err(_) => None,
        }
    }

    /// Tells whether images for `self` run on `host`; an image that does not say is taken to.
    pub fn runs_on(&self, host: &Self) -> bool {
        (self.architecture.is_empty() || self.architecture == host.architecture)
            && (self.os.is_empty() || self.os == host.os)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl ImageConfig {
    /// Returns what the image was made for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
            extra: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::to_go_json;

    #[test]
    fn platforms_are_read_in_all_forms() {
        let read = |text: &str| Platform::parse(text).map(|platform| platform.to_string());
        assert_eq!(read("linux/arm64/v8").as_deref(), Some("linux/arm64/v8"));
        assert_eq!(read("Linux/AMD64").as_deref(), Some("linux/amd64"));
        assert_eq!(read("arm64").as_deref(), Some("linux/arm64"));
        assert_eq!(Platform::parse("linux"), Some(Platform::host()));
        for bad in ["", "/", "linux/", "a/b/c/d"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    /// Written by Docker 20.10 for `FROM busybox; ENV A=b; CMD`, shortened.
    const DOCKER: &str = r#"{"architecture":"amd64","config":{"Hostname":"","Env":["PATH=/bin","A=\u003cb\u003e"],"Cmd":["sh"],"OnBuild":null},"container":"ab","created":"2026-11-20T10:00:00.123456789Z","docker_version":"20.10.24","history":[{"created":"2026-11-20T10:00:00Z","created_by":"/bin/sh -c true \u0026\u0026 false"},{"created":"2026-11-20T10:00:00Z","created_by":"/bin/sh -c #(nop)  CMD [\"sh\"]","empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;

    #[test]
    fn dockers_config_is_read_with_unknown_fields_kept() {
        let config: ImageConfig = serde_json::from_str(DOCKER).unwrap();
        assert_eq!(config.config.env[1], "A=<b>");
        assert_eq!(config.history[0].created_by, "/bin/sh -c true && false");
        assert!(config.history[1].empty_layer);
        assert_eq!(config.extra["docker_version"], "20.10.24");
        assert_eq!(config.config.extra["Hostname"], "");
        assert!(config.config.on_build.is_empty());
    }

    #[test]
    fn configs_are_written_in_gos_spelling_and_always_the_same() {
        let mut config: ImageConfig = serde_json::from_str(DOCKER).unwrap();
        config.extra.clear();
        config.config.extra.clear();
        let text = String::from_utf8(to_go_json(&config).unwrap()).unwrap();
        let expected = DOCKER
            .replace(r#""Hostname":"","#, "")
            .replace(r#","OnBuild":null"#, "")
            .replace(r#""container":"ab","#, "")
            .replace(r#""docker_version":"20.10.24","#, "");
        assert_eq!(text, expected);
    }

    #[test]
    fn hostile_configs_are_errors_not_panics() {
        for bad in ["", "[]", "{\"rootfs\":{\"diff_ids\":[\"../x\"]}}", "{\"created\":5}", "{\"config\":{\"Env\":[1]}}"]
        {
            assert!(serde_json::from_str::<ImageConfig>(bad).is_err(), "{bad}");
        }
    }
}
