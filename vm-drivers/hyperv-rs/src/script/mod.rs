//! A script: guarded steps that make one PowerShell text with one answer.
//!
//! ```text
//! prelude      errors stop, no progress, nobody is asked
//! try {        step 0, step 1, …   each result goes to $out
//! } catch {    the error record: category, id, HRESULT, message, step; undo what was half made }
//! one line:    gilt-hyperv-answer <base64 of UTF-8 JSON>
//! ```
//!
//! The answer travels in base64, so that neither the console's code page nor its width can change it.
//! The steps stay typed: `model` carries out the same `Script` which a host gets as text.

pub mod direct;
mod parse;
mod quote;
pub mod relay;
pub mod transport;

use serde::Serialize;

use crate::{
    cmdlet::{Cmdlet, GetHost, GetSwitches, GetVm, NewVm, RemoveVm},
    error::{NAME_TAKEN, NOT_FOUND, NOT_OURS, WMI_FAILED},
    name::{HostPath, Owner, SwitchName, VmId, VmName},
    reply::Shape,
    wmi::Wmi,
};

pub use parse::NotOurs;
pub use quote::{Expression, Value, literal};

/// The file inside a folder of ours that tells whose it is.
pub const FOLDER_MARK: &str = ".gilt-owner";

/// One thing a script does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Fails when a machine of this name exists; Hyper-V itself would make a second one.
    NameIsFree(VmName),
    /// Makes the machine and lets `$vm` be it. When a later step fails it is removed again.
    Make(NewVm),
    /// Lets `$vm` be the machine with this id, and fails unless its notes say it is the owner's.
    Take { id: VmId, owner: Owner },
    /// Carries out a call and drops what it gives.
    Run(Cmdlet),
    /// As `Run`, where this host's cmdlet knows the parameter; else nothing.
    RunIfKnown { cmdlet: Cmdlet, parameter: &'static str },
    /// Carries out a call and answers with what it gives, in this shape.
    Ask { cmdlet: Cmdlet, shape: Shape },
    /// Fails unless the switch's notes say it is the owner's.
    SwitchIsOurs { name: SwitchName, owner: Owner },
    /// Fails when a switch of this name exists.
    SwitchIsFree(SwitchName),
    /// Makes a new folder and marks it.
    MakeFolder { path: HostPath, owner: Owner },
    /// Removes a folder with all in it, if its mark is the owner's. A folder that is gone is no error.
    RemoveFolder { path: HostPath, owner: Owner },
    /// Answers whether these files exist, in order.
    FilesExist(Vec<HostPath>),
    /// Makes and marks a folder, or finds its mark to be the owner's.
    OwnFolder { path: HostPath, owner: Owner },
    /// Removes a file whose folder is the owner's; one that is gone is no error.
    RemoveFile { path: HostPath, owner: Owner },
    /// Answers what the host is.
    HostInfo,
    /// A call of the WMI provider about `$vm`.
    Wmi(Wmi),
}

/// Steps that run as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    steps: Vec<Step>,
}

/// The first words of the line with the answer.
pub const MARKER: &str = "gilt-hyperv-answer";

const PRELUDE: &str = "\
$ErrorActionPreference='Stop';$ProgressPreference='SilentlyContinue';$ConfirmPreference='None'
$WarningPreference='SilentlyContinue'
try{[Console]::OutputEncoding=[Text.UTF8Encoding]::new($false)}catch{}
function Stop-Gilt($id,$kind,$text){throw [Management.Automation.ErrorRecord]::new([InvalidOperationException]::new($text),$id,$kind,$null)}
$out=[Collections.ArrayList]::new();$step=0;$made=$false
";

const EPILOGUE: &str = "\
$json=ConvertTo-Json -InputObject $answer -Depth 6 -Compress
[Console]::Out.WriteLine('gilt-hyperv-answer '+[Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($json)))
exit [int](-not $answer.ok)
";

const CATCH: &str = "\
$e=$_.Exception;while($e.InnerException){$e=$e.InnerException}
$answer=[ordered]@{ok=$false;failure=[ordered]@{category=[string]$_.CategoryInfo.Category;id=[string]$_.FullyQualifiedErrorId;hresult=[int]$e.HResult;message=[string]$_.Exception.Message;step=$step}}
";

/// Return codes: 0 is done, 4096 a job to wait for (7 is its good end), anything else an error.
fn wmi_function() -> String {
    format!(
        "function Invoke-Gilt($object,$method,$arguments){{\
         $r=Invoke-CimMethod -InputObject $object -MethodName $method -Arguments $arguments\n\
         $code=[uint32]$r.ReturnValue\n\
         if($code -eq 4096){{$until=[DateTime]::UtcNow.AddSeconds(60);\
         do{{Start-Sleep -Milliseconds 100;$job=Get-CimInstance -InputObject $r.Job}}\
         while($job.JobState -in 2,3,4 -and [DateTime]::UtcNow -lt $until)\n\
         $code=if($job.JobState -eq 7){{0}}else{{[uint32]$job.ErrorCode+32768}}}}\n\
         if($code -ne 0){{Stop-Gilt '{WMI_FAILED}' 'NotSpecified' \"$method $code\"}}\n\
         $r}}\n"
    )
}

impl Script {
    pub fn new(steps: Vec<Step>) -> Self {
        Self { steps }
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub fn push(&mut self, step: impl Into<Step>) {
        self.steps.push(step.into());
    }

    /// How many results the answer has.
    pub fn results(&self) -> usize {
        let answers = |step: &&Step| match step {
            Step::Ask { .. } | Step::FilesExist(_) | Step::HostInfo => true,
            Step::Wmi(call) => call.answers(),
            _ => false,
        };
        self.steps.iter().filter(answers).count()
    }

    /// The whole text, lines ended by `\n`.
    pub fn render(&self) -> String {
        let mut text = String::from(PRELUDE);
        if self.steps.iter().any(|step| matches!(step, Step::Wmi(_))) {
            text.push_str(&wmi_function());
        }
        text.push_str("try{\n");
        for (at, step) in self.steps.iter().enumerate() {
            if at > 0 {
                text.push_str(&format!("$step={at}\n"));
            }
            text.push_str(&step.render());
            text.push('\n');
        }
        text.push_str("$answer=[ordered]@{ok=$true;results=$out}\n}catch{\n");
        text.push_str(CATCH);
        if self.steps.iter().any(|step| matches!(step, Step::Make(_))) {
            text.push_str(&format!("if($made){{try{{{}}}catch{{}}}}\n", RemoveVm.call().render()));
        }
        text.push_str("}\n");
        text.push_str(EPILOGUE);
        text
    }
}

/// A condition under which the script stops with an error of ours.
fn stop_if(condition: &str, id: &str, category: &str, text: &str) -> String {
    format!("if({condition}){{Stop-Gilt '{id}' '{category}' {}}}", literal(text))
}

fn first_line_is_not(notes: &str, owner: &Owner) -> String {
    format!(r"([string]{notes} -split '\r?\n')[0].TrimEnd() -cne {}", literal(&owner.tag()))
}

fn mark_is_not(path: &HostPath, owner: &Owner) -> String {
    let mark = literal(&format!("{path}\\{FOLDER_MARK}"));
    format!(
        "-not (Test-Path -LiteralPath {mark}) -or \
         [string](Get-Content -LiteralPath {mark} -TotalCount 1) -cne {}",
        literal(&owner.tag())
    )
}

impl Step {
    fn render(&self) -> String {
        match self {
            Step::NameIsFree(name) => stop_if(
                &format!(
                    "@({} | Where-Object {{ $_.Name -eq {} }}).Count",
                    GetVm { id: None }.call().render(),
                    literal(name.as_str())
                ),
                NAME_TAKEN,
                "ResourceExists",
                &format!("a machine named {name} exists"),
            ),
            Step::Make(new) => format!("$vm={}\n$made=$true", new.call().render()),
            Step::Take { id, owner } => {
                let get = GetVm { id: Some(id.clone()) }.call().render();
                let guard = stop_if(
                    &first_line_is_not("$vm.Notes", owner),
                    NOT_OURS,
                    "PermissionDenied",
                    &format!("machine {id} was not made by {owner}"),
                );
                format!("$vm={get}\n{guard}")
            }
            Step::Run(cmdlet) => format!("{} | Out-Null", cmdlet.call().render()),
            Step::RunIfKnown { cmdlet, parameter } => {
                let call = cmdlet.call();
                format!(
                    "if((Get-Command -Name {} -Module {}).Parameters.ContainsKey({})){{{} | Out-Null}}",
                    literal(call.cmdlet),
                    literal(call.module.name()),
                    literal(parameter),
                    call.render()
                )
            }
            Step::Ask { cmdlet, shape } => format!(
                "[void]$out.Add(@({} | ForEach-Object {{ {} }}))",
                cmdlet.call().render(),
                shape.projection()
            ),
            Step::SwitchIsOurs { name, owner } => {
                let find = format!(
                    "$found=@({} | Where-Object {{ $_.Name -eq {} }})",
                    GetSwitches.call().render(),
                    literal(name.as_str())
                );
                let there = stop_if(
                    "$found.Count -eq 0",
                    NOT_FOUND,
                    "ObjectNotFound",
                    &format!("there is no switch {name}"),
                );
                let ours = stop_if(
                    &format!(
                        "@($found | Where-Object {{ {} }}).Count",
                        first_line_is_not("$_.Notes", owner)
                    ),
                    NOT_OURS,
                    "PermissionDenied",
                    &format!("switch {name} was not made by {owner}"),
                );
                format!("{find}\n{there}\n{ours}")
            }
            Step::SwitchIsFree(name) => stop_if(
                &format!(
                    "@({} | Where-Object {{ $_.Name -eq {} }}).Count",
                    GetSwitches.call().render(),
                    literal(name.as_str())
                ),
                NAME_TAKEN,
                "ResourceExists",
                &format!("a switch named {name} exists"),
            ),
            Step::MakeFolder { path, owner } => {
                let free = stop_if(
                    &format!("Test-Path -LiteralPath {}", literal(path.as_str())),
                    NAME_TAKEN,
                    "ResourceExists",
                    &format!("{path} exists"),
                );
                format!(
                    "{free}\nNew-Item -ItemType Directory -Path {} | Out-Null\n\
                     Set-Content -LiteralPath {} -Value {} -Encoding Ascii",
                    literal(path.as_str()),
                    literal(&format!("{path}\\{FOLDER_MARK}")),
                    literal(&owner.tag())
                )
            }
            Step::RemoveFolder { path, owner } => {
                let ours = stop_if(
                    &mark_is_not(path, owner),
                    NOT_OURS,
                    "PermissionDenied",
                    &format!("{path} was not made by {owner}"),
                );
                let path = literal(path.as_str());
                format!(
                    "if(Test-Path -LiteralPath {path}){{\n{ours}\n\
                     Remove-Item -LiteralPath {path} -Recurse -Force}}"
                )
            }
            Step::FilesExist(paths) => {
                let tests: Vec<String> = paths
                    .iter()
                    .map(|path| {
                        format!(
                            "(Test-Path -LiteralPath {} -PathType Leaf)",
                            literal(path.as_str())
                        )
                    })
                    .collect();
                format!("[void]$out.Add(@({}))", tests.join(", "))
            }
            Step::OwnFolder { path, owner } => {
                let ours = stop_if(
                    &mark_is_not(path, owner),
                    NOT_OURS,
                    "PermissionDenied",
                    &format!("{path} was not made by {owner}"),
                );
                let mark = literal(&format!("{path}\\{FOLDER_MARK}"));
                let path = literal(path.as_str());
                format!(
                    "if(-not (Test-Path -LiteralPath {path})){{\n\
                     New-Item -ItemType Directory -Path {path} | Out-Null\n\
                     Set-Content -LiteralPath {mark} -Value {} -Encoding Ascii}}\n{ours}",
                    literal(&owner.tag())
                )
            }
            Step::RemoveFile { path, owner } => {
                let folder = path.parent().unwrap_or_else(|| path.clone());
                let ours = stop_if(
                    &mark_is_not(&folder, owner),
                    NOT_OURS,
                    "PermissionDenied",
                    &format!("{path} is in no folder of {owner}"),
                );
                let path = literal(path.as_str());
                format!(
                    "if(Test-Path -LiteralPath {path}){{\n{ours}\n\
                     Remove-Item -LiteralPath {path} -Force}}"
                )
            }
            Step::HostInfo => format!(
                "[void]$out.Add([ordered]@{{version=[string][Environment]::OSVersion.Version;\
                 powershell=[string]$PSVersionTable.PSVersion;\
                 folder=[string](@({})[0].VirtualMachinePath)}})",
                GetHost.call().render()
            ),
            Step::Wmi(call) => call.render(),
        }
    }
}

impl<C: Into<Cmdlet>> From<C> for Step {
    fn from(cmdlet: C) -> Self {
        Step::Run(cmdlet.into())
    }
}

/// What a script answers with; also what the model makes.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct Answer {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<crate::error::Failure>,
}
