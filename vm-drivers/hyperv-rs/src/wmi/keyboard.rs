//! Keys by `Msvm_Keyboard`: text, or scan codes of set 1 with their break codes.

use crate::{
    error::{Error, Result},
    script::Value,
};

/// The longest text for one `TypeText`: the guest's keyboard buffer drops more.
pub const MAX_TEXT: usize = 256;
/// The most bytes for one `TypeScancodes`.
pub const MAX_SCAN_CODES: usize = 128;

/// A key of scan code set 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Without the break bit: 0x01..=0x7f.
    pub code: u8,
    /// Whether 0xe0 goes before.
    pub extended: bool,
    /// Pressed, or let go.
    pub down: bool,
}

/// One call of the keyboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    Text(String),
    ScanCodes(Vec<u8>),
    CtrlAltDel,
}

impl Keys {
    /// Calls that type a text. ASCII only: the host types characters by the layout of a US keyboard.
    pub fn text(text: &str) -> Result<Vec<Keys>> {
        let typed = |c: char| matches!(c, ' '..='~' | '\t' | '\n');
        if let Some(c) = text.chars().find(|c| !typed(*c)) {
            return Err(Error::Invalid {
                what: "text to type",
                reason: format!("{c:?} is not an ASCII character a keyboard has; send scan codes"),
            });
        }
        let bytes: Vec<char> = text.chars().collect();
        Ok(bytes.chunks(MAX_TEXT).map(|part| Keys::Text(part.iter().collect())).collect())
    }

    /// Calls that press and release keys in this order; a key is never split between two calls.
    pub fn scan_codes(events: &[Scan]) -> Result<Vec<Keys>> {
        let mut calls = Vec::new();
        let mut bytes = Vec::new();
        for event in events {
            if event.code == 0 || event.code > 0x7f {
                return Err(Error::Invalid {
                    what: "scan code",
                    reason: format!("{:#04x} is not 0x01 to 0x7f", event.code),
                });
            }
            if bytes.len() + 2 > MAX_SCAN_CODES {
                calls.push(Keys::ScanCodes(std::mem::take(&mut bytes)));
            }
            if event.extended {
                bytes.push(0xe0);
            }
            bytes.push(event.code | if event.down { 0 } else { 0x80 });
        }
        if !bytes.is_empty() {
            calls.push(Keys::ScanCodes(bytes));
        }
        Ok(calls)
    }

    /// Method, its argument and the argument's value; `TypeCtrlAltDel` has none.
    pub(crate) fn call(&self) -> (&'static str, &'static str, Value) {
        match self {
            Keys::Text(text) => ("TypeText", "asciiText", text.as_str().into()),
            Keys::ScanCodes(codes) => ("TypeScancodes", "scancodes", Value::Bytes(codes.clone())),
            Keys::CtrlAltDel => ("TypeCtrlAltDel", "", Value::Null),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_the_high_bit_and_an_extended_key_its_prefix() {
        let right = |down| Scan { code: 0x4d, extended: true, down };
        let calls = Keys::scan_codes(&[right(true), right(false)]).unwrap();
        assert_eq!(calls, [Keys::ScanCodes(vec![0xe0, 0x4d, 0xe0, 0xcd])]);
        assert!(Keys::scan_codes(&[Scan { code: 0x80, extended: false, down: true }]).is_err());
    }

    #[test]
    fn long_input_is_split_and_no_key_is_torn_apart() {
        let events = vec![Scan { code: 0x4d, extended: true, down: true }; 100];
        let calls = Keys::scan_codes(&events).unwrap();
        assert_eq!(calls.len(), 2);
        for call in &calls {
            let Keys::ScanCodes(bytes) = call else { panic!("scan codes became {call:?}") };
            assert!(bytes.len() <= MAX_SCAN_CODES && bytes.len() % 2 == 0 && bytes[0] == 0xe0);
        }
        assert_eq!(Keys::text(&"x".repeat(600)).unwrap().len(), 3);
    }

    #[test]
    fn what_is_not_ascii_is_refused_instead_of_dropped() {
        assert!(Keys::text("grün").unwrap_err().to_string().contains('ü'));
        assert!(Keys::text("\u{8}").is_err());
    }
}
