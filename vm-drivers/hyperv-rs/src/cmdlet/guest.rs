//! Integration services and files into the guest.

use super::Call;
use crate::{
    name::HostPath,
    script::{Expression, Value},
};

/// An integration service, by the GUID its `Id` ends with: the names are in the host's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    GuestFiles,
    KeyValuePairs,
    TimeSynchronization,
    Heartbeat,
    Shutdown,
    Vss,
}

impl Service {
    pub const ALL: [Service; 6] = [
        Service::GuestFiles,
        Service::KeyValuePairs,
        Service::TimeSynchronization,
        Service::Heartbeat,
        Service::Shutdown,
        Service::Vss,
    ];

    pub fn guid(self) -> &'static str {
        match self {
            Service::GuestFiles => "6C09BB55-D683-4DA0-8931-C9BF705F6480",
            Service::KeyValuePairs => "2A34B1C2-FD73-4043-8A5B-DD2159BC743F",
            Service::TimeSynchronization => "2497F4DE-E9FA-4204-80E4-4B75C46419C0",
            Service::Heartbeat => "84EAAE65-2F2E-45F5-9BB5-0E857DC8EB47",
            Service::Shutdown => "9F8233AC-BE49-4C79-8EE3-E7E1985B2077",
            Service::Vss => "5CED1297-4598-4915-A5FC-AD21BB4D02A4",
        }
    }

    /// The service whose id ends with this GUID.
    pub fn of_id(id: &str) -> Option<Service> {
        let id = id.to_ascii_uppercase();
        Service::ALL.into_iter().find(|service| id.ends_with(service.guid()))
    }
}

/// `Get-VMIntegrationService`: all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetIntegration;

impl GetIntegration {
    pub fn call(&self) -> Call {
        Call::on_machine("Get-VMIntegrationService")
    }
}

/// `Enable-VMIntegrationService`: the one with this id, never a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnableIntegration {
    pub service: Service,
}

impl EnableIntegration {
    pub fn call(&self) -> Call {
        let services = Value::Expression(Expression::ServiceById(
            self.service.guid(),
            Box::new(GetIntegration.call()),
        ));
        Call::new("Enable-VMIntegrationService", "VMIntegrationService")
            .with("VMIntegrationService", services)
    }
}

/// `Copy-VMFile`: host to guest only, needs `Service::GuestFiles`. Folders on the way are made and a
/// file that is there is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFile {
    pub source: HostPath,
    /// A path in the guest.
    pub destination: String,
}

impl CopyFile {
    pub fn call(&self) -> Call {
        Call::on_machine("Copy-VMFile")
            .with("SourcePath", self.source.as_str())
            .with("DestinationPath", self.destination.as_str())
            .with("FileSource", Value::Word("Host"))
            .switch("CreateFullPath")
            .switch("Force")
    }
}
