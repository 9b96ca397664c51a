//! Keeping the values of sensitive variables out of everything gilt shows or stores.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

/// What stands in place of a secret.
pub const SCRUBBED: &str = "***";
/// A form shorter than this is not looked for inside other text, except as the whole secret.
const SHORTEST_PART: usize = 6;

/// The values to keep secret, in every form they are likely to appear in: as they are, line by
/// line, in base64 (of UTF-8 and of UTF-16, as PowerShell's `-EncodedCommand` has it, at any
/// offset), percent-encoded, and escaped for JSON, XML, shells.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeSet<String>,
    /// Forms, longest first, so that a form that holds another is replaced whole.
    forms: Vec<String>,
}

impl Secrets {
    pub fn new(values: impl IntoIterator<Item = String>) -> Self {
        let mut secrets = Self::default();
        for value in values {
            secrets.add(&value);
        }
        secrets
    }

    /// One more value to keep secret. An empty one is none.
    pub fn add(&mut self, value: &str) {
        if value.trim().is_empty() || !self.values.insert(value.to_owned()) {
            return;
        }
        let mut forms: BTreeSet<String> = self.forms.drain(..).collect();
        add_forms(value.trim_end_matches(['\n', '\r']), &mut forms);
        for line in value.lines().map(str::trim) {
            if line.len() >= SHORTEST_PART && line != value {
                add_forms(line, &mut forms);
            }
        }
        self.forms = forms.into_iter().filter(|form| !form.is_empty()).collect();
        self.forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values themselves: to look for in an image, never to show.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    /// `text` with every form of every secret replaced by `***`.
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut out = Cow::Borrowed(text);
        for form in &self.forms {
            if out.contains(form.as_str()) {
                out = Cow::Owned(out.replace(form.as_str(), SCRUBBED));
            }
        }
        out
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} values)", self.values.len())
    }
}

impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

fn add_forms(value: &str, forms: &mut BTreeSet<String>) {
    forms.insert(value.to_owned());
    forms.insert(value.replace('\n', "\r\n"));
    if let Ok(quoted) = serde_json::to_string(value) {
        forms.insert(quoted.trim_matches('"').to_owned());
    }
    forms.insert(value.replace('\'', r"'\''"));
    forms.insert(value.replace('\'', "''"));
    let xml = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    forms.insert(xml.replace('"', "&quot;"));
    forms.insert(xml);
    forms.insert(percent_encoded(value));
    let utf16: Vec<u8> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [value.as_bytes(), &utf16] {
        for offset in 0..3 {
            base64_inside(bytes, offset, forms);
        }
    }
}

/// What base64 of any text shows of `bytes` when they begin `offset` bytes after a group of three.
fn base64_inside(bytes: &[u8], offset: usize, forms: &mut BTreeSet<String>) {
    let padded: Vec<u8> = std::iter::repeat_n(0, offset).chain(bytes.iter().copied()).collect();
    for engine in [STANDARD, URL_SAFE] {
        let whole = engine.encode(&padded);
        // The characters that depend on neighbours are left off: those that hold bits of the
        // padding before, and, where the last group is not full, those that hold bits of it.
        let skip = [0, 2, 3][offset];
        let full = padded.len() * 8 / 6;
        if let Some(part) = whole.get(skip..full)
            && part.len() >= SHORTEST_PART
        {
            forms.insert(part.to_owned());
        }
        if offset == 0 && whole.len() >= SHORTEST_PART {
            forms.insert(whole);
        }
    }
}

fn percent_encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_scrubbed_in_every_form_it_may_take() {
        let secrets = Secrets::new(["p@ss w'ord<1>".to_owned()]);
        let utf16: Vec<u8> =
            "x p@ss w'ord<1> y".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for text in [
            "before p@ss w'ord<1> after".to_owned(),
            r"echo 'p@ss w'\''ord<1>'".to_owned(),
            "p%40ss%20w%27ord%3C1%3E".to_owned(),
            "<Value>p@ss w'ord&lt;1&gt;</Value>".to_owned(),
            STANDARD.encode("p@ss w'ord<1>"),
            STANDARD.encode("user:p@ss w'ord<1>"),
            STANDARD.encode("ab p@ss w'ord<1>\n"),
            STANDARD.encode(utf16),
        ] {
            let scrubbed = secrets.scrub(&text);
            assert!(scrubbed.contains(SCRUBBED), "{text} stayed {scrubbed}");
            assert!(!scrubbed.contains("p@ss"), "{scrubbed}");
        }
    }

    #[test]
    fn each_line_of_a_secret_of_many_lines_is_scrubbed() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n";
        let secrets = Secrets::new([key.to_owned()]);
        assert_eq!(secrets.scrub("  MIIEvQIBADANBg"), "  ***");
        assert_eq!(secrets.scrub(&format!("key={key}")).trim_end(), "key=***");
        assert_eq!(secrets.scrub(&key.replace('\n', "\\n")), "***\\n");
    }

    #[test]
    fn text_without_secrets_is_borrowed() {
        let secrets = Secrets::new([String::new(), "hunter22".to_owned()]);
        assert!(matches!(secrets.scrub("nothing here"), Cow::Borrowed(_)));
        assert!(Secrets::new([String::new()]).is_empty());
    }

    #[test]
    fn a_secret_that_holds_another_is_replaced_whole() {
        let secrets = Secrets::new(["abcdef".to_owned(), "abcdefgh".to_owned()]);
        assert_eq!(secrets.scrub("x abcdefgh y abcdef z"), "x *** y *** z");
    }
}
