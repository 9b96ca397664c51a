//! `${…}` in text, and the conditions of `when`.
//!
//! ```text
//! text      = { char | "$${" | "${" name { "." name } "}" }
//! condition = and { "or" and }
//! and       = not { "and" not }
//! not       = "not" not | compare
//! compare   = value [ ( "==" | "!=" | "in" | "not in" ) value ]
//! value     = "(" condition ")" | "[" value { "," value } "]" | "${" … "}" | "quoted" | 'quoted' | word
//! ```
//!
//! `$${` is a literal `${`. A value that stands alone in a condition is true if it is not empty,
//! `false`, `no` or `0`.

use super::text::{Piece, RuntimeName, Text};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    Value(Text),
    /// The items, and all of them joined by spaces.
    List(Vec<Text>, Text),
    Runtime(RuntimeName),
    /// Its value is not known, and the complaint about that has been made.
    Unknown,
}

/// Why a name stands for nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMeaning {
    pub message: String,
    pub hint: Option<String>,
}

/// The names that may be used at some place.
pub trait Scope {
    fn meaning(&self, name: &str) -> Result<Meaning, NoMeaning>;
}

/// What is wrong with a text or condition; `part` is the piece of text to point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionError {
    pub part: String,
    pub message: String,
    pub hint: Option<String>,
}

impl ExpressionError {
    fn new(part: &str, message: impl Into<String>) -> Self {
        Self { part: part.to_owned(), message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The result of expanding one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Expanded {
    pub text: Text,
    /// The whole text was one reference to a list.
    pub items: Option<Vec<Text>>,
    /// A name's value was unknown; do not use the result.
    pub unknown: bool,
}

/// Fills `${…}` in `source`.
pub fn expand(source: &str, scope: &dyn Scope) -> Result<Expanded, Vec<ExpressionError>> {
    let mut expanded = Expanded { text: Text::default(), items: None, unknown: false };
    let mut errors = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            expanded.text.push(Piece::Literal(format!("{}{{", &rest[..at])));
            rest = &rest[at + 2..];
            continue;
        }
        if at > 0 {
            expanded.text.push(Piece::Literal(rest[..at].to_owned()));
        }
        let (name, after) = match reference(&rest[at..]) {
            Ok(found) => found,
            Err(error) => {
                let written = error.part.clone();
                errors.push(error);
                rest = &rest[at + written.len().max(2)..];
                continue;
            }
        };
        match scope.meaning(name) {
            Ok(Meaning::Value(text)) => expanded.text.append(text),
            Ok(Meaning::List(items, joined)) => {
                if source.trim() == rest[at..rest.len() - after.len()].trim() {
                    expanded.items = Some(items);
                }
                expanded.text.append(joined);
            }
            Ok(Meaning::Runtime(name)) => expanded.text.push(Piece::Runtime(name)),
            Ok(Meaning::Unknown) => expanded.unknown = true,
            Err(NoMeaning { message, hint }) => {
                errors.push(ExpressionError { part: format!("${{{name}}}"), message, hint });
            }
        }
        rest = after;
    }
    expanded.text.push(Piece::Literal(rest.to_owned()));
    if errors.is_empty() { Ok(expanded) } else { Err(errors) }
}

/// `text` begins with `${`: the name in it, and what follows.
fn reference(text: &str) -> Result<(&str, &str), ExpressionError> {
    let Some(end) = text.find('}') else {
        return Err(ExpressionError::new(
            text.lines().next().unwrap_or(text),
            "`${` without its `}`",
        )
        .hint("write `$${` for a literal `${`"));
    };
    let name = &text[2..end];
    let word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    if name.split('.').all(word) {
        Ok((name, &text[end + 1..]))
    } else {
        Err(ExpressionError::new(&text[..=end], format!("`${{{name}}}` is not a name"))
            .hint(format!("for the shell's own, write `$${{{name}}}`")))
    }
}

/// Whether a condition holds. None: it depends on a value that is not known.
pub fn condition(source: &str, scope: &dyn Scope) -> Result<Option<bool>, ExpressionError> {
    let tokens = tokens(source)?;
    let mut parser = Conditions { tokens: &tokens, at: 0, scope, source, depth: 0, unknown: false };
    let result = parser.or()?;
    if let Some(token) = parser.peek() {
        return Err(ExpressionError::new(
            token.written(),
            format!("unexpected `{}`", token.written()),
        )
        .hint("a condition is like: ${matrix.flavour} == \"web\" and not ${minimal}"));
    }
    Ok((!parser.unknown).then(|| result.is_true()))
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    Reference(&'a str),
    /// Unquoted text and what it was written as: the same, for errors.
    Quoted {
        text: String,
        written: &'a str,
    },
    Word(&'a str),
    Sign(&'a str),
}

impl Token<'_> {
    fn written(&self) -> &str {
        match self {
            Self::Reference(text) | Self::Word(text) | Self::Sign(text) => text,
            Self::Quoted { written, .. } => written,
        }
    }
}

fn tokens(source: &str) -> Result<Vec<Token<'_>>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, after) = if rest.starts_with("${") {
            let (_, after) = reference(rest)?;
            (Token::Reference(&rest[..rest.len() - after.len()]), after)
        } else if first == '"' || first == '\'' {
            let inner = &rest[1..];
            let Some(end) = inner.find(first) else {
                return Err(ExpressionError::new(
                    rest.trim_end(),
                    format!("{first} without its end"),
                ));
            };
            let text = inner[..end].to_owned();
            (Token::Quoted { text, written: &rest[..end + 2] }, &inner[end + 1..])
        } else if let Some(sign) =
            ["==", "!=", "(", ")", "[", "]", ","].iter().find(|sign| rest.starts_with(**sign))
        {
            (Token::Sign(sign), &rest[sign.len()..])
        } else {
            let stops = |c: char| c.is_whitespace() || "()[],\"'=!$".contains(c);
            let end = rest.find(stops).unwrap_or(rest.len());
            if end == 0 {
                let end = first.len_utf8();
                return Err(ExpressionError::new(&rest[..end], format!("unexpected `{first}`"))
                    .hint("the signs of conditions are == != in not and or ( ) [ ]"));
            }
            (Token::Word(&rest[..end]), &rest[end..])
        };
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

/// More than any condition has; keeps `((((…` from running out of stack.
const MAX_DEPTH: usize = 32;

struct Conditions<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    scope: &'a dyn Scope,
    source: &'a str,
    depth: usize,
    unknown: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Text(String),
    List(Vec<String>),
    Bool(bool),
}

impl Operand {
    fn is_true(&self) -> bool {
        match self {
            Self::Bool(value) => *value,
            Self::List(items) => !items.is_empty(),
            Self::Text(text) => !matches!(text.as_str(), "" | "false" | "no" | "0"),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bool(value) => value.to_string(),
            Self::List(items) => items.join(" "),
        }
    }
}

impl<'a> Conditions<'a> {
    fn peek(&self) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(text)) if *text == word);
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(text)) if *text == sign);
        self.at += usize::from(found);
        found
    }

    fn or(&mut self) -> Result<Operand, ExpressionError> {
        let mut left = self.and()?;
        while self.word("or") {
            let right = self.and()?;
            left = Operand::Bool(left.is_true() || right.is_true());
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Operand, ExpressionError> {
        let mut left = self.not()?;
        while self.word("and") {
            let right = self.not()?;
            left = Operand::Bool(left.is_true() && right.is_true());
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Operand, ExpressionError> {
        let mut negated = false;
        let mut any = false;
        while self.word("not") {
            negated = !negated;
            any = true;
        }
        let value = self.compare()?;
        Ok(if any { Operand::Bool(value.is_true() != negated) } else { value })
    }

    fn compare(&mut self) -> Result<Operand, ExpressionError> {
        let left = self.value()?;
        if self.sign("==") {
            let right = self.value()?;
            return Ok(Operand::Bool(left.text() == right.text()));
        }
        if self.sign("!=") {
            let right = self.value()?;
            return Ok(Operand::Bool(left.text() != right.text()));
        }
        let start = self.at;
        let negated = self.word("not");
        if self.word("in") {
            let written = self.peek().map_or("", Token::written).to_owned();
            let Operand::List(items) = self.value()? else {
                if self.unknown {
                    return Ok(Operand::Bool(false));
                }
                return Err(ExpressionError::new(&written, "`in` needs a list on its right")
                    .hint("a list is like: [plain, web]"));
            };
            return Ok(Operand::Bool(items.contains(&left.text()) != negated));
        }
        self.at = start;
        Ok(left)
    }

    fn value(&mut self) -> Result<Operand, ExpressionError> {
        if self.sign("(") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(ExpressionError::new("(", "too many parentheses"));
            }
            let value = self.or()?;
            self.depth -= 1;
            if !self.sign(")") {
                return Err(self.missing("`)`"));
            }
            return Ok(value);
        }
        if self.sign("[") {
            let mut items = Vec::new();
            while !self.sign("]") {
                if !items.is_empty() && !self.sign(",") {
                    return Err(self.missing("`,` or `]`"));
                }
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(ExpressionError::new("[", "too many brackets"));
                }
                items.push(self.value()?.text());
                self.depth -= 1;
            }
            return Ok(Operand::List(items));
        }
        let Some(token) = self.peek() else { return Err(self.missing("a value")) };
        self.at += 1;
        match token {
            Token::Quoted { text, .. } => Ok(Operand::Text(text.clone())),
            Token::Word(word) if !["and", "or", "in", "not"].contains(word) => {
                Ok(Operand::Text((*word).to_owned()))
            }
            Token::Reference(written) => self.reference(written),
            token => Err(ExpressionError::new(
                token.written(),
                format!("a value is missing before `{}`", token.written()),
            )),
        }
    }

    fn reference(&mut self, written: &str) -> Result<Operand, ExpressionError> {
        let name = &written[2..written.len() - 1];
        let known = |text: &Text| text.known().unwrap_or_default();
        match self.scope.meaning(name) {
            Ok(Meaning::Value(text)) => Ok(Operand::Text(known(&text))),
            Ok(Meaning::List(items, _)) => Ok(Operand::List(items.iter().map(known).collect())),
            Ok(Meaning::Unknown) => {
                self.unknown = true;
                Ok(Operand::Bool(false))
            }
            Ok(Meaning::Runtime(_)) => Err(ExpressionError::new(
                written,
                format!("`{written}` is known only while building; a condition is decided before"),
            )),
            Err(NoMeaning { message, hint }) => {
                Err(ExpressionError { part: written.to_owned(), message, hint })
            }
        }
    }

    fn missing(&self, what: &str) -> ExpressionError {
        let part = self.peek().map_or(self.source.trim(), Token::written);
        let place =
            if self.peek().is_some() { format!(" before `{part}`") } else { " at the end".into() };
        ExpressionError::new(part, format!("{what} is missing{place}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;

    impl Scope for Names {
        fn meaning(&self, name: &str) -> Result<Meaning, NoMeaning> {
            match name {
                "matrix.flavour" => Ok(Meaning::Value(Text::literal("web"))),
                "on" => Ok(Meaning::Value(Text::literal("true"))),
                "off" => Ok(Meaning::Value(Text::literal("false"))),
                "list" => Ok(Meaning::List(
                    vec![Text::literal("a"), Text::literal("b")],
                    Text::literal("a b"),
                )),
                "build.http" => Ok(Meaning::Runtime(RuntimeName::Http)),
                "lost" => Ok(Meaning::Unknown),
                _ => Err(NoMeaning { message: format!("no {name}"), hint: None }),
            }
        }
    }

    #[test]
    fn conditions_hold_as_written() {
        for (source, holds) in [
            (r#"${matrix.flavour} == "web""#, true),
            ("${matrix.flavour} != web", false),
            ("${matrix.flavour} in [plain, 'web']", true),
            ("${matrix.flavour} not in [plain, web]", false),
            ("not ${off} and ${on}", true),
            ("${off} or (${on} and not ${off})", true),
            ("not not ${on}", true),
            ("a in ${list}", true),
            ("c in ${list}", false),
            ("${off} and ${on} or ${on}", true),
            ("${list}", true),
        ] {
            assert_eq!(condition(source, &Names), Ok(Some(holds)), "{source}");
        }
        assert_eq!(condition("${lost} == x", &Names), Ok(None));
    }

    #[test]
    fn wrong_conditions_name_the_part() {
        for (source, part) in [
            ("${matrix.flavour} = web", "="),
            ("${nothing} == 1", "${nothing}"),
            ("(${on}", "(${on}"),
            ("${on} ${off}", "${off}"),
            ("${on} in web", "web"),
            ("${build.http} == x", "${build.http}"),
            ("== x", "=="),
            ("${on} == \"x", "\"x"),
        ] {
            let error = condition(source, &Names).expect_err(source);
            assert_eq!(error.part, part, "{source}: {error:?}");
        }
    }

    #[test]
    fn deep_parentheses_are_refused_not_a_crash() {
        assert!(condition(&"(".repeat(100_000), &Names).is_err());
        assert!(condition(&"[".repeat(100_000), &Names).is_err());
        assert!(condition(&"not ".repeat(100_000), &Names).is_err());
    }

    #[test]
    fn text_is_filled_and_dollars_can_be_escaped() {
        let expanded = expand("a ${on} $${HOME} $x ${build.http}/f", &Names).unwrap();
        assert_eq!(expanded.text.shown(), "a true ${HOME} $x ${build.http}/f");
        assert_eq!(expand("${list}", &Names).unwrap().items.map(|items| items.len()), Some(2));
        assert_eq!(expand("x ${list}", &Names).unwrap().text.shown(), "x a b");
        let errors = expand("${FOO:-bar} ${nope}", &Names).unwrap_err();
        assert_eq!(errors.len(), 2);
        assert_eq!(errors[0].hint.as_deref(), Some("for the shell's own, write `$${FOO:-bar}`"));
    }
}
