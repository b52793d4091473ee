//! `push`, `login`, `logout`, and Debian's `docker-registry` and `skopeo` at the other end.

use crate::support::registry::{Content, Deed, Packed, Registry, digest, layer, noise};
use crate::support::{World, host, requires, wait_for};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

/// Debian's `docker-registry`, in the world's network namespace; ends with this value.
pub(crate) struct Distribution {
    child: Child,
    pub(crate) address: String,
}

impl Distribution {
    /// Starts one without TLS on loopback.
    pub(crate) fn start(world: &World) -> Self {
        Self::begin(world, "127.0.0.1:5000", "", "http")
    }

    fn begin(world: &World, address: &str, more: &str, scheme: &str) -> Self {
        let storage = world.path(&format!("registry{scheme}"));
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: {address}{more}}}\n",
            storage.display()
        );
        let config = world.write(&format!("registry{scheme}.yml"), text);
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", world.netns.as_deref().expect("a network namespace")));
        command.args(["--", "docker-registry", "serve"]).arg(config);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start it");
        let registry = Self { child, address: address.to_owned() };
        wait_for("docker-registry to answer", 20, || {
            let address = format!("{scheme}://{address}/v2/");
            let seen = world.host("curl", &["-sk", "-o", "/dev/null", "-m", "2", &address]);
            (seen.code == 0).then_some(())
        });
        registry
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `skopeo inspect` says of an image: its layers' media types.
fn kinds(world: &World, name: &str) -> Vec<String> {
    let raw = world.host("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]).ok();
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_pushed_is_read_by_others_and_pulled_again() {
    requires!(root, program "docker-registry", program "skopeo", program "curl");
    let world = World::new();
    let registry = Distribution::start(&world);
    let name = |tag: &str| format!("{}/team/app:{tag}", registry.address);
    world.busybox();
    let context = world
        .write("ctx/Dockerfile", "FROM busybox\nRUN seq 1 200000 > /numbers\nCMD [\"wc\", \"-l\", \"/numbers\"]\n");
    world.write("ctx/unused", "x");
    let directory = context.parent().unwrap().to_str().unwrap();
    world.bulkhead(&["build", "--network", "none", "-t", &name("gzip"), directory]).ok();
    let id = world.ok(&["image", "inspect", "--format", "{{.Id}}", &name("gzip")]);
    for (tag, kind) in [("gzip", "tar+gzip"), ("zstd", "tar+zstd"), ("none", ".tar")] {
        world.bulkhead(&["tag", &name("gzip"), &name(tag)]).ok();
        let pushed = world.bulkhead(&["push", "--compression-format", tag, &name(tag)]);
        assert!(pushed.stderr.contains(": Pushed") && pushed.stderr.contains(": digest: sha256:"), "{pushed:?}");
        assert_eq!(pushed.ok(), name(tag));
        let kinds = kinds(&world, &name(tag));
        assert!(kinds.len() == 2 && kinds.iter().all(|found| found.ends_with(kind)), "{kinds:?}");
        let to = format!("dir:{}", world.path(tag).display());
        let from = format!("docker://{}", name(tag));
        world.host("skopeo", &["copy", "-q", "--insecure-policy", "--src-tls-verify=false", &from, &to]).ok();
        // The blobs are what their names say: layers by their first bytes.
        let starts = |start: &[u8]| {
            let files = std::fs::read_dir(world.path(tag)).unwrap().map(|entry| entry.unwrap().path());
            files.filter(|file| std::fs::read(file).unwrap().starts_with(start)).count()
        };
        let expected = match tag {
            "gzip" => (2, 0),
            "zstd" => (0, 2),
            _ => (0, 0),
        };
        assert_eq!((starts(b"\x1f\x8b"), starts(b"\x28\xb5\x2f\xfd")), expected, "{tag}");
        let again = world.bulkhead(&["push", "--compression-format", tag, &name(tag)]);
        assert_eq!(again.stderr.matches("Layer already exists").count(), 2, "{again:?}");
        again.ok();
    }
    for tag in ["gzip", "zstd", "none", "busybox"] {
        world.bulkhead(&["rmi", "-f", if tag == "busybox" { tag.to_owned() } else { name(tag) }.as_str()]);
    }
    world.bulkhead(&["builder", "prune", "-af"]).ok();
    for tag in ["gzip", "zstd", "none"] {
        let ran = world.bulkhead(&["run", "--rm", "--network", "none", &name(tag)]);
        assert!(ran.stderr.contains("Pull complete"), "{ran:?}");
        assert_eq!(ran.ok(), "200000 /numbers");
        assert_eq!(world.ok(&["image", "inspect", "--format", "{{.Id}}", &name(tag)]), id);
        // What came compressed goes back as it came: the same manifest, and nothing is sent.
        if tag != "none" {
            let from = format!("docker://{}", name(tag));
            let raw = || world.host("skopeo", &["inspect", "--raw", "--tls-verify=false", &from]).ok();
            let mut manifest: serde_json::Value = serde_json::from_str(&raw()).unwrap();
            manifest["annotations"] = serde_json::json!({"kept": "yes"});
            let data = format!("@{}", world.write("annotated", manifest.to_string()).display());
            let url = format!("http://{}/v2/team/app/manifests/{tag}", registry.address);
            let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
            world.host("curl", &["-sf", "-X", "PUT", "-H", kind, "--data-binary", &data, &url]).ok();
            world.ok(&["pull", "-q", &name(tag)]);
            let back = world.bulkhead(&["push", &name(tag)]);
            assert_eq!(raw(), manifest.to_string());
            assert_eq!(back.stderr.matches("Layer already exists").count(), 2, "{back:?}");
            back.ok();
            assert!(kinds(&world, &name(tag))[0].ends_with(tag));
        }
        world.ok(&["rmi", &name(tag)]);
        world.bulkhead(&["image", "prune", "-af"]).ok();
    }
}

#[test]
fn tags_are_pushed_together_and_wrong_ones_are_refused() {
    requires!(root, program "docker-registry", program "curl");
    let world = World::new();
    let registry = Distribution::start(&world);
    let name = |tag: &str| format!("{}/app{tag}", registry.address);
    world.busybox();
    for tag in [":a", ":b", ":latest"] {
        world.ok(&["tag", "busybox", &name(tag)]);
    }
    assert_eq!(world.ok(&["push", "-q", "-a", &name("")]).lines().count(), 3);
    let said = world.bulkhead(&["push", &name("")]);
    assert!(said.stderr.contains("Using default tag: latest"), "{said:?}");
    world.bulkhead(&["push", &name(":absent")]).fails(1, &["no such image"]);
    world.bulkhead(&["push", "-a", &name(":a")]).fails(125, &["--all-tags"]);
    world.bulkhead(&["push", "--compression-format", "lzma", &name(":a")]).fails(125, &["gzip, zstd or none"]);
    world.bulkhead(&["push", &name(&format!("@{}", digest(b"x")))]).fails(1, &["digest reference"]);
    world.ok(&["tag", "busybox", "127.0.0.1:1/app"]);
    world.bulkhead(&["push", "127.0.0.1:1/app"]).fails(1, &["connect to 127.0.0.1:1", "Connection refused"]);
}

#[test]
fn logins_are_checked_kept_and_forgotten() {
    requires!(root);
    let world = World::new();
    let basic = "Basic bWU6c2VjcmV0";
    let mut content = Content::default();
    content.image("app:1", &[layer(&[("a", b"b")])], Packed::Gzip);
    let registry = Registry::misbehave(&world, content, move |asked, _| match asked.field("authorization") {
        Some(found) if found == basic => Deed::Serve,
        _ => Deed::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())], Vec::new()),
    });
    let docker = world.path("docker").to_string_lossy().into_owned();
    let run = |arguments: &[&str], input: Option<&str>| {
        world.bulkhead_in(arguments, input.map(str::as_bytes), &[("DOCKER_CONFIG", &docker)])
    };
    let config = || std::fs::read_to_string(world.path("docker/config.json")).unwrap_or_default();
    let image = format!("{}/app:1", registry.address);
    run(&["pull", &image], None).fails(1, &["refuses access", &format!("bulkhead login {}", registry.address)]);
    let with = ["login", "-u", "me", "--password-stdin", &registry.address];
    run(&with, Some("wrong\n")).fails(1, &["refuses the login", "check name and password"]);
    assert_eq!(config(), "", "a wrong password is not kept");
    world.write("docker/config.json", "{\"psFormat\": \"kept\", \"auths\": {\"other\": {\"auth\": \"eDp5\"}}}");
    let said = run(&with, Some("secret\n"));
    assert!(said.stderr.contains("stored unencrypted") && !said.stderr.contains("secret\n"), "{said:?}");
    assert_eq!(said.ok(), "Login Succeeded");
    let text = config();
    assert!(text.contains("bWU6c2VjcmV0") && text.contains("psFormat") && text.contains("eDp5"), "{text}");
    let mode = host("stat", &["-c", "%a", world.path("docker/config.json").to_str().unwrap()]).ok();
    assert_eq!(mode, "600");
    run(&["pull", &image], None).ok();
    assert_eq!(run(&["login", &registry.address], None).ok(), "Login Succeeded");
    assert!(run(&["logout", &registry.address], None).ok().starts_with("Removing login credentials for 127.0.0.1:"));
    assert!(run(&["logout", &registry.address], None).ok().starts_with("Not logged in to 127.0.0.1:"));
    let text = config();
    assert!(!text.contains("bWU6c2VjcmV0") && text.contains("eDp5"), "{text}");
    run(&["login", &registry.address], None).fails(1, &["not a TTY", "--password-stdin"]);
    run(&["login", "--password-stdin", &registry.address], Some("x")).fails(1, &["--username"]);
    run(&["login", "-u", "a:b", "-p", "x", &registry.address], None).fails(1, &["colon"]);
    run(&["login", "-u", "a", "-p", "x", "no_registry"], None).fails(1, &["not a registry"]);
}

#[test]
fn a_helper_is_given_what_it_is_to_keep() {
    requires!(root);
    let world = World::new();
    let registry = Registry::misbehave(&world, Content::default(), |asked, _| match asked.field("authorization") {
        Some("Basic bWU6c2VjcmV0") => Deed::Serve,
        _ => Deed::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())], Vec::new()),
    });
    let kept = world.path("kept");
    let script = format!("#!/bin/sh\necho \"$1\" >> {0}\ncat >> {0}\n", kept.display());
    let helper = world.write("bin/docker-credential-test", script);
    host("chmod", &["+x", helper.to_str().unwrap()]).ok();
    let path = format!("{}:{}", helper.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let docker = world.path("docker").to_string_lossy().into_owned();
    world.write("docker/config.json", "{\"credsStore\": \"test\"}");
    let more = [("DOCKER_CONFIG", docker.as_str()), ("PATH", &path)];
    let login = ["login", "-u", "me", "-p", "secret", &registry.address];
    let said = world.bulkhead_in(&login, None, &more);
    assert!(!said.stderr.contains("unencrypted"), "{said:?}");
    said.ok();
    world.bulkhead_in(&["logout", &registry.address], None, &more).ok();
    let text = std::fs::read_to_string(&kept).unwrap();
    let expected = format!(
        "store\n{{\"ServerURL\":\"{0}\",\"Username\":\"me\",\"Secret\":\"secret\"}}erase\n{0}",
        registry.address
    );
    assert_eq!(text, expected);
    let config = std::fs::read_to_string(world.path("docker/config.json")).unwrap();
    assert!(!config.contains("secret") && !config.contains("bWU6c2VjcmV0"), "{config}");
}

#[test]
fn a_push_proves_itself_to_the_registry_alone_and_does_not_leave_it() {
    requires!(root);
    let world = World::new();
    world.write("bulkhead.toml", "[registry]\nidle_timeout = '1s'\ndocument_timeout = '1s'\n");
    let settings = world.path("bulkhead.toml").to_string_lossy().into_owned();
    let mut content = Content::default();
    content.image("app:1", &[layer(&[("noise", &noise(300_000))])], Packed::Gzip);
    let source = Registry::serve(&world, content);
    world.ok(&["pull", &format!("{}/app:1", source.address)]);
    let place = Registry::misbehave(&world, Content::default(), |_, _| {
        Deed::Answer(202, vec![("Location", "/next".to_owned())], Vec::new())
    });
    let docker = world.path("docker").to_string_lossy().into_owned();
    let deeds = Arc::new(Mutex::new(String::new()));
    let location = Arc::clone(&deeds);
    let registry = Registry::misbehave(&world, Content::default(), move |asked, _| {
        if asked.field("authorization") != Some("Basic bWU6c2VjcmV0") {
            return Deed::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())], Vec::new());
        }
        match asked.method.as_str() {
            "POST" => Deed::Answer(202, vec![("Location", location.lock().unwrap().clone())], Vec::new()),
            _ => Deed::Answer(404, Vec::new(), Vec::new()),
        }
    });
    let auths = format!("{{\"auths\":{{{:?}:{{\"auth\":\"bWU6c2VjcmV0\"}}}}}}", registry.address);
    world.write("docker/config.json", auths);
    let target = format!("{}/app:1", registry.address);
    world.ok(&["tag", &format!("{}/app:1", source.address), &target]);
    let push =
        || world.bulkhead_in(&["push", &target], None, &[("DOCKER_CONFIG", &docker), ("BULKHEAD_CONFIG", &settings)]);
    *deeds.lock().unwrap() = format!("http://{}/upload", place.address);
    push().fails(1, &["push "]);
    assert!(!place.asked().is_empty());
    assert!(place.asked().iter().all(|asked| asked.field("authorization").is_none()), "{:?}", place.asked());
    *deeds.lock().unwrap() = "ftp://x/".to_owned();
    push().fails(1, &["no address"]);
}

#[test]
fn what_another_repository_of_the_registry_has_is_taken_over_and_not_sent() {
    requires!(root, program "docker-registry", program "skopeo", program "curl");
    let world = World::new();
    let registry = Distribution::start(&world);
    let name = |place: &str| format!("{}/{place}/app:1", registry.address);
    world.busybox();
    world.write("app/Dockerfile", "FROM busybox\nRUN echo made > /made\n");
    world.ok(&["build", "-q", "--network", "none", "-t", &name("test"), "app"]);
    world.ok(&["push", "-q", "--compression-format", "zstd", &name("test")]);
    // As it came from there: the layers would be sent with gzip, and the manifest be another.
    world.ok(&["rmi", "-f", &name("test")]);
    world.bulkhead(&["builder", "prune", "-af"]).ok();
    world.ok(&["pull", "-q", &name("test")]);
    world.ok(&["tag", &name("test"), &name("release")]);
    let pushed = world.bulkhead(&["push", &name("release")]).code(0);
    assert_eq!(pushed.stderr.matches("Layer already exists").count(), 2, "{pushed:?}");
    let raw = |place: &str| {
        let from = format!("docker://{}", name(place));
        world.host("skopeo", &["inspect", "--raw", "--tls-verify=false", &from]).ok()
    };
    assert_eq!(raw("release"), raw("test"));
    let to = format!("dir:{}", world.path("copy").display());
    let from = format!("docker://{}", name("release"));
    world.host("skopeo", &["copy", "-q", "--insecure-policy", "--src-tls-verify=false", &from, &to]).ok();
}

#[test]
fn a_registry_that_takes_nothing_over_is_sent_it() {
    requires!(root);
    let world = World::new();
    let mut content = Content::default();
    content.image("a:1", &[layer(&[("file", b"x")])], Packed::Gzip);
    // It lets both repositories be read with a token for both, and begins an upload where it should mount.
    let registry = Registry::misbehave(&world, content, |asked, _| {
        let path = asked.path.split('?').next().unwrap();
        let located = |status, place: &str| Deed::Answer(status, vec![("Location", place.to_owned())], Vec::new());
        match asked.method.as_str() {
            _ if path == "/token" => Deed::Answer(200, Vec::new(), b"{\"token\":\"t\"}".to_vec()),
            _ if asked.field("authorization") != Some("Bearer t") => {
                let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", asked.field("host").unwrap());
                Deed::Answer(401, vec![("WWW-Authenticate", realm)], Vec::new())
            }
            "POST" => located(202, "/upload"),
            "PATCH" => located(202, "/upload"),
            "DELETE" => Deed::Answer(204, Vec::new(), Vec::new()),
            "PUT" => located(201, "/there"),
            "HEAD" if path.starts_with("/v2/b/") => Deed::Answer(404, Vec::new(), Vec::new()),
            _ => Deed::Serve,
        }
    });
    let name = |repository: &str| format!("{}/{repository}:1", registry.address);
    world.ok(&["pull", "-q", &name("a")]);
    world.ok(&["tag", &name("a"), &name("b")]);
    let pushed = world.bulkhead(&["push", &name("b")]).code(0);
    assert!(pushed.stderr.contains(": Pushed"), "{pushed:?}");
    let asked: Vec<(String, String)> = registry.asked().into_iter().map(|asked| (asked.method, asked.path)).collect();
    let has = |method: &str, part: &str| asked.iter().any(|(known, path)| known == method && path.contains(part));
    assert!(
        has("POST", "/v2/b/blobs/uploads/?mount=sha256%3A") || has("POST", "/v2/b/blobs/uploads/?mount=sha256:"),
        "{asked:?}"
    );
    assert!(has("POST", "&from=a") && has("DELETE", "/upload") && has("PUT", "/v2/b/manifests/1"), "{asked:?}");
    let scopes = |path: &str| path.replace("%3A", ":").replace("%2C", ",");
    let token = asked.iter().map(|(_, path)| scopes(path)).find(|path| path.contains("repository:b"));
    assert!(token.unwrap().ends_with("&scope=repository:b:pull,push&scope=repository:a:pull"), "{asked:?}");
}

/// Makes a certificate of an authority of its own for an address; returns the paths of authority, certificate and key.
pub(crate) fn certificate(world: &World, address: &str) -> [String; 3] {
    let [ca, ca_key, request, certificate, key] =
        ["ca.crt", "ca.key", "a.csr", "a.crt", "a.key"].map(|name| world.path(name).to_string_lossy().into_owned());
    let extensions = world.write("extensions", format!("subjectAltName=IP:{address}\n")).to_string_lossy().into_owned();
    let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", &ca_key, "-out", &ca];
    host("openssl", &[&new[..], &authority].concat()).ok();
    host("openssl", &[&new[..], &["-subj", "/CN=registry", "-keyout", &key, "-out", &request]].concat()).ok();
    let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "2"];
    host("openssl", &[&sign[..], &["-extfile", &extensions, "-out", &certificate]].concat()).ok();
    [ca, certificate, key]
}

#[test]
fn a_registry_must_prove_who_it_is() {
    requires!(root, program "docker-registry", program "curl", program "openssl", program "ip");
    let world = World::new();
    let namespace = world.netns.clone().unwrap();
    for address in ["10.99.0.1/32", "10.99.0.2/32"] {
        host("ip", &["-n", &namespace, "addr", "add", address, "dev", "lo"]).ok();
    }
    let [ca, certificate, key] = certificate(&world, "10.99.0.1");
    let tls = format!(", tls: {{certificate: {certificate}, key: {key}}}");
    let _both = Distribution::begin(&world, "0.0.0.0:5443", &tls, "https");
    world.busybox();
    let (right, wrong) = ("10.99.0.1:5443/app:1", "10.99.0.2:5443/app:1");
    for name in [right, wrong] {
        world.ok(&["tag", "busybox", name]);
    }
    let settings = world.path("bulkhead.toml").to_string_lossy().into_owned();
    let run = |arguments: &[&str], roots: &str, text: &str| {
        world.write("bulkhead.toml", text);
        world.bulkhead_in(
            arguments,
            None,
            &[("SSL_CERT_FILE", roots), ("BULKHEAD_CONFIG", &settings), ("NO_PROXY", "*"), ("no_proxy", "*")],
        )
    };
    let none = world.write("none.crt", "").to_string_lossy().into_owned();
    let hint = "certs.d/10.99.0.1:5443";
    run(&["push", right], &none, "").fails(1, &["secure the connection to 10.99.0.1:5443", hint]);
    run(&["push", right], &ca, "").ok();
    run(&["pull", right], &ca, "").ok();
    run(&["push", wrong], &ca, "").fails(1, &["secure the connection to 10.99.0.2:5443"]);
    run(&["push", wrong], &none, "[registry]\ninsecure = ['10.99.0.2:5443']\n").ok();
    run(&["push", wrong], &none, "[registry]\ninsecure = ['10.99.0.0/24']\n").ok();
    run(&["push", wrong], &none, "[registry]\ninsecure = ['10.99.0.1']\n").fails(1, &["secure the connection"]);
    // Without TLS a registry is asked where the operator says so, and nowhere else.
    let plain = Distribution::begin(&world, "10.99.0.1:5080", "", "http");
    let name = format!("{}/app:1", plain.address);
    world.ok(&["tag", "busybox", &name]);
    run(&["push", &name], &ca, "").fails(1, &["secure the connection to 10.99.0.1:5080"]);
    run(&["push", &name], &ca, "[registry]\ninsecure = ['10.99.0.1:5080']\n").ok();
}

#[test]
fn a_build_pushes_what_it_made_and_its_digest_is_known() {
    requires!(root, program "docker-registry", program "curl");
    let world = World::new();
    let registry = Distribution::start(&world);
    let name = |tag: &str| format!("{}/team/app{tag}", registry.address);
    world.busybox();
    world.write("app/Dockerfile", "FROM busybox\nRUN echo made > /made\n");
    world.bulkhead(&["build", "--push", "app"]).fails(125, &["needs a name"]);
    let built = world
        .bulkhead(&["build", "--push", "-t", &name(":1"), "-t", &name(":2"), "--metadata-file", "meta", "app"])
        .code(0);
    assert!(built.stderr.contains(": Pushed"), "{built:?}");
    let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(world.path("meta")).unwrap()).unwrap();
    let digest = meta["containerimage.digest"].as_str().unwrap().to_owned();
    let known = |name: &str| world.ok(&["image", "inspect", "--format", "{{json .RepoDigests}}", name]);
    assert_eq!(known(&name(":1")), format!("[\"{}@{digest}\"]", name("")));
    assert_eq!(known("busybox"), "[]", "no registry knows it");
    let quiet = world.bulkhead(&[
        "build",
        "-q",
        "-o",
        &format!("type=image,name={},push=true,compression=zstd", name(":zstd")),
        "app",
    ]);
    let id = quiet.ok();
    assert_eq!(id, world.ok(&["image", "inspect", "--format", "{{.Id}}", &name(":1")]));
    world.ok(&["rmi", "-f", &name(":1"), &name(":2"), &name(":zstd")]);
    // All tags come back, and the digest names the image as well as a tag does.
    let all = world.bulkhead(&["pull", "-a", &name("")]);
    assert_eq!(all.ok(), name(""));
    for tag in [":1", ":2", ":zstd"] {
        assert_eq!(world.ok(&["run", "--rm", "--network", "none", &name(tag), "cat", "/made"]), "made");
    }
    world.ok(&["pull", &name(":1")]);
    let by_digest = name(&format!("@{digest}"));
    assert_eq!(known(&by_digest), format!("[\"{by_digest}\"]"));
    let listed = world.ok(&["images", "--digests", "--format", "{{.Tag}} {{.Digest}}", &name("")]);
    assert!(listed.contains(&format!("1 {digest}")), "{listed}");
    world.bulkhead(&["pull", "-a", &name(":1")]).fails(125, &["tag can't be used"]);
    world.bulkhead(&["pull", "-a", &format!("{}/nothing", registry.address)]).fails(1, &["list the tags"]);
}
