//! Names that Windows does not take for files, though a WIM may hold them.

use crate::tree::Name;

/// Why Windows refuses a file of this name, or would open something else by it; `None` for a good one.
pub fn refusal(name: &Name) -> Option<&'static str> {
    let text = name.to_display();
    if text.chars().any(|c| c < ' ' || r#"<>:"/\|?*"#.contains(c)) {
        return Some("a character that is not allowed in names");
    }
    if text.ends_with(['.', ' ']) {
        return Some("a dot or a space at the end");
    }
    is_device(&text).then_some("the name of a device")
}

/// Devices are meant with any extension, and with spaces before it, too.
fn is_device(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or_default().trim_end_matches(' ');
    let upper = stem.to_uppercase();
    if matches!(upper.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let number = upper.strip_prefix("COM").or(upper.strip_prefix("LPT"));
    number.is_some_and(|number| {
        let mut chars = number.chars();
        // The superscript digits of Latin-1 count as digits there.
        matches!(chars.next(), Some('0'..='9' | '¹' | '²' | '³')) && chars.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_bad_characters_and_bad_ends_are_refused_and_nothing_else() {
        let bad = [
            "con",
            "NUL.txt",
            "aux .tar.gz",
            "COM1",
            "lpt9.x",
            "COM²",
            "CONIN$",
            "a:b",
            "a|b",
            "x.",
            "x ",
            "\u{1}",
            r"a\b",
            "*",
        ];
        for name in bad {
            assert!(refusal(&Name::from(name)).is_some(), "{name}");
        }
        for name in ["console", "COM10", "com", "NULL", "x.con", ".x", "LPT1x", "ä€😀", "a b"]
        {
            assert_eq!(refusal(&Name::from(name)), None, "{name}");
        }
    }
}
