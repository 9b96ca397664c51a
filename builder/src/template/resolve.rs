//! Template -> one [`BuildSpec`] for each combination of the matrix: variables filled, conditions
//! decided, layers looked up, every value typed.

use super::cx::Cx;
use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::fields::{Field, nearest_hint};
use super::load::Template;
use super::model::*;
use super::node::{Map, Node, Value};
use super::scalar::{Date, Raw};
use super::scope::{Names, expand_top};
use super::secret::Secrets;
use super::span::Sources;
use super::values::{self, Given, Matrix, ParameterValue, Variables};
use crate::layer::{Catalogue, LayerSource};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How a template is to be resolved.
#[derive(Clone, Debug, Default)]
pub struct ResolveOptions {
    pub given: Given,
    /// `--profile`, in order.
    pub profiles: Vec<String>,
    /// `--only`: names of images, or `axis=value`. Empty: all.
    pub only: Vec<String>,
    /// `--except`: as `--only`, for images to leave out.
    pub except: Vec<String>,
    /// Folders of layers, looked into before those found beside the template.
    pub layers_dirs: Vec<PathBuf>,
}

/// One image, fully specified; what it needs from the disk has not been read yet.
#[derive(Clone, Debug)]
pub struct BuildSpec {
    /// The image's name: the template's, with the matrix's values.
    pub name: String,
    /// The template's name.
    pub template: String,
    pub template_path: PathBuf,
    pub description: Option<String>,
    /// The value of each axis.
    pub matrix: BTreeMap<String, String>,
    pub profiles: Vec<String>,
    pub guest: Guest,
    pub source: Source,
    pub machine: Machine,
    pub communicator: Communicator,
    /// In order; `install`, the base, is not among them.
    pub layers: Vec<LayerSpec>,
    /// Layers that a condition left out, with their place.
    pub skipped: Vec<SkippedLayer>,
    pub generalize: Generalize,
    pub capture: Capture,
    pub tests: Vec<Test>,
    pub publish: Option<Publish>,
    pub secrets: Secrets,
    /// Values of variables that are not sensitive, for reports.
    pub variables: BTreeMap<String, ParameterValue>,
    pub(crate) sources: Arc<Sources>,
}

/// One layer of an image, fully specified.
#[derive(Clone, Debug)]
pub struct LayerSpec {
    /// Its name in this image, used once.
    pub name: String,
    /// Its name in the catalogue; None if it is written in the template.
    pub definition: Option<String>,
    pub description: Option<String>,
    /// The folder of its `layer.yaml`.
    pub folder: Option<PathBuf>,
    pub parameters: BTreeMap<String, ParameterValue>,
    pub inputs: BTreeMap<String, FileRef>,
    pub provisioners: Vec<Provisioner>,
    pub verify: Vec<Provisioner>,
    pub as_of: Option<Date>,
    pub max_age: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SkippedLayer {
    pub name: String,
    /// The condition that is false.
    pub when: String,
}

/// The builds, and what is odd but not wrong.
#[derive(Debug)]
pub struct Resolved {
    pub builds: Vec<BuildSpec>,
    pub warnings: Vec<Diagnostic>,
}

impl BuildSpec {
    /// The files the template and its layers are written in, but for the template's own.
    pub fn definition_files(&self) -> Vec<PathBuf> {
        let layers = self.layers.iter().filter_map(|layer| layer.folder.as_ref());
        let layers = layers.map(|folder| folder.join(crate::layer::LAYER_FILE));
        let included = self.sources.paths().filter(|path| {
            path.file_name().is_none_or(|name| name != crate::layer::LAYER_FILE)
                && *path != self.template_path
        });
        let mut files: Vec<PathBuf> = included.map(Path::to_path_buf).chain(layers).collect();
        files.sort();
        files.dedup();
        files
    }

    /// Where the image goes in the store.
    pub fn publish_image(&self) -> Option<&str> {
        self.publish.as_ref().map(|publish| publish.image.as_deref().unwrap_or(&self.name))
    }

    /// Everything as it was understood, with secrets blotted out: what `gilt inspect` shows.
    pub fn to_json(&self) -> Json {
        let layers: Vec<Json> = self
            .layers
            .iter()
            .map(|layer| {
                let list = |list: &Vec<Provisioner>| list.to_json();
                let parameters: serde_json::Map<String, Json> = layer
                    .parameters
                    .iter()
                    .map(|(name, value)| (name.clone(), value.to_json()))
                    .collect();
                let mut map =
                    json!({"name": layer.name, "provisioners": list(&layer.provisioners)});
                let mut put = |key: &str, value: Json| {
                    if !value.is_null() {
                        map[key] = value;
                    }
                };
                put("layer", layer.definition.to_json());
                put(
                    "parameters",
                    if parameters.is_empty() { Json::Null } else { Json::Object(parameters) },
                );
                put("inputs", layer.inputs.to_json());
                put("verify", list(&layer.verify));
                put("as_of", layer.as_of.to_json());
                put("max_age", layer.max_age.to_json());
                map
            })
            .collect();
        json!({
            "name": self.name,
            "description": self.description.to_json(),
            "matrix": self.matrix.to_json(),
            "guest": self.guest.to_json(),
            "source": self.source.to_json(),
            "machine": self.machine.to_json(),
            "communicator": self.communicator.to_json(),
            "layers": layers,
            "generalize": self.generalize.to_json(),
            "capture": self.capture.to_json(),
            "tests": self.tests.to_json(),
            "publish": self.publish.to_json(),
        })
    }
}

impl Template {
    /// All builds of the template, or all that is wrong with it.
    pub fn resolve(&self, options: &ResolveOptions) -> Result<Resolved, Diagnostics> {
        let mut catalogue = Catalogue::new(self.sources.clone(), &self.path, &options.layers_dirs);
        let mut problems = Vec::new();
        let mut drafts = Vec::new();
        {
            let mut cx = Cx::new(&self.sources);
            let root = self.with_profiles(&options.profiles, &mut cx);
            let declared = root
                .get("variables")
                .and_then(|entry| BTreeMap::<String, Variable>::decode(&entry.node, &mut cx))
                .unwrap_or_default();
            let at = root.get("variables").and_then(|entry| entry.node.as_map());
            let variables = values::variables(&declared, at, &options.given, &mut cx);
            let matrix = Matrix::decode(root.get("matrix").map(|entry| &entry.node), &mut cx);
            problems.append(&mut cx.problems);
            for combination in matrix.combinations() {
                let draft = self.draft(&root, &variables, combination, &mut cx);
                problems.append(&mut cx.problems);
                drafts.extend(draft);
            }
        }
        let mut builds = Vec::new();
        for draft in drafts {
            let layers = layers_of(&draft, &mut catalogue, &mut problems);
            builds.push((draft, layers));
        }
        let sources = Arc::new(catalogue.into_sources());
        let seen = in_order(problems, &sources);
        if seen.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(Diagnostics(seen));
        }
        let builds: Vec<BuildSpec> = builds
            .into_iter()
            .filter_map(|(draft, layers)| self.spec(draft, layers?, options, &sources))
            .collect();
        self.check_set(&builds)?;
        let builds = select(builds, options)?;
        Ok(Resolved { builds, warnings: seen })
    }

    fn draft(
        &self,
        root: &Map,
        variables: &Variables,
        combination: Vec<(String, String)>,
        cx: &mut Cx,
    ) -> Option<Draft> {
        let scope = Names { variables, matrix: &combination, parameters: None };
        let tree = Node::new(self.span, Value::Map(expand_top(root, &scope, cx)));
        let skipped = skipped_layers(&tree, root);
        let Some(file) = TemplateFile::decode(&tree, cx) else {
            // Layers are still looked up, so that their mistakes are shown with the others.
            let layers = lenient_layers(&tree, &self.sources);
            let draft = Draft {
                name: String::new(),
                combination,
                file: None,
                layers,
                skipped,
                variables: variables.clone(),
            };
            return Some(draft);
        };
        let name_entry = root.get("name")?;
        let raw_name = cx.known(&name_entry.node, "a name")?;
        let mut name = file.name.clone();
        if !raw_name.contains("${matrix.") {
            for (_, value) in &combination {
                name.push('-');
                name.push_str(value);
            }
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(allowed) || name.starts_with(['.', '-']) {
            cx.error_hint(
                name_entry.node.span,
                format!("`{name}` cannot be an image's name"),
                "letters, digits, `-`, `_` and `.`, beginning with a letter or digit",
            );
            return None;
        }
        check_guest(&file, &tree, cx);
        let layers = file.layers.clone();
        Some(Draft {
            name,
            combination,
            file: Some(file),
            layers,
            skipped,
            variables: variables.clone(),
        })
    }

    fn spec(
        &self,
        draft: Draft,
        layers: Vec<LayerSpec>,
        options: &ResolveOptions,
        sources: &Arc<Sources>,
    ) -> Option<BuildSpec> {
        let file = draft.file?;
        let mut secrets = Secrets::default();
        if let Some(password) = &file.communicator.password {
            secrets.add(&password.known().unwrap_or_default());
        }
        let mut variables = BTreeMap::new();
        for (name, (value, sensitive)) in draft.variables {
            match value {
                Some(ParameterValue::Text(text)) if sensitive => {
                    secrets.add(&text.known().unwrap_or_default())
                }
                Some(ParameterValue::List(items)) if sensitive => {
                    items.iter().for_each(|item| secrets.add(&item.known().unwrap_or_default()));
                }
                Some(value) => {
                    variables.insert(name, value);
                }
                None => {}
            }
        }
        Some(BuildSpec {
            name: draft.name,
            template: file.name,
            template_path: self.path.clone(),
            description: file.description,
            matrix: draft.combination.into_iter().collect(),
            profiles: options.profiles.clone(),
            guest: file.guest,
            source: file.source,
            machine: file.machine,
            communicator: file.communicator,
            layers,
            skipped: draft.skipped,
            generalize: file.generalize,
            capture: file.capture,
            tests: file.tests,
            publish: file.publish,
            secrets,
            variables,
            sources: sources.clone(),
        })
    }

    /// What must differ between the images of one template.
    fn check_set(&self, builds: &[BuildSpec]) -> Result<(), Diagnostics> {
        let at = |key: &str| self.root.get(key).map_or(self.span, |entry| entry.key_span);
        let mut names = BTreeMap::new();
        let mut published = BTreeMap::new();
        for build in builds {
            if names.insert(&build.name, ()).is_some() {
                let message = format!("two images of the matrix are called `{}`", build.name);
                let hint = "put every axis into the name, or none";
                return Err(Diagnostics(vec![
                    Diagnostic::error(message).at(at("name"), &self.sources).hint(hint),
                ]));
            }
            let Some(image) = build.publish_image() else { continue };
            if let Some(other) = published.insert(image, &build.name) {
                let message =
                    format!("`{other}` and `{}` are both published as `{image}`", build.name);
                let hint = "leave `image` out of `publish`, or put the matrix's values into it";
                return Err(Diagnostics(vec![
                    Diagnostic::error(message).at(at("publish"), &self.sources).hint(hint),
                ]));
            }
        }
        Ok(())
    }
}

/// Each complaint once, file by file from top to bottom; first those that point nowhere.
fn in_order(problems: Vec<Diagnostic>, sources: &Sources) -> Vec<Diagnostic> {
    let mut seen: Vec<Diagnostic> = Vec::new();
    for problem in problems {
        if !seen.contains(&problem) {
            seen.push(problem);
        }
    }
    seen.sort_by_key(|problem| {
        problem.at.as_ref().map(|place| {
            let file = sources.paths().position(|path| path == place.path);
            (file, place.start)
        })
    });
    seen
}

/// The layers that can be read of a template that is wrong.
fn lenient_layers(tree: &Node, sources: &Sources) -> Vec<LayerUse> {
    let mut silent = Cx::new(sources);
    let layers = tree.as_map().and_then(|map| map.get("layers")).map(|entry| &entry.node.value);
    let Some(Value::List(items)) = layers else { return Vec::new() };
    items
        .iter()
        .filter(|item| !item.skipped)
        .filter_map(|item| LayerUse::decode(item, &mut silent))
        .collect()
}

/// One combination, before its layers are looked up.
struct Draft {
    name: String,
    combination: Vec<(String, String)>,
    /// None: it is wrong, and only its layers are looked at.
    file: Option<TemplateFile>,
    layers: Vec<LayerUse>,
    skipped: Vec<SkippedLayer>,
    variables: Variables,
}

fn skipped_layers(tree: &Node, root: &Map) -> Vec<SkippedLayer> {
    let list = |map: Option<&Map>| match map
        .and_then(|map| map.get("layers"))
        .map(|e| e.node.value.clone())
    {
        Some(Value::List(items)) => items,
        _ => Vec::new(),
    };
    let text = |node: &Node, key: &str| match node.as_map()?.get(key)?.node.value {
        Value::Scalar(ref scalar) => scalar.text.known(),
        _ => None,
    };
    let written = list(Some(root));
    list(tree.as_map())
        .iter()
        .zip(&written)
        .filter(|(node, _)| node.skipped)
        .map(|(node, written)| SkippedLayer {
            name: text(node, "name").or_else(|| text(node, "layer")).unwrap_or_default(),
            when: text(written, "when").unwrap_or_default(),
        })
        .collect()
}

/// What does not fit the kind of guest.
fn check_guest(file: &TemplateFile, tree: &Node, cx: &mut Cx) {
    let at = |path: &[&str]| {
        let mut node = tree;
        let mut span = tree.span;
        for key in path {
            let Some(entry) = node.as_map().and_then(|map| map.get(key)) else { break };
            span = entry.key_span;
            node = &entry.node;
        }
        span
    };
    let guest = file.guest;
    if file.machine.boots_kernel() {
        let why = match &file.source.start {
            _ if guest == Guest::Windows => Some("fits Linux guests only"),
            Start::Iso(_) => {
                Some("needs a source that is a disk: an installer starts from its medium")
            }
            Start::Disk(_) if file.machine.secure_boot => {
                Some("starts no boot loader: Secure Boot proves nothing")
            }
            Start::Disk(_)
                if !(file.source.boot_command.is_empty() && file.source.boot_steps.is_empty()) =>
            {
                Some("has no boot menu to type into")
            }
            Start::Disk(_) => None,
        };
        if let Some(why) = why {
            cx.error_hint(
                at(&["machine", "boot"]),
                format!("`boot: kernel` {why}"),
                "set `boot: firmware`, or leave `boot` out",
            );
        }
    }
    if guest == Guest::Linux {
        if file.source.windows.is_some() {
            cx.error_hint(
                at(&["source", "windows"]),
                "`windows` does not fit a Linux guest",
                "set `guest: windows`",
            );
        }
        if file.generalize.sysprep.is_some() {
            cx.error_hint(
                at(&["generalize", "sysprep"]),
                "`sysprep` does not fit a Linux guest",
                "set `guest: windows`",
            );
        }
    }
    if guest == Guest::Windows && !file.tests.is_empty() {
        cx.error_hint(
            at(&["tests"]),
            "gilt cannot start a captured Windows image yet, so it cannot test one",
            "leave `tests` out, or check in a layer's `verify`",
        );
        return;
    }
    if guest == Guest::Windows && file.communicator.kind == CommunicatorType::Winrm {
        cx.error_hint(
            at(&["communicator", "type"]),
            "gilt reaches Windows by SSH; it has no WinRM",
            "leave `type` out: gilt puts the OpenSSH server in place itself (see windows.openssh)",
        );
    }
    for test in &file.tests {
        let fits = match test.command {
            TestCommand::Shell(_) => Guest::Linux,
            TestCommand::PowerShell(_) => Guest::Windows,
        };
        if fits != guest {
            let key = if fits == Guest::Linux { "shell" } else { "powershell" };
            let message =
                format!("test `{}` uses `{key}`, which does not fit a {guest} guest", test.name);
            cx.error(at(&["tests"]), message);
        }
    }
}

fn layers_of(
    draft: &Draft,
    catalogue: &mut Catalogue,
    problems: &mut Vec<Diagnostic>,
) -> Option<Vec<LayerSpec>> {
    let mut layers: Option<Vec<LayerSpec>> = Some(Vec::new());
    let mut places: Vec<&Node> = Vec::new();
    let guest = draft.file.as_ref().map(|file| file.guest);
    for layer in &draft.layers {
        let (spec, at) = match layer {
            LayerUse::Catalogue { layer, name, with, at } => {
                (catalogue_layer(draft, layer, name.as_deref(), with, at, catalogue, problems), at)
            }
            LayerUse::Inline { name, fields, at } => {
                let fields = fields.clone();
                let spec = LayerSpec {
                    name: name.clone(),
                    definition: None,
                    description: None,
                    folder: None,
                    parameters: BTreeMap::new(),
                    inputs: fields.inputs,
                    provisioners: fields.provisioners,
                    verify: fields.verify,
                    as_of: fields.as_of,
                    max_age: fields.max_age,
                };
                (Some(spec), at)
            }
        };
        let mut cx = Cx::new(catalogue.sources());
        let Some(spec) = spec else {
            layers = None;
            continue;
        };
        check_layer(&spec, guest, at, &mut cx);
        let restarts = |step: &Provisioner| matches!(step.action, Action::Restart(_));
        if draft.file.as_ref().is_some_and(|file| file.machine.boots_kernel())
            && spec.provisioners.iter().chain(&spec.verify).any(restarts)
        {
            cx.error_hint(
                at.span,
                format!("layer `{}` restarts the guest, which `boot: kernel` cannot", spec.name),
                "set `boot: firmware` in `machine`, or leave `boot` out",
            );
        }
        if let Some(layers) = &mut layers {
            if spec.name == crate::plan::INSTALL
                || layers.iter().any(|other| other.name == spec.name)
            {
                cx.error_hint(
                    at.span,
                    format!("two layers are called `{}`", spec.name),
                    "give one of them its own `name`",
                );
            }
            layers.push(spec);
            places.push(at);
        }
        problems.append(&mut cx.problems);
    }
    let mut cx = Cx::new(catalogue.sources());
    check_order(layers.as_deref().unwrap_or_default(), &places, &mut cx);
    problems.append(&mut cx.problems);
    layers
}

/// Windows: what comes as a language or on demand has the files of the medium; the cumulative
/// update that is to cover them must follow.
fn check_order(layers: &[LayerSpec], places: &[&Node], cx: &mut Cx) {
    let updates = |spec: &LayerSpec| {
        spec.provisioners.iter().any(|step| matches!(step.action, Action::WindowsUpdate(_)))
    };
    let adds = |spec: &LayerSpec| {
        spec.provisioners.iter().any(|step| match &step.action {
            Action::WindowsFeature(feature) => {
                !(feature.packages.is_empty() && feature.capabilities.is_empty())
            }
            _ => false,
        })
    };
    let Some(last) = layers.iter().rposition(updates) else { return };
    for (spec, place) in layers.iter().zip(places).skip(last + 1).filter(|(spec, _)| adds(spec)) {
        cx.error_hint(
            place.span,
            format!(
                "layer `{}` adds languages or capabilities after the updates of layer `{}`",
                spec.name, layers[last].name
            ),
            "put it before them: what is added later lacks the updates of its files",
        );
    }
}

fn check_layer(spec: &LayerSpec, guest: Option<Guest>, at: &Node, cx: &mut Cx) {
    if let (Some(as_of), Some(max_age)) = (spec.as_of, spec.max_age) {
        let today = jiff::Zoned::now().date();
        let days = u64::try_from(today.since(as_of.0).map_or(0, |age| age.get_days())).unwrap_or(0);
        if days > max_age.as_secs() / 86_400 {
            let message = format!("layer `{}` is as of {as_of}, {days} days ago", spec.name);
            let max_age = super::scalar::show_duration(max_age);
            cx.warn_hint(
                at.span,
                message,
                format!("its max_age is {max_age}; give it a newer day"),
            );
        }
    }
    let provisioners = spec.provisioners.iter().chain(&spec.verify);
    for provisioner in provisioners {
        if let (Some(needed), Some(guest)) = (provisioner.action.guest(), guest)
            && needed != guest
        {
            let key = provisioner.action.key();
            let message =
                format!("layer `{}` uses `{key}`, which does not fit a {guest} guest", spec.name);
            cx.error_hint(at.span, message, format!("see {}", provisioner.location));
        }
    }
    check_names(&spec.name, "inputs", spec.inputs.keys(), at, cx);
    check_names(&spec.name, "parameters", spec.parameters.keys(), at, cx);
}

/// Scripts find them as `GILT_INPUT_<NAME>` and `GILT_PARAM_<NAME>`, in upper case with `_` for `-`.
fn check_names<'a>(
    layer: &str,
    what: &str,
    names: impl Iterator<Item = &'a String>,
    at: &Node,
    cx: &mut Cx,
) {
    let mut seen = BTreeMap::new();
    for name in names {
        if name.is_empty()
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        {
            let message = format!("`{name}` in {what} of layer `{layer}` cannot be a name");
            cx.error_hint(at.span, message, "letters, digits, `_` and `-`");
        }
        if let Some(other) = seen.insert(name.to_uppercase().replace('-', "_"), name) {
            let message = format!(
                "`{other}` and `{name}` in {what} of layer `{layer}` are one name to scripts"
            );
            cx.error(at.span, message);
        }
    }
}

fn catalogue_layer(
    draft: &Draft,
    layer: &str,
    name: Option<&str>,
    with: &BTreeMap<String, Raw>,
    at: &Node,
    catalogue: &mut Catalogue,
    problems: &mut Vec<Diagnostic>,
) -> Option<LayerSpec> {
    let LayerSource { folder, root, span } = catalogue.find(layer, at.span, problems)?;
    let mut cx = Cx::new(catalogue.sources());
    let spec = (|| {
        let declared = match root.get("parameters") {
            Some(entry) => BTreeMap::<String, Parameter>::decode(&entry.node, &mut cx)?,
            None => BTreeMap::new(),
        };
        let known: Vec<&str> = declared.keys().map(String::as_str).collect();
        for (given, Raw(node)) in with {
            if !declared.contains_key(given) {
                let message = format!("layer `{layer}` has no parameter `{given}`");
                cx.error_hint(node.span, message, nearest_hint(given, &known));
            }
        }
        let mut parameters = BTreeMap::new();
        for (name, parameter) in &declared {
            let value = values::parameter(name, parameter, with.get(name), at.span, &mut cx);
            parameters.insert(name.clone(), value);
        }
        let scope = Names {
            variables: &draft.variables,
            matrix: &draft.combination,
            parameters: Some(&parameters),
        };
        let tree = Node::new(span, Value::Map(expand_top(&root, &scope, &mut cx)));
        let file = LayerFile::decode(&tree, &mut cx)?;
        if let Some(guest) = draft.file.as_ref().map(|file| file.guest)
            && !file.guests.is_empty()
            && !file.guests.contains(&guest)
        {
            let guests: Vec<&str> = file.guests.iter().map(|guest| guest.as_str()).collect();
            let message = format!(
                "layer `{layer}` is for {} guests, this one is {}",
                guests.join(" and "),
                guest
            );
            cx.error(at.span, message);
        }
        let parameters = parameters
            .into_iter()
            .map(|(name, value)| Some((name, value?)))
            .collect::<Option<_>>()?;
        Some(LayerSpec {
            name: name.map_or(file.name, str::to_owned),
            definition: Some(layer.to_owned()),
            description: file.description,
            folder: Some(folder),
            parameters,
            inputs: file.inputs,
            provisioners: file.provisioners,
            verify: file.verify,
            as_of: file.as_of,
            max_age: file.max_age,
        })
    })();
    problems.append(&mut cx.problems);
    spec
}

/// The builds that `--only` names and `--except` does not.
fn select(builds: Vec<BuildSpec>, options: &ResolveOptions) -> Result<Vec<BuildSpec>, Diagnostics> {
    let matches = |build: &BuildSpec, word: &str| {
        word == build.name
            || word.split_once('=').is_some_and(|(axis, value)| {
                build.matrix.get(axis).is_some_and(|picked| picked == value)
            })
            || build.matrix.values().any(|value| value == word)
    };
    for (flag, words) in [("--only", &options.only), ("--except", &options.except)] {
        for word in words {
            if !builds.iter().any(|build| matches(build, word)) {
                let names: Vec<&str> = builds.iter().map(|build| build.name.as_str()).collect();
                let message = format!("{flag} {word}: the template has no such image");
                let diagnostic = Diagnostic::error(message).hint(nearest_hint(word, &names));
                return Err(Diagnostics(vec![diagnostic]));
            }
        }
    }
    let any = |build: &BuildSpec, words: &[String]| words.iter().any(|word| matches(build, word));
    let chosen = |build: &BuildSpec| {
        (options.only.is_empty() || any(build, &options.only)) && !any(build, &options.except)
    };
    let chosen: Vec<BuildSpec> = builds.into_iter().filter(chosen).collect();
    if chosen.is_empty() {
        let message = "--only and --except together leave no image";
        return Err(Diagnostics(vec![Diagnostic::error(message)]));
    }
    Ok(chosen)
}
