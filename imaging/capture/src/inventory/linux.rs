//! Linux: os-release(5), dpkg's status files, kernels in /boot.

use super::{Inventory, OperatingSystem, Package};
use crate::error::{CaptureError, Result};
use crate::lookup::TreeView;

const OS_RELEASE_MAX_BYTES: u64 = 64 << 10;
/// A system of 10,000 packages has about 20 MB.
const STATUS_MAX_BYTES: u64 = 256 << 20;

pub fn inventory(view: TreeView<'_>) -> Result<Option<Inventory>> {
    let read = |path: &str, max| {
        view.read(path, max)
            .map(|bytes| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
            .map_err(|source| CaptureError::File { path: path.into(), source })
    };
    let release = match read("/etc/os-release", OS_RELEASE_MAX_BYTES)? {
        Some(text) => Some(text),
        None => read("/usr/lib/os-release", OS_RELEASE_MAX_BYTES)?,
    };
    let Some(release) = release else { return Ok(None) };
    let field = |key: &str| field_of(&release, key).unwrap_or_default();
    let mut packages = Vec::new();
    if let Some(status) = read("/var/lib/dpkg/status", STATUS_MAX_BYTES)? {
        packages = dpkg_packages(&status);
    }
    // Images without a package manager keep one file for each package.
    for (name, found) in view.list("/var/lib/dpkg/status.d") {
        if name.ends_with(".md5sums") || found.node.is_directory() {
            continue;
        }
        let path = format!("/var/lib/dpkg/status.d/{name}");
        if let Some(text) = read(&path, STATUS_MAX_BYTES)? {
            packages.extend(dpkg_packages(&text));
        }
    }
    packages.sort();
    packages.dedup();
    let kernels = view.list("/boot").into_iter();
    let mut kernels: Vec<_> =
        kernels.filter_map(|(name, _)| name.strip_prefix("vmlinuz-").map(str::to_owned)).collect();
    kernels.sort();
    let architecture = packages
        .iter()
        .find(|package| package.name == "dpkg" || package.name == "base-files")
        .map(|package| package.architecture.clone())
        .unwrap_or_default();
    Ok(Some(Inventory {
        system: OperatingSystem {
            id: field("ID"),
            version: field("VERSION_ID"),
            name: field("PRETTY_NAME"),
            architecture,
        },
        packages,
        kernels,
        windows: None,
    }))
}

/// A value of a shell-like file, its quotes taken off.
fn field_of(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    let line = line.trim();
    let quoted = ['"', '\'']
        .iter()
        .find_map(|quote| line.strip_prefix(*quote).and_then(|rest| rest.strip_suffix(*quote)));
    let Some(quoted) = quoted else { return Some(line.to_owned()) };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            value.extend(chars.next());
        } else {
            value.push(c);
        }
    }
    Some(value)
}

fn dpkg_packages(status: &str) -> Vec<Package> {
    status.split("\n\n").filter_map(dpkg_package).collect()
}

fn dpkg_package(paragraph: &str) -> Option<Package> {
    let field = |key: &str| {
        let lines = paragraph.lines().filter(|line| !line.starts_with([' ', '\t']));
        let mut found = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(key).then(|| value.trim().to_owned())
        });
        found.next().filter(|value| !value.is_empty())
    };
    // `status.d` files have no such field: what is there is installed.
    let installed = field("Status").is_none_or(|status| status.ends_with(" installed"));
    if !installed {
        return None;
    }
    Some(Package {
        kind: super::Kind::Package,
        name: field("Package")?,
        version: field("Version")?,
        architecture: field("Architecture").unwrap_or_default(),
        // `Source: name (version)`.
        source: field("Source").map(|source| source.split(' ').next().unwrap_or("").to_owned()),
        supplier: field("Maintainer"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_are_listed_with_version_and_architecture() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\n\
                      Description: text\n continued: with a colon\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                      Package: b\nSource: bsrc (1.0)\nArchitecture: all\nVersion: 1.0+b1\n";
        let list = dpkg_packages(status);
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].name.as_str(), list[0].version.as_str()), ("a", "1:2-3"));
        assert_eq!(list[1].source.as_deref(), Some("bsrc"));
    }

    #[test]
    fn os_release_values_lose_their_quotes() {
        let text = "NAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\nID=debian\nX=\"a \\\"b\\\"\"\n";
        assert_eq!(field_of(text, "NAME").as_deref(), Some("Debian GNU/Linux"));
        assert_eq!(field_of(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(field_of(text, "ID").as_deref(), Some("debian"));
        assert_eq!(field_of(text, "X").as_deref(), Some("a \"b\""));
    }
}
