//! A store: opening it, making it, and what its parts share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use object_store::ObjectStore;

use crate::backend::{Backend, Created};
use crate::blobs::Blobs;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::keys::{DEFAULT, KeyPair, Keys};
use crate::log::{Appended, Checked, Entry, Log, Next, Stamp, entry_key};
use crate::policy::{self, Policy, Role};
use crate::seen::{self, Identity, Seen};
use crate::{dsse, guard, probe};

/// Made in a mirror before anything else: a mirror takes what it is sent, signs nothing.
const MIRROR: &str = "mirror.json";

/// Tells the time; tests give their own.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// Undoes [`crate::Segments::loosen`]. Given any bytes; those that are no loose form are an error.
pub type Tighten = Arc<dyn Fn(&[u8]) -> std::io::Result<Vec<u8>> + Send + Sync>;

type Wrap = Arc<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct OpenOptions {
    /// Make a store in a local folder that has none.
    pub create: bool,
    /// Key pairs of the user.
    pub keys: Keys,
    /// What this client has seen of stores, to notice replays. None: not kept.
    pub state: Option<PathBuf>,
    /// Copies of small objects of stores that are far away. None: not kept.
    pub cache: Option<PathBuf>,
    /// Who writes, for the records.
    pub by: String,
    /// Sync every file to the disk before going on. Off only for scratch stores.
    pub durable: bool,
    pub clock: Clock,
    /// Settings of S3 by the names of their `AWS_` variables; they come before the environment.
    pub s3: Vec<(String, String)>,
    /// Gives metadata that was published in a loose form its bytes back. None: files that have such
    /// cannot be read.
    pub tighten: Option<Tighten>,
    /// Puts something between the store and its backend; for tests.
    pub wrap: Option<Wrap>,
}

impl OpenOptions {
    /// Keys in `config/keys`, state and cache as given.
    pub fn new(config: &Path, state: Option<PathBuf>, cache: Option<PathBuf>) -> Self {
        Self {
            create: true,
            keys: Keys::new(config.join("keys")),
            state,
            cache,
            by: guard::whoami(),
            durable: true,
            clock: Arc::new(jiff::Timestamp::now),
            s3: Vec::new(),
            tighten: None,
            wrap: None,
        }
    }
}

/// A store that is open. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) backend: Backend,
    pub(crate) blobs: Blobs,
    pub(crate) seen: Seen,
    pub(crate) options: OpenOptions,
    id: String,
    policy: Arc<RwLock<Checked<Policy>>>,
    mirror: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("url", &self.backend.url()).field("id", &self.id).finish()
    }
}

impl Store {
    /// Opens the store at a URL (`s3://bucket/prefix`) or in a folder. Reads its policy, and
    /// nothing that grows with its contents.
    pub async fn open(url: &str, options: OpenOptions) -> Result<Self> {
        let backend = connect(url, &options, options.create)?;
        let Some(backend) = backend else { return Err(Error::NotAStore { url: url.to_owned() }) };
        match Self::load(backend.clone(), options.clone()).await {
            Err(Error::NotFound { .. }) if backend.is_local() && options.create => {
                Self::make(backend, options).await
            }
            Err(Error::NotFound { .. }) => Err(Error::NotAStore { url: url.to_owned() }),
            other => other,
        }
    }

    /// Makes a store, after the backend has shown that it keeps its promises.
    pub async fn init(url: &str, options: OpenOptions) -> Result<Self> {
        let backend = connect(url, &options, true)?;
        let Some(backend) = backend else { return Err(Error::NotAStore { url: url.to_owned() }) };
        if backend.size(&entry_key(policy::FOLDER, 1)).await?.is_some() {
            return Err(Error::refused(format!("init {url}"), "there is a store already"));
        }
        Self::make(backend, options).await
    }

    async fn make(backend: Backend, options: OpenOptions) -> Result<Self> {
        probe::probe(&backend).await?;
        let pair = options.keys.ensure(DEFAULT)?;
        let id = uuid::Uuid::new_v4().to_string();
        let entry = Entry {
            store: id.clone(),
            log: policy::FOLDER.to_owned(),
            seq: 1,
            prev: None,
            at: (options.clock)(),
            by: options.by.clone(),
            nonce: uuid::Uuid::new_v4().simple().to_string(),
            body: Policy::first(&pair),
        };
        let bytes = dsse::seal(policy::PAYLOAD, &entry, &pair.id, &pair.signing)?;
        let genesis = Digest::of(&bytes);
        // Of several that make one store, the first gives it its identity; the others use it.
        if backend.create(&entry_key(policy::FOLDER, 1), bytes).await? == Created::New {
            let identity = Identity { store: id, genesis };
            seen::remember_identity(options.state.as_deref(), backend.url(), &identity);
        }
        Self::load(backend, options).await
    }

    async fn load(backend: Backend, options: OpenOptions) -> Result<Self> {
        let key = entry_key(policy::FOLDER, 1);
        let first = match backend.get(&key).await {
            Err(error) if error.is_not_found() => return Err(Error::not_found(key)),
            other => other?,
        };
        let id = dsse::open(&key, &first)?.unverified::<Entry<Policy>>()?.store;
        uuid::Uuid::parse_str(&id)
            .map_err(|_| Error::corrupt(&key, "its store id is not a UUID"))?;
        let seen = Seen::new(options.state.as_deref(), &id, backend.url());
        let log = Log {
            backend: &backend,
            store: &id,
            seen: &seen,
            folder: policy::FOLDER.to_owned(),
            payload_type: policy::PAYLOAD,
        };
        let (genesis, head) = policy::read(&log).await?;
        let identity = Identity { store: id.clone(), genesis: genesis.digest };
        seen::check_identity(options.state.as_deref(), backend.url(), &identity)?;
        let mirror = backend.size(MIRROR).await?.is_some();
        let cache = options.cache.as_ref().map(|cache| cache.join("blobs"));
        let blobs = Blobs::new(backend.clone(), cache);
        let policy = Arc::new(RwLock::new(head));
        Ok(Self { backend, blobs, seen, options, id, policy, mirror })
    }

    /// A mirror of this store at another place, made if it is not there.
    pub(crate) async fn open_mirror(&self, url: &str, options: OpenOptions) -> Result<Self> {
        let backend = connect(url, &options, true)?;
        let Some(backend) = backend else { return Err(Error::NotAStore { url: url.to_owned() }) };
        let key = entry_key(policy::FOLDER, 1);
        if backend.size(&key).await?.is_none() {
            probe::probe(&backend).await?;
            backend.create(MIRROR, Bytes::from_static(b"{\"mirror\":true}\n")).await?;
            backend.create(&key, self.backend.get(&key).await?).await?;
        }
        let mirror = Self::load(backend, options).await?;
        if mirror.id != self.id {
            let why = format!("it holds another store ({})", mirror.id);
            return Err(Error::refused(format!("mirroring to {url}"), why));
        }
        if !mirror.mirror {
            let why = "it is the original, not a mirror";
            return Err(Error::refused(format!("mirroring to {url}"), why));
        }
        Ok(mirror)
    }

    /// Accepts that there is another store at that address now.
    pub fn forget(url: &str, options: &OpenOptions) -> Result<()> {
        let Some(state) = &options.state else { return Ok(()) };
        match local_folder(url) {
            Some(folder) => {
                let folder =
                    std::path::absolute(&folder).map_err(|e| Error::io("resolving", &folder, e))?;
                seen::forget_identity(state, &folder.display().to_string())
            }
            None => seen::forget_identity(state, url),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn url(&self) -> &str {
        self.backend.url()
    }

    pub fn is_mirror(&self) -> bool {
        self.mirror
    }

    /// Bytes this handle has read from and written to the backend.
    pub fn moved(&self) -> (u64, u64) {
        self.backend.moved()
    }

    pub fn policy(&self) -> Policy {
        self.policy.read().unwrap_or_else(|poison| poison.into_inner()).entry.body.clone()
    }

    /// The newest entry of the policy: who set it, when.
    pub fn policy_entry(&self) -> Checked<Policy> {
        self.policy.read().unwrap_or_else(|poison| poison.into_inner()).clone()
    }

    /// Takes notice of a policy that was changed since the store was opened.
    pub async fn refresh(&self) -> Result<()> {
        let log = self.log(policy::FOLDER.to_owned(), policy::PAYLOAD);
        if log.head_seq().await? != self.policy_entry().entry.seq {
            let (_, head) = policy::read(&log).await?;
            *self.policy.write().unwrap_or_else(|poison| poison.into_inner()) = head;
        }
        Ok(())
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        (self.options.clock)()
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { at: self.now(), by: self.options.by.clone() }
    }

    /// A stamp with another name on it.
    pub(crate) fn stamp_by(&self, by: Option<&str>) -> Stamp {
        let mut stamp = self.stamp();
        if let Some(by) = by {
            stamp.by = by.to_owned();
        }
        stamp
    }

    pub(crate) fn log(&self, folder: String, payload_type: &'static str) -> Log<'_> {
        Log { backend: &self.backend, store: &self.id, seen: &self.seen, folder, payload_type }
    }

    /// A key pair of the user that may sign as one of the roles.
    pub(crate) fn signer(&self, roles: &[Role]) -> Result<KeyPair> {
        let policy = self.policy();
        let role = roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(" or ");
        if self.mirror {
            return Err(Error::refused("writing here", "this is a mirror; write to its original"));
        }
        let now = self.now();
        let mut pairs = self.options.keys.list()?.into_iter();
        pairs
            .find(|pair| {
                policy.keys.iter().any(|key| {
                    key.id == pair.id
                        && roles.iter().any(|&role| key.has(role))
                        && key.retired.is_none_or(|retired| now <= retired)
                })
            })
            .ok_or(Error::NoKey { role })
    }

    /// Replaces the policy: `change` is given the newest one and says what it shall be.
    pub async fn change_policy(
        &self,
        change: impl Fn(&mut Policy) -> Result<()> + Send + Sync,
    ) -> Result<()> {
        let signer = self.signer(&[Role::Admin])?;
        let log = self.log(policy::FOLDER.to_owned(), policy::PAYLOAD);
        let current = self.policy();
        let decide = |head: Option<Checked<Policy>>| {
            let mut next = head.map_or_else(|| current.clone(), |head| head.entry.body);
            let before = next.clone();
            let changed = change(&mut next).and_then(|()| next.check());
            async move {
                changed?;
                if next == before { Ok(Next::Done(())) } else { Ok(Next::Append(next)) }
            }
        };
        let appended = log.append(&current, &signer, &self.stamp(), decide).await?;
        if let Appended::New(entry) = appended {
            *self.policy.write().unwrap_or_else(|poison| poison.into_inner()) = entry;
        }
        Ok(())
    }
}

fn local_folder(url: &str) -> Option<PathBuf> {
    match url.strip_prefix("file://") {
        Some(path) => Some(PathBuf::from(path)),
        None if url.contains("://") => None,
        None => Some(PathBuf::from(url)),
    }
}

/// `None`: a folder that is not there, and may not be made.
fn connect(url: &str, options: &OpenOptions, create: bool) -> Result<Option<Backend>> {
    let backend = if let Some(rest) = url.strip_prefix("s3://") {
        Backend::s3(rest, url, &options.s3)?
    } else if let Some(folder) = local_folder(url) {
        let folder =
            std::path::absolute(&folder).map_err(|e| Error::io("resolving", &folder, e))?;
        if !folder.is_dir() {
            if !create {
                return Ok(None);
            }
            std::fs::create_dir_all(&folder).map_err(|e| Error::io("creating", &folder, e))?;
        }
        Backend::local(&folder, options.durable)?
    } else {
        return Err(Error::invalid(format!("store {url}"), "want a folder or s3://bucket/prefix"));
    };
    Ok(Some(match &options.wrap {
        Some(wrap) => backend.wrap(&**wrap),
        None => backend,
    }))
}
