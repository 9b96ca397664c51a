//! What has no cmdlet: keys, the screen and key-value pairs, by `root\virtualization\v2`.
//!
//! The machine is found by `Msvm_ComputerSystem.Name`, which is its id; `ElementName` is only its display name.

pub mod address;
pub mod keyboard;
pub mod kvp;
pub mod thumbnail;

use crate::script::{Value, literal};

pub use address::{Address, Source, find_addresses};
pub use keyboard::{Keys, MAX_SCAN_CODES, MAX_TEXT, Scan};
pub use kvp::{Item, KvpAnswer, emit_item, parse_item};
pub use thumbnail::{Screenshot, ThumbnailAnswer};

const NAMESPACE: &str = r"root\virtualization\v2";

/// How an item gets to the guest's `…\Virtual Machine\External`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvpChange {
    /// Fails when the name is there.
    Add,
    /// Fails when the name is not there.
    Modify,
    Remove,
}

/// A call about the script's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wmi {
    Keys(Keys),
    Thumbnail { width: u16, height: u16 },
    ReadKvp,
    ChangeKvp { change: KvpChange, items: Vec<Item> },
}

impl Wmi {
    /// Whether the call adds a result to the answer.
    pub fn answers(&self) -> bool {
        matches!(self, Wmi::Thumbnail { .. } | Wmi::ReadKvp)
    }

    pub(crate) fn render(&self) -> String {
        let system = format!(
            "$cs=Get-CimInstance -Namespace {} -ClassName 'Msvm_ComputerSystem' \
             -Filter ('Name=''' + [string]$vm.Id + '''')",
            literal(NAMESPACE)
        );
        let related = |class: &str| {
            format!(
                "Get-CimAssociatedInstance -InputObject $cs -ResultClassName {}",
                literal(class)
            )
        };
        let service = format!(
            "$service=Get-CimInstance -Namespace {} -ClassName 'Msvm_VirtualSystemManagementService'",
            literal(NAMESPACE)
        );
        let rest = match self {
            Wmi::Keys(keys) => {
                let (method, argument, value) = keys.call();
                let arguments = match argument {
                    "" => "@{}".to_owned(),
                    name => format!("@{{{name}={}}}", value.render()),
                };
                format!(
                    "$keyboard={}\nInvoke-Gilt $keyboard {} {arguments} | Out-Null",
                    related("Msvm_Keyboard"),
                    literal(method)
                )
            }
            Wmi::Thumbnail { width, height } => format!(
                "{service}\n$settings={} -Association 'Msvm_SettingsDefineState'\n\
                 $image=Invoke-Gilt $service 'GetVirtualSystemThumbnailImage' \
                 @{{TargetSystem=$settings;WidthPixels=[uint16]{width};HeightPixels=[uint16]{height}}}\n\
                 [void]$out.Add([ordered]@{{width={width};height={height};\
                 rgb565=[Convert]::ToBase64String([byte[]]@($image.ImageData))}})",
                related("Msvm_VirtualSystemSettingData")
            ),
            Wmi::ReadKvp => format!(
                "$kvp={}\n[void]$out.Add([ordered]@{{\
                 intrinsic=@($kvp.GuestIntrinsicExchangeItems | ForEach-Object {{ [string]$_ }});\
                 guest=@($kvp.GuestExchangeItems | ForEach-Object {{ [string]$_ }})}})",
                related("Msvm_KvpExchangeComponent")
            ),
            Wmi::ChangeKvp { change, items } => {
                let method = match change {
                    KvpChange::Add => "AddKvpItems",
                    KvpChange::Modify => "ModifyKvpItems",
                    KvpChange::Remove => "RemoveKvpItems",
                };
                let items = Value::List(items.iter().map(|item| emit_item(item).into()).collect());
                format!(
                    "{service}\nInvoke-Gilt $service {} @{{TargetSystem=$cs;DataItems=[string[]]{}}} | Out-Null",
                    literal(method),
                    items.render()
                )
            }
        };
        format!("{system}\n{rest}")
    }
}
