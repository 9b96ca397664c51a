//! Every cmdlet we call, as a struct with the parameters we use, and as text.
//!
//! A machine is always the script's `$vm` (see `script`), never a name: two machines of a host may have
//! the same name. Each struct commits to one parameter set of the documentation.

mod checkpoint;
mod disk;
mod drive;
mod firmware;
mod guest;
mod machine;
mod network;

pub use checkpoint::*;
pub use disk::*;
pub use drive::*;
pub use firmware::*;
pub use guest::*;
pub use machine::*;
pub use network::*;

use crate::script::{Expression, Value};

/// The module a cmdlet must come from: other products bring a `Get-VM` of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    HyperV,
    NetNat,
    NetTcpIp,
}

impl Module {
    pub fn name(self) -> &'static str {
        match self {
            Module::HyperV => "Hyper-V",
            Module::NetNat => "NetNat",
            Module::NetTcpIp => "NetTCPIP",
        }
    }
}

/// One call: module, cmdlet, parameter set, parameters in order. A parameter without value is a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub module: Module,
    pub cmdlet: &'static str,
    /// As the documentation names it, without ` (Default)`.
    pub parameter_set: &'static str,
    pub parameters: Vec<(&'static str, Option<Value>)>,
}

impl Call {
    fn new(cmdlet: &'static str, parameter_set: &'static str) -> Self {
        Self { module: Module::HyperV, cmdlet, parameter_set, parameters: Vec::new() }
    }

    /// A call about the machine of the script.
    fn on_machine(cmdlet: &'static str) -> Self {
        Self::new(cmdlet, "VMObject").with("VM", Value::Expression(Expression::Machine))
    }

    fn module(mut self, module: Module) -> Self {
        self.module = module;
        self
    }

    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.parameters.push((name, Some(value.into())));
        self
    }

    fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn switch(mut self, name: &'static str) -> Self {
        self.parameters.push((name, None));
        self
    }

    fn switch_if(self, name: &'static str, on: bool) -> Self {
        if on { self.switch(name) } else { self }
    }

    pub fn render(&self) -> String {
        let mut text = format!("{}\\{}", self.module.name(), self.cmdlet);
        for (name, value) in &self.parameters {
            text.push_str(" -");
            text.push_str(name);
            if let Some(value) = value {
                let off = Value::Expression(Expression::SwitchOff);
                text.push(if *value == off { ':' } else { ' ' });
                text.push_str(&value.render());
            }
        }
        text
    }
}

macro_rules! cmdlets {
    ($($name:ident),* $(,)?) => {
        /// Any of the calls.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Cmdlet { $($name($name)),* }

        impl Cmdlet {
            pub fn call(&self) -> Call {
                match self { $(Cmdlet::$name(it) => it.call()),* }
            }
        }

        $(impl From<$name> for Cmdlet {
            fn from(it: $name) -> Self { Cmdlet::$name(it) }
        })*
    };
}

cmdlets! {
    AddHardDisk, AddDvd, Checkpoint, ConvertVhd, CopyFile, DismountVhd, EnableIntegration, EnableTpm,
    Export, GetDvds, GetFirmware, GetHardDisks, GetHost, GetIntegration, GetNat, GetNetworkAdapters, GetSnapshots,
    GetSwitches, GetVhd, GetVm, MergeVhd, MountVhd, NewIpAddress, NewNat, NewSwitch, NewVhd, NewVm,
    OptimizeVhd, RemoveHardDisk, RemoveNat, RemoveSnapshot, RemoveSwitch, RemoveVm, ResizeVhd,
    RestartVm, RestoreSnapshot, SetBios, SetComPort, SetDvd, SetFirmware, SetFloppy, SetKeyProtector, SetMemory,
    SetProcessor, SetVm, StartVm, StopVm,
}
