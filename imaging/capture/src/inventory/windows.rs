//! Windows: what the offline registry and the driver store say, as packages like those of any system.
//!
//! | kind | name | version |
//! |---|---|---|
//! | update | `KB5044284`, or the package's own name | of the package |
//! | app | `Microsoft.WindowsTerminal` | of its full name |
//! | driver | class and provider | `DriverVer` |
//! | program | `DisplayName` | `DisplayVersion` |

use super::{Inventory, Kind, OperatingSystem, Package};
use crate::error::Result;
use crate::lookup::TreeView;
use crate::windows::{self, CbsPackage, Driver, Program, Release, WindowsInventory};

pub fn inventory(view: TreeView<'_>) -> Result<Option<Inventory>> {
    let Some(windows) = windows::inventory(view)? else { return Ok(None) };
    let mut packages: Vec<Package> = windows
        .updates()
        .map(update)
        .chain(windows.provisioned_apps.iter().filter_map(|name| app(name)))
        .chain(windows.drivers.iter().map(driver))
        .chain(windows.programs.iter().map(program))
        .collect();
    packages.sort();
    packages.dedup();
    Ok(Some(Inventory {
        system: system(&windows.release),
        packages,
        kernels: Vec::new(),
        windows: Some(Box::new(windows)),
    }))
}

fn system(release: &Release) -> OperatingSystem {
    OperatingSystem {
        id: "windows".into(),
        version: release.version().unwrap_or_default(),
        name: release.name.clone().unwrap_or_default(),
        architecture: release.architecture.clone().unwrap_or_default(),
    }
}

impl Release {
    /// `26100.2314`: the build and what cumulative updates made of it.
    pub fn version(&self) -> Option<String> {
        let build = self.build?;
        Some(self.revision.map_or_else(|| build.to_string(), |ubr| format!("{build}.{ubr}")))
    }
}

impl WindowsInventory {
    /// Installed packages that came as updates, not with the release.
    pub fn updates(&self) -> impl Iterator<Item = &CbsPackage> {
        self.packages.iter().filter(|package| package.state.is_installed() && package.is_update())
    }

    /// Names of the features that are on.
    pub fn enabled_features(&self) -> impl Iterator<Item = &str> {
        let on = self.features.iter().filter(|feature| feature.state.is_installed());
        on.map(|feature| feature.name.as_str())
    }
}

impl CbsPackage {
    fn is_update(&self) -> bool {
        self.name.starts_with("Package_for_")
    }

    /// The parts of `NAME~PUBLIC-KEY~ARCHITECTURE~LANGUAGE~VERSION`.
    fn part(&self, number: usize) -> &str {
        self.name.split('~').nth(number).unwrap_or_default()
    }

    /// `KB5044284` of `Package_for_KB5044284~…`; cumulative updates are `RollupFix` with the build
    /// in their version.
    pub fn short_name(&self) -> &str {
        let name = self.part(0);
        name.strip_prefix("Package_for_").unwrap_or(name)
    }

    pub fn version(&self) -> &str {
        self.part(4)
    }
}

fn update(package: &CbsPackage) -> Package {
    Package {
        kind: Kind::Update,
        name: package.short_name().into(),
        architecture: package.part(2).into(),
        version: package.version().into(),
        source: None,
        supplier: Some("Microsoft Corporation".into()),
    }
}

/// `NAME_VERSION_ARCHITECTURE_RESOURCES_PUBLISHER`.
fn app(full_name: &str) -> Option<Package> {
    let mut parts = full_name.split('_');
    let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Package {
        kind: Kind::App,
        name: name.into(),
        architecture: architecture.into(),
        version: version.into(),
        source: None,
        supplier: None,
    })
}

fn driver(driver: &Driver) -> Package {
    let provider = driver.provider.as_deref().unwrap_or(&driver.inf);
    Package {
        kind: Kind::Driver,
        name: driver
            .class
            .as_ref()
            .map_or_else(|| provider.to_owned(), |class| format!("{class} driver of {provider}")),
        architecture: String::new(),
        version: driver.version.clone().unwrap_or_default(),
        source: Some(driver.inf.clone()),
        supplier: driver.provider.clone(),
    }
}

fn program(program: &Program) -> Package {
    Package {
        kind: Kind::Program,
        name: program.name.clone(),
        architecture: String::new(),
        version: program.version.clone().unwrap_or_default(),
        source: None,
        supplier: program.publisher.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_named_by_its_number() {
        let package = |name: &str| CbsPackage {
            name: name.into(),
            state: windows::CbsState::Installed,
            installed_at: None,
        };
        let update = package("Package_for_KB5044284~31bf3856ad364e35~amd64~~26100.2033.1.3");
        assert!(update.is_update());
        assert_eq!((update.short_name(), update.version()), ("KB5044284", "26100.2033.1.3"));
        let release = package("Microsoft-Windows-Foundation-Package~31bf~amd64~~10.0.26100.1");
        assert!(!release.is_update());
        assert_eq!(package("odd").version(), "");
    }

    #[test]
    fn an_app_without_a_version_is_left_out() {
        let full = "Microsoft.WindowsTerminal_3001.18.10301.0_neutral_~_8wekyb3d8bbwe";
        let package = app(full).unwrap();
        assert_eq!(
            (package.name.as_str(), package.version.as_str()),
            ("Microsoft.WindowsTerminal", "3001.18.10301.0")
        );
        assert_eq!(app("odd"), None);
    }
}
