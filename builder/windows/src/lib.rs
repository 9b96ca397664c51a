//! Everything of Windows that is text or a decision: answer files, scripts for the guest, what
//! they are asked and answer, and what a log means. No machine, no network, no clock: all of it
//! runs and is tested on any host.
//!
//! ```text
//! answer    what Setup and Sysprep are told          medium   the disc that carries it
//! script    constant PowerShell; values go as JSON   request  what each is asked and answers
//! reboot    proof of a new boot                      update   rounds of Windows Update
//! preflight what blocks Sysprep, and the cure        sysprep  how a run stands
//! diagnosis one line of cause and cure from logs     drivers  which fit, told by what is in them
//! iso       install media: UDF, and the boot prompt
//! ```

#![forbid(unsafe_code)]

pub mod answer;
pub mod clixml;
pub mod diagnosis;
pub mod drivers;
pub mod iso;
pub mod medium;
pub mod preflight;
pub mod reboot;
pub mod request;
pub mod script;
pub mod sysprep;
pub mod update;
