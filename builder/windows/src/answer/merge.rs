//! A user's own answer file laid over gilt's.
//!
//! Same pass and component: settings are merged deep, a leaf takes the place of ours, items of
//! lists (`wcm:action="add"`) are added behind ours and numbered on, `wcm:action="remove"` takes
//! ours away. What gilt needs for itself is refused with its place.

use super::passes::{self, SHELL};
use super::xml::{Element, XmlError};
use super::{AnswerError, AnswerFile, Problem};

/// Settings gilt needs as they are: how it gets in.
const OURS: &[(&str, &str)] = &[
    (
        "FirstLogonCommands",
        "gilt needs the one command there may be; put yours into `first_boot` or a layer",
    ),
    ("AutoLogon", "gilt logs its own account on once, and takes that away again"),
];

impl AnswerFile {
    /// Lays `over` (XML) over gilt's file for Setup. A setting where it may not stand is refused.
    pub fn merge(&mut self, over: &str) -> Result<(), AnswerError> {
        let over = Self::parse(over)?;
        let mut problems = super::check::check(&over);
        problems.extend(needed(&over));
        self.lay_over(over, problems)
    }

    /// The same over gilt's file for Sysprep, where logon and first commands are the user's own.
    pub fn merge_reseal(&mut self, over: &str) -> Result<(), AnswerError> {
        let over = Self::parse(over)?;
        let problems = super::check::check(&over);
        self.lay_over(over, problems)
    }

    fn lay_over(&mut self, over: Self, problems: Vec<Problem>) -> Result<(), AnswerError> {
        if !problems.is_empty() {
            return Err(AnswerError::Illegal(problems));
        }
        for (pass, components) in over.passes {
            for component in components {
                let known = passes::is_known(&component.name);
                let mine = self.components_mut(pass);
                let found = mine.iter_mut().find(|of| {
                    of.name.eq_ignore_ascii_case(&component.name)
                        && (of.architecture == component.architecture || !known)
                });
                match found {
                    Some(found) => lay(&mut found.settings, component.settings)?,
                    None => mine.push(component),
                }
            }
        }
        Ok(())
    }
}

/// What gilt needs as it is.
fn needed(over: &AnswerFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (pass, components) in &over.passes {
        for component in components {
            for setting in &component.settings {
                let ours = OURS.iter().find(|(name, _)| {
                    component.name.eq_ignore_ascii_case(SHELL) && *name == setting.name
                });
                if let Some((name, what)) = ours {
                    problems.push(Problem {
                        at: setting.at,
                        place: format!("{} {}/{name}", pass.name(), component.name),
                        what: (*what).to_owned(),
                    });
                }
            }
        }
    }
    problems
}

fn lay(mine: &mut Vec<Element>, over: Vec<Element>) -> Result<(), XmlError> {
    for element in over {
        match element.attribute("wcm:action") {
            Some("add") => {
                let highest = mine.iter().filter_map(order).max().unwrap_or(0);
                let mut element = element;
                if let Some(order) = element.children.iter_mut().find(|of| of.name == "Order") {
                    let own: u32 = order.text.trim().parse().unwrap_or(0);
                    order.text = (highest + own.max(1)).to_string();
                }
                mine.push(element);
            }
            Some("remove") => {
                let before = mine.len();
                mine.retain(|of| of.name != element.name);
                if mine.len() == before {
                    return Err(element.error(format!("there is no `{}` to remove", element.name)));
                }
            }
            Some(other) if other != "modify" => {
                return Err(
                    element.error(format!("wcm:action is add, modify or remove, not {other}"))
                );
            }
            _ => match mine.iter_mut().find(|of| of.name == element.name) {
                Some(found) if found.children.is_empty() || element.children.is_empty() => {
                    *found = element;
                }
                Some(found) => lay(&mut found.children, element.children)?,
                None => mine.push(element),
            },
        }
    }
    Ok(())
}

fn order(element: &Element) -> Option<u32> {
    element.child("Order")?.text.trim().parse().ok()
}
