//! The builtin steps.

use super::StepError;
use super::mounts::Mounts;
use crate::base::Digest;
use crate::build::cache::BuildCache;
use crate::build::context::Context;
use crate::build::files::{
    Content, CopyOptions, Destination, Entry, Picked, Progress, Source, SourceError, StatCache, digest, resolve_owner,
};
use crate::build::glob::clean;
use crate::build::graph::{CopyPlan, PlannedSource, RunPlan};
use crate::build::ignore::Ignore;
use crate::step::{BuildHost, CommittedLayer, InlineFile, Inputs, Moved, Remote, RemoteWish, RunOrder, Tree};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::BorrowedFd;

/// How much of a failed command's output is kept, bytes.
const TAIL: usize = 16 * 1024;

/// `RUN`.
pub(super) fn run<H: BuildHost>(
    host: &H,
    plan: &RunPlan,
    mounts: &Mounts<'_, H>,
    chain: &[Digest],
    output: &mut dyn FnMut(&[u8]),
) -> Result<CommittedLayer, StepError<H::Error>> {
    let active = host.prepare(chain).map_err(StepError::Host)?;
    let script = plan.script.iter().map(|(path, text)| InlineFile {
        path: path.clone(),
        content: text.clone().into_bytes(),
        mode: 0o755,
    });
    let order = RunOrder {
        args: plan.args.clone(),
        env: plan.env.iter().chain(&plan.hidden_env).cloned().collect(),
        cwd: plan.cwd.clone(),
        user: plan.user.clone(),
        network: plan.network,
        insecure: plan.insecure,
        files: script.collect(),
        secrets: plan.secrets.clone(),
        agents: plan.agents.clone(),
    };
    let mut tail: Vec<u8> = Vec::new();
    let mut keep = |bytes: &[u8]| {
        output(bytes);
        tail.extend_from_slice(bytes);
        if tail.len() > 2 * TAIL {
            tail.drain(..tail.len() - TAIL);
        }
    };
    let code = host.run(&active, &order, &mounts.list(), &mut keep).map_err(StepError::Host)?;
    if code != 0 {
        let start = tail.len().saturating_sub(TAIL);
        return Err(StepError::Exit { code, tail: String::from_utf8_lossy(&tail[start..]).into_owned() });
    }
    host.commit(active).map_err(StepError::Host)
}

/// `WORKDIR`: no layer when the directory is there.
pub(super) fn workdir<H: BuildHost>(
    host: &H,
    path: &str,
    user: &str,
    chain: &[Digest],
) -> Result<Option<CommittedLayer>, StepError<H::Error>> {
    let active = host.prepare(chain).map_err(StepError::Host)?;
    let root = active.root().map_err(StepError::Tree)?;
    let mut target = Destination { root, options: CopyOptions::default() };
    if target.is_directory(path)? {
        return Ok(None);
    }
    if !user.is_empty() {
        target.options.owner = Some(resolve_owner(root, user)?);
    }
    target.directory(path)?;
    host.commit(active).map(Some).map_err(StepError::Host)
}

/// Finds what the sources name. Inline sources are no part of it.
fn pick<E: std::error::Error + Send + Sync>(source: Source<'_>, plan: &CopyPlan) -> Result<Vec<Picked>, StepError<E>> {
    let exclude = Ignore::from_patterns(&plan.exclude)?;
    let source = Source { exclude: Some(&exclude).filter(|e| !e.is_empty()), ..source };
    let mut picked = Vec::new();
    for path in &plan.sources {
        if let PlannedSource::Path(path) = path {
            picked.extend(matches(source, path, plan.parents)?);
        }
    }
    Ok(picked)
}

/// Finds what a pattern names; with `parents`, each keeps the directories above it, but those in front of `/./`.
fn matches(source: Source<'_>, pattern: &str, parents: bool) -> Result<Vec<Picked>, SourceError> {
    let mut found = source.pick(pattern)?;
    if parents {
        let before = pattern.trim_start_matches("./").split_once("/./").map_or("", |(before, _)| before);
        let skip = clean(before).len();
        found.iter_mut().try_for_each(|picked| source.keep_parents(picked, skip))?;
    }
    Ok(found)
}

/// A place that a step fetches from, and what it holds.
type Place<V> = (RemoteWish, Remote<V>);

/// What a step reads besides other stages: files of the context and what they hold, and what is to be fetched.
pub(super) struct Sources<V> {
    pub(super) picked: Vec<Picked>,
    pub(super) content: Content,
    pub(super) remotes: Vec<Place<V>>,
    /// The stage or image that `picked` lies in.
    pub(super) layers: Option<V>,
    /// Whether `content` says what is read, though nothing of it may have been looked at.
    pub(super) known: bool,
}

impl<V> Sources<V> {
    /// Returns each file with a short form of what it is; a directory's own line tells its mode alone.
    pub(super) fn prints(&self) -> BTreeMap<String, u64> {
        let paths = self.picked.iter().flat_map(|source| source.entries.iter().map(move |entry| (source, entry)));
        let name = |(source, entry): (&Picked, &Entry)| {
            // Joining an empty path would leave a slash at the end.
            let path =
                if entry.path.as_os_str().is_empty() { source.base.clone() } else { source.base.join(&entry.path) };
            path.to_string_lossy().into_owned()
        };
        paths.map(name).zip(self.content.prints.iter().copied()).collect()
    }
}

impl<V> Default for Sources<V> {
    fn default() -> Self {
        let content = Content { digest: Digest::of(b""), prints: Vec::new() };
        Self { picked: Vec::new(), content, remotes: Vec::new(), layers: None, known: false }
    }
}

/// Finds and digests the context's files that a step reads.
pub(super) fn context_sources<V, E: std::error::Error + Send + Sync>(
    context: &Context,
    inputs: &Inputs,
    moved: Moved<'_>,
) -> Result<Sources<V>, StepError<E>> {
    let exclude = Ignore::from_patterns(&inputs.exclude)?;
    let named = |name: &str| context.named(name).ok_or_else(|| SourceError::NotFound(name.to_owned()));
    let mut parts = Vec::new();
    let own = inputs.named.as_deref().map_or_else(|| Ok(context.source()), named)?;
    let source = Source { exclude: Some(&exclude).filter(|e| !e.is_empty()), ..own };
    let mut found = Vec::new();
    for pattern in &inputs.patterns {
        found.extend(matches(source, pattern, inputs.parents)?);
    }
    parts.push((source, found));
    let mut found = Vec::new();
    for path in &inputs.paths {
        found.extend(context.source().exactly(path)?);
    }
    parts.push((context.source(), found));
    for (name, path) in &inputs.named_paths {
        parts.push((named(name)?, named(name)?.exactly(path)?));
    }
    parts.retain(|(_, found)| !found.is_empty());
    let mut all = Sources::default();
    for (number, (source, mut found)) in parts.into_iter().enumerate() {
        let mut content = digest(source.root, &found, &context.stats, false, moved)?;
        all.content.digest = match number {
            0 => content.digest,
            _ => Digest::of(format!("{} {}", all.content.digest, content.digest).as_bytes()),
        };
        all.content.prints.append(&mut content.prints);
        all.picked.append(&mut found);
        all.known = true;
    }
    Ok(all)
}

/// Finds out what places hold that a step fetches from.
pub(super) fn look<H: BuildHost>(
    host: &H,
    wishes: Vec<RemoteWish>,
    moved: Moved<'_>,
) -> Result<Vec<Place<H::View>>, StepError<H::Error>> {
    let look = |wish: RemoteWish| {
        let found = host.look(&wish, moved).map_err(StepError::Host)?;
        Ok((wish, found))
    };
    wishes.into_iter().map(look).collect()
}

/// `COPY` and `ADD` from the context.
pub(super) fn copy_context<H: BuildHost>(
    host: &H,
    source: Source<'_>,
    sources: &Sources<H::View>,
    plan: &CopyPlan,
    chain: &[Digest],
    moved: Moved<'_>,
) -> Result<CommittedLayer, StepError<H::Error>> {
    let local = Local { root: source.root, picked: &sources.picked, keep: false };
    copy(host, &local, &sources.remotes, plan, chain, moved)
}

/// Finds out what a `COPY --from` a stage or an image reads: what it is, not what it was made of, and nothing beside it.
pub(super) fn layer_sources<H: BuildHost>(
    host: &H,
    cache: &BuildCache,
    from: &[Digest],
    plan: &CopyPlan,
    moved: Moved<'_>,
) -> Result<Sources<H::View>, StepError<H::Error>> {
    let inputs = serde_json::json!([1, from.last(), plan.sources, plan.exclude, plan.parents]);
    let of = Digest::of(inputs.to_string().as_bytes());
    let (digest, seen) = stack_content(host, cache, from, &of, |source| pick(source, plan), moved)?;
    let content = Content { digest, prints: Vec::new() };
    let (picked, layers) = seen.map_or_else(Default::default, |(picked, view)| (picked, Some(view)));
    Ok(Sources { picked, content, layers, known: true, ..Sources::default() })
}

/// Tells what a bind mount of a stage shows a `RUN`: the files at its path, or, where that is all of them, the stack. A path that
/// leads nowhere, or to what cannot be read, is told by whoever mounts it.
pub(super) fn mounted<H: BuildHost>(
    host: &H,
    cache: &BuildCache,
    from: &[Digest],
    path: &str,
    moved: Moved<'_>,
) -> Result<Option<Digest>, StepError<H::Error>> {
    let stack = from.last().cloned();
    if clean(path).is_empty() {
        return Ok(stack);
    }
    let of = Digest::of(serde_json::json!([2, stack, path]).to_string().as_bytes());
    match stack_content(host, cache, from, &of, |source| Ok(source.exactly(path)?), moved) {
        Err(StepError::Source(_)) => Ok(stack),
        found => found.map(|(digest, _)| Some(digest)),
    }
}

/// What is picked of a stack, and the files where they were looked at.
type Seen<V> = (Digest, Option<(Vec<Picked>, V)>);

/// Digests files of a stack. It never changes, so that what was found once is known, under the name of what was asked.
fn stack_content<H: BuildHost>(
    host: &H,
    cache: &BuildCache,
    from: &[Digest],
    of: &Digest,
    pick: impl FnOnce(Source<'_>) -> Result<Vec<Picked>, StepError<H::Error>>,
    moved: Moved<'_>,
) -> Result<Seen<H::View>, StepError<H::Error>> {
    if let Some(sum) = cache.sum(of) {
        return Ok((sum, None));
    }
    let view = host.view(from).map_err(StepError::Host)?;
    let root = view.root().map_err(StepError::Tree)?;
    let picked = pick(Source { root, ignore: None, exclude: None })?;
    let content = digest(root, &picked, &StatCache::default(), true, moved)?;
    cache.keep_sum(of, &content.digest);
    Ok((content.digest, Some((picked, view))))
}

/// `COPY --from` a stage or an image, as far as it was looked at.
pub(super) fn copy_layers<H: BuildHost>(
    host: &H,
    from: &[Digest],
    sources: &Sources<H::View>,
    plan: &CopyPlan,
    chain: &[Digest],
    moved: Moved<'_>,
) -> Result<CommittedLayer, StepError<H::Error>> {
    if let Some(view) = &sources.layers {
        let root = view.root().map_err(StepError::Tree)?;
        let local = Local { root, picked: &sources.picked, keep: true };
        return copy(host, &local, &[], plan, chain, moved);
    }
    let view = host.view(from).map_err(StepError::Host)?;
    let root = view.root().map_err(StepError::Tree)?;
    let picked = pick(Source { root, ignore: None, exclude: None }, plan)?;
    copy(host, &Local { root, picked: &picked, keep: true }, &[], plan, chain, moved)
}

/// Files that were found in a tree.
struct Local<'l> {
    root: BorrowedFd<'l>,
    picked: &'l [Picked],
    /// Owners are those of the tree.
    keep: bool,
}

fn copy<H: BuildHost>(
    host: &H,
    from: &Local<'_>,
    remotes: &[Place<H::View>],
    plan: &CopyPlan,
    chain: &[Digest],
    moved: Moved<'_>,
) -> Result<CommittedLayer, StepError<H::Error>> {
    let inline = plan.sources.iter().filter(|s| matches!(s, PlannedSource::Inline { .. })).count();
    if from.picked.is_empty() && inline + remotes.len() == 0 {
        return Err(StepError::NothingLeft);
    }
    let several = from.picked.len() + inline + remotes.len() > 1;
    let active = host.prepare(chain).map_err(StepError::Host)?;
    let root = active.root().map_err(StepError::Tree)?;
    let owner = plan.chown.as_deref().map(|text| resolve_owner(root, text)).transpose()?;
    let options = CopyOptions { owner, mode: plan.chmod.as_ref(), link: plan.link, keep: from.keep };
    let target = Destination { root, options };
    let progress = Progress::new(from.picked.iter().map(bytes).sum(), moved);
    for source in from.picked {
        add(host, (from.root, source), plan, plan.unpack, &target, several, &progress)?;
    }
    for (wish, found) in remotes {
        let fetched;
        let tree = match &found.files {
            Some(files) => files,
            None => {
                fetched = host.fetch(wish, found, moved).map_err(StepError::Host)?;
                &fetched
            }
        };
        let root = tree.root().map_err(StepError::Tree)?;
        let exclude = Ignore::from_patterns(&plan.exclude)?;
        let source = Source { root, ignore: None, exclude: Some(&exclude).filter(|e| !e.is_empty()) };
        let picked = match wish {
            RemoteWish::File(file) => source.exactly(&file.name)?,
            RemoteWish::Repository(_) => source.exactly("/")?,
        };
        for source in &picked {
            add(host, (root, source), plan, plan.unpack_fetched, &target, several, &Progress::untold())?;
        }
    }
    for source in &plan.sources {
        if let PlannedSource::Inline { name, content } = source {
            target.write(&plan.destination, name, several, content.as_bytes())?;
        }
    }
    host.commit(active).map_err(StepError::Host)
}

/// Bytes of content that a source holds.
fn bytes(source: &Picked) -> u64 {
    source.entries.iter().map(Entry::bytes).sum()
}

/// Copies one source, or unpacks it where it is an archive and that is wanted.
fn add<H: BuildHost>(
    host: &H,
    (from, source): (BorrowedFd<'_>, &Picked),
    plan: &CopyPlan,
    unpack: bool,
    target: &Destination<'_>,
    several: bool,
    progress: &Progress<'_>,
) -> Result<(), StepError<H::Error>> {
    let under = source.under.to_string_lossy();
    let below = format!("{}/{under}/", plan.destination.trim_end_matches('/'));
    let destination = if under.is_empty() { &plan.destination } else { &below };
    if !source.above.is_empty() {
        target.above(&plan.destination, &source.above)?;
    }
    let size = bytes(source);
    if unpack && !source.is_directory() {
        let file = File::from(source.open(from)?);
        if let Some(archive) = host.unpack(file).map_err(StepError::Host)? {
            target.directory(&plan.destination)?;
            // Owners and modes are the archive's: as in BuildKit and buildah, `--chown` is about the directory it goes to.
            let options = CopyOptions { mode: None, owner: None, keep: true, ..target.options };
            let target = Destination { root: target.root, options };
            let source = Source { root: archive.root().map_err(StepError::Tree)?, ignore: None, exclude: None };
            for tree in source.pick("/")? {
                target.copy(source.root, &tree, &plan.destination, false, &Progress::untold())?;
            }
            progress.add(size);
            return Ok(());
        }
    }
    Ok(target.copy(from, source, destination, several, progress)?)
}
