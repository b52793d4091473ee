//! `--secret`, `--ssh`, `--build-context`, `--allow`: what a Dockerfile may ask for by name (*docker buildx build*).

use super::place::{Place, remote_tree};
use crate::build::NamedContext;
use crate::cli::error::{Failure, exit};
use crate::cli::flags::Parsed;
use crate::engine::{Engine, NamedLayout, Secret, StepOptions};
use crate::image::LayoutImage;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest secret, bytes; as in BuildKit.
const MAX_SECRET: u64 = 500 << 10;

/// Where a secret comes from.
#[derive(Debug, PartialEq, Eq)]
enum From {
    File(PathBuf),
    Variable(String),
    /// The variable of its name, else the file of its name.
    Either,
}

/// Reads `id=NAME[,src=FILE][,env=VARIABLE][,type=file|env]`.
fn parse_secret(text: &str) -> Result<(String, From), String> {
    let (mut id, mut source, mut env, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (name, value) =
            field.split_once('=').ok_or_else(|| format!("{field:?} has no =; write id=NAME,src=FILE"))?;
        match name.to_ascii_lowercase().as_str() {
            "id" => id = Some(value),
            "src" | "source" => source = Some(value),
            "env" => env = Some(value),
            "type" if matches!(value, "file" | "env") => kind = Some(value),
            "type" => return Err(format!("type {value:?} is neither file nor env")),
            _ => return Err(format!("field {name:?} is unknown; it is id, src, env or type")),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or("it needs id=NAME")?;
    let from = match (kind, source, env) {
        (_, Some(_), Some(_)) if kind != Some("env") => return Err("it has both src and env".into()),
        (Some("env"), None, None) => From::Variable(id.to_owned()),
        // buildx reads the source of type=env as the variable's name.
        (Some("env"), Some(name), None) | (_, None, Some(name)) => From::Variable(name.to_owned()),
        (_, Some(path), _) => From::File(path.into()),
        (_, None, None) => From::Either,
    };
    Ok((id.to_owned(), from))
}

fn read_secret(id: &str, from: &From) -> Result<Secret, String> {
    let variable = |name: &str| std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes).map(Secret);
    let file = |path: &Path| {
        let failed = |error: std::io::Error| format!("read {}: {error}", path.display());
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(MAX_SECRET + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_SECRET {
            return Err(format!("{} is larger than 500 KiB", path.display()));
        }
        Ok(Secret(bytes))
    };
    match from {
        From::File(path) => file(path),
        From::Variable(name) => variable(name).ok_or_else(|| format!("variable {name} is not set")),
        From::Either => variable(id).map_or_else(|| file(Path::new(id)), Ok),
    }
}

/// Reads `default`, `NAME`, `NAME=SOCKET`.
fn parse_agent(text: &str, own: Option<PathBuf>) -> Result<(String, PathBuf), String> {
    let (id, path) = text.split_once('=').map_or((text, None), |(id, path)| (id, Some(path)));
    if id.is_empty() {
        return Err("it is written default, NAME or NAME=SOCKET".into());
    }
    let path = match path.filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => own.ok_or("SSH_AUTH_SOCK is not set; start an agent, or name its socket: NAME=SOCKET")?,
    };
    let path = std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let kind = std::fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if !std::os::unix::fs::FileTypeExt::is_socket(&kind.file_type()) {
        return Err(format!("{} is no socket of an agent; add the key to one with ssh-add", path.display()));
    }
    Ok((id.to_owned(), path))
}

/// Reads both flags into the options.
pub(super) fn read(parsed: &Parsed, options: &mut StepOptions) -> Result<(), Failure> {
    for text in parsed.all("secret") {
        let secret = parse_secret(text).and_then(|(id, from)| Ok((read_secret(&id, &from)?, id)));
        let (secret, id) = secret.map_err(|why| parsed.invalid("secret", text, why))?;
        options.secrets.push((id, secret));
    }
    for text in parsed.all("ssh") {
        let own = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
        options.agents.push(parse_agent(text, own).map_err(|why| parsed.invalid("ssh", text, why))?);
    }
    Ok(())
}

/// Tells whether steps may go without walls: the operator's settings and the command line both have to say so.
pub(super) fn insecure(parsed: &Parsed, engine: &Engine) -> Result<bool, Failure> {
    let mut asked = false;
    for name in parsed.all("allow") {
        match name {
            "security.insecure" if engine.settings.build.allow_insecure => asked = true,
            "security.insecure" => {
                return Err(parsed
                    .invalid("allow", name, "the operator's settings do not allow it")
                    .hint("allow_insecure = true in [build] of bulkhead.toml allows it on this machine"));
            }
            "network.host" => {
                return Err(
                    parsed.conflict("--allow network.host: give the build the host's network with --network host")
                );
            }
            other => return Err(parsed.invalid("allow", other, "it is security.insecure")),
        }
    }
    Ok(asked)
}

/// Reads what follows `oci-layout://`: a directory, and which of its images.
fn parse_layout(text: &str) -> Result<(PathBuf, LayoutImage), String> {
    let is_directory = |path: &str| Path::new(path).is_dir();
    let (path, image) = match (text.rsplit_once('@'), text.rsplit_once(':')) {
        _ if is_directory(text) => (text, LayoutImage::Only),
        (Some((path, digest)), _) => (path, LayoutImage::Digest(digest.parse().map_err(|e| format!("{digest}: {e}"))?)),
        (None, Some((path, tag))) if !tag.contains('/') => (path, LayoutImage::Tag(tag.to_owned())),
        _ => (text, LayoutImage::Only),
    };
    if !is_directory(path) {
        return Err(format!("there is no directory {path}"));
    }
    Ok((std::path::absolute(path).map_err(|error| format!("{path}: {error}"))?, image))
}

/// Reads `--build-context`, and adds the directories, repositories and archives to the context.
pub(super) fn contexts(
    parsed: &Parsed,
    engine: &Engine,
    place: &mut Place,
) -> Result<Vec<(String, NamedContext)>, Failure> {
    let written = "it is written NAME=PATH, NAME=docker-image://IMAGE, NAME=oci-layout://PATH[:TAG|@DIGEST], or NAME= and \
                   the address of a repository or archive";
    let mut named = Vec::new();
    for text in parsed.all("build-context") {
        let Some((name, value)) = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())
        else {
            return Err(parsed.invalid("build-context", text, written));
        };
        let in_context = |error| Failure::from_error(exit::FAILED, &error);
        let context = match value.split_once("://") {
            Some(("docker-image", image)) => NamedContext::Image(image.to_owned()),
            Some(("oci-layout", layout)) => {
                let (path, image) = parse_layout(layout).map_err(|why| parsed.invalid("build-context", text, why))?;
                place.layouts.push(NamedLayout { name: value.to_owned(), path, image });
                NamedContext::Image(value.to_owned())
            }
            _ if Path::new(value).exists() => {
                place.files.add_named(name, Path::new(value)).map_err(in_context)?;
                NamedContext::Directory
            }
            _ => match remote_tree(engine, value, parsed.switch("quiet")?)? {
                Some((root, kept, material)) => {
                    place.files.add_named_tree(name, root).map_err(in_context)?;
                    place.kept.push(kept);
                    place.materials.push(material);
                    NamedContext::Directory
                }
                None if value.contains("://") => return Err(parsed.invalid("build-context", text, written)),
                None => {
                    place.files.add_named(name, Path::new(value)).map_err(in_context)?;
                    NamedContext::Directory
                }
            },
        };
        named.push((name.to_owned(), context));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_a_directory_and_one_of_its_images() {
        let digest = crate::base::Digest::of(b"x");
        for (text, expected) in [
            ("/usr", Ok(("/usr", LayoutImage::Only))),
            ("/usr:v1", Ok(("/usr", LayoutImage::Tag("v1".into())))),
            (&format!("/usr@{digest}"), Ok(("/usr", LayoutImage::Digest(digest.clone())))),
            ("/usr/no:v1/there", Err("there is no directory /usr/no:v1/there")),
            ("/no:v1", Err("there is no directory /no")),
        ] {
            let expected = expected.map(|(path, image)| (path.into(), image)).map_err(str::to_owned);
            assert_eq!(parse_layout(text), expected, "{text}");
        }
        assert!(parse_layout("/usr@sha256:1").is_err_and(|why| why.starts_with("sha256:1: ")));
    }

    #[test]
    fn secrets_are_read_as_buildx_reads_them() {
        let file = |path: &str| From::File(path.into());
        let variable = |name: &str| From::Variable(name.into());
        for (text, id, from) in [
            ("id=a", "a", From::Either),
            ("id=a,src=/x/y", "a", file("/x/y")),
            ("source=b,ID=a", "a", file("b")),
            ("id=a,env=B", "a", variable("B")),
            ("type=env,id=a", "a", variable("a")),
            ("type=env,id=a,src=B", "a", variable("B")),
            ("type=file,id=a,src=B", "a", file("B")),
        ] {
            assert_eq!(parse_secret(text).unwrap(), (id.to_owned(), from), "{text}");
        }
        for bad in ["", "a", "src=x", "id=", "id=a,what=b", "id=a,type=tar", "id=a,src=b,env=c"] {
            assert!(parse_secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn agents_are_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("socket"), dir.path().join("file"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::File::create(&file).unwrap();
        assert_eq!(parse_agent("default", Some(socket.clone())), Ok(("default".into(), socket.clone())));
        assert_eq!(parse_agent(&format!("a={}", socket.display()), None), Ok(("a".into(), socket)));
        assert!(parse_agent("default", None).unwrap_err().contains("SSH_AUTH_SOCK"));
        assert!(parse_agent(&format!("a={}", file.display()), None).unwrap_err().contains("ssh-add"));
        assert!(parse_agent("=x", None).is_err());
    }
}
