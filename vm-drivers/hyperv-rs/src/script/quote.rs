//! The only place where a value becomes PowerShell text.
//!
//! Text is a single-quoted literal. PowerShell takes four typographic characters for the same quote,
//! so each of the five is doubled. Control characters are spelled `[char]n`, so that neither a line end
//! nor a NUL depends on how the script travels.

use std::fmt::Write;

use crate::cmdlet::Call;

/// A value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Bool(bool),
    /// A count or a number of bytes, always written in full.
    Number(u64),
    Text(String),
    /// A constant of an enumeration or of this crate: letters and digits only.
    Word(&'static str),
    List(Vec<Value>),
    /// Bytes, as `[byte[]](1,2)`.
    Bytes(Vec<u8>),
    /// A variable of the script, or a call whose result is the value.
    Expression(Expression),
}

/// PowerShell made by this crate, never by a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// `$vm`: the machine the script is about.
    Machine,
    /// A call in parentheses.
    Call(Box<Call>),
    /// The integration service whose `Id` ends with this GUID, of those the call gives.
    ServiceById(&'static str, Box<Call>),
    /// The value of a switch that is on by default; joined to its name by a colon.
    SwitchOff,
}

impl From<Call> for Value {
    fn from(call: Call) -> Self {
        Value::Expression(Expression::Call(Box::new(call)))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Number(number)
    }
}
impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Number(number.into())
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

/// The characters PowerShell's tokenizer takes for a single quote.
fn is_quote(c: char) -> bool {
    matches!(c, '\'' | '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}')
}

fn needs_number(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// `text` as an expression that gives exactly this text.
pub fn literal(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut plain = String::new();
    for c in text.chars() {
        if needs_number(c) {
            if !plain.is_empty() || parts.is_empty() {
                parts.push(format!("'{plain}'"));
                plain.clear();
            }
            parts.push(format!("[char]{}", u32::from(c)));
        } else {
            if is_quote(c) {
                plain.push(c);
            }
            plain.push(c);
        }
    }
    if !plain.is_empty() || parts.is_empty() {
        parts.push(format!("'{plain}'"));
    }
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => format!("({})", parts.join(" + ")),
    }
}

impl Value {
    /// The value as an argument of a command or an element of an expression.
    pub fn render(&self) -> String {
        match self {
            Value::Null => "$null".into(),
            Value::Bool(true) => "$true".into(),
            Value::Bool(false) => "$false".into(),
            Value::Number(number) => number.to_string(),
            Value::Text(text) => literal(text),
            Value::Word(word) => literal(word),
            Value::List(items) => {
                format!("@({})", items.iter().map(Value::render).collect::<Vec<_>>().join(", "))
            }
            Value::Bytes(bytes) => {
                let mut text = String::from("([byte[]]@(");
                for (at, byte) in bytes.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    let _ = write!(text, "{comma}{byte}");
                }
                text.push_str("))");
                text
            }
            Value::Expression(Expression::Machine) => "$vm".into(),
            Value::Expression(Expression::Call(call)) => format!("({})", call.render()),
            Value::Expression(Expression::ServiceById(guid, call)) => format!(
                "({} | Where-Object {{ $_.Id.EndsWith({}, 'OrdinalIgnoreCase') }})",
                call.render(),
                literal(guid)
            ),
            Value::Expression(Expression::SwitchOff) => "$false".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quote_powershell_knows_is_doubled() {
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("\u{2018}\u{2019}\u{201a}\u{201b}"), "'‘‘’’‚‚‛‛'");
        assert_eq!(literal("$(calc) `n \"x\""), "'$(calc) `n \"x\"'");
    }

    #[test]
    fn line_ends_and_nul_are_spelled_by_number() {
        assert_eq!(literal("a\r\nb"), "('a' + [char]13 + [char]10 + 'b')");
        assert_eq!(literal("\0"), "('' + [char]0)");
        assert_eq!(literal(""), "''");
    }

    /// Reads a literal back by PowerShell's rules for single-quoted strings.
    fn read_back(script: &str) -> String {
        let body = script.strip_prefix('(').and_then(|s| s.strip_suffix(')')).unwrap_or(script);
        let mut out = String::new();
        let mut chars = body.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                c if is_quote(c) => loop {
                    let c = chars.next().expect("the literal is closed");
                    if !is_quote(c) {
                        out.push(c);
                    } else if chars.peek().copied().is_some_and(is_quote) {
                        chars.next();
                        out.push(c);
                    } else {
                        break;
                    }
                },
                '[' => {
                    let rest: String = chars.by_ref().take_while(|c| *c != ' ').collect();
                    let number = rest.strip_prefix("char]").expect("a number follows");
                    out.push(char::from_u32(number.parse().unwrap()).unwrap());
                }
                ' ' | '+' => {}
                other => panic!("{other:?} outside of a literal in {script}"),
            }
        }
        out
    }

    #[test]
    fn any_text_comes_back_as_it_was() {
        let alphabet = [
            'a', '\'', '’', '‘', '‚', '‛', '"', '$', '`', '\n', '\r', '\0', '(', ')', ' ', '+',
            '[', '“', '😀', '\u{2028}', '\u{feff}',
        ];
        let mut seed: u64 = 0x2545_f491_4f6c_dd1d;
        for _ in 0..5000 {
            let mut text = String::new();
            for _ in 0..seed % 12 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
            }
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407) >> 1;
            assert_eq!(read_back(&literal(&text)), text, "{text:?}");
        }
    }

    #[test]
    fn lists_bytes_and_constants() {
        let list =
            Value::List(vec![Value::Word("CD"), Value::Word("IDE"), Value::Null, true.into()]);
        assert_eq!(list.render(), "@('CD', 'IDE', $null, $true)");
        assert_eq!(Value::Bytes(vec![1, 255]).render(), "([byte[]]@(1,255))");
        assert_eq!(Value::Number(64 << 40).render(), "70368744177664");
    }
}
