//! The Dockerfiles of the tutorials are built, with what they install: on bases made from distribution packages, from the package
//! registries that this machine is set up for. Its settings reach a step as binds and build arguments, read here and kept nowhere.

use crate::support::{Outcome, World, host, requires, wait_for};
use std::path::Path;

/// What a step needs to reach package registries from this machine.
fn settings(world: &World) -> Vec<String> {
    let mut flags = Vec::new();
    let mut bind = |from: &str, to: &str| {
        if Path::new(from).is_file() {
            flags.extend(["-v".to_owned(), format!("{from}:{to}:ro")]);
        }
    };
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    bind("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt");
    bind("/etc/pip.conf", "/etc/pip.conf");
    bind(&format!("{home}/.config/pip/pip.conf"), "/root/.config/pip/pip.conf");
    bind(&format!("{home}/.npmrc"), "/root/.npmrc");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/images/make.sh");
    let sources = world.write("sources.list", host(script.to_str().unwrap(), &["--sources"]).ok());
    bind(sources.to_str().unwrap(), "/etc/apt/sources.list");
    let apt = host("sh", &["-c", "apt-config dump | grep -E '^Acquire::https?::(Proxy|Verify-Peer|CaInfo)'"]).stdout;
    bind(world.write("apt.conf", apt).to_str().unwrap(), "/etc/apt/apt.conf.d/90machine");
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        if let Ok(value) = std::env::var(name).or_else(|_| std::env::var(name.to_uppercase())) {
            flags.extend(["--build-arg".to_owned(), format!("{name}={value}")]);
        }
    }
    flags
}

/// The Dockerfile of a scenario.
fn dockerfile(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dockerfile").join(name).join("Dockerfile");
    std::fs::read_to_string(path).unwrap()
}

/// Builds a directory of the world as `made:1` with the machine's settings.
fn build(world: &World, name: &str, more: &[&str]) -> Outcome {
    let (flags, directory) = (settings(world), world.path(name));
    let mut words = vec!["timeout", "600", crate::support::BULKHEAD, "--root", world.root.to_str().unwrap(), "--run"];
    words.extend([world.run.to_str().unwrap(), "build", "--progress=plain", "-t", "made:1"]);
    words.extend(flags.iter().map(String::as_str).chain(more.iter().copied()));
    words.push(directory.to_str().unwrap());
    // Longer than other commands of tests may take.
    let mut command = std::process::Command::new(words[0]);
    command.args(&words[1..]).env("NO_COLOR", "1");
    let seen = Outcome::of(&mut command, None);
    world.note();
    seen
}

fn run(world: &World, words: &[&str]) -> String {
    world.ok(&[&["run", "--rm", "--network", "none", "made:1"], words].concat())
}

/// None of the machine's settings is in the image: neither files nor words.
fn keeps_nothing(world: &World) {
    let tar = world.path("made.tar");
    world.ok(&["save", "-o", tar.to_str().unwrap(), "made:1"]);
    let history = world.ok(&["history", "--no-trunc", "made:1"]) + &world.inspect("made:1", "{{json .Config}}");
    let files = "cat /etc/pip.conf /root/.npmrc /root/.config/pip/pip.conf /etc/apt/sources.list /etc/apt/apt.conf.d/90machine 2>/dev/null; true";
    let left = world.ok(&["run", "--rm", "--network", "none", "--entrypoint", "sh", "made:1", "-c", files]);
    assert_eq!(left, "", "files of the machine");
    for name in ["http_proxy", "https_proxy"] {
        if let Ok(value) = std::env::var(name) {
            assert!(!history.contains(&value), "{name} is in the history");
        }
    }
    std::fs::remove_file(tar).unwrap();
}

#[test]
fn scenario_python_installs_and_runs() {
    requires!(root, image "python", program "docker-registry", program "curl");
    let world = World::online();
    let base = world.base_image("python");
    // The base lies in a registry, and is pulled from there by its usual name.
    let storage = world.path("registry");
    let config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:5055}}\n",
        storage.display()
    );
    let config = world.write("registry.yml", config);
    let mut registry =
        std::process::Command::new("docker-registry").args(["serve", config.to_str().unwrap()]).spawn().unwrap();
    wait_for("the registry", 20, || {
        let seen = host("curl", &["-s", "-o", "/dev/null", "--noproxy", "*", "http://127.0.0.1:5055/v2/"]);
        (seen.code == 0).then_some(())
    });
    let name = format!("127.0.0.1:5055/library/{base}");
    world.ok(&["tag", &base, &name]);
    world.ok(&["push", "-q", "--compression-format", "zstd", &name]);
    world.ok(&["rmi", "-f", &name, &base]);
    let mirrors = world.write("bulkhead.toml", "[registry.mirrors]\n'docker.io' = ['127.0.0.1:5055']\n");
    let pull = world.bulkhead_in(
        &["pull", &base],
        None,
        &[("BULKHEAD_CONFIG", mirrors.to_str().unwrap()), ("NO_PROXY", "127.0.0.1")],
    );
    registry.kill().unwrap();
    registry.wait().unwrap();
    assert!(pull.stderr.contains("Pull complete"), "{pull:?}");
    world.write("python/Dockerfile", dockerfile("scenario-python"));
    world.write("python/requirements.txt", "requests\nflask==2.3.3\n");
    world.write("python/app.py", "import flask, requests\nprint('flask', flask.__version__)\n");
    let seen = build(&world, "python", &[]);
    assert!(seen.stderr.contains("Successfully installed"), "{seen:?}");
    seen.ok();
    assert_eq!(run(&world, &[]).lines().last(), Some("flask 2.3.3"));
    keeps_nothing(&world);
    // A changed program is copied; nothing is installed again.
    world.write("python/app.py", "print('changed')\n");
    let again = build(&world, "python", &[]);
    assert!(!again.stderr.contains("Successfully installed"), "{again:?}");
    again.ok();
    assert_eq!(run(&world, &[]), "changed");
}

#[test]
fn scenario_node_installs_and_runs() {
    requires!(root, image "node");
    let world = World::online();
    world.base_image("node");
    world.write("node/Dockerfile", dockerfile("scenario-node"));
    world.write(
        "node/package.json",
        "{\"name\": \"app\", \"version\": \"1.0.0\", \"dependencies\": {\"ms\": \"2.1.3\"}}\n",
    );
    world.write("node/server.js", "console.log(require('ms')('2 days'));\n");
    build(&world, "node", &[]).ok();
    assert_eq!(run(&world, &[]), "172800000");
    keeps_nothing(&world);
}

#[test]
fn scenario_make_copies_and_makes() {
    requires!(root, image "ubuntu");
    let world = World::new();
    world.base_image("ubuntu");
    world.write("make/Dockerfile", dockerfile("scenario-make"));
    world.write("make/app.py", "print('made')\n");
    let directory = world.path("make");
    let seen = world.bulkhead(&["build", "--progress=plain", "-t", "made:1", directory.to_str().unwrap()]);
    assert!(seen.stderr.contains("make: Nothing to be done for '/app'."), "{seen:?}");
    seen.ok();
    assert_eq!(run(&world, &[]), "made");
}

#[test]
fn scenario_comment_installs_by_apt_and_pip() {
    requires!(root, image "python");
    let world = World::online();
    let base = world.base_image("python");
    world.ok(&["tag", &base, "python:3"]);
    world.write("comment/Dockerfile", dockerfile("scenario-comment"));
    world.write("comment/requirements.txt", "idna\n");
    build(&world, "comment", &[]).ok();
    assert!(
        run(
            &world,
            &["sh", "-c", "ls /usr/include/postgresql/libpq-fe.h && python -c 'import idna; print(idna.__name__)'"]
        )
        .ends_with("idna")
    );
    keeps_nothing(&world);
}

#[test]
fn scenario_poetry_exports_and_installs() {
    requires!(root, image "python", full);
    let world = World::online();
    let base = world.base_image("python");
    world.ok(&["tag", &base, "python:3"]);
    // The tutorial shows the step alone: what it works on stands before it.
    let before = "FROM python:3\nWORKDIR /app\nCOPY pyproject.toml poetry.lock ./\n";
    world.write("poetry/Dockerfile", dockerfile("scenario-poetry").replacen("FROM python:3\n", before, 1));
    let project = "[tool.poetry]\nname = \"app\"\nversion = \"0.1.0\"\ndescription = \"\"\nauthors = []\n\n[tool.poetry.dependencies]\npython = \"^3.8\"\nidna = \"3.4\"\n";
    world.write("poetry/pyproject.toml", project);
    let lock = "[[package]]\nname = \"idna\"\nversion = \"3.4\"\ndescription = \"\"\ncategory = \"main\"\noptional = false\npython-versions = \">=3.5\"\n\n\
                [metadata]\nlock-version = \"1.1\"\npython-versions = \"^3.8\"\ncontent-hash = \"x\"\n\n[metadata.files]\nidna = []\n";
    world.write("poetry/poetry.lock", lock);
    build(&world, "poetry", &[]).ok();
    assert_eq!(run(&world, &["python", "-c", "import idna; print(idna.__version__)"]), "3.4");
    assert!(run(&world, &["cat", "/app/requirements.txt"]).contains("idna==3.4"));
    keeps_nothing(&world);
}

#[test]
fn scenario_mysql_sets_what_the_server_reads() {
    requires!(root, image "mariadb");
    let world = World::new();
    let base = world.base_image("mariadb");
    world.ok(&["tag", &base, "mysql:latest"]);
    world.write("mysql/Dockerfile", dockerfile("scenario-mysql"));
    world.ok(&["build", "-q", "-t", "made:1", world.path("mysql").to_str().unwrap()]);
    world.ok(&["run", "-d", "--name", "db", "--network", "none", "made:1"]);
    let ask = ["exec", "db", "mariadb", "-umy_user", "-pmy_password", "my_db", "-e", "select database()"];
    wait_for("the server to know its user", 90, || world.bulkhead(&ask).stdout.contains("my_db").then_some(()));
    world.ok(&["rm", "-f", "-v", "db"]);
}

#[test]
fn scenario_anaconda_fails_at_its_line_and_builds_mended() {
    requires!(root, image "ubuntu", program "python3");
    let world = World::online();
    world.base_image("ubuntu");
    let file = dockerfile("scenario-anaconda");
    world.write("conda/Dockerfile", &file);
    world.write("conda/README", "x\n");
    let seen = build(&world, "conda", &[]);
    seen.fails(1, &["E: Unable to locate package update", ">>>    2 | RUN apt-get install -y update", "exit code 100"]);
    // Mended, with an installer of ours: it makes a directory with programs, as the real one does.
    let installer = "[ \"$1\" = -b ] || exit 2\nmkdir -p /usr/src/test/anaconda3/bin\ncd /usr/src/test/anaconda3/bin\nln -s /usr/bin/python3 python\n\
                     printf '#!/bin/sh\\nexec /usr/bin/python3 -m pip \"$@\"\\n' > pip\nchmod +x pip\necho installed\n";
    world.write("www/Anaconda.sh", installer);
    let www = world.path("www").to_string_lossy().into_owned();
    let mut server = std::process::Command::new("python3")
        .args(["-m", "http.server", "8077", "--bind", "127.0.0.1", "-d", &www])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mended = file
        .replace("RUN apt-get install -y update", "RUN apt-get update")
        .replace("https://example.com/Anaconda.sh", "--no-proxy http://127.0.0.1:8077/Anaconda.sh");
    assert!(mended.matches("RUN ").count() == file.matches("RUN ").count() && mended != file);
    world.write("conda/Dockerfile", mended);
    let seen = build(&world, "conda", &["--network", "host"]);
    server.kill().unwrap();
    server.wait().unwrap();
    seen.ok();
    let script = "command -v pip && command -v sudo && ls /usr/src/test && python -c 'import numpy; print(numpy.arange(3).sum())'";
    assert_eq!(
        run(&world, &["sh", "-c", script]),
        "/usr/src/test/anaconda3/bin/pip\n/usr/bin/sudo\nDockerfile\nREADME\nanaconda3\n3"
    );
    keeps_nothing(&world);
}
