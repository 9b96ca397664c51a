//! What a WIM's XML says of an image, typed.

use crate::tree::FileTime;
use crate::xml::Element;

/// An `IMAGE` element. The whole of it is kept; accessors name the fields programs rely on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    pub xml: Element,
}

impl Default for ImageInfo {
    fn default() -> Self {
        Self { xml: Element::new("IMAGE") }
    }
}

/// What the writer counts of an image and puts in its XML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageCounts {
    pub directories: u64,
    pub files: u64,
    /// Of all streams, once per name.
    pub total_bytes: u64,
    /// What hard links save of that.
    pub hardlink_bytes: u64,
}

/// The elements in the order Microsoft's tools write them.
const ORDER: [&str; 13] = [
    "DIRCOUNT",
    "FILECOUNT",
    "TOTALBYTES",
    "HARDLINKBYTES",
    "CREATIONTIME",
    "LASTMODIFICATIONTIME",
    "WIMBOOT",
    "WINDOWS",
    "NAME",
    "DESCRIPTION",
    "FLAGS",
    "DISPLAYNAME",
    "DISPLAYDESCRIPTION",
];

impl ImageInfo {
    pub fn named(name: &str) -> Self {
        let mut info = Self::default();
        info.set_name(name);
        info
    }

    pub fn name(&self) -> Option<&str> {
        self.xml.text_at("NAME")
    }

    pub fn set_name(&mut self, name: &str) {
        self.xml.set("NAME", name);
    }

    pub fn set_description(&mut self, text: &str) {
        self.xml.set("DESCRIPTION", text);
    }

    pub fn description(&self) -> Option<&str> {
        self.xml.text_at("DESCRIPTION")
    }

    /// The edition Setup shows; equal to `WINDOWS/EDITIONID` in a good image.
    pub fn flags(&self) -> Option<&str> {
        self.xml.text_at("FLAGS")
    }

    pub fn created(&self) -> Option<FileTime> {
        self.time("CREATIONTIME")
    }

    pub fn modified(&self) -> Option<FileTime> {
        self.time("LASTMODIFICATIONTIME")
    }

    pub fn counts(&self) -> ImageCounts {
        let number = |path| self.xml.text_at(path).and_then(|text| text.parse().ok()).unwrap_or(0);
        ImageCounts {
            directories: number("DIRCOUNT"),
            files: number("FILECOUNT"),
            total_bytes: number("TOTALBYTES"),
            hardlink_bytes: number("HARDLINKBYTES"),
        }
    }

    /// The `WINDOWS` element: what MDT, WDS and ConfigMgr read.
    pub fn windows(&self) -> Option<WindowsInfo> {
        let windows = self.xml.child("WINDOWS")?;
        let text = |path: &str| windows.text_at(path).map(str::to_owned);
        let number = |path: &str| windows.text_at(path).and_then(|text| text.parse().ok());
        let languages = windows.child("LANGUAGES");
        Some(WindowsInfo {
            architecture: number("ARCH"),
            product_name: text("PRODUCTNAME"),
            edition_id: text("EDITIONID"),
            installation_type: text("INSTALLATIONTYPE"),
            hal: text("HAL"),
            product_type: text("PRODUCTTYPE"),
            product_suite: text("PRODUCTSUITE"),
            languages: languages
                .into_iter()
                .flat_map(|languages| &languages.children)
                .filter(|language| language.name == "LANGUAGE")
                .map(|language| language.text.clone())
                .collect(),
            default_language: text("LANGUAGES/DEFAULT"),
            version_major: number("VERSION/MAJOR"),
            version_minor: number("VERSION/MINOR"),
            version_build: number("VERSION/BUILD"),
            service_pack_build: number("VERSION/SPBUILD"),
            service_pack_level: number("VERSION/SPLEVEL"),
            system_root: text("SYSTEMROOT"),
        })
    }

    /// Writes the fields that are set; others that were in the XML stay.
    pub fn set_windows(&mut self, info: &WindowsInfo) {
        let at = match self.xml.children.iter().position(|child| child.name == "WINDOWS") {
            Some(at) => at,
            None => {
                self.xml.children.push(Element::new("WINDOWS"));
                self.xml.children.len() - 1
            }
        };
        let windows = &mut self.xml.children[at];
        let mut set = |path: &str, value: Option<String>| {
            if let Some(value) = value {
                windows.set(path, value);
            }
        };
        set("ARCH", info.architecture.map(|n| n.to_string()));
        set("PRODUCTNAME", info.product_name.clone());
        set("EDITIONID", info.edition_id.clone());
        set("INSTALLATIONTYPE", info.installation_type.clone());
        set("HAL", info.hal.clone());
        set("PRODUCTTYPE", info.product_type.clone());
        set("PRODUCTSUITE", info.product_suite.clone());
        set("LANGUAGES/DEFAULT", info.default_language.clone());
        set("VERSION/MAJOR", info.version_major.map(|n| n.to_string()));
        set("VERSION/MINOR", info.version_minor.map(|n| n.to_string()));
        set("VERSION/BUILD", info.version_build.map(|n| n.to_string()));
        set("VERSION/SPBUILD", info.service_pack_build.map(|n| n.to_string()));
        set("VERSION/SPLEVEL", info.service_pack_level.map(|n| n.to_string()));
        set("SYSTEMROOT", info.system_root.clone());
        if !info.languages.is_empty() {
            let mut languages = Element::new("LANGUAGES");
            languages
                .children
                .extend(info.languages.iter().map(|tag| Element::with_text("LANGUAGE", tag)));
            if let Some(default) = &info.default_language {
                languages.children.push(Element::with_text("DEFAULT", default));
            }
            match windows.children.iter().position(|child| child.name == "LANGUAGES") {
                Some(at) => windows.children[at] = languages,
                None => windows.children.push(languages),
            }
        }
    }

    pub(crate) fn set_counts(&mut self, counts: ImageCounts) {
        self.xml.set("DIRCOUNT", counts.directories.to_string());
        self.xml.set("FILECOUNT", counts.files.to_string());
        self.xml.set("TOTALBYTES", counts.total_bytes.to_string());
        self.xml.set("HARDLINKBYTES", counts.hardlink_bytes.to_string());
    }

    pub(crate) fn set_time(&mut self, name: &str, time: FileTime) {
        self.xml.set(&format!("{name}/HIGHPART"), format!("0x{:08X}", time.0 >> 32));
        self.xml.set(&format!("{name}/LOWPART"), format!("0x{:08X}", time.0 & 0xffff_ffff));
    }

    fn time(&self, name: &str) -> Option<FileTime> {
        let part = |half: &str| {
            let text = self.xml.text_at(&format!("{name}/{half}"))?;
            let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
            u32::from_str_radix(digits, 16).ok()
        };
        Some(FileTime(u64::from(part("HIGHPART")?) << 32 | u64::from(part("LOWPART")?)))
    }

    /// Puts the known elements in their usual order, the unknown ones after them.
    pub(crate) fn sort(&mut self) {
        let rank = |name: &str| ORDER.iter().position(|known| *known == name);
        self.xml.children.sort_by_key(|child| rank(&child.name).unwrap_or(ORDER.len()));
    }
}

/// The fields of `IMAGE/WINDOWS`. `None` where the XML has nothing (or no number).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowsInfo {
    /// 0 x86, 5 ARM, 9 x86-64, 12 ARM64 (`PROCESSOR_ARCHITECTURE_*`).
    pub architecture: Option<u32>,
    pub product_name: Option<String>,
    pub edition_id: Option<String>,
    pub installation_type: Option<String>,
    pub hal: Option<String>,
    pub product_type: Option<String>,
    pub product_suite: Option<String>,
    pub languages: Vec<String>,
    pub default_language: Option<String>,
    pub version_major: Option<u32>,
    pub version_minor: Option<u32>,
    pub version_build: Option<u32>,
    pub service_pack_build: Option<u32>,
    pub service_pack_level: Option<u32>,
    pub system_root: Option<String>,
}
