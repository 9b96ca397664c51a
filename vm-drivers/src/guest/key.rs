//! The key pair made for one build.

use std::sync::Arc;

use russh::keys::{Algorithm, PrivateKey, ssh_key::LineEnding};

use crate::error::{Error, Result};

/// An ed25519 key pair. The private half leaves memory only when asked for.
#[derive(Clone)]
pub struct SshKey {
    pub(super) private: Arc<PrivateKey>,
}

impl std::fmt::Debug for SshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SshKey({})", self.fingerprint())
    }
}

fn broken(e: impl std::fmt::Display) -> Error {
    Error::Malformed { what: "ssh key".into(), reason: e.to_string() }
}

impl SshKey {
    /// A new pair; the comment shows in the guest's `authorized_keys`.
    pub fn generate(comment: &str) -> Result<Self> {
        let mut key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
            .map_err(broken)?;
        key.set_comment(comment);
        Ok(Self { private: Arc::new(key) })
    }

    /// Reads an unencrypted key in OpenSSH's form.
    pub fn from_openssh(text: &str) -> Result<Self> {
        let key = PrivateKey::from_openssh(text).map_err(broken)?;
        if key.is_encrypted() {
            return Err(broken("it is protected by a passphrase"));
        }
        Ok(Self { private: Arc::new(key) })
    }

    /// The line for `authorized_keys`, without a line end.
    pub fn public_line(&self) -> Result<String> {
        self.private.public_key().to_openssh().map_err(broken)
    }

    /// The private half in OpenSSH's form, for a file only its owner may read.
    pub fn private_openssh(&self) -> Result<String> {
        self.private.to_openssh(LineEnding::LF).map(|text| text.to_string()).map_err(broken)
    }

    /// `SHA256:…`
    pub fn fingerprint(&self) -> String {
        self.private.fingerprint(Default::default()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(windows, ignore = "needs ssh-keygen")]
    fn openssh_reads_our_keys_and_we_read_them_back() {
        let key = SshKey::generate("gilt build").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, key.private_openssh().unwrap()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let out = std::process::Command::new("ssh-keygen")
            .arg("-y")
            .arg("-f")
            .arg(&path)
            .output()
            .expect("needs openssh-client: run ci/setup");
        assert_eq!(
            String::from_utf8(out.stdout).unwrap().trim(),
            key.public_line().unwrap(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let again = SshKey::from_openssh(&key.private_openssh().unwrap()).unwrap();
        assert_eq!(again.fingerprint(), key.fingerprint());
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }
}
