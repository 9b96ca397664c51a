//! The inventory as a CycloneDX 1.5 bill of materials (JSON).

use super::{Inventory, Kind, Package};
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
            "type": match package.kind {
                Kind::Package | Kind::Update => "library",
                Kind::App | Kind::Program => "application",
                Kind::Driver => "device-driver",
            },
            "bom-ref": purl,
            "name": package.name,
            "version": package.version,
            "purl": purl,
        });
        if package.kind != Kind::Package {
            component["properties"] =
                json!([{ "name": "gilt:windows:kind", "value": package.kind }]);
        }
        if let Some(supplier) = &package.supplier {
            component["supplier"] = json!({ "name": supplier });
        }
        component
    }

    /// `pkg:deb/debian/name@version?arch=amd64&distro=debian-12`. The specification has no type for
    /// what is installed in a Windows: `pkg:generic/windows/update/KB5044284@26100.2033.1.3`.
    fn package_url(&self, package: &Package) -> String {
        if self.windows.is_some() {
            return self.windows_url(package);
        }
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

impl Inventory {
    fn windows_url(&self, package: &Package) -> String {
        let kind = match package.kind {
            Kind::Package => "package",
            Kind::Update => "update",
            Kind::App => "app",
            Kind::Driver => "driver",
            Kind::Program => "program",
        };
        let mut url = format!("pkg:generic/windows/{kind}/{}", encode(&package.name));
        if !package.version.is_empty() {
            url += &format!("@{}", encode(&package.version));
        }
        let mut before = '?';
        for (name, value) in
            [("arch", Some(&package.architecture)), ("inf", package.source.as_ref())]
        {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                url += &format!("{before}{name}={}", encode(value));
                before = '&';
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
            kind: Kind::Package,
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
            windows: None,
        };
        let bom = inventory.to_cyclonedx("thin", "1.0", None);
        assert_eq!(
            bom["components"][0]["purl"],
            "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"
        );
    }
}
