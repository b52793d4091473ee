//! What a container runs with: the image's config and the request merged (pure).

use super::request::{CreateRequest, HealthRequest};
use crate::base::parse_signal;
use crate::oci::{ContainerConfig, HealthConfig};
use crate::sandbox::Process;
use crate::shim::HealthPlan;

/// Search path of images that set none, as Docker's.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// SIGTERM.
const DEFAULT_STOP_SIGNAL: i32 = 15;
/// Seconds `stop` waits unless told otherwise.
const DEFAULT_STOP_TIMEOUT: i64 = 10;
const SECOND: u64 = 1_000_000_000;

/// Request and image do not go together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Neither names a program.
    #[error("no command specified: the image has no CMD or ENTRYPOINT; give a command after the image's name")]
    NoCommand,
    /// A relative working directory.
    #[error("the working directory '{0}' is invalid, it needs to be an absolute path")]
    WorkingDir(String),
    /// The image names a signal that does not exist.
    #[error("the image's stop signal {0:?} is no signal; give one with --stop-signal")]
    StopSignal(String),
    /// A zero byte cannot be passed to a program.
    #[error("{0} contains a zero byte")]
    ZeroByte(&'static str),
    /// An environment entry without a name.
    #[error("invalid environment variable: {0:?} has no name")]
    Env(String),
}

/// The merged result.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The first process.
    pub process: Process,
    /// Its environment without what every container has: the image's and the request's.
    pub env: Vec<String>,
    /// Entrypoint in force.
    pub entrypoint: Vec<String>,
    /// Command in force.
    pub command: Vec<String>,
    /// Labels, the request's over the image's.
    pub labels: Vec<(String, String)>,
    /// Exposed ports of both, `80/tcp`.
    pub exposed: Vec<String>,
    /// Health check in force.
    pub health: Option<HealthPlan>,
    /// Signal number of `stop`.
    pub stop_signal: i32,
    /// Seconds `stop` waits.
    pub stop_timeout: i64,
}

/// Merges request and image (*docker run reference "Overriding image defaults"*).
///
/// # Errors
/// See [`MergeError`].
pub fn merge(request: &CreateRequest, image: &ContainerConfig, hostname: &str) -> Result<Merged, MergeError> {
    let (entrypoint, command) = command_line(request, image);
    let args: Vec<String> = entrypoint.iter().chain(&command).cloned().collect();
    if args.is_empty() {
        return Err(MergeError::NoCommand);
    }
    let (env, asked_env) = environment(request, image, hostname)?;
    if args.iter().any(|text| text.contains('\0')) {
        return Err(MergeError::ZeroByte("the command"));
    }
    let cwd = working_dir(request.working_dir.as_deref().unwrap_or(&image.working_dir))?;
    let stop_signal = match (request.stop_signal, image.stop_signal.as_str()) {
        (Some(number), _) => number,
        (None, "") => DEFAULT_STOP_SIGNAL,
        (None, text) => parse_signal(text).ok_or_else(|| MergeError::StopSignal(text.to_owned()))?,
    };
    let mut labels = image.labels.clone();
    labels.extend(request.labels.iter().cloned());
    let published = request.publish.iter().map(|port| format!("{}/{}", port.container_port, port.protocol));
    let exposed = image.exposed_ports.keys().cloned().chain(request.expose.iter().cloned()).chain(published);
    let exposed: std::collections::BTreeSet<String> =
        exposed.map(|port| if port.contains('/') { port } else { format!("{port}/tcp") }).collect();
    Ok(Merged {
        process: Process {
            args,
            env,
            cwd,
            user: request.user.clone().unwrap_or_else(|| image.user.clone()),
            groups: request.groups.clone(),
            tty: request.tty,
            tty_size: None,
            rlimits: request.ulimits.clone(),
            oom_score_adj: request.oom_score_adj,
        },
        env: asked_env,
        entrypoint,
        command,
        labels: labels.into_iter().collect(),
        exposed: exposed.into_iter().collect(),
        health: health(&request.health, image.healthcheck.as_ref(), &image.shell),
        stop_signal,
        stop_timeout: request.stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT),
    })
}

/// `--entrypoint` drops the image's command; a command on the line replaces the image's.
fn command_line(request: &CreateRequest, image: &ContainerConfig) -> (Vec<String>, Vec<String>) {
    if let Some(entrypoint) = &request.entrypoint {
        let entrypoint = if entrypoint.is_empty() { Vec::new() } else { vec![entrypoint.clone()] };
        return (entrypoint, request.command.clone());
    }
    let entrypoint = image.entrypoint.clone().unwrap_or_default();
    let command =
        if request.command.is_empty() { image.cmd.clone().unwrap_or_default() } else { request.command.clone() };
    (entrypoint, command)
}

/// Returns a working directory without `.` and `..`, which are taken by the letter as in Docker: nothing is there yet
/// that they could lead out of.
///
/// # Errors
/// For relative paths and zero bytes.
pub(super) fn working_dir(text: &str) -> Result<String, MergeError> {
    if (!text.is_empty() && !text.starts_with('/')) || text.contains('\0') {
        return Err(MergeError::WorkingDir(text.to_owned()));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Returns the environment in force, and the part of it that image and request name.
fn environment(
    request: &CreateRequest,
    image: &ContainerConfig,
    hostname: &str,
) -> Result<(Vec<String>, Vec<String>), MergeError> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    if !hostname.is_empty() {
        env.push(format!("HOSTNAME={hostname}"));
    }
    if request.tty {
        env.push("TERM=xterm".to_owned());
    }
    let mut asked = Vec::new();
    for entry in image.env.iter().chain(&request.env) {
        let name = entry.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(MergeError::Env(entry.clone()));
        }
        if entry.contains('\0') {
            return Err(MergeError::ZeroByte("an environment variable"));
        }
        for env in [&mut env, &mut asked] {
            let place = env.iter().position(|old| old.split('=').next() == Some(name));
            match (place, entry.contains('=')) {
                (Some(index), true) => env[index] = entry.clone(),
                (Some(index), false) => drop(env.remove(index)),
                (None, true) => env.push(entry.clone()),
                (None, false) => {}
            }
        }
    }
    Ok((env, asked))
}

/// Merges health checks field by field; zero and empty inherit, then Docker's defaults apply.
fn health(request: &HealthRequest, image: Option<&HealthConfig>, shell: &[String]) -> Option<HealthPlan> {
    if request.disable {
        return None;
    }
    let none = HealthConfig::default();
    let image = image.unwrap_or(&none);
    let through_shell = |line: &str| {
        let mut command = if shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { shell.to_vec() };
        command.push(line.to_owned());
        command
    };
    let command = match (&request.command, image.test.first().map(String::as_str)) {
        (Some(line), _) if line == "none" => return None,
        (Some(line), _) => through_shell(line),
        (None, Some("CMD")) => image.test[1..].to_vec(),
        (None, Some("CMD-SHELL")) => through_shell(&image.test[1..].join(" ")),
        (None, _) => return None,
    };
    if command.is_empty() {
        return None;
    }
    let time = |asked: Option<std::time::Duration>, image: u64, default: u64| {
        asked.map(|d| d.as_nanos() as u64).filter(|n| *n > 0).or((image > 0).then_some(image)).unwrap_or(default)
    };
    Some(HealthPlan {
        command,
        interval: time(request.interval, image.interval, 30 * SECOND),
        timeout: time(request.timeout, image.timeout, 30 * SECOND),
        start_period: time(request.start_period, image.start_period, 0),
        start_interval: time(request.start_interval, image.start_interval, 5 * SECOND),
        retries: request.retries.or((image.retries > 0).then_some(image.retries)).unwrap_or(3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ContainerConfig {
        ContainerConfig {
            entrypoint: Some(vec!["/entry".into()]),
            cmd: Some(vec!["serve".into()]),
            env: vec!["PATH=/bin".into(), "A=image".into()],
            working_dir: "/srv".into(),
            user: "web".into(),
            stop_signal: "SIGQUIT".into(),
            ..ContainerConfig::default()
        }
    }

    fn merged(request: CreateRequest) -> Merged {
        merge(&request, &image(), "host").unwrap()
    }

    #[test]
    fn the_image_decides_what_the_request_leaves_open() {
        let all = merged(CreateRequest::default());
        assert_eq!(all.process.args, ["/entry", "serve"]);
        assert_eq!(all.process.env, ["PATH=/bin", "HOSTNAME=host", "A=image"]);
        assert_eq!(all.env, ["PATH=/bin", "A=image"], "what inspect shows");
        assert_eq!((all.process.cwd.as_str(), all.process.user.as_str(), all.stop_signal), ("/srv", "web", 3));
    }

    #[test]
    fn a_command_replaces_cmd_and_an_entrypoint_drops_it() {
        let with = |entrypoint: Option<&str>, command: &[&str]| {
            let command = command.iter().map(|s| (*s).to_owned()).collect();
            merge(
                &CreateRequest { entrypoint: entrypoint.map(str::to_owned), command, ..Default::default() },
                &image(),
                "",
            )
            .map(|m| m.process.args)
        };
        assert_eq!(with(None, &["x"]).unwrap(), ["/entry", "x"]);
        assert_eq!(with(Some("/e"), &[]).unwrap(), ["/e"]);
        assert_eq!(with(Some(""), &["x"]).unwrap(), ["x"]);
        assert_eq!(with(Some(""), &[]), Err(MergeError::NoCommand));
    }

    #[test]
    fn a_variable_without_value_removes_the_image_s() {
        let all = merged(CreateRequest { env: vec!["A".into(), "B=1".into(), "PATH=/x".into()], ..Default::default() });
        assert_eq!(all.process.env, ["PATH=/x", "HOSTNAME=host", "B=1"]);
    }

    #[test]
    fn health_checks_are_merged_field_by_field() {
        let image =
            HealthConfig { test: vec!["CMD-SHELL".into(), "curl x".into()], interval: SECOND, ..Default::default() };
        let plan = health(&HealthRequest { retries: Some(7), ..Default::default() }, Some(&image), &[]).unwrap();
        assert_eq!(plan.command, ["/bin/sh", "-c", "curl x"]);
        assert_eq!((plan.interval, plan.timeout, plan.retries), (SECOND, 30 * SECOND, 7));
        assert!(health(&HealthRequest { disable: true, ..Default::default() }, Some(&image), &[]).is_none());
        let none = HealthConfig { test: vec!["NONE".into()], ..Default::default() };
        assert!(health(&HealthRequest::default(), Some(&none), &[]).is_none());
    }

    #[test]
    fn hostile_texts_are_refused() {
        let env = |text: &str| merge(&CreateRequest { env: vec![text.into()], ..Default::default() }, &image(), "");
        assert_eq!(env("=x"), Err(MergeError::Env("=x".into())));
        assert_eq!(env("A=\0"), Err(MergeError::ZeroByte("an environment variable")));
        for (text, clean) in [("", "/"), ("/a//b/./c/", "/a/b/c"), ("/a/b/../c", "/a/c"), ("/../..", "/")] {
            assert_eq!(working_dir(text).unwrap(), clean);
        }
        let request = CreateRequest { working_dir: Some("tmp".into()), ..Default::default() };
        assert_eq!(merge(&request, &image(), ""), Err(MergeError::WorkingDir("tmp".into())));
    }
}
