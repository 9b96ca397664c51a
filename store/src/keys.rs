//! Key pairs of the person or machine that uses a store: PEM files in one folder.
//!
//! ```text
//! keys/NAME.key   PKCS#8, Ed25519, mode 0600
//! keys/NAME.pub   SubjectPublicKeyInfo, to hand to whoever keeps the policy of a store
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Name of the key that is made when there is none.
pub(crate) const DEFAULT: &str = "default";

/// A key pair that can sign.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// Name of its file, without the ending.
    pub name: String,
    /// SHA-256 of the public key's 32 bytes, in hex.
    pub id: String,
    pub(crate) signing: SigningKey,
}

impl KeyPair {
    fn from_signing(name: &str, signing: SigningKey) -> Self {
        Self { name: name.to_owned(), id: key_id(&signing.verifying_key()), signing }
    }

    pub fn public_pem(&self) -> Result<String> {
        public_pem(&self.signing.verifying_key())
    }

    /// A pair that lives in memory only.
    pub fn generate(name: &str) -> Self {
        let secret: [u8; 32] = rand::random();
        Self::from_signing(name, SigningKey::from_bytes(&secret))
    }
}

pub(crate) fn public_pem(key: &VerifyingKey) -> Result<String> {
    key.to_public_key_pem(LineEnding::LF)
        .map_err(|error| Error::invalid("public key", error.to_string()))
}

/// Reads a public key from PEM text.
pub(crate) fn parse_public(text: &str) -> Result<VerifyingKey> {
    VerifyingKey::from_public_key_pem(text.trim())
        .map_err(|error| Error::invalid("public key", error.to_string()))
}

pub(crate) fn key_id(key: &VerifyingKey) -> String {
    Digest::of(key.as_bytes()).hex()
}

/// The folder of key pairs.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: PathBuf,
}

impl Keys {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every pair in the folder, by name.
    pub fn list(&self) -> Result<Vec<KeyPair>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("reading", &self.folder, error)),
        };
        let mut pairs = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| Error::io("reading", &self.folder, e))?.path();
            if path.extension().is_some_and(|ending| ending == "key") {
                pairs.push(read(&path)?);
            }
        }
        pairs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pairs)
    }

    /// Makes a new pair. A name that is taken is refused.
    pub fn create(&self, name: &str) -> Result<KeyPair> {
        crate::name::check("key", name)?;
        self.create_or_read(name)?.ok_or_else(|| {
            Error::refused(format!("key {name}"), format!("exists in {}", self.folder.display()))
        })
    }

    /// The pair of that name, made if it does not exist. Safe when several processes do it at once.
    pub(crate) fn ensure(&self, name: &str) -> Result<KeyPair> {
        match self.create_or_read(name)? {
            Some(made) => Ok(made),
            None => read(&self.folder.join(format!("{name}.key"))),
        }
    }

    /// `None` if a key of that name is there already.
    fn create_or_read(&self, name: &str) -> Result<Option<KeyPair>> {
        let path = self.folder.join(format!("{name}.key"));
        if path.exists() {
            return Ok(None);
        }
        std::fs::create_dir_all(&self.folder)
            .map_err(|e| Error::io("creating", &self.folder, e))?;
        let pair = KeyPair::generate(name);
        let pem = pair
            .signing
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| Error::invalid("key", error.to_string()))?;
        // A temporary file is readable by its owner only.
        let mut file = tempfile::Builder::new()
            .prefix(".key-")
            .tempfile_in(&self.folder)
            .map_err(|e| Error::io("creating a file in", &self.folder, e))?;
        file.write_all(pem.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(|e| Error::io("writing", &path, e))?;
        match file.persist_noclobber(&path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Ok(None);
            }
            Err(error) => return Err(Error::io("writing", &path, error.error)),
        }
        let public = self.folder.join(format!("{name}.pub"));
        std::fs::write(&public, pair.public_pem()?)
            .map_err(|e| Error::io("writing", &public, e))?;
        Ok(Some(pair))
    }
}

fn read(path: &Path) -> Result<KeyPair> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("reading", path, e))?;
    let signing = SigningKey::from_pkcs8_pem(&text)
        .map_err(|error| Error::invalid(format!("key {}", path.display()), error.to_string()))?;
    let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(KeyPair::from_signing(&name, signing))
}
