//! `logs`.

use crate::base::Timestamp;
use crate::cli::context::Context;
use crate::cli::error::{Failure, Outcome, exit};
use crate::cli::flags::{Flags, Parsed, switch, value};
use crate::cli::time::{nanosecond_time, parse_time};
use crate::shim::{LogOptions, LogStream};
use std::io::{BufWriter, Write};

/// Flags of `logs`.
pub(super) fn flags(flags: Flags) -> Flags {
    flags
        .arg(switch("follow", "Follow log output").short('f'))
        .arg(value(
            "since",
            "string",
            "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\")",
        ))
        .arg(value("tail", "string", "Number of lines to show from the end of the logs (default \"all\")").short('n'))
        .arg(switch("timestamps", "Show timestamps").short('t'))
        .arg(value("until", "string", "Show logs before a timestamp or relative (e.g. \"42m\")"))
}

/// Reads `--tail`: `all` or a number; a negative number is all.
fn parse_tail(text: &str) -> Result<Option<u64>, String> {
    match text {
        "all" => Ok(None),
        _ => text
            .parse::<i64>()
            .map(|count| u64::try_from(count).ok())
            .map_err(|_| "not a number of lines or 'all'".to_owned()),
    }
}

/// Writes one piece and says whether the next should wait for more.
fn write(out: &mut dyn Write, at: Option<Timestamp>, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(at) = at {
        write!(out, "{} ", nanosecond_time(at))?;
    }
    out.write_all(bytes)
}

/// `logs`: both streams stay what they are and keep their order.
pub(super) fn logs(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let options = LogOptions {
        tail: parsed.read("tail", parse_tail)?.flatten(),
        since: parsed.read("since", parse_time)?,
        until: parsed.read("until", parse_time)?,
        follow: None,
    };
    let (follow, timestamps) = (parsed.switch("follow")?, parsed.switch("timestamps")?);
    let engine = context.engine()?;
    let container = engine.observe(&engine.find(&parsed.arguments[0])?)?;
    let mut reader = engine.logs(&container, options, follow)?;
    // One piece may be a whole line or less: collect what belongs to one stream, hand it over before the other speaks
    // and whenever a follower may have to wait.
    let mut stdout = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let mut stderr = std::io::stderr().lock();
    loop {
        let entry = reader.next().map_err(|error| Failure::from_error(exit::FAILED, &error))?;
        let Some(entry) = entry else { break };
        let at = (timestamps && entry.starts_line).then_some(entry.timestamp);
        match entry.stream {
            LogStream::Stderr => {
                stdout.flush()?;
                write(&mut stderr, at, entry.bytes)?;
            }
            LogStream::Stdout => {
                write(&mut stdout, at, entry.bytes)?;
                if follow {
                    stdout.flush()?;
                }
            }
        }
    }
    stdout.flush()?;
    Ok(0)
}
