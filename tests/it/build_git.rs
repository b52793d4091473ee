//! Hostile repositories as build context: hooks, filters, submodules, links, and names that look like options.

use crate::support::{World, host, requires};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Child;

/// A server of the repositories below `served`, in the world's network.
struct Daemon(Child);

impl Daemon {
    fn start(world: &World) -> Self {
        let netns = format!("--net=/run/netns/{}", world.netns.as_deref().unwrap());
        let base = format!("--base-path={}", world.path("served").display());
        let daemon = format!("{}/git-daemon", host("git", &["--exec-path"]).ok().trim());
        let words = [&netns, "--", &daemon, "--export-all", "--reuseaddr", "--listen=127.0.0.1", &base];
        let server = Self(std::process::Command::new("nsenter").args(words).spawn().unwrap());
        crate::support::wait_for("the server of the repository", 10, || {
            let listens = world.host("sh", &["-c", "ss -ltn | grep -q :9418"]);
            (listens.code == 0).then_some(())
        });
        server
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs git in a repository below `served`.
#[track_caller]
fn git(world: &World, name: &str, arguments: &[&str]) -> String {
    let at = world.path("served").join(name);
    let identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main"];
    let more = ["-c", "protocol.file.allow=always", "-c", "core.fsmonitor=false"];
    let words = [&["-C", at.to_str().unwrap()], &identity[..], &more, arguments].concat();
    host("git", &words).ok()
}

/// Makes a repository below `served` of what lies there.
fn commit(world: &World, name: &str) {
    git(world, name, &["init", "-q"]);
    git(world, name, &["add", "-A"]);
    git(world, name, &["commit", "-qm", "all"]);
}

/// Writes a program that leaves a mark, and returns its path.
fn marks(world: &World, name: &str) -> String {
    let script = format!("#!/bin/sh\ntouch {}/marked-{}\ncat\n", world.path("").display(), name.replace('/', "-"));
    let path = world.write(name, script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Nothing that should not have run has left its mark.
#[track_caller]
fn nothing_ran(world: &World, what: &str) {
    let names = std::fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let marked: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("marked")).collect();
    assert!(marked.is_empty(), "{what}: {marked:?}");
}

#[test]
fn a_repository_runs_no_hook_no_filter_and_fetches_no_submodule() {
    requires!(root, program "git");
    let world = World::new();
    world.write("served/inner.git/secret", "of another repository");
    commit(&world, "inner.git");
    world.write("served/app.git/Dockerfile", "FROM scratch\nCOPY . /all/\n");
    world.write("served/app.git/.gitattributes", "* filter=evil diff=evil\n*.txt ident\n");
    world.write("served/app.git/a.txt", "plain\n");
    git_submodule(&world);
    commit(&world, "app.git");
    // What the user's and the machine's configuration would have git run.
    let home = world.path("home");
    let (hook, smudge) = (marks(&world, "hooks/post-checkout"), marks(&world, "smudge"));
    marks(&world, "template/hooks/post-checkout");
    let configuration = format!(
        "[core]\nhooksPath = {}\nfsmonitor = {smudge}\npager = {smudge}\nsshCommand = {smudge}\n[filter \"evil\"]\nsmudge = {smudge}\nprocess = {smudge}\nrequired = true\n\
         [init]\ntemplateDir = {}\n[submodule]\nrecurse = true\n[credential]\nhelper = {smudge}\n[url \"git://127.0.0.1/inner.git\"]\ninsteadOf = git://127.0.0.1/app.git\n",
        Path::new(&hook).parent().unwrap().display(),
        world.path("template").display()
    );
    world.write("home/.gitconfig", &configuration);
    world.write("system", &configuration);
    let (home, template) = (home.display().to_string(), world.path("template").display().to_string());
    let system = world.path("system").display().to_string();
    let _server = Daemon::start(&world);
    let more = [
        ("HOME", home.as_str()),
        ("GIT_TEMPLATE_DIR", &template),
        ("GIT_CONFIG_SYSTEM", &system),
        ("GIT_CONFIG_GLOBAL", &system),
    ];
    world.bulkhead_in(&["build", "-o", "out", "git://127.0.0.1/app.git"], None, &more).ok();
    nothing_ran(&world, "what the configuration names");
    let all = world.path("out/all");
    assert_eq!(std::fs::read_to_string(all.join("a.txt")).unwrap(), "plain\n");
    assert!(
        all.join("inner").is_dir() && std::fs::read_dir(all.join("inner")).unwrap().count() == 0,
        "the submodule stays empty"
    );
    assert!(!all.join(".git").exists());
    // A submodule that brings a command of its own is not even taken.
    let modules = world.path("served/app.git/.gitmodules");
    let text = std::fs::read_to_string(&modules).unwrap() + "\tupdate = !touch marked\n";
    std::fs::write(&modules, text).unwrap();
    git(&world, "app.git", &["commit", "-qam", "command"]);
    world.bulkhead_in(&["build", "-o", "no", "git://127.0.0.1/app.git"], None, &more).fails(1, &["git cannot fetch"]);
    nothing_ran(&world, "a command of a submodule");
    // The same configuration has git run them, given by hand.
    let clone = world.path("clone").display().to_string();
    let words = ["clone", "-q", "git://127.0.0.1/inner.git", &clone];
    let mut command = std::process::Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", world.netns.as_deref().unwrap())).args(["--", "git"]).args(words);
    crate::support::Outcome::of(command.envs(more), None).ok();
    assert!(world.path("marked-hooks-post-checkout").exists(), "the test's own hooks work");
}

/// Puts a submodule into `app.git`.
fn git_submodule(world: &World) {
    git(world, "app.git", &["init", "-q"]);
    let inner = world.path("served/inner.git").display().to_string();
    git(world, "app.git", &["submodule", "add", "-q", &inner, "inner"]);
    world.write(
        "served/app.git/.gitmodules",
        "[submodule \"inner\"]\n\tpath = inner\n\turl = git://127.0.0.1/inner.git\n",
    );
}

#[test]
fn links_of_a_repository_end_inside_it() {
    requires!(root, program "git");
    let world = World::new();
    let secret = world.write("outside/file", "host-secret-r3");
    let outside = world.path("outside");
    world.write("outside/Dockerfile", "FROM scratch\nCOPY file /got\n");
    for (name, target, lines, reads) in [
        ("file", secret.as_path(), "FROM scratch\nCOPY link /got\n", false),
        ("through", outside.as_path(), "FROM scratch\nCOPY link/file /got\n", false),
        ("whole", outside.as_path(), "FROM scratch\nCOPY . /all/\n", true),
    ] {
        let repository = format!("{name}.git");
        world.write(&format!("served/{repository}/Dockerfile"), lines);
        symlink(target, world.path(&format!("served/{repository}/link"))).unwrap();
        commit(&world, &repository);
        let _server = Daemon::start(&world);
        let seen = world.bulkhead(&["build", "-o", name, &format!("git://127.0.0.1/{repository}")]);
        assert_eq!(seen.code == 0, reads, "{name}: {seen:?}");
        assert!(!seen.stderr.contains("host-secret"), "{name}: {seen:?}");
        if reads {
            assert_eq!(std::fs::read_link(world.path("whole/all/link")).unwrap(), outside, "a link stays a link");
        }
    }
    // The Dockerfile itself, and the directory that is asked for.
    world.write("served/linked.git/x", "");
    symlink(&secret, world.path("served/linked.git/Dockerfile")).unwrap();
    symlink(&outside, world.path("served/linked.git/sub")).unwrap();
    commit(&world, "linked.git");
    let _server = Daemon::start(&world);
    let up = format!("#:{}{}", "../".repeat(12), outside.strip_prefix("/").unwrap().display());
    for place in ["", "#:sub", &up, "#:sub/.."] {
        let seen = world.bulkhead(&["build", "-o", "none", &format!("git://127.0.0.1/linked.git{place}")]);
        let said = seen.fails(1, &[]);
        assert!(!said.contains("host-secret"), "{place}: {said}");
    }
}

#[test]
fn names_of_repositories_are_no_options_and_speak_no_other_protocol() {
    requires!(root, program "git");
    let world = World::new();
    world.write("served/app.git/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    commit(&world, "app.git");
    let program = marks(&world, "marks");
    let local = world.path("served/app.git").display().to_string();
    let _server = Daemon::start(&world);
    world.ok(&["build", "-o", "good", "--", "git://127.0.0.1/app.git#main"]);
    let names = [
        format!("git://127.0.0.1/app.git#--upload-pack={program}"),
        format!("git://127.0.0.1/app.git#-u{program}"),
        format!("git://127.0.0.1/app.git#main:--exec={program}"),
        format!("git@-oProxyCommand={program}:app.git"),
        format!("ssh://-oProxyCommand={program}/app.git"),
        format!("--upload-pack={program}.git"),
        format!("ext::sh -c {program}.git"),
        format!("https://ext::sh -c {program}.git"),
        format!("file://{local}"),
        format!("git://127.0.0.1/app.git#main\n--upload-pack={program}"),
        "git://127.0.0.1/app.git#main main~0 ^x".to_owned(),
        "git://127.0.0.1/app.git#refs/heads/main:refs/heads/other".to_owned(),
        "git://127.0.0.1/app.git#+refs/heads/*".to_owned(),
    ];
    for name in &names {
        let seen = world.bulkhead(&["build", "-o", "none", "--", name]);
        assert!(seen.code != 0 && seen.stderr.contains("error: "), "{name:?}: {seen:?}");
        nothing_ran(&world, name);
    }
    assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0, "nothing is left");
}

#[test]
fn git_reads_what_a_server_sends_without_rights() {
    requires!(root, program "git");
    let world = World::new();
    // A server that says nothing, so that git can be looked at.
    let server = world.within(|| std::net::TcpListener::bind("127.0.0.1:9418").unwrap());
    let mut build = world.spawn(&["build", "-o", "none", "git://127.0.0.1/silent.git"]);
    let find = || {
        let mut all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let git =
            |line: &[u8]| line.starts_with(b"git\0") && String::from_utf8_lossy(line).contains("127.0.0.1/silent.git");
        all.find(|place| std::fs::read(place.join("cmdline")).is_ok_and(|line| git(&line)))
    };
    let process = crate::support::wait_for("git", 10, find);
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for ids in ["Uid:", "Gid:"] {
        assert_eq!(field(ids), ["1879048190"; 4], "{status}");
    }
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set} {status}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Groups:"), field("NSpid:").len()), (vec!["1".to_owned()], vec![], 2));
    // It ends with the build, however that ends.
    build.kill().unwrap();
    build.wait().unwrap();
    crate::support::wait_for("the end of git", 10, || find().is_none().then_some(()));
    drop(server);
}

#[test]
fn a_git_that_was_taken_over_reads_and_changes_nothing_of_the_host() {
    requires!(root, landlock >= 2);
    let world = World::new();
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let (outside, git) = (place.path().join("open"), place.path().join("bin/git"));
    // Open to everybody, so that it is not its owner's id alone that closes it.
    for (path, mode) in [(place.path(), 0o755), (&outside, 0o777), (git.parent().unwrap(), 0o755)] {
        std::fs::create_dir_all(path).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::write(outside.join("file"), "host").unwrap();
    let tries = format!(
        "#!/bin/sh\nO={}\ntry() {{ if eval \"$2\" 2>/dev/null >&2; then printf '%s=yes ' $1; else printf '%s=no ' $1; fi; }}\n\
         {{ try own 'touch /tmp/x'; try write 'touch $O/x'; try read 'cat $O/file'; try shadow 'cat /etc/shadow'; try list 'ls /home /root'; \
         try run 'cp /bin/true /tmp/t && /tmp/t'; try environ 'cat /proc/1/environ'; echo; }} >&2\nexit 1\n",
        outside.display()
    );
    std::fs::write(&git, tries).unwrap();
    std::fs::set_permissions(&git, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", git.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let commit = format!("git://127.0.0.1/app.git#{}", "a".repeat(40));
    let seen = world.bulkhead_in(&["build", "-o", "none", &commit], None, &[("PATH", &path)]);
    let said = seen.fails(1, &["git cannot fetch"]);
    let line = "own=yes write=no read=no shadow=no list=no run=no environ=no";
    assert!(said.contains(line), "{said}");
    // By hand, as root: it can.
    let by_hand = host("sh", &["-c", &format!("cd / && {} 2>&1; rm -f /tmp/x /tmp/t", git.display())]).stdout;
    assert!(by_hand.contains("write=yes read=yes shadow=yes"), "{by_hand}");
}

#[test]
fn a_repository_comes_over_tls_from_who_it_should() {
    requires!(root, program "git", program "openssl", program "python3");
    let world = World::new();
    world.write("served/app.git/Dockerfile", "FROM scratch\nCOPY a /\n");
    world.write("served/app.git/a", "over TLS");
    commit(&world, "app.git");
    // Files alone, as any server of files has them.
    git(&world, "app.git", &["update-server-info"]);
    let [authority, certificate, key] = crate::push::certificate(&world, "127.0.0.1");
    let serve = "import http.server as h, ssl, sys\n\
                 class Quiet(h.SimpleHTTPRequestHandler):\n    def log_message(self, *_): pass\n\
                 server = h.ThreadingHTTPServer(('127.0.0.1', 4443), lambda *a: Quiet(*a, directory=sys.argv[1]))\n\
                 context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
                 context.load_cert_chain(*sys.argv[2:4])\n\
                 server.socket = context.wrap_socket(server.socket, server_side=True)\n\
                 server.serve_forever()";
    let netns = format!("--net=/run/netns/{}", world.netns.as_deref().unwrap());
    let directory = world.path("served").display().to_string();
    let words = [&netns, "--", "python3", "-c", serve, &directory, &certificate, &key];
    let _server = Daemon(std::process::Command::new("nsenter").args(words).spawn().unwrap());
    crate::support::wait_for("the server of the repository", 10, || {
        let listens = world.host("sh", &["-c", "ss -ltn | grep -q :4443"]);
        (listens.code == 0).then_some(())
    });
    let build = |variables: &[(&str, &str)]| {
        let own = [&[("no_proxy", "127.0.0.1"), ("NO_PROXY", "127.0.0.1")], variables].concat();
        world.bulkhead_in(&["build", "-o", "out", "https://127.0.0.1:4443/app.git/.git"], None, &own)
    };
    build(&[]).fails(1, &["git cannot fetch", "certificate"]);
    build(&[("GIT_SSL_CAINFO", "/nowhere/ca.crt")]).fails(1, &["GIT_SSL_CAINFO names /nowhere/ca.crt"]);
    // Git without rights may not look into this directory, and has the file nevertheless.
    build(&[("GIT_SSL_CAINFO", &authority)]).ok();
    assert_eq!(std::fs::read_to_string(world.path("out/a")).unwrap(), "over TLS");
}
