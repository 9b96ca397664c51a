//! What the XML of a WIM says of a Windows image, read from the image.
//!
//! Setup's choice by product key, WDS, MDT and ConfigMgr read these; an image without `VERSION` is
//! not even shown by MDT.

use std::io::Read;

use gilt_hive::Key;
use gilt_wim::{ImageInfo, WindowsInfo};

use super::hives::{Hives, in_hive};
use super::{Result, WindowsError};
use crate::lookup::TreeView;

const CURRENT_VERSION: &str = r"Microsoft\Windows NT\CurrentVersion";
/// Windows 11 still calls itself Windows 10 in `ProductName`.
const FIRST_WINDOWS_11_BUILD: u32 = 22_000;
/// Class key of computers, whose first instance names the HAL.
const COMPUTER_CLASS: &str = r"Control\Class\{4D36E966-E325-11CE-BFC1-08002BE10318}\0000";

/// Properties of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageProperties {
    /// `FLAGS`, equal to the edition id.
    pub flags: Option<String>,
    /// The product's name as users know it: `Windows 11 Pro`.
    pub display_name: Option<String>,
    pub windows: WindowsInfo,
}

/// From kernel32.dll and the hives. `None` where the tree holds no Windows.
pub fn image_properties(view: TreeView<'_>) -> Result<Option<ImageProperties>> {
    match Hives::open(view)? {
        Some(hives) => properties_of(view, &hives).map(Some),
        None => Ok(None),
    }
}

/// Fills what deployment tools read of an image, where the tree holds a Windows; names that `info` has already stay.
pub fn describe_windows(view: TreeView<'_>, info: &mut ImageInfo) -> Result<()> {
    let Some(properties) = image_properties(view)? else { return Ok(()) };
    info.set_windows(&properties.windows);
    let set = |info: &mut ImageInfo, name: &str, value: &Option<String>| {
        if let Some(value) = value.as_ref().filter(|_| info.xml.text_at(name).is_none()) {
            info.xml.set(name, value);
        }
    };
    set(info, "FLAGS", &properties.flags);
    set(info, "DISPLAYNAME", &properties.display_name);
    set(info, "DISPLAYDESCRIPTION", &properties.display_name);
    Ok(())
}

pub(super) fn properties_of(view: TreeView<'_>, hives: &Hives) -> Result<ImageProperties> {
    let mut windows = WindowsInfo {
        architecture: architecture(view)?,
        system_root: system_root(view),
        ..WindowsInfo::default()
    };
    if let Some(key) = hives.software_key(CURRENT_VERSION)? {
        software(&key, &mut windows).map_err(in_hive("SOFTWARE"))?;
    }
    system(hives, &mut windows)?;
    languages(hives, &mut windows)?;
    let display_name =
        windows.product_name.as_deref().map(|name| match name.strip_prefix("Windows 10") {
            Some(rest) if windows.version_build >= Some(FIRST_WINDOWS_11_BUILD) => {
                format!("Windows 11{rest}")
            }
            _ => name.to_owned(),
        });
    Ok(ImageProperties { flags: windows.edition_id.clone(), display_name, windows })
}

fn software(key: &Key<'_>, windows: &mut WindowsInfo) -> gilt_hive::Result<()> {
    windows.product_name = key.text("ProductName")?;
    windows.edition_id = key.text("EditionID")?;
    windows.installation_type = key.text("InstallationType")?;
    windows.version_major = key.dword("CurrentMajorVersionNumber")?;
    windows.version_minor = key.dword("CurrentMinorVersionNumber")?;
    if windows.version_major.is_none() {
        // Before Windows 10 there is only "6.3".
        let text = key.text("CurrentVersion")?.unwrap_or_default();
        let mut parts = text.split('.').map(|part| part.parse().ok());
        windows.version_major = parts.next().flatten();
        windows.version_minor = parts.next().flatten();
    }
    windows.version_build = build(key)?;
    Ok(())
}

pub(super) fn build(key: &Key<'_>) -> gilt_hive::Result<Option<u32>> {
    for name in ["CurrentBuild", "CurrentBuildNumber"] {
        if let Some(build) = key.text(name)?.and_then(|text| text.trim().parse().ok()) {
            return Ok(Some(build));
        }
    }
    Ok(None)
}

pub(super) fn current_version(hives: &Hives) -> Result<Option<Key<'_>>> {
    hives.software_key(CURRENT_VERSION)
}

fn system(hives: &Hives, windows: &mut WindowsInfo) -> Result<()> {
    let bad = in_hive("SYSTEM");
    if let Some(key) = hives.control_key(r"Control\Windows")? {
        windows.service_pack_build = key.dword("CSDBuildNumber").map_err(&bad)?;
        windows.service_pack_level = key.dword("CSDVersion").map_err(&bad)?.map(|v| v >> 8);
    }
    if let Some(key) = hives.control_key(r"Control\ProductOptions")? {
        windows.product_type = key.text("ProductType").map_err(&bad)?;
        let suites = key.value("ProductSuite").map_err(&bad)?;
        windows.product_suite = suites
            .and_then(|value| value.texts().ok()?.into_iter().next())
            .filter(|s| !s.is_empty());
    }
    if let Some(key) = hives.control_key(COMPUTER_CLASS)? {
        windows.hal = key.text("MatchingDeviceId").map_err(&bad)?;
    }
    Ok(())
}

fn languages(hives: &Hives, windows: &mut WindowsInfo) -> Result<()> {
    let bad = in_hive("SYSTEM");
    let mut by_lcid = Vec::new();
    if let Some(key) = hives.control_key(r"Control\MUI\UILanguages")? {
        for language in key.subkeys().map_err(&bad)? {
            let name = language.name();
            if let Some(lcid) = language.dword("LCID").map_err(&bad)? {
                by_lcid.push((lcid, name.clone()));
            }
            windows.languages.push(name);
        }
    }
    if let Some(key) = hives.control_key(r"Control\Nls\Language")?
        && let Some(text) = key.text("InstallLanguage").map_err(&bad)?
        && let Ok(lcid) = u32::from_str_radix(text.trim(), 16)
    {
        // The image itself knows best; the table is for images that do not say.
        let known = by_lcid.into_iter().find(|(known, _)| *known == lcid).map(|(_, name)| name);
        windows.default_language = known.or_else(|| language_of_lcid(lcid).map(str::to_owned));
    }
    Ok(())
}

/// Languages Windows is installed in ([MS-LCID]).
pub fn language_of_lcid(lcid: u32) -> Option<&'static str> {
    const TABLE: &[(u32, &str)] = &[
        (0x0401, "ar-SA"),
        (0x0402, "bg-BG"),
        (0x0403, "ca-ES"),
        (0x0404, "zh-TW"),
        (0x0405, "cs-CZ"),
        (0x0406, "da-DK"),
        (0x0407, "de-DE"),
        (0x0408, "el-GR"),
        (0x0409, "en-US"),
        (0x040A, "es-ES"),
        (0x040B, "fi-FI"),
        (0x040C, "fr-FR"),
        (0x040D, "he-IL"),
        (0x040E, "hu-HU"),
        (0x0410, "it-IT"),
        (0x0411, "ja-JP"),
        (0x0412, "ko-KR"),
        (0x0413, "nl-NL"),
        (0x0414, "nb-NO"),
        (0x0415, "pl-PL"),
        (0x0416, "pt-BR"),
        (0x0418, "ro-RO"),
        (0x0419, "ru-RU"),
        (0x041A, "hr-HR"),
        (0x041B, "sk-SK"),
        (0x041D, "sv-SE"),
        (0x041E, "th-TH"),
        (0x041F, "tr-TR"),
        (0x0421, "id-ID"),
        (0x0422, "uk-UA"),
        (0x0424, "sl-SI"),
        (0x0425, "et-EE"),
        (0x0426, "lv-LV"),
        (0x0427, "lt-LT"),
        (0x042A, "vi-VN"),
        (0x042D, "eu-ES"),
        (0x0456, "gl-ES"),
        (0x0804, "zh-CN"),
        (0x0809, "en-GB"),
        (0x080A, "es-MX"),
        (0x0816, "pt-PT"),
        (0x081A, "sr-Latn-CS"),
        (0x0C04, "zh-HK"),
        (0x0C0A, "es-ES"),
        (0x0C0C, "fr-CA"),
        (0x241A, "sr-Latn-RS"),
    ];
    TABLE.iter().find(|(known, _)| *known == lcid).map(|(_, name)| *name)
}

/// The name of the directory as it is spelled: `Windows` or `WINDOWS`. Importers compare without
/// case; Microsoft's images say `WINDOWS`.
fn system_root(view: TreeView<'_>) -> Option<String> {
    let entries = view.list("/");
    let name = entries.into_iter().map(|(name, _)| name);
    name.into_iter().find(|name| name.eq_ignore_ascii_case("windows")).map(|n| n.to_uppercase())
}

/// `PROCESSOR_ARCHITECTURE_*` of the PE header of kernel32.dll.
fn architecture(view: TreeView<'_>) -> Result<Option<u32>> {
    let path = r"\Windows\System32\kernel32.dll";
    let Some(found) = view.find(path) else { return Ok(None) };
    let Some(stream) = found.node.streams.iter().find(|stream| stream.name.is_none()) else {
        return Ok(None);
    };
    let mut head = Vec::new();
    view.contents
        .open(stream.content)
        .and_then(|bytes| bytes.take(4096).read_to_end(&mut head))
        .map_err(|source| WindowsError::Read { path: path.to_owned(), source })?;
    Ok(pe_machine(&head).and_then(|machine| {
        Some(match machine {
            0x014C => 0,
            0x01C4 => 5,
            0x0200 => 6,
            0x8664 => 9,
            0xAA64 => 12,
            _ => return None,
        })
    }))
}

fn pe_machine(head: &[u8]) -> Option<u16> {
    if head.get(..2)? != b"MZ" {
        return None;
    }
    let at = u32::from_le_bytes(head.get(0x3C..0x40)?.try_into().ok()?) as usize;
    let pe = head.get(at..at.checked_add(6)?)?;
    (pe[..4] == *b"PE\0\0").then(|| u16::from_le_bytes([pe[4], pe[5]]))
}
