//! Append-only logs of signed entries: the policy, every channel, the life of every version.
//!
//! ```text
//! <log>/00000001.json   envelope {log, store, seq: 1, prev: null, at, by, nonce, body}
//! <log>/00000002.json   envelope {…, seq: 2, prev: digest of 00000001.json, …}
//! ```
//! The head is the highest number. An entry is appended by creating the next number: of two
//! writers one finds it taken, reads the new head, decides again, and tries the number after that.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Created};
use crate::digest::Digest;
use crate::dsse;
use crate::error::{Error, Result};
use crate::keys::KeyPair;
use crate::policy::Policy;
use crate::seen::Seen;

/// How often an append may lose the race for the next number.
const ATTEMPTS: u32 = 200;

/// An entry of a log: who said what, when, after which other entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry<T> {
    /// Identity of the store, so that an entry is worth nothing in another one.
    pub store: String,
    /// Key of the log's folder.
    pub log: String,
    /// From 1, without gaps.
    pub seq: u64,
    /// Digest of the entry before.
    pub prev: Option<Digest>,
    pub at: jiff::Timestamp,
    /// Who, in their own words: user@host.
    pub by: String,
    /// Tells apart two entries that say the same.
    pub nonce: String,
    pub body: T,
}

/// An entry whose signature, place and predecessor were checked.
#[derive(Clone, Debug)]
pub struct Checked<T> {
    pub entry: Entry<T>,
    /// Of the entry as stored.
    pub digest: Digest,
    /// The key that signed it.
    pub key_id: String,
}

pub(crate) struct Log<'a> {
    pub backend: &'a Backend,
    pub store: &'a str,
    pub seen: &'a Seen,
    /// Key of its folder.
    pub folder: String,
    /// In-toto type of its entries.
    pub payload_type: &'static str,
}

pub(crate) fn entry_key(folder: &str, seq: u64) -> String {
    format!("{folder}/{seq:08}.json")
}

fn seq_of(folder: &str, name: &str) -> Result<u64> {
    name.strip_suffix(".json")
        .filter(|digits| digits.len() >= 8)
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Error::corrupt(format!("{folder}/{name}"), "not the name of a log entry"))
}

/// How an appender goes on after it has read the head.
pub(crate) enum Next<T, R> {
    Append(T),
    /// Nothing to append: the log already says it.
    Done(R),
}

impl Log<'_> {
    /// Number of the newest entry; 0 when there is none. One that is lower than what this client
    /// saw before is a replay.
    pub async fn head_seq(&self) -> Result<u64> {
        let mut head = 0;
        let names = self.backend.names(&self.folder).await?;
        for name in &names {
            head = head.max(seq_of(&self.folder, name)?);
        }
        if head != names.len() as u64 {
            let what = format!("entry {head} is the newest, but {} are there", names.len());
            return Err(Error::corrupt(self.folder.clone(), what));
        }
        if let Some((seen, _)) = self.seen.get(&self.folder)
            && head < seen
        {
            return Err(Error::Replayed { log: self.folder.clone(), seen, found: head });
        }
        Ok(head)
    }

    /// One entry, its signature and its place checked. `policy` names the key it must be signed by.
    pub async fn read<T: DeserializeOwned>(&self, seq: u64, policy: &Policy) -> Result<Checked<T>> {
        let key = entry_key(&self.folder, seq);
        let bytes = self.backend.get(&key).await?;
        let sealed = dsse::open(&key, &bytes)?;
        let trusted = policy.key(&key, &sealed.key_id)?;
        let entry: Entry<T> = sealed.verify(self.payload_type, &trusted.public()?)?;
        trusted.check_time(&key, entry.at)?;
        self.checked(seq, &bytes, sealed.key_id, entry)
    }

    /// Checks that an entry is where it says it is.
    pub fn checked<T>(
        &self,
        seq: u64,
        bytes: &Bytes,
        key_id: String,
        entry: Entry<T>,
    ) -> Result<Checked<T>> {
        let key = entry_key(&self.folder, seq);
        if entry.store != self.store || entry.log != self.folder || entry.seq != seq {
            let what = format!(
                "was signed as entry {} of {} in store {}; it was moved here",
                entry.seq, entry.log, entry.store
            );
            return Err(Error::corrupt(key, what));
        }
        let digest = Digest::of(bytes);
        if let Some((seen, known)) = self.seen.get(&self.folder)
            && seen == seq
            && known != digest
        {
            let what = format!("this client has seen another entry {seq}, with {known}");
            return Err(Error::corrupt(key, what));
        }
        Ok(Checked { entry, digest, key_id })
    }

    pub async fn head<T: DeserializeOwned>(&self, policy: &Policy) -> Result<Option<Checked<T>>> {
        let seq = self.head_seq().await?;
        if seq == 0 {
            return Ok(None);
        }
        let head = self.read(seq, policy).await?;
        self.seen.note(&self.folder, seq, head.digest);
        Ok(Some(head))
    }

    /// Every entry, oldest first, each tied to the one before.
    pub async fn all<T: DeserializeOwned>(&self, policy: &Policy) -> Result<Vec<Checked<T>>> {
        let head = self.head_seq().await?;
        let mut entries: Vec<Checked<T>> = Vec::new();
        let wide = if self.backend.is_local() { 1 } else { 16 };
        let mut reads = futures::StreamExt::buffered(
            futures::stream::iter((1..=head).map(|seq| self.read::<T>(seq, policy))),
            wide,
        );
        while let Some(entry) = futures::StreamExt::next(&mut reads).await {
            let entry = entry?;
            check_chain(&self.folder, entries.last(), &entry)?;
            entries.push(entry);
        }
        if let Some(last) = entries.last() {
            self.seen.note(&self.folder, head, last.digest);
        }
        Ok(entries)
    }

    /// Appends what `decide` makes of the newest entry; asks again each time another writer was
    /// faster, because what was true before may not be now.
    pub async fn append<T, R, F, D>(
        &self,
        policy: &Policy,
        signer: &KeyPair,
        stamp: &Stamp,
        mut decide: F,
    ) -> Result<Appended<T, R>>
    where
        T: Serialize + DeserializeOwned + Clone,
        F: FnMut(Option<Checked<T>>) -> D,
        D: Future<Output = Result<Next<T, R>>> + Send,
    {
        for attempt in 0..ATTEMPTS {
            let head = self.head::<T>(policy).await?;
            let body = match decide(head.clone()).await? {
                Next::Append(body) => body,
                Next::Done(done) => return Ok(Appended::Already(done)),
            };
            let seq = head.as_ref().map_or(0, |head| head.entry.seq) + 1;
            let entry = Entry {
                store: self.store.to_owned(),
                log: self.folder.clone(),
                seq,
                prev: head.map(|head| head.digest),
                at: stamp.at,
                by: stamp.by.clone(),
                nonce: uuid::Uuid::new_v4().simple().to_string(),
                body,
            };
            let bytes = dsse::seal(self.payload_type, &entry, &signer.id, &signer.signing)?;
            let digest = Digest::of(&bytes);
            match self.backend.create(&entry_key(&self.folder, seq), bytes).await? {
                Created::New => {
                    self.seen.note(&self.folder, seq, digest);
                    let key_id = signer.id.clone();
                    return Ok(Appended::New(Checked { entry, digest, key_id }));
                }
                Created::Exists => pause(attempt).await,
            }
        }
        Err(Error::Raced { what: format!("the next entry of {}", self.folder), attempts: ATTEMPTS })
    }
}

#[allow(clippy::large_enum_variant, reason = "made once per append, never kept")]
pub(crate) enum Appended<T, R> {
    New(Checked<T>),
    Already(R),
}

/// Who writes, and when.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    pub at: jiff::Timestamp,
    pub by: String,
}

/// Lets racers drift apart: a random part of a bound that grows with each lost race.
pub(crate) async fn pause(attempt: u32) {
    let bound = 2u64 << attempt.min(7);
    let millis = rand::random_range(0..=bound);
    tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
}

pub(crate) fn check_chain<T>(
    folder: &str,
    before: Option<&Checked<T>>,
    entry: &Checked<T>,
) -> Result<()> {
    if entry.entry.prev != before.map(|before| before.digest) {
        let key = entry_key(folder, entry.entry.seq);
        return Err(Error::corrupt(key, "does not follow from the entry before it"));
    }
    Ok(())
}
