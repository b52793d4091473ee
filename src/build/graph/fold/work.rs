//! The instructions that make layers of their own: `RUN`, `COPY`, `ADD`.

use super::super::select::{Scope, Source, given, source};
use super::super::{CopyFrom, CopyPlan, Operation, PlanError, PlanProblem, PlannedSource, RunPlan, history};
use super::mounts::Mounts;
use super::{Fold, PROXIES, absolute, has, non_empty};
use crate::build::dockerfile::*;
use crate::build::files::ModeChange;
use crate::step::{RemoteFile, RemoteWish, Repository, StepNetwork};

impl Fold<'_> {
    /// `RUN`.
    pub(super) fn run(&mut self, run: &Run, statement: &Statement) -> Result<(), PlanError> {
        let insecure = run.security == RunSecurity::Insecure;
        if insecure && !self.settings.insecure {
            return Err(PlanProblem::Insecure.at(statement.lines));
        }
        if let Some(device) = run.devices.first() {
            return Err(PlanProblem::Device(device.name.clone()).at(statement.lines));
        }
        let mut script = None;
        let args = match (&run.command, run.heredocs.as_slice()) {
            (CommandLine::Exec(args), _) => args.clone(),
            (CommandLine::Shell(line), []) => self.shell(line),
            (CommandLine::Shell(line), [first, rest @ ..]) => match Heredoc::parse(line) {
                Some(_) if rest.is_empty() && first.body.starts_with("#!") => {
                    let path = format!("/dev/pipes/{}", first.name.replace('/', "_"));
                    script = Some((path.clone(), first.content()));
                    vec![path]
                }
                Some(_) if rest.is_empty() => self.shell(&first.content()),
                _ => {
                    // The shell reads the bodies itself.
                    let full =
                        run.heredocs.iter().fold(line.clone(), |text, h| format!("{text}\n{}{}", h.body, h.name));
                    self.shell(&full)
                }
            },
        };
        let mut env = self.config.config.env.clone();
        env.extend(
            self.args.iter().filter(|(name, _)| !has(&self.config.config.env, name)).map(|(n, v)| format!("{n}={v}")),
        );
        let texts = env.iter().chain(&args).map(String::len).sum::<usize>();
        let texts = texts + self.config.config.working_dir.len() + self.config.config.user.len();
        self.take(texts + script.as_ref().map_or(0, |(_, text)| text.len()), statement.lines)?;
        let hidden = PROXIES
            .iter()
            .filter(|name| !has(&env, name))
            .filter_map(|name| given(self.settings, name).map(|v| format!("{name}={v}")));
        let hidden_env = hidden.collect();
        let shown: Scope =
            self.args.iter().map(|(n, v)| (n.clone(), self.variable(n).unwrap_or_else(|| v.clone()))).collect();
        let created_by = history::run(&args, &shown);
        let Mounts { mounts, secrets, agents } = self.mounts(run, statement.lines)?;
        let plan = RunPlan {
            args,
            env,
            hidden_env,
            cwd: non_empty(&self.config.config.working_dir, "/"),
            user: self.config.config.user.clone(),
            network: match run.network {
                RunNetwork::Default => StepNetwork::Default,
                RunNetwork::None => StepNetwork::None,
                RunNetwork::Host => StepNetwork::Host,
            },
            script,
            insecure,
            mounts,
            secrets,
            agents,
        };
        self.node(Operation::Run(plan), statement, created_by);
        Ok(())
    }

    /// `COPY` and `ADD`.
    pub(super) fn copy(&mut self, copy: &Copy, statement: &Statement) -> Result<(), PlanError> {
        let lines = statement.lines;
        let mut sources = Vec::new();
        for source in &copy.sources {
            sources.push(match source {
                CopySource::Path(path) => {
                    let path = self.expand(path, lines)?;
                    let remote = if copy.add { RemoteWish::parse(&path) } else { Ok(None) };
                    match remote.map_err(|error| PlanProblem::Remote(error).at(lines))? {
                        Some(wish) => PlannedSource::Remote(self.remote(copy, wish, lines)?),
                        None => PlannedSource::Path(path),
                    }
                }
                CopySource::Heredoc(heredoc) => {
                    let mode = Mode { plain_quotes: true, ..Mode::word(self.file.directives.escape()) };
                    let content = heredoc.content();
                    let content = if heredoc.expand {
                        let expanded = expand(&content, mode, &|name| self.variable(name));
                        expanded
                            .map_err(|source| PlanProblem::Expand { word: heredoc.name.clone(), source }.at(lines))?
                            .text
                    } else {
                        content
                    };
                    self.take(content.len(), lines)?;
                    PlannedSource::Inline { name: heredoc.name.clone(), content }
                }
            });
        }
        if let Some(checksum) = &copy.checksum
            && !matches!(sources[..], [PlannedSource::Remote(_)])
        {
            let expected = "it belongs to one source, which is an address or a repository";
            return Err(PlanProblem::Value { instruction: "--checksum", value: checksum.clone(), expected }.at(lines));
        }
        let written = self.expand(&copy.destination, lines)?;
        if written.is_empty() {
            return Err(PlanProblem::Value {
                instruction: "COPY",
                value: written,
                expected: "the destination is empty",
            }
            .at(lines));
        }
        let many = sources.len() > 1;
        let mut destination = absolute(&self.config.config.working_dir, &written);
        let directory = copy.parents || written.ends_with('/') || written == "." || written.ends_with("/.");
        if many && !directory && !copy.parents {
            let expected = "with several sources the destination must end with /";
            return Err(
                PlanProblem::Value { instruction: statement.instruction.keyword(), value: written, expected }.at(lines)
            );
        }
        if directory && !destination.ends_with('/') {
            destination.push('/');
        }
        let chmod = match &copy.chmod {
            None => None,
            Some(text) => {
                let text = self.expand(text, lines)?;
                let expected = "it is an octal mode such as 755, or a symbolic one such as u=rwX,go=rX";
                let wrong = |_| PlanProblem::Value { instruction: "--chmod", value: text.clone(), expected }.at(lines);
                Some(ModeChange::parse(&text).map_err(wrong)?)
            }
        };
        let from = match &copy.from {
            Some(name) => self.tree(name, lines)?,
            None => CopyFrom::Context,
        };
        let plan = CopyPlan {
            add: copy.add,
            sources,
            from,
            destination,
            chown: copy.chown.as_ref().map(|text| self.expand(text, lines)).transpose()?,
            chmod,
            link: copy.link,
            parents: copy.parents,
            exclude: copy.exclude.iter().map(|text| self.expand(text, lines)).collect::<Result<_, _>>()?,
            unpack: copy.add && copy.unpack.unwrap_or(true),
            unpack_fetched: copy.add && copy.unpack.unwrap_or(false),
        };
        let created_by = history::copy(&plan, &written);
        self.node(Operation::Copy(plan), statement, created_by);
        Ok(())
    }

    /// What `ADD` is to fetch, with what the flags say of it.
    fn remote(&self, copy: &Copy, wish: RemoteWish, lines: LineRange) -> Result<RemoteWish, PlanError> {
        let checksum = copy.checksum.as_ref().map(|text| self.expand(text, lines)).transpose()?;
        let refuse = |expected| {
            let value = checksum.clone().unwrap_or_default();
            PlanProblem::Value { instruction: "--checksum", value, expected }.at(lines)
        };
        Ok(match wish {
            RemoteWish::File(file) => {
                let digest = checksum.as_deref().map(str::parse).transpose();
                let digest = digest.map_err(|_| refuse("of a file it is written sha256:DIGEST, 64 hexadecimal digits"));
                RemoteWish::File(RemoteFile { checksum: digest?, ..file })
            }
            RemoteWish::Repository(repository) => {
                if checksum.as_deref().is_some_and(|text| !Repository::is_commit(text)) {
                    return Err(refuse("of a repository it is a commit, or its first digits"));
                }
                let checksum = checksum.or(repository.checksum);
                let keep_git_dir = repository.keep_git_dir || copy.keep_git_dir;
                RemoteWish::Repository(Repository { checksum, keep_git_dir, ..repository })
            }
        })
    }

    /// The tree that a `--from` or a `from=` names.
    pub(super) fn tree(&self, name: &str, lines: LineRange) -> Result<CopyFrom, PlanError> {
        Ok(match source(self.file, self.settings, self.index, name, lines)? {
            Source::Named(name) => CopyFrom::Named(name),
            Source::Stage(stage) => CopyFrom::Stage(self.positions.get(&stage).copied().unwrap_or_default()),
            Source::Scratch => CopyFrom::Image(Vec::new()),
            Source::Image(name) => match self.selection.images.get(&name) {
                Some(image) => CopyFrom::Image(image.chain.clone()),
                None => return Err(PlanProblem::NoImage(name).at(lines)),
            },
        })
    }
}
