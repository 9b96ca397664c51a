//! Versions of images held once: blobs, versions, channels, signatures, retention.
//!
//! ```text
//! policy/<seq>.json                        who may do what; entry 1 makes the store
//! packs/ab/<sha256>.pack                   blobs, about 64 MiB of them each
//! index/<sha256>.idx                       in which pack each blob is
//! images/IMAGE/versions/<n>/manifest.json  what a version is; creating it claims the number
//! images/IMAGE/versions/<n>/life/<seq>.json   deprecated, revoked, restored, held, deleted …
//! images/IMAGE/channels/NAME/<seq>.json    which version the channel is at, and was
//! pins/ trash/                             publishing and gc keeping out of each other's way
//! ```
//! **Invariant:** an object, once made, never changes; a version is visible when its manifest is,
//! and everything the manifest needs was durable before. So killing a process at any moment leaves
//! a whole store, with at most some blobs nothing refers to, which gc collects.
//!
//! **Invariant:** the store does not know what a blob means. Who publishes says which parts of a
//! file are resources, metadata or tables ([`Segments`]).
#![forbid(unsafe_code)]

mod backend;
mod blobs;
mod channel;
mod digest;
mod dsse;
mod encoding;
mod error;
mod file;
mod fsck;
mod gates;
mod gc;
mod guard;
#[doc(hidden)]
pub mod hostile;
mod index;
mod ingest;
mod keys;
mod life;
mod log;
mod manifest;
mod mirror;
mod name;
mod pack;
mod policy;
mod probe;
mod publish;
mod pull;
mod query;
mod recipe;
mod repair;
mod retention;
mod seen;
mod serve;
mod source;
mod store;
mod verify;
mod withdraw;

pub use channel::{Action, Assignment, MoveRequest, PromoteRequest, Resolved};
pub use digest::{BlobId, Digest};
pub use error::{Error, Result};
pub use file::StoredFile;
pub use fsck::{Finding, FsckOptions, FsckReport};
pub use gates::GateResult;
pub use gc::GcReport;
pub use guard::Pin;
pub use index::Resource;
pub use ingest::Content;
pub use keys::{KeyPair, Keys};
pub use life::{Attested, Change, Hold, Life, State};
pub use log::{Checked, Entry};
pub use manifest::{
    Builder, Input, LayerKey, Manifest, ManifestFields, OsFacts, Package, Parent, Stored, Tests,
};
pub use mirror::{MirrorReport, MirrorRequest};
pub use name::{LATEST, Pick, Reference};
pub use policy::{ChannelRule, Gate, Policy, RetentionRule, Role, TrustedKey};
pub use publish::{Artifact, PublishRequest, Published};
pub use pull::{PullRequest, Pulled};
pub use query::{Diff, Difference, Event, ImageRow, VersionDetail, VersionRow, What, compare};
pub use recipe::{Kind, Opaque, ResourceInfo, Segment, Segments, TableLayout};
pub use retention::{Considered, RetentionPlan};
pub use source::{Source, Watch};
pub use store::{Clock, OpenOptions, Store, Tighten};
pub use verify::{VersionVerified, verify_file};
pub use withdraw::{ChannelMove, RevokeRequest, Revoked};
