//! The records of package managers.

use super::{Manager, Package, System};

/// Longest name or version that is believed to be one.
const MAX_WORD: usize = 256;

/// A package, where its name and version are words.
fn package(manager: Manager, name: &str, version: &str, architecture: &str, licence: &str) -> Option<Package> {
    let is_word = |text: &str| {
        !text.is_empty() && text.len() <= MAX_WORD && !text.chars().any(|c| c.is_whitespace() || c.is_control())
    };
    let licence: String = licence.split_whitespace().collect::<Vec<_>>().join(" ");
    let licence = if licence.len() <= MAX_WORD { licence } else { String::new() };
    let architecture = if is_word(architecture) { architecture } else { "" };
    let [name, version, architecture] = [name, version, architecture].map(str::to_owned);
    (is_word(&name) && is_word(&version)).then_some(Package { manager, name, version, architecture, licence })
}

/// The first field of a name in a paragraph of `Name: value` lines.
fn field<'p>(paragraph: &'p str, name: &str) -> &'p str {
    let line = paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

/// Reads *os-release(5)*.
pub(super) fn system(text: &str) -> System {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let value = line.unwrap_or_default().trim().trim_matches(['"', '\'']);
        value.chars().filter(|c| !c.is_control()).take(MAX_WORD).collect()
    };
    System { id: value("ID"), version: value("VERSION_ID") }
}

/// Reads dpkg's status: what is installed.
pub(super) fn dpkg(text: &str) -> Vec<Package> {
    let installed = |paragraph: &&str| {
        let status = field(paragraph, "Status");
        // The files of images without a package manager have no status.
        status.is_empty() || status.ends_with(" installed")
    };
    let one = |paragraph: &str| {
        let of = |name| field(paragraph, name);
        package(Manager::Deb, of("Package"), of("Version"), of("Architecture"), "")
    };
    text.split("\n\n").filter(installed).filter_map(one).collect()
}

/// Reads Alpine's list of what is installed.
pub(super) fn apk(text: &str) -> Vec<Package> {
    let one = |paragraph: &str| {
        let of = |name| field(paragraph, name);
        package(Manager::Apk, of("P"), of("V"), of("A"), of("L"))
    };
    text.split("\n\n").filter_map(one).collect()
}

/// Reads the metadata of a Python package (*PyPA "Core metadata specifications"*).
pub(super) fn python(text: &str) -> Option<Package> {
    // What follows the first empty line is for people.
    let fields = text.split("\n\n").next().unwrap_or_default();
    // *PyPA "Names and normalization"*, as *purl-spec "pypi"* has it.
    let name = field(fields, "Name").to_lowercase().replace('_', "-");
    let licence = match field(fields, "License-Expression") {
        "" => field(fields, "License"),
        expression => expression,
    };
    package(Manager::Pypi, &name, field(fields, "Version"), "", licence)
}

/// Reads a `package.json` (*npm "package.json"*).
pub(super) fn node(text: &str) -> Option<Package> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let of = |name: &str| value.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    package(Manager::Npm, of("name"), of("version"), "", of("license"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(package: &Package) -> String {
        let Package { name, version, architecture, licence, .. } = package;
        format!("{name} {version} {architecture} {licence}")
    }

    #[test]
    fn what_is_installed_is_listed() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nArchitecture: amd64\nDescription: x\n Package: y\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: bare\nVersion: 4\nArchitecture: all\n";
        assert_eq!(dpkg(status).iter().map(shown).collect::<Vec<_>>(), ["a 1:2-3 amd64 ", "bare 4 all "]);
        let installed = "C:Q1x\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nF:lib\nR:x\n\nP:zlib\nV:1.3\nA:x86_64\nL:Zlib\n\n";
        assert_eq!(
            apk(installed).iter().map(shown).collect::<Vec<_>>(),
            ["musl 1.2.5-r0 x86_64 MIT", "zlib 1.3 x86_64 Zlib"]
        );
        let metadata = "Metadata-Version: 2.1\nName: Zope_Thing\nVersion: 1.0\nLicense: BSD\n\nName: none\n";
        assert_eq!(python(metadata).as_ref().map(shown).as_deref(), Some("zope-thing 1.0  BSD"));
        let json = r#"{"name":"@a/b","version":"0.1.0","license":"MIT"}"#;
        assert_eq!(node(json).as_ref().map(shown).as_deref(), Some("@a/b 0.1.0  MIT"));
        let release = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(system(release), System { id: "debian".into(), version: "12".into() });
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        assert_eq!(dpkg("Package: a b\nVersion: 1\n\nPackage: \u{1}\nVersion: 1\n\nVersion: 1\n\n\n"), []);
        assert_eq!(dpkg(&format!("Package: {}\nVersion: 1\n", "x".repeat(300))), []);
        assert_eq!(python("Name: a\n"), None);
        for text in ["", "[]", "{", r#"{"name":1,"version":"1"}"#, r#"{"name":"a"}"#] {
            assert_eq!(node(text), None, "{text}");
        }
        let long = format!("P:a\nV:1\nA:x y\nL:{}\n", "x".repeat(1000));
        assert_eq!(apk(&long).iter().map(shown).collect::<Vec<_>>(), ["a 1  "]);
    }
}
