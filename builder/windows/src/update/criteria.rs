//! Search criteria of the Windows Update Agent, checked before a guest is asked
//! (`IUpdateSearcher::Search`).
//!
//! ```text
//! criteria  = group { "or" group }            OR only at the top
//! group     = term { "and" term } | "(" criteria-without-or ")"
//! term      = property operator value
//! ```

/// Where criteria are wrong: a byte of the text, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}, at character {}", at + 1)]
pub struct CriteriaError {
    pub at: usize,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// 0 or 1.
    Flag,
    Number,
    Text,
}

/// Property, kind of its value, its operators (Microsoft's table).
const PROPERTIES: &[(&str, Kind, &[&str])] = &[
    ("Type", Kind::Text, &["=", "!="]),
    ("DeploymentAction", Kind::Text, &["="]),
    ("IsAssigned", Kind::Flag, &["="]),
    ("BrowseOnly", Kind::Flag, &["="]),
    ("AutoSelectOnWebSites", Kind::Flag, &["="]),
    ("UpdateID", Kind::Text, &["=", "!="]),
    ("RevisionNumber", Kind::Number, &["="]),
    ("CategoryIDs", Kind::Text, &["contains"]),
    ("IsInstalled", Kind::Flag, &["="]),
    ("IsHidden", Kind::Flag, &["="]),
    ("IsPresent", Kind::Flag, &["="]),
    ("RebootRequired", Kind::Flag, &["="]),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Operator(&'static str),
    Text(String),
    Open,
    Close,
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, CriteriaError> {
    let mut found = Vec::new();
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        let fail = |what: &str| CriteriaError { at, what: what.to_owned() };
        let token = match c {
            c if c.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            '=' => Token::Operator("="),
            '!' => match rest.next() {
                Some((_, '=')) => Token::Operator("!="),
                _ => return Err(fail("`!` without `=`")),
            },
            '\'' => {
                let mut value = String::new();
                loop {
                    match rest.next() {
                        Some((_, '\'')) => break,
                        Some((_, c)) => value.push(c),
                        None => return Err(fail("a quote that is not closed")),
                    }
                }
                Token::Text(value)
            }
            c if c.is_ascii_alphanumeric() => {
                let mut word = String::from(c);
                while let Some((_, c)) = rest.next_if(|(_, c)| c.is_ascii_alphanumeric()) {
                    word.push(c);
                }
                Token::Word(word)
            }
            other => return Err(fail(&format!("`{other}` has no meaning here"))),
        };
        found.push((at, token));
    }
    Ok(found)
}

struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    at: usize,
    end: usize,
    revision: Option<usize>,
    update_id: bool,
}

impl Parser<'_> {
    fn fail<T>(&self, what: impl Into<String>) -> Result<T, CriteriaError> {
        let at = self.tokens.get(self.at).map_or(self.end, |(at, _)| *at);
        Err(CriteriaError { at, what: what.into() })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    fn expression(&mut self, depth: usize) -> Result<(), CriteriaError> {
        loop {
            self.part(depth)?;
            if self.is_word("and") {
                self.at += 1;
            } else if self.is_word("or") {
                if depth > 0 {
                    return self.fail("`or` is allowed at the top level only");
                }
                self.at += 1;
            } else {
                return Ok(());
            }
        }
    }

    fn part(&mut self, depth: usize) -> Result<(), CriteriaError> {
        if self.peek() == Some(&Token::Open) {
            if depth >= 16 {
                return self.fail("parentheses are nested too deep");
            }
            self.at += 1;
            self.expression(depth + 1)?;
            if self.peek() != Some(&Token::Close) {
                return self.fail("a parenthesis that is not closed");
            }
            self.at += 1;
            return Ok(());
        }
        self.term()
    }

    fn term(&mut self) -> Result<(), CriteriaError> {
        let Some(Token::Word(name)) = self.peek() else {
            return self.fail("a property belongs here");
        };
        let found = PROPERTIES.iter().find(|(of, ..)| of.eq_ignore_ascii_case(name));
        let Some((name, kind, operators)) = found else {
            let name = name.clone();
            return self.fail(format!("there is no property `{name}`"));
        };
        let place = self.at;
        self.at += 1;
        let operator = match self.peek() {
            Some(Token::Operator(operator)) => *operator,
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("contains") => "contains",
            _ => return self.fail(format!("{} belongs after `{name}`", operators.join(" or "))),
        };
        if !operators.contains(&operator) {
            return self.fail(format!("`{name}` is compared by {} only", operators.join(" or ")));
        }
        self.at += 1;
        let good = match (kind, self.peek()) {
            (Kind::Flag, Some(Token::Word(word))) => matches!(word.as_str(), "0" | "1"),
            (Kind::Number, Some(Token::Word(word))) => word.parse::<u32>().is_ok(),
            (Kind::Text, Some(Token::Text(text))) => match *name {
                "Type" => matches!(text.as_str(), "Software" | "Driver"),
                "DeploymentAction" => matches!(text.as_str(), "Installation" | "Uninstallation"),
                _ => !text.is_empty(),
            },
            _ => false,
        };
        if !good {
            let wanted = match (kind, *name) {
                (Kind::Flag, _) => "0 or 1",
                (Kind::Number, _) => "a number",
                (_, "Type") => "'Software' or 'Driver'",
                (_, "DeploymentAction") => "'Installation' or 'Uninstallation'",
                _ => "a text in single quotes",
            };
            return self.fail(format!("the value of `{name}` is {wanted}"));
        }
        self.at += 1;
        match *name {
            "RevisionNumber" => self.revision = Some(place),
            "UpdateID" => self.update_id = true,
            _ => {}
        }
        Ok(())
    }
}

/// Whether the Windows Update Agent would take these criteria.
pub fn check_criteria(text: &str) -> Result<(), CriteriaError> {
    let found = tokens(text)?;
    let mut parser =
        Parser { tokens: &found, at: 0, end: text.len(), revision: None, update_id: false };
    parser.expression(0)?;
    if parser.at < found.len() {
        return parser.fail("`and` or `or` belongs here");
    }
    if let (Some(place), false) = (parser.revision, parser.update_id) {
        parser.at = place;
        return parser.fail("`RevisionNumber` goes only with `UpdateID`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criteria_of_the_documentation_and_in_use() {
        for good in [
            "IsInstalled = 0 and IsHidden = 0",
            "( IsInstalled = 0 and IsHidden = 0 )",
            "BrowseOnly=0 and IsInstalled=0",
            "AutoSelectOnWebSites=1 and IsInstalled=0",
            "IsInstalled=1 and Type='Driver' or IsHidden=1",
            "(IsInstalled=0 AND Type!='Driver') OR (IsInstalled=0 AND IsAssigned=1)",
            "UpdateID='12345678-9abc-def0-1234-56789abcdef0' and RevisionNumber=100",
            "UpdateID!='x' and CategoryIDs contains '0FA1201D-4330-4FA8-8AE9-B877473B6441'",
            "DeploymentAction='Uninstallation' and RebootRequired=1 and IsPresent=0",
        ] {
            assert_eq!(check_criteria(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_the_agent_refuses_is_refused_with_its_place() {
        for (bad, at) in [
            ("", 0),
            ("IsInstalled", 11),
            ("IsInstalled=2", 12),
            ("IsInstalled!=0", 11),
            ("Type=Software", 5),
            ("Type='Soft'", 5),
            ("Title='x'", 0),
            ("IsInstalled=0 IsHidden=0", 14),
            ("(IsInstalled=0 or IsHidden=0)", 15),
            ("(IsInstalled=0", 14),
            ("IsInstalled=0)", 13),
            ("RevisionNumber=1", 0),
            ("CategoryIDs='x'", 11),
            ("UpdateID contains 'x'", 9),
            ("IsHidden=0 and", 14),
            ("IsHidden=0; exit", 10),
            ("Type='Software", 5),
        ] {
            assert_eq!(check_criteria(bad).unwrap_err().at, at, "{bad}");
        }
        assert!(check_criteria(&"(".repeat(10_000)).is_err());
    }

    #[test]
    fn every_property_has_its_operators() {
        for (name, kind, operators) in PROPERTIES {
            for operator in ["=", "!=", "contains"] {
                let value = match (kind, *name) {
                    (Kind::Flag, _) => "1",
                    (Kind::Number, _) => "7",
                    (_, "Type") => "'Driver'",
                    (_, "DeploymentAction") => "'Installation'",
                    _ => "'x'",
                };
                let text = format!("{name} {operator} {value} and UpdateID='x'");
                assert_eq!(check_criteria(&text).is_ok(), operators.contains(&operator), "{text}");
            }
        }
    }
}
