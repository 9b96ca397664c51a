//! The template itself.

use super::{
    Capture, Communicator, Generalize, Guest, LayerUse, Machine, Publish, Source, Test, Variable,
};
use crate::template::fields::{Field, fields};
use crate::template::node::{Map, Node, Value};
use crate::template::scalar::Raw;
use std::collections::BTreeMap;

fields! {
    /// A template: one file that says how an image, or a matrix of images, is built.
    pub struct TemplateFile = "template" {
        /// Name of the image: letters, digits, `-`, `_` and `.`. With a matrix, it may hold
        /// `${matrix.NAME}`; where it does not, the values are appended: `debian-web`.
        run name: String,
        /// What the image is.
        run description: Option<String> = None,
        /// Files laid under this one, in order: maps are merged deep, all else is replaced by what
        /// comes later; this file wins.
        run include: Vec<String> = Vec::new(),
        /// Values given when the template is built.
        run variables: BTreeMap<String, Variable> = BTreeMap::new(),
        /// Named changes laid over the template by `--profile NAME`.
        run profiles: BTreeMap<String, Raw> = BTreeMap::new(),
        /// Axes and their values: every combination is one image. The value is `${matrix.AXIS}`.
        /// The axis `exclude` is a list of combinations to leave out.
        run matrix: BTreeMap<String, Raw> = BTreeMap::new(),
        /// What runs inside the image.
        key guest: Guest = Guest::Linux,
        /// What the image begins from.
        key source: Source,
        /// The machine to build on.
        key machine: Machine = defaults(),
        /// How gilt reaches the inside of the guest.
        run communicator: Communicator = defaults(),
        /// What is laid over the base, in order. Each becomes a checkpoint.
        run layers: Vec<LayerUse> = Vec::new(),
        /// Makes the image fit for many machines.
        key generalize: Generalize = defaults(),
        /// Captures the disk as a WIM.
        key capture: Capture = defaults(),
        /// Checks on a throw-away machine that starts from the captured image.
        key tests: Vec<Test> = Vec::new(),
        /// Where the image goes once it has passed its tests; without it, nowhere.
        run publish: Option<Publish> = None,
    }
}

/// The value of an empty map, for a type whose fields all have defaults.
pub(super) fn defaults<T: Field>() -> T {
    let sources = crate::template::span::Sources::default();
    let mut cx = crate::template::cx::Cx::new(&sources);
    let empty = Node::new(Default::default(), Value::Map(Map::default()));
    match T::decode(&empty, &mut cx) {
        Some(value) => value,
        None => unreachable!("every field of this type has a default"),
    }
}
