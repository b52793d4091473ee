//! `build`: flags, the run of the builder, and its failures shown with the Dockerfile's lines.

mod attest;
mod cache;
mod caches;
mod check;
mod commit;
mod explain;
mod given;
mod live;
mod output;
mod place;
mod plain;
mod progress;
mod raw;

use super::container::{parse_add_host, parse_label, parse_network, parse_volume};
use super::context::{Context, NO_IMAGE, out, talk};
use super::error::{Failure, Outcome, clean, exit};
use super::flags::{Flags, Parsed, list, switch, value};
use super::image::reference;
use super::registry::{self, pull_shown};
use super::terminal::Signals;
use super::verbs::Verb;
use crate::base::{Digest, Timestamp};
use crate::build::{self, BuildCache, BuildError, BuildRequest, Built, Settings, StepError};
use crate::engine::request::MountRequest;
use crate::engine::{EngineError, StepOptions};
use crate::image::registry::RegistryError;
use crate::image::{ImageError, Images};
use crate::oci::{Platform, Reference};
use caches::CacheTarget;
use explain::Explanation;
use output::Output;
use progress::Progress;
use std::os::fd::AsFd;

/// The verbs of this directory.
pub(super) static VERBS: &[Verb] = &[
    Verb {
        names: &["build", "image build", "builder build"],
        usage: "build [OPTIONS] PATH | URL | -",
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
        .arg(list("allow", "Allow extra privileges (security.insecure, where the operator's settings do)"))
        .arg(list("annotation", "Add annotation to the image's manifest"))
        .arg(list("attest", "Attest something of the image, as --provenance and --sbom do (type=provenance[,mode=min|max]; type=sbom)"))
        .arg(list(
            "build-context",
            "Additional build contexts (name=path, name=docker-image://image, name=oci-layout://path[:tag|@digest], name=URL of an archive or a repository)",
        ))
        .arg(list("build-arg", "Set build-time variables"))
        .arg(list(
            "cache-from",
            "Take steps from caches you trust, for what they say of a step is believed (type=registry,ref=NAME; \
             type=local,src=DIR; or NAME: an image here, else on its registry)",
        ))
        .arg(list(
            "cache-to",
            "Give the steps out as a cache: of the target, or mode=max of all stages (type=registry,ref=NAME[,mode=min|max]; \
             type=local,dest=DIR[,mode=min|max]; type=inline: in the image itself)",
        ))
        .arg(value("call", "string", "Set method for evaluating build (build|check)"))
        .arg(switch("check", "Look for mistakes in the Dockerfile, and build nothing"))
        .arg(switch("explain", "Say of each step which file, variable or parent made it necessary (not in Docker)"))
        .arg(value("file", "string", "Name or URL of the Dockerfile (default: PATH/Dockerfile)").short('f'))
        .arg(value("format", "string", "Format of --check and --explain (text|json)"))
        .arg(value("iidfile", "string", "Write the image ID to a file"))
        .arg(list("label", "Set metadata for an image"))
        .arg(switch("load", "Keep the image here (as --output=type=docker); so it is without --output anyway"))
        .arg(value("metadata-file", "string", "Write build result metadata to a file"))
        .arg(value("network", "string", "Network of RUN instructions (default|none|host)").alias("net"))
        .arg(switch("no-cache", "Do not use cache when building the image"))
        .arg(list("no-cache-filter", "Do not cache specified stages"))
        .arg(
            list("output", "Output destination (type=image|registry|docker|oci|tar|local|cacheonly,dest=PATH; DIR; -)")
                .short('o'),
        )
        .arg(value("platform", "string", "Set target platform for build"))
        .arg(value("progress", "string", "Set type of progress output (auto|plain|tty|rawjson|quiet)"))
        .arg(value("provenance", "string", "Attest how what is pushed, archived or written as files was made (mode=min|max[,builder-id=URI]; max tells build arguments)"))
        .arg(switch("pull", "Always attempt to pull all referenced images"))
        .arg(switch(
            "push",
            "Push the image to the registries of its names (as --output=type=registry); it stays here, too",
        ))
        .arg(switch("quiet", "Suppress the build output and print image ID on success").short('q'))
        .arg(switch(
            "rewrite-timestamp",
            "Say that everything was made at SOURCE_DATE_EPOCH, or in 1970 (not in Docker)",
        ))
        .arg(value("sbom", "string", "Attest what packages are in what is pushed, archived or written as files (deb, apk, Python, Node; as SPDX)"))
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

/// Looks up what `--build-arg NAME` leaves open.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn request(parsed: &Parsed, outputs: &[Output]) -> Result<BuildRequest, Failure> {
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
    let variable_name = "SOURCE_DATE_EPOCH";
    if !settings.build_args.iter().any(|(name, _)| name == variable_name)
        && let Some(value) = variable(variable_name)
    {
        settings.build_args.push((variable_name.to_owned(), value));
    }
    if let Some(text) = parsed.filled("platform") {
        settings.platform = settings
            .platform_named(&text)
            .ok_or_else(|| parsed.invalid("platform", &text, "it is written os/architecture[/variant]"))?;
    }
    let mut tags: Vec<String> = parsed.all("tag").map(str::to_owned).collect();
    tags.extend(outputs.iter().filter(|output| output.keeps_image()).flat_map(Output::names).cloned());
    for tag in &tags {
        reference(tag)?;
    }
    let epoch = epoch(parsed, &settings)?;
    // Without an image to keep, names are those of the archive alone.
    let keeps = outputs.iter().any(Output::keeps_image);
    Ok(BuildRequest {
        settings,
        no_cache: parsed.switch("no-cache")?,
        no_cache_stages: parsed.all("no-cache-filter").flat_map(|text| text.split(',')).map(str::to_owned).collect(),
        explain: parsed.switch("explain")?,
        epoch,
        image: outputs.iter().any(Output::needs_image),
        annotations: parsed.read_all("annotation", annotation)?.into_iter().collect(),
        inline: false,
        parallel: 0,
        tags: if keeps { tags } else { Vec::new() },
    })
}

/// When everything is said to have been made: `SOURCE_DATE_EPOCH`, or 1970 with `--rewrite-timestamp`.
fn epoch(parsed: &Parsed, settings: &Settings) -> Result<Option<i64>, Failure> {
    let given = settings.build_args.iter().rev().find(|(name, _)| name == "SOURCE_DATE_EPOCH");
    match given.map(|(_, text)| text.as_str()).filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map(Some).map_err(|_| {
            Failure::new(exit::USAGE, format!("SOURCE_DATE_EPOCH={text}: not a number of seconds since 1970"))
        }),
        None => Ok(parsed.switch("rewrite-timestamp")?.then_some(0)),
    }
}

/// Reads an annotation: `[manifest:]KEY=VALUE`.
fn annotation(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let bare = text.strip_prefix("manifest:").unwrap_or(text);
    match bare.split_once('=') {
        Some((key, _)) if key.starts_with("index:") || key.starts_with("manifest-descriptor:") => {
            Err("only a manifest is made, and no index: [manifest:]KEY=VALUE")
        }
        Some((key, value)) if !key.is_empty() => Ok(vec![(key.to_owned(), value.to_owned())]),
        _ => Err("it is written [manifest:]KEY=VALUE"),
    }
}

fn options(parsed: &Parsed, request: &BuildRequest) -> Result<StepOptions, Failure> {
    let absolute = |text: &str| std::path::absolute(text).unwrap_or_else(|_| text.into());
    let mounts: Vec<MountRequest> =
        parsed.read_all("volume", |text| parse_volume(text, &absolute).map(|mount| vec![mount]))?;
    if mounts.iter().any(|mount| !matches!(mount, MountRequest::Bind { .. })) {
        return Err(parsed.conflict("-v of a build takes paths of the host: -v /SRC:/DST[:ro]"));
    }
    let mut options = StepOptions {
        network: parsed.read("network", parse_network)?.unwrap_or_default(),
        extra_hosts: parsed.read_all("add-host", |text| parse_add_host(text).map(|pair| vec![pair]))?,
        mounts,
        source_date_epoch: request.epoch,
        ..StepOptions::default()
    };
    given::read(parsed, &mut options)?;
    Ok(options)
}

/// `build`.
fn run(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let outputs = Output::all(&parsed)?;
    let mut request = request(&parsed, &outputs)?;
    let push = outputs.iter().find_map(Output::pushes);
    if push.is_some() && request.tags.is_empty() {
        return Err(parsed.conflict("what is pushed needs a name: -t REGISTRY/NAME:TAG"));
    }
    let caches = caches::targets(&parsed, &outputs)?;
    let wishes = attest::wishes(&parsed, &outputs)?;
    request.inline = caches.contains(&CacheTarget::Inline);
    let sources = caches::sources(&parsed)?;
    let options = options(&parsed, &request)?;
    let mut progress = Progress::of(&parsed)?;
    let engine = context.engine()?;
    let mut place = place::open(&engine, &parsed)?;
    request.settings.insecure = given::insecure(&parsed, &engine)?;
    request.settings.contexts = given::contexts(&parsed, &engine, &mut place)?;
    let files = &place.files;
    let format = parsed.text("format").filter(|format| !format.is_empty());
    match parsed.text("call").unwrap_or_default() {
        _ if parsed.switch("check")? => return check::run(context, files, &request.settings, format),
        "check" | "lint" => return check::run(context, files, &request.settings, format),
        "" | "build" => {}
        other => return Err(parsed.invalid("call", other, "it is build or check")),
    }
    let json = match format {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(parsed.invalid("format", other, "it is text or json")),
    };
    let tags: Vec<String> = parsed.all("tag").map(str::to_owned).collect();
    let report = check::before_build(context, files, &request.settings)?;
    let signals = Signals::take_endings()?;
    let mut launch = || context.launch();
    let quiet = progress.is_quiet();
    let fetch = |name: &Reference, platform: &Platform| {
        pull_shown(&engine, name, platform, quiet, Some(signals.as_fd())).map(drop)
    };
    let cache = BuildCache::new(&engine.paths.root.join("build/cache"));
    let known = if outputs.iter().any(Output::keeps_image) { None } else { Some(images_before(context)?) };
    let builder = engine.builder(&mut launch, options, Some(signals.as_fd()))?;
    let builder = builder.pulling(&fetch, parsed.switch("pull")?).importing(sources).with_layouts(&place.layouts);
    let mut explanation = Explanation::default();
    let began = Timestamp::now();
    let result = progress.during(|show| {
        build::build(&builder, files, &cache, &request, &mut |event| {
            explanation.event(&event);
            show(event);
        })
    });
    let mut said = Vec::new();
    let written = result.as_ref().map_or(Ok(()), |built| {
        said = attest::said(&wishes, (&request, built), (&place, &builder), began)?;
        outputs.iter().try_for_each(|output| output.write(context, (&builder, built), &tags, &said, request.epoch))
    });
    progress.finish();
    // While the builder lives, so that nobody collects the layers.
    let exported = match (&result, &written) {
        (Ok(built), Ok(())) => caches.iter().try_for_each(|to| to.write(&engine, &built.stages, quiet)),
        _ => Ok(()),
    };
    drop(builder);
    if request.explain {
        explanation.write(json)?;
    }
    if let (Ok(built), Some(known)) = (&result, known) {
        output::forget(&engine, &cache, built, built.image.as_ref().is_some_and(|id| known.contains(id)))?;
    }
    if let Err(error) = build::trim(&engine, &cache) {
        talk(format!("warning: the build cache could not be brought down to its limit: {error}\n"));
    }
    let built = match result {
        Ok(built) => built,
        Err(error) if was_interrupted(&error) => {
            let number = signals.number().unwrap_or(2);
            return Err(Failure::new(super::container::code_byte(128 + number), "the build was interrupted"));
        }
        Err(error) => return Err(failed(&error, files, progress.shows_output())),
    };
    written?;
    exported?;
    let mut pushed = None;
    if let Some(format) = push {
        for name in &request.tags {
            pushed = Some(registry::push_now(&engine, &reference(name)?, (format, &said), quiet)?.digest);
        }
    }
    write_ids(context, &parsed, &built, &tags, pushed.as_ref())?;
    if !progress.is_quiet() {
        check::after_build(&report, &mut progress);
    } else if let (Some(image), false) = (&built.image, outputs.iter().any(Output::is_stdout)) {
        out(format!("{image}\n"))?;
    }
    Ok(0)
}

/// Ids of the images that are there.
fn images_before(context: &Context<'_>) -> Result<Vec<Digest>, Failure> {
    Ok(Images::open(context.paths())?.list()?.into_iter().map(|image| image.id).collect())
}

/// `--iidfile` and `--metadata-file`.
fn write_ids(
    context: &Context<'_>,
    parsed: &Parsed,
    built: &Built,
    tags: &[String],
    pushed: Option<&Digest>,
) -> Result<(), Failure> {
    let write = |path: &str, what: &str, text: &[u8]| {
        let result = std::fs::File::create(path).and_then(|mut file| std::io::Write::write_all(&mut file, text));
        result.map_err(|error| Failure::failed(format!("write the {what} to {path}: {error}")))
    };
    if let (Some(path), Some(image)) = (parsed.filled("iidfile"), &built.image) {
        write(&path, "image ID", image.as_str().as_bytes())?;
    }
    if let Some(path) = parsed.filled("metadata-file") {
        let mut metadata = serde_json::Map::new();
        if let Some(id) = &built.image {
            // An image that only an archive was made of is gone by now; its config's digest is what there is.
            let image = Images::open(context.paths())?.resolve(id.as_str()).ok();
            metadata.insert("containerimage.config.digest".into(), id.as_str().into());
            if let Some(image) = image {
                let digest = pushed.unwrap_or(&image.manifest);
                metadata.insert("containerimage.digest".into(), digest.as_str().into());
            }
            if !tags.is_empty() {
                let names: Vec<String> = tags.iter().map(|tag| plain::complete(tag)).collect();
                metadata.insert("image.name".into(), names.join(",").into());
            }
        }
        write(&path, "metadata", format!("{:#}\n", serde_json::Value::Object(metadata)).as_bytes())?;
    }
    Ok(())
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
        (None, BuildError::Step { source: StepError::Host(EngineError::NoRepositoryAgent(_)), .. }) => {
            failure.hint("give the build an agent: --ssh default")
        }
        (None, BuildError::Step { source: StepError::Host(EngineError::Image(ImageError::Registry(error))), .. }) => {
            match error {
                RegistryError::Own { .. } => failure.hint("--network host lets the build fetch from this machine"),
                RegistryError::Tls { .. } => {
                    failure.hint("the variable SSL_CERT_FILE names the certificates that count")
                }
                RegistryError::Resolve { .. } | RegistryError::Connect { .. } => {
                    failure.hint("check the address and the network; HTTPS_PROXY and HTTP_PROXY name proxies")
                }
                _ => failure,
            }
        }
        (None, BuildError::Image { source: EngineError::Image(ImageError::Registry(error)), .. }) => {
            registry::with_hint(failure, error)
        }
        _ => failure,
    }
}
