//! Real servers from Debian's packages start, answer and stop under the default profile.

use crate::support::{World, host, requires, wait_for};
use std::os::unix::fs::MetadataExt;

fn answers(world: &World, name: &str, probe: &[&str], word: &str) {
    wait_for(&format!("{name} to answer {word}"), 60, || {
        let mut arguments = vec!["exec", name];
        arguments.extend(probe);
        world.bulkhead(&arguments).stdout.contains(word).then_some(())
    });
}

fn stops(world: &World, name: &str) {
    let seen = world.bulkhead(&["stop", "-t", "20", name]).code(0);
    assert_eq!(world.inspect(name, "{{.State.ExitCode}}"), "0", "{name} ends by itself: {seen:?}");
    world.ok(&["rm", "-v", name]);
}

#[test]
fn nginx_serves_reloads_and_quits() {
    requires!(root, image "nginx");
    let world = World::new();
    let image = world.base_image("nginx");
    world.ok(&["run", "-d", "--name", "nn", "-p", "8080:80", &image]);
    let fetch = || world.host("curl", &["-s", "-m", "2", "http://127.0.0.1:8080/"]);
    wait_for("the page", 30, || fetch().stdout.contains("nginx").then_some(()));
    world.ok(&["exec", "nn", "nginx", "-s", "reload"]);
    wait_for("the page after a reload", 10, || fetch().stdout.contains("nginx").then_some(()));
    wait_for("the access log on stdout", 10, || world.ok(&["logs", "nn"]).contains("GET / HTTP").then_some(()));
    stops(&world, "nn");
}

#[test]
fn the_first_process_is_reached_from_an_added_one() {
    requires!(root, image "nginx", program "strace");
    let world = World::new();
    let image = world.base_image("nginx");
    let (strace, libraries) = ("/usr/bin/strace:/usr/bin/strace:ro", "/lib/x86_64-linux-gnu:/hostlib:ro");
    let start = ["run", "-d", "--network", "none", "--name", "nn", "--cap-add", "SYS_PTRACE"];
    world.ok(&[&start[..], &["-v", strace, "-v", libraries, &image]].concat());
    wait_for("nginx to run", 20, || {
        world.ok(&["exec", "nn", "readlink", "/proc/1/exe"]).contains("nginx").then_some(())
    });
    world.ok(&["exec", "nn", "sh", "-c", "kill -HUP 1 && echo from-exec > /proc/1/fd/1"]);
    wait_for("the line in the log", 10, || world.ok(&["logs", "nn"]).contains("from-exec").then_some(()));
    // The host's debugger by the host's loader: the image has neither it nor its libraries.
    let trace = "timeout 1 /hostlib/ld-linux-x86-64.so.2 --library-path /hostlib /usr/bin/strace -o /trace -p 1 & \
                 sleep 0.4; kill -HUP 1; sleep 0.8; grep -q SIGHUP /trace && echo TRACED";
    let traced = world.bulkhead(&["exec", "nn", "sh", "-c", trace]);
    assert!(traced.stdout.contains("TRACED"), "{traced:?}");
    stops(&world, "nn");
}

#[test]
fn servers_run_on_a_read_only_root() {
    requires!(root, image "nginx", image "postgres");
    let world = World::new();
    let image = world.base_image("nginx");
    world.ok(&[
        "run",
        "-d",
        "--read-only",
        "--tmpfs",
        "/run",
        "--tmpfs",
        "/var/lib/nginx",
        "--name",
        "nn",
        "-p",
        "8080:80",
        &image,
    ]);
    wait_for("the page", 30, || {
        let page = world.host("curl", &["-s", "-m", "2", "http://127.0.0.1:8080/"]).stdout;
        page.contains("nginx").then_some(())
    });
    stops(&world, "nn");
    let image = world.base_image("postgres");
    world.ok(&[
        "run",
        "-d",
        "--read-only",
        "--tmpfs",
        "/run/postgresql:mode=1777",
        "--tmpfs",
        "/tmp",
        "--name",
        "pp",
        "-e",
        "POSTGRES_PASSWORD=secret",
        &image,
    ]);
    let query = || {
        let password = ["exec", "-u", "postgres", "-e", "PGPASSWORD=secret", "pp"];
        world.bulkhead(&[&password[..], &["psql", "-h", "127.0.0.1", "-tAc", "select 41+1"]].concat())
    };
    wait_for("postgres to answer", 120, || (query().stdout.trim() == "42").then_some(()));
    stops(&world, "pp");
}

#[test]
fn redis_keeps_what_it_is_told() {
    requires!(root, image "redis");
    let world = World::new();
    let image = world.base_image("redis");
    world.ok(&["run", "-d", "--name", "rr", "-v", "data:/data", &image]);
    answers(&world, "rr", &["redis-cli", "ping"], "PONG");
    world.ok(&["exec", "rr", "redis-cli", "set", "key", "value"]);
    stops(&world, "rr");
    world.ok(&["run", "-d", "--name", "rr", "-v", "data:/data", &image]);
    answers(&world, "rr", &["redis-cli", "get", "key"], "value");
    stops(&world, "rr");
}

#[test]
fn postgres_on_a_bind_chowns_reloads_and_restarts() {
    requires!(root, image "postgres");
    let world = World::new();
    let image = world.base_image("postgres");
    for owner in [0, 1000] {
        postgres_on_a_bind_of(&world, &image, owner);
    }
}

fn postgres_on_a_bind_of(world: &World, image: &str, owner: u32) {
    let data = world.path(&format!("pgdata{owner}"));
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(owner), Some(owner)).unwrap();
    let bind = format!("{}:/var/lib/postgresql/data", data.display());
    let start = || world.ok(&["run", "-d", "--name", "pp", "-e", "POSTGRES_PASSWORD=secret", "-v", &bind, image]);
    start();
    // Over TCP: the server that fills a new directory listens on its socket file alone.
    let password = ["exec", "-u", "postgres", "-e", "PGPASSWORD=secret", "pp"];
    let query = |sql: &str| world.bulkhead(&[&password[..], &["psql", "-h", "127.0.0.1", "-tAc", sql]].concat());
    wait_for("postgres to answer", 120, || (query("select 41+1").stdout.trim() == "42").then_some(()));
    query("create table t(x int); insert into t values (7)").ok();
    world.ok(&[
        "exec",
        "-u",
        "postgres",
        "pp",
        "sh",
        "-c",
        "$(echo /usr/lib/postgresql/*/bin/pg_ctl) reload -D $PGDATA",
    ]);
    let owner = std::fs::metadata(&data).unwrap().uid();
    assert!(owner > 0 && owner < 65536, "the id on disk is the id inside: {owner}");
    stops(world, "pp");
    start();
    wait_for("the row after a restart", 60, || (query("select x from t").stdout.trim() == "7").then_some(()));
    stops(world, "pp");
}

#[test]
fn mariadb_fills_an_empty_volume_and_restarts() {
    requires!(root, image "mariadb");
    let world = World::new();
    let image = world.base_image("mariadb");
    let list = ["run", "--rm", "--network", "none", "--entrypoint", "ls", &image, "-A", "/var/lib/mysql"];
    assert_eq!(world.ok(&list), "", "the image brings no database");
    world.ok(&["volume", "create", "mydata"]);
    mariadb_on(&world, &image, "mydata");
    let bare = world.bulkhead(&["run", "--rm", "--network", "none", "-v", "other:/var/lib/mysql", &image]);
    bare.fails(1, &["MARIADB_ROOT_PASSWORD"]);
}

#[test]
fn mariadb_on_a_bind_chowns_and_restarts() {
    requires!(root, image "mariadb");
    let world = World::new();
    let image = world.base_image("mariadb");
    for owner in [0, 1000] {
        let data = world.path(&format!("mydata{owner}"));
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::chown(&data, Some(owner), Some(owner)).unwrap();
        mariadb_on(&world, &image, data.to_str().unwrap());
        let owned = std::fs::metadata(data.join("mysql")).unwrap().uid();
        assert!(owned > 0 && owned < 65536, "the id on disk is the id inside: {owned}");
    }
}

/// Starts the server twice on a volume or a bind: the first time it is filled, the second time what was told is kept.
fn mariadb_on(world: &World, image: &str, source: &str) {
    let bind = format!("{source}:/var/lib/mysql");
    let start = || {
        world.ok(&[
            "run",
            "-d",
            "--name",
            "mm",
            "-e",
            "MYSQL_ROOT_PASSWORD=root",
            "-e",
            "MYSQL_DATABASE=my_db",
            "-v",
            &bind,
            image,
        ])
    };
    start();
    let query =
        |sql: &str| world.bulkhead(&["exec", "mm", "mariadb", "-h127.0.0.1", "-uroot", "-proot", "-Ne", sql, "my_db"]);
    wait_for("mariadb to answer", 120, || (query("select 41+1").stdout.trim() == "42").then_some(()));
    let filled = "MariaDB init process done";
    assert!(world.ok(&["logs", "mm"]).contains(filled), "{source} was filled");
    query("create table t(x int); insert into t values (7)").ok();
    stops(world, "mm");
    start();
    wait_for("the row after a restart", 60, || (query("select x from t").stdout.trim() == "7").then_some(()));
    assert!(!world.ok(&["logs", "mm"]).contains(filled), "{source} was filled once");
    stops(world, "mm");
}

#[test]
fn python_serves_and_uses_threads_processes_and_sockets() {
    requires!(root, image "python");
    let world = World::new();
    let image = world.base_image("python");
    let program = "import threading, multiprocessing, sqlite3, tempfile, subprocess, asyncio, ssl, mmap\n\
                   t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n\
                   p = multiprocessing.get_context('fork').Process(target=print, args=('process',), kwargs={'flush': True}); p.start(); p.join()\n\
                   d = sqlite3.connect(tempfile.mktemp()); d.execute('create table t(x)'); print('sqlite')\n\
                   print(subprocess.check_output(['echo', 'child']).decode().strip())\n\
                   multiprocessing.Lock(); print('semaphore')\n\
                   async def main():\n    s = await asyncio.start_server(lambda r, w: w.close(), '127.0.0.1', 0); s.close(); print('asyncio')\nasyncio.run(main())";
    let seen = world.ok(&["run", "--rm", "--network", "none", &image, "python", "-c", program]);
    assert_eq!(seen, "thread\nprocess\nsqlite\nchild\nsemaphore\nasyncio");
    world.ok(&["run", "-d", "--name", "web", "-p", "8080:8000", &image, "python", "-m", "http.server", "8000"]);
    wait_for("the page", 30, || {
        world.host("curl", &["-s", "-m", "2", "http://127.0.0.1:8080/"]).stdout.contains("listing").then_some(())
    });
}

#[test]
fn node_runs_its_event_loop() {
    requires!(root, image "node");
    let world = World::new();
    let image = world.base_image("node");
    let program = "const h = require('http').createServer((q, r) => r.end('page')).listen(0, () => require('http').get({port: h.address().port}, r => r.on('data', d => { console.log(String(d)); h.close() })))";
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", &image, "node", "-e", program]), "page");
}

#[test]
fn node_serves_logs_and_ends_when_asked() {
    requires!(root, image "node", program "curl");
    let world = World::new();
    let image = world.base_image("node");
    let server = "const s = require('http').createServer((q, r) => { console.log('GET ' + q.url); r.end('page of ' + process.version); });\n\
                  s.listen(3000, () => console.log('listening'));\n\
                  process.on('SIGTERM', () => s.close(() => { console.log('closed'); process.exit(0); }));";
    let file = world.write("server.js", server);
    let bind = format!("{}:/usr/src/app/server.js:ro", file.display());
    let start = ["run", "-d", "--name", "nd", "-p", "8080:3000", "-v", &bind, "-w", "/usr/src/app", &image];
    world.ok(&[&start[..], &["node", "server.js"]].concat());
    wait_for("the page", 60, || {
        let page = world.host("curl", &["-s", "-m", "2", "http://127.0.0.1:8080/a"]);
        page.stdout.starts_with("page of v").then_some(())
    });
    let enforced = world.inspect("nd", "{{json .Enforced}}");
    assert!(enforced.contains("seccomp") && !enforced.contains("unconfined"), "under the default walls: {enforced}");
    stops(&world, "nd");
    // Without a handler it needs an init, as everything that is PID 1.
    let forever =
        ["run", "-d", "--init", "--name", "nd", &image, "node", "-e", "setInterval(() => 0, 1000); console.log('up')"];
    world.ok(&forever);
    wait_for("it to run", 60, || (world.ok(&["logs", "nd"]) == "up").then_some(()));
    world.ok(&["stop", "-t", "60", "nd"]);
    assert_eq!(world.inspect("nd", "{{.State.ExitCode}}"), "143");
}

#[test]
fn apt_get_installs_in_a_container() {
    requires!(root, image "python");
    let world = World::online();
    let image = world.base_image("python");
    // The sources of this machine, for this run alone.
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/images/make.sh");
    let sources = world.write("sources.list", host(script.to_str().unwrap(), &["--sources"]).ok());
    let list = format!("{}:/etc/apt/sources.list:ro", sources.display());
    let trust = "/etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro";
    let install = "apt-get -qq update && apt-get -qq -y install --no-install-recommends make >/dev/null && make --version | head -1";
    let seen = world.ok(&["run", "--rm", "-v", &list, "-v", trust, &image, "sh", "-c", install]);
    assert!(seen.ends_with("GNU Make 4.3") || seen.contains("GNU Make"), "{seen}");
}
