//! PowerShell Direct: a command inside a Windows guest without a network, by the machine's id.
//!
//! Account, password and command travel on stdin with the script, never on a command line. The guest must be
//! Windows 10, Server 2016 or newer, running, and signed in to with an account of its own.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::literal;
use crate::{
    error::{Error, Result},
    name::{Owner, VmId},
};

/// A command for a guest.
#[derive(Clone, PartialEq, Eq)]
pub struct Direct {
    pub id: VmId,
    pub owner: Owner,
    pub user: String,
    pub password: String,
    /// PowerShell text; its last native command's exit code is the command's.
    pub command: String,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Direct({} as {})", self.id, self.user)
    }
}

/// What the guest answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectAnswer {
    pub stdout: String,
    pub stderr: String,
    pub exit_code: i64,
}

/// The first words of the line with the answer.
const MARKER: &str = "gilt-direct-answer";

impl Direct {
    /// Fails before anything is sent when the machine is not the owner's.
    pub fn render(&self) -> String {
        let command = STANDARD.encode(&self.command);
        format!(
            "$ErrorActionPreference='Stop';$ProgressPreference='SilentlyContinue'\n\
             $vm=Hyper-V\\Get-VM -Id {id}\n\
             if(([string]$vm.Notes -split '\\r?\\n')[0].TrimEnd() -cne {tag}){{throw 'GiltNotOurs'}}\n\
             $secret=ConvertTo-SecureString -String {password} -AsPlainText -Force\n\
             $login=[Management.Automation.PSCredential]::new({user},$secret)\n\
             $answer=Invoke-Command -VMId $vm.Id -Credential $login -ArgumentList '{command}' -ScriptBlock {{\n\
             param($encoded)\n\
             $text=[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($encoded))\n\
             $global:LASTEXITCODE=0;$failed='';$said=''\n\
             try{{$said=& ([ScriptBlock]::Create($text)) 2>&1 | ForEach-Object {{\n\
             if($_ -is [Management.Automation.ErrorRecord]){{$failed+=[string]$_+\"`n\"}}else{{$_}}}} | Out-String -Width 4096}}\n\
             catch{{$failed+=[string]$_;if($global:LASTEXITCODE -eq 0){{$global:LASTEXITCODE=1}}}}\n\
             [pscustomobject]@{{stdout=[string]$said;stderr=$failed;exit_code=[int]$global:LASTEXITCODE}}}}\n\
             $json=ConvertTo-Json -Compress -InputObject ([ordered]@{{stdout=[string]$answer.stdout;stderr=[string]$answer.stderr;exit_code=[int]$answer.exit_code}})\n\
             [Console]::Out.WriteLine('{MARKER} '+[Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($json)))\n",
            id = literal(self.id.as_str()),
            tag = literal(&self.owner.tag()),
            password = literal(&self.password),
            user = literal(&self.user),
        )
    }

    /// Reads the answer from a run's stdout; without one, the end of stderr says why.
    pub fn read(stdout: &[u8], stderr: &[u8]) -> Result<DirectAnswer> {
        let broken = |reason: String| Error::Answer {
            operation: "a command by PowerShell Direct".into(),
            reason,
        };
        let line = stdout
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(MARKER.as_bytes())?.strip_prefix(b" "));
        let Some(line) = line else {
            let text = String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(600)..]);
            let words: Vec<&str> = text.split_whitespace().collect();
            return Err(broken(format!("no answer; {}", words.join(" "))));
        };
        let json = STANDARD.decode(line.trim_ascii()).map_err(|e| broken(e.to_string()))?;
        serde_json::from_slice(&json).map_err(|e| broken(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_its_absence_is_told_with_the_reason() {
        let answer = DirectAnswer { stdout: "a\r\n".into(), stderr: String::new(), exit_code: 3 };
        let json = serde_json::to_vec(&answer).unwrap();
        let line = format!("noise\r\n{MARKER} {}\r\n", STANDARD.encode(json));
        assert_eq!(Direct::read(line.as_bytes(), b"").unwrap(), answer);
        let error = Direct::read(b"", b"The credential is invalid.").unwrap_err().to_string();
        assert!(error.contains("The credential is invalid."), "{error}");
        assert!(Direct::read(format!("{MARKER} !!\n").as_bytes(), b"").is_err());
    }

    #[test]
    fn a_secret_is_in_no_debug_text() {
        let direct = Direct {
            id: VmId::new("2a34b1c2-fd73-4043-8a5b-dd2159bc743f").unwrap(),
            owner: Owner::new("o").unwrap(),
            user: "Administrator".into(),
            password: "hunter2".into(),
            command: "whoami".into(),
        };
        assert!(!format!("{direct:?}").contains("hunter2"));
    }
}
