//! Archives that try to get out, or to bring in what they may not (`facts`: tar family, CVE-2014-9356, CVE-2021-32760).

use super::tar::Kind;
use super::testing::{Archive, Store, file, no_roots};
use crate::oci::Reference;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

/// An archive must be refused with these words, and leave nothing.
fn refused(archive: &[u8], words: &str) {
    let store = Store::new();
    let error = store.import(archive).unwrap_err().to_string();
    assert!(error.contains(words), "{error:?} does not say {words:?}");
    store.check_clean();
    assert_eq!(store.layers(), 0);
    assert!(store.images.list().unwrap().is_empty());
}

#[test]
fn paths_with_dotdot_are_refused() {
    if !crate::tests::root() {
        return;
    }
    refused(&Archive::new().file("../canary", b"x").finish(), "leaves the layer's root");
    refused(&Archive::new().file("a/../../canary", b"x").finish(), "leaves the layer's root");
    refused(
        &Archive::new().file("a", b"x").add(Kind::HardLink, "b", "../canary", b"").finish(),
        "leaves the layer's root",
    );
    refused(&Archive::new().file("a/../.wh.b", b"").finish(), "leaves the layer's root");
}

#[test]
fn absolute_paths_stay_inside() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let path = store.path("canary");
    let image = store.import(&Archive::new().file(path.to_str().unwrap(), b"inside").finish()).unwrap();
    let inside = store.tree(&image).join(path.strip_prefix("/").unwrap());
    assert_eq!(std::fs::read(inside).unwrap(), b"inside");
    store.check_clean();
}

#[test]
fn writing_through_a_link_stays_inside() {
    if !crate::tests::root() {
        return;
    }
    for target in ["/", "/tmp", "../../../../../../../../..", "/proc/self/root"] {
        let store = Store::new();
        let archive =
            Archive::new().directory("tmp").directory("proc/self/root").add(Kind::Symlink, "link", target, b"");
        let outside = store.path("canary");
        let name = format!("link{}", outside.display());
        // A name that nobody else's file has.
        let mark = format!("attack-{}", std::process::id());
        let image = store.import(&archive.file(&name, b"attack").file(&format!("link/{mark}"), b"1").finish()).unwrap();
        assert!(store.tree(&image).join("link").is_symlink());
        store.check_clean();
        assert!(["/", "/tmp"].iter().all(|place| !std::path::Path::new(place).join(&mark).exists()));
    }
}

#[test]
fn a_file_replaces_a_link_and_does_not_follow_it() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let canary = store.path("canary");
    let archive = Archive::new().add(Kind::Symlink, "f", canary.to_str().unwrap(), b"").file("f", b"attack").finish();
    let image = store.import(&archive).unwrap();
    assert_eq!(std::fs::read(store.tree(&image).join("f")).unwrap(), b"attack");
    store.check_clean();
}

#[test]
fn hard_links_reach_only_the_layer() {
    if !crate::tests::root() {
        return;
    }
    refused(&Archive::new().add(Kind::HardLink, "shadow", "/etc/shadow", b"").finish(), "hard link");
    let archive =
        Archive::new().add(Kind::Symlink, "etc", "/etc", b"").add(Kind::HardLink, "shadow", "etc/shadow", b"");
    refused(&archive.finish(), "hard link");
    // A hard link to a symbolic link is the link itself.
    let store = Store::new();
    let archive = Archive::new().add(Kind::Symlink, "l", "/etc/shadow", b"").add(Kind::HardLink, "h", "l", b"");
    let image = store.import(&archive.finish()).unwrap();
    assert!(store.tree(&image).join("h").is_symlink());
}

#[test]
fn deletions_through_links_and_of_odd_names_do_no_harm() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let name = format!("link{}/.wh.canary", store.path("canary").parent().unwrap().display());
    store.import(&Archive::new().add(Kind::Symlink, "link", "/", b"").file(&name, b"").finish()).unwrap();
    store.check_clean();
    for bad in [".wh.", "a/.wh..", ".wh...", ".wh../x"] {
        let result = Store::new().import(&Archive::new().file(bad, b"").finish());
        assert!(result.is_err() || bad == ".wh../x", "{bad}");
    }
}

#[test]
fn extended_headers_cannot_smuggle_paths_or_sizes() {
    if !crate::tests::root() {
        return;
    }
    let long = format!("{}../../canary", "a/".repeat(120));
    let long = long.replace("a/../", "../");
    refused(&Archive::new().file(&long.replace("a/", "./"), b"x").finish(), "leaves the layer's root");
    // A size far beyond the stream.
    let mut archive = Archive::new().file("f", b"x").finish();
    archive[124..136].copy_from_slice(b"77777777777\0");
    fix_checksum(&mut archive);
    refused(&archive, "truncated");
    archive[124..136].copy_from_slice(&[0xff; 12]);
    fix_checksum(&mut archive);
    refused(&archive, "size is no number");
}

fn fix_checksum(archive: &mut [u8]) {
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..512].iter().map(|b| u32::from(*b)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn device_nodes_are_left_out_and_noted() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let archive = Archive::new().add(Kind::Device, "dev/sda", "", b"").file("a", b"1").finish();
    let image = store.import(&archive).unwrap();
    assert!(!store.tree(&image).join("dev/sda").exists());
    let meta = store.images.snapshots().layer(&image.chain()[0]).unwrap().unwrap();
    assert_eq!(meta.devices, ["dev/sda"]);
}

#[test]
fn attributes_that_steer_the_kernel_are_not_taken() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let mut archive = Archive::new();
    let attributes: Vec<(Vec<u8>, Vec<u8>)> =
        ["trusted.overlay.redirect", "trusted.overlay.opaque", "security.selinux", "user.overlay.opaque", "user.fine"]
            .map(|name| (name.as_bytes().to_vec(), b"y".to_vec()))
            .to_vec();
    archive.put(Kind::Directory, "d/", "", b"", &attributes);
    let image = store.import(&archive.finish()).unwrap();
    let mut names = vec![0; 4096];
    let length = rustix::fs::listxattr(store.tree(&image).join("d"), &mut names[..]).unwrap();
    assert_eq!(&names[..length], b"user.fine\0");
    let mut archive = Archive::new();
    archive.put(Kind::File, "f", "", b"", &[(b"security.capability".to_vec(), b"short".to_vec())]);
    refused(&archive.finish(), "malformed file capability");
}

#[test]
fn owners_no_container_can_see_are_refused() {
    if !crate::tests::root() {
        return;
    }
    let mut archive = Archive::new().file("f", b"").finish();
    archive[108..116].copy_from_slice(b"0200000\0");
    fix_checksum(&mut archive);
    refused(&archive, "above 65535");
}

#[test]
fn damaged_archives_are_refused() {
    if !crate::tests::root() {
        return;
    }
    let archive = Archive::new().file("f", &[7; 5000]).finish();
    refused(&archive[..2000], "truncated");
    refused(&archive[..700], "truncated");
    refused(&b"this is a text and no archive, whatever its name says. ".repeat(20), "no tar archive");
    refused(b"", "empty");
    let mut broken = archive.clone();
    broken[0] ^= 1;
    refused(&broken, "checksum");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &archive).unwrap();
    let gzip = gzip.finish().unwrap();
    refused(&gzip[..gzip.len() / 2], "compressed stream is damaged");
    let mut wrong = gzip.clone();
    let last = wrong.len() - 6;
    wrong[last] ^= 1;
    refused(&wrong, "compressed stream is damaged");
    let zstd = zstd::encode_all(&archive[..], 1).unwrap();
    refused(&zstd[..zstd.len() / 2], "compressed stream is damaged");
}

#[test]
fn a_decompression_bomb_is_stopped() {
    if !crate::tests::root() {
        return;
    }
    // 3 GiB of zeros in a few hundred kilobytes.
    let mut head = Archive::new().file("zeros", b"").finish();
    head.truncate(512);
    head[124..136].copy_from_slice(format!("{:011o}\0", 3u64 << 30).as_bytes());
    fix_checksum(&mut head);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    std::io::Write::write_all(&mut encoder, &head).unwrap();
    let zeros = vec![0u8; 1 << 20];
    for _ in 0..3 << 10 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    refused(&encoder.finish().unwrap(), "decompression bomb");
}

#[test]
fn set_id_bits_owners_pipes_and_times_are_kept() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let mut archive = Archive::new().add(Kind::Fifo, "pipe", "", b"").file("su", b"#!").directory("d").finish();
    archive[108 + 512..116 + 512].copy_from_slice(b"0000041\0");
    archive[100 + 512..108 + 512].copy_from_slice(b"0006755\0");
    archive[512 + 148..512 + 156].fill(b' ');
    let sum: u32 = archive[512..1024].iter().map(|b| u32::from(*b)).sum();
    archive[512 + 148..512 + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let image = store.import(&archive).unwrap();
    let su = store.tree(&image).join("su").metadata().unwrap();
    assert_eq!((su.permissions().mode() & 0o7777, su.uid(), su.gid(), su.mtime()), (0o6755, 0o41, 0, 1_000_000_000));
    assert!(store.tree(&image).join("pipe").metadata().unwrap().file_type().is_fifo());
    assert_eq!(store.tree(&image).join("d").metadata().unwrap().mtime(), 1_000_000_000);
    let reference: Reference = "test".parse().unwrap();
    assert_eq!(image.references, [reference]);
    store.check_clean();
}

#[test]
fn deletions_become_overlays_marks() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let archive = Archive::new()
        .file("a/.wh.gone", b"")
        .directory("o")
        .file("o/.wh..wh..opq", b"")
        .file("o/new", b"1")
        .file(".wh.again", b"")
        .directory("again")
        .file(".wh.filled", b"")
        .file("filled/x", b"1")
        .file(".wh..wh.plnk", b"")
        .finish();
    let image = store.import(&archive).unwrap();
    let tree = store.tree(&image);
    let gone = tree.join("a/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for directory in ["o", "again", "filled"] {
        let mut value = [0; 4];
        assert_eq!(
            rustix::fs::getxattr(tree.join(directory), "trusted.overlay.opaque", &mut value),
            Ok(1),
            "{directory}"
        );
    }
    assert!(!tree.join(".wh..wh.plnk").exists());
}

#[test]
fn a_pipe_is_read_as_it_comes() {
    if !crate::tests::root() {
        return;
    }
    let store = Store::new();
    let archive = Archive::new().file("f", &[7; 300_000]).finish();
    for form in [archive.clone(), zstd::encode_all(&archive[..], 1).unwrap()] {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let image = std::thread::scope(|scope| {
            scope.spawn(move || std::io::Write::write_all(&mut std::fs::File::from(write), &form).unwrap());
            store.images.import(&read.into(), &super::ImportOptions::default()).unwrap()
        });
        assert_eq!(image.layers[0].diff_id, crate::base::Digest::of(&archive));
        assert_eq!(std::fs::read(store.tree(&image).join("f")).unwrap(), [7; 300_000]);
    }
    drop(file(b""));
    store.check_clean();
}

#[test]
fn what_load_reads_before_any_layer_is_bounded() {
    if !crate::tests::root() {
        return;
    }
    let manifest = br#"[{"Config":"a.json","RepoTags":null,"Layers":["b"]}]"#;
    let circle = Archive::new()
        .file("manifest.json", manifest)
        .add(Kind::Symlink, "a.json", "b", b"")
        .add(Kind::Symlink, "b", "a.json", b"")
        .finish();
    let outward = Archive::new().file("manifest.json", manifest).add(Kind::Symlink, "a.json", "/../../etc/passwd", b"");
    let long = Archive::new().file("manifest.json", &vec![b' '; 9 << 20]).finish();
    let nested = Archive::new().file("manifest.json", &b"[".repeat(1 << 20)).finish();
    let mut bomb = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let zeros = vec![0u8; 1 << 20];
    for _ in 0..2 << 10 {
        std::io::Write::write_all(&mut bomb, &zeros).unwrap();
    }
    for (archive, words) in [
        (circle, "archive is incomplete: manifest.json names a.json"),
        (outward.finish(), "archive is incomplete: manifest.json names a.json"),
        (long, "longer than 8 MiB"),
        (nested, "read manifest.json"),
        (bomb.finish().unwrap(), "decompression bomb"),
    ] {
        let store = Store::new();
        let error = store.images.load(&file(&archive), &mut |_| {}).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
        store.check_clean();
        assert_eq!(store.layers(), 0);
    }
}

#[test]
fn paths_of_any_depth_leave_nothing_behind() {
    if !crate::tests::root() {
        return;
    }
    for depth in [100, 1900, 5000] {
        let store = Store::new();
        let result = store.import(&Archive::new().file(&format!("{}f", "d/".repeat(depth)), b"deep").finish());
        assert!(result.is_ok() || depth > 100, "{result:?}");
        match result {
            Ok(image) => drop(store.images.remove(image.id.as_str(), true, &|_| Vec::new(), &no_roots).unwrap()),
            Err(error) => assert!(error.to_string().contains("unpack layer"), "{depth}: {error}"),
        }
        store.check_clean();
        assert_eq!(store.layers(), 0, "{depth}");
    }
}
