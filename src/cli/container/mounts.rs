//! Mounts as the command line spells them: `-v`, `--mount`, `--tmpfs`.

use super::values::Parse;
use crate::base::Bytes;
use crate::engine::request::MountRequest;
use std::path::PathBuf;

/// Makes a path of the host absolute.
type Resolve<'a> = &'a dyn Fn(&str) -> PathBuf;

/// Returns where a mount goes inside.
pub(super) fn target(mount: &MountRequest) -> &str {
    match mount {
        MountRequest::Bind { target, .. }
        | MountRequest::Volume { target, .. }
        | MountRequest::Tmpfs { target, .. } => target,
    }
}

/// Checks a path inside: absolute, and not the root.
fn check_target(text: &str) -> Parse<String> {
    if text.is_empty() {
        return Err("the path inside the container is empty".to_owned());
    }
    if !text.starts_with('/') {
        return Err(format!("invalid mount path: '{text}' mount path must be absolute"));
    }
    if text.contains('\0') {
        return Err("invalid mount path: it contains a NUL byte".to_owned());
    }
    if text.split('/').all(|part| part.is_empty() || part == ".") {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    if text.split('/').any(|part| part == "..") {
        return Err(format!("invalid mount path: '{text}' must not contain '..'"));
    }
    Ok(text.to_owned())
}

/// Checks the name of a volume.
pub(in crate::cli) fn check_volume_name(name: &str) -> Parse<String> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && (2..=200).contains(&name.len())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good {
        return Ok(name.to_owned());
    }
    Err(format!(
        "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
         If you intended to pass a host directory, use absolute path"
    ))
}

/// Reads `-v`: `/path`, `name:/path[:options]`, `/host:/path[:options]`.
pub(in crate::cli) fn parse_volume(text: &str, resolve: Resolve<'_>) -> Parse<MountRequest> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(format!("invalid volume specification: '{text}'")),
    };
    if source == Some("") {
        return Err("invalid spec: empty section between colons".to_owned());
    }
    let target = check_target(target).map_err(|error| format!("invalid volume specification: '{text}': {error}"))?;
    let (mut readonly, mut nocopy) = (false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => readonly = true,
            "nocopy" | "volume-nocopy" => nocopy = true,
            // What Docker does by default anyway, and hints for systems that are not Linux or use SELinux.
            "rw" | "private" | "rprivate" | "cached" | "delegated" | "consistent" | "z" | "Z" => {}
            "shared" | "rshared" | "slave" | "rslave" => {
                return Err(format!("mount propagation '{option}' is not supported: mounts inside stay inside"));
            }
            _ => return Err(format!("invalid mode: {option}")),
        }
    }
    let is_path = |source: &str| source.starts_with(['/', '.', '~']);
    match source {
        Some(source) if is_path(source) => {
            if nocopy {
                return Err("'nocopy' is for volumes, not for host directories".to_owned());
            }
            Ok(MountRequest::Bind { source: resolve(source), target, readonly, create: true, recursive: true })
        }
        Some(name) => Ok(MountRequest::Volume { name: Some(check_volume_name(name)?), target, readonly, nocopy }),
        None => Ok(MountRequest::Volume { name: None, target, readonly, nocopy }),
    }
}

/// Splits one line of comma-separated values, with quoting as in RFC 4180.
pub(in crate::cli) fn split_csv(text: &str) -> Parse<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always a field");
        match (c, quoted) {
            ('"', true) if chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            ('"', true) => quoted = false,
            ('"', false) if field.is_empty() => quoted = true,
            ('"', false) => return Err("a quote stands inside a field that does not begin with one".to_owned()),
            (',', false) => fields.push(String::new()),
            _ => field.push(c),
        }
    }
    if quoted { Err("a quote is not closed".to_owned()) } else { Ok(fields) }
}

/// What `--mount` may say.
#[derive(Default)]
struct MountFields {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    readonly: bool,
    non_recursive: bool,
    create_source: bool,
    nocopy: bool,
    tmpfs: Vec<String>,
    /// Prefixes of the keys that belong to one type.
    typed: Vec<&'static str>,
}

/// Reads `--mount`: comma-separated `key=value`.
pub(in crate::cli) fn parse_mount(text: &str, resolve: Resolve<'_>) -> Parse<MountRequest> {
    let mut fields = MountFields::default();
    for field in split_csv(text)? {
        fields.read(&field)?;
    }
    let kind = fields.kind.as_deref().unwrap_or("volume");
    if let Some(other) = fields.typed.iter().find(|prefix| **prefix != kind) {
        return Err(format!("cannot mix '{other}-*' options with mount type '{kind}'"));
    }
    let target = check_target(fields.target.as_deref().ok_or("target is required")?)?;
    let readonly = fields.readonly;
    match kind {
        "bind" => {
            let source = fields.source.as_deref().filter(|source| !source.is_empty());
            let source =
                resolve(source.ok_or("invalid mount config for type \"bind\": field Source must not be empty")?);
            Ok(MountRequest::Bind {
                source,
                target,
                readonly,
                create: fields.create_source,
                recursive: !fields.non_recursive,
            })
        }
        "volume" => {
            let name =
                fields.source.filter(|name| !name.is_empty()).map(|name| check_volume_name(&name)).transpose()?;
            Ok(MountRequest::Volume { name, target, readonly, nocopy: fields.nocopy })
        }
        "tmpfs" => {
            if fields.source.is_some() {
                return Err("invalid mount config for type \"tmpfs\": field Source must not be specified".to_owned());
            }
            let mut options = fields.tmpfs;
            if readonly {
                options.push("ro".to_owned());
            }
            Ok(MountRequest::Tmpfs { target, options })
        }
        _ => Err(format!("mount type {kind:?} is not supported; use bind, volume or tmpfs")),
    }
}

impl MountFields {
    fn read(&mut self, field: &str) -> Parse<()> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        let truth = || match value {
            None => Ok(true),
            Some("1" | "true" | "TRUE" | "True" | "t" | "T") => Ok(true),
            Some("0" | "false" | "FALSE" | "False" | "f" | "F") => Ok(false),
            Some(value) => Err(format!("invalid value for {key}: {value}")),
        };
        match key.as_str() {
            "readonly" | "ro" => {
                self.readonly = truth()?;
                return Ok(());
            }
            "volume-nocopy" => {
                self.nocopy = truth()?;
                self.typed.push("volume");
                return Ok(());
            }
            "bind-nonrecursive" => {
                self.non_recursive = truth()?;
                self.typed.push("bind");
                return Ok(());
            }
            "bind-create-src" => {
                self.create_source = truth()?;
                self.typed.push("bind");
                return Ok(());
            }
            _ => {}
        }
        let value = value.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key.as_str() {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(value.to_owned()),
            "target" | "dst" | "destination" => self.target = Some(value.to_owned()),
            "consistency" => {}
            "bind-recursive" => {
                self.typed.push("bind");
                match value {
                    "enabled" => {}
                    "disabled" => self.non_recursive = true,
                    _ => return Err(format!("bind-recursive={value} is not supported; use enabled or disabled")),
                }
            }
            "bind-propagation" => {
                self.typed.push("bind");
                if !matches!(value, "private" | "rprivate") {
                    return Err(format!("bind-propagation={value} is not supported: mounts inside stay inside"));
                }
            }
            "tmpfs-size" => {
                self.typed.push("tmpfs");
                let Bytes(size) = value.parse().map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.push(format!("size={size}"));
            }
            "tmpfs-mode" => {
                self.typed.push("tmpfs");
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                let mode = mode.ok_or_else(|| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.push(format!("mode={mode:o}"));
            }
            "volume-driver" | "volume-opt" | "volume-label" | "volume-subpath" => {
                return Err(format!("'{key}' is not supported; make the volume first with 'bulkhead volume create'"));
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }
}

/// Reads `--tmpfs`: `/path[:options]`.
pub(super) fn parse_tmpfs(text: &str) -> Parse<MountRequest> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut checked = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
        let number = |radix| value.is_some_and(|value| u64::from_str_radix(value, radix).is_ok());
        let good = match key {
            "rw" | "ro" | "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "sync" | "async" | "atime"
            | "noatime" | "diratime" | "nodiratime" | "relatime" | "norelatime" | "strictatime" => value.is_none(),
            "size" => value
                .is_some_and(|v| v.strip_suffix('%').map_or(v.parse::<Bytes>().is_ok(), |p| p.parse::<u8>().is_ok())),
            "mode" => number(8),
            "uid" | "gid" | "nr_inodes" | "nr_blocks" => {
                number(10) || value.is_some_and(|v| v.parse::<Bytes>().is_ok())
            }
            _ => false,
        };
        if !good {
            return Err(format!("invalid tmpfs option {option:?}"));
        }
        checked.push(option.to_owned());
    }
    Ok(MountRequest::Tmpfs { target: check_target(path)?, options: checked })
}
