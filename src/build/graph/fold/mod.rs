//! Instructions folded one after another into nodes, configuration and history.

mod config;
mod mounts;
mod work;

use self::config::is_signal;
use super::select::{Base, Chosen, Scope, Selection, expand_word, lookup};
use super::{Graph, Node, Operation, PlanError, PlanProblem, PlannedHistory, PlannedStage, Settings, Start, history};
use crate::build::dockerfile::*;
use crate::image::CACHE_FIELD;
use crate::oci::{ContainerConfig, Empty, ImageConfig, RootFs};
use std::cell::Cell;
use std::collections::BTreeMap;

/// Search path where an image gives none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Arguments that every `RUN` gets without `ARG`, and that leave no trace.
pub(in crate::build) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Most bytes of texts a plan may hold: environments of steps, histories, configurations of stages. Few lines can ask for
/// many, because `ENV A=$A$A` doubles and every `RUN` has the environment whole.
const MAX_PLAN: usize = 64 << 20;

pub(super) fn fold(file: &Dockerfile, settings: &Settings, selection: Selection) -> Result<Graph, PlanError> {
    let mut graph = Graph::default();
    // Position in the file to position in the graph. A stage stands on earlier ones only, so their order is kept.
    let mut positions = BTreeMap::new();
    let mut room = MAX_PLAN;
    let mut consumed: Vec<String> = file.global_args.iter().flat_map(|s| declared(&s.instruction)).collect();
    for (index, chosen) in &selection.stages {
        let label = match &file.stages[*index].from.name {
            Some(name) => name.clone(),
            None if file.stages.len() > 1 => format!("stage-{index}"),
            None => String::new(),
        };
        let mut fold = Fold::start(file, settings, &selection, *index, &positions, &graph, chosen);
        fold.room.set(room);
        fold.take(size_of_config(&fold.config), file.stages[*index].lines)?;
        for statement in chosen.triggers.iter().chain(&file.stages[*index].statements) {
            fold.statement(statement)?;
            consumed.extend(declared(&statement.instruction));
        }
        if *index == selection.target {
            graph.target = graph.stages.len();
            fold.labels();
        }
        let lines = file.stages[*index].lines;
        let left = fold.room.get();
        let Fold { start, nodes, config, history, .. } = fold;
        room = left;
        positions.insert(*index, graph.stages.len());
        graph.stages.push(PlannedStage { label, start, lines, title: chosen.title.clone(), nodes, config, history });
    }
    let platform_args = selection.globals.iter().map(|(n, _)| n);
    consumed.extend(platform_args.cloned());
    consumed.extend(PROXIES.map(str::to_owned));
    let unused: Vec<&str> =
        settings.build_args.iter().map(|(n, _)| n.as_str()).filter(|n| !consumed.iter().any(|c| c == n)).collect();
    if !unused.is_empty() {
        graph.warnings.push(format!("--build-arg {} was given but no ARG takes it", unused.join(", ")));
    }
    Ok(graph)
}

fn declared(instruction: &Instruction) -> Vec<String> {
    match instruction {
        Instruction::Arg(declarations) => declarations.iter().map(|d| d.name.clone()).collect(),
        _ => Vec::new(),
    }
}

/// The state of one stage while its instructions are read.
struct Fold<'a> {
    file: &'a Dockerfile,
    settings: &'a Settings,
    selection: &'a Selection,
    positions: &'a BTreeMap<usize, usize>,
    index: usize,
    start: Start,
    nodes: Vec<Node>,
    config: ImageConfig,
    history: Vec<PlannedHistory>,
    args: Scope,
    cmd_set: bool,
    /// Bytes that the plan may still take.
    room: Cell<usize>,
}

impl<'a> Fold<'a> {
    fn start(
        file: &'a Dockerfile,
        settings: &'a Settings,
        selection: &'a Selection,
        index: usize,
        positions: &'a BTreeMap<usize, usize>,
        graph: &Graph,
        chosen: &Chosen,
    ) -> Self {
        let (start, mut config) = match &chosen.base {
            Base::Scratch => {
                let platform = &settings.platform;
                let config = ImageConfig {
                    architecture: platform.architecture.clone(),
                    os: platform.os.clone(),
                    variant: platform.variant.clone(),
                    config: ContainerConfig { working_dir: "/".into(), ..ContainerConfig::default() },
                    ..ImageConfig::default()
                };
                (Start::Scratch, config)
            }
            Base::Image(image) => (Start::Image(image.clone()), image.config.clone()),
            Base::Stage(stage) => {
                let position = positions.get(stage).copied().unwrap_or_default();
                (Start::Stage(position), graph.stages[position].config.clone())
            }
        };
        config.history.clear();
        config.rootfs = RootFs::default();
        config.created = None;
        // What a container of the base ran is not what this image is (`docker commit` leaves these), nor are its steps ours.
        for name in ["container", "container_config", "docker_version", "id", "parent", "Size", CACHE_FIELD] {
            config.extra.shift_remove(name);
        }
        config.config.on_build.clear();
        if !config.config.env.iter().any(|e| e.starts_with("PATH=")) {
            config.config.env.push(DEFAULT_PATH.into());
        }
        Self {
            file,
            settings,
            selection,
            positions,
            index,
            start,
            nodes: Vec::new(),
            config,
            history: Vec::new(),
            args: Scope::new(),
            cmd_set: false,
            room: Cell::new(0),
        }
    }

    /// Counts bytes that go into the plan.
    fn take(&self, bytes: usize, lines: LineRange) -> Result<(), PlanError> {
        match self.room.get().checked_sub(bytes) {
            Some(left) => {
                self.room.set(left);
                Ok(())
            }
            None => Err(PlanProblem::TooLarge { limit: MAX_PLAN }.at(lines)),
        }
    }

    /// Looks a variable up: the environment first, then arguments.
    fn variable(&self, name: &str) -> Option<String> {
        let env = self.config.config.env.iter().rev().find_map(|e| e.split_once('=').filter(|(n, _)| *n == name));
        env.map(|(_, value)| value.to_owned()).or_else(|| lookup(&self.args)(name))
    }

    fn expand(&self, word: &str, lines: LineRange) -> Result<String, PlanError> {
        let text = expand_word(word, self.file.directives.escape(), &|name| self.variable(name), lines)?;
        self.take(text.len(), lines)?;
        Ok(text)
    }

    fn words(&self, word: &str, lines: LineRange) -> Result<Vec<String>, PlanError> {
        match expand(word, Mode::word(self.file.directives.escape()), &|name| self.variable(name)) {
            Ok(expanded) => Ok(expanded.words),
            Err(source) => Err(PlanProblem::Expand { word: word.to_owned(), source }.at(lines)),
        }
    }

    fn note(&mut self, created_by: String) {
        self.history.push(PlannedHistory { created_by, node: None });
    }

    fn node(&mut self, operation: Operation, statement: &Statement, created_by: String) {
        self.history.push(PlannedHistory { created_by, node: Some(self.nodes.len()) });
        let keyword = statement.instruction.keyword();
        let rest = statement.original.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim());
        self.nodes.push(Node { operation, lines: statement.lines, title: format!("{keyword} {rest}") });
    }

    fn shell(&self, line: &str) -> Vec<String> {
        let shell = &self.config.config.shell;
        let mut args = if shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { shell.clone() };
        args.push(line.to_owned());
        args
    }

    fn command(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(args) => args.clone(),
            CommandLine::Shell(line) => self.shell(line),
        }
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), PlanError> {
        let lines = statement.lines;
        let before = self.history.len();
        self.instruction(statement)?;
        let noted = self.history[before..].iter().map(|entry| entry.created_by.len()).sum::<usize>();
        self.take(noted, lines)
    }

    fn instruction(&mut self, statement: &Statement) -> Result<(), PlanError> {
        let lines = statement.lines;
        match &statement.instruction {
            Instruction::Run(run) => self.run(run, statement)?,
            Instruction::Copy(copy) => self.copy(copy, statement)?,
            Instruction::Env(pairs) => self.env(pairs, lines)?,
            Instruction::Label(pairs) => {
                let mut text = "LABEL".to_owned();
                for pair in pairs {
                    let (name, value) = (self.expand(&pair.name, lines)?, self.expand(&pair.value, lines)?);
                    text.push_str(&format!(" {name}={value}"));
                    self.config.config.labels.insert(name, value);
                }
                self.note(text);
            }
            Instruction::Arg(declarations) => self.arg(declarations, lines)?,
            Instruction::Workdir(path) => {
                let path = self.expand(path, lines)?;
                if path.is_empty() {
                    return Err(PlanProblem::Value {
                        instruction: "WORKDIR",
                        value: path,
                        expected: "the path is empty",
                    }
                    .at(lines));
                }
                let path = absolute(&self.config.config.working_dir, &path);
                self.config.config.working_dir.clone_from(&path);
                let operation = Operation::Workdir { path: path.clone(), user: self.config.config.user.clone() };
                self.node(operation, statement, format!("WORKDIR {path}"));
            }
            Instruction::User(user) => {
                let user = self.expand(user, lines)?;
                self.note(format!("USER {user}"));
                self.config.config.user = user;
            }
            Instruction::Cmd(command) => {
                let args = self.command(command);
                self.note(history::list("CMD", &args));
                self.config.config.cmd = Some(args);
                self.cmd_set = true;
            }
            Instruction::Entrypoint(command) => {
                let args = self.command(command);
                self.note(history::list("ENTRYPOINT", &args));
                self.config.config.entrypoint = Some(args);
                // The base image's CMD belongs to the base image's ENTRYPOINT.
                if !self.cmd_set {
                    self.config.config.cmd = None;
                }
            }
            Instruction::Expose(words) => self.expose(words, lines)?,
            Instruction::Volume(paths) => {
                let paths = paths.iter().map(|p| self.expand(p, lines)).collect::<Result<Vec<_>, _>>()?;
                if paths.iter().any(String::is_empty) {
                    return Err(PlanProblem::Value {
                        instruction: "VOLUME",
                        value: String::new(),
                        expected: "the path is empty",
                    }
                    .at(lines));
                }
                self.note(history::plain_list("VOLUME", &paths));
                self.config.config.volumes.extend(paths.into_iter().map(|p| (p, Empty {})));
            }
            Instruction::Shell(words) => {
                self.note(history::plain_list("SHELL", words));
                self.config.config.shell.clone_from(words);
            }
            Instruction::StopSignal(signal) => {
                let signal = self.expand(signal, lines)?;
                if !is_signal(&signal) {
                    return Err(PlanProblem::Value {
                        instruction: "STOPSIGNAL",
                        value: signal,
                        expected: "it is a number or a name such as SIGTERM",
                    }
                    .at(lines));
                }
                self.note(format!("STOPSIGNAL {signal}"));
                self.config.config.stop_signal = signal;
            }
            Instruction::Healthcheck(check) => {
                let health = self.healthcheck(check);
                self.note(history::healthcheck(&health));
                self.config.config.healthcheck = Some(health);
            }
            Instruction::Onbuild(onbuild) => {
                self.note(format!("ONBUILD {}", onbuild.text));
                self.config.config.on_build.push(onbuild.text.clone());
            }
            Instruction::Maintainer(author) => {
                self.note(format!("MAINTAINER {author}"));
                self.config.author.clone_from(author);
            }
            Instruction::Step(_) => {
                let hint = "steps of plugins are planned; until then do the same with RUN";
                return Err(PlanProblem::NotPerformed { what: "STEP", hint }.at(lines));
            }
        }
        Ok(())
    }

    /// `--label` of the command line, on the target.
    fn labels(&mut self) {
        self.config.config.labels.extend(self.settings.labels.iter().cloned());
    }
}

/// The bytes of a configuration that a Dockerfile can make long.
fn size_of_config(config: &ImageConfig) -> usize {
    let config = &config.config;
    let texts = config.env.iter().chain(&config.shell).chain(config.cmd.iter().flatten());
    let texts = texts.chain(config.entrypoint.iter().flatten()).map(String::len);
    let labels = config.labels.iter().map(|(name, value)| name.len() + value.len());
    let names = config.volumes.keys().chain(config.exposed_ports.keys()).map(String::len);
    texts.chain(labels).chain(names).sum()
}

fn has(env: &[String], name: &str) -> bool {
    env.iter().any(|e| e.split_once('=').is_some_and(|(n, _)| n == name))
}

fn non_empty(text: &str, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text.to_owned() }
}

/// Joins a path to the working directory and resolves `.` and `..`.
fn absolute(working_dir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{working_dir}/{path}") };
    format!("/{}", crate::build::glob::clean(&joined).join("/"))
}
