//! Typed automation of Hyper-V, as text that can be made and checked on any system.
//!
//! ```text
//! host::Operation<T>  =  script::Script (steps: cmdlets, WMI calls, guards)  +  how to read its reply as T
//!        |                        |
//!        |                        +-> script::transport: -EncodedCommand or a file, run by whoever can
//!        +<- script::transport::Reply (one marker line, JSON in base64)
//! ```
//!
//! Nothing here starts a process or opens a connection. A machine is addressed by its id and only
//! after its notes proved that we made it; nothing is looked up by a localized name.

pub mod cmdlet;
pub mod error;
pub mod host;
pub mod model;
pub mod name;
pub mod reply;
pub mod script;
pub mod wmi;

pub use error::{Error, Failure, Refusal, Result};
pub use name::{HostPath, Owner, SwitchName, VmId, VmName};
