//! `rm`.

use crate::base::ContainerId;
use crate::cli::context::{Context, each, out, talk};
use crate::cli::error::Outcome;
use crate::cli::flags::{Flags, Parsed, switch};
use crate::engine::{Engine, EngineError, Parting, Stopping};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::iter::Enumerate;
use std::sync::{Mutex, PoisonError, mpsc};

/// Flags of `rm`.
pub(super) fn flags(flags: Flags) -> Flags {
    flags
        .arg(switch("force", "Force the removal of a running container (uses SIGKILL)").short('f'))
        .arg(switch("volumes", "Remove anonymous volumes associated with the container").short('v'))
}

/// What is done with a name.
enum Turn {
    /// It is killed and dies; it may be removed beside others.
    Dying(ContainerId, Stopping),
    /// It may be removed beside others.
    Found(ContainerId),
    /// It is not there, or named twice: looked at when everything before it on the command line is done.
    Later,
}

/// Containers to remove. With force they are killed before it is their turn, so that they take their time together.
struct Queue<'a> {
    engine: &'a Engine,
    force: bool,
    /// Those not looked at yet, with their places on the command line.
    names: Enumerate<std::slice::Iter<'a, String>>,
    seen: BTreeSet<ContainerId>,
    begun: VecDeque<(usize, Turn)>,
}

impl Queue<'_> {
    /// Most that die at one time: each holds a connection.
    const MOST: usize = 16;
    /// Most whose shims wait for the end of all: each holds a connection, and the files of one that has ended.
    const PARTING: usize = 256;
    /// Most that are removed at one time. Much of a removal is waiting, for the disk and for the supervisor.
    const AT_ONCE: usize = 4;

    /// Kills the next ones and returns the first of them.
    fn next(&mut self) -> Option<(usize, Turn)> {
        while self.begun.len() < Self::MOST
            && let Some((place, name)) = self.names.next()
        {
            let turn = match self.engine.find(name) {
                Ok(id) if !self.seen.insert(id.clone()) => Turn::Later,
                Ok(id) if self.force => Turn::Dying(id.clone(), self.engine.begin_removal(&id)),
                Ok(id) => Turn::Found(id),
                Err(_) => Turn::Later,
            };
            self.begun.push_back((place, turn));
        }
        self.begun.pop_front()
    }
}

/// `rm`.
pub(super) fn rm(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let (force, volumes) = (parsed.switch("force")?, parsed.switch("volumes")?);
    let engine = context.engine()?;
    let names = &parsed.arguments;
    let queue = Mutex::new(Queue {
        engine: &engine,
        force,
        names: names.iter().enumerate(),
        seen: BTreeSet::new(),
        begun: VecDeque::new(),
    });
    // A place without a result is looked at later.
    let next = || -> Option<(usize, Option<Result<Parting, EngineError>>)> {
        let (place, turn) = queue.lock().unwrap_or_else(PoisonError::into_inner).next()?;
        let removed = match turn {
            Turn::Dying(id, begun) => Some(engine.end_removal(&id, begun, volumes)),
            Turn::Found(id) => Some(engine.remove(&id, force, volumes)),
            Turn::Later => None,
        };
        Some((place, removed))
    };
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 1..names.len().min(Queue::AT_ONCE) {
            let (sender, next) = (sender.clone(), &next);
            // Where no thread can be had, those there are do the work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, move || {
                std::iter::from_fn(next).for_each(|result| drop(sender.send(result)));
            });
        }
        drop(sender);
        let (mut done, mut parting) = (BTreeMap::new(), Vec::new());
        let mut places = 0..;
        // Told in the order of the command line.
        each(names, |name| {
            let place = places.next().unwrap_or_default();
            while !done.contains_key(&place)
                && let Some((place, removed)) = next().or_else(|| results.recv().ok())
            {
                done.insert(place, removed);
                done.extend(results.try_iter());
            }
            let removed = done.remove(&place).flatten();
            match removed.unwrap_or_else(|| engine.remove(&engine.find(name)?, force, volumes)) {
                // What is not there is removed already; Docker says so and goes on.
                Err(error @ EngineError::NoContainer(_)) if force => talk(format!("{error}\n")),
                other => {
                    if parting.len() == Queue::PARTING {
                        parting.clear();
                    }
                    parting.push(other?);
                    out(format!("{name}\n"))?;
                }
            }
            Ok(())
        })
    })
}
