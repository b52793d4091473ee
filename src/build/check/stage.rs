//! Rules about what instructions mean: variables, platforms, values.

use super::{Finding, Rule};
use crate::build::dockerfile::{
    CommandLine, Copy, CopySource, Dockerfile, Instruction, LineRange, Mode, Stage, Statement, expand,
};
use crate::build::glob::clean;
use crate::build::graph::Settings;
use crate::build::ignore::{Ignore, Inherited};
use crate::oci::Reference;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Parts of names that say that a value is secret.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Parts of names that say that it is not.
const OPEN: [&str; 3] = ["public", "file", "version"];
/// Variables that are there before the first `FROM`.
const PLATFORM: [&str; 9] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETSTAGE",
];

/// What is known at some point of a stage.
#[derive(Clone, Debug)]
struct Scope {
    /// Names of variables.
    names: BTreeSet<String>,
    /// The base image could not be looked at: it may define anything.
    open: bool,
    workdir: bool,
    shell: bool,
}

pub(super) fn look(
    file: &Dockerfile,
    settings: &Settings,
    ignore: &Ignore,
    environment: &mut dyn FnMut(&str) -> Option<Vec<String>>,
    found: &mut Vec<Finding>,
) {
    let globals = globals(file, settings, found);
    let mut scopes: BTreeMap<String, Scope> = BTreeMap::new();
    for stage in &file.stages {
        let image = from(file, stage, &globals, settings, found);
        let mut scope = match scopes.get(&image.to_lowercase()) {
            Some(base) => base.clone(),
            None => {
                let set = if image == "scratch" { Some(Vec::new()) } else { environment(&image) };
                let open = set.is_none();
                let names = set.into_iter().flatten().filter_map(|entry| Some(entry.split_once('=')?.0.to_owned()));
                let names = names.chain(["PATH".to_owned()]).collect();
                Scope { names, open, workdir: false, shell: false }
            }
        };
        let mut seen = BTreeMap::new();
        for statement in &stage.statements {
            once(statement, &mut seen, found);
            instruction(file, statement, ignore, &mut scope, found);
        }
        if let Some(name) = &stage.from.name {
            scopes.insert(name.clone(), scope);
        }
    }
}

/// The arguments before the first `FROM`: with what is given, and with their defaults alone.
struct Globals {
    given: BTreeMap<String, String>,
    default: BTreeMap<String, String>,
}

fn globals(file: &Dockerfile, settings: &Settings, found: &mut Vec<Finding>) -> Globals {
    let platforms = [("TARGET", &settings.platform), ("BUILD", &settings.build_platform)];
    let mut default: BTreeMap<String, String> =
        PLATFORM.iter().map(|name| ((*name).to_owned(), String::new())).collect();
    for (prefix, platform) in platforms {
        default.insert(format!("{prefix}PLATFORM"), platform.to_string());
        default.insert(format!("{prefix}OS"), platform.os.clone());
        default.insert(format!("{prefix}ARCH"), platform.architecture.clone());
    }
    let mut given = default.clone();
    for statement in &file.global_args {
        let Instruction::Arg(declarations) = &statement.instruction else { continue };
        for declaration in declarations {
            secret("ARG", &declaration.name, statement.lines, found);
            let value = |scope: &BTreeMap<String, String>| {
                let word = declaration.default.as_deref().unwrap_or_default();
                words(file, word, &|name| scope.get(name).cloned()).0
            };
            let set = settings.build_args.iter().rev().find(|(name, _)| *name == declaration.name);
            let now = set.map_or_else(|| value(&given), |(_, value)| value.clone());
            given.insert(declaration.name.clone(), now);
            let now = value(&default);
            default.insert(declaration.name.clone(), now);
        }
    }
    Globals { given, default }
}

/// Expands a word; returns it with the variables that are not there.
fn words(file: &Dockerfile, word: &str, lookup: &dyn Fn(&str) -> Option<String>) -> (String, BTreeSet<String>) {
    let missing = RefCell::new(BTreeSet::new());
    let expanded = expand(word, Mode::word(file.directives.escape()), &|name| {
        lookup(name).or_else(|| {
            missing.borrow_mut().insert(name.to_owned());
            None
        })
    });
    // What cannot be expanded is an error of the build.
    (expanded.map(|expanded| expanded.text).unwrap_or_default(), missing.into_inner())
}

/// Checks a `FROM` and returns its image.
fn from(file: &Dockerfile, stage: &Stage, globals: &Globals, settings: &Settings, found: &mut Vec<Finding>) -> String {
    let lines = stage.lines;
    let given = |name: &str| globals.given.get(name).cloned();
    let (image, mut missing) = words(file, &stage.from.image, &given);
    let (default, _) = words(file, &stage.from.image, &|name| globals.default.get(name).cloned());
    if default.is_empty() || default.parse::<Reference>().is_err() {
        found.push(Rule::InvalidDefaultArgInFrom.found(lines, &stage.from.image, ""));
    }
    if let Some(written) = &stage.from.platform {
        let (platform, unknown) = words(file, written, &given);
        missing.extend(unknown);
        match written.as_str() {
            "$TARGETPLATFORM" | "${TARGETPLATFORM}" => {
                found.push(Rule::RedundantTargetPlatform.found(lines, written, ""));
            }
            constant if !constant.contains('$') => {
                let name = stage.from.name.as_deref().unwrap_or_default();
                let named = |part: &str| !part.is_empty() && name.contains(part);
                let parts = settings.platform_named(&platform);
                if parts.is_some_and(|parts| !named(&parts.os) && !named(&parts.architecture)) {
                    found.push(Rule::FromPlatformFlagConstDisallowed.found(lines, &platform, ""));
                }
            }
            _ => {}
        }
    }
    for name in missing {
        let near = nearest(&name, globals.given.keys());
        found.push(Rule::UndefinedArgInFrom.found(lines, &name, &near));
    }
    image
}

/// `CMD`, `ENTRYPOINT` and `HEALTHCHECK` count the last time; the one that does not count is shown.
fn once(statement: &Statement, seen: &mut BTreeMap<&'static str, LineRange>, found: &mut Vec<Finding>) {
    let keyword = statement.instruction.keyword();
    if !matches!(keyword, "CMD" | "ENTRYPOINT" | "HEALTHCHECK") {
        return;
    }
    if let Some(before) = seen.insert(keyword, statement.lines) {
        found.push(Rule::MultipleInstructionsDisallowed.found(before, keyword, ""));
    }
}

fn instruction(file: &Dockerfile, statement: &Statement, ignore: &Ignore, scope: &mut Scope, found: &mut Vec<Finding>) {
    let lines = statement.lines;
    let keyword = statement.instruction.keyword();
    for word in expanded(&statement.instruction) {
        let (_, missing) = words(file, word, &|name| scope.names.contains(name).then(String::new));
        for name in missing.iter().filter(|_| !scope.open) {
            found.push(Rule::UndefinedVar.found(lines, name, &nearest(name, scope.names.iter())));
        }
    }
    match &statement.instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            if pairs.iter().any(|pair| pair.old_form) {
                found.push(Rule::LegacyKeyValueFormat.found(lines, keyword, ""));
            }
            if keyword == "ENV" {
                for pair in pairs {
                    secret(keyword, &pair.name, lines, found);
                    scope.names.insert(pair.name.clone());
                }
            }
        }
        Instruction::Arg(declarations) => {
            for declaration in declarations {
                secret(keyword, &declaration.name, lines, found);
                scope.names.insert(declaration.name.clone());
            }
        }
        Instruction::Workdir(path) => {
            if !path.starts_with(['/', '$']) && !scope.workdir {
                found.push(Rule::WorkdirRelativePath.found(lines, path, ""));
            }
            scope.workdir = true;
        }
        Instruction::Shell(_) => scope.shell = true,
        Instruction::Cmd(CommandLine::Shell(_)) | Instruction::Entrypoint(CommandLine::Shell(_)) if !scope.shell => {
            found.push(Rule::JSONArgsRecommended.found(lines, keyword, ""));
        }
        Instruction::Expose(ports) => ports.iter().for_each(|port| expose(port, lines, found)),
        Instruction::Copy(copy) if copy.from.is_none() => ignored(copy, ignore, lines, found),
        _ => {}
    }
}

/// The words of an instruction in which variables are replaced.
fn expanded(instruction: &Instruction) -> Vec<&str> {
    match instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            pairs.iter().flat_map(|pair| [pair.name.as_str(), pair.value.as_str()]).collect()
        }
        Instruction::Arg(declarations) => declarations.iter().filter_map(|arg| arg.default.as_deref()).collect(),
        Instruction::Copy(copy) => {
            let sources = copy.sources.iter().filter_map(|source| match source {
                CopySource::Path(path) => Some(path.as_str()),
                CopySource::Heredoc(_) => None,
            });
            let flags = [&copy.chown, &copy.chmod].into_iter().flatten().map(String::as_str);
            sources.chain([copy.destination.as_str()]).chain(flags).collect()
        }
        Instruction::Workdir(text) | Instruction::User(text) | Instruction::StopSignal(text) => vec![text],
        Instruction::Expose(texts) | Instruction::Volume(texts) => texts.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

fn expose(port: &str, lines: LineRange, found: &mut Vec<Finding>) {
    let (address, protocol) = port.split_once('/').unwrap_or((port, ""));
    if protocol != protocol.to_lowercase() {
        found.push(Rule::ExposeProtoCasing.found(lines, port, ""));
    }
    // A variable may hold a colon of its own forms.
    if address.contains(':') && !address.contains('$') {
        found.push(Rule::ExposeInvalidFormat.found(lines, port, ""));
    }
}

fn ignored(copy: &Copy, ignore: &Ignore, lines: LineRange, found: &mut Vec<Finding>) {
    let word = if copy.add { "Add" } else { "Copy" };
    for source in &copy.sources {
        let CopySource::Path(path) = source else { continue };
        let parts = clean(path);
        if parts.is_empty() || path.contains("://") || path.contains('$') {
            continue;
        }
        let mut inherited = Inherited::default();
        let hidden = (1..=parts.len()).any(|end| {
            let verdict = ignore.judge(&parts[..end].join("/"), &inherited);
            inherited = verdict.inherited;
            verdict.prune
        });
        if hidden {
            found.push(Rule::CopyIgnoredFile.found(lines, word, &parts.join("/")));
        }
    }
}

fn secret(keyword: &str, name: &str, lines: LineRange, found: &mut Vec<Finding>) {
    let lower = name.to_lowercase();
    let has = |list: &[&str]| lower.split('_').any(|part| list.contains(&part));
    if has(&SECRET) && !has(&OPEN) {
        found.push(Rule::SecretsUsedInArgOrEnv.found(lines, keyword, name));
    }
}

/// The name that may be meant, or nothing.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let known: Vec<&str> = known.map(String::as_str).collect();
    crate::build::dockerfile::nearest(name, &known).unwrap_or_default().to_owned()
}
