//! Layers: the file of the catalogue, and how a template uses it.

use super::{FileRef, Guest, Parameter, Provisioner};
use crate::content_hash::ContentHash;
use crate::template::cx::Cx;
use crate::template::fields::{Field, Shape, fields};
use crate::template::node::{Node, Value};
use crate::template::scalar::{Date, Raw};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::time::Duration;

fields! {
    /// A layer of the catalogue: `layers/NAME/layer.yaml`, beside its scripts. In it stand
    /// `${parameters.NAME}`, `${var.NAME}` (a variable of the template) and `${build.NAME}`.
    pub struct LayerFile = "layer" {
        /// The layer's name; that of its folder.
        run name: String,
        /// What it puts into an image.
        run description: Option<String> = None,
        /// Guests it suits; without any, all.
        run guests: Vec<Guest> = Vec::new(),
        /// Values a template may give.
        run parameters: BTreeMap<String, Parameter> = BTreeMap::new(),
        /// Files the guest needs. They are served to it while the layer is built; scripts find
        /// the address of each in `GILT_INPUT_<NAME>`.
        key inputs: BTreeMap<String, FileRef> = BTreeMap::new(),
        /// What is done, in order.
        key provisioners: Vec<Provisioner>,
        /// What must succeed after that, or the layer failed.
        key verify: Vec<Provisioner> = Vec::new(),
        /// The day the layer's content is of, for one that takes what is newest (updates). Part
        /// of its key: another day is another layer.
        key as_of: Option<Date> = None,
        /// A checkpoint of this layer that is older is made anew.
        run max_age: Option<Duration> = None,
    }
}

fields! {
    /// A layer of an image: the name of one of the catalogue, or a map. A map with `layer` uses the
    /// catalogue; one with `provisioners` is a layer written in the template itself. A `when`
    /// beside it decides whether it is there at all.
    pub struct LayerUseFields = "layer" {
        /// Layer of the catalogue, or `./folder` relative to this file.
        run layer: Option<String> = None,
        /// What it is called in this image; without one, the layer's own name.
        run name: Option<String> = None,
        /// Values of the layer's parameters.
        run with: BTreeMap<String, Raw> = BTreeMap::new(),
        /// As in a layer's file.
        key inputs: BTreeMap<String, FileRef> = BTreeMap::new(),
        /// As in a layer's file.
        key provisioners: Vec<Provisioner> = Vec::new(),
        /// As in a layer's file.
        key verify: Vec<Provisioner> = Vec::new(),
        /// As in a layer's file.
        key as_of: Option<Date> = None,
        /// As in a layer's file.
        run max_age: Option<Duration> = None,
    }
}

/// A layer as a template uses it.
#[derive(Clone, Debug, PartialEq)]
pub enum LayerUse {
    /// One of the catalogue.
    Catalogue { layer: String, name: Option<String>, with: BTreeMap<String, Raw>, at: Node },
    /// One written in the template.
    Inline { name: String, fields: LayerUseFields, at: Node },
}

impl ContentHash for LayerUse {
    /// Never part of a key: what it stands for is.
    fn content_hash(&self, _: &mut crate::content_hash::ContentHasher) {}
}

impl Field for LayerUse {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        if matches!(node.value, Value::Scalar(_)) {
            let layer = cx.known(node, "the name of a layer")?;
            return Some(Self::Catalogue {
                layer,
                name: None,
                with: BTreeMap::new(),
                at: node.clone(),
            });
        }
        let mut fields = LayerUseFields::decode(node, cx)?;
        let map = node.as_map()?;
        match fields.layer.take() {
            Some(layer) => {
                for key in ["inputs", "provisioners", "verify", "as_of", "max_age"] {
                    if let Some(entry) = map.get(key) {
                        cx.error(
                            entry.key_span,
                            format!(
                                "`{key}` stands in the layer's own file; here it excludes `layer`"
                            ),
                        );
                    }
                }
                let at = map.get("layer").map_or(node, |entry| &entry.node).clone();
                Some(Self::Catalogue { layer, name: fields.name, with: fields.with, at })
            }
            None if map.get("provisioners").is_none() => {
                cx.error_hint(
                    cx.start_of(node.span),
                    "this is no layer: it has neither `layer` nor `provisioners`",
                    "write the layer's name, or `layer: NAME` with its parameters in `with:`",
                );
                None
            }
            None => {
                if let Some(entry) = map.get("with") {
                    cx.error(
                        entry.key_span,
                        "`with` gives parameters to a layer of the catalogue; name it with `layer`",
                    );
                }
                let Some(name) = fields.name.take() else {
                    cx.error(
                        cx.start_of(node.span),
                        "a layer written in the template needs a `name`",
                    );
                    return None;
                };
                Some(Self::Inline { name, fields, at: node.clone() })
            }
        }
    }

    fn shape() -> Shape {
        Shape::Either(vec![
            Shape::Form { words: "name of a layer", example: "runtime-python" },
            LayerUseFields::shape(),
        ])
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Catalogue { layer, .. } => layer.as_str().into(),
            Self::Inline { name, .. } => name.as_str().into(),
        }
    }
}
