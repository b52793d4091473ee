//! Who a pull shows its credentials to, and where registries may send it.

use crate::pull::{blob, impatient, is_blob, noisy, refused, run};
use crate::support::registry::{Content, Deed, Registry};
use crate::support::{World, host, requires};
use std::sync::{Arc, Mutex};

/// Stores name and password for a registry as Docker does.
fn login(world: &World, registry: &str) {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode("me:secret");
    world.write("docker/config.json", format!("{{\"auths\":{{{registry:?}:{{\"auth\":\"{pair}\"}}}}}}"));
}

pub(super) const BASIC: &str = "Basic bWU6c2VjcmV0";

#[test]
fn cve_2020_15157_credentials_are_proved_to_those_they_are_for_alone() {
    requires!(root);
    let world = World::new();
    impatient(&world);
    // The blobs lie elsewhere, and that place asks for credentials too.
    let content = noisy(50_000);
    let (name, bytes) = blob(&content);
    let store = Registry::misbehave(&world, Content::default(), move |asked, _| match asked.path.as_str() {
        "/signed?key=1" => Deed::Answer(200, Vec::new(), bytes.clone()),
        _ => Deed::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())], Vec::new()),
    });
    let place = format!("http://{}/signed?key=1", store.address);
    let to = Arc::new(Mutex::new(place));
    let target = Arc::clone(&to);
    let registry = Registry::misbehave(&world, content, move |asked, _| match asked.field("authorization") {
        Some(BASIC) if is_blob(asked, &name) => {
            Deed::Answer(307, vec![("Location", target.lock().unwrap().clone())], Vec::new())
        }
        Some(BASIC) => Deed::Serve,
        _ => Deed::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())], Vec::new()),
    });
    let image = format!("{}/app:1", registry.address);
    refused(&world, &registry, &["refuses access to app", "bulkhead login"]);
    login(&world, &registry.address.replace("127.0.0.1", "localhost"));
    refused(&world, &registry, &["refuses access to app"]);
    login(&world, &registry.address);
    run(&world, &["pull", &image]).ok();
    assert!(!store.asked().is_empty());
    assert!(store.asked().iter().all(|asked| asked.field("authorization").is_none()), "{:?}", store.asked());
    world.ok(&["rmi", &image]);
    // A place that wants credentials gets none.
    *to.lock().unwrap() = format!("http://{}/private", store.address);
    refused(&world, &registry, &["401"]);
    assert!(store.asked().iter().all(|asked| asked.field("authorization").is_none()), "{:?}", store.asked());
}

#[test]
fn redirects_end_and_lead_only_to_addresses() {
    requires!(root);
    let world = World::new();
    impatient(&world);
    let content = noisy(1000);
    let (name, _) = blob(&content);
    for (location, words) in [("", "no address"), ("ftp://x/", "no address"), ("?again", "more than 8 redirects")] {
        let name = name.clone();
        let registry = Registry::misbehave(&world, content.clone(), move |asked, _| match asked.path.contains(&name) {
            true => Deed::Answer(302, vec![("Location", location.to_owned())], Vec::new()),
            false => Deed::Serve,
        });
        refused(&world, &registry, &[words]);
        // The config, the layer, and eight redirects.
        let asked = registry.blobs().len();
        assert!(asked <= 10, "{location:?}: asked {asked} times");
    }
}

#[test]
fn tokens_are_fetched_from_the_place_the_registry_names() {
    requires!(root);
    let world = World::new();
    impatient(&world);
    let place = Registry::misbehave(&world, Content::default(), |asked, _| match asked.field("authorization") {
        None | Some(BASIC) if asked.path.contains("scope=repository%3Aapp%3Apull&") || asked.path.ends_with("pull") => {
            Deed::Answer(200, Vec::new(), br#"{"token":"the-token","expires_in":300}"#.to_vec())
        }
        _ => Deed::Answer(401, Vec::new(), br#"{"details":"who are you"}"#.to_vec()),
    });
    let challenge = |realm: &str| format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:app:pull\"");
    let wanted = Arc::new(Mutex::new(challenge(&format!("http://{}/token", place.address))));
    let field = Arc::clone(&wanted);
    let registry = Registry::misbehave(&world, noisy(1000), move |asked, _| match asked.field("authorization") {
        Some("Bearer the-token") => Deed::Serve,
        _ => Deed::Answer(401, vec![("WWW-Authenticate", field.lock().unwrap().clone())], Vec::new()),
    });
    let image = format!("{}/app:1", registry.address);
    run(&world, &["pull", &image]).ok();
    assert_eq!(place.asked().len(), 1, "one token serves for everything: {:?}", place.asked());
    assert!(place.asked()[0].path.starts_with("/token?service=s&scope="), "{:?}", place.asked());
    world.ok(&["rmi", &image]);
    login(&world, &registry.address);
    run(&world, &["pull", &image]).ok();
    assert_eq!(place.asked()[1].field("authorization"), Some(BASIC));
    assert!(registry.asked().iter().all(|asked| asked.field("authorization") != Some(BASIC)));
    world.ok(&["rmi", &image]);
    for (realm, words) in
        [("", "no address to ask"), ("file:///etc/passwd", "no address to ask"), ("http://127.0.0.1:1/", "connect to")]
    {
        *wanted.lock().unwrap() = challenge(realm);
        refused(&world, &registry, &[words]);
    }
}

#[test]
fn cve_2021_41092_a_missing_helper_sends_nothing() {
    requires!(root);
    let world = World::new();
    let registry = Registry::misbehave(&world, noisy(1000), |asked, _| match asked.field("authorization") {
        Some(BASIC) => Deed::Serve,
        _ => Deed::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())], Vec::new()),
    });
    let helper = world.write(
        "bin/docker-credential-test",
        "#!/bin/sh\nread -r server\n[ \"$1\" = get ] || exit 1\n[ \"$server\" = \"$EXPECT\" ] || { echo 'credentials not found in native keychain'; exit 1; }\necho '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"secret\"}'\n",
    );
    host("chmod", &["+x", helper.to_str().unwrap()]).ok();
    let path = format!("{}:{}", helper.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let docker = world.path("docker").to_string_lossy().into_owned();
    let image = format!("{}/app:1", registry.address);
    let pull = |config: &str, expect: &str| {
        world.write("docker/config.json", config);
        let more = [("DOCKER_CONFIG", docker.as_str()), ("PATH", &path), ("EXPECT", expect)];
        world.bulkhead_in(&["pull", &image], None, &more)
    };
    pull(&format!("{{\"credHelpers\":{{{:?}:\"test\"}}}}", registry.address), &registry.address).ok();
    world.ok(&["rmi", &image]);
    pull("{\"credsStore\":\"test\"}", &registry.address).ok();
    world.ok(&["rmi", &image]);
    pull("{\"credsStore\":\"test\"}", "another").fails(1, &["refuses access"]);
    pull("{\"credsStore\":\"absent\"}", "").fails(1, &["docker-credential-absent get", "cannot be started"]);
    pull("{\"credsStore\":\"../test\"}", "").fails(1, &["no slash"]);
    pull("{", "").fails(1, &["config.json", "not JSON"]);
}
