//! Generated container names: `adjective_surname`, as people know them from Docker, with our own lists.

const ADJECTIVES: [&str; 64] = [
    "agile", "amber", "ample", "apt", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever", "crisp",
    "deft", "eager", "early", "even", "fair", "fast", "fine", "firm", "fleet", "fond", "frank", "fresh", "gentle",
    "glad", "grand", "hardy", "honest", "keen", "kind", "light", "lively", "loyal", "lucid", "mellow", "merry", "mild",
    "modest", "neat", "nimble", "noble", "patient", "plain", "proud", "quick", "quiet", "rapid", "ready", "robust",
    "serene", "sharp", "silent", "sleek", "solid", "sound", "spry", "steady", "sturdy", "swift", "tidy", "vivid",
    "warm",
];

const SURNAMES: [&str; 64] = [
    "allen",
    "backus",
    "bartik",
    "blum",
    "boole",
    "borg",
    "brooks",
    "cerf",
    "church",
    "clarke",
    "codd",
    "conway",
    "cook",
    "cray",
    "dahl",
    "dijkstra",
    "eckert",
    "engelbart",
    "estrin",
    "floyd",
    "gries",
    "hamilton",
    "hamming",
    "hoare",
    "holberton",
    "hopper",
    "huffman",
    "iverson",
    "jackson",
    "johnson",
    "karp",
    "kay",
    "kleene",
    "knuth",
    "lamport",
    "lampson",
    "liskov",
    "lovelace",
    "mccarthy",
    "milner",
    "minsky",
    "moore",
    "naur",
    "newell",
    "nygaard",
    "parnas",
    "perlis",
    "perlman",
    "pike",
    "rabin",
    "ritchie",
    "rivest",
    "sammet",
    "scott",
    "shannon",
    "simon",
    "snyder",
    "tarjan",
    "thompson",
    "torvalds",
    "turing",
    "wilkes",
    "wirth",
    "zuse",
];

/// Returns the name for a container by its id; `attempt` above zero adds a number, for names already taken.
pub(super) fn generate(id: &str, attempt: u32) -> String {
    // The id is random, so its digits choose the words.
    let pick = |from: usize| usize::from_str_radix(id.get(from..from + 4).unwrap_or("0"), 16).unwrap_or(0);
    let name = format!("{}_{}", ADJECTIVES[pick(8) % ADJECTIVES.len()], SURNAMES[pick(12) % SURNAMES.len()]);
    if attempt == 0 { name } else { format!("{name}{}", pick(12 + 4 * (attempt as usize % 12)) % 1000) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_valid_and_change_with_the_attempt() {
        let id = crate::base::ContainerId::generate();
        let (first, second) = (super::generate(id.as_str(), 0), super::generate(id.as_str(), 1));
        crate::store::Names::check(&first).unwrap();
        crate::store::Names::check(&second).unwrap();
        assert_ne!(first, second);
    }
}
