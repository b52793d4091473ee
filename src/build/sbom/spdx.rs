//! A list of packages as an SPDX document (*SPDX 2.3*).

use super::{Manager, Package, System};
use crate::base::{Digest, Timestamp};
use crate::oci::package_url;
use serde_json::{Value, json};

/// What a document is of.
#[derive(Clone, Debug)]
pub struct Document<'d> {
    /// What the image is called.
    pub name: &'d str,
    /// Its id, or that of its topmost layer.
    pub image: &'d Digest,
    /// Whose packages they are.
    pub system: &'d System,
    /// What is installed.
    pub packages: &'d [Package],
    /// When the list was made.
    pub created: Timestamp,
}

fn url(package: &Package, system: &System) -> String {
    let Package { name, version, architecture, .. } = package;
    let distribution = format!("{}-{}", system.id, system.version);
    let of_system = |kind: &str, otherwise: &str| {
        let namespace = if system.id.is_empty() { otherwise } else { &system.id };
        let qualifiers = [("arch", architecture.as_str()), ("distro", distribution.trim_matches('-'))];
        package_url(kind, &format!("{namespace}/{name}"), version, &qualifiers)
    };
    match package.manager {
        Manager::Deb => of_system("deb", "debian"),
        Manager::Apk => of_system("apk", "alpine"),
        Manager::Pypi => package_url("pypi", name, version, &[]),
        Manager::Npm => package_url("npm", name, version, &[]),
    }
}

/// Makes the document.
pub fn document(of: &Document<'_>) -> Value {
    const IMAGE: &str = "SPDXRef-Image";
    let identifier = |number: usize| format!("SPDXRef-Package-{number}");
    let image = json!({
        "SPDXID": IMAGE, "name": of.name, "versionInfo": of.image, "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": "NOASSERTION", "filesAnalyzed": false,
    });
    let package = |(number, package): (usize, &Package)| {
        let mut value = json!({
            "SPDXID": identifier(number), "name": package.name, "versionInfo": package.version,
            "downloadLocation": "NOASSERTION", "filesAnalyzed": false,
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url(package, of.system),
            }],
        });
        if !package.licence.is_empty() {
            // As the package says it, which is not always a licence expression.
            value["comment"] = format!("licence: {}", package.licence).into();
        }
        value
    };
    let relationship = |from: &str, kind: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
    let contained = (0..of.packages.len()).map(|number| relationship(IMAGE, "CONTAINS", &identifier(number)));
    json!({
        "spdxVersion": "SPDX-2.3",
        "SPDXID": "SPDXRef-DOCUMENT",
        "dataLicense": "CC0-1.0",
        "name": of.name,
        "documentNamespace": format!("urn:bulkhead:sbom:{}", of.image.hex()),
        "creationInfo": {
            // Without a fraction.
            "created": Timestamp(of.created.0.div_euclid(1_000_000_000) * 1_000_000_000),
            "creators": [concat!("Tool: bulkhead-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": std::iter::once(image).chain(of.packages.iter().enumerate().map(package)).collect::<Vec<_>>(),
        "relationships": std::iter::once(relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)).chain(contained).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_their_urls_and_the_image_contains_them() {
        let package = |manager, name: &str, architecture: &str| Package {
            manager,
            name: name.to_owned(),
            version: "1:2".to_owned(),
            architecture: architecture.to_owned(),
            licence: String::new(),
        };
        let packages =
            [package(Manager::Deb, "a", "amd64"), package(Manager::Pypi, "b", ""), package(Manager::Npm, "@c/d", "")];
        let system = System { id: "debian".into(), version: "12".into() };
        let of = |system| {
            document(&Document {
                name: "x",
                image: &Digest::of(b"x"),
                system,
                packages: &packages,
                created: Timestamp(0),
            })
        };
        let made = of(&system);
        let url = |made: &Value, number: usize| made["packages"][number]["externalRefs"][0]["referenceLocator"].clone();
        assert_eq!(url(&made, 1), "pkg:deb/debian/a@1%3A2?arch=amd64&distro=debian-12");
        assert_eq!(url(&made, 2), "pkg:pypi/b@1%3A2");
        assert_eq!(url(&made, 3), "pkg:npm/%40c/d@1%3A2");
        assert_eq!(url(&of(&System::default()), 1), "pkg:deb/debian/a@1%3A2?arch=amd64");
        assert_eq!(made["relationships"].as_array().map(Vec::len), Some(4));
        assert_eq!(made["relationships"][3]["relatedSpdxElement"], made["packages"][3]["SPDXID"]);
    }
}
