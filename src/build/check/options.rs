//! `# check=skip=A,B;error=true`: which rules hold, and whether what they find is an error.

use super::Rule;
use std::collections::BTreeSet;

/// Which rules hold (*Dockerfile reference "check"*).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    skip_all: bool,
    skip: BTreeSet<String>,
    experimental_all: bool,
    experimental: BTreeSet<String>,
    /// A finding ends the build.
    pub error: bool,
}

/// A `# check=` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid check option {0:?}: it is written skip=RULE,RULE;experimental=RULE;error=true")]
pub struct OptionsError(pub String);

impl Options {
    /// Reads the text behind `# check=`. Rules of other names are taken, too: another builder may have them.
    ///
    /// # Errors
    /// When a part of it is no such option.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || OptionsError(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match (name.trim(), value.trim()) {
                ("skip", "all") => options.skip_all = true,
                ("skip", _) => options.skip = names(),
                ("experimental", "all") => options.experimental_all = true,
                ("experimental", _) => options.experimental = names(),
                ("error", "true" | "TRUE" | "True" | "t" | "T" | "1") => options.error = true,
                ("error", "false" | "FALSE" | "False" | "f" | "F" | "0") => options.error = false,
                _ => return Err(wrong()),
            }
        }
        Ok(options)
    }

    /// Tells whether a rule holds.
    pub fn holds(&self, rule: Rule) -> bool {
        if rule.is_experimental() {
            return self.experimental_all || self.experimental.contains(rule.name());
        }
        !self.skip_all && !self.skip.contains(rule.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_the_reference_writes_them() {
        let read = |text: &str| Options::parse(text).unwrap();
        let (casing, described) = (Rule::StageNameCasing, Rule::InvalidDefinitionDescription);
        assert!(read("").holds(casing) && !read("").holds(described) && !read("").error);
        let some = read("skip=JSONArgsRecommended, StageNameCasing ; error=true");
        assert!(!some.holds(casing) && some.holds(Rule::FromAsCasing) && some.error);
        assert!(!read("skip=all").holds(Rule::FromAsCasing));
        assert!(read("experimental=InvalidDefinitionDescription").holds(described));
        assert!(read("experimental=all;skip=all").holds(described));
        for wrong in ["skip", "error=perhaps", "other=1"] {
            assert_eq!(Options::parse(wrong), Err(OptionsError(wrong.to_owned())));
        }
    }
}
