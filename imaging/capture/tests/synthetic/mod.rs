//! A directory that looks like an installed Windows: files, and hives made by hivexregedit.

#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Windows {
    pub root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Windows {
    /// Windows 11 Pro, generalized, with one of everything.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let windows = Self { root: dir.path().join("C"), _dir: dir };
        fs::create_dir_all(windows.path("Windows/System32/config")).unwrap();
        for hive in ["SOFTWARE", "SYSTEM"] {
            let empty = regf::HiveBuilder::new_with_name("ROOT").unwrap().to_bytes().unwrap();
            fs::write(windows.hive(hive), empty).unwrap();
        }
        windows.write("Windows/System32/kernel32.dll", &pe(0x8664));
        windows.merge("SOFTWARE", SOFTWARE);
        windows.merge("SYSTEM", SYSTEM);
        windows.write("Windows/System32/Sysprep/Sysprep_succeeded.tag", b"");
        windows.write(
            "Windows/Setup/State/State.ini",
            b"[State]\r\nImageState=\"IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE\"\r\n",
        );
        windows.write("Windows/System32/Recovery/Winre.wim", b"MSWIM");
        windows.write(
            "Windows/INF/oem0.inf",
            b"[Version]\r\nClass=Net\r\nProvider=%RH%\r\nDriverVer=07/11/2024,100.95.104.26200\r\n\
              [Strings]\r\nRH=\"Red Hat, Inc.\"\r\n",
        );
        windows.write("Windows/INF/machine.inf", b"[Version]\r\nClass=System\r\n");
        windows
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    pub fn hive(&self, name: &str) -> PathBuf {
        self.path("Windows/System32/config").join(name)
    }

    pub fn write(&self, below: &str, contents: &[u8]) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    pub fn remove(&self, below: &str) {
        fs::remove_file(self.path(below)).unwrap();
    }

    /// Adds keys and values to a hive; paths begin with `HIVE\`.
    pub fn merge(&self, hive: &str, reg: &str) {
        merge(&self.hive(hive), reg);
    }
}

/// An image for a machine, as far as its header goes.
pub fn pe(machine: u16) -> Vec<u8> {
    let mut pe = vec![0; 1024];
    pe[..2].copy_from_slice(b"MZ");
    pe[0x3C] = 0x80;
    pe[0x80..0x84].copy_from_slice(b"PE\0\0");
    pe[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
    pe
}

fn merge(hive: &Path, reg: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("keys.reg");
    let text = format!("Windows Registry Editor Version 5.00\n{}", with_parents(reg));
    fs::write(&file, text).unwrap();
    let output = Command::new("hivexregedit")
        .args(["--merge", "--prefix", "HIVE", "--encoding", "UTF-8"])
        .arg(hive)
        .arg(&file)
        .output()
        .expect("needs hivexregedit (libwin-hivex-perl): run ci/setup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// hivexregedit makes no key whose parent is not there, and wants blank lines between keys.
fn with_parents(reg: &str) -> String {
    let mut out = String::new();
    let mut known = BTreeSet::from(["HIVE".to_owned()]);
    for line in reg.lines() {
        if let Some(path) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            for (at, _) in path.match_indices('\\') {
                if known.insert(path[..at].to_owned()) {
                    out += &format!("\n[{}]\n", &path[..at]);
                }
            }
            known.insert(path.to_owned());
            out.push('\n');
        }
        out += line;
        out.push('\n');
    }
    out
}

const SOFTWARE: &str = r#"
[HIVE\Microsoft\Windows NT\CurrentVersion]
"ProductName"="Windows 10 Pro"
"EditionID"="Professional"
"InstallationType"="Client"
"CurrentMajorVersionNumber"=dword:0000000a
"CurrentMinorVersionNumber"=dword:00000000
"CurrentVersion"="6.3"
"CurrentBuild"="26100"
"CurrentBuildNumber"="26100"
"UBR"=dword:00000a8c
"DisplayVersion"="24H2"
"BuildLabEx"="26100.1.amd64fre.ge_release.240331-1435"
[HIVE\Microsoft\Windows NT\CurrentVersion\Winlogon]
"Shell"="explorer.exe"
[HIVE\Microsoft\Windows\CurrentVersion\Setup\State]
"ImageState"="IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
[HIVE\Microsoft\Windows\CurrentVersion\Component Based Servicing\Packages\Package_for_RollupFix~31bf3856ad364e35~amd64~~26100.2700.1.7]
"CurrentState"=dword:00000070
"InstallTimeHigh"=dword:01db4e3c
"InstallTimeLow"=dword:12345678
[HIVE\Microsoft\Windows\CurrentVersion\Component Based Servicing\Packages\Package_for_RollupFix~31bf3856ad364e35~amd64~~26100.1742.1.10]
"CurrentState"=dword:00000050
[HIVE\Microsoft\Windows\CurrentVersion\Component Based Servicing\Packages\Microsoft-Windows-Foundation-Package~31bf3856ad364e35~amd64~~10.0.26100.1]
"CurrentState"=dword:00000080
[HIVE\Microsoft\Windows\CurrentVersion\Component Based Servicing\Packages\Microsoft-Windows-Foundation-Package~31bf3856ad364e35~amd64~~10.0.26100.1\Updates]
"TelnetClient"=dword:00000040
"NetFx3"=dword:00000070
[HIVE\Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore\Applications\Microsoft.WindowsTerminal_3001.18.10301.0_neutral_~_8wekyb3d8bbwe]
[HIVE\Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore\Deprovisioned\Microsoft.BingNews_8wekyb3d8bbwe]
[HIVE\Microsoft\Windows\CurrentVersion\Uninstall\{11111111-2222-3333-4444-555555555555}]
"DisplayName"="Example Runtime"
"DisplayVersion"="8.0.11"
"Publisher"="Example"
[HIVE\Microsoft\Windows\CurrentVersion\Uninstall\no name]
"SystemComponent"=dword:00000001
[HIVE\WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall\Tool]
"DisplayName"="A 32-bit Tool"
"SystemComponent"=dword:00000001
"#;

const SYSTEM: &str = r#"
[HIVE\Select]
"Current"=dword:00000001
"Default"=dword:00000001
[HIVE\ControlSet001\Control\Windows]
"CSDBuildNumber"=dword:00000a8c
"CSDVersion"=dword:00000000
[HIVE\ControlSet001\Control\ProductOptions]
"ProductType"="WinNT"
"ProductSuite"=hex(7):54,00,65,00,72,00,6d,00,69,00,6e,00,61,00,6c,00,20,00,53,00,65,00,72,00,76,00,65,00,72,00,00,00,00,00
[HIVE\ControlSet001\Control\Class\{4D36E966-E325-11CE-BFC1-08002BE10318}\0000]
"MatchingDeviceId"="acpiapic"
[HIVE\ControlSet001\Control\MUI\UILanguages\en-US]
"LCID"=dword:00000409
[HIVE\ControlSet001\Control\MUI\UILanguages\de-DE]
"LCID"=dword:00000407
[HIVE\ControlSet001\Control\Nls\Language]
"InstallLanguage"="0409"
[HIVE\Setup]
"SetupType"=dword:00000002
"CmdLine"="oobe\\windeploy.exe"
[HIVE\Setup\Status\SysprepStatus]
"GeneralizationState"=dword:00000007
"CleanupState"=dword:00000002
"#;
