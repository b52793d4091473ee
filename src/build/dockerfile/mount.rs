//! `RUN --mount=...` (*Dockerfile reference "RUN --mount"*).

use crate::base::Bytes;
use crate::step::Sharing;
use std::fmt;

/// What is wrong with a `--mount`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// A field that does not exist.
    #[error("unknown field {0:?}")]
    UnknownField(String),
    /// A type that does not exist.
    #[error("unknown type {0:?}; it is bind, cache, tmpfs, secret or ssh")]
    UnknownType(String),
    /// A field without `=value`.
    #[error("field {0} needs a value")]
    NoValue(String),
    /// A value that cannot be read.
    #[error("{field}={value}: {expected}")]
    Value {
        /// Field.
        field: String,
        /// Value as written.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A field that this type does not have.
    #[error("field {field} is not for type {kind}")]
    NotForType {
        /// Field.
        field: String,
        /// Type.
        kind: MountKind,
    },
    /// No target.
    #[error("type {0} needs target=PATH")]
    NoTarget(MountKind),
    /// No id and no target to take it from.
    #[error("a secret needs id=NAME or target=PATH")]
    NoSecret,
    /// A quote in the list that does not close.
    #[error("quote does not close in {0:?}")]
    Quote(String),
}

impl MountError {
    /// Returns the field that an unknown one may mean.
    pub(super) fn nearest_field(&self) -> Option<&'static str> {
        const FIELDS: [&str; 14] = [
            "type",
            "from",
            "source",
            "target",
            "readonly",
            "readwrite",
            "id",
            "sharing",
            "required",
            "size",
            "mode",
            "uid",
            "gid",
            "env",
        ];
        match self {
            Self::UnknownField(field) => super::error::nearest(field, &FIELDS),
            _ => None,
        }
    }
}

/// Kind of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory kept between builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret file or variable.
    Secret,
    /// An agent socket.
    Ssh,
}

impl fmt::Display for MountKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        })
    }
}

/// One mount of a `RUN`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunMount {
    /// Kind.
    pub kind: MountKind,
    /// Stage, image or named context; `None` is the build context (bind) or nothing (cache).
    pub from: Option<String>,
    /// Path in `from`.
    pub source: Option<String>,
    /// Path in the step.
    pub target: Option<String>,
    /// Read-only; bind mounts are, unless `rw` is said.
    pub readonly: bool,
    /// Name of the cache, secret or agent.
    pub id: Option<String>,
    /// Cache sharing.
    pub sharing: Sharing,
    /// The step fails when the secret or agent is not given.
    pub required: bool,
    /// Limit of a tmpfs, bytes.
    pub size: Option<Bytes>,
    /// Mode of the file, socket or directory.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// The secret goes into this variable.
    pub env: Option<String>,
}

/// A mount as written; its values may hold variables until the step is planned.
#[derive(Clone, Debug, PartialEq)]
pub struct MountText {
    fields: Vec<(String, Option<String>)>,
}

impl MountText {
    /// Reads `type=cache,target=/root/.cache`; values with a `$` are judged when they are known.
    ///
    /// # Errors
    /// For an unknown field or type, and for a value without variables that cannot be read.
    pub fn parse(text: &str) -> Result<Self, MountError> {
        let mut fields = Vec::new();
        for field in split_commas(text)? {
            let (name, value) = match field.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (field.as_str(), None),
            };
            fields.push((name.trim().to_ascii_lowercase(), value));
        }
        let mount = Self { fields };
        if mount.fields.iter().any(|(_, v)| v.as_deref().is_some_and(|v| v.contains('$'))) {
            let known: Vec<_> =
                mount.fields.iter().filter(|(_, v)| !v.as_deref().is_some_and(|v| v.contains('$'))).cloned().collect();
            Self { fields: known }.fields()?;
        } else {
            mount.resolve(|value| Ok::<_, MountError>(value.to_owned()))?;
        }
        Ok(mount)
    }

    /// Replaces variables in the values and reads them.
    ///
    /// # Errors
    /// What `replace` says, or the first field that cannot be read.
    pub fn resolve<E: From<MountError>>(&self, replace: impl Fn(&str) -> Result<String, E>) -> Result<RunMount, E> {
        let mut replaced = self.clone();
        for (_, value) in &mut replaced.fields {
            if let Some(value) = value {
                *value = replace(value)?;
            }
        }
        let mount = replaced.fields()?;
        mount.check()?;
        Ok(mount)
    }

    fn fields(&self) -> Result<RunMount, MountError> {
        let mut mount = RunMount::default();
        let mut write = None;
        for (name, value) in &self.fields {
            if name == "type" {
                mount.kind = kind(value.as_deref().unwrap_or_default())?;
            }
        }
        for (name, value) in &self.fields {
            match (name.as_str(), value.as_deref()) {
                ("type", _) => {}
                ("readonly" | "ro", v) => write = Some(!truth(name, v)?),
                ("readwrite" | "rw", v) => write = Some(truth(name, v)?),
                ("required", v) => mount.required = truth(name, v)?,
                (
                    "from" | "source" | "src" | "target" | "dst" | "destination" | "id" | "sharing" | "size" | "mode"
                    | "uid" | "gid" | "env",
                    None,
                ) => {
                    return Err(MountError::NoValue(name.clone()));
                }
                ("from", v) => mount.from = v.map(str::to_owned),
                ("source" | "src", v) => mount.source = v.map(str::to_owned),
                ("target" | "dst" | "destination", v) => mount.target = v.map(str::to_owned),
                ("id", v) => mount.id = v.map(str::to_owned),
                ("env", v) => mount.env = v.map(str::to_owned),
                ("sharing", Some(v)) => {
                    mount.sharing = match v.to_ascii_lowercase().as_str() {
                        "shared" => Sharing::Shared,
                        "private" => Sharing::Private,
                        "locked" => Sharing::Locked,
                        _ => return Err(bad(name, v, "shared, private or locked")),
                    }
                }
                ("size", Some(v)) => mount.size = Some(v.parse().map_err(|_| bad(name, v, "a size such as 64m"))?),
                ("mode", Some(v)) => {
                    mount.mode = Some(
                        u32::from_str_radix(v, 8)
                            .ok()
                            .filter(|m| *m <= 0o7777)
                            .ok_or_else(|| bad(name, v, "an octal mode such as 0755"))?,
                    )
                }
                ("uid", Some(v)) => mount.uid = Some(v.parse().map_err(|_| bad(name, v, "a number"))?),
                ("gid", Some(v)) => mount.gid = Some(v.parse().map_err(|_| bad(name, v, "a number"))?),
                _ => return Err(MountError::UnknownField(name.clone())),
            }
            mount.suits(name)?;
        }
        mount.readonly = !write.unwrap_or(mount.kind != MountKind::Bind);
        Ok(mount)
    }

    /// Returns `from` as written.
    pub fn from(&self) -> Option<&str> {
        self.fields.iter().rev().find(|(n, _)| n == "from").and_then(|(_, v)| v.as_deref())
    }
}

impl RunMount {
    fn suits(&self, field: &str) -> Result<(), MountError> {
        let fits = match field {
            "from" | "source" | "src" => {
                matches!(self.kind, MountKind::Bind | MountKind::Cache)
                    || (self.kind == MountKind::Secret && field != "from")
            }
            "readonly" | "ro" | "readwrite" | "rw" => !matches!(self.kind, MountKind::Secret | MountKind::Ssh),
            "sharing" => self.kind == MountKind::Cache,
            "required" => matches!(self.kind, MountKind::Secret | MountKind::Ssh),
            "size" => self.kind == MountKind::Tmpfs,
            "env" => self.kind == MountKind::Secret,
            "mode" | "uid" | "gid" => matches!(self.kind, MountKind::Cache | MountKind::Secret | MountKind::Ssh),
            "id" => !matches!(self.kind, MountKind::Bind | MountKind::Tmpfs),
            _ => true,
        };
        if fits { Ok(()) } else { Err(MountError::NotForType { field: field.to_owned(), kind: self.kind }) }
    }

    fn check(&self) -> Result<(), MountError> {
        let has_target = self.target.as_deref().is_some_and(|t| !t.is_empty());
        match self.kind {
            MountKind::Bind | MountKind::Cache | MountKind::Tmpfs if !has_target => {
                Err(MountError::NoTarget(self.kind))
            }
            MountKind::Secret if !has_target && self.id.is_none() && self.source.is_none() => Err(MountError::NoSecret),
            _ => Ok(()),
        }
    }
}

fn kind(text: &str) -> Result<MountKind, MountError> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "bind" => MountKind::Bind,
        "cache" => MountKind::Cache,
        "tmpfs" => MountKind::Tmpfs,
        "secret" => MountKind::Secret,
        "ssh" => MountKind::Ssh,
        _ => return Err(MountError::UnknownType(text.to_owned())),
    })
}

fn bad(field: &str, value: &str, expected: &'static str) -> MountError {
    MountError::Value { field: field.to_owned(), value: value.to_owned(), expected }
}

fn truth(field: &str, value: Option<&str>) -> Result<bool, MountError> {
    match value {
        None => Ok(true),
        Some(value) => super::flags::parse_bool(value).ok_or_else(|| bad(field, value, "true or false")),
    }
}

/// Splits a list at commas; a field may be quoted as in CSV.
pub(super) fn split_commas(text: &str) -> Result<Vec<String>, MountError> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let field = fields.last_mut().expect("there is always a field");
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => field.extend(rest.next()),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted { Err(MountError::Quote(text.to_owned())) } else { Ok(fields) }
}
