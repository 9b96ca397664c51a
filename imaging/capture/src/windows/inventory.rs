//! What is installed: release, updates, features, apps, drivers, programs.
//!
//! | what | where |
//! |---|---|
//! | packages | SOFTWARE `…\Component Based Servicing\Packages\NAME`: `CurrentState`, `InstallTime*` |
//! | features | the same, `NAME\Updates`: a state for each (field knowledge, not documented) |
//! | pending | `PackagesPending`, `RebootPending`, `WinSxS\pending.xml`, a package half way |
//! | apps | SOFTWARE `…\Appx\AppxAllUserStore\Applications` |
//! | drivers | `Windows\INF\oem*.inf` |
//! | programs | SOFTWARE `…\Uninstall`, and below `WOW6432Node` |

use gilt_hive::Key;
use serde::{Deserialize, Serialize};

use super::Result;
use super::hives::{Hives, in_hive, read};
use super::inf::{DriverInf, parse_inf};
use super::properties::{build, current_version, properties_of};
use crate::lookup::TreeView;

const SERVICING: &str = r"Microsoft\Windows\CurrentVersion\Component Based Servicing";
const APPS: &str = r"Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore";
const PROGRAMS: [(&str, RegistryView); 2] = [
    (r"Microsoft\Windows\CurrentVersion\Uninstall", RegistryView::Native),
    (r"WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall", RegistryView::ThirtyTwoBit),
];
/// The largest INF of a vendor is some MiB.
const MAX_INF_BYTES: u64 = 16 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowsInventory {
    pub release: Release,
    /// By name.
    pub packages: Vec<CbsPackage>,
    pub features: Vec<Feature>,
    pub pending: Vec<PendingServicing>,
    /// Full names of packages every new user gets.
    pub provisioned_apps: Vec<String>,
    /// Family names that were removed for good.
    pub deprovisioned_apps: Vec<String>,
    pub drivers: Vec<Driver>,
    pub programs: Vec<Program>,
    /// `winre.wim` is on this volume; else it is on the recovery partition or gone.
    pub has_recovery_environment: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// As users know it: `Windows 11 Pro`.
    pub name: Option<String>,
    pub edition: Option<String>,
    pub installation_type: Option<String>,
    /// `24H2`.
    pub display_version: Option<String>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub build: Option<u32>,
    /// The update build revision: what cumulative updates raise.
    pub revision: Option<u32>,
    pub build_lab: Option<String>,
    /// `amd64`, `arm64`, `x86` …
    pub architecture: Option<String>,
    pub languages: Vec<String>,
    pub default_language: Option<String>,
}

/// State of a package (CBS servicing states chart).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CbsState {
    Absent,
    UninstallPending,
    Resolving,
    Resolved,
    Staging,
    Staged,
    Superseded,
    InstallPending,
    PartiallyInstalled,
    Installed,
    Permanent,
    /// Negative states: installed or staged, and broken.
    Broken(i32),
    Unknown(i32),
}

impl CbsState {
    pub fn from_number(number: u32) -> Self {
        match number.cast_signed() {
            0x00 => Self::Absent,
            0x05 => Self::UninstallPending,
            0x10 => Self::Resolving,
            0x20 => Self::Resolved,
            0x30 => Self::Staging,
            0x40 => Self::Staged,
            0x50 => Self::Superseded,
            0x60 => Self::InstallPending,
            0x65 => Self::PartiallyInstalled,
            0x70 => Self::Installed,
            0x80 => Self::Permanent,
            negative if negative < 0 => Self::Broken(negative),
            other => Self::Unknown(other),
        }
    }

    /// Half way: the machine must start once more before it may be generalized.
    pub fn is_pending(self) -> bool {
        matches!(
            self,
            Self::UninstallPending | Self::Resolving | Self::Staging | Self::InstallPending
        )
    }

    pub fn is_installed(self) -> bool {
        matches!(self, Self::Installed | Self::Permanent | Self::PartiallyInstalled)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CbsPackage {
    pub name: String,
    pub state: CbsState,
    /// FILETIME.
    pub installed_at: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    pub name: String,
    pub state: CbsState,
}

/// Why servicing is not complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PendingServicing {
    PackagesPending,
    RebootPending,
    PendingXml,
    Package(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Name in the driver store: `oem3.inf`.
    pub inf: String,
    pub provider: Option<String>,
    pub class: Option<String>,
    pub date: Option<String>,
    pub version: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub name: String,
    pub version: Option<String>,
    pub publisher: Option<String>,
    /// Its key: a product code for MSI packages.
    pub id: String,
    pub registry: RegistryView,
    /// Hidden from users.
    pub is_component: bool,
}

/// Where a program entered itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RegistryView {
    #[serde(rename = "native")]
    Native,
    #[serde(rename = "32-bit")]
    ThirtyTwoBit,
}

/// Reads all of it; `None` where the tree holds no Windows.
pub fn inventory(view: TreeView<'_>) -> Result<Option<WindowsInventory>> {
    let Some(hives) = Hives::open(view)? else { return Ok(None) };
    let (packages, features) = packages(&hives)?;
    let pending = pending(view, &hives, &packages)?;
    Ok(Some(WindowsInventory {
        release: release(view, &hives)?,
        pending,
        packages,
        features,
        provisioned_apps: names_below(&hives, &format!(r"{APPS}\Applications"))?,
        deprovisioned_apps: names_below(&hives, &format!(r"{APPS}\Deprovisioned"))?,
        drivers: drivers(view)?,
        programs: programs(&hives)?,
        has_recovery_environment: view.find(r"\Windows\System32\Recovery\Winre.wim").is_some(),
    }))
}

fn release(view: TreeView<'_>, hives: &Hives) -> Result<Release> {
    let properties = properties_of(view, hives)?;
    let windows = properties.windows;
    let mut release = Release {
        name: properties.display_name,
        edition: windows.edition_id,
        installation_type: windows.installation_type,
        major: windows.version_major,
        minor: windows.version_minor,
        build: windows.version_build,
        languages: windows.languages,
        default_language: windows.default_language,
        architecture: windows.architecture.map(|number| {
            match number {
                0 => "x86",
                5 => "arm",
                6 => "ia64",
                9 => "amd64",
                12 => "arm64",
                _ => "unknown",
            }
            .to_owned()
        }),
        ..Release::default()
    };
    if let Some(key) = current_version(hives)? {
        let bad = in_hive("SOFTWARE");
        release.build = build(&key).map_err(&bad)?;
        release.revision = key.dword("UBR").map_err(&bad)?;
        release.display_version = key.text("DisplayVersion").map_err(&bad)?;
        if release.display_version.is_none() {
            release.display_version = key.text("ReleaseId").map_err(&bad)?;
        }
        release.build_lab = key.text("BuildLabEx").map_err(&bad)?;
    }
    Ok(release)
}

fn packages(hives: &Hives) -> Result<(Vec<CbsPackage>, Vec<Feature>)> {
    let bad = in_hive("SOFTWARE");
    let (mut packages, mut features) = (Vec::new(), Vec::new());
    let Some(all) = hives.software_key(&format!(r"{SERVICING}\Packages"))? else {
        return Ok((packages, features));
    };
    for key in all.subkeys().map_err(&bad)? {
        let Some(state) = key.dword("CurrentState").map_err(&bad)? else { continue };
        packages.push(CbsPackage {
            name: key.name(),
            state: CbsState::from_number(state),
            installed_at: installed_at(&key).map_err(&bad)?,
        });
        let Some(updates) = key.subkey("Updates").map_err(&bad)? else { continue };
        for value in updates.values().map_err(&bad)? {
            if let Ok(state) = value.dword() {
                let name = value.name().to_owned();
                features.push(Feature { name, state: CbsState::from_number(state) });
            }
        }
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    features.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((packages, features))
}

fn installed_at(key: &Key<'_>) -> gilt_hive::Result<Option<u64>> {
    let (high, low) = (key.dword("InstallTimeHigh")?, key.dword("InstallTimeLow")?);
    Ok(high.zip(low).map(|(high, low)| u64::from(high) << 32 | u64::from(low)))
}

fn pending(
    view: TreeView<'_>,
    hives: &Hives,
    packages: &[CbsPackage],
) -> Result<Vec<PendingServicing>> {
    let mut found = Vec::new();
    for (name, what) in [
        ("PackagesPending", PendingServicing::PackagesPending),
        ("RebootPending", PendingServicing::RebootPending),
    ] {
        if hives.software_key(&format!(r"{SERVICING}\{name}"))?.is_some() {
            found.push(what);
        }
    }
    if view.find(r"\Windows\WinSxS\pending.xml").is_some() {
        found.push(PendingServicing::PendingXml);
    }
    let half_way = packages.iter().filter(|package| package.state.is_pending());
    found.extend(half_way.map(|package| PendingServicing::Package(package.name.clone())));
    Ok(found)
}

/// What [`inventory`] calls pending, alone.
pub(super) fn pending_servicing(
    view: TreeView<'_>,
    hives: &Hives,
) -> Result<Vec<PendingServicing>> {
    let (packages, _) = packages(hives)?;
    pending(view, hives, &packages)
}

fn names_below(hives: &Hives, path: &str) -> Result<Vec<String>> {
    let Some(key) = hives.software_key(path)? else { return Ok(Vec::new()) };
    let keys = key.subkeys().map_err(in_hive("SOFTWARE"))?;
    let mut names: Vec<String> = keys.iter().map(Key::name).collect();
    names.sort();
    Ok(names)
}

fn drivers(view: TreeView<'_>) -> Result<Vec<Driver>> {
    let mut drivers = Vec::new();
    for (name, _) in view.list(r"\Windows\INF") {
        let lower = name.to_lowercase();
        let number = lower.strip_prefix("oem").and_then(|rest| rest.strip_suffix(".inf"));
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else { continue };
        let path = format!(r"\Windows\INF\{name}");
        let Some(bytes) = read(view, &path, MAX_INF_BYTES)? else { continue };
        let DriverInf { provider, class, date, version, .. } =
            parse_inf(&gilt_wim::xml::decode_text(&bytes));
        drivers.push((number, Driver { inf: lower, provider, class, date, version }));
    }
    drivers.sort_by_key(|(number, _)| *number);
    Ok(drivers.into_iter().map(|(_, driver)| driver).collect())
}

fn programs(hives: &Hives) -> Result<Vec<Program>> {
    let bad = in_hive("SOFTWARE");
    let mut programs = Vec::new();
    for (path, registry) in PROGRAMS {
        let Some(all) = hives.software_key(path)? else { continue };
        for key in all.subkeys().map_err(&bad)? {
            let Some(name) = key.text("DisplayName").map_err(&bad)? else { continue };
            programs.push(Program {
                name,
                version: key.text("DisplayVersion").map_err(&bad)?,
                publisher: key.text("Publisher").map_err(&bad)?,
                id: key.name(),
                registry,
                is_component: key.dword("SystemComponent").map_err(&bad)? == Some(1),
            });
        }
    }
    programs.sort_by(|a, b| (&a.name, a.registry, &a.id).cmp(&(&b.name, b.registry, &b.id)));
    Ok(programs)
}
