//! `stop`, `kill`, `restart`, `rm`, `pause`, `unpause`, `wait`, `rename`, `container prune`.

use super::run::code_byte;
use super::values::{parse_integer, parse_signal};
use crate::base::{ContainerId, Timestamp, human_size, signal_name};
use crate::cli::context::{Context, each, out, talk};
use crate::cli::error::{Failure, Outcome};
use crate::cli::flags::{Flags, Parsed, list, switch, value};
use crate::cli::time::parse_time;
use crate::engine::record::ContainerRecord;
use crate::engine::{Engine, Stopping};
use crate::image::Snapshotter;
use crate::shim::Status;
use crate::shim::protocol::StopReason;
use std::io::{BufRead, IsTerminal};

/// Flags of `stop`.
pub(super) fn stop_verb_flags(flags: Flags) -> Flags {
    stop_flags(flags).arg(switch("all", "Stop every container, as at shutdown: 'start --all' starts them again"))
}

/// Flags of `stop` and `restart`.
pub(super) fn stop_flags(flags: Flags) -> Flags {
    flags.arg(value("signal", "string", "Signal to send first (default: the container's stop signal)").short('s')).arg(
        value(
            "timeout",
            "int",
            "Seconds to wait before killing the container (default: the container's, 10; -1: for ever)",
        )
        .short('t')
        .alias("time"),
    )
}

/// Flags of `kill`.
pub(super) fn kill_flags(flags: Flags) -> Flags {
    flags.arg(value("signal", "string", "Signal to send to the container (default KILL)").short('s'))
}

/// Flags of `prune`.
pub(in crate::cli) fn prune_flags(flags: Flags) -> Flags {
    flags.arg(switch("force", "Do not prompt for confirmation").short('f'))
}

/// Waits for the end of a stop and says when the first process did not heed the signal.
fn stopped(engine: &Engine, name: &str, signal: Option<i32>, (id, stopping): (ContainerId, Stopping)) -> Outcome<()> {
    let number = signal.unwrap_or(engine.record(&id)?.stop_signal);
    if let Some(stopped) = engine.end_stop(&id, stopping)?
        && stopped.killed
    {
        let signal = signal_name(number);
        let why = if stopped.ignored {
            format!(
                "its PID 1 has no handler for {signal}, which the kernel therefore drops; handle it, or use --init or --stop-signal"
            )
        } else {
            format!("it did not end in time after {signal}")
        };
        talk(format!("{name}: killed: {why}\n"));
    }
    Ok(())
}

/// `stop`.
pub(super) fn stop(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let (signal, timeout) = (parsed.read("signal", parse_signal)?, parsed.read("timeout", parse_integer)?);
    let all = parsed.switch("all")?;
    if all && !parsed.arguments.is_empty() {
        return Err(parsed.conflict("conflicting options: --all goes without names"));
    }
    if !all {
        parsed.require_arguments(1)?;
    }
    let engine = context.engine()?;
    let names = match all {
        true => engine.running()?.into_iter().map(|container| container.record.name).collect(),
        false => parsed.arguments.clone(),
    };
    let reason = if all { StopReason::Shutdown } else { StopReason::User };
    let begin = |name: &String| -> Outcome<(ContainerId, Stopping)> {
        let id = engine.find(name)?;
        let stopping = engine.begin_stop(&id, signal, timeout, reason)?;
        Ok((id, stopping))
    };
    // All are asked first, so that those that do not heed it take their time together.
    let mut begun: Vec<Outcome<_>> = names.iter().map(begin).collect();
    begun.reverse();
    each(&names, |name| {
        let Some(begun) = begun.pop() else { return Ok(()) };
        stopped(&engine, name, signal, begun?)?;
        Ok(out(format!("{name}\n"))?)
    })
}

/// `restart`.
pub(super) fn restart(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let (signal, timeout) = (parsed.read("signal", parse_signal)?, parsed.read("timeout", parse_integer)?);
    let engine = context.engine()?;
    each(&parsed.arguments, |name| {
        let id = engine.find(name)?;
        let stopping = engine.begin_stop(&id, signal, timeout, StopReason::User)?;
        stopped(&engine, name, signal, (id.clone(), stopping))?;
        let started = engine.start(&id, &mut || context.launch(), None, None)?;
        started.warnings.iter().for_each(|warning| talk(format!("WARNING: {warning}\n")));
        Ok(out(format!("{name}\n"))?)
    })
}

/// `kill`.
pub(super) fn kill(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let signal = parsed.read("signal", parse_signal)?.unwrap_or(9);
    let engine = context.engine()?;
    each(&parsed.arguments, |name| {
        engine.kill(&engine.find(name)?, signal)?;
        Ok(out(format!("{name}\n"))?)
    })
}

/// `pause`.
pub(super) fn pause(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let engine = context.engine()?;
    each(&parsed.arguments, |name| {
        engine.pause(&engine.find(name)?)?;
        Ok(out(format!("{name}\n"))?)
    })
}

/// `unpause`.
pub(super) fn unpause(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let engine = context.engine()?;
    each(&parsed.arguments, |name| {
        engine.unpause(&engine.find(name)?)?;
        Ok(out(format!("{name}\n"))?)
    })
}

/// `wait`.
pub(super) fn wait(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let engine = context.engine()?;
    each(&parsed.arguments, |name| {
        let code = engine.wait(&engine.find(name)?)?;
        Ok(out(format!("{}\n", code_byte(code)))?)
    })
}

/// `rename`.
pub(super) fn rename(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let engine = context.engine()?;
    let id = engine.find(&parsed.arguments[0])?;
    engine.rename(&id, &parsed.arguments[1])?;
    Ok(0)
}

/// Asks before something is deleted; without a terminal the answer is no, as with Docker.
pub(in crate::cli) fn confirmed(parsed: &Parsed, warning: &str) -> Result<bool, Failure> {
    if parsed.switch("force")? {
        return Ok(true);
    }
    talk(format!("WARNING! {warning}\nAre you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        stdin.lock().read_line(&mut answer)?;
    } else {
        talk("\n");
    }
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Flags of `container prune`.
pub(super) fn container_prune_flags(flags: Flags) -> Flags {
    prune_flags(flags).arg(list(
        "filter",
        "Provide filter values (e.g. \"until=24h\", \"label=KEY[=VALUE]\", \"label!=KEY[=VALUE]\")",
    ))
}

/// One `--filter` of `container prune`; all must hold.
#[derive(Debug, PartialEq)]
enum Pruned {
    /// Created before this.
    Until(Timestamp),
    /// Has this label, with a value or any; or has it not.
    Label(String, Option<String>, bool),
}

impl Pruned {
    fn parse(text: &str) -> Result<Vec<Self>, String> {
        let (key, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
        let label = |wanted| match value.split_once('=') {
            Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned()), wanted),
            None => Self::Label(value.to_owned(), None, wanted),
        };
        Ok(vec![match key {
            "until" => Self::Until(parse_time(value)?),
            "label" => label(true),
            "label!" => label(false),
            _ => return Err(format!("invalid filter '{key}'; known are until, label and label!")),
        }])
    }

    fn holds(&self, record: &ContainerRecord) -> bool {
        match self {
            Self::Until(latest) => record.created < *latest,
            Self::Label(key, value, wanted) => {
                let is = |(known, text): &(String, String)| known == key && value.as_ref().is_none_or(|v| v == text);
                record.labels.iter().any(is) == *wanted
            }
        }
    }
}

/// `container prune`.
pub(super) fn prune(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let filters = parsed.read_all("filter", Pruned::parse)?;
    if !confirmed(&parsed, "This will remove all stopped containers.")? {
        return Ok(0);
    }
    let engine = context.engine()?;
    let stopped = |status| matches!(status, Status::Created | Status::Exited | Status::Dead);
    let ids: Vec<String> = engine
        .list()?
        .into_iter()
        .filter(|container| stopped(container.state.status))
        .filter(|container| filters.iter().all(|filter| filter.holds(&container.record)))
        .map(|container| container.record.id.to_string())
        .collect();
    if !ids.is_empty() {
        out("Deleted Containers:\n")?;
    }
    let mut freed = 0;
    let code = each(&ids, |name| {
        let id = engine.find(name)?;
        let size = Snapshotter::new(&engine.paths).usage(id.as_str()).unwrap_or(0);
        drop(engine.remove(&id, false, false)?);
        freed += size;
        Ok(out(format!("{name}\n"))?)
    })?;
    out(format!("{}Total reclaimed space: {}\n", if ids.is_empty() { "" } else { "\n" }, human_size(freed)))?;
    Ok(code)
}
