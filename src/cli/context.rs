//! What every verb is given, and the two ways out: data to stdout, talk to stderr.

use super::error::{Failure, Outcome, exit};
use super::terminal::stderr_has_colour;
use crate::config::Settings;
use crate::engine::{Engine, EngineError};
use crate::image::ImageError;
use crate::shim::{LaunchConn, ShimError};
use crate::store::Paths;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Makes a shim that waits for its plan.
pub type Launcher<'a> = &'a mut (dyn FnMut() -> Result<LaunchConn, ShimError> + Send);

/// What every verb is given.
pub(super) struct Context<'a> {
    paths: Paths,
    launcher: Mutex<Launcher<'a>>,
}

impl<'a> Context<'a> {
    /// Decides where state lies: the flag, else the variable, else the system's directories or, for an ordinary user,
    /// those of XDG.
    pub(super) fn new(root: Option<PathBuf>, run: Option<PathBuf>, launcher: Launcher<'a>) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let is_root = rustix::process::geteuid().is_root();
        let home = || variable("HOME").unwrap_or_else(|| PathBuf::from("/"));
        let root = root.or_else(|| variable("BULKHEAD_ROOT")).unwrap_or_else(|| match is_root {
            true => PathBuf::from("/var/lib/bulkhead"),
            false => variable("XDG_DATA_HOME").unwrap_or_else(|| home().join(".local/share")).join("bulkhead"),
        });
        let run = run.or_else(|| variable("BULKHEAD_RUN")).unwrap_or_else(|| match is_root {
            true => PathBuf::from("/run/bulkhead"),
            false => {
                let uid = rustix::process::getuid().as_raw();
                variable("XDG_RUNTIME_DIR")
                    .unwrap_or_else(|| PathBuf::from(format!("/tmp/bulkhead-{uid}")))
                    .join("bulkhead")
            }
        });
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Self { paths: Paths { root: absolute(root), run: absolute(run) }, launcher: Mutex::new(launcher) }
    }

    /// Returns where state lies.
    pub(super) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Opens the engine.
    ///
    /// # Errors
    /// When the settings or the store cannot be used.
    pub(super) fn engine(&self) -> Result<Engine, Failure> {
        let file = match std::env::var_os("BULKHEAD_CONFIG").map(PathBuf::from) {
            Some(file) => file,
            None if rustix::process::geteuid().is_root() => PathBuf::from("/etc/bulkhead/bulkhead.toml"),
            None => {
                let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".config");
                std::env::var_os("XDG_CONFIG_HOME").map_or_else(home, PathBuf::from).join("bulkhead/bulkhead.toml")
            }
        };
        let settings = Settings::load(&file).map_err(|error| Failure::from_error(exit::FAILED, &error))?;
        Ok(Engine::open(self.paths.clone(), settings)?)
    }

    /// Makes a shim.
    ///
    /// # Errors
    /// When it cannot be forked.
    pub(super) fn launch(&self) -> Result<LaunchConn, ShimError> {
        let mut launcher = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        (*launcher)()
    }
}

impl Failure {
    /// Makes a failure from a use case's error, with the command that helps when there is one.
    pub(super) fn of_engine(code: u8, error: &EngineError) -> Self {
        if let EngineError::Image(ImageError::Registry(error)) = error {
            return super::registry::failure(error).code(code);
        }
        let failure = Self::from_error(code, error);
        match next_command(error) {
            Some(next) => failure.hint(next),
            None => failure,
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::of_engine(exit::FAILED, &error)
    }
}

/// Says what to do about an error that does not say it itself.
fn next_command(error: &EngineError) -> Option<String> {
    Some(match error {
        EngineError::NoContainer(_) => "'bulkhead ps -a' lists the containers".to_owned(),
        EngineError::NotRunning(name) => format!("'bulkhead start {name}' starts it"),
        EngineError::Running { name, .. } => format!("'bulkhead stop {name}', or 'bulkhead rm -f {name}'"),
        EngineError::BindSource { path } => {
            format!("'mkdir -p {}' makes it; -v makes it by itself", path.display())
        }
        EngineError::VolumeInUse { users, .. } => format!("'bulkhead rm {}' gives it free", users.join(" ")),
        EngineError::Volume(error) if error.is_not_found() => "'bulkhead volume ls' lists the volumes".to_owned(),
        EngineError::Image(ImageError::NotFound(_)) => NO_IMAGE.to_owned(),
        _ => return None,
    })
}

/// What to do when there is no image of a name.
pub(super) const NO_IMAGE: &str = "'bulkhead images' lists the images";

/// Writes data to stdout.
///
/// # Errors
/// When it cannot be written; a reader that has gone ends the command quietly.
pub(super) fn out(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()).map_err(named("stdout"))
}

/// Says in an error which of our own streams could not be written.
pub(super) fn named(stream: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("write to {stream}: {error}"))
}

/// Writes talk to stderr; nobody to talk to is no failure.
pub(super) fn talk(text: impl AsRef<str>) {
    let _ = io::stderr().lock().write_all(text.as_ref().as_bytes());
}

/// Writes a failure to stderr.
pub(super) fn complain(failure: &Failure) {
    if !failure.is_silent() {
        talk(failure.render(stderr_has_colour()));
    }
}

/// Does something for each name: every failure is told, the others go on, and one is enough for exit code 1.
pub(super) fn each(names: &[String], mut action: impl FnMut(&str) -> Outcome<()>) -> Outcome {
    let mut code = 0;
    for name in names {
        if let Err(failure) = action(name) {
            if failure.is_silent() {
                return Err(failure);
            }
            complain(&failure);
            code = exit::FAILED;
        }
    }
    Ok(code)
}
