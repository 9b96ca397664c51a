//! What only Windows guests have: how Setup is answered, and Windows' own provisioners.

use super::{Code, FileRef, Folder};
use crate::template::cx::Cx;
use crate::template::fields::{choices, fields};
use crate::template::node::Node;
use crate::template::text::Text;
use std::collections::BTreeMap;
use std::time::Duration;

fields! {
    /// How Windows Setup is answered.
    pub struct WindowsSetup = "windows", check check_setup {
        /// Number of the image in `install.wim`, from 1.
        key image_index: Option<u32> = None,
        /// Name of the image in `install.wim`: `Windows Server 2025 SERVERSTANDARD`.
        key image_name: Option<String> = None,
        /// Product key; without one, Setup takes the edition's generic key or none.
        key product_key: Option<Text> = None,
        /// Language of Windows and formats: `en-US`.
        key locale: String = "en-US".to_owned(),
        /// Keyboard: `0409:00000409`, or a locale for its default keyboard. Without one, that of `locale`.
        key keyboard: Option<String> = None,
        /// Windows' name of the time zone: `W. Europe Standard Time`.
        key timezone: String = "UTC".to_owned(),
        /// Name of the computer while it is built.
        key computer_name: String = "GILT-BUILD".to_owned(),
        /// Registered organization.
        key organization: Option<Text> = None,
        /// Folders with drivers that Setup needs (disk, network), in order.
        key drivers: Vec<Folder> = Vec::new(),
        /// Leave out the checks for TPM, Secure Boot, memory and CPU in Windows 11's Setup.
        key bypass_requirements: bool = false,
        /// Collection of virtio drivers: the ISO of virtio-win, or a folder with `kind: dir`. The
        /// drivers the machine needs are told by their INF files.
        key virtio: Option<FileRef> = None,
        /// The OpenSSH server for Windows, `.zip` or `.msi`. Without one, the guest adds Windows'
        /// own, for which it needs Windows Update (Server 2025 has it already).
        key openssh: Option<FileRef> = None,
        /// An answer file whose settings are laid over gilt's.
        key answer_file: Option<FileRef> = None,
        /// Start the medium without its "Press any key", from a copy that differs in a few bytes.
        key no_prompt: bool = true,
        /// Commands run once as SYSTEM before the first login.
        key first_boot: Vec<Text> = Vec::new(),
    }
}

impl WindowsSetup {
    /// All defaults.
    pub fn plain() -> Self {
        super::template::defaults()
    }
}

fn check_setup(setup: &WindowsSetup, node: &Node, cx: &mut Cx) {
    let Some(map) = node.as_map() else { return };
    let at = |key: &str| map.get(key).map_or(node.span, |entry| entry.node.span);
    match (&setup.image_index, &setup.image_name) {
        (Some(_), Some(_)) => {
            cx.error(
                at("image_name"),
                "`image_index` and `image_name` exclude each other in windows",
            );
        }
        (Some(0), None) => cx.error(at("image_index"), "images in a WIM are numbered from 1"),
        _ => {}
    }
    let name = &setup.computer_name;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let digits_only = name.chars().all(|c| c.is_ascii_digit());
    if name.is_empty() || name.len() > 15 || !name.chars().all(allowed) || digits_only {
        cx.error_hint(
            at("computer_name"),
            format!("`{name}` cannot be a computer's name"),
            "1 to 15 letters, digits and dashes, not only digits",
        );
    }
}

choices! {
    /// The account a PowerShell provisioner runs as.
    pub enum WindowsAccount {
        /// The account gilt logs in with, in the login's own session.
        User = "user",
        /// The same account with a full administrator's token, through a scheduled task.
        Elevated = "elevated",
        /// SYSTEM, through a scheduled task.
        System = "system",
    }
}

choices! {
    /// Which PowerShell runs a script.
    pub enum PowerShellEdition {
        /// `powershell.exe`, Windows PowerShell 5.1, part of Windows.
        Windows = "windows",
        /// `pwsh.exe`, PowerShell 7; a layer must have installed it.
        Core = "core",
    }
}

fields! {
    /// Runs PowerShell in the guest. A cmdlet that fails stops the script. The exit code is that of
    /// `exit N`, else of the last program the script called; 1 for an error nobody caught.
    pub struct PowerShell = "powershell", short powershell_short {
        flat code: Code,
        /// Environment variables.
        key env: BTreeMap<String, Text> = BTreeMap::new(),
        /// Arguments of a `script`.
        key args: Vec<Text> = Vec::new(),
        /// The account it runs as.
        key account as "as": WindowsAccount = WindowsAccount::Elevated,
        /// Which PowerShell.
        key edition: PowerShellEdition = PowerShellEdition::Windows,
        /// Execution policy for this script only.
        key execution_policy: String = "Bypass".to_owned(),
        /// Exit codes that mean success. 3010 means success and that a restart is needed.
        key valid_exit_codes: Vec<i64> = vec![0],
        /// How long it may take.
        run timeout: Duration = Duration::from_secs(3600),
        /// How often it is tried again after a failure.
        run retries: u32 = 0,
        /// How long to wait before it is tried again.
        run retry_delay: Duration = Duration::from_secs(10),
    }
}

fn powershell_short(node: &Node, cx: &mut Cx) -> Option<Option<PowerShell>> {
    let inline = super::provisioner::short_inline(node, cx)?;
    Some(inline.map(|code| PowerShell {
        code,
        env: BTreeMap::new(),
        args: Vec::new(),
        account: WindowsAccount::Elevated,
        edition: PowerShellEdition::Windows,
        execution_policy: "Bypass".to_owned(),
        valid_exit_codes: vec![0],
        timeout: Duration::from_secs(3600),
        retries: 0,
        retry_delay: Duration::from_secs(10),
    }))
}

fields! {
    /// Runs a batch script (`cmd.exe`) in the guest.
    pub struct WindowsShell = "windows-shell" {
        flat code: Code,
        /// Environment variables.
        key env: BTreeMap<String, Text> = BTreeMap::new(),
        /// Exit codes that mean success.
        key valid_exit_codes: Vec<i64> = vec![0],
        /// How long it may take.
        run timeout: Duration = Duration::from_secs(3600),
        /// How often it is tried again after a failure.
        run retries: u32 = 0,
        /// How long to wait before it is tried again.
        run retry_delay: Duration = Duration::from_secs(10),
    }
}

fields! {
    /// Restarts Windows and goes on only after proof of a new boot and a login.
    pub struct WindowsRestart = "windows-restart" {
        /// Command that restarts; without one, `shutdown.exe /r /t 0`.
        key restart_command: Option<Text> = None,
        /// Command that must succeed after the restart before the build goes on.
        run restart_check_command: Option<Text> = None,
        /// How long the restart may take.
        run restart_timeout: Duration = Duration::from_secs(900),
        /// Restart again while the registry says that a restart is pending.
        run check_registry: bool = true,
        /// Further registry keys that mean a pending restart while they exist.
        run registry_keys: Vec<String> = Vec::new(),
    }
}

fields! {
    /// Installs Windows updates, restarting as often as they need, and proves the result.
    pub struct WindowsUpdate = "windows-update", check check_update {
        /// What to look for, in the words of the Windows Update Agent.
        key search_criteria: String = "BrowseOnly=0 and IsInstalled=0".to_owned(),
        /// `include:` or `exclude:` and a PowerShell condition on `$_`, the update. The first that
        /// matches decides; without a match, the update is left out.
        key filters: Vec<String> = vec!["include:$true".to_owned()],
        /// Where updates are looked for.
        key server: UpdateServer = UpdateServer::Default,
        /// A folder of `.msu` and `.cab` files to install from, instead of a search.
        key folder: Option<Folder> = None,
        /// Of several cumulative updates in `folder`, the one to install: `KB5072033`. The others are
        /// its checkpoints, which Windows takes by itself.
        key target: Option<String> = None,
        /// Updates installed in one round.
        key update_limit: u32 = 1000,
        /// How often a failed update is tried again.
        run update_max_retries: u32 = 5,
        /// How long one round with its restart may take.
        run restart_timeout: Duration = Duration::from_secs(4 * 3600),
        /// How long all rounds may take.
        run timeout: Duration = Duration::from_secs(12 * 3600),
        /// What must be true in the end, or the layer fails.
        key require: UpdateRequirement = UpdateRequirement::none(),
    }
}

fields! {
    /// What must be true after updating.
    pub struct UpdateRequirement = "require" {
        /// Lowest revision of the build: the 2314 in 26100.2314.
        key ubr: Option<u32> = None,
        /// Updates that must be installed: `KB5044284`.
        key kbs: Vec<String> = Vec::new(),
        /// No update that matches may be left, and no restart pending.
        key complete: bool = true,
    }
}

impl UpdateRequirement {
    fn none() -> Self {
        Self { ubr: None, kbs: Vec::new(), complete: true }
    }
}

choices! {
    /// Where updates are looked for.
    pub enum UpdateServer {
        /// What the guest's policies say.
        Default = "default",
        /// The WSUS server of the guest's policies.
        Managed = "managed",
        /// Windows Update.
        WindowsUpdate = "windows-update",
        /// Microsoft Update: other products of Microsoft too.
        MicrosoftUpdate = "microsoft-update",
    }
}

fn check_update(update: &WindowsUpdate, node: &Node, cx: &mut Cx) {
    let Some(map) = node.as_map() else { return };
    let at = |key: &str| map.get(key).map_or(node.span, |entry| entry.node.span);
    if let Err(error) = gilt_windows::update::check_criteria(&update.search_criteria) {
        cx.error_hint(
            at("search_criteria"),
            format!("the Windows Update Agent refuses these criteria: {error}"),
            "see IUpdateSearcher::Search; `or` only at the top, `!=` only with Type and UpdateID",
        );
    }
    for filter in &update.filters {
        if let Err(error) = gilt_windows::update::check_filter(filter) {
            cx.error(at("filters"), error);
        }
    }
    if let (Some(entry), None) = (map.get("target"), &update.folder) {
        cx.error(entry.key_span, "`target` is an update of a `folder`");
    }
}

fields! {
    /// Installs programs: `.msi`, `.exe`, `.msu`, `.cab`, `.msix` and `.appx`, told apart by their names.
    /// Apps are installed for all users.
    pub struct WindowsInstall = "windows-install" {
        /// The installer.
        key source: FileRef,
        /// Arguments. An `.msi` gets `/qn /norestart` and a log by itself.
        key arguments: Vec<Text> = Vec::new(),
        /// Packages an app needs.
        key dependencies: Vec<FileRef> = Vec::new(),
        /// Exit codes that mean success. 3010 and 1641 ask for a restart, which is then made.
        key valid_exit_codes: Vec<i64> = vec![0, 1641, 3010],
        /// The account it runs as.
        key account as "as": WindowsAccount = WindowsAccount::Elevated,
        /// How long it may take.
        run timeout: Duration = Duration::from_secs(3600),
        /// How long a restart may take.
        run restart_timeout: Duration = Duration::from_secs(1800),
    }
}

fields! {
    /// Adds languages, capabilities and features, in that order, and restarts where they ask for it.
    /// Languages belong before the last cumulative update.
    pub struct WindowsFeature = "windows-feature" {
        /// Language packs and other packages (`.cab`).
        key packages: Vec<FileRef> = Vec::new(),
        /// Capabilities (features on demand): `Language.Basic~~~de-DE~0.0.1.0`.
        key capabilities: Vec<String> = Vec::new(),
        /// Optional features to turn on: `NetFx3`.
        key enable: Vec<String> = Vec::new(),
        /// Optional features to turn off.
        key disable: Vec<String> = Vec::new(),
        /// A folder with their files, such as `sources/sxs` of the medium. Without one, Windows Update.
        key source: Option<Folder> = None,
        /// How long it may take.
        run timeout: Duration = Duration::from_secs(3600),
        /// How long a restart may take.
        run restart_timeout: Duration = Duration::from_secs(1800),
    }
}

fields! {
    /// Removes superseded components (`dism /Cleanup-Image /StartComponentCleanup`), with a restart before
    /// and after it.
    pub struct WindowsCleanup = "windows-cleanup" {
        /// Updates that are installed can then not be uninstalled any more; the image gets smaller.
        key reset_base: bool = true,
        /// How long it may take.
        run timeout: Duration = Duration::from_secs(7200),
        /// How long a restart may take.
        run restart_timeout: Duration = Duration::from_secs(1800),
    }
}
