//! Rules about how a file is written: letters, stage names, continuation lines, comments.

use super::{Finding, Rule};
use crate::build::dockerfile::{LineRange, Node, Tree};
use std::collections::BTreeSet;

/// Names that mean something else where a stage's name may stand.
const RESERVED: [&str; 2] = ["context", "scratch"];

pub(super) fn look(tree: &Tree, text: &str, found: &mut Vec<Finding>) {
    casing(tree, found);
    let lines: Vec<&str> = text.strip_prefix('\u{feff}').unwrap_or(text).lines().collect();
    let mut names = BTreeSet::new();
    for node in &tree.nodes {
        empty_continuation(node, &lines, found);
        match node.keyword.as_str() {
            "from" => stage_name(node, &mut names, &lines, found),
            "arg" => {
                let name = |word: &String| word.split('=').next().unwrap_or_default().to_owned();
                let names: Vec<String> = node.arguments.iter().map(name).collect();
                let example = if let [only] = names.as_slice() { only.clone() } else { "<arg_key>".to_owned() };
                description(node, "ARG", &names, &example, &lines, found);
            }
            "maintainer" => found.push(Rule::MaintainerDeprecated.found(node.lines, "", "")),
            _ => {}
        }
    }
}

/// The instruction's word as it is written.
fn word(node: &Node) -> &str {
    node.original.split_whitespace().next().unwrap_or_default()
}

fn is_lower(word: &str) -> bool {
    word == word.to_lowercase()
}

fn is_upper(word: &str) -> bool {
    word == word.to_uppercase()
}

fn casing(tree: &Tree, found: &mut Vec<Finding>) {
    let lower = tree.nodes.iter().filter(|node| is_lower(word(node))).count();
    let upper = tree.nodes.iter().filter(|node| is_upper(word(node))).count();
    let (fits, majority): (fn(&str) -> bool, _) =
        if lower > upper { (is_lower, "lowercase") } else { (is_upper, "uppercase") };
    for node in tree.nodes.iter().filter(|node| !fits(word(node))) {
        found.push(Rule::ConsistentInstructionCasing.found(node.lines, word(node), majority));
    }
}

fn stage_name(node: &Node, names: &mut BTreeSet<String>, lines: &[&str], found: &mut Vec<Finding>) {
    let [_, keyword, name] = node.arguments.as_slice() else { return };
    let from = word(node);
    let fits = match (is_lower(from), is_upper(from)) {
        (true, _) => is_lower(keyword),
        (_, true) => is_upper(keyword),
        // Neither: the word itself is told of already.
        _ => true,
    };
    if !fits {
        found.push(Rule::FromAsCasing.found(node.lines, keyword, from));
    }
    if !is_lower(name) {
        found.push(Rule::StageNameCasing.found(node.lines, name, ""));
    }
    let name = name.to_lowercase();
    if RESERVED.contains(&name.as_str()) {
        found.push(Rule::ReservedStageName.found(node.lines, &name, ""));
    }
    description(node, "FROM", std::slice::from_ref(&name), &name, lines, found);
    if !names.insert(name.clone()) {
        found.push(Rule::DuplicateStageName.found(node.lines, &name, ""));
    }
}

/// A line without anything between a line that is continued and what continues it.
fn empty_continuation(node: &Node, lines: &[&str], found: &mut Vec<Finding>) {
    let trigger = node.trigger.iter().flat_map(|trigger| &trigger.heredocs);
    let bodies: usize = node.heredocs.iter().chain(trigger).map(|heredoc| heredoc.body.lines().count() + 1).sum();
    let last = node.lines.last.saturating_sub(u32::try_from(bodies).unwrap_or(u32::MAX));
    let empty = (node.lines.first + 1..=last)
        .find(|number| lines.get(*number as usize - 1).is_some_and(|line| line.trim().is_empty()));
    if let Some(line) = empty {
        found.push(Rule::NoEmptyContinuation.found(LineRange { first: line, last: line }, "", ""));
    }
}

/// The comment right above a definition, which tools show as its description.
fn description(
    node: &Node,
    instruction: &str,
    names: &[String],
    example: &str,
    lines: &[&str],
    found: &mut Vec<Finding>,
) {
    let above = (node.lines.first as usize).checked_sub(2).and_then(|index| lines.get(index));
    let Some(comment) = above.and_then(|line| line.trim_start().strip_prefix('#')) else { return };
    let first = comment.trim().split(' ').next().unwrap_or_default();
    if !first.is_empty() && !names.iter().any(|name| name == first) {
        found.push(Rule::InvalidDefinitionDescription.found(node.lines, instruction, example));
    }
}
