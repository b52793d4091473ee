//! `exec`.

use super::create_flags::{Surroundings, environment};
use super::relay::Relay;
use super::run::{code_byte, detach_keys, require_terminal};
use crate::base::ContainerId;
use crate::cli::context::{Context, talk};
use crate::cli::detach::DetachKeys;
use crate::cli::error::{Failure, Outcome, exit};
use crate::cli::flags::{Flags, Parsed, list, switch, value};
use crate::cli::terminal::{Ending, Framing, Remote, Session, Signals, window_size};
use crate::engine::{Engine, EngineError, ExecRequest};
use crate::shim::{ShimError, Status};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Flags of `exec`.
pub(super) fn flags(flags: Flags) -> Flags {
    flags
        .arg(switch("detach", "Detached mode: run command in the background").short('d'))
        .arg(value("detach-keys", "string", "Override the key sequence for detaching a container"))
        .arg(list("env", "Set environment variables").short('e'))
        .arg(list("env-file", "Read in a file of environment variables"))
        .arg(switch("interactive", "Keep STDIN open even if not attached").short('i'))
        .arg(switch("privileged", "Give extended privileges to the command"))
        .arg(switch("tty", "Allocate a pseudo-TTY").short('t'))
        .arg(value("user", "string", "Username or UID (format: \"<name|uid>[:<group|gid>]\")").short('u'))
        .arg(value("workdir", "string", "Working directory inside the container").short('w'))
}

/// The terminal of an added process.
struct Terminal<'a>(BorrowedFd<'a>);

impl Remote for Terminal<'_> {
    fn resize(&mut self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let _ = rustix::termios::tcsetwinsize(self.0, size);
    }
    fn signal(&mut self, _: i32) {}
}

fn null() -> Result<OwnedFd, Failure> {
    Ok(std::fs::File::options().read(true).write(true).open("/dev/null")?.into())
}

/// Says why an added process could not be had: 127 when its program is not there, 126 when it cannot be started for
/// whatever reason, the rest is 1.
fn refused(error: &EngineError) -> Failure {
    let code = match error {
        EngineError::Start { .. } | EngineError::Merge(_) => error.exit_code().max(126),
        _ => exit::FAILED,
    };
    Failure::of_engine(code, error)
}

/// `exec`.
pub(super) fn exec(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let around = Surroundings {
        variable: &|name| std::env::var(name).ok(),
        read: &|path| std::fs::read(path),
        directory: &|| std::env::current_dir().unwrap_or_default(),
    };
    let (detach, tty, interactive) = (parsed.switch("detach")?, parsed.switch("tty")?, parsed.switch("interactive")?);
    let interactive = interactive && !detach;
    require_terminal(interactive, tty)?;
    let engine = context.engine()?;
    let (name, command) = parsed.arguments.split_first().ok_or_else(|| Failure::failed("a container is missing"))?;
    let id = engine.find(name)?;
    let status = engine.observe(&id)?.state.status;
    match status {
        Status::Running => {}
        Status::Paused => {
            return Err(Failure::failed(format!("container {name} is paused, unpause the container before exec"))
                .hint(format!("bulkhead unpause {name}")));
        }
        Status::Restarting => {
            return Err(Failure::failed(format!(
                "container {name} is restarting, wait until the container is running"
            ))
            .hint(format!("bulkhead logs {name} may say why it ends again and again")));
        }
        _ => {
            return Err(
                Failure::failed(format!("container {name} is not running")).hint(format!("bulkhead start {name}"))
            );
        }
    }
    let request = ExecRequest {
        args: command.to_vec(),
        env: environment(&parsed, &around)?,
        user: parsed.filled("user"),
        working_dir: parsed.filled("workdir"),
        tty,
        tty_size: if tty { window_size() } else { None },
        privileged: parsed.switch("privileged")?,
    };
    if tty {
        return with_terminal(&engine, &id, request, (detach, interactive), detach_keys(&parsed)?);
    }
    let null = null()?;
    if detach {
        engine.exec(&id, request, Some([null.as_fd(); 3])).map_err(|error| refused(&error))?;
        return Ok(0);
    }
    let (relay, ends) = Relay::new(interactive)?;
    let stdin = ends.stdin.as_ref().map_or(null.as_fd(), AsFd::as_fd);
    let stdio = [stdin, ends.stdout.as_fd(), ends.stderr.as_fd()];
    let mut process = engine.exec(&id, request, Some(stdio)).map_err(|error| refused(&error))?;
    drop(ends);
    relay.copy(process.as_fd())?;
    process.wait().map(code_byte).map_err(|error: ShimError| Failure::from_error(exit::FAILED, &error))
}

/// `exec -t`: the process gets a terminal of the container's own, whose master comes to us.
fn with_terminal(
    engine: &Engine,
    id: &ContainerId,
    request: ExecRequest,
    (detach, interactive): (bool, bool),
    keys: DetachKeys,
) -> Outcome {
    let mut process = engine.exec(id, request, None).map_err(|error| refused(&error))?;
    if detach {
        return Ok(0);
    }
    if let Some(terminal) = process.terminal.take() {
        let session = Session {
            stream: terminal.as_fd(),
            framing: Framing::Raw,
            stdin: interactive,
            tty: true,
            forward_signals: false,
            keys,
            show: [true, true],
            urged: 0,
        };
        match session.copy(&Signals::take()?, &mut Terminal(terminal.as_fd()))? {
            Ending::Detached => {
                talk("\nread escape sequence\n");
                return Ok(0);
            }
            Ending::Interrupted(number) | Ending::Unheeded(number) => return Ok(code_byte(128 + number)),
            Ending::Exited(_) | Ending::Closed => {}
        }
    }
    process.wait().map(code_byte).map_err(|error: ShimError| Failure::from_error(exit::FAILED, &error))
}
