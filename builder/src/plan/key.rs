//! Keys: what was asked for, as one digest that can say what changed.
//!
//! ```text
//! key = H(format, parent's key or none, { name: digest of each named input })
//! ```
//! Layer 0, `install`, holds the source, its media, the kind of guest and what of the machine a
//! guest can see; every later layer holds them through its parent. Names of images and layers,
//! descriptions, timeouts, retries, memory, CPUs, the accelerator and paths of the host are in no key.

use crate::content_hash::{ContentHash, ContentHasher, Digest, digest_of};
use crate::lock::{Digests, InputError};
use crate::plan::INSTALL;
use crate::template::diagnostic::{Diagnostic, Diagnostics};
use crate::template::fields::Field;
use crate::template::model::Guest;
use crate::template::{BuildSpec, FileRef, LayerSpec, Machine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Raised when the same template must not find the checkpoints of an older gilt.
const KEY_FORMAT: u64 = 1;

/// Names the result of a layer before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerKey(pub Digest);

impl LayerKey {
    /// Enough of it to tell keys apart on a screen.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a key is made of, by name: `install.sh`, `parameter packages`, `machine disk`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInputs {
    pub parent: Option<LayerKey>,
    pub named: BTreeMap<String, Digest>,
}

impl LayerInputs {
    pub fn key(&self) -> LayerKey {
        let mut hasher = ContentHasher::new();
        hasher.leaf("gilt key", &KEY_FORMAT.to_le_bytes());
        self.parent.map(|parent| parent.0).content_hash(&mut hasher);
        self.named.content_hash(&mut hasher);
        LayerKey(hasher.digest())
    }

    /// What differs from `before`: `install.sh changed`, `parameter packages added`. The parent
    /// comes first; a definition comes last, as it changes with what it names.
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.parent != before.parent {
            changes.push(Change { name: "parent".into(), how: How::Changed });
        }
        for (name, digest) in &self.named {
            match before.named.get(name) {
                Some(old) if old == digest => {}
                Some(_) => changes.push(Change { name: name.clone(), how: How::Changed }),
                None => changes.push(Change { name: name.clone(), how: How::Added }),
            }
        }
        for name in before.named.keys().filter(|name| !self.named.contains_key(*name)) {
            changes.push(Change { name: name.clone(), how: How::Removed });
        }
        let definition = |change: &Change| {
            ["provisioner ", "verify "].iter().any(|prefix| change.name.starts_with(prefix))
        };
        changes.sort_by_key(|change| (change.name != "parent", definition(change)));
        changes
    }
}

/// One named input that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub name: String,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    Changed,
    Added,
    Removed,
}

impl Change {
    /// `changed`, `added`, `removed`.
    pub fn verb(&self) -> &'static str {
        match self.how {
            How::Changed => "changed",
            How::Added => "added",
            How::Removed => "removed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.verb())
    }
}

/// A key, what it is made of, and the files behind it.
#[derive(Clone, Debug)]
pub struct Keyed {
    pub key: LayerKey,
    pub inputs: LayerInputs,
    pub files: Vec<InputFile>,
}

/// A file or folder of the host that goes into a build.
#[derive(Clone, Debug, PartialEq)]
pub struct InputFile {
    /// What it is called in the key: `medium`, `install.sh`, `input repo`.
    pub name: String,
    pub file: FileRef,
    pub digest: Digest,
}

/// A layer with its key.
#[derive(Clone, Debug)]
pub struct ResolvedLayer {
    pub spec: LayerSpec,
    pub keyed: Keyed,
}

impl ResolvedLayer {
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn key(&self) -> LayerKey {
        self.keyed.key
    }

    /// The files of `inputs:`, each under its name there.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &InputFile)> {
        let named = |name: &str| {
            let name = format!("{INPUT}{name}");
            self.keyed.files.iter().find(move |file| file.name == name)
        };
        self.spec.inputs.keys().filter_map(move |name| Some((name.as_str(), named(name)?)))
    }
}

const INPUT: &str = "input ";

/// One image to build, with the key of every stage.
#[derive(Clone, Debug)]
pub struct Build {
    pub spec: BuildSpec,
    /// Layer 0: the base, as its installer leaves it (or the disk it begins from).
    pub install: Keyed,
    pub layers: Vec<ResolvedLayer>,
    /// The generalized disk.
    pub generalize: Keyed,
    /// The captured WIM.
    pub capture: Keyed,
    /// The passed tests.
    pub tests: Keyed,
}

impl Build {
    /// Reads and digests every input of `spec` and computes the keys.
    pub fn new(spec: BuildSpec, digests: &mut Digests) -> Result<Self, KeyError> {
        let mut keys = Keys { digests, spec: &spec, problems: Vec::new(), mismatch: false };
        let install = keys.install();
        let mut parent = install.key;
        let mut layers = Vec::new();
        for layer in &spec.layers {
            let keyed = keys.layer(layer, parent);
            parent = keyed.key;
            layers.push(ResolvedLayer { spec: layer.clone(), keyed });
        }
        let script = crate::stage::generalize::script(spec.guest);
        let generalize = keys.stage(
            parent,
            &[("generalize", &spec.generalize), ("gilt's generalize script", &script)],
        );
        let name = spec.capture.name.is_none().then(|| spec.name.clone());
        let description = spec.capture.description.is_none().then(|| spec.description.clone());
        let capture = keys.stage(
            generalize.key,
            &[
                ("capture", &spec.capture),
                ("image name", &name),
                ("image description", &description),
            ],
        );
        let tests = keys.stage(capture.key, &[("tests", &spec.tests)]);
        if !keys.problems.is_empty() {
            let problems = Diagnostics(keys.problems);
            return Err(if keys.mismatch {
                KeyError::Mismatch(problems)
            } else {
                KeyError::Input(problems)
            });
        }
        Ok(Self { spec, install, layers, generalize, capture, tests })
    }

    /// `install` and every layer, in order.
    pub fn steps(&self) -> impl Iterator<Item = (&str, &Keyed)> {
        std::iter::once((INSTALL, &self.install))
            .chain(self.layers.iter().map(|layer| (layer.name(), &layer.keyed)))
    }

    /// The key of the last layer.
    pub fn last_key(&self) -> LayerKey {
        self.layers.last().map_or(self.install.key, ResolvedLayer::key)
    }

    /// Every file that goes into the build, once.
    pub fn files(&self) -> Vec<&InputFile> {
        let ends = [&self.generalize, &self.capture, &self.tests];
        let mut files: Vec<&InputFile> = Vec::new();
        for file in self.steps().map(|(_, keyed)| keyed).chain(ends).flat_map(|keyed| &keyed.files)
        {
            if !files.iter().any(|seen| seen.file == file.file) {
                files.push(file);
            }
        }
        files
    }
}

/// Why keys could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Inputs are missing or cannot be read.
    #[error("{0}")]
    Input(Diagnostics),
    /// An input's bytes are not what was said of them.
    #[error("{0}")]
    Mismatch(Diagnostics),
}

struct Keys<'a> {
    digests: &'a mut Digests,
    spec: &'a BuildSpec,
    problems: Vec<Diagnostic>,
    mismatch: bool,
}

impl Keys<'_> {
    fn install(&mut self) -> Keyed {
        let spec = self.spec;
        let mut hasher = ContentHasher::new();
        let mut named = BTreeMap::new();
        named.insert("source".to_owned(), hasher.digest_of(&spec.source));
        named.insert("guest".to_owned(), digest_of(&spec.guest));
        named.insert("communicator username".to_owned(), digest_of(&spec.communicator.username));
        let machine = spec.machine.to_json();
        for field in Machine::field_shapes().iter().filter(|field| field.keyed) {
            if let Some(value) = machine.get(field.key) {
                let value = digest_of(value.to_string().as_str());
                named.insert(format!("machine {}", field.key), value);
            }
        }
        if spec.guest == Guest::Windows {
            // What gilt itself brings to the installation.
            let scripts = [gilt_windows::script::FIRST_BOOT, gilt_windows::script::FIRST_LOGON];
            let text: String = scripts.iter().map(|script| script.source()).collect();
            named.insert("gilt's first steps".to_owned(), digest_of(text.as_str()));
        }
        self.keyed(None, named, &hasher)
    }

    fn layer(&mut self, layer: &LayerSpec, parent: LayerKey) -> Keyed {
        let mut hasher = ContentHasher::new();
        let mut named = BTreeMap::new();
        for (name, file) in &layer.inputs {
            hasher.file(&format!("{INPUT}{name}"), file);
        }
        hasher.digest();
        for (what, list) in [("provisioner", &layer.provisioners), ("verify", &layer.verify)] {
            for (index, provisioner) in list.iter().enumerate() {
                let digest = hasher.digest_of(provisioner);
                named
                    .insert(format!("{what} {} ({})", index + 1, provisioner.action.key()), digest);
            }
        }
        for (name, value) in &layer.parameters {
            named.insert(format!("parameter {name}"), value.digest());
        }
        if let Some(as_of) = &layer.as_of {
            named.insert("as_of".to_owned(), digest_of(as_of));
        }
        self.keyed(Some(parent), named, &hasher)
    }

    fn stage(&mut self, parent: LayerKey, parts: &[(&str, &dyn ContentHash)]) -> Keyed {
        let mut hasher = ContentHasher::new();
        let mut named = BTreeMap::new();
        for (name, part) in parts {
            named.insert((*name).to_owned(), hasher.digest_of(*part));
        }
        self.keyed(Some(parent), named, &hasher)
    }

    fn keyed(
        &mut self,
        parent: Option<LayerKey>,
        mut named: BTreeMap<String, Digest>,
        hasher: &ContentHasher,
    ) -> Keyed {
        for (name, digest) in hasher.references() {
            named.insert(name.clone(), *digest);
        }
        let mut files = Vec::new();
        for used in hasher.files() {
            let Some(digest) = self.digest(&used.file) else { continue };
            // A file cannot take the name of something else.
            let name = if named.contains_key(&used.name) {
                format!("file {}", used.name)
            } else {
                used.name.clone()
            };
            named.insert(name, digest);
            files.push(InputFile { name: used.name.clone(), file: used.file.clone(), digest });
        }
        let inputs = LayerInputs { parent, named };
        Keyed { key: inputs.key(), inputs, files }
    }

    fn digest(&mut self, file: &FileRef) -> Option<Digest> {
        let checked = self.digests.of(file).and_then(|found| match file.sha256 {
            Some(expected) if expected != found => Err(InputError::Mismatch {
                location: file.location.clone(),
                expected,
                found,
                said_by: "the template",
            }),
            _ => Ok(found),
        });
        match checked {
            Ok(digest) => Some(digest),
            Err(error) => {
                self.mismatch |= matches!(error, InputError::Mismatch { .. });
                let mut message = error.to_string();
                if let Some(source) = std::error::Error::source(&error) {
                    message.push_str(&format!(": {source}"));
                }
                let diagnostic = Diagnostic::error(message).at(file.span, &self.spec.sources);
                let diagnostic = diagnostic.hint_opt(hint(&error));
                if !self.problems.contains(&diagnostic) {
                    self.problems.push(diagnostic);
                }
                None
            }
        }
    }
}

fn hint(error: &InputError) -> Option<String> {
    let hint = match error {
        InputError::UnknownUrl { .. } => "write its `sha256:` beside the `url`",
        InputError::Mismatch { said_by: "the template", .. } => {
            "if the file is the right one, put its digest into the template; if not, fetch it again"
        }
        InputError::Mismatch { .. } | InputError::NotLocked { .. } => {
            "if the change is meant, run `gilt lock` again and commit the lock file"
        }
        InputError::IsFolder { .. } => "for a folder write `kind: dir`",
        _ => return None,
    };
    Some(hint.to_owned())
}
