//! The inventory as a CycloneDX 1.5 bill of materials (JSON).

use super::{Inventory, Package};
use serde_json::{Value, json};

impl Inventory {
    /// `name` and `version` are those of the image. The result depends on nothing but the arguments and
    /// the inventory, so equal images have equal bytes.
    pub fn to_cyclonedx(&self, name: &str, version: &str, timestamp: Option<&str>) -> Value {
        let mut metadata = json!({
            "tools": { "components": [{ "type": "application", "name": "gilt" }] },
            "component": {
                "type": "operating-system",
                "bom-ref": format!("image:{name}@{version}"),
                "name": name,
                "version": version,
                "description": self.system.name,
            },
        });
        if let Some(timestamp) = timestamp {
            metadata["timestamp"] = timestamp.into();
        }
        let components: Vec<Value> =
            self.packages.iter().map(|package| self.component(package)).collect();
        json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": metadata,
            "components": components,
        })
    }

    fn component(&self, package: &Package) -> Value {
        let purl = self.package_url(package);
        let mut component = json!({
            "type": "library",
            "bom-ref": purl,
            "name": package.name,
            "version": package.version,
            "purl": purl,
        });
        if let Some(supplier) = &package.supplier {
            component["supplier"] = json!({ "name": supplier });
        }
        component
    }

    /// `pkg:deb/debian/name@version?arch=amd64&distro=debian-12`.
    fn package_url(&self, package: &Package) -> String {
        let mut url = format!(
            "pkg:deb/{}/{}@{}",
            encode(&self.system.id),
            encode(&package.name),
            encode(&package.version)
        );
        if !package.architecture.is_empty() {
            url += &format!("?arch={}", encode(&package.architecture));
            if !self.system.version.is_empty() {
                let distro = format!("{}-{}", self.system.id, self.system.version);
                url += &format!("&distro={}", encode(&distro));
            }
        }
        url
    }
}

/// Percent-encoding as the package URL specification wants it.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                out.push(byte.into());
            }
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::OperatingSystem;

    #[test]
    fn a_package_has_its_package_url() {
        let package = Package {
            name: "libstdc++6".into(),
            architecture: "amd64".into(),
            version: "12.2.0-14+deb12u1".into(),
            source: None,
            supplier: None,
        };
        let inventory = Inventory {
            system: OperatingSystem {
                id: "debian".into(),
                version: "12".into(),
                ..Default::default()
            },
            packages: vec![package],
            kernels: vec![],
        };
        let bom = inventory.to_cyclonedx("thin", "1.0", None);
        assert_eq!(
            bom["components"][0]["purl"],
            "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"
        );
    }
}
