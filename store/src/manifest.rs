//! What a version is: an in-toto statement with SLSA provenance, and beside it what only gilt
//! knows, in the predicate's own extension field `gilt_manifest`.
//!
//! ```text
//! images/IMAGE/versions/00000017/manifest.json    created once: who creates it owns the number 17
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::ingest::Content;

pub(crate) const PAYLOAD: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "https://github.com/gilt-images/gilt/build/v1";

pub(crate) fn versions_folder(image: &str) -> String {
    format!("images/{image}/versions")
}

pub(crate) fn version_folder(image: &str, version: u64) -> String {
    format!("images/{image}/versions/{version:08}")
}

pub(crate) fn key(image: &str, version: u64) -> String {
    format!("{}/manifest.json", version_folder(image, version))
}

/// A version this one was built on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    pub image: String,
    pub version: u64,
    /// Of the parent's file.
    pub digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerKey {
    pub name: String,
    pub key: String,
}

/// Something the build was given: an ISO, a package, a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub name: String,
    /// `sha256:…`
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// The program and host that built it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// URI or name of the builder, such as its host.
    pub id: String,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub version: String,
}

/// What is installed in the image. `more` holds what has no field of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OsFacts {
    pub name: String,
    pub edition: String,
    pub build: String,
    pub architecture: String,
    pub languages: Vec<String>,
    pub updates: Vec<String>,
    pub packages: Vec<Package>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, Value>,
}

/// How the tests of the image went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tests {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

/// What whoever publishes says about the version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManifestFields {
    pub description: String,
    pub parents: Vec<Parent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_digest: Option<Digest>,
    pub layers: Vec<LayerKey>,
    pub inputs: Vec<Input>,
    pub builder: Builder,
    pub os: OsFacts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tests: Option<Tests>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<jiff::Timestamp>,
}

/// A file that hangs on a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// `image` for the image itself; `sbom`, `log`, `report`, … for what hangs on it.
    pub role: String,
    pub name: String,
    pub media_type: String,
    #[serde(flatten)]
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Identity of the store.
    pub store: String,
    pub image: String,
    pub version: u64,
    pub at: jiff::Timestamp,
    pub by: String,
    /// Digest of everything the publisher gave: publishing it again finds this version.
    pub fingerprint: Digest,
    /// Tells apart two manifests that say the same.
    pub nonce: String,
    pub fields: ManifestFields,
    pub file: Stored,
    pub artifacts: Vec<Stored>,
}

impl Manifest {
    /// Everything of it that is stored as blobs.
    pub fn contents(&self) -> impl Iterator<Item = &Stored> {
        std::iter::once(&self.file).chain(&self.artifacts)
    }

    pub(crate) fn statement(&self) -> Result<Value> {
        let digest = |digest: &Digest| json!({ "sha256": digest.hex() });
        let subjects: Vec<Value> = self
            .contents()
            .map(|stored| {
                let name = format!("{}@{}/{}", self.image, self.version, stored.name);
                json!({ "name": name, "digest": digest(&stored.content.digest) })
            })
            .collect();
        let fields = &self.fields;
        let parents = fields.parents.iter().map(|parent| {
            let name = format!("{}@{}", parent.image, parent.version);
            json!({ "name": name, "digest": digest(&parent.digest) })
        });
        let inputs = fields
            .inputs
            .iter()
            .map(|input| json!({ "name": input.name, "digest": digest(&input.digest) }));
        let dependencies: Vec<Value> = parents.chain(inputs).collect();
        let manifest = serde_json::to_value(self)
            .map_err(|error| Error::invalid("manifest", error.to_string()))?;
        Ok(json!({
            "_type": STATEMENT,
            "subject": subjects,
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "image": self.image,
                        "template": fields.template_digest.as_ref().map(digest),
                    },
                    "resolvedDependencies": dependencies,
                },
                "runDetails": {
                    "builder": {
                        "id": fields.builder.id,
                        "version": { "gilt": fields.builder.version },
                    },
                    "metadata": {
                        "invocationId": self.nonce,
                        "startedOn": fields.started,
                        "finishedOn": self.at,
                    },
                },
                "gilt_manifest": manifest,
            },
        }))
    }

    /// The manifest in a statement, if the two say the same.
    pub(crate) fn from_statement(object: &str, statement: &Value) -> Result<Self> {
        let inner = statement
            .pointer("/predicate/gilt_manifest")
            .ok_or_else(|| Error::corrupt(object, "a statement without a manifest of gilt"))?;
        let manifest: Self = serde_json::from_value(inner.clone())
            .map_err(|error| Error::corrupt(object, format!("manifest: {error}")))?;
        if manifest.statement()? != *statement {
            return Err(Error::corrupt(object, "its provenance and its manifest disagree"));
        }
        Ok(manifest)
    }
}
