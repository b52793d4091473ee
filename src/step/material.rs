//! What a build has from elsewhere.

/// Something from elsewhere that a build stands on (*SLSA v1.0 "ResourceDescriptor"*).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    /// Where it is from, without what may be secret.
    pub uri: String,
    /// `sha256`, or `sha1` for a commit of git.
    pub algorithm: &'static str,
    /// Its digest, in hexadecimal.
    pub digest: String,
}

impl Material {
    /// A commit of a repository; of git's two kinds of digest the length tells which it is.
    pub fn commit(uri: String, commit: &str) -> Self {
        let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
        Self { uri, algorithm, digest: commit.to_owned() }
    }

    /// What a digest of ours is known of.
    pub fn content(uri: String, digest: &crate::base::Digest) -> Self {
        Self { uri, algorithm: "sha256", digest: digest.hex().to_owned() }
    }
}
