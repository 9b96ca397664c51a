//! `Autounattend.xml`: an empty disk, one image, one account, one script.

use super::passes::{
    DEPLOYMENT, ENCRYPTION, INTERNATIONAL, INTERNATIONAL_PE, Pass, SERVER_MANAGER, SETUP, SHELL,
};
use super::password::encode;
use super::xml::Element;
use super::{AnswerFile, Architecture};
use crate::medium;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    Uefi,
    Bios,
}

/// Which image of `install.wim`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageChoice {
    /// From 1.
    Index(u32),
    Name(String),
    /// What the product key stands for, or the only one.
    ByKey,
}

/// The account a build works with; an administrator, removed before capture.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub password: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({})", self.name)
    }
}

/// What Setup is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    pub architecture: Architecture,
    pub firmware: Firmware,
    pub image: ImageChoice,
    /// Chooses the edition; activates nothing.
    pub product_key: Option<String>,
    /// Language of Windows, formats, and Setup: `en-US`.
    pub locale: String,
    /// `0409:00000409`, or a locale for its default keyboard.
    pub keyboard: String,
    /// Windows' name: `W. Europe Standard Time`.
    pub timezone: String,
    pub computer_name: String,
    pub organization: Option<String>,
    pub account: Account,
    /// Leave out Windows 11's checks for TPM, Secure Boot, memory and CPU.
    pub bypass_requirements: bool,
}

/// 4Kn disks need 260 for FAT32; room for firmware updates beside.
const EFI_MB: u32 = 300;
const MSR_MB: u32 = 16;
const SYSTEM_MB: u32 = 500;
const LAB_CONFIG: [&str; 5] = [
    "BypassTPMCheck",
    "BypassSecureBootCheck",
    "BypassRAMCheck",
    "BypassCPUCheck",
    "BypassStorageCheck",
];

fn password(element: &str, password: &str) -> Element {
    Element::new(element).leaf("Value", encode(password, element)).leaf("PlainText", "false")
}

fn command(order: usize, path: String) -> Element {
    Element::item("RunSynchronousCommand").leaf("Order", order.to_string()).leaf("Path", path)
}

impl Install {
    pub fn answer_file(&self) -> AnswerFile {
        let mut file = AnswerFile::default();
        let mut add = |pass, name, settings| file.add(pass, self.architecture, name, settings);
        let mut languages = vec![Element::new("SetupUILanguage").leaf("UILanguage", &self.locale)];
        languages.extend(self.locales());
        add(Pass::WindowsPe, INTERNATIONAL_PE, languages);
        add(Pass::WindowsPe, SETUP, self.setup());

        let mut shell = vec![
            Element::text("ComputerName", &self.computer_name),
            Element::text("TimeZone", &self.timezone),
        ];
        if let Some(organization) = &self.organization {
            shell.push(Element::text("RegisteredOrganization", organization));
        }
        let first_boot = command(1, medium::run_line(medium::FIRST_BOOT));
        add(
            Pass::Specialize,
            DEPLOYMENT,
            vec![
                Element::new("RunSynchronous")
                    .with(first_boot.leaf("Description", "gilt").leaf("WillReboot", "Never")),
            ],
        );
        add(Pass::Specialize, SHELL, shell);
        // Unencrypted until its owner decides: else Sysprep fails, and captured sectors are noise.
        let no_encryption = || vec![Element::text("PreventDeviceEncryption", "true")];
        add(Pass::Specialize, ENCRYPTION, no_encryption());
        // Clients ignore it.
        add(
            Pass::Specialize,
            SERVER_MANAGER,
            vec![Element::text("DoNotOpenServerManagerAtLogon", "true")],
        );

        add(Pass::OobeSystem, INTERNATIONAL, self.locales());
        add(Pass::OobeSystem, ENCRYPTION, no_encryption());
        add(Pass::OobeSystem, SHELL, self.welcome());
        file
    }

    fn locales(&self) -> Vec<Element> {
        vec![
            Element::text("InputLocale", &self.keyboard),
            Element::text("SystemLocale", &self.locale),
            Element::text("UILanguage", &self.locale),
            Element::text("UserLocale", &self.locale),
        ]
    }

    fn setup(&self) -> Vec<Element> {
        let (disk, windows) = self.disk();
        let mut image = Element::new("OSImage");
        let key = match &self.image {
            ImageChoice::Index(index) => Some(("/IMAGE/INDEX", index.to_string())),
            ImageChoice::Name(name) => Some(("/IMAGE/NAME", name.clone())),
            ImageChoice::ByKey => None,
        };
        if let Some((key, value)) = key {
            image = image.with(
                Element::new("InstallFrom")
                    .with(Element::item("MetaData").leaf("Key", key).leaf("Value", value)),
            );
        }
        image = image
            .with(
                Element::new("InstallTo")
                    .leaf("DiskID", "0")
                    .leaf("PartitionID", windows.to_string()),
            )
            .leaf("WillShowUI", "OnError");
        let mut product = Element::new("ProductKey");
        if let Some(key) = &self.product_key {
            product = product.leaf("Key", key);
        }
        let mut user = Element::new("UserData")
            .leaf("AcceptEula", "true")
            .leaf("FullName", &self.account.name)
            .with(product.leaf("WillShowUI", "OnError"));
        if let Some(organization) = &self.organization {
            user = user.leaf("Organization", organization);
        }
        let mut settings = vec![
            Element::new("DiskConfiguration").with(disk).leaf("WillShowUI", "OnError"),
            Element::new("DynamicUpdate").leaf("Enable", "false").leaf("WillShowUI", "Never"),
            Element::new("ImageInstall").with(image),
            user,
        ];
        if self.bypass_requirements {
            let commands = LAB_CONFIG.iter().enumerate().map(|(at, value)| {
                let line = format!(
                    "reg.exe add HKLM\\SYSTEM\\Setup\\LabConfig /v {value} /t REG_DWORD /d 1 /f"
                );
                command(at + 1, line)
            });
            settings.push(Element::new("RunSynchronous").with_all(commands));
        }
        settings
    }

    /// The layout, and the number of the partition for Windows. No recovery partition: what
    /// belongs there stays in `\Windows\System32\Recovery` and so in the captured image.
    fn disk(&self) -> (Element, usize) {
        // Type, size, and how it is formatted: label, file system, letter, active.
        type Plan =
            (&'static str, Option<u32>, Option<(&'static str, &'static str, Option<&'static str>)>);
        let plan: &[Plan] = match self.firmware {
            Firmware::Uefi => &[
                ("EFI", Some(EFI_MB), Some(("System", "FAT32", None))),
                ("MSR", Some(MSR_MB), None),
                ("Primary", None, Some(("Windows", "NTFS", Some("C")))),
            ],
            Firmware::Bios => &[
                ("Primary", Some(SYSTEM_MB), Some(("System", "NTFS", None))),
                ("Primary", None, Some(("Windows", "NTFS", Some("C")))),
            ],
        };
        let mut create = Element::new("CreatePartitions");
        let mut modify = Element::new("ModifyPartitions");
        for (at, (kind, size, format)) in plan.iter().enumerate() {
            let number = (at + 1).to_string();
            let mut partition =
                Element::item("CreatePartition").leaf("Order", &number).leaf("Type", *kind);
            partition = match size {
                Some(size) => partition.leaf("Size", size.to_string()),
                None => partition.leaf("Extend", "true"),
            };
            create.children.push(partition);
            if let Some((label, system, letter)) = format {
                let order = (modify.children.len() + 1).to_string();
                let mut change = Element::item("ModifyPartition")
                    .leaf("Order", order)
                    .leaf("PartitionID", &number)
                    .leaf("Label", *label)
                    .leaf("Format", *system);
                if let Some(letter) = letter {
                    change = change.leaf("Letter", *letter);
                }
                if self.firmware == Firmware::Bios && at == 0 {
                    change = change.leaf("Active", "true");
                }
                modify.children.push(change);
            }
        }
        let disk = Element::item("Disk")
            .leaf("DiskID", "0")
            .leaf("WillWipeDisk", "true")
            .with(create)
            .with(modify);
        (disk, plan.len())
    }

    fn welcome(&self) -> Vec<Element> {
        let Account { name, password: secret } = &self.account;
        let oobe = Element::new("OOBE")
            .leaf("HideEULAPage", "true")
            .leaf("HideLocalAccountScreen", "true")
            .leaf("HideOEMRegistrationScreen", "true")
            .leaf("HideOnlineAccountScreens", "true")
            .leaf("HideWirelessSetupInOOBE", "true")
            .leaf("ProtectYourPC", "3");
        let account = Element::item("LocalAccount")
            .with(password("Password", secret))
            .leaf("Name", name)
            .leaf("DisplayName", name)
            .leaf("Group", "Administrators")
            .leaf("Description", "gilt build, removed before capture");
        // A server asks for it, a client takes it.
        let accounts = Element::new("UserAccounts")
            .with(password("AdministratorPassword", secret))
            .with(Element::new("LocalAccounts").with(account));
        // The script takes the logon away again: `LogonCount` is off by one.
        let logon = Element::new("AutoLogon")
            .with(password("Password", secret))
            .leaf("Enabled", "true")
            .leaf("LogonCount", "1")
            .leaf("Username", name);
        let first = Element::item("SynchronousCommand")
            .leaf("Order", "1")
            .leaf("CommandLine", medium::run_line(medium::FIRST_LOGON))
            .leaf("Description", "gilt");
        vec![
            oobe,
            accounts,
            logon,
            Element::new("FirstLogonCommands").with(first),
            Element::text("TimeZone", &self.timezone),
        ]
    }
}
