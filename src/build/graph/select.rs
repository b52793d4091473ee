//! Which stages and images the target needs, and the arguments that stand before the first `FROM`.

use super::{NamedContext, PlanError, PlanProblem, Settings};
use crate::build::dockerfile::{
    Dockerfile, Instruction, LineRange, Mode, Onbuild, Stage, Statement, expand, parse_trigger,
};
use crate::oci::Platform;
use crate::step::BaseImage;
use std::collections::BTreeMap;

/// Arguments in scope: name and value.
pub(super) type Scope = Vec<(String, String)>;

/// What a stage of the file stands on, as far as names go.
#[derive(Clone, Debug)]
pub(super) enum Base {
    Scratch,
    Stage(usize),
    Image(Box<BaseImage>),
}

/// A stage that is needed.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) base: Base,
    /// Text of `FROM` with variables replaced.
    pub(super) title: String,
    /// Triggers of what it stands on.
    pub(super) triggers: Vec<Statement>,
}

/// What was chosen.
pub(super) struct Selection {
    /// By position in the file.
    pub(super) stages: BTreeMap<usize, Chosen>,
    pub(super) target: usize,
    pub(super) globals: Scope,
    /// Images that are only copied from.
    pub(super) images: BTreeMap<String, BaseImage>,
}

/// Where `--from` points.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    /// A directory of `--build-context`.
    Named(String),
    Stage(usize),
    Image(String),
    /// Nothing.
    Scratch,
}

pub(super) fn lookup<'a>(scope: &'a [(String, String)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| scope.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone())
}

pub(super) fn expand_word(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
    lines: LineRange,
) -> Result<String, PlanError> {
    match expand(word, Mode::word(escape), lookup) {
        Ok(expanded) => Ok(expanded.text),
        Err(source) => Err(PlanProblem::Expand { word: word.to_owned(), source }.at(lines)),
    }
}

pub(super) fn select(
    file: &Dockerfile,
    settings: &Settings,
    images: &mut dyn FnMut(&str, &Platform) -> Option<BaseImage>,
) -> Result<Selection, PlanError> {
    let target = target(file, settings)?;
    let globals = globals(file, settings, target)?;
    let mut selection = Selection { stages: BTreeMap::new(), target, globals, images: BTreeMap::new() };
    let mut waiting = vec![target];
    while let Some(index) = waiting.pop() {
        if selection.stages.contains_key(&index) {
            continue;
        }
        let chosen = choose(file, index, settings, &selection.globals, images)?;
        if let Base::Stage(base) = chosen.base {
            waiting.push(base);
        }
        let lines = file.stages[index].lines;
        let own = file.stages[index].statements.iter().map(|s| (&s.instruction, s.lines));
        for (instruction, lines) in own.chain(chosen.triggers.iter().map(|t| (&t.instruction, lines))) {
            for name in froms(instruction) {
                match source(file, settings, index, name, lines)? {
                    Source::Stage(stage) => waiting.push(stage),
                    Source::Image(name) if !selection.images.contains_key(&name) => {
                        let image = images(&name, &settings.platform)
                            .ok_or_else(|| PlanProblem::NoImage(name.clone()).at(lines))?;
                        selection.images.insert(name, image);
                    }
                    Source::Image(_) | Source::Scratch | Source::Named(_) => {}
                }
            }
        }
        selection.stages.insert(index, chosen);
    }
    Ok(selection)
}

/// The stage that `--target` names, else the last one.
fn target(file: &Dockerfile, settings: &Settings) -> Result<usize, PlanError> {
    let Some(name) = &settings.target else { return Ok(file.stages.len() - 1) };
    let by_name =
        file.stages.iter().rposition(|s| s.from.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name)));
    let by_index = || name.parse::<usize>().ok().filter(|i| *i < file.stages.len());
    by_name.or_else(by_index).ok_or_else(|| {
        let known =
            file.stages.iter().enumerate().map(|(i, s)| s.from.name.clone().unwrap_or_else(|| i.to_string())).collect();
        PlanProblem::NoTarget { name: name.clone(), known }.at(file.stages[0].lines)
    })
}

/// Platform arguments and those that stand before the first `FROM`.
fn globals(file: &Dockerfile, settings: &Settings, target: usize) -> Result<Scope, PlanError> {
    let mut scope = Scope::new();
    for (prefix, platform) in [("TARGET", &settings.platform), ("BUILD", &settings.build_platform)] {
        scope.push((format!("{prefix}PLATFORM"), platform.to_string()));
        scope.push((format!("{prefix}OS"), platform.os.clone()));
        scope.push((format!("{prefix}ARCH"), platform.architecture.clone()));
        scope.push((format!("{prefix}VARIANT"), platform.variant.clone()));
    }
    let name = file.stages[target].from.name.clone().unwrap_or_else(|| "default".into());
    scope.push(("TARGETSTAGE".into(), name));
    for statement in &file.global_args {
        let Instruction::Arg(declarations) = &statement.instruction else { continue };
        for declaration in declarations {
            let value = match given(settings, &declaration.name) {
                Some(value) => Some(value.to_owned()),
                None => match &declaration.default {
                    Some(word) => Some(expand_word(word, file.directives.escape(), &lookup(&scope), statement.lines)?),
                    None => None,
                },
            };
            if let Some(value) = value {
                scope.push((declaration.name.clone(), value));
            }
        }
    }
    // A platform argument given by hand replaces ours.
    for (name, value) in &settings.build_args {
        if let Some(entry) = scope.iter_mut().find(|(n, _)| n == name) {
            entry.1.clone_from(value);
        }
    }
    Ok(scope)
}

/// The value that `--build-arg` gives.
pub(super) fn given<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    settings.build_args.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn choose(
    file: &Dockerfile,
    index: usize,
    settings: &Settings,
    globals: &Scope,
    images: &mut dyn FnMut(&str, &Platform) -> Option<BaseImage>,
) -> Result<Chosen, PlanError> {
    let stage = &file.stages[index];
    let (lines, escape) = (stage.lines, file.directives.escape());
    let image = expand_word(&stage.from.image, escape, &lookup(globals), lines)?;
    if image.is_empty() {
        return Err(PlanProblem::EmptyImage(stage.from.image.clone()).at(lines));
    }
    let platform = match &stage.from.platform {
        None => settings.platform.clone(),
        Some(text) => {
            let text = expand_word(text, escape, &lookup(globals), lines)?;
            platform(&text, settings).ok_or_else(|| PlanProblem::Platform(text).at(lines))?
        }
    };
    let title = match &stage.from.name {
        Some(name) => format!("FROM {image} AS {name}"),
        None => format!("FROM {image}"),
    };
    let image = match settings.context(&image) {
        Some((name, NamedContext::Directory)) => {
            return Err(PlanProblem::DirectoryBase(name.to_owned()).at(lines));
        }
        // Nothing of the file is meant by it.
        Some((_, NamedContext::Image(other))) => return image_stage(other, title, stage, &platform, images),
        None => image,
    };
    let earlier = file.stages[..index]
        .iter()
        .rposition(|s| s.from.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(&image)));
    if let Some(base) = earlier {
        let triggers = file.stages[base].statements.iter().filter_map(|s| match &s.instruction {
            Instruction::Onbuild(Onbuild { trigger, text }) => {
                Some(Statement { instruction: (**trigger).clone(), lines, at: stage.at, original: text.clone() })
            }
            _ => None,
        });
        return Ok(Chosen { base: Base::Stage(base), title, triggers: triggers.collect() });
    }
    if image == "scratch" {
        return Ok(Chosen { base: Base::Scratch, title, triggers: Vec::new() });
    }
    image_stage(&image, title, stage, &platform, images)
}

/// A stage that stands on an image.
fn image_stage(
    image: &str,
    title: String,
    stage: &Stage,
    platform: &Platform,
    images: &mut dyn FnMut(&str, &Platform) -> Option<BaseImage>,
) -> Result<Chosen, PlanError> {
    let lines = stage.lines;
    let Some(found) = images(image, platform) else { return Err(PlanProblem::NoImage(image.to_owned()).at(lines)) };
    let mut triggers = Vec::new();
    for text in &found.config.config.on_build {
        let trigger = parse_trigger(text).map_err(|e| PlanProblem::Trigger(e).at(lines))?;
        triggers.push(Statement { lines, at: stage.at, ..trigger });
    }
    Ok(Chosen { base: Base::Image(Box::new(found)), title, triggers })
}

/// Reads `linux/amd64`, `amd64`, `linux`, `local`.
pub(super) fn platform(text: &str, settings: &Settings) -> Option<Platform> {
    if text == "local" {
        return Some(settings.build_platform.clone());
    }
    let parts: Vec<&str> = text.split('/').collect();
    let architecture = |name: &str| match name {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    if parts.iter().any(|p| p.is_empty()) {
        return None;
    }
    let mut platform =
        Platform { architecture: settings.platform.architecture.clone(), os: "linux".into(), ..Platform::default() };
    match parts.as_slice() {
        ["linux"] => {}
        [arch] => platform.architecture = architecture(arch),
        [os, arch] => (platform.os, platform.architecture) = ((*os).to_owned(), architecture(arch)),
        [os, arch, variant] => {
            (platform.os, platform.architecture) = ((*os).to_owned(), architecture(arch));
            platform.variant = (*variant).to_owned();
        }
        _ => return None,
    }
    Some(platform)
}

/// The names behind `--from` of a `COPY` and behind `from=` of a `RUN`'s mounts.
fn froms(instruction: &Instruction) -> Vec<&str> {
    match instruction {
        Instruction::Copy(copy) => copy.from.iter().map(String::as_str).collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mount.from()).collect(),
        _ => Vec::new(),
    }
}

/// What such a name stands for: a `--build-context`, an earlier stage by name or index, else an image.
pub(super) fn source(
    file: &Dockerfile,
    settings: &Settings,
    stage: usize,
    from: &str,
    lines: LineRange,
) -> Result<Source, PlanError> {
    if from.contains('$') {
        return Err(PlanProblem::FromVariable(from.to_owned()).at(lines));
    }
    match settings.context(from) {
        Some((name, NamedContext::Directory)) => return Ok(Source::Named(name.to_owned())),
        Some((_, NamedContext::Image(image))) => return Ok(Source::Image(image.clone())),
        None => {}
    }
    let named =
        file.stages[..stage].iter().rposition(|s| s.from.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(from)));
    if let Some(index) = named {
        return Ok(Source::Stage(index));
    }
    match from.parse::<usize>() {
        Ok(index) if index < stage => Ok(Source::Stage(index)),
        Ok(_) => Err(PlanProblem::FromIndex(from.to_owned()).at(lines)),
        Err(_) if from == "scratch" => Ok(Source::Scratch),
        Err(_) => Ok(Source::Image(from.to_owned())),
    }
}
