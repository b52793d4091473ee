//! `run`, `create`, `start`, `attach`.

use super::create_flags::{Surroundings, create_flags, create_request};
use crate::base::{ContainerId, signal_name};
use crate::cli::context::{Context, complain, each, out, talk};
use crate::cli::detach::{DEFAULT, DetachKeys};
use crate::cli::error::{Failure, Outcome, exit};
use crate::cli::flags::{Flags, Parsed, switch, value};
use crate::cli::registry::{Policy, policy, pull_now};
use crate::cli::terminal::{Ending, Framing, Remote, Session, Signals, stdin_is_terminal, window_size};
use crate::cli::verbs::near;
use crate::engine::record::ContainerRecord;
use crate::engine::request::CreateRequest;
use crate::engine::{AttachRequest, Engine, EngineError, Started};
use crate::image::{ImageError, Images};
use crate::shim::{Client, Status};
use crate::store::Lease;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Adds the flags of attached verbs.
fn attach_flags(flags: Flags) -> Flags {
    flags
        .arg(value("detach-keys", "string", "Override the key sequence for detaching a container"))
        .arg(switch("sig-proxy", "Proxy received signals to the process (default true)"))
}

/// Flags of `run`.
pub(super) fn run_flags(flags: Flags) -> Flags {
    attach_flags(create_flags(flags))
        .arg(switch("detach", "Run container in background and print container ID").short('d'))
}

/// Flags of `start`.
pub(super) fn start_flags(flags: Flags) -> Flags {
    attach_flags(flags)
        .arg(switch("all", "Start every container that its restart policy wants running, as at boot"))
        .arg(switch("attach", "Attach STDOUT/STDERR and forward signals").short('a'))
        .arg(switch("interactive", "Attach container's STDIN").short('i'))
}

/// Flags of `attach`.
pub(super) fn attach_verb_flags(flags: Flags) -> Flags {
    attach_flags(flags).arg(switch("no-stdin", "Do not attach STDIN"))
}

/// How a client attaches.
struct Attachment {
    stdin: bool,
    show: [bool; 2],
    tty: bool,
    keys: DetachKeys,
    forward_signals: bool,
}

/// Asks the process we run in.
pub(super) fn request_of(parsed: &Parsed) -> Result<CreateRequest, Failure> {
    let around = Surroundings {
        variable: &|name| std::env::var(name).ok(),
        read: &|path| std::fs::read(path),
        directory: &|| std::env::current_dir().unwrap_or_default(),
    };
    create_request(parsed, &around)
}

pub(super) fn detach_keys(parsed: &Parsed) -> Result<DetachKeys, Failure> {
    let keys = parsed.text("detach-keys").unwrap_or(DEFAULT);
    DetachKeys::parse(keys).map_err(|error| parsed.invalid("detach-keys", keys, error))
}

fn proxy(parsed: &Parsed) -> Result<bool, Failure> {
    Ok(!parsed.given("sig-proxy") || parsed.switch("sig-proxy")?)
}

/// Reads which streams `run` attaches: those of `-a`, else output always and input with `-i`.
fn streams(parsed: &Parsed, request: &CreateRequest) -> Result<Attachment, Failure> {
    let (mut stdin, mut show) = (request.stdin_open, [true, true]);
    if parsed.given("attach") {
        (stdin, show) = (false, [false, false]);
        for name in parsed.all("attach") {
            match name.to_ascii_lowercase().as_str() {
                "stdin" => stdin = true,
                "stdout" => show[0] = true,
                "stderr" => show[1] = true,
                _ => return Err(parsed.invalid("attach", name, "valid streams are STDIN, STDOUT and STDERR")),
            }
        }
    }
    Ok(Attachment { stdin, show, tty: request.tty, keys: detach_keys(parsed)?, forward_signals: proxy(parsed)? })
}

/// Refuses input that should come from a terminal and does not.
pub(super) fn require_terminal(stdin: bool, tty: bool) -> Result<(), Failure> {
    if stdin && tty && !stdin_is_terminal() {
        return Err(
            Failure::failed("the input device is not a TTY").hint("leave out -t when the input is a pipe or a file")
        );
    }
    Ok(())
}

/// Turns an engine's failure into one of `run`: 125, or 126 and 127 for the program itself.
fn of_run(error: &EngineError) -> Failure {
    Failure::of_engine(error.exit_code(), error)
}

/// Finds the image most like a mistyped one.
fn near_image(engine: &Engine, mistyped: &str) -> Option<String> {
    let images = Images::open(&engine.paths).ok()?.list().ok()?;
    let names: Vec<String> = images
        .iter()
        .flat_map(|image| &image.references)
        .flat_map(|name| [name.familiar(), name.familiar_name()])
        .collect();
    near(mistyped, names.iter().map(String::as_str)).map(str::to_owned)
}

fn create_container(
    engine: &Engine,
    parsed: &Parsed,
    request: CreateRequest,
) -> Result<(ContainerRecord, Lease), Failure> {
    let file = parsed.filled("cidfile");
    if let Some(file) = &file
        && Path::new(file).exists()
    {
        return Err(Failure::new(
            exit::USAGE,
            format!("container ID file found, make sure the other container isn't running or delete {file}"),
        ));
    }
    let (record, lease) = create_pulling(engine, parsed, request)?;
    if let Some(file) = file {
        let write = || std::fs::File::create_new(&file)?.write_all(record.id.as_str().as_bytes());
        if let Err(error) = write() {
            let _ = engine.remove(&record.id, true, true);
            return Err(Failure::new(exit::USAGE, format!("write the container ID to {file}: {error}")));
        }
    }
    Ok((record, lease))
}

/// Creates a container; an image that is not here is pulled, as `--pull` says.
fn create_pulling(
    engine: &Engine,
    parsed: &Parsed,
    request: CreateRequest,
) -> Result<(ContainerRecord, Lease), Failure> {
    let (image, policy) = (request.image.clone(), policy(parsed)?);
    let missing = |error: &EngineError| match error {
        EngineError::Image(ImageError::NotFound(_)) => {
            Images::open(&engine.paths).is_ok_and(|images| images.resolve(&image).is_err())
        }
        _ => false,
    };
    let first = match policy {
        Policy::Always if !image.is_empty() => None,
        _ => Some(engine.create(request)),
    };
    let near = match first {
        Some(Err(error)) if missing(&error) && policy == Policy::Never => {
            let hint = match near_image(engine, &image) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("'bulkhead pull {image}' pulls it"),
            };
            return Err(of_run(&error).hint(hint));
        }
        Some(Err(error)) if missing(&error) => near_image(engine, &image),
        Some(other) => return other.map_err(|error| of_run(&error)),
        None => None,
    };
    let said = |failure: Failure| {
        let failure = if failure.is_interruption() { failure } else { failure.code(exit::USAGE) };
        match &near {
            Some(near) => failure.hint(format!("did you mean '{near}'?")),
            None => failure,
        }
    };
    let quiet = parsed.switch("quiet")?;
    if policy != Policy::Always && !quiet {
        talk(format!("Unable to find image '{image}' locally\n"));
    }
    let name = crate::cli::image::reference(&image).map_err(said)?;
    let platform = crate::cli::registry::platform(parsed)?;
    pull_now(engine, &name, &platform, quiet).map_err(said)?;
    engine.create(request_of(parsed)?).map_err(|error| of_run(&error))
}

/// `create`.
pub(super) fn create(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let request = request_of(&parsed)?;
    let engine = context.engine()?;
    let (record, _lease) = create_container(&engine, &parsed, request)?;
    out(format!("{}\n", record.id))?;
    Ok(0)
}

/// `run`.
pub(super) fn run(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let request = request_of(&parsed)?;
    let detach = parsed.switch("detach")?;
    if detach && parsed.given("attach") {
        return Err(parsed.conflict("conflicting options: cannot specify both --attach and --detach"));
    }
    let attachment = streams(&parsed, &request)?;
    if !detach {
        require_terminal(attachment.stdin, attachment.tty)?;
    }
    let engine = context.engine().map_err(|failure| failure.code(exit::USAGE))?;
    let (record, lease) = create_container(&engine, &parsed, request)?;
    let id = record.id.clone();
    // Taken before the start, so that a signal that comes meanwhile reaches the container.
    let signals = if detach { None } else { Some(Signals::take()?) };
    let attach =
        (!detach).then_some(AttachRequest { stdin: attachment.stdin, output: attachment.show != [false, false] });
    let size = if attachment.tty { window_size() } else { None };
    let started = engine.start_created(record, &mut || context.launch(), attach, size).map_err(|error| {
        // It never ran: nothing of it stays, so that the same line can be given again.
        if let Err(error) = engine.remove(&id, true, true) {
            complain(&Failure::from(error));
        }
        if let Some(file) = parsed.filled("cidfile") {
            let _ = std::fs::remove_file(file);
        }
        of_run(&error)
    })?;
    // The shim answers for the container from here on.
    drop(lease);
    warn(&started.warnings);
    match signals {
        None => {
            out(format!("{id}\n"))?;
            Ok(0)
        }
        Some(signals) => follow(started, attachment, &signals, Some((&engine, &id))),
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        talk(format!("WARNING: {warning}\n"));
    }
}

/// Passes the terminal's wishes to a shim.
struct Shim<'a>(&'a mut Client);

impl Remote for Shim<'_> {
    // A container that has just ended cannot be resized or signalled; its end comes over the stream.
    fn resize(&mut self, rows: u16, columns: u16) {
        let _ = self.0.resize(rows, columns);
    }
    fn signal(&mut self, number: i32) {
        let _ = self.0.signal(number);
    }
}

/// Copies until the container ends or the user leaves it; returns the exit code of `run`. Whoever started the
/// container also takes down what it held.
fn follow(
    started: Started,
    attachment: Attachment,
    signals: &Signals,
    started_by_us: Option<(&Engine, &ContainerId)>,
) -> Outcome {
    let Started { stream, mut client, .. } = started;
    let Some(stream) = stream else { return wait_for(&mut client) };
    let ending = session(stream.as_fd(), Framing::Frames, attachment).copy(signals, &mut Shim(&mut client))?;
    match ending {
        Ending::Exited(code) => {
            if let Some((engine, id)) = started_by_us {
                engine.end(id, &mut client)?;
            }
            Ok(code_byte(code))
        }
        Ending::Detached => {
            talk("\nread escape sequence\n");
            Ok(0)
        }
        Ending::Interrupted(number) => Ok(code_byte(128 + number)),
        Ending::Unheeded(number) => {
            talk(format!(
                "\nthe container does not heed {}: as PID 1 it needs a handler, or --init; it runs on, 'bulkhead stop' ends it\n",
                signal_name(number)
            ));
            Ok(code_byte(128 + number))
        }
        Ending::Closed => wait_for(&mut client),
    }
}

fn session(stream: BorrowedFd<'_>, framing: Framing, attachment: Attachment) -> Session<'_> {
    Session {
        stream,
        framing,
        stdin: attachment.stdin,
        tty: attachment.tty,
        forward_signals: attachment.forward_signals,
        keys: attachment.keys,
        show: attachment.show,
        urged: 0,
    }
}

fn wait_for(client: &mut Client) -> Outcome {
    client.wait().map(code_byte).map_err(|error| Failure::from_error(exit::USAGE, &error))
}

/// Returns an exit code as the system takes it.
pub(in crate::cli) fn code_byte(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// `start`.
pub(super) fn start(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let stdin = parsed.switch("interactive")?;
    let attached = stdin || parsed.switch("attach")?;
    let all = parsed.switch("all")?;
    if all && (attached || !parsed.arguments.is_empty()) {
        return Err(parsed.conflict("conflicting options: --all goes without names and without --attach"));
    }
    if !all {
        parsed.require_arguments(1)?;
    }
    let engine = context.engine()?;
    let names = match all {
        true => engine.due()?.into_iter().map(|container| container.record.name).collect(),
        false => parsed.arguments.clone(),
    };
    if !attached {
        return each(&names, |name| {
            let id = engine.find(name)?;
            match engine.start(&id, &mut || context.launch(), None, None) {
                Ok(started) => warn(&started.warnings),
                // Docker starts what runs already without a word.
                Err(EngineError::Status { .. }) if engine.observe(&id)?.state.status == Status::Running => {}
                Err(error) => return Err(error.into()),
            }
            Ok(out(format!("{name}\n"))?)
        });
    }
    let [name] = &parsed.arguments[..] else {
        return Err(Failure::failed("you cannot start and attach multiple containers at once"));
    };
    let id = engine.find(name)?;
    let record = engine.record(&id)?;
    let (tty, stdin) = (record.request.tty, stdin && record.request.stdin_open);
    require_terminal(stdin, tty)?;
    let signals = Signals::take()?;
    let size = if tty { window_size() } else { None };
    let attach = Some(AttachRequest { stdin, output: true });
    let started = engine.start(&id, &mut || context.launch(), attach, size).map_err(|error| of_run(&error))?;
    warn(&started.warnings);
    let forward_signals = proxy(&parsed)?;
    follow(
        started,
        Attachment { stdin, show: [true, true], tty, keys: detach_keys(&parsed)?, forward_signals },
        &signals,
        Some((&engine, &id)),
    )
}

/// `attach`.
pub(super) fn attach(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let engine = context.engine()?;
    let id = engine.find(&parsed.arguments[0])?;
    let container = engine.observe(&id)?;
    match container.state.status {
        Status::Running => {}
        Status::Paused => return Err(Failure::failed("you cannot attach to a paused container, unpause it first")),
        Status::Restarting => {
            return Err(Failure::failed("you cannot attach to a restarting container, wait until it is running"));
        }
        _ => return Err(Failure::failed("you cannot attach to a stopped container, start it first")),
    }
    let request = &container.record.request;
    let (tty, stdin) = (request.tty, request.stdin_open && !parsed.switch("no-stdin")?);
    require_terminal(stdin, tty)?;
    let signals = Signals::take()?;
    let mut client = engine.client(&id)?;
    let stream = client.attach(stdin, true).map_err(|error| Failure::from_error(exit::FAILED, &error))?;
    let attachment =
        Attachment { stdin, show: [true, true], tty, keys: detach_keys(&parsed)?, forward_signals: proxy(&parsed)? };
    follow(Started { stream: Some(stream), client, warnings: Vec::new() }, attachment, &signals, None)
}
