//! Tables of `run` lines and the requests they become.

use super::create_flags::{Surroundings, create_flags, create_request};
use super::mounts::split_csv;
use super::ports::{ShownPort, parse_publish, ports_column};
use super::values::*;
use crate::cli::error::Failure;
use crate::cli::flags::parse;
use crate::cli::verbs::Verb;
use crate::engine::request::{CreateRequest, MountRequest, NetworkMode, Protocol, PublishRequest};
use crate::shim::RestartPolicy;
use std::path::PathBuf;
use std::time::Duration;

static VERB: Verb = Verb {
    names: &["run"],
    usage: "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "",
    count: (1, usize::MAX),
    interspersed: false,
    flags: create_flags,
    run: |_, _| Ok(0),
};

fn request(words: &[&str]) -> Result<CreateRequest, Failure> {
    let parsed =
        parse(&VERB, words.iter().map(|word| (*word).to_owned()).collect())?.expect("no --help in these lines");
    let around = Surroundings {
        variable: &|name| (name == "HOME").then(|| "/root".to_owned()),
        read: &|path| match path.to_str() {
            Some("vars") => Ok(b"\xef\xbb\xbf# comment\n\nA=1\n  HOME\nUNSET\nC=\"q\" # kept\n".to_vec()),
            Some("bad") => Ok(b"A B=1\n".to_vec()),
            _ => Err(std::io::Error::from_raw_os_error(2)),
        },
        directory: &|| PathBuf::from("/here"),
    };
    create_request(&parsed, &around)
}

fn good(words: &str) -> CreateRequest {
    request(&words.split_whitespace().collect::<Vec<_>>()).unwrap_or_else(|failure| panic!("{words}: {failure:?}"))
}

fn bad(words: &str, code: u8, part: &str) {
    let failure = request(&words.split_whitespace().collect::<Vec<_>>()).expect_err(words);
    assert_eq!(failure.exit_code(), code, "{words}");
    let text = failure.render(false);
    assert!(text.contains(part), "{words}: {text}");
}

#[test]
fn options_end_at_the_image() {
    let made = good("--rm -it busybox sh -c --rm -- -x --name y");
    assert!(made.auto_remove && made.tty && made.stdin_open);
    assert_eq!(made.image, "busybox");
    assert_eq!(made.command, ["sh", "-c", "--rm", "--", "-x", "--name", "y"]);
    assert_eq!(made.name, None);
    assert_eq!(good("-- busybox -x").command, ["-x"]);
}

#[test]
fn switches_take_truth_values_and_the_last_one_counts() {
    assert!(!good("--rm --rm=false x").auto_remove);
    assert!(good("--rm=false --rm x").auto_remove);
    assert!(good("-i -t=0 x").stdin_open);
    assert_eq!(good("--name a1 --name b2 x").name.as_deref(), Some("b2"));
    bad("--rm=maybe x", 125, "invalid argument \"maybe\" for \"--rm\" flag");
    bad("-t=foo x", 125, "for \"-t, --tty\" flag");
}

#[test]
fn bad_flags_have_code_125_and_counts_code_1() {
    bad("--foo x", 125, "unknown flag: --foo");
    bad("--privilegd x", 125, "did you mean '--privileged'?");
    bad("-Z x", 125, "unknown shorthand flag: 'Z' in -Z");
    bad("--name", 125, "flag needs an argument: --name");
    bad("", 1, "'bulkhead run' requires at least 1 argument");
    bad("--rm --restart always x", 125, "cannot specify both --restart and --rm");
    bad("--no-healthcheck --health-cmd x y", 125, "--no-healthcheck conflicts with --health-* options");
    bad("--cpus 1 --cpu-quota 5 x", 125, "conflicting options");
    bad("-m xx x", 125, "invalid argument \"xx\" for \"-m, --memory\" flag");
    bad("--ip 1.2.3.4 x", 125, "unknown flag: --ip");
    bad("-v /a:/x -v /b:/x/ x", 125, "Duplicate mount point: /x");
    assert_eq!(request(&["-v", "/a:/x", "-v", "/a:/x", "x"]).unwrap().mounts.len(), 1, "the same again");
}

#[test]
fn values_may_begin_with_a_dash() {
    let made = good("--memory-swap -1 --pids-limit -1 --entrypoint -x -e -y=1 x");
    assert_eq!((made.limits.memory_swap, made.limits.pids), (Some(-1), Some(-1)));
    assert_eq!(made.entrypoint.as_deref(), Some("-x"));
    assert_eq!(made.env, ["-y=1"]);
}

#[test]
fn an_empty_entrypoint_is_not_the_same_as_none() {
    assert_eq!(request(&["--entrypoint", "", "x"]).unwrap().entrypoint.as_deref(), Some(""));
    assert_eq!(request(&["--entrypoint=", "x"]).unwrap().entrypoint.as_deref(), Some(""));
    assert_eq!(good("x").entrypoint, None);
}

#[test]
fn the_environment_comes_from_files_then_flags_then_our_own() {
    let made = good("-e A=2 --env-file vars -e D= -e HOME -e UNSET x");
    assert_eq!(made.env, ["A=2", "HOME=/root", "C=\"q\" # kept", "D="].map(str::to_owned).to_vec());
}

#[test]
fn a_name_with_spaces_in_an_env_file_is_refused() {
    bad("--env-file bad x", 125, "variable 'A B' contains whitespaces");
    bad("--env-file gone x", 125, "invalid argument \"gone\" for \"--env-file\" flag");
    bad("-e =x y", 125, "invalid environment variable: =x");
}

#[test]
fn a_full_line_becomes_a_full_request() {
    let made = good(
        "--name web -p 8080:80 -v data:/var/lib/data -v ./conf:/etc/conf:ro --tmpfs /run:size=64m,mode=1777 --net=host \
         --link db:mysql -w /app -u 1000:50 --restart on-failure:3 -m 512m --cpus 1.5 --ulimit nofile=1024:2048 \
         --cap-add cap_net_admin --cap-drop all --security-opt no-new-privileges:true --stop-signal SIGINT \
         --health-cmd true --health-interval 1m30s --log-opt max-size=10m --device /dev/fuse --shm-size 1g \
         --add-host db:10.0.0.1 --dns 1.1.1.1 --expose 90-91/udp --sysctl net.core.somaxconn=1 -l a=b --label c \
         --require landlock>=4 --rootfs /tree true arg",
    );
    assert_eq!(made.rootfs, Some(PathBuf::from("/tree")));
    assert_eq!((made.image.as_str(), made.command), ("", vec!["true".to_owned(), "arg".to_owned()]));
    assert_eq!(made.network, NetworkMode::Host);
    assert_eq!(made.links, [("db".to_owned(), "mysql".to_owned())]);
    assert_eq!(made.restart, RestartPolicy::OnFailure(3));
    assert_eq!(made.limits.memory.map(|bytes| bytes.0), Some(512 << 20));
    assert_eq!(made.limits.nano_cpus, Some(1_500_000_000));
    assert_eq!(made.ulimits, [("nofile".to_owned(), 1024, 2048)]);
    assert_eq!(made.hardening.cap_add, ["NET_ADMIN"]);
    assert_eq!(made.hardening.cap_drop, ["ALL"]);
    assert_eq!(made.hardening.security_opt, ["no-new-privileges"]);
    assert_eq!(made.stop_signal, Some(2));
    assert_eq!(made.health.interval, Some(Duration::from_secs(90)));
    assert_eq!(made.devices, [(PathBuf::from("/dev/fuse"), "/dev/fuse".to_owned(), "rwm".to_owned())]);
    assert_eq!(made.expose, ["90/udp", "91/udp"]);
    assert_eq!(made.labels, [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())]);
    assert_eq!(made.require, ["landlock>=4"]);
    assert_eq!(
        made.mounts,
        [
            MountRequest::Volume {
                name: Some("data".into()),
                target: "/var/lib/data".into(),
                readonly: false,
                nocopy: false
            },
            MountRequest::Bind {
                source: "/here/conf".into(),
                target: "/etc/conf".into(),
                readonly: true,
                create: true,
                recursive: true
            },
            MountRequest::Tmpfs { target: "/run".into(), options: vec!["size=64m".into(), "mode=1777".into()] },
        ]
    );
}

#[test]
fn mounts_keep_the_order_of_different_flags() {
    let made = good(
        "--mount type=tmpfs,dst=/a,tmpfs-size=1k,tmpfs-mode=700,ro -v /b --mount src=vol,target=/c,volume-nocopy --tmpfs /d x",
    );
    let targets: Vec<&str> = made.mounts.iter().map(super::mounts::target).collect();
    assert_eq!(targets, ["/a", "/b", "/c", "/d"]);
    assert_eq!(
        made.mounts[0],
        MountRequest::Tmpfs { target: "/a".into(), options: vec!["size=1024".into(), "mode=700".into(), "ro".into()] }
    );
}

#[test]
fn bad_mounts_are_refused_with_the_reason() {
    for (words, part) in [
        ("-v a/b:/x y", "If you intended to pass a host directory, use absolute path"),
        ("-v /a:b y", "mount path must be absolute"),
        ("-v /a:/ y", "destination can't be '/'"),
        ("-v /a:/x/../.. y", "must not contain '..'"),
        ("-v /a:/b:rshared y", "propagation"),
        ("-v /a:/b:xx y", "invalid mode: xx"),
        ("-v :/b y", "empty section between colons"),
        ("--mount type=bind,target=/x y", "field Source must not be empty"),
        ("--mount type=bind,source=/a y", "target is required"),
        ("--mount type=npipe,source=/a,target=/b y", "is not supported"),
        (
            "--mount type=bind,source=/a,target=/b,tmpfs-size=1m y",
            "cannot mix 'tmpfs-*' options with mount type 'bind'",
        ),
        ("--mount type=bind,source=/a,target=/b,bind-propagation=rshared y", "bind-propagation=rshared"),
        ("--mount foo y", "must be a key=value pair"),
        ("--mount foo=1,target=/x y", "unexpected key 'foo'"),
        ("--mount target=/x,readonly=perhaps y", "invalid value for readonly: perhaps"),
        ("--tmpfs /x:size=lots y", "invalid tmpfs option"),
        ("--tmpfs x y", "must be absolute"),
    ] {
        bad(words, 125, part);
    }
}

#[test]
fn csv_fields_may_be_quoted() {
    assert_eq!(split_csv("a,\"b,c\",\"d\"\"e\",").unwrap(), ["a", "b,c", "d\"e", ""]);
    assert!(split_csv("\"a").is_err());
    assert!(split_csv("a\"b\"").is_err());
}

fn ports(text: &str) -> Vec<(Option<String>, u16, u16, Protocol)> {
    let made: Vec<PublishRequest> = parse_publish(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    made.into_iter()
        .map(|port| {
            (port.address.map(|address| address.to_string()), port.host_port, port.container_port, port.protocol)
        })
        .collect()
}

#[test]
fn ports_are_read_in_all_forms() {
    use Protocol::{Tcp, Udp};
    let at = |text: &str| Some(text.to_owned());
    assert_eq!(ports("80"), [(None, 0, 80, Tcp)]);
    assert_eq!(ports("8080:80/udp"), [(None, 8080, 80, Udp)]);
    assert_eq!(ports("127.0.0.1:8080:80"), [(at("127.0.0.1"), 8080, 80, Tcp)]);
    assert_eq!(ports("127.0.0.1::80"), [(at("127.0.0.1"), 0, 80, Tcp)]);
    assert_eq!(ports("[::1]:8080:80"), [(at("::1"), 8080, 80, Tcp)]);
    assert_eq!(ports("8000-8001:80-81"), [(None, 8000, 80, Tcp), (None, 8001, 81, Tcp)]);
    assert_eq!(ports("8000-8009:80"), [(None, 8000, 80, Tcp)]);
    assert_eq!(parse_publish("8000-8009:80").unwrap()[0].host_last, 8009, "any free one of them");
    assert_eq!(parse_publish("8000-8001:80-81").unwrap()[0].host_last, 0, "pairs leave no choice");
    assert_eq!(ports("80-81"), [(None, 0, 80, Tcp), (None, 0, 81, Tcp)]);
    assert_eq!(ports("0:80"), [(None, 0, 80, Tcp)]);
    assert_eq!(ports("target=80,published=8080,protocol=udp"), [(None, 8080, 80, Udp)]);
    assert_eq!(ports("65535:65535"), [(None, 65535, 65535, Tcp)]);
    for bad in [
        "",
        "x",
        "99999:80",
        "80:0",
        "1.2.3:80:80",
        "8000-8001:80-83",
        "81-80",
        "80/sctp",
        "80/x",
        "::1:80:80",
        "8000-8009:80-81",
        "0-9:80",
    ] {
        assert!(parse_publish(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_ports_column_joins_neighbours() {
    let port = |address: Option<&str>, host_port, container_port, protocol| ShownPort {
        address: address.map(|text| text.parse().unwrap()),
        host_port,
        container_port,
        protocol,
    };
    let all = Some("0.0.0.0");
    let column = ports_column(&[
        port(all, 82, 82, Protocol::Tcp),
        port(all, 81, 81, Protocol::Tcp),
        port(all, 80, 80, Protocol::Tcp),
        port(all, 90, 90, Protocol::Tcp),
        port(all, 8001, 81, Protocol::Tcp),
        port(Some("::"), 8000, 80, Protocol::Tcp),
        port(Some("::"), 80, 80, Protocol::Tcp),
        port(None, 0, 443, Protocol::Tcp),
        port(None, 0, 53, Protocol::Udp),
        port(None, 0, 65535, Protocol::Tcp),
    ]);
    assert_eq!(
        column,
        "0.0.0.0:80-82->80-82/tcp, 443/tcp, 53/udp, 0.0.0.0:90->90/tcp, [::]:80->80/tcp, 65535/tcp, \
         [::]:8000->80/tcp, 0.0.0.0:8001->81/tcp"
    );
    assert_eq!(ports_column(&[]), "");
}

#[test]
fn signals_are_read_in_all_spellings() {
    for (text, number) in [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("15", 15),
        ("SIGRTMIN+3", 37),
        ("RTMAX-14", 50),
        ("RTMIN", 34),
        ("64", 64),
        ("WINCH", 28),
    ] {
        assert_eq!(parse_signal(text), Ok(number), "{text}");
    }
    for bad in ["", "0", "65", "-1", "FOO", "RTMIN+31", "SIG"] {
        assert!(parse_signal(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn small_values_are_exact_or_refused() {
    assert_eq!(parse_cpus("0.000000001"), Ok(1));
    assert_eq!(parse_cpus(".5"), Ok(500_000_000));
    for bad in ["", ".", "-1", "1e3", "0.0000000001", "99999999999999999999", "inf"] {
        assert!(parse_cpus(bad).is_err(), "{bad:?}");
    }
    assert_eq!(parse_ulimit("core=-1"), Ok(("core".into(), u64::MAX, u64::MAX)));
    for bad in ["nofile", "nofile=2:1", "nofile=x", "files=1", "nofile=1:2:3"] {
        assert!(parse_ulimit(bad).is_err(), "{bad:?}");
    }
    assert_eq!(parse_restart("on-failure"), Ok(RestartPolicy::OnFailure(0)));
    for bad in ["on-failure:x", "always:3", "sometimes"] {
        assert!(parse_restart(bad).is_err(), "{bad:?}");
    }
    for bad in ["dev", "/dev/a:/dev/b:rwx", "/dev/a:b", "/a:/b:r:w"] {
        assert!(parse_device(bad).is_err(), "{bad:?}");
    }
    assert_eq!(parse_network("container:db"), Ok(NetworkMode::Container("db".into())));
    assert_eq!(parse_network("name=back"), Ok(NetworkMode::Named("back".into())));
    for bad in ["container:", "ns:/x", "name=a,alias=b"] {
        assert!(parse_network(bad).is_err(), "{bad:?}");
    }
    assert_eq!(parse_security_option("label=disable"), Ok(vec![]));
    for bad in ["apparmor=x", "foo", "seccomp=", "landlock=on", "no-new-privileges=x"] {
        assert!(parse_security_option(bad).is_err(), "{bad:?}");
    }
    assert_eq!(parse_add_host("a=::1"), Ok(("a".into(), "::1".into())));
    assert_eq!(parse_add_host("a:host-gateway"), Ok(("a".into(), "host-gateway".into())));
    for bad in ["a", ":1.1.1.1", "a:b", "a b:1.1.1.1"] {
        assert!(parse_add_host(bad).is_err(), "{bad:?}");
    }
}
