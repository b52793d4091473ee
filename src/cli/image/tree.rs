//! `image tree`: images as the tree that their layers make; what stands on one line is on the disk once.

use crate::base::{Digest, human_size};
use crate::cli::context::{Context, out};
use crate::cli::error::{Failure, Outcome};
use crate::cli::flags::Parsed;
use crate::image::{Image, Images};
use std::fmt::Write as _;

/// Layers that always stand together.
#[derive(Debug, Default, PartialEq)]
struct Branch {
    /// Chain ids, bottom first.
    layers: Vec<Digest>,
    /// Bytes of all of them.
    size: u64,
    /// Images whose top-most layer is the last of them.
    images: Vec<String>,
    above: Vec<Branch>,
}

/// An image as the tree needs it: its label, and its layers with their sizes, bottom first.
type Stack<'a> = (String, Vec<(&'a Digest, u64)>);

/// Grows the tree; stacks keep their order.
fn grow(stacks: &[Stack<'_>], depth: usize) -> Vec<Branch> {
    let mut roots: Vec<&Digest> = Vec::new();
    for (_, layers) in stacks {
        if let Some((id, _)) = layers.get(depth)
            && !roots.contains(id)
        {
            roots.push(id);
        }
    }
    roots.into_iter().map(|id| branch(stacks, id, depth)).collect()
}

fn branch(stacks: &[Stack<'_>], root: &Digest, depth: usize) -> Branch {
    let through = |stack: &&Stack<'_>| stack.1.get(depth).is_some_and(|(id, _)| *id == root);
    let on: Vec<Stack<'_>> = stacks.iter().filter(through).cloned().collect();
    let mut branch = Branch::default();
    // Up to where images end or part.
    for height in depth.. {
        let Some((id, size)) = on.first().and_then(|(_, layers)| layers.get(height)) else { break };
        if !on.iter().all(|(_, layers)| layers.get(height).is_some_and(|(other, _)| other == id)) {
            break;
        }
        branch.layers.push((*id).clone());
        branch.size += size;
        branch.images = on.iter().filter(|(_, l)| l.len() == height + 1).map(|(name, _)| name.clone()).collect();
        if !branch.images.is_empty() {
            break;
        }
    }
    branch.above = grow(&on, depth + branch.layers.len());
    branch
}

fn draw(branches: &[Branch], indent: &str, text: &mut String) {
    for (number, branch) in branches.iter().enumerate() {
        let last = number + 1 == branches.len();
        let (knot, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let count = match branch.layers.len() {
            1 => "1 layer".to_owned(),
            several => format!("{several} layers"),
        };
        let top = branch.layers.last().map_or("", Digest::short);
        let _ = write!(text, "{indent}{knot}{top}  {}  {count}", human_size(branch.size));
        let names = branch.images.join(", ");
        text.push_str(&if names.is_empty() { "\n".to_owned() } else { format!("  {names}\n") });
        draw(&branch.above, &format!("{indent}{below}"), text);
    }
}

/// Bytes on the disk, and those of all images one by one.
fn sizes(stacks: &[Stack<'_>]) -> (u64, u64) {
    let layers = stacks.iter().flat_map(|(_, layers)| layers);
    let seen: std::collections::BTreeMap<&Digest, u64> = layers.map(|(id, size)| (*id, *size)).collect();
    (seen.values().sum(), stacks.iter().flat_map(|(_, layers)| layers).map(|(_, size)| size).sum())
}

fn label(image: &Image) -> String {
    match image.references.as_slice() {
        [] => image.id.short().to_owned(),
        names => names.iter().map(crate::oci::Reference::familiar).collect::<Vec<_>>().join(", "),
    }
}

/// `image tree`.
pub(super) fn tree(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let images = Images::open(context.paths())?;
    let mut chosen = match parsed.arguments.as_slice() {
        [] => images.list()?,
        names => names.iter().map(|name| Ok(images.resolve(name)?)).collect::<Result<_, Failure>>()?,
    };
    chosen.sort_by_key(label);
    let stacks: Vec<Stack<'_>> = chosen
        .iter()
        .map(|image| (label(image), image.layers.iter().map(|layer| (&layer.chain_id, layer.size)).collect()))
        .collect();
    let mut text = String::new();
    draw(&grow(&stacks, 0), "", &mut text);
    for (name, _) in stacks.iter().filter(|(_, layers)| layers.is_empty()) {
        let _ = writeln!(text, "─ no layers  {name}");
    }
    let (once, each) = sizes(&stacks);
    let count = stacks.len();
    let plural = if count == 1 { "" } else { "s" };
    let _ = writeln!(
        text,
        "{count} image{plural}: {} on the disk, {} if nothing were shared",
        human_size(once),
        human_size(each)
    );
    out(text)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_drawn_once() {
        let id = |name: &str| Digest::of(name.as_bytes());
        let ids: Vec<Digest> = ["base", "more", "a", "b", "b2", "other"].map(id).into();
        let stack = |name: &str, layers: &[usize]| {
            (name.to_owned(), layers.iter().map(|n| (&ids[*n], 1000 * (*n as u64 + 1))).collect::<Vec<_>>())
        };
        let stacks = [
            stack("app:1", &[0, 1, 2]),
            stack("base:1", &[0]),
            stack("copy:1", &[0, 1, 2]),
            stack("web:1", &[0, 1, 3, 4]),
            stack("z", &[5]),
        ];
        let mut text = String::new();
        draw(&grow(&stacks, 0), "", &mut text);
        let short = |n: usize| ids[n].short();
        assert_eq!(
            text,
            format!(
                "├─ {}  1kB  1 layer  base:1\n│  └─ {}  2kB  1 layer\n│     ├─ {}  3kB  1 layer  app:1, copy:1\n\
                 │     └─ {}  9kB  2 layers  web:1\n└─ {}  6kB  1 layer  z\n",
                short(0),
                short(1),
                short(2),
                short(4),
                short(5)
            )
        );
        assert_eq!(sizes(&stacks), (21_000, 31_000));
    }
}
