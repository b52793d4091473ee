//! What builds fetch by themselves: `ADD` of addresses and repositories, and contexts that have an address.

use crate::support::build::Context;
use crate::support::git::Served;
use crate::support::registry::{Asked, Content, Deed, Packed, Registry, digest, layer, noise, pack};
use crate::support::{World, requires};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A server of files by path; what is not there is 404.
fn server(world: &World, files: &[(&str, Vec<u8>)]) -> Registry {
    let files: Vec<(String, Vec<u8>)> = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect();
    Registry::misbehave(world, Content::default(), move |asked, _| {
        match files.iter().find(|(path, _)| *path == asked.path) {
            Some((_, bytes)) => Deed::Answer(200, Vec::new(), bytes.clone()),
            None => Deed::Answer(404, Vec::new(), Vec::new()),
        }
    })
}

fn asked_for<'a>(asked: &'a [Asked], path: &str) -> Vec<&'a Asked> {
    asked.iter().filter(|asked| asked.path == path).collect()
}

#[test]
fn files_are_added_as_the_reference_says() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let tar = layer(&[("inner", b"unpacked")]);
    let (sum, packed) = (digest(b"text"), pack(&tar, Packed::Gzip));
    let served = Registry::misbehave(&world, Content::default(), move |asked, _| match asked.path.as_str() {
        "/dir/a%20b.txt?token=secret" => {
            let date = "Sun, 09 Sep 2001 01:46:40 GMT".to_owned();
            Deed::Answer(200, vec![("Last-Modified", date)], b"text".to_vec())
        }
        "/moved" => Deed::Answer(302, vec![("Location", "/dir/a%20b.txt?token=secret".to_owned())], Vec::new()),
        "/x.tar.gz" => Deed::Answer(200, Vec::new(), packed.clone()),
        _ => Deed::Answer(404, Vec::new(), Vec::new()),
    });
    let at = format!("http://{}", served.address);
    let file = format!(
        "FROM busybox\nARG DIR=dir\nRUN mkdir /there\nADD {at}/$DIR/a%20b.txt?token=secret /in/\nADD {at}/moved /there\n\
         ADD --chown=daemon:users --chmod=u=rwx,go=r --checksum={sum} {at}/moved /named\n\
         ADD {at}/x.tar.gz /whole/\nADD --unpack=true {at}/x.tar.gz /unpacked/\n"
    );
    let context = Context::new(&world, "files", &file, &[]);
    context.build(&[]).ok();
    assert_eq!(context.run("cat '/in/a b.txt' /there/moved /named /unpacked/inner"), "texttexttextunpacked");
    assert_eq!(
        context.run(
            "stat -c '%a %U %Y' '/in/a b.txt' /there/moved; stat -c '%a %U:%G' /named; stat -c %Y /whole/x.tar.gz"
        ),
        "600 root 1000000000\n600 root 1000000000\n744 daemon:users\n0"
    );
    assert_eq!(context.run("cat /whole/x.tar.gz | gunzip | tar t"), "inner", "what is fetched is not unpacked");
    let history = world.ok(&["history", "--no-trunc", "files:1"]);
    assert!(history.contains(&format!("--checksum={sum}")) && !history.contains("token"), "{history}");
    assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0);
}

#[test]
fn what_an_address_serves_decides_and_is_asked_for_as_little_as_can_be() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let content = Arc::new(Mutex::new(("\"one\"", b"one".to_vec())));
    let (now, etags) = (Arc::clone(&content), Arc::new(AtomicUsize::new(1)));
    let tags = Arc::clone(&etags);
    let served = Registry::misbehave(&world, Content::default(), move |asked, _| {
        let (etag, bytes) = now.lock().unwrap().clone();
        match asked.field("if-none-match") {
            Some(known) if known == etag => Deed::Answer(304, Vec::new(), Vec::new()),
            _ if tags.load(Ordering::Relaxed) == 0 => Deed::Answer(200, Vec::new(), bytes),
            _ => Deed::Answer(200, vec![("ETag", etag.to_owned())], bytes),
        }
    });
    let sum = digest(b"one");
    let (at, stamp) = (format!("http://{}", served.address), "cat /proc/sys/kernel/random/uuid");
    let file =
        format!("FROM busybox\nADD {at}/file /file\nADD --checksum={sum} {at}/sure /sure\nRUN {stamp} > /made\n");
    let context = Context::new(&world, "served", &file, &[]);
    context.build(&[]).ok();
    let first = context.run("cat /file /made");
    context.build(&[]).ok();
    assert_eq!(context.run("cat /file /made"), first, "nothing has changed");
    let asked = served.asked();
    let files = asked_for(&asked, "/file");
    assert_eq!(files.len(), 2, "it came once, and was asked about once");
    assert_eq!(files[1].field("if-none-match"), Some("\"one\""));
    assert_eq!(asked_for(&asked, "/sure").len(), 1, "what is known by its digest is not even asked for");
    assert!(asked.iter().all(|asked| asked.field("authorization").is_none()));
    // Without its layer it comes again, though the server says that it is the same.
    context.build(&["--no-cache"]).ok();
    assert_eq!(context.run("cat /file"), "one");
    // A server without validators is asked for all of it, and the step is kept while the bytes are the same.
    etags.store(0, Ordering::Relaxed);
    *content.lock().unwrap() = ("\"two\"", b"two".to_vec());
    context.build(&[]).fails(1, &["/sure", "instead of"]);
    let file = format!("FROM busybox\nADD {at}/file /file\nRUN {stamp} > /made\n");
    let context = Context::new(&world, "served", &file, &[]);
    context.build(&[]).ok();
    let second = context.run("cat /file /made");
    assert!(second.starts_with("two"), "{second}");
    context.build(&[]).ok();
    assert_eq!(context.run("cat /file /made"), second);
    assert_eq!(served.asked().last().unwrap().field("if-none-match"), None);
}

#[test]
fn cuts_are_mended_and_lies_are_refused() {
    requires!(root);
    let world = World::new();
    world.write("bulkhead.toml", "[registry]\nidle_timeout = '400ms'\ndocument_timeout = '800ms'\n");
    let bytes = noise(300_000);
    let (sum, whole) = (digest(&bytes), bytes.clone());
    let served = Registry::misbehave(&world, Content::default(), move |asked, before| match asked.path.as_str() {
        "/cut" if before == 0 => {
            let head = format!("HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: {}\r\n\r\n", whole.len());
            Deed::Raw(vec![(head.into_bytes(), Duration::ZERO), (whole[..100_000].to_vec(), Duration::ZERO)])
        }
        "/cut" => {
            assert_eq!((asked.field("range"), asked.field("if-range")), (Some("bytes=100000-"), Some("\"e\"")));
            let range = format!("bytes 100000-{}/{}", whole.len() - 1, whole.len());
            Deed::Answer(206, vec![("Content-Range", range)], whole[100_000..].to_vec())
        }
        // Without a validator nobody knows that it is the same file.
        "/blind" if before == 0 => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", whole.len());
            Deed::Raw(vec![(head.into_bytes(), Duration::ZERO), (b"other bytes".to_vec(), Duration::ZERO)])
        }
        "/blind" => {
            assert_eq!(asked.field("range"), None);
            Deed::Answer(200, Vec::new(), whole.clone())
        }
        "/away" => Deed::Answer(302, vec![("Location", "ftp://a/b".to_owned())], Vec::new()),
        "/round" => Deed::Answer(302, vec![("Location", "/round".to_owned())], Vec::new()),
        "/range" => Deed::Answer(206, vec![("Content-Range", "bytes 5-6/7".to_owned())], b"ab".to_vec()),
        "/drip" => Deed::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), b"x".to_vec(), Duration::from_millis(50)),
        "/long" => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n".to_vec();
            Deed::Raw(vec![(head, Duration::ZERO)])
        }
        _ => Deed::Answer(404, Vec::new(), Vec::new()),
    });
    let build = |flags: &str, path: &str| {
        world.write("app/Dockerfile", format!("FROM scratch\nADD {flags} http://{}/{path} /x\n", served.address));
        let settings = world.path("bulkhead.toml").to_string_lossy().into_owned();
        world.bulkhead_in(&["build", "-o", "out", "app"], None, &[("BULKHEAD_CONFIG", &settings)])
    };
    for path in ["cut", "blind"] {
        build("", path).ok();
        assert!(std::fs::read(world.path("out/x")).unwrap() == bytes, "{path}");
    }
    let wrong = format!("--checksum={}", digest(b"other"));
    for (flags, path, words) in [
        ("", "absent", &["404", "/absent"][..]),
        ("", "away", &["redirects to \"ftp://a/b\""]),
        ("", "round", &["more than 8 redirects"]),
        ("", "range", &["not asked for"]),
        ("", "long", &["/long", "is longer than"]),
        ("", "drip", &["too little came"]),
        (wrong.as_str(), "blind", &["its digest is", &sum, "instead of"]),
        ("--checksum=md5:00", "blind", &["--checksum", "sha256:DIGEST"]),
    ] {
        build(flags, path).fails(1, words);
    }
    assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_server_elsewhere_cannot_lead_back_to_this_machine() {
    requires!(root);
    let world = World::new();
    // An address of this machine that is none of loopback's stands for one elsewhere.
    world.host("ip", &["address", "add", "10.99.99.99/32", "dev", "lo"]).ok();
    let secret = server(&world, &[("/secret", b"secret".to_vec())]);
    let port = secret.address.rsplit_once(':').unwrap().1.to_owned();
    let places: Vec<String> = ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0.0.0.0"]
        .iter()
        .map(|host| format!("http://{host}:{port}/secret"))
        .collect();
    let leads = places.clone();
    let elsewhere = Registry::misbehave_at(&world, "10.99.99.99:0", Content::default(), move |asked, _| {
        let number: usize = asked.path.trim_start_matches('/').parse().unwrap();
        Deed::Answer(302, vec![("Location", leads[number].clone())], Vec::new())
    });
    for number in 0..places.len() {
        world.write("app/Dockerfile", format!("FROM scratch\nADD http://{}/{number} /x\n", elsewhere.address));
        world.bulkhead(&["build", "-o", "out", "app"]).fails(1, &["leads to this machine"]);
    }
    assert_eq!(secret.asked().len(), 0);
    // What the file itself says, or the command line gives, is taken.
    world.write("app/Dockerfile", format!("FROM scratch\nADD http://{}/1 /x\n", elsewhere.address));
    world.ok(&["build", "--network", "host", "-o", "given", "app"]);
    world.write("app/Dockerfile", format!("FROM scratch\nADD {} /x\n", places[1]));
    world.ok(&["build", "-o", "said", "app"]);
    for place in ["given/x", "said/x"] {
        assert_eq!(std::fs::read_to_string(world.path(place)).unwrap(), "secret");
    }
}

#[test]
fn a_build_is_interrupted_while_it_fetches() {
    requires!(root);
    let world = World::new();
    let served = Registry::misbehave(&world, Content::default(), |_, _| {
        Deed::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 4096], Duration::from_millis(5))
    });
    world.write("app/Dockerfile", format!("FROM scratch\nADD http://{}/endless /x\n", served.address));
    let child = world.spawn(&["build", "--progress", "plain", "-o", "out", "app"]);
    crate::support::wait_for("the download to begin", 20, || served.asked().pop());
    crate::support::host("kill", &["-INT", &child.id().to_string()]).ok();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0);
}

#[test]
fn repositories_are_added() {
    requires!(root, program "git");
    let world = World::new();
    world.busybox();
    let mut served = Served::new(&world, "served");
    let first = served.commit("app.git", &[("a", "first"), ("sub/b", "B")]);
    served.git("app.git", &["tag", "-a", "-m", "x", "v1"]);
    served.git("app.git", &["tag", "same"]);
    std::os::unix::fs::symlink("/etc", world.path("served/app.git/out")).unwrap();
    let second = served.commit("app.git", &[("a", "second")]);
    let at = "git://127.0.0.1/app.git";
    let stamp = "cat /proc/sys/kernel/random/uuid > /made";
    let file = format!(
        "FROM busybox\nADD {at} /head\nADD --exclude=sub {at}#v1 /tag\nADD --chown=daemon {at}#v1:sub /sub/\n\
         ADD --keep-git-dir --checksum={first} {at}#same /whole\nADD {at}#{short} /short\nADD {at}?ref=v1&subdir=sub /asked\nRUN {stamp}\n",
        short = &first[..8]
    );
    let context = Context::new(&world, "repositories", &file, &[]);
    context.build(&[]).ok();
    let seen = context.run("cat /made");
    assert_eq!(context.run("cat /head/a /tag/a /sub/b /whole/a /short/a /asked/b"), "secondfirstBfirstfirstB");
    assert_eq!(
        context.run("ls -d /head/.git /whole/.git /tag/sub 2>/dev/null; readlink /head/out; stat -c '%a %U %Y' /head/a /sub/b; stat -c '%a %Y' /head/sub"),
        "/whole/.git\n/etc\n644 root 1000000000\n644 daemon 1000000000\n755 1000000000"
    );
    context.build(&[]).ok();
    assert_eq!(context.run("cat /made"), seen, "the commits are the same");
    // The same commit by another name is the same step, and a moved branch is not.
    let file = file.replace("#same", "#v1").replace(&format!("ADD {at} /head"), &format!("ADD {at}#{second} /head"));
    let context = Context::new(&world, "repositories", &file, &[]);
    context.build(&[]).ok();
    assert_eq!(context.run("cat /made"), seen);
    let context = Context::new(&world, "moving", &format!("FROM scratch\nADD {at} /\n"), &[]);
    context.build(&["-o", "moving-1"]).ok();
    served.commit("app.git", &[("a", "third")]);
    context.build(&["-o", "moving-2"]).ok();
    let read = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    assert_eq!((read("moving-1/a"), read("moving-2/a")), ("second".into(), "third".into()));
    for (line, words) in [
        (format!("ADD {at}#nowhere /x"), &["no branch, tag or commit \"nowhere\""][..]),
        (format!("ADD --checksum={second} {at}#v1 /x"), &[&first, "instead of", &second]),
        (format!("ADD {at}#v1:out /x"), &["\"out\""]),
        ("ADD git@127.0.0.1:app.git /x".to_owned(), &["given no agent", "--ssh"]),
        (format!("ADD {at}?submodules=1 /x"), &["git://127.0.0.1/app.git", "submodules are not fetched"]),
    ] {
        let context = Context::new(&world, "bad", &format!("FROM scratch\n{line}\n"), &[]);
        context.build(&[]).fails(1, words);
    }
    served.end();
    context.build(&[]).fails(1, &["app.git"]);
    let file = format!("FROM scratch\nADD {at}#{second} /\nADD --checksum={second} {at}#{second} /again/\n");
    Context::new(&world, "fixed", &file, &[]).build(&[]).fails(1, &["app.git"]);
    assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0);
}

#[test]
fn contexts_dockerfiles_and_roots_have_addresses() {
    requires!(root);
    let world = World::new();
    let dockerfile = b"FROM scratch\nCOPY a /\n".to_vec();
    let tar = layer(&[("Dockerfile", &dockerfile), ("other", b"FROM scratch\nCOPY a /other\n"), ("a", b"A")]);
    let tars = [("/gz", pack(&tar, Packed::Gzip)), ("/zst", pack(&tar, Packed::Zstd)), ("/tar", tar.clone())];
    let mut files = tars.to_vec();
    files.extend([
        ("/Dockerfile", b"FROM scratch\nCOPY <<x /heredoc\ntext\nx\n".to_vec()),
        ("/far", b"FROM scratch\nCOPY a /far\n".to_vec()),
    ]);
    let served = server(&world, &files);
    let at = |path: &str| format!("http://{}{path}", served.address);
    let read = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    for (path, _) in &tars {
        world.ok(&["build", "-o", &path[1..], &at(path)]);
        assert_eq!(read(&format!("{}/a", &path[1..])), "A");
    }
    world.ok(&["build", "-o", "file", "-f", "other", &at("/tar")]);
    assert_eq!(read("file/other"), "A");
    world.ok(&["build", "-o", "alone", &at("/Dockerfile")]);
    assert_eq!(read("alone/heredoc"), "text\n");
    world.write("here/a", "here");
    world.ok(&["build", "-o", "mixed", "-f", &at("/far"), "here"]);
    assert_eq!(read("mixed/far"), "here");
    world.ok(&["build", "-o", "both", "-f", &at("/far"), &at("/gz")]);
    assert_eq!(read("both/far"), "A");
    world.write("named/Dockerfile", "FROM scratch\nCOPY --from=more a /\n");
    world.ok(&["build", "-o", "named-out", "--build-context", &format!("more={}", at("/zst")), "named"]);
    assert_eq!(read("named-out/a"), "A");
    world.bulkhead(&["build", &at("/absent")]).fails(1, &["404"]);
    world.bulkhead(&["build", "-f", "x", &at("/Dockerfile")]).fails(1, &["no archive"]);
    world.bulkhead(&["build", "ftp://a/b"]).fails(1, &["no context"]);
    world.bulkhead(&["build", "http://u:secret@a/b"]).fails(1, &["without a name and password"]);
    let id = world.ok(&["import", &at("/gz"), "root:1"]);
    assert!(id.starts_with("sha256:"), "{id}");
    let history = world.ok(&["history", "--no-trunc", "root:1"]);
    assert!(history.contains("Imported from http://"), "{history}");
    world.bulkhead(&["import", &at("/absent")]).fails(1, &["404"]);
    assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0);
}

#[test]
fn archives_are_told_by_what_they_hold() {
    requires!(root, program "xz");
    let world = World::new();
    let tar = layer(&[("inner", b"unpacked"), ("more", &noise(300_000))]);
    let compress = |program: &str, name: &str, bytes: &[u8]| {
        let path = world.write(&format!("app/{name}"), bytes);
        crate::support::host(program, &["-f", path.to_str().unwrap()]).ok();
    };
    let bz = |bytes: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    compress("xz", "a", &tar);
    compress("xz", "text", b"compressed, but no archive");
    for (name, bytes) in [
        ("b", bz(&tar)),
        ("c", pack(&tar, Packed::Zstd)),
        ("d", pack(&tar, Packed::Gzip)),
        ("e", tar.clone()),
        ("text.bz2", bz(b"compressed, but no archive")),
        ("text.gz", pack(b"compressed, but no archive", Packed::Gzip)),
        ("text.zst", pack(b"compressed, but no archive", Packed::Zstd)),
        ("torn.gz", pack(&tar, Packed::Gzip)[..20].to_vec()),
        ("torn.bz2", bz(&tar)[..200].to_vec()),
        ("empty", Vec::new()),
    ] {
        world.write(&format!("app/{name}"), bytes);
    }
    let adds: String = ["a.xz", "b", "c", "d", "e"].iter().map(|name| format!("ADD {name} /{name}/\n")).collect();
    world.write(
        "app/Dockerfile",
        format!("FROM scratch\n{adds}ADD text* torn* empty /copied/\nADD --unpack=false b /kept\n"),
    );
    world.ok(&["build", "-o", "out", "app"]);
    for name in ["a.xz", "b", "c", "d", "e"] {
        assert_eq!(std::fs::read_to_string(world.path(&format!("out/{name}/inner"))).unwrap(), "unpacked", "{name}");
    }
    for name in ["text.xz", "text.bz2", "text.gz", "text.zst", "torn.gz", "torn.bz2", "empty"] {
        let (copied, given) = (world.path(&format!("out/copied/{name}")), world.path(&format!("app/{name}")));
        assert!(std::fs::read(copied).unwrap() == std::fs::read(given).unwrap(), "{name}");
    }
    assert!(std::fs::read(world.path("out/kept")).unwrap().starts_with(b"BZh"));
    // An archive that is damaged further behind is one, and fails.
    let mut torn = std::fs::read(world.path("app/a.xz")).unwrap();
    torn.truncate(torn.len() - 1000);
    world.write("app/torn.xz", torn);
    world.write("app/Dockerfile", "FROM scratch\nADD torn.xz /\n");
    world.bulkhead(&["build", "-o", "none", "app"]).fails(1, &["compressed stream is damaged"]);
    // Contexts and root file systems, too.
    let context = layer(&[("Dockerfile", b"FROM scratch\nCOPY x /\n"), ("x", b"X")]);
    let packed = bz(&context);
    world.bulkhead_with(&["build", "-o", "piped", "-"], Some(&packed)).ok();
    assert_eq!(std::fs::read_to_string(world.path("piped/x")).unwrap(), "X");
    compress("xz", "rootfs", &context);
    world.ok(&["import", "app/rootfs.xz", "root:1"]);
    assert_eq!(std::fs::read_dir(world.root.join("content/ingest")).unwrap().count(), 0);
}
