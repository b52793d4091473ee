//! From the parse tree to typed instructions: every flag and every argument count is judged here.

use super::error::{DockerfileError, Problem, nearest};
use super::flags::Flags;
use super::instruction::*;
use super::lexer::Heredoc;
use super::mount::{MountText, split_commas};
use super::parser::{Node, Tree, parse_tree};
use crate::base::parse_go_duration;
use std::time::Duration;

const KEYWORDS: [&str; 19] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STEP",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a Dockerfile.
///
/// # Errors
/// At the first thing that is no Dockerfile language.
pub fn parse(text: &str) -> Result<Dockerfile, DockerfileError> {
    let Tree { directives, nodes } = parse_tree(text)?;
    let mut file = Dockerfile { directives, global_args: Vec::new(), stages: Vec::new(), source: text.to_owned() };
    for node in &nodes {
        if node.keyword == "from" {
            let from = from(node)?;
            file.stages.push(Stage { from, lines: node.lines, at: node.at, statements: Vec::new() });
            continue;
        }
        let statement = Statement {
            instruction: instruction(node)?,
            lines: node.lines,
            at: node.at,
            original: node.original.clone(),
        };
        match (file.stages.last_mut(), &statement.instruction) {
            (Some(stage), _) => stage.statements.push(statement),
            (None, Instruction::Arg(_)) => file.global_args.push(statement),
            (None, other) => return Err(Problem::BeforeFrom(other.keyword().into()).at(node.at)),
        }
    }
    if file.stages.is_empty() {
        let at = nodes.last().map(|n| n.at).unwrap_or_default();
        return Err(Problem::NoFrom.at(at));
    }
    Ok(file)
}

/// Parses one instruction that an image's configuration holds as a trigger.
///
/// # Errors
/// When it is no instruction, or one that may not be a trigger.
pub fn parse_trigger(text: &str) -> Result<Statement, DockerfileError> {
    let tree = parse_tree(text)?;
    match tree.nodes.as_slice() {
        [node] => {
            check_trigger(node)?;
            Ok(Statement {
                instruction: instruction(node)?,
                lines: node.lines,
                at: node.at,
                original: node.original.clone(),
            })
        }
        nodes => Err(Problem::Arguments { instruction: "ONBUILD", needs: "holds one instruction" }
            .at(nodes.last().map(|n| n.at).unwrap_or_default())),
    }
}

fn check_trigger(node: &Node) -> Result<(), DockerfileError> {
    match node.keyword.as_str() {
        "onbuild" | "from" | "maintainer" | "step" => Err(Problem::BadTrigger(node.keyword.to_uppercase()).at(node.at)),
        _ => Ok(()),
    }
}

fn needs(node: &Node, instruction: &'static str, needs: &'static str) -> DockerfileError {
    Problem::Arguments { instruction, needs }.at(node.arguments_at)
}

fn from(node: &Node) -> Result<From, DockerfileError> {
    let mut flags = Flags::new("FROM", node);
    let platform = flags.text("platform")?.map(str::to_owned);
    flags.finish()?;
    let (image, name) = match node.arguments.as_slice() {
        [image] => (image, None),
        [image, word, name] if word.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            let good = lower.starts_with(|c: char| c.is_ascii_lowercase())
                && lower
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
            if !good {
                return Err(Problem::StageName(name.clone()).at(node.arguments_at));
            }
            (image, Some(lower))
        }
        _ => return Err(needs(node, "FROM", "is written FROM image or FROM image AS name")),
    };
    Ok(From { image: image.clone(), name, platform })
}

fn instruction(node: &Node) -> Result<Instruction, DockerfileError> {
    let keyword = KEYWORDS.into_iter().find(|k| k.eq_ignore_ascii_case(&node.keyword));
    let Some(keyword) = keyword else {
        let word = node.original.split_whitespace().next().unwrap_or_default().to_owned();
        let suggestion = nearest(&word, &KEYWORDS);
        return Err(Problem::UnknownInstruction { word, suggestion }.at(node.at));
    };
    let flags = || Flags::new(keyword, node);
    if !matches!(keyword, "RUN" | "COPY" | "ADD" | "HEALTHCHECK" | "FROM") {
        flags().finish()?;
    }
    Ok(match keyword {
        "RUN" => Instruction::Run(run(node, flags())?),
        "COPY" => Instruction::Copy(copy(node, flags(), false)?),
        "ADD" => Instruction::Copy(copy(node, flags(), true)?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(node, flags())?),
        "ENV" => Instruction::Env(pairs(node, "ENV")?),
        "LABEL" => Instruction::Label(pairs(node, "LABEL")?),
        "ARG" => Instruction::Arg(args(node)?),
        "WORKDIR" => Instruction::Workdir(one(node, "WORKDIR")?),
        "USER" => Instruction::User(one(node, "USER")?),
        "STOPSIGNAL" => Instruction::StopSignal(one(node, "STOPSIGNAL")?),
        "MAINTAINER" => Instruction::Maintainer(one(node, "MAINTAINER")?),
        "CMD" => Instruction::Cmd(command(node)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(node)),
        "EXPOSE" => Instruction::Expose(some(node, "EXPOSE")?),
        "VOLUME" => {
            let paths = some(node, "VOLUME")?;
            if paths.iter().any(|p| p.trim().is_empty()) {
                return Err(needs(node, "VOLUME", "names may not be blank"));
            }
            Instruction::Volume(paths)
        }
        "SHELL" if node.json && !node.arguments.is_empty() => Instruction::Shell(node.arguments.clone()),
        "SHELL" if node.json => return Err(needs(node, "SHELL", "needs at least one argument")),
        "SHELL" => return Err(Problem::JsonRequired("SHELL").at(node.arguments_at)),
        "ONBUILD" => onbuild(node)?,
        "STEP" => Instruction::Step(step(node)?),
        _ => return Err(Problem::BadTrigger(keyword.into()).at(node.at)),
    })
}

fn one(node: &Node, instruction: &'static str) -> Result<String, DockerfileError> {
    match node.arguments.as_slice() {
        [text] => Ok(text.clone()),
        _ => Err(needs(node, instruction, "needs one argument")),
    }
}

fn some(node: &Node, instruction: &'static str) -> Result<Vec<String>, DockerfileError> {
    if node.arguments.is_empty() {
        Err(needs(node, instruction, "needs at least one argument"))
    } else {
        Ok(node.arguments.clone())
    }
}

fn command(node: &Node) -> CommandLine {
    match (node.json, node.arguments.first()) {
        (false, Some(line)) => CommandLine::Shell(line.clone()),
        _ => CommandLine::Exec(node.arguments.clone()),
    }
}

fn pairs(node: &Node, instruction: &'static str) -> Result<Vec<NameValue>, DockerfileError> {
    if node.arguments.is_empty() {
        return Err(needs(node, instruction, "needs at least one name=value"));
    }
    node.arguments
        .chunks_exact(3)
        .map(|group| {
            if group[0].is_empty() {
                return Err(Problem::BlankName(instruction).at(node.arguments_at));
            }
            Ok(NameValue { name: group[0].clone(), value: group[1].clone(), old_form: group[2].is_empty() })
        })
        .collect()
}

fn args(node: &Node) -> Result<Vec<ArgDeclaration>, DockerfileError> {
    some(node, "ARG")?
        .iter()
        .map(|word| {
            let (name, default) = word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v.to_owned())));
            if name.is_empty() {
                return Err(Problem::BlankName("ARG").at(node.arguments_at));
            }
            Ok(ArgDeclaration { name: name.to_owned(), default })
        })
        .collect()
}

fn run(node: &Node, mut flags: Flags<'_>) -> Result<Run, DockerfileError> {
    let mounts = flags
        .texts("mount")?
        .into_iter()
        .map(|(text, at)| MountText::parse(text).map_err(|e| Problem::from(e).at(at)))
        .collect::<Result<_, _>>()?;
    let network = match flags.text("network")? {
        None | Some("default") => RunNetwork::Default,
        Some("none") => RunNetwork::None,
        Some("host") => RunNetwork::Host,
        Some(other) => return Err(flags.bad("network", other, "it is default, none or host")),
    };
    let security = match flags.text("security")? {
        None | Some("sandbox") => RunSecurity::Sandbox,
        Some("insecure") => RunSecurity::Insecure,
        Some(other) => return Err(flags.bad("security", other, "it is sandbox or insecure")),
    };
    let mut devices = Vec::new();
    for (text, at) in flags.texts("device")? {
        let expected = "it is written name[,required]";
        devices.push(
            device(text)
                .ok_or_else(|| Problem::FlagValue { flag: "device".into(), value: text.into(), expected }.at(at))?,
        );
    }
    flags.finish()?;
    if node.arguments.is_empty() && !node.json {
        return Err(needs(node, "RUN", "needs a command"));
    }
    Ok(Run { command: command(node), heredocs: node.heredocs.clone(), mounts, network, security, devices })
}

fn device(text: &str) -> Option<DeviceWish> {
    let mut wish = DeviceWish { name: String::new(), required: false };
    for (index, field) in split_commas(text).ok()?.iter().enumerate() {
        match field.split_once('=') {
            Some(("name", name)) => wish.name = name.to_owned(),
            Some(("required", value)) => wish.required = super::flags::parse_bool(value)?,
            None if field == "required" => wish.required = true,
            _ if index == 0 => wish.name.clone_from(field),
            _ => return None,
        }
    }
    (!wish.name.is_empty()).then_some(wish)
}

fn copy(node: &Node, mut flags: Flags<'_>, add: bool) -> Result<Copy, DockerfileError> {
    let word = if add { "ADD" } else { "COPY" };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let mut copy = Copy {
        add,
        sources: Vec::new(),
        destination: String::new(),
        from: if add { None } else { owned(flags.text("from")?) },
        chown: owned(flags.text("chown")?),
        chmod: owned(flags.text("chmod")?),
        link: flags.switch("link")?.unwrap_or(false),
        parents: !add && flags.switch("parents")?.unwrap_or(false),
        exclude: flags.texts("exclude")?.into_iter().map(|(text, _)| text.to_owned()).collect(),
        checksum: None,
        keep_git_dir: false,
        unpack: None,
    };
    if add {
        copy.checksum = owned(flags.text("checksum")?);
        copy.keep_git_dir = flags.switch("keep-git-dir")?.unwrap_or(false);
        copy.unpack = flags.switch("unpack")?;
    }
    flags.finish()?;
    let Some((destination, sources)) = node.arguments.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return Err(needs(node, word, "needs at least one source and a destination"));
    };
    if !node.json && Heredoc::parse(destination).is_some() {
        return Err(Problem::HeredocDestination.at(node.arguments_at));
    }
    copy.destination.clone_from(destination);
    for source in sources {
        let opened = if node.json { None } else { Heredoc::parse(source) };
        let heredoc = opened.and_then(|opened| node.heredocs.iter().find(|h| h.name == opened.name));
        copy.sources.push(match heredoc {
            Some(heredoc) => CopySource::Heredoc(heredoc.clone()),
            None => CopySource::Path(source.clone()),
        });
    }
    Ok(copy)
}

fn healthcheck(node: &Node, mut flags: Flags<'_>) -> Result<Healthcheck, DockerfileError> {
    let Some((kind, rest)) = node.arguments.split_first() else {
        return Err(needs(node, "HEALTHCHECK", "needs CMD command or NONE"));
    };
    if kind.eq_ignore_ascii_case("none") {
        flags.finish()?;
        return if rest.is_empty() {
            Ok(Healthcheck::None)
        } else {
            Err(needs(node, "HEALTHCHECK", "NONE takes no arguments"))
        };
    }
    if !kind.eq_ignore_ascii_case("cmd") {
        return Err(Problem::HealthcheckForm(kind.clone()).at(node.arguments_at));
    }
    let mut duration = |name: &'static str| -> Result<Option<Duration>, DockerfileError> {
        let Some(text) = flags.text(name)? else { return Ok(None) };
        let value =
            parse_go_duration(text).map_err(|_| flags.bad(name, text, "it is a duration such as 30s or 1m30s"))?;
        match value.as_nanos() {
            0 => Ok(None),
            1..1_000_000 => Err(flags.bad(name, text, "it may not be below 1ms")),
            _ => Ok(Some(value)),
        }
    };
    let (interval, timeout) = (duration("interval")?, duration("timeout")?);
    let (start_period, start_interval) = (duration("start-period")?, duration("start-interval")?);
    let retries = match flags.text("retries")? {
        None => None,
        Some(text) => Some(
            text.parse::<u32>()
                .ok()
                .filter(|n| *n <= i32::MAX as u32)
                .ok_or_else(|| flags.bad("retries", text, "it is a number, not negative"))?,
        ),
    };
    flags.finish()?;
    let command = match (node.json, rest) {
        (_, []) => return Err(needs(node, "HEALTHCHECK", "CMD needs a command")),
        (true, words) => CommandLine::Exec(words.to_vec()),
        (false, words) => CommandLine::Shell(words.join(" ")),
    };
    Ok(Healthcheck::Command {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries: retries.filter(|n| *n > 0),
    })
}

fn onbuild(node: &Node) -> Result<Instruction, DockerfileError> {
    let Some(trigger) = &node.trigger else { return Err(needs(node, "ONBUILD", "needs an instruction")) };
    check_trigger(trigger)?;
    let mut text = trigger.original.clone();
    for heredoc in &trigger.heredocs {
        text.push('\n');
        text.push_str(&heredoc.body);
        text.push_str(&heredoc.name);
    }
    Ok(Instruction::Onbuild(Onbuild { text, trigger: Box::new(instruction(trigger)?) }))
}

fn step(node: &Node) -> Result<StepCall, DockerfileError> {
    let text = one(node, "STEP").map_err(|_| needs(node, "STEP", "is written STEP name arguments"))?;
    let (name, arguments) = text.split_once([' ', '\t']).unwrap_or((&text, ""));
    Ok(StepCall { name: name.to_owned(), arguments: arguments.trim().to_owned(), comment: node.comment })
}
