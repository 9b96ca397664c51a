//! The rules of a store: whose keys count for what, which channels there are and what a version
//! must show to enter them, what is kept and for how long.
//!
//! The policy is itself a signed log, `policy/`. Its first entry makes the store: it names the
//! store and pins its first keys. Each later entry is signed by an admin key of the one before.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::keys::{KeyPair, key_id};
use crate::log::{Checked, Entry, Log, check_chain, entry_key};
use crate::name;
use crate::{dsse, keys};

pub(crate) const FOLDER: &str = "policy";
pub(crate) const PAYLOAD: &str = "application/vnd.gilt.policy+json";
/// Of the layout of the store. A newer one is refused, not guessed at.
pub(crate) const FORMAT: u32 = 1;

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Versions, and the channel `latest`.
    Builder,
    /// Channels, and the life of versions.
    Release,
    /// The policy; purges.
    Admin,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Builder => "builder",
            Self::Release => "release",
            Self::Admin => "admin",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedKey {
    /// SHA-256 of the public key, in hex.
    pub id: String,
    pub name: String,
    /// 32 bytes, base64.
    pub public: String,
    pub roles: Vec<Role>,
    /// What it signed after this counts for nothing. A key that was stolen is retired at the time
    /// before the theft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<jiff::Timestamp>,
}

impl TrustedKey {
    pub fn of(pair: &KeyPair, roles: &[Role]) -> Self {
        Self::new(&pair.name, &pair.signing.verifying_key(), roles)
    }

    fn new(name: &str, key: &VerifyingKey, roles: &[Role]) -> Self {
        Self {
            id: key_id(key),
            name: name.to_owned(),
            public: STANDARD.encode(key.as_bytes()),
            roles: roles.to_vec(),
            retired: None,
        }
    }

    /// From the PEM text of a `.pub` file.
    pub fn from_pem(name: &str, pem: &str, roles: &[Role]) -> Result<Self> {
        Ok(Self::new(name, &keys::parse_public(pem)?, roles))
    }

    pub fn public_pem(&self) -> Result<String> {
        keys::public_pem(&self.public()?)
    }

    pub(crate) fn public(&self) -> Result<VerifyingKey> {
        let object = format!("key {}", self.name);
        let bytes = STANDARD
            .decode(&self.public)
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or_else(|| Error::corrupt(&object, "want 32 bytes of base64"))?;
        let key = VerifyingKey::from_bytes(&bytes)
            .map_err(|error| Error::corrupt(&object, error.to_string()))?;
        if key_id(&key) != self.id {
            return Err(Error::corrupt(&object, "its id is not the digest of its bytes"));
        }
        Ok(key)
    }

    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// A key that was retired counts for what it signed before.
    pub(crate) fn check_time(&self, object: &str, signed: jiff::Timestamp) -> Result<()> {
        match self.retired {
            Some(retired) if signed > retired => Err(Error::Signature {
                object: object.to_owned(),
                why: format!("key {} was retired at {retired}, this is from {signed}", self.name),
            }),
            _ => Ok(()),
        }
    }
}

/// What a version must show before it may enter a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "gate", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Gate {
    /// Its tests ran, and none failed.
    TestsPassed,
    /// It was published by a key that has this role now and is not retired.
    SignedBy { role: Role },
    /// It has been in the channel it comes from, or else published, for at least this long.
    MinAge { seconds: u64 },
    /// No version it was built on is revoked.
    NoRevokedParent,
    /// It carries an artifact of this role, such as `sbom`.
    HasArtifact { role: String },
}

impl Gate {
    pub fn name(&self) -> String {
        match self {
            Self::TestsPassed => "tests-passed".into(),
            Self::SignedBy { role } => format!("signed-by {}", role.name()),
            Self::MinAge { seconds } => format!("min-age {}", age_text(*seconds)),
            Self::NoRevokedParent => "no-revoked-parent".into(),
            Self::HasArtifact { role } => format!("has-artifact {role}"),
        }
    }
}

pub(crate) fn age_text(seconds: u64) -> String {
    match seconds {
        s if s >= 2 * 86_400 => format!("{} days", s / 86_400),
        s if s >= 2 * 3_600 => format!("{} hours", s / 3_600),
        s if s >= 120 => format!("{} minutes", s / 60),
        s => format!("{s} seconds"),
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelRule {
    pub name: String,
    /// The channel a version must be in before this one, for `promote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default)]
    pub gates: Vec<Gate>,
    /// Roles that may move it.
    pub signers: Vec<Role>,
}

/// One rule of what to delete. Rules of an image are taken together: what any keeps is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Image name; `*` at its end stands for any rest.
    pub images: String,
    /// Versions of each image that stay, newest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u64>,
    /// Versions younger than this stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub format: u32,
    pub keys: Vec<TrustedKey>,
    pub channels: Vec<ChannelRule>,
    #[serde(default)]
    pub retention: Vec<RetentionRule>,
    /// A deleted version can be restored, and what gc found useless is kept, for this long.
    pub grace_seconds: u64,
    /// A channel head older than this is refused until it is renewed. None: heads do not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_ttl_seconds: Option<u64>,
}

impl Policy {
    /// What a new store starts with: one key for everything, the usual three channels.
    pub fn first(pair: &KeyPair) -> Self {
        let all = [Role::Builder, Role::Release, Role::Admin];
        let channel = |name: &str, from: Option<&str>, gates: Vec<Gate>, signers: &[Role]| {
            let from = from.map(str::to_owned);
            ChannelRule { name: name.to_owned(), from, gates, signers: signers.to_vec() }
        };
        let tested = vec![Gate::TestsPassed, Gate::NoRevokedParent];
        let mut released = tested.clone();
        released.push(Gate::SignedBy { role: Role::Builder });
        Self {
            format: FORMAT,
            keys: vec![TrustedKey::of(pair, &all)],
            channels: vec![
                channel("dev", None, Vec::new(), &[Role::Builder, Role::Release]),
                channel("test", Some("dev"), tested, &[Role::Builder, Role::Release]),
                channel("prod", Some("test"), released, &[Role::Release]),
            ],
            retention: Vec::new(),
            grace_seconds: 7 * 86_400,
            head_ttl_seconds: None,
        }
    }

    /// Refuses a policy that would lock its owner out or that names what does not exist.
    pub fn check(&self) -> Result<()> {
        let bad = |why: String| Err(Error::invalid("policy", why));
        if self.format != FORMAT {
            return bad(format!("format {} is not {FORMAT}, the one known here", self.format));
        }
        if !self.keys.iter().any(|key| key.has(Role::Admin) && key.retired.is_none()) {
            return bad("no key with the role admin is left: nobody could change it again".into());
        }
        for (n, key) in self.keys.iter().enumerate() {
            key.public()?;
            if self.keys[..n].iter().any(|other| other.id == key.id) {
                return bad(format!("key {} is listed twice", key.name));
            }
        }
        for (n, channel) in self.channels.iter().enumerate() {
            name::check("channel", &channel.name)?;
            if channel.name == name::LATEST {
                return bad("the channel latest is managed by the store".into());
            }
            if self.channels[..n].iter().any(|other| other.name == channel.name) {
                return bad(format!("channel {} is listed twice", channel.name));
            }
            if channel.signers.is_empty() {
                return bad(format!("channel {} has no signers", channel.name));
            }
            if let Some(from) = &channel.from
                && !self.channels[..n].iter().any(|other| other.name == *from)
            {
                return bad(format!(
                    "channel {} comes from {from}, which is not before it",
                    channel.name
                ));
            }
        }
        Ok(())
    }

    /// The key an object says it is signed by, if the policy pins it.
    pub(crate) fn key(&self, object: &str, id: &str) -> Result<&TrustedKey> {
        self.keys.iter().find(|key| key.id == id).ok_or_else(|| Error::Signature {
            object: object.to_owned(),
            why: format!("key {id} is not one the policy of this store trusts"),
        })
    }

    /// Refuses what was signed by a key that has none of the roles.
    pub(crate) fn check_role(&self, object: &str, id: &str, roles: &[Role]) -> Result<()> {
        let key = self.key(object, id)?;
        if roles.iter().any(|&role| key.has(role)) {
            return Ok(());
        }
        let wanted: Vec<_> = roles.iter().map(|role| role.name()).collect();
        let why =
            format!("key {} may not sign this: wants the role {}", key.name, wanted.join(" or "));
        Err(Error::Signature { object: object.to_owned(), why })
    }

    pub fn channel(&self, name: &str) -> Result<ChannelRule> {
        if name == name::LATEST {
            return Ok(ChannelRule {
                name: name.to_owned(),
                from: None,
                gates: Vec::new(),
                signers: vec![Role::Builder, Role::Release, Role::Admin],
            });
        }
        self.channels.iter().find(|channel| channel.name == name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.channels.iter().map(|c| c.name.as_str()).collect();
            Error::not_found(format!("channel {name:?} (this store has {})", known.join(", ")))
        })
    }

    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}

/// Reads the whole policy log: each entry by a key of the entry before it.
pub(crate) async fn read(log: &Log<'_>) -> Result<(Checked<Policy>, Checked<Policy>)> {
    let head = log.head_seq().await?;
    if head == 0 {
        return Err(Error::not_found(entry_key(FOLDER, 1)));
    }
    let mut chain: Vec<Checked<Policy>> = Vec::new();
    for seq in 1..=head {
        let key = entry_key(FOLDER, seq);
        let bytes = log.backend.get(&key).await?;
        let sealed = dsse::open(&key, &bytes)?;
        let claimed: Entry<Policy> = sealed.unverified()?;
        let ruling = chain.last().map_or(&claimed.body, |before| &before.entry.body);
        ruling.check_role(&key, &sealed.key_id, &[Role::Admin])?;
        let trusted = ruling.key(&key, &sealed.key_id)?;
        let named = |error: Error| Error::corrupt(&key, error.to_string());
        let entry: Entry<Policy> = sealed.verify(PAYLOAD, &trusted.public().map_err(named)?)?;
        trusted.check_time(&key, entry.at)?;
        entry.body.check().map_err(named)?;
        let entry = log.checked(seq, &bytes, sealed.key_id, entry)?;
        check_chain(FOLDER, chain.last(), &entry)?;
        chain.push(entry);
    }
    let (Some(first), Some(last)) = (chain.first().cloned(), chain.pop()) else {
        return Err(Error::not_found(entry_key(FOLDER, 1)));
    };
    log.seen.note(FOLDER, head, last.digest);
    Ok((first, last))
}
