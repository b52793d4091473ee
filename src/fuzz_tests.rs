//! The bodies of the fuzz targets (`fuzz/`), on seeds and on mutations of them chosen by a seed that is printed.
//!
//! A commit makes a few thousand per target; `just full fuzz` lets cargo-fuzz search on from the same seeds.

use crate::{build, cli, image, network, oci, sandbox, security, shim};

type Body = fn(&[u8]);

/// Target, body, and texts to begin with. The names are those of `fuzz/targets`.
const TARGETS: &[(&str, Body, &[&[u8]])] = &[
    ("dockerfile", build::fuzz::dockerfile, &[
        b"# syntax=x\n# escape=`\nFROM a:${V:-1} AS b\nARG A=\"1 2\" B\nRUN --mount=type=cache,target=/x <<EOF cat\n$A\nEOF\nCOPY --from=b --chown=1:2 [\"a b\", \"c\"]\n",
        b"FROM scratch\nENV a=${b##*/} c=${d/x/y} e=${f:?no}\nHEALTHCHECK --interval=5s CMD [\"a\"]\nONBUILD RUN \\\n # c\n true\n",
    ]),
    ("ignore", build::fuzz::ignore, &[b"# c\n**/*.o\n!a/[a-c]?.o\n/b/\n..\na/b.o", b"*\n!**/x\n\\*\n[^a]\na/x"]),
    ("glob", build::fuzz::glob, &[b"a[!b-d]*\\?\na/b", b"**/x*/[]]\nx"]),
    ("reference", oci::fuzz::reference, &[
        b"localhost:5000/a/b_c.d:tag-1",
        b"a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ]),
    ("documents", oci::fuzz::documents, &[
        br#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":null,"ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["NONE"],"Interval":5}},"rootfs":{"type":"layers","diff_ids":["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]},"history":[{"created":"2020-01-01T00:00:00Z","empty_layer":true}]}"#,
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"a","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":7},"layers":[],"annotations":{"a":"b"}}"#,
    ]),
    ("tar", image::fuzz::tar, &[include_bytes!("../fuzz/seeds/pax.tar"), include_bytes!("../fuzz/seeds/gnu.tar")]),
    ("answers", image::registry::fuzz::answers, &[
        b"HTTP/1.1 401 No\r\nWww-Authenticate: Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a:pull\", Basic realm=x\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\nLocation: /v2/x?y=z\r\n\r\n",
        b"https://[::1]:5000/a?b\nBearer realm=\"a\\\"b\"\nbytes 5-8/9\nSun, 06 Nov 1994 08:49:37 GMT\n12",
        br#"{"errors":[{"code":"A","message":"b"}],"auths":{"a.b":{"auth":"bWU6cA=="},"https://c/v1/":{"identitytoken":"t"}},"credHelpers":{"x":"y"},"credsStore":"z"}"#,
    ]),
    ("report", image::fuzz::report, &[b"\x01\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0o\x01\0\0\0ae\0\0\0\0"]),
    ("seccomp", security::fuzz::seccomp, &[
        br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[{"names":["read","socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}],"includes":{"caps":["CAP_SYS_ADMIN"],"minKernel":"4.8"},"excludes":{"arches":["s390"]}}]}"#,
    ]),
    ("mountinfo", security::fuzz::mountinfo, &[b"36 35 98:0 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n37 35 0:1 / /sys/fs/\\040x rw shared:1 - cgroup2 c rw\n"]),
    ("graph", build::fuzz::graph, &[
        b"ARG V=1\nFROM a:$V AS b\nARG X=$V\nENV A=$X$X B=${A:-c}\nRUN x $A\nWORKDIR d\nFROM b\nCOPY --from=b --chmod=755 /x y\nEXPOSE 80-82/udp\nVOLUME /v\n",
        b"FROM t12345\nLABEL a=b\nUSER u\nHEALTHCHECK --interval=5s CMD x\nSTOPSIGNAL 9\nCMD [\"a\"]\nENTRYPOINT b\nSHELL [\"s\"]\nONBUILD RUN x\n",
    ]),
    ("unpack", image::fuzz::unpack, &[
        b"dd\nfd/a\tx\nhd/b\td/a\nll\td\nfl/c\ty\nfd/.wh.a\t\nfd/.wh..wh..opq\t\npf\nnn\n",
        b"la\t../..\nfa/b\t1\nda/c/\nfa/c/e\t2\nha/e\ta/c/e\nfa/e\t3\nla/c\t/\n",
        include_bytes!("../fuzz/seeds/pax.tar"),
    ]),
    ("values", cli::fuzz::values, &[
        b"1h2m3.5s", b"1.5GiB", b"2026-01-02T13:23:37.5Z", b"127.0.0.1:8000-8002:80-82/udp", b"/a:/b:ro",
        b"type=bind,src=/a,dst=/b,readonly", b"nofile=1:2", b"/dev/a:/dev/b:rw", b"host:::1", b"container:x", b"SIGRTMIN+3",
    ]),
    ("detach", cli::fuzz::detach, &[b"ctrl-p,ctrl-q\na\x10b\x10\x10\x11c", b"a,b,a,b,c\nabababababc", b"a,a\nbaab"]),
    ("template", cli::fuzz::template, &[
        b"table {{.Name}}\\t{{range $i, $e := .List}}{{if eq $i 1}}{{continue}}{{else}}{{printf \"%5.2f|%q|%v\" 1.5 .Text $e}}{{end}}{{end}}",
        b"{{with $x := .Map.b}}{{json $x}}{{index $x.C 0 | not}}{{end}}{{/* c */ -}} {{ len .List | println }}{{slice .Text 1 2}}",
    ]),
    ("dns", shim::fuzz::dns, &[b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01"]),
    ("messages", shim::fuzz::messages, &[br#"{"Attach":{"stdin":true,"output":true}}"#, br#"{"Started":{"pid":7}}"#, b"{\"a\":1}\n[]\nx\n\x01\x02\x09"]),
    ("log", shim::fuzz::log, &[
        b"\x05\x10\xB1\x6B\x01\0\x05\0\0\0\0\0\0\0\0\0\0\0ab\nc\n\xB1\x6B\x02\0\x02\0\0\0\x01\0\0\0\0\0\0\0d\n",
        b"\x07\x08\xB1\x6B\x01\0\x01\0\0\0\x09\0\0\0\0\0\0\0a\xB1\x6B\x02\0\x03\0\0\0\x02\0\0\0\0\0\0\0\nb\n",
    ]),
    ("accounts", sandbox::fuzz::accounts, &[b"web:www\x0croot:x:0:0:r:/root:/bin/sh\nweb:x:7:8::/srv:\n\x0cwww:x:9:web,root\n\x0c9"]),
    ("order", sandbox::fuzz::order, &[b"\x01\x02\0\0\0\x02\0\0\0sh"]),
    ("netlink", network::fuzz::netlink, &[b"\x20\0\0\0\x10\0\x02\0\x01\0\0\0\0\0\0\0\x0c\0\x03\0eth0\0\0\0\0\0\0\0\0"]),
    ("resolver", network::fuzz::resolver, &[b"# c\nnameserver 1.2.3.4\nnameserver fe80::1%eth0\nsearch a b\noptions ndots:2\n"]),
];

/// Numbers that follow from a seed (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (end.max(1) as u64)).unwrap_or(0)
    }

    /// Changes a few bytes, lengths and places.
    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        const WORDS: [&[u8]; 12] =
            [b"\0", b"\n", b"\\", b"\"", b"${", b"}}", b"**", b"0", b"-1", b"\xff\xff\xff\xff", b"[", b"\x7f"];
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..at, WORDS[self.below(WORDS.len())].iter().copied())),
                2 => {
                    let end = (at + self.below(9)).min(bytes.len());
                    drop(bytes.drain(at..end));
                }
                3 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    drop(bytes.splice(to..to, copy));
                }
                _ => {
                    let value = self.below(256) as u8;
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = if self.below(2) == 0 { value } else { *byte ^ (1 << (value % 8)) };
                    }
                }
            }
        }
        bytes
    }
}

#[test]
fn no_text_of_an_outsider_breaks_a_parser() {
    let seed = std::env::var("BULKHEAD_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let rounds = if std::env::var_os("BULKHEAD_TEST_FULL").is_some() { 200_000 } else { 2_000 };
    for (name, body, seeds) in TARGETS {
        let mut numbers = Numbers(seed ^ 0x9e37_79b9_7f4a_7c15);
        for bytes in *seeds {
            body(bytes);
        }
        for round in 0..rounds {
            let bytes = numbers.mutate(seeds[round % seeds.len()]);
            let tried = std::panic::catch_unwind(|| body(&bytes));
            let shown = || bytes.escape_ascii().to_string();
            assert!(tried.is_ok(), "{name}, BULKHEAD_TEST_SEED={seed}, round {round}: b\"{}\"", shown());
        }
    }
}

#[test]
fn every_target_has_its_program_and_its_seeds() {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, _, seeds) in TARGETS {
        assert!(place.join(format!("targets/{name}.rs")).is_file(), "fuzz/targets/{name}.rs");
        assert!(!seeds.is_empty(), "{name} has a text to begin with");
    }
    let programs = std::fs::read_dir(place.join("targets")).unwrap().count();
    assert_eq!(programs, TARGETS.len(), "every program of fuzz/targets stands in the table");
}

/// Writes the seeds where cargo-fuzz reads them: `BULKHEAD_FUZZ_CORPUS=DIR`, set by `tests/fuzz.sh`.
#[test]
fn seeds_are_written_where_the_search_begins() {
    let Some(place) = std::env::var_os("BULKHEAD_FUZZ_CORPUS") else { return };
    for (name, _, seeds) in TARGETS {
        let dir = std::path::Path::new(&place).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            crate::store::write_bytes(&dir.join(format!("seed-{number}")), seed, crate::store::Durability::Atomic)
                .unwrap();
        }
    }
}
