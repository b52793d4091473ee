//! The rules: their names, what each is about, and where it is explained. Names and texts are BuildKit's, so that what
//! people know, skip and look up stays the same.

use crate::build::dockerfile::{LineRange, go_quote};

macro_rules! rules {
    ($($name:ident $page:literal $about:literal;)+) => {
        /// A rule of `build --check`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule { $(#[doc = $about] $name,)+ }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Returns its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// Returns what it asks for.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$name => $about,)+ }
            }

            /// Returns the address of the page that explains it.
            pub const fn page(self) -> &'static str {
                match self { $(Self::$name => concat!("https://docs.docker.com/go/dockerfile/rule/", $page, "/"),)+ }
            }
        }
    };
}

rules! {
    StageNameCasing "stage-name-casing" "Stage names should be lowercase";
    FromAsCasing "from-as-casing" "The 'as' keyword should match the case of the 'from' keyword";
    NoEmptyContinuation "no-empty-continuation" "Empty continuation lines will become errors in a future release";
    ConsistentInstructionCasing "consistent-instruction-casing"
        "All commands within the Dockerfile should use the same casing (either upper or lower)";
    DuplicateStageName "duplicate-stage-name" "Stage names should be unique";
    ReservedStageName "reserved-stage-name" "Reserved words should not be used as stage names";
    JSONArgsRecommended "json-args-recommended"
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    MaintainerDeprecated "maintainer-deprecated"
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    UndefinedArgInFrom "undefined-arg-in-from" "FROM command must use declared ARGs";
    WorkdirRelativePath "workdir-relative-path"
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    UndefinedVar "undefined-var" "Variables should be defined before their use";
    MultipleInstructionsDisallowed "multiple-instructions-disallowed"
        "Multiple instructions of the same type should not be used in the same stage";
    LegacyKeyValueFormat "legacy-key-value-format"
        "Legacy key/value format with whitespace separator should not be used";
    RedundantTargetPlatform "redundant-target-platform"
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    SecretsUsedInArgOrEnv "secrets-used-in-arg-or-env" "Sensitive data should not be used in the ARG or ENV commands";
    InvalidDefaultArgInFrom "invalid-default-arg-in-from"
        "Default value for global ARG results in an empty or invalid base image name";
    FromPlatformFlagConstDisallowed "from-platform-flag-const-disallowed"
        "FROM --platform flag should not use a constant value";
    CopyIgnoredFile "copy-ignored-file" "Attempting to Copy file that is excluded by .dockerignore";
    InvalidDefinitionDescription "invalid-definition-description"
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.";
    ExposeProtoCasing "expose-proto-casing" "Protocol in EXPOSE instruction should be lowercase";
    ExposeInvalidFormat "expose-invalid-format"
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
}

impl Rule {
    /// Tells whether it must be asked for (`# check=experimental=...`).
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::InvalidDefinitionDescription)
    }

    /// Finds a rule by its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.name() == name)
    }

    /// Makes a finding; `first` and `second` are what its text names.
    pub(super) fn found(self, lines: LineRange, first: &str, second: &str) -> Finding {
        let message = match self {
            Self::StageNameCasing => format!("Stage name '{first}' should be lowercase"),
            Self::FromAsCasing => format!("'{first}' and '{second}' keywords' casing do not match"),
            Self::NoEmptyContinuation => "Empty continuation line".to_owned(),
            Self::ConsistentInstructionCasing => {
                format!("Command '{first}' should match the case of the command majority ({second})")
            }
            Self::DuplicateStageName => {
                format!("Duplicate stage name {}, stage names should be unique", go_quote(first))
            }
            Self::ReservedStageName => {
                format!("Stage name should not use the same name as reserved stage {}", go_quote(first))
            }
            Self::JSONArgsRecommended => {
                format!("JSON arguments recommended for {first} to prevent unintended behavior related to OS signals")
            }
            Self::MaintainerDeprecated => "Maintainer instruction is deprecated in favor of using label".to_owned(),
            Self::UndefinedArgInFrom => format!("FROM argument '{first}' is not declared{}", meant("", second)),
            Self::WorkdirRelativePath => {
                format!("Relative workdir {} can have unexpected results if the base image changes", go_quote(first))
            }
            Self::UndefinedVar => format!("Usage of undefined variable '${first}'{}", meant("$", second)),
            Self::MultipleInstructionsDisallowed => format!(
                "Multiple {first} instructions should not be used in the same stage because only the last one will be used"
            ),
            Self::LegacyKeyValueFormat => {
                format!("\"{first} key=value\" should be used instead of legacy \"{first} key value\" format")
            }
            Self::RedundantTargetPlatform => {
                format!("Setting platform to predefined {first} in FROM is redundant as this is the default behavior")
            }
            Self::SecretsUsedInArgOrEnv => {
                format!("Do not use ARG or ENV instructions for sensitive data ({first} {})", go_quote(second))
            }
            Self::InvalidDefaultArgInFrom => {
                format!("Default value for ARG {first} results in empty or invalid base image name")
            }
            Self::FromPlatformFlagConstDisallowed => {
                format!("FROM --platform flag should not use constant value {}", go_quote(first))
            }
            Self::CopyIgnoredFile => {
                format!("Attempting to {first} file {} that is excluded by .dockerignore", go_quote(second))
            }
            Self::InvalidDefinitionDescription => {
                format!("Comment for {first} should follow the format: `# {second} <description>`")
            }
            Self::ExposeProtoCasing => format!("Defined protocol '{first}' in EXPOSE instruction should be lowercase"),
            Self::ExposeInvalidFormat => {
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{first}'")
            }
        };
        Finding { rule: self, message, lines }
    }
}

fn meant(mark: &str, name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" (did you mean {mark}{name}?)") }
}

/// Something a rule has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What it found.
    pub message: String,
    /// Where.
    pub lines: LineRange,
}

impl std::fmt::Display for Finding {
    /// In one line: `StageNameCasing: Stage name 'A' should be lowercase (line 1)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (line {})", self.rule.name(), self.message, self.lines.first)
    }
}
