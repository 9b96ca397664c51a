//! Text -> [`Script`]: how a server that plays a host understands what it is sent.
//!
//! Only what [`Script::render`] writes is understood, to the letter: what was read is rendered again and
//! must be the same text. So a server over the model carries out what the text says and nothing that
//! only its sender knew.

use std::net::Ipv4Addr;

use super::{Script, Step, wmi_function};
use crate::{
    cmdlet::*,
    name::{HostPath, Owner, SwitchName, VmId, VmName},
    reply::Shape,
    wmi::{Item, Keys, KvpChange, Wmi, parse_item},
};

/// Why a text is not a script of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a script of this crate: {0}")]
pub struct NotOurs(pub String);

type Parsed<T> = Result<T, NotOurs>;

fn not_ours<T>(what: impl Into<String>) -> Parsed<T> {
    Err(NotOurs(what.into().chars().take(200).collect()))
}

impl Script {
    /// Reads a script back from its text.
    pub fn parse(text: &str) -> Parsed<Script> {
        let body = text
            .strip_prefix(super::PRELUDE)
            .map(|rest| rest.strip_prefix(wmi_function().as_str()).unwrap_or(rest))
            .and_then(|rest| rest.strip_prefix("try{\n"));
        let Some(body) = body else { return not_ours("it begins otherwise") };
        let Some((body, _)) = body.split_once("$answer=[ordered]@{ok=$true;results=$out}\n") else {
            return not_ours("it has no answer");
        };
        let mut steps = Vec::new();
        let mut chunk = String::new();
        let mut next = 1;
        for line in body.lines() {
            if line == format!("$step={next}") {
                steps.push(step(chunk.trim_end_matches('\n'))?);
                chunk.clear();
                next += 1;
                continue;
            }
            chunk.push_str(line);
            chunk.push('\n');
        }
        if !chunk.is_empty() {
            steps.push(step(chunk.trim_end_matches('\n'))?);
        }
        let script = Script::new(steps);
        if script.render() != text {
            return not_ours("it differs from what its steps are written as");
        }
        Ok(script)
    }
}

/// A value in the text of a call.
#[derive(Debug, Clone, PartialEq)]
enum Word {
    Text(String),
    Number(u64),
    /// `$vm`, `$true`, `$null`.
    Variable(String),
    List(Vec<Word>),
    Bytes(Vec<u8>),
    Call(Spoken),
}

/// A call as it stands in the text.
#[derive(Debug, Clone, PartialEq)]
struct Spoken {
    cmdlet: String,
    parameters: Vec<(String, Option<Word>)>,
    /// The GUID of a `Where-Object` on services.
    service: Option<String>,
}

fn is_quote(c: char) -> bool {
    matches!(c, '\'' | '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}')
}

/// Reads from the left.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) { Ok(()) } else { not_ours(format!("{token:?} before {}", self.rest)) }
    }

    fn while_true(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn number(&mut self) -> Parsed<u64> {
        let digits = self.while_true(|c| c.is_ascii_digit());
        digits.parse().or_else(|_| not_ours(format!("no number at {}", self.rest)))
    }

    fn quoted(&mut self) -> Parsed<String> {
        let mut chars = self.rest.char_indices();
        if !chars.next().is_some_and(|(_, c)| is_quote(c)) {
            return not_ours(format!("no text at {}", self.rest));
        }
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if !is_quote(c) {
                text.push(c);
                continue;
            }
            match chars.clone().next() {
                Some((_, next)) if is_quote(next) => {
                    chars.next();
                    text.push(c);
                }
                _ => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Ok(text);
                }
            }
        }
        not_ours("a text without end")
    }

    /// One literal, or several joined by `+` in parentheses.
    fn literal(&mut self) -> Parsed<String> {
        if !self.eat("(") {
            return self.quoted();
        }
        let mut text = String::new();
        loop {
            if self.eat("[char]") {
                let code = u32::try_from(self.number()?).ok().and_then(char::from_u32);
                text.push(code.map_or_else(|| not_ours("no such character"), Ok)?);
            } else {
                text.push_str(&self.quoted()?);
            }
            if self.eat(")") {
                return Ok(text);
            }
            self.expect(" + ")?;
        }
    }

    fn word(&mut self) -> Parsed<Word> {
        if self.eat("([byte[]]@(") {
            let mut bytes = Vec::new();
            while !self.eat("))") {
                let byte = u8::try_from(self.number()?);
                bytes.push(byte.or_else(|_| not_ours("no byte"))?);
                self.eat(",");
            }
            return Ok(Word::Bytes(bytes));
        }
        if self.eat("@(") {
            let mut list = Vec::new();
            while !self.eat(")") {
                list.push(self.word()?);
                self.eat(", ");
            }
            return Ok(Word::List(list));
        }
        if self.rest.starts_with("(Hyper-V\\") {
            self.expect("(")?;
            let mut call = self.call()?;
            if self.eat(" | Where-Object { $_.Id.EndsWith(") {
                call.service = Some(self.quoted()?);
                self.expect(", 'OrdinalIgnoreCase') }")?;
            }
            self.expect(")")?;
            return Ok(Word::Call(call));
        }
        match self.rest.chars().next() {
            Some('$') => {
                self.expect("$")?;
                Ok(Word::Variable(self.while_true(|c| c.is_ascii_alphanumeric()).to_owned()))
            }
            Some(c) if c.is_ascii_digit() => Ok(Word::Number(self.number()?)),
            _ => Ok(Word::Text(self.literal()?)),
        }
    }

    fn call(&mut self) -> Parsed<Spoken> {
        let module = self.while_true(|c| c.is_ascii_alphanumeric() || c == '-');
        if !["Hyper-V", "NetNat", "NetTCPIP"].contains(&module) || !self.eat("\\") {
            return not_ours(format!("no call at {module}{}", self.rest));
        }
        let cmdlet = self.while_true(|c| c.is_ascii_alphanumeric() || c == '-').to_owned();
        let mut parameters = Vec::new();
        while self.rest.starts_with(" -") && self.eat(" -") {
            let name = self.while_true(|c| c.is_ascii_alphanumeric()).to_owned();
            let more = self.rest.starts_with(' ')
                && !self.rest.starts_with(" -")
                && !self.rest.starts_with(" | ");
            let value =
                if self.eat(":") || (more && self.eat(" ")) { Some(self.word()?) } else { None };
            parameters.push((name, value));
        }
        Ok(Spoken { cmdlet, parameters, service: None })
    }
}

fn named<T>(made: crate::error::Result<T>) -> Parsed<T> {
    made.or_else(|error| not_ours(error.to_string()))
}

impl Spoken {
    fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(it, _)| it == name)
    }

    fn value(&self, name: &str) -> Option<&Word> {
        self.parameters.iter().find(|(it, _)| it == name)?.1.as_ref()
    }

    fn text(&self, name: &str) -> Parsed<&str> {
        match self.value(name) {
            Some(Word::Text(text)) => Ok(text),
            _ => not_ours(format!("{} without -{name}", self.cmdlet)),
        }
    }

    fn maybe_text(&self, name: &str) -> Option<&str> {
        self.text(name).ok()
    }

    fn number(&self, name: &str) -> Parsed<u64> {
        self.maybe_number(name)
            .map_or_else(|| not_ours(format!("{} without -{name}", self.cmdlet)), Ok)
    }

    fn maybe_number(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(Word::Number(number)) => Some(*number),
            _ => None,
        }
    }

    fn small(&self, name: &str) -> Parsed<u32> {
        u32::try_from(self.number(name)?).or_else(|_| not_ours("a number too large"))
    }

    fn truth(&self, name: &str) -> Option<bool> {
        match self.value(name) {
            Some(Word::Variable(word)) if word == "true" => Some(true),
            Some(Word::Variable(word)) if word == "false" => Some(false),
            _ => None,
        }
    }

    fn on(&self, name: &str) -> Option<bool> {
        self.maybe_text(name).map(|word| word == "On")
    }

    fn path(&self, name: &str) -> Parsed<HostPath> {
        named(HostPath::new(self.text(name)?))
    }

    fn maybe_path(&self, name: &str) -> Parsed<Option<HostPath>> {
        self.maybe_text(name).map(|text| named(HostPath::new(text))).transpose()
    }

    fn inner(&self, name: &str) -> Parsed<&Spoken> {
        match self.value(name) {
            Some(Word::Call(call)) => Ok(call),
            _ => not_ours(format!("{} without a call for -{name}", self.cmdlet)),
        }
    }

    /// The slot of a drive; a DVD's controller is told by the generation, and by IDE's only two numbers
    /// it cannot be, so SCSI is tried first and the whole text is compared in the end.
    fn slot(&self) -> Parsed<Slot> {
        let (number, location) =
            (self.small("ControllerNumber")?, self.small("ControllerLocation")?);
        let controller = match self.maybe_text("ControllerType") {
            Some("IDE") => Controller::Ide,
            Some("SCSI") => Controller::Scsi,
            // `Add-VMDvdDrive` names no type: both are the same text.
            _ if number == 1 => Controller::Ide,
            _ => Controller::Scsi,
        };
        Ok(Slot { controller, number, location })
    }

    fn switch(&self, name: &str) -> Parsed<SwitchName> {
        named(SwitchName::new(self.text(name)?))
    }

    fn cmdlet(&self) -> Parsed<Cmdlet> {
        let snapshot = |name: &str| self.text(name).map(str::to_owned);
        Ok(match self.cmdlet.as_str() {
            "Add-VMHardDiskDrive" => {
                AddHardDisk { slot: self.slot()?, path: self.path("Path")? }.into()
            }
            "Add-VMDvdDrive" => {
                AddDvd { slot: self.slot()?, path: self.maybe_path("Path")? }.into()
            }
            "Set-VMDvdDrive" => {
                let slot = self.inner("VMDvdDrive")?.slot()?;
                SetDvd { slot, path: self.maybe_path("Path")? }.into()
            }
            "Remove-VMHardDiskDrive" => {
                RemoveHardDisk { slot: self.inner("VMHardDiskDrive")?.slot()? }.into()
            }
            "Get-VMHardDiskDrive" => {
                let slot = self.has("ControllerNumber").then(|| self.slot()).transpose()?;
                GetHardDisks { slot }.into()
            }
            "Get-VMDvdDrive" => {
                let slot = self.has("ControllerNumber").then(|| self.slot()).transpose()?;
                GetDvds { slot }.into()
            }
            "Set-VMFloppyDiskDrive" => SetFloppy { path: self.maybe_path("Path")? }.into(),
            "Checkpoint-VM" => Checkpoint { name: snapshot("SnapshotName")? }.into(),
            "Restore-VMSnapshot" => RestoreSnapshot { name: snapshot("Name")? }.into(),
            "Remove-VMSnapshot" => RemoveSnapshot { name: snapshot("Name")? }.into(),
            "Get-VMSnapshot" => GetSnapshots.into(),
            "Convert-VHD" => ConvertVhd {
                path: self.path("Path")?,
                destination: self.path("DestinationPath")?,
                kind: match self.text("VHDType")? {
                    "Fixed" => VhdType::Fixed,
                    "Dynamic" => VhdType::Dynamic,
                    _ => VhdType::Differencing,
                },
            }
            .into(),
            "New-VHD" => {
                let path = self.path("Path")?;
                if self.has("Differencing") {
                    NewVhd::Differencing { path, parent: self.path("ParentPath")? }.into()
                } else if self.has("Fixed") {
                    NewVhd::Fixed { path, size_bytes: self.number("SizeBytes")? }.into()
                } else {
                    let block = self.has("BlockSizeBytes").then(|| self.small("BlockSizeBytes"));
                    let size_bytes = self.number("SizeBytes")?;
                    NewVhd::Dynamic { path, size_bytes, block_size_bytes: block.transpose()? }
                        .into()
                }
            }
            "Get-VHD" => GetVhd { path: self.path("Path")? }.into(),
            "Resize-VHD" => {
                ResizeVhd { path: self.path("Path")?, size_bytes: self.maybe_number("SizeBytes") }
                    .into()
            }
            "Merge-VHD" => {
                let destination = self.maybe_path("DestinationPath")?;
                MergeVhd { path: self.path("Path")?, destination }.into()
            }
            "Mount-VHD" => MountVhd { path: self.path("Path")? }.into(),
            "Dismount-VHD" => DismountVhd { path: self.path("Path")? }.into(),
            "Optimize-VHD" => OptimizeVhd {
                path: self.path("Path")?,
                mode: match self.text("Mode")? {
                    "Full" => CompactMode::Full,
                    "Quick" => CompactMode::Quick,
                    "Retrim" => CompactMode::Retrim,
                    "Pretrimmed" => CompactMode::Pretrimmed,
                    _ => CompactMode::Prezeroed,
                },
            }
            .into(),
            "Copy-VMFile" => CopyFile {
                source: self.path("SourcePath")?,
                destination: self.text("DestinationPath")?.to_owned(),
            }
            .into(),
            "Get-VMIntegrationService" => GetIntegration.into(),
            "Enable-VMIntegrationService" => {
                let guid = self.inner("VMIntegrationService")?.service.clone();
                match guid.as_deref().and_then(Service::of_id) {
                    Some(service) => EnableIntegration { service }.into(),
                    None => return not_ours("a service by its name"),
                }
            }
            "Export-VM" => Export {
                folder: self.path("Path")?,
                live: match self.maybe_text("CaptureLiveState") {
                    None => None,
                    Some("CaptureSavedState") => Some(LiveState::CaptureSavedState),
                    Some("CaptureDataConsistentState") => {
                        Some(LiveState::CaptureDataConsistentState)
                    }
                    Some(_) => Some(LiveState::CaptureCrashConsistentState),
                },
            }
            .into(),
            "Get-VMFirmware" => GetFirmware.into(),
            "Set-VMFirmware" => self.firmware()?.into(),
            "Set-VMBios" => SetBios { startup_order: self.startup_order()? }.into(),
            "Set-VMKeyProtector" => SetKeyProtector.into(),
            "Enable-VMTPM" => EnableTpm.into(),
            "Get-VM" => {
                let id = self.maybe_text("Id").map(|id| named(VmId::new(id))).transpose()?;
                GetVm { id }.into()
            }
            "New-VM" => self.new_vm()?.into(),
            "Remove-VM" => RemoveVm.into(),
            "Start-VM" => StartVm.into(),
            "Restart-VM" => RestartVm.into(),
            "Stop-VM" => StopVm {
                how: if self.has("TurnOff") {
                    Stop::TurnOff
                } else if self.has("Save") {
                    Stop::Save
                } else {
                    Stop::ShutDown
                },
            }
            .into(),
            "Set-VM" => self.set_vm().into(),
            "Set-VMMemory" => SetMemory {
                startup_bytes: self.number("StartupBytes")?,
                dynamic: self.truth("DynamicMemoryEnabled").unwrap_or_default(),
            }
            .into(),
            "Set-VMProcessor" => SetProcessor {
                count: self.maybe_number("Count"),
                expose_virtualization: self.truth("ExposeVirtualizationExtensions"),
            }
            .into(),
            "Set-VMComPort" => {
                let path = self.text("Path")?;
                let Some(pipe) = path.strip_prefix(r"\\.\pipe\") else {
                    return not_ours(format!("{path} is no pipe"));
                };
                SetComPort { number: self.small("Number")?, pipe: pipe.to_owned() }.into()
            }
            "Get-VMNetworkAdapter" => GetNetworkAdapters.into(),
            "Get-VMHost" => GetHost.into(),
            "Get-VMSwitch" => GetSwitches.into(),
            "New-VMSwitch" => NewSwitch {
                name: self.switch("Name")?,
                kind: match (self.maybe_text("SwitchType"), self.maybe_text("NetAdapterName")) {
                    (_, Some(adapter)) => SwitchKind::External { adapter: adapter.to_owned() },
                    (Some("Private"), _) => SwitchKind::Private,
                    _ => SwitchKind::Internal,
                },
                notes: self.text("Notes")?.to_owned(),
            }
            .into(),
            "Remove-VMSwitch" => RemoveSwitch { name: self.switch("Name")? }.into(),
            "Get-NetNat" => GetNat.into(),
            "New-NetNat" => NewNat {
                name: self.text("Name")?.to_owned(),
                prefix: prefix(self.text("InternalIPInterfaceAddressPrefix")?)?,
            }
            .into(),
            "Remove-NetNat" => RemoveNat { name: self.text("Name")?.to_owned() }.into(),
            "New-NetIPAddress" => {
                let alias = self.text("InterfaceAlias")?;
                let name = alias.strip_prefix("vEthernet (").and_then(|n| n.strip_suffix(')'));
                NewIpAddress {
                    switch: named(SwitchName::new(name.unwrap_or_default()))?,
                    address: address(self.text("IPAddress")?)?,
                    prefix_length: u8::try_from(self.number("PrefixLength")?)
                        .or_else(|_| not_ours("a prefix too long"))?,
                }
                .into()
            }
            other => return not_ours(format!("the call {other}")),
        })
    }

    fn new_vm(&self) -> Parsed<NewVm> {
        let disk = match (self.maybe_path("VHDPath")?, self.maybe_path("NewVHDPath")?) {
            (Some(path), _) => FirstDisk::Existing(path),
            (_, Some(path)) => FirstDisk::New { path, size_bytes: self.number("NewVHDSizeBytes")? },
            _ => FirstDisk::None,
        };
        Ok(NewVm {
            name: named(VmName::new(self.text("Name")?))?,
            generation: match self.number("Generation")? {
                1 => Generation::One,
                _ => Generation::Two,
            },
            memory_bytes: self.number("MemoryStartupBytes")?,
            switch: self.has("SwitchName").then(|| self.switch("SwitchName")).transpose()?,
            disk,
            folder: self.path("Path")?,
            version: self.maybe_text("Version").map(str::to_owned),
        })
    }

    fn set_vm(&self) -> SetVm {
        SetVm {
            processor_count: self.maybe_number("ProcessorCount"),
            static_memory: self.has("StaticMemory"),
            automatic_checkpoints: self.truth("AutomaticCheckpointsEnabled"),
            checkpoint_type: self.maybe_text("CheckpointType").map(|word| match word {
                "Disabled" => CheckpointType::Disabled,
                "Standard" => CheckpointType::Standard,
                "Production" => CheckpointType::Production,
                _ => CheckpointType::ProductionOnly,
            }),
            stop_action: self.maybe_text("AutomaticStopAction").map(|word| match word {
                "TurnOff" => StopAction::TurnOff,
                "Save" => StopAction::Save,
                _ => StopAction::ShutDown,
            }),
            start_with_host: self.maybe_text("AutomaticStartAction").map(|word| word == "Start"),
            notes: self.maybe_text("Notes").map(str::to_owned),
        }
    }

    fn firmware(&self) -> Parsed<SetFirmware> {
        let template = self.maybe_text("SecureBootTemplate").map(|word| match word {
            "MicrosoftWindows" => SecureBootTemplate::MicrosoftWindows,
            _ => SecureBootTemplate::MicrosoftUefiCertificateAuthority,
        });
        let order = match self.value("BootOrder") {
            Some(Word::List(list)) => list.iter().map(boot_device).collect::<Parsed<_>>()?,
            _ => Vec::new(),
        };
        Ok(SetFirmware {
            secure_boot: self.has("EnableSecureBoot").then_some(template),
            boot_order: order,
            first_boot_device: self.value("FirstBootDevice").map(boot_device).transpose()?,
            pause_after_boot_failure: self.on("PauseAfterBootFailure"),
        })
    }

    fn startup_order(&self) -> Parsed<Vec<BiosDevice>> {
        let Some(Word::List(list)) = self.value("StartupOrder") else {
            return not_ours("Set-VMBios without an order");
        };
        let device = |word: &Word| match word {
            Word::Text(text) => Ok(match text.as_str() {
                "CD" => BiosDevice::Cd,
                "IDE" => BiosDevice::Ide,
                "LegacyNetworkAdapter" => BiosDevice::LegacyNetworkAdapter,
                _ => BiosDevice::Floppy,
            }),
            _ => not_ours("no device to start from"),
        };
        list.iter().map(device).collect()
    }
}

fn boot_device(word: &Word) -> Parsed<BootDevice> {
    let Word::Call(call) = word else { return not_ours("no device to boot from") };
    match call.cmdlet.as_str() {
        "Get-VMHardDiskDrive" => Ok(BootDevice::HardDisk(call.slot()?)),
        "Get-VMDvdDrive" => Ok(BootDevice::Dvd(call.slot()?)),
        _ => Ok(BootDevice::Network),
    }
}

fn address(text: &str) -> Parsed<Ipv4Addr> {
    text.parse().or_else(|_| not_ours(format!("{text} is no address")))
}

fn prefix(text: &str) -> Parsed<Prefix> {
    let Some((network, length)) = text.split_once('/') else { return not_ours("no prefix") };
    let length = length.parse().or_else(|_| not_ours("no prefix length"))?;
    Ok(Prefix { network: address(network)?, length })
}

/// All quoted texts of a piece, in order.
fn texts(piece: &str) -> Parsed<Vec<String>> {
    let mut reader = Reader { rest: piece };
    let mut found = Vec::new();
    loop {
        let skipped = reader.rest.find(is_quote);
        let Some(at) = skipped else { return Ok(found) };
        // A text with control characters stands in parentheses of its own.
        let joined = reader.rest[..at].ends_with('(') && {
            let mut ahead = Reader { rest: &reader.rest[at - 1..] };
            ahead.literal().is_ok()
        };
        reader.rest = &reader.rest[if joined { at - 1 } else { at }..];
        found.push(reader.literal()?);
    }
}

fn text_at(found: &[String], at: usize) -> Parsed<&str> {
    found.get(at).map(String::as_str).map_or_else(|| not_ours("a text is missing"), Ok)
}

fn owner(tag: &str) -> Parsed<Owner> {
    let Some(owner) = tag.strip_prefix("gilt-owner:") else { return not_ours("no owner") };
    named(Owner::new(owner))
}

fn step(chunk: &str) -> Parsed<Step> {
    let found = texts(chunk)?;
    let text = |at: usize| text_at(&found, at);
    let mut reader = Reader { rest: chunk };
    if reader.eat("$vm=Hyper-V\\New-VM") {
        let call = Reader { rest: &chunk["$vm=".len()..] }.call()?;
        return Ok(Step::Make(call.new_vm()?));
    }
    if reader.eat("$vm=") {
        return Ok(Step::Take { id: named(VmId::new(text(0)?))?, owner: owner(text(2)?)? });
    }
    if reader.eat("if((Get-Command -Name ") {
        let Some((_, rest)) = chunk.split_once("')){") else { return not_ours("no condition") };
        let cmdlet = Reader { rest }.call()?.cmdlet()?;
        let parameter = match text(2)? {
            "AutomaticCheckpointsEnabled" => "AutomaticCheckpointsEnabled",
            other => return not_ours(format!("the parameter {other}")),
        };
        return Ok(Step::RunIfKnown { cmdlet, parameter });
    }
    if reader.eat("if(@(Hyper-V\\Get-VM ") {
        return Ok(Step::NameIsFree(named(VmName::new(text(0)?))?));
    }
    if reader.eat("if(@(Hyper-V\\Get-VMSwitch ") {
        return Ok(Step::SwitchIsFree(named(SwitchName::new(text(0)?))?));
    }
    if reader.eat("$found=@(") {
        let tag = found.iter().find(|it| it.starts_with("gilt-owner:"));
        let tag = tag.map_or_else(|| not_ours("no owner"), Ok)?;
        let name = named(SwitchName::new(text(0)?))?;
        return Ok(Step::SwitchIsOurs { name, owner: owner(tag)? });
    }
    if reader.eat("if(Test-Path -LiteralPath ") {
        let path = named(HostPath::new(text(0)?))?;
        let tag = found.iter().find(|it| it.starts_with("gilt-owner:"));
        let owner = owner(tag.map_or_else(|| not_ours("no owner"), Ok)?)?;
        return Ok(match (chunk.contains("Remove-Item"), chunk.contains("-Recurse")) {
            (true, true) => Step::RemoveFolder { path, owner },
            (true, false) => Step::RemoveFile { path, owner },
            _ => Step::MakeFolder { path, owner },
        });
    }
    if reader.eat("if(-not (Test-Path -LiteralPath ") {
        let tag = found.iter().find(|it| it.starts_with("gilt-owner:"));
        let owner = owner(tag.map_or_else(|| not_ours("no owner"), Ok)?)?;
        return Ok(Step::OwnFolder { path: named(HostPath::new(text(0)?))?, owner });
    }
    if chunk == Step::HostInfo.render() {
        return Ok(Step::HostInfo);
    }
    if reader.eat("[void]$out.Add(@((Test-Path ") {
        let paths = found.iter().map(|path| named(HostPath::new(path))).collect::<Parsed<_>>()?;
        return Ok(Step::FilesExist(paths));
    }
    if reader.eat("[void]$out.Add(@(") {
        let cmdlet = reader.call()?.cmdlet()?;
        let shape = Shape::ALL.into_iter().find(|shape| reader.rest.contains(shape.projection()));
        let shape = match (shape, &cmdlet) {
            // Both have the same properties.
            (Some(_), Cmdlet::GetDvds(_)) => Shape::Dvd,
            (Some(shape), _) => shape,
            _ => return not_ours("no shape"),
        };
        return Ok(Step::Ask { cmdlet, shape });
    }
    if reader.eat("$cs=Get-CimInstance ") {
        return wmi(chunk, &found).map(Step::Wmi);
    }
    Ok(Step::Run(reader.call()?.cmdlet()?))
}

fn wmi(chunk: &str, found: &[String]) -> Parsed<Wmi> {
    let after = |token: &str| chunk.split_once(token).map(|(_, rest)| Reader { rest });
    if let Some(mut reader) = after("WidthPixels=[uint16]") {
        let width = reader.number()?;
        reader.expect(";HeightPixels=[uint16]")?;
        let height = reader.number()?;
        let side = |n: u64| u16::try_from(n).or_else(|_| not_ours("too many pixels"));
        return Ok(Wmi::Thumbnail { width: side(width)?, height: side(height)? });
    }
    if let Some(mut reader) = after("@{asciiText=") {
        return Ok(Wmi::Keys(Keys::Text(reader.literal()?)));
    }
    if let Some(mut reader) = after("@{scancodes=") {
        let Word::Bytes(bytes) = reader.word()? else { return not_ours("no scan codes") };
        return Ok(Wmi::Keys(Keys::ScanCodes(bytes)));
    }
    if found.iter().any(|it| it == "TypeCtrlAltDel") {
        return Ok(Wmi::Keys(Keys::CtrlAltDel));
    }
    if let Some(mut reader) = after("DataItems=[string[]]") {
        let Word::List(list) = reader.word()? else { return not_ours("no items") };
        let item = |word: &Word| match word {
            Word::Text(xml) => named(parse_item(xml)),
            _ => not_ours("no item"),
        };
        let items: Vec<Item> = list.iter().map(item).collect::<Parsed<_>>()?;
        let method = found.iter().find_map(|it| match it.as_str() {
            "AddKvpItems" => Some(KvpChange::Add),
            "ModifyKvpItems" => Some(KvpChange::Modify),
            "RemoveKvpItems" => Some(KvpChange::Remove),
            _ => None,
        });
        let change = method.map_or_else(|| not_ours("no method"), Ok)?;
        return Ok(Wmi::ChangeKvp { change, items });
    }
    if chunk.contains("GuestIntrinsicExchangeItems") {
        return Ok(Wmi::ReadKvp);
    }
    not_ours("a call of another class")
}
