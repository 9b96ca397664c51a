//! Which drivers of a collection (virtio-win, say) a machine needs, told by what stands in their
//! INF files and not by the letter of a drive.

use crate::answer::Architecture;

/// A device of the machine that Windows has no driver for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    VirtioBlock,
    VirtioScsi,
    VirtioNet,
    VirtioSerial,
    VirtioBalloon,
}

impl Device {
    /// Hardware ids of the transitional and of the modern device (virtio specification 4.1.2).
    fn ids(self) -> [&'static str; 2] {
        match self {
            Self::VirtioNet => ["VEN_1AF4&DEV_1000", "VEN_1AF4&DEV_1041"],
            Self::VirtioBlock => ["VEN_1AF4&DEV_1001", "VEN_1AF4&DEV_1042"],
            Self::VirtioBalloon => ["VEN_1AF4&DEV_1002", "VEN_1AF4&DEV_1045"],
            Self::VirtioSerial => ["VEN_1AF4&DEV_1003", "VEN_1AF4&DEV_1043"],
            Self::VirtioScsi => ["VEN_1AF4&DEV_1004", "VEN_1AF4&DEV_1048"],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::VirtioNet => "virtio-net",
            Self::VirtioBlock => "virtio-blk",
            Self::VirtioBalloon => "virtio-balloon",
            Self::VirtioSerial => "virtio-serial",
            Self::VirtioScsi => "virtio-scsi",
        }
    }
}

/// Folder names of virtio-win, best first.
pub fn folders_for(build: u32, is_server: bool) -> &'static [&'static str] {
    match (is_server, build) {
        (true, 26_100..) => &["2k25", "2k22", "w11", "2k19"],
        (true, 20_348..) => &["2k22", "2k19", "w10"],
        (true, 17_763..) => &["2k19", "2k16", "w10"],
        (true, _) => &["2k16", "w10"],
        (false, 22_000..) => &["w11", "w10"],
        (false, _) => &["w10"],
    }
}

/// An INF file of the collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inf {
    /// With `/`.
    pub path: String,
    pub text: String,
}

/// A device without a driver in the collection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no driver for {} on {architecture} among {searched} INF files", .device.name())]
pub struct NoDriver {
    pub device: Device,
    pub architecture: &'static str,
    pub searched: usize,
}

/// The folder of the best driver for each device, without doubles.
pub fn choose(
    infs: &[Inf],
    devices: &[Device],
    architecture: Architecture,
    folders: &[&str],
) -> Result<Vec<String>, NoDriver> {
    let mut chosen: Vec<String> = Vec::new();
    for device in devices {
        let best = infs
            .iter()
            .filter(|inf| drives(inf, *device, architecture))
            .filter_map(|inf| Some((rank(&inf.path, folders)?, inf)))
            .min_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
        let Some((_, inf)) = best else {
            let architecture = architecture.name();
            return Err(NoDriver { device: *device, architecture, searched: infs.len() });
        };
        let folder = inf.path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        if !chosen.contains(&folder) {
            chosen.push(folder);
        }
    }
    Ok(chosen)
}

/// A device's id in a section for the architecture.
fn drives(inf: &Inf, device: Device, architecture: Architecture) -> bool {
    let text = inf.text.to_ascii_uppercase();
    let suffix = match architecture {
        Architecture::Amd64 => "NTAMD64",
        Architecture::Arm64 => "NTARM64",
        Architecture::X86 => "NTX86",
    };
    text.contains(suffix) && device.ids().iter().any(|id| text.contains(id))
}

/// Place of the path's folder among the wanted; last for a collection not sorted by system.
fn rank(path: &str, folders: &[&str]) -> Option<usize> {
    const SYSTEMS: [&str; 13] = [
        "xp", "2k3", "2k8", "2k8r2", "2k12", "2k12r2", "2k16", "2k19", "2k22", "2k25", "w7", "w8",
        "w8.1",
    ];
    let parts: Vec<String> = path.split('/').map(str::to_ascii_lowercase).collect();
    let wanted = folders.iter().position(|folder| parts.iter().any(|part| part == folder));
    if wanted.is_some() {
        return wanted;
    }
    let other = |part: &String| SYSTEMS.contains(&part.as_str()) || part == "w10" || part == "w11";
    (!parts.iter().any(other)).then_some(folders.len())
}

/// An INF's text: UTF-16 with a mark, or bytes of some code page.
pub fn decode(bytes: &[u8]) -> String {
    let wide = |from: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|pair| from([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect()
    };
    match bytes {
        [0xFF, 0xFE, ..] => wide(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => wide(u16::from_be_bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inf(path: &str, id: &str) -> Inf {
        let text =
            format!("[Manufacturer]\n%V%=M,NTamd64\n[M.NTamd64]\n%D%=I, PCI\\{id}&SUBSYS_x\n");
        Inf { path: path.into(), text }
    }

    fn collection() -> Vec<Inf> {
        vec![
            inf("viostor/w10/amd64/viostor.inf", "VEN_1AF4&DEV_1001"),
            inf("viostor/w11/amd64/viostor.inf", "VEN_1AF4&DEV_1042"),
            inf("viostor/2k25/amd64/viostor.inf", "VEN_1AF4&DEV_1042"),
            inf("NetKVM/w10/amd64/netkvm.inf", "VEN_1AF4&DEV_1000"),
            inf("vioscsi/2k12R2/amd64/vioscsi.inf", "VEN_1AF4&DEV_1048"),
        ]
    }

    #[test]
    fn the_driver_for_the_system_wins_and_the_next_older_helps() {
        let devices = [Device::VirtioBlock, Device::VirtioNet];
        let found = |folders| choose(&collection(), &devices, Architecture::Amd64, folders);
        assert_eq!(
            found(folders_for(26_100, false)).unwrap(),
            ["viostor/w11/amd64", "NetKVM/w10/amd64"]
        );
        let error = found(folders_for(26_100, true)).unwrap_err();
        assert_eq!(error.device, Device::VirtioNet);
        assert!(found(folders_for(17_763, true)).is_ok());
    }

    #[test]
    fn another_system_or_architecture_is_no_match() {
        let error = choose(
            &collection(),
            &[Device::VirtioScsi],
            Architecture::Amd64,
            folders_for(26_100, false),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "no driver for virtio-scsi on amd64 among 5 INF files");
        assert!(
            choose(&collection(), &[Device::VirtioBlock], Architecture::Arm64, &["w11"]).is_err()
        );
        let flat = [inf("drivers/viostor.inf", "VEN_1AF4&DEV_1042")];
        assert_eq!(
            choose(&flat, &[Device::VirtioBlock], Architecture::Amd64, &["w11"]).unwrap(),
            ["drivers"]
        );
    }

    #[test]
    fn both_encodings() {
        let wide: Vec<u8> = [0xFF, 0xFE]
            .into_iter()
            .chain("[V]".encode_utf16().flat_map(u16::to_le_bytes))
            .collect();
        assert_eq!(decode(&wide), "[V]");
        assert_eq!(decode(b"[V]"), "[V]");
        assert_eq!(decode(&[0xFF, 0xFE, 1]), "");
    }
}
