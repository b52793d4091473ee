//! `--provenance`, `--sbom`: what is said of an image beside it, on a registry and in an archive, and of files.

use crate::push::Distribution;
use crate::support::registry::digest;
use crate::support::{World, host, requires};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

/// The statement beside an image, and the digest of the image; `blob` reads what a digest names.
#[track_caller]
fn statement(index: &Value, blob: &dyn Fn(&str) -> Value) -> (Value, String) {
    let [image, beside] = &index["manifests"].as_array().unwrap()[..] else { panic!("two manifests: {index}") };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!(image["platform"]["os"], "linux");
    assert_eq!(beside["platform"]["os"], "unknown");
    assert_eq!(beside["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(beside["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    let manifest = blob(&text(&beside["digest"]));
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
    assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], "https://slsa.dev/provenance/v1");
    assert_eq!(blob(&text(&manifest["config"]["digest"]))["rootfs"]["diff_ids"][0], layer["digest"]);
    let statement = blob(&text(&layer["digest"]));
    assert_eq!(statement["subject"][0]["digest"]["sha256"], text(&image["digest"])[7..]);
    (statement, text(&image["digest"]))
}

#[test]
fn how_an_image_was_made_is_said_beside_what_is_pushed() {
    requires!(root, program "docker-registry", program "skopeo", program "curl");
    let world = World::new();
    let registry = Distribution::start(&world);
    let name = format!("{}/team/app:1", registry.address);
    world.busybox();
    world.write("app/Dockerfile", "FROM busybox\nARG PASSWORD\nRUN echo made > /made\n");
    let build = |more: &[&str]| {
        let flags = ["build", "--network", "none", "--build-arg", "PASSWORD=hunter2", "--label", "a=b", "-t", &name];
        let proxy = ["--build-arg", "HTTPS_PROXY=http://user:hunter3@127.0.0.1:9"];
        world.bulkhead(&[&flags[..], &proxy, more, &["app"]].concat())
    };
    build(&["--push", "--provenance", "true", "--metadata-file", "meta"]).ok();
    let raw = || world.host("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]).ok();
    let index: Value = serde_json::from_str(&raw()).unwrap();
    let address = &registry.address;
    let blob = |digest: &str| -> Value {
        let get = |place: &str| {
            let kind = "Accept: application/vnd.oci.image.manifest.v1+json";
            world.host("curl", &["-sf", "-H", kind, &format!("http://{address}/v2/team/app/{place}/{digest}")])
        };
        let found = get("blobs");
        let found = if found.code == 0 { found } else { get("manifests") };
        serde_json::from_str(&found.ok()).unwrap()
    };
    let (said, _) = statement(&index, &blob);
    let subject = said["subject"][0]["name"].as_str().unwrap();
    assert_eq!(subject, "pkg:docker/127.0.0.1%3A5000/team/app@1?platform=linux%2Famd64");
    let of = &said["predicate"]["buildDefinition"];
    assert_eq!(of["externalParameters"]["configSource"]["path"], "Dockerfile");
    let material = &of["resolvedDependencies"][0];
    assert_eq!(material["uri"], "pkg:docker/busybox@latest?platform=linux%2Famd64");
    assert_eq!(material["digest"]["sha256"].as_str().map(str::len), Some(64));
    let metadata = &said["predicate"]["runDetails"]["metadata"];
    assert!(metadata["startedOn"].as_str() <= metadata["finishedOn"].as_str(), "{metadata}");
    let text = said.to_string();
    assert!(!text.contains("hunter2") && !text.contains(world.path("app").to_str().unwrap()), "{text}");
    // What the name stands for on the registry is what is said of it here.
    let digest = host("sh", &["-c", "printf %s \"$1\" | sha256sum | cut -c-64", "x", &raw()]).ok();
    let meta: Value = serde_json::from_slice(&std::fs::read(world.path("meta")).unwrap()).unwrap();
    assert_eq!(meta["containerimage.digest"], format!("sha256:{}", digest.trim()));
    assert!(world.inspect(&name, "{{.RepoDigests}}").contains(digest.trim()));
    // All of it, where that is asked for.
    build(&["--push", "--attest", "type=provenance,mode=max,builder-id=https://ci.example/1"]).ok();
    let (said, _) = statement(&serde_json::from_str(&raw()).unwrap(), &blob);
    let of = &said["predicate"]["buildDefinition"];
    assert_eq!(of["externalParameters"]["request"]["args"]["PASSWORD"], "hunter2");
    assert!(!said.to_string().contains("hunter3"), "a proxy's password leaves no trace");
    assert!(of["internalParameters"]["dockerfile"].as_str().unwrap().contains("echo made"));
    assert!(of["internalParameters"]["stages"][0][0]["title"].as_str().unwrap().contains("echo made"));
    assert_eq!(said["predicate"]["runDetails"]["builder"]["id"], "https://ci.example/1");
    // The image behind it is pulled and runs.
    world.ok(&["rmi", "-f", &name]);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", &name, "cat", "/made"]), "made");
}

#[test]
fn an_archive_says_how_its_image_was_made() {
    requires!(root, program "tar");
    let world = World::new();
    world.busybox();
    world.write("app/Dockerfile", "FROM busybox\nCOPY Dockerfile /\n");
    let build = |more: &[&str]| world.bulkhead(&[&["build", "-t", "said:1"], more, &["app"]].concat());
    build(&["--provenance", "mode=min", "-o", "type=oci,dest=said.tar"]).ok();
    let to = world.untar("said.tar", "said");
    let read = |path: String| -> Value { serde_json::from_slice(&std::fs::read(to.join(path)).unwrap()).unwrap() };
    let blob = |digest: &str| read(format!("blobs/sha256/{}", &digest[7..]));
    let top = read("index.json".to_owned());
    let (_, image) = statement(&blob(top["manifests"][0]["digest"].as_str().unwrap()), &blob);
    let config = blob(&image)["config"]["digest"].as_str().unwrap().to_owned();
    assert!(world.ok(&["load", "-i", "said.tar"]).contains("said:1"));
    assert_eq!(world.inspect("said:1", "{{.Id}}"), config);
    // Where it would be said of nothing, or cannot be said, that is told.
    build(&["--provenance", "true"]).fails(125, &["--push", "type=oci", "-o DIRECTORY"]);
    build(&["--provenance", "false"]).ok();
    build(&["--provenance", "mode=most", "--push"]).fails(125, &["mode=most", "mode=min|max"]);
    build(&["--sbom", "true"]).fails(125, &["--push", "type=oci"]);
    build(&["--sbom", "generator=x/y", "--push"]).fails(125, &["generator=x/y", "without an image"]);
    build(&["--attest", "type=vex", "--push"]).fails(125, &["type=provenance"]);
}

#[test]
fn the_packages_of_an_image_are_listed_beside_it() {
    requires!(root, program "tar");
    let world = World::new();
    world.busybox();
    let status = "Package: made-up\nStatus: install ok installed\nVersion: 1.2-3\nArchitecture: amd64\n";
    world.write("app/tree/var/lib/dpkg/status", status);
    world.write("app/tree/etc/os-release", "ID=debian\nVERSION_ID=12\n");
    world.write("app/tree/app/node_modules/@a/b/package.json", r#"{"name":"@a/b","version":"0.1.0","license":"MIT"}"#);
    let python = "app/tree/usr/lib/python3/dist-packages/six-1.16.0.dist-info/METADATA";
    world.write(python, "Metadata-Version: 2.1\nName: Six\nVersion: 1.16.0\n");
    // A record that leads out of the image is no file of it.
    std::fs::create_dir_all(world.path("app/tree/lib/apk/db")).unwrap();
    std::os::unix::fs::symlink("/proc/1/environ", world.path("app/tree/lib/apk/db/installed")).unwrap();
    world.write("app/Dockerfile", "FROM scratch\nCOPY tree /\n");
    let flags = ["--sbom", "true", "--provenance", "true", "-o", "type=oci,dest=listed.tar"];
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1000000000", "-t", "listed:1", "app"];
    world.ok(&[&["build"], &flags[..], &epoch].concat());
    let to = world.untar("listed.tar", "listed");
    let read = |path: String| -> Value { serde_json::from_slice(&std::fs::read(to.join(path)).unwrap()).unwrap() };
    let blob = |digest: &Value| read(format!("blobs/sha256/{}", &digest.as_str().unwrap()[7..]));
    let index = blob(&read("index.json".to_owned())["manifests"][0]["digest"]);
    let layers = blob(&index["manifests"][1]["digest"])["layers"].clone();
    assert_eq!(layers.as_array().map(Vec::len), Some(2));
    assert_eq!(layers[1]["annotations"]["in-toto.io/predicate-type"], "https://spdx.dev/Document");
    let statement = blob(&layers[1]["digest"]);
    assert_eq!(statement["predicateType"], "https://spdx.dev/Document");
    let list = &statement["predicate"];
    assert_eq!(
        (&list["spdxVersion"], &list["creationInfo"]["created"]),
        (&"SPDX-2.3".into(), &"2001-09-09T01:46:40Z".into())
    );
    let packages = list["packages"].as_array().unwrap();
    let urls: Vec<&str> =
        packages[1..].iter().map(|package| package["externalRefs"][0]["referenceLocator"].as_str().unwrap()).collect();
    let expected =
        ["pkg:deb/debian/made-up@1.2-3?arch=amd64&distro=debian-12", "pkg:pypi/six@1.16.0", "pkg:npm/%40a/b@0.1.0"];
    assert_eq!(urls, expected);
}

#[test]
fn what_is_said_of_files_lies_beside_them() {
    requires!(root, program "tar");
    let world = World::new();
    world.busybox();
    world.write("app/Dockerfile", "FROM scratch\nCOPY a /dir/a\nCOPY a /b\n");
    world.write("app/a", "content");
    let sum = digest(b"content").replace("sha256:", "");
    let build = |more: &[&str]| {
        world.bulkhead(&[&["build", "--provenance", "true", "--sbom", "true"], more, &["app"]].concat())
    };
    let check = |directory: &str, prefix: &str| {
        for (name, kind) in
            [("provenance", "https://slsa.dev/provenance/v1"), ("sbom.spdx", "https://spdx.dev/Document")]
        {
            let path = world.path(&format!("{directory}/{prefix}{name}.json"));
            let said: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(said["predicateType"], kind);
            let subject = |name: &str| json!({ "name": name, "digest": { "sha256": sum } });
            assert_eq!(said["subject"], json!([subject("b"), subject("dir/a")]), "{directory}");
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read(world.path(&format!("{directory}/dir/a"))).unwrap(), b"content");
    };
    build(&["-o", "out"]).ok();
    check("out", "");
    build(&["-o", "type=local,dest=named,attestation-prefix=my-"]).ok();
    check("named", "my-");
    build(&["-o", "type=tar,dest=out.tar"]).ok();
    world.untar("out.tar", "tarred");
    check("tarred", "");
    // What a person built is never taken for it, nor lost.
    world.write("app/Dockerfile", "FROM scratch\nCOPY a /provenance.json\n");
    build(&["-o", "own"]).fails(1, &["a file provenance.json", "attestation-prefix="]);
    build(&["-o", "type=local,dest=own,attestation-prefix=my-"]).ok();
    assert_eq!(std::fs::read(world.path("own/provenance.json")).unwrap(), b"content");
    assert!(world.path("own/my-provenance.json").exists());
}
