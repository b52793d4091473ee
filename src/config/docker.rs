//! Docker's `config.json`, where credentials of registries are kept (*docker CLI reference "Configuration files"*). Given text;
//! what we do not know in it stays as it is.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::{Map, Value};

/// What Docker's own registry is filed under.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Reads with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// The file is no such file.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An entry is not what it should be.
    #[error("{0} is not what it should be")]
    Form(String),
}

/// What is kept for one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredLogin {
    /// Name; empty when there is only a token.
    pub username: String,
    /// Password; empty when there is only a token.
    pub password: String,
    /// Identity token; empty without one.
    pub identity: String,
    /// Token for the registry itself; empty without one.
    pub registry: String,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerConfig {
    root: Map<String, Value>,
}

impl DockerConfig {
    /// Reads the file's text.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn parse(text: &str) -> Result<Self, DockerConfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        Ok(Self { root: serde_json::from_str(text)? })
    }

    /// Writes the file's text, indented as Docker does.
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        match serde::Serialize::serialize(&self.root, &mut serializer) {
            Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => Value::Object(self.root.clone()).to_string(),
        }
    }

    /// Returns the program that keeps a registry's credentials: the `X` of `docker-credential-X`. One named for the
    /// registry counts before the one for all.
    pub fn helper(&self, registry: &str) -> Option<&str> {
        let helpers = self.root.get("credHelpers").and_then(Value::as_object);
        let own = helpers.into_iter().flatten().find(|(key, _)| host_of(key) == host_of(registry));
        let named = own.map(|(_, name)| name).or_else(|| self.root.get("credsStore"));
        named.and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    /// Returns what the file itself keeps for a registry: an entry of exactly its name, else one of its host and port.
    ///
    /// # Errors
    /// When the entry is not what it should be.
    pub fn login(&self, registry: &str) -> Result<Option<StoredLogin>, DockerConfigError> {
        let Some(entry) = self.entry(registry) else { return Ok(None) };
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut login = StoredLogin {
            username: text("username"),
            password: text("password"),
            identity: text("identitytoken"),
            registry: text("registrytoken"),
        };
        let auth = text("auth");
        if !auth.is_empty() {
            let malformed = || DockerConfigError::Form(format!("\"auth\" of {registry}"));
            let bytes = LENIENT.decode(auth.trim()).map_err(|_| malformed())?;
            let pair = String::from_utf8(bytes).map_err(|_| malformed())?;
            let (username, password) = pair.split_once(':').ok_or_else(malformed)?;
            (login.username, login.password) = (username.to_owned(), password.trim_matches('\0').to_owned());
        }
        let empty = login.password.is_empty() && login.identity.is_empty() && login.registry.is_empty();
        Ok((!empty).then_some(login))
    }

    fn entry(&self, registry: &str) -> Option<&Map<String, Value>> {
        let auths = self.root.get("auths")?.as_object()?;
        let near = || auths.iter().find(|(key, _)| host_of(key) == host_of(registry)).map(|(_, entry)| entry);
        auths.get(registry).or_else(near)?.as_object()
    }

    /// Keeps name and password for a registry; without them only that there is a login, which a helper keeps.
    pub fn set(&mut self, registry: &str, login: Option<(&str, &str)>) {
        self.remove(registry);
        let auths = self.root.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if !auths.is_object() {
            *auths = Value::Object(Map::new());
        }
        let mut entry = Map::new();
        if let Some((username, password)) = login {
            entry.insert("auth".to_owned(), STANDARD.encode(format!("{username}:{password}")).into());
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(registry.to_owned(), Value::Object(entry));
        }
    }

    /// Forgets a registry's login; returns whether there was one.
    pub fn remove(&mut self, registry: &str) -> bool {
        let Some(auths) = self.root.get_mut("auths").and_then(Value::as_object_mut) else { return false };
        let before = auths.len();
        auths.retain(|key, _| host_of(key) != host_of(registry));
        auths.len() != before
    }
}

/// Returns host and port of a name credentials are filed under: `https://host:port/v1/`, `host:port`.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or(rest) {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => "index.docker.io",
        host => host,
    }
}

/// Returns what a registry's credentials are filed under.
pub fn credential_key(registry: &str) -> &str {
    if host_of(registry) == "index.docker.io" { HUB_KEY } else { host_of(registry) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
	"auths": {
		"https://index.docker.io/v1/": {"auth": "bWU6c2U6Y3JldA=="},
		"localhost:5000": {"username": "u", "password": "p"},
		"https://token.example/v2/": {"auth": "eDo", "identitytoken": "t"},
		"broken": {"auth": "!"},
		"empty": {}
	},
	"credHelpers": {"gcr.example": "gcloud"},
	"HttpHeaders": {"X-Meta": "kept"}
}"#;

    fn found(config: &DockerConfig, registry: &str) -> Option<String> {
        let login = config.login(registry).unwrap()?;
        Some(format!("{}|{}|{}", login.username, login.password, login.identity))
    }

    #[test]
    fn logins_are_found_by_host_and_port_alone() {
        let config = DockerConfig::parse(FILE).unwrap();
        assert_eq!(found(&config, HUB_KEY).as_deref(), Some("me|se:cret|"));
        assert_eq!(found(&config, "localhost:5000").as_deref(), Some("u|p|"));
        assert_eq!(found(&config, "token.example").as_deref(), Some("x||t"));
        for other in ["localhost", "localhost:5001", "evil-localhost:5000", "docker.io.evil", "example", "empty", ""] {
            assert_eq!(found(&config, other), None, "{other}");
        }
        assert!(config.login("broken").is_err());
        assert_eq!(config.helper("gcr.example"), Some("gcloud"));
        assert_eq!(config.helper("localhost:5000"), None);
        assert_eq!(DockerConfig::parse(r#"{"credsStore":"pass"}"#).unwrap().helper("any"), Some("pass"));
        assert!(DockerConfig::parse("[]").is_err());
        assert_eq!(DockerConfig::parse(" \n").unwrap(), DockerConfig::default());
    }

    #[test]
    fn a_change_leaves_everything_else_as_it_was() {
        let mut config = DockerConfig::parse(FILE).unwrap();
        config.set("localhost:5000", Some(("new", "word")));
        assert_eq!(found(&config, "localhost:5000").as_deref(), Some("new|word|"));
        assert_eq!(found(&config, HUB_KEY).as_deref(), Some("me|se:cret|"));
        assert!(config.remove("index.docker.io") && !config.remove("index.docker.io"));
        assert_eq!(found(&config, HUB_KEY), None);
        config.set("token.example", None);
        let text = config.text();
        assert!(text.contains("\"X-Meta\": \"kept\"") && text.contains("\"gcr.example\": \"gcloud\""), "{text}");
        assert_eq!(DockerConfig::parse(&text).unwrap(), config);
        assert_eq!(found(&config, "token.example"), None);
        let mut empty = DockerConfig::default();
        empty.set("a:1", Some(("u", "p")));
        assert_eq!(empty.text(), "{\n\t\"auths\": {\n\t\t\"a:1\": {\n\t\t\t\"auth\": \"dTpw\"\n\t\t}\n\t}\n}");
    }

    #[test]
    fn registries_have_one_name_for_their_credentials() {
        for (registry, key) in [
            ("docker.io", HUB_KEY),
            ("index.docker.io", HUB_KEY),
            (HUB_KEY, HUB_KEY),
            ("https://a:5000/", "a:5000"),
            ("a.b", "a.b"),
        ] {
            assert_eq!(credential_key(registry), key, "{registry}");
        }
    }
}
