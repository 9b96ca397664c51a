//! Answer files: a typed model of what gilt asks of Setup and of Sysprep, as XML.
//!
//! ```text
//! Install ─┐
//! Reseal ──┴▶ AnswerFile (pass ▶ component ▶ settings) ─ merge(override) ─ check ─▶ text
//! ```
//! Setup rejects a whole file for one bad value, so nothing leaves here unchecked: each setting in
//! a pass where it is legal, each text within its limit.

mod check;
mod install;
mod merge;
pub mod passes;
pub mod password;
mod reseal;
pub mod search;
pub mod xml;

use passes::Pass;
use xml::{Element, XmlError};

pub use check::{Problem, limits};
pub use install::{Account, Firmware, ImageChoice, Install};
pub use reseal::Reseal;

const NAMESPACE: &str = "urn:schemas-microsoft-com:unattend";
const WCM: &str = "http://schemas.microsoft.com/WMIConfig/2002/State";

/// Of the image; a component of another one is ignored by Setup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Architecture {
    #[default]
    Amd64,
    Arm64,
    X86,
}

impl Architecture {
    /// As answer files and driver folders write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::X86 => "x86",
        }
    }
}

/// A component's settings in one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    pub name: String,
    pub architecture: String,
    pub settings: Vec<Element>,
    /// Line and column of the source; zero for what gilt made.
    pub at: (u32, u32),
}

/// An answer file. Passes stand in the order Windows comes through them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerFile {
    pub passes: Vec<(Pass, Vec<Component>)>,
}

/// Why an answer file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// One or more settings Setup would reject the file for.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Illegal(Vec<Problem>),
}

impl AnswerFile {
    fn add(&mut self, pass: Pass, architecture: Architecture, name: &str, settings: Vec<Element>) {
        if settings.is_empty() {
            return;
        }
        let component = Component {
            name: name.to_owned(),
            architecture: architecture.name().to_owned(),
            settings,
            at: (0, 0),
        };
        self.components_mut(pass).push(component);
    }

    fn components_mut(&mut self, pass: Pass) -> &mut Vec<Component> {
        let at = match self.passes.iter().position(|(of, _)| *of == pass) {
            Some(at) => at,
            None => {
                let at = self.passes.iter().position(|(of, _)| *of > pass);
                let at = at.unwrap_or(self.passes.len());
                self.passes.insert(at, (pass, Vec::new()));
                at
            }
        };
        &mut self.passes[at].1
    }

    /// The settings of a component in a pass.
    pub fn settings(&self, pass: Pass, component: &str) -> Option<&[Element]> {
        let (_, components) = self.passes.iter().find(|(of, _)| *of == pass)?;
        let found = components.iter().find(|of| of.name.eq_ignore_ascii_case(component))?;
        Some(&found.settings)
    }

    /// Reads a whole answer file.
    pub fn parse(text: &str) -> Result<Self, XmlError> {
        let root = xml::parse(text)?;
        if root.name != "unattend" {
            let what = format!("an answer file begins with `unattend`, not `{}`", root.name);
            return Err(root.error(what));
        }
        if root.attribute("xmlns").is_some_and(|namespace| namespace != NAMESPACE) {
            return Err(root.error(format!("the namespace of an answer file is {NAMESPACE}")));
        }
        let mut file = Self::default();
        for settings in root.children {
            if settings.name == "servicing" || settings.name == "cpi:offlineImage" {
                return Err(settings.error(format!(
                    "`{}` belongs to Microsoft's editor; leave it out",
                    settings.name
                )));
            }
            if settings.name != "settings" {
                return Err(settings.error(format!("`{}` where `settings` belongs", settings.name)));
            }
            let name = settings.attribute("pass").unwrap_or_default();
            let Some(pass) = Pass::of_name(name) else {
                return Err(settings.error(format!("there is no pass `{name}`")));
            };
            for component in settings.children {
                if component.name != "component" {
                    return Err(
                        component.error(format!("`{}` where `component` belongs", component.name))
                    );
                }
                let Some(name) = component.attribute("name").map(str::to_owned) else {
                    return Err(component.error("a component needs its name"));
                };
                let architecture =
                    component.attribute("processorArchitecture").unwrap_or("amd64").to_owned();
                let at = component.at;
                let settings = component.children;
                file.components_mut(pass).push(Component { name, architecture, settings, at });
            }
        }
        Ok(file)
    }

    /// The text, if nothing in it would make Setup reject it.
    pub fn render(&self) -> Result<String, AnswerError> {
        let problems = check::check(self);
        if !problems.is_empty() {
            return Err(AnswerError::Illegal(problems));
        }
        let mut root = Element::new("unattend");
        root.attributes =
            vec![("xmlns".into(), NAMESPACE.into()), ("xmlns:wcm".into(), WCM.into())];
        for (pass, components) in &self.passes {
            let mut settings = Element::new("settings");
            settings.attributes.push(("pass".into(), pass.name().into()));
            for component in components {
                let mut element = Element::new("component");
                element.attributes = vec![
                    ("name".into(), component.name.clone()),
                    ("processorArchitecture".into(), component.architecture.clone()),
                    ("publicKeyToken".into(), "31bf3856ad364e35".into()),
                    ("language".into(), "neutral".into()),
                    ("versionScope".into(), "nonSxS".into()),
                ];
                element.children.clone_from(&component.settings);
                settings.children.push(element);
            }
            root.children.push(settings);
        }
        Ok(root.document())
    }
}

/// The text with what stands in elements for passwords and keys taken out, to be shown.
pub fn redacted(text: &str) -> Result<String, XmlError> {
    fn hide(element: &mut Element) {
        let secret = element.name == "ProductKey" || element.name.ends_with("Password");
        if secret {
            if element.children.is_empty() && !element.text.is_empty() {
                element.text = "<hidden>".into();
            }
            for child in &mut element.children {
                if matches!(child.name.as_str(), "Value" | "Key") && !child.text.is_empty() {
                    child.text = "<hidden>".into();
                }
            }
        }
        element.children.iter_mut().for_each(hide);
    }
    let mut root = xml::parse(text)?;
    hide(&mut root);
    Ok(root.document())
}
