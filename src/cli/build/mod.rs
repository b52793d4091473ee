//! `build`: flags, the run of the builder, and its failures shown with the Dockerfile's lines.

mod cache;
mod commit;
mod given;
mod live;
mod plain;

use super::container::{parse_add_host, parse_label, parse_network, parse_volume};
use super::context::{Context, NO_IMAGE, out, talk};
use super::error::{Failure, Outcome, clean, exit};
use super::flags::{Flags, Parsed, list, switch, value};
use super::image::reference;
use super::registry::{self, pull_shown};
use super::terminal::{Signals, stderr_columns, stderr_has_colour};
use super::verbs::Verb;
use crate::build::{self, BuildCache, BuildError, BuildEvent, BuildRequest, Settings, StepError};
use crate::engine::request::MountRequest;
use crate::engine::{Engine, EngineError, StepOptions};
use crate::image::ImageError;
use crate::oci::{Platform, Reference};
use live::Live;
use plain::Plain;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

/// Largest Dockerfile on stdin, bytes.
const MAX_STDIN: u64 = 16 << 20;

/// The verbs of this directory.
pub(super) static VERBS: &[Verb] = &[
    Verb {
        names: &["build", "image build", "builder build"],
        usage: "build [OPTIONS] PATH | -",
        about: "Build an image from a Dockerfile",
        count: (1, 1),
        interspersed: true,
        flags,
        run,
    },
    Verb {
        names: &["commit", "container commit"],
        usage: "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        about: "Create a new image from a container's changes",
        count: (1, 2),
        interspersed: true,
        flags: commit::flags,
        run: commit::run,
    },
    Verb {
        names: &["builder prune"],
        usage: "builder prune [OPTIONS]",
        about: "Remove build cache",
        count: (0, 0),
        interspersed: true,
        flags: cache::prune_flags,
        run: cache::prune,
    },
    Verb {
        names: &["builder du"],
        usage: "builder du [OPTIONS]",
        about: "Show what the build cache holds",
        count: (0, 0),
        interspersed: true,
        flags: cache::du_flags,
        run: cache::du,
    },
];

fn flags(flags: Flags) -> Flags {
    flags
        .arg(list("add-host", "Add a custom host-to-IP mapping (host:ip)"))
        .arg(list("build-arg", "Set build-time variables"))
        .arg(value("file", "string", "Name of the Dockerfile (default: PATH/Dockerfile)").short('f'))
        .arg(value("iidfile", "string", "Write the image ID to a file"))
        .arg(list("label", "Set metadata for an image"))
        .arg(value("network", "string", "Network of RUN instructions (default|none|host)").alias("net"))
        .arg(switch("no-cache", "Do not use cache when building the image"))
        .arg(value("platform", "string", "Set target platform for build"))
        .arg(value("progress", "string", "Set type of progress output (auto|plain|tty|quiet)"))
        .arg(switch("pull", "Always attempt to pull all referenced images"))
        .arg(switch("quiet", "Suppress the build output and print image ID on success").short('q'))
        .arg(list("secret", "Secret to expose to the build (format: id=mysecret[,src=/local/secret][,env=NAME])"))
        .arg(list("ssh", "SSH agent socket to expose to the build (format: default|<id>[=<socket>])"))
        .arg(list("tag", "Name and optionally a tag (format: name:tag)").short('t'))
        .arg(value("target", "string", "Set the target build stage to build"))
        .arg(
            list(
                "volume",
                "Bind a host path into every RUN (SRC:DST[:ro]); it is in no layer and no cache key (not in Docker)",
            )
            .short('v'),
        )
}

/// What is shown while the build runs.
enum Progress {
    Quiet,
    Plain(Plain<std::io::Stderr>),
    Live(Live<std::io::Stderr>),
}

impl Progress {
    fn of(parsed: &Parsed) -> Result<Self, Failure> {
        let stderr = std::io::stderr;
        let live = || Self::Live(Live::new(stderr(), stderr_has_colour(), stderr_columns));
        let plain = || Self::Plain(Plain::new(stderr()));
        if parsed.switch("quiet")? {
            return Ok(Self::Quiet);
        }
        match parsed.text("progress").unwrap_or("auto") {
            "auto" | "" if stderr().is_terminal() => Ok(live()),
            "auto" | "" | "plain" => Ok(plain()),
            "tty" => Ok(live()),
            "quiet" => Ok(Self::Quiet),
            other => Err(parsed.invalid("progress", other, "it is auto, plain, tty or quiet")),
        }
    }

    fn event(&mut self, event: BuildEvent<'_>) {
        let now = Instant::now();
        // Progress that cannot be written is no reason to stop.
        let _ = match self {
            Self::Quiet => Ok(()),
            Self::Plain(plain) => plain.event(event, now),
            Self::Live(live) => live.event(event, now),
        };
    }

    /// Tells whether the output of steps has been shown in full.
    fn shows_output(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn finish(&mut self) {
        if let Self::Live(live) = self {
            let _ = live.erase();
        }
    }
}

/// Looks up what `--build-arg NAME` leaves open.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn request(parsed: &Parsed) -> Result<BuildRequest, Failure> {
    let host = Platform::host();
    let mut settings = Settings { platform: host.clone(), build_platform: host, ..Settings::default() };
    settings.target = parsed.filled("target");
    settings.labels = parsed.read_all("label", |text| parse_label(text).map(|pair| vec![pair]))?;
    for text in parsed.all("build-arg") {
        match text.split_once('=') {
            Some(("", _)) => return Err(parsed.invalid("build-arg", text, "the name is empty")),
            Some((name, value)) => settings.build_args.push((name.to_owned(), value.to_owned())),
            // Without a value, that of our environment, or none.
            None => settings.build_args.extend(variable(text).map(|value| (text.to_owned(), value))),
        }
    }
    let epoch = "SOURCE_DATE_EPOCH";
    if !settings.build_args.iter().any(|(name, _)| name == epoch)
        && let Some(value) = variable(epoch)
    {
        settings.build_args.push((epoch.to_owned(), value));
    }
    if let Some(text) = parsed.filled("platform") {
        settings.platform = settings
            .platform_named(&text)
            .ok_or_else(|| parsed.invalid("platform", &text, "it is written os/architecture[/variant]"))?;
    }
    let tags: Vec<String> = parsed.all("tag").map(str::to_owned).collect();
    for tag in &tags {
        reference(tag)?;
    }
    Ok(BuildRequest { settings, tags, no_cache: parsed.switch("no-cache")?, parallel: 0 })
}

fn options(parsed: &Parsed, request: &BuildRequest) -> Result<StepOptions, Failure> {
    let absolute = |text: &str| std::path::absolute(text).unwrap_or_else(|_| text.into());
    let epoch = request.settings.build_args.iter().find(|(name, _)| name == "SOURCE_DATE_EPOCH");
    let epoch = match epoch {
        Some((_, text)) if !text.is_empty() => {
            let seconds = text.parse().map_err(|_| {
                Failure::new(exit::USAGE, format!("SOURCE_DATE_EPOCH={text}: not a number of seconds since 1970"))
            })?;
            Some(seconds)
        }
        _ => None,
    };
    let mounts: Vec<MountRequest> =
        parsed.read_all("volume", |text| parse_volume(text, &absolute).map(|mount| vec![mount]))?;
    if mounts.iter().any(|mount| !matches!(mount, MountRequest::Bind { .. })) {
        return Err(parsed.conflict("-v of a build takes paths of the host: -v /SRC:/DST[:ro]"));
    }
    let mut options = StepOptions {
        network: parsed.read("network", parse_network)?.unwrap_or_default(),
        extra_hosts: parsed.read_all("add-host", |text| parse_add_host(text).map(|pair| vec![pair]))?,
        mounts,
        source_date_epoch: epoch,
        ..StepOptions::default()
    };
    given::read(parsed, &mut options)?;
    Ok(options)
}

/// Opens the context that the argument and `-f` name.
fn open(engine: &Engine, parsed: &Parsed) -> Result<build::Context, Failure> {
    let cache = engine.paths.root.join("build/cache");
    let place = parsed.arguments[0].as_str();
    let remote = ["http://", "https://", "git://", "git@", "ssh://"].iter().any(|start| place.starts_with(start));
    if remote && !Path::new(place).exists() {
        return Err(Failure::failed(format!("{place}: a context is a directory of this machine"))
            .hint("clone or download it, and give the directory"));
    }
    let file = parsed.filled("file");
    let opened = match (place, file.as_deref()) {
        ("-", None | Some("-")) => {
            let empty = engine.empty_directory()?;
            build::Context::with_dockerfile(&empty, dockerfile_on_stdin()?, &cache)
        }
        ("-", Some(_)) => {
            return Err(Failure::failed("an archive on stdin is not taken as context")
                .hint("unpack it, and give the directory"));
        }
        (place, Some("-")) => build::Context::with_dockerfile(Path::new(place), dockerfile_on_stdin()?, &cache),
        (place, file) => build::Context::open(Path::new(place), file.map(Path::new), &cache),
    };
    opened.map_err(|error| Failure::from_error(exit::FAILED, &error))
}

fn dockerfile_on_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_STDIN).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| {
        Failure::failed("what stands on stdin is no text, so it is no Dockerfile")
            .hint("an archive is not taken as context: unpack it, and give the directory")
    })
}

/// `build`.
fn run(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let request = request(&parsed)?;
    let options = options(&parsed, &request)?;
    let mut progress = Progress::of(&parsed)?;
    let engine = context.engine()?;
    let files = open(&engine, &parsed)?;
    let signals = Signals::take_endings()?;
    let mut launch = || context.launch();
    let quiet = matches!(progress, Progress::Quiet);
    let fetch = |name: &Reference, platform: &Platform| {
        pull_shown(&engine, name, platform, quiet, Some(signals.as_fd())).map(drop)
    };
    let builder = engine.builder(&mut launch, options, Some(signals.as_fd()))?.pulling(&fetch, parsed.switch("pull")?);
    let cache = BuildCache::new(&engine.paths.root.join("build/cache"));
    let result = build::build(&builder, &files, &cache, &request, &mut |event| progress.event(event));
    drop(builder);
    progress.finish();
    if let Err(error) = build::trim(&engine, &cache) {
        talk(format!("warning: the build cache could not be brought down to its limit: {error}\n"));
    }
    let built = match result {
        Ok(built) => built,
        Err(error) if was_interrupted(&error) => {
            let number = signals.number().unwrap_or(2);
            return Err(Failure::new(super::container::code_byte(128 + number), "the build was interrupted"));
        }
        Err(error) => return Err(failed(&error, &files, progress.shows_output())),
    };
    if let Some(path) = parsed.filled("iidfile") {
        let write = || -> std::io::Result<()> {
            std::io::Write::write_all(&mut std::fs::File::create(&path)?, built.image.as_str().as_bytes())
        };
        write().map_err(|error| Failure::failed(format!("write the image ID to {path}: {error}")))?;
    }
    if matches!(progress, Progress::Quiet) {
        out(format!("{}\n", built.image))?;
    }
    Ok(0)
}

fn was_interrupted(error: &BuildError<EngineError>) -> bool {
    matches!(
        error,
        BuildError::Step { source: StepError::Host(EngineError::Interrupted), .. }
            | BuildError::Image { source: EngineError::Interrupted, .. }
            | BuildError::Host(EngineError::Interrupted)
    )
}

/// Shows the end of the failed command's output and the lines of the Dockerfile, and returns what is said last.
fn failed(error: &BuildError<EngineError>, files: &build::Context, output_shown: bool) -> Failure {
    if let (BuildError::Failed { title, tail, .. }, false) = (error, output_shown) {
        let lines: String = tail.lines().map(|line| format!("{}\n", plain::visible(line.as_bytes()))).collect();
        talk(format!("------\n > {}:\n{lines}------\n", clean(title)));
    }
    if let (Some(lines), Some(excerpt)) = (error.lines(), error.excerpt(&files.dockerfile)) {
        let name = files.dockerfile_path.file_name().unwrap_or_default().to_string_lossy();
        talk(format!("{name}:{}\n{excerpt}\n", lines.first));
    }
    let failure = Failure::from_error(exit::FAILED, error);
    match (error.hint(), error) {
        (Some(hint), _) => failure.hint(hint),
        (None, BuildError::Image { source: EngineError::Image(ImageError::NotFound(_)), .. }) => failure.hint(NO_IMAGE),
        (None, BuildError::Image { source: EngineError::Image(ImageError::Registry(error)), .. }) => {
            registry::with_hint(failure, error)
        }
        _ => failure,
    }
}
