//! Keys of a US keyboard, and how text becomes key strokes.

/// Pressing or letting go of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    pub key: Key,
    pub down: bool,
}

macro_rules! keys {
    ($($name:ident $qcode:literal $linux:literal,)*) => {
        /// A key by its place on a US keyboard.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Key { $($name),* }

        impl Key {
            /// The name QEMU's monitor uses (`QKeyCode` of its QAPI schema).
            pub fn qcode(self) -> &'static str {
                match self { $(Key::$name => $qcode),* }
            }

            /// The number Linux uses (`linux/input-event-codes.h`).
            pub fn linux_code(self) -> u32 {
                match self { $(Key::$name => $linux),* }
            }

            const ALL: &'static [Key] = &[$(Key::$name),*];
        }
    };
}

keys! {
    Esc "esc" 1, Num1 "1" 2, Num2 "2" 3, Num3 "3" 4, Num4 "4" 5, Num5 "5" 6, Num6 "6" 7,
    Num7 "7" 8, Num8 "8" 9, Num9 "9" 10, Num0 "0" 11, Minus "minus" 12, Equal "equal" 13,
    Backspace "backspace" 14, Tab "tab" 15,
    Q "q" 16, W "w" 17, E "e" 18, R "r" 19, T "t" 20, Y "y" 21, U "u" 22, I "i" 23, O "o" 24,
    P "p" 25, BracketLeft "bracket_left" 26, BracketRight "bracket_right" 27, Return "ret" 28,
    LeftCtrl "ctrl" 29,
    A "a" 30, S "s" 31, D "d" 32, F "f" 33, G "g" 34, H "h" 35, J "j" 36, K "k" 37, L "l" 38,
    Semicolon "semicolon" 39, Apostrophe "apostrophe" 40, Grave "grave_accent" 41,
    LeftShift "shift" 42, Backslash "backslash" 43,
    Z "z" 44, X "x" 45, C "c" 46, V "v" 47, B "b" 48, N "n" 49, M "m" 50,
    Comma "comma" 51, Dot "dot" 52, Slash "slash" 53, RightShift "shift_r" 54,
    LeftAlt "alt" 56, Space "spc" 57, CapsLock "caps_lock" 58,
    F1 "f1" 59, F2 "f2" 60, F3 "f3" 61, F4 "f4" 62, F5 "f5" 63, F6 "f6" 64, F7 "f7" 65,
    F8 "f8" 66, F9 "f9" 67, F10 "f10" 68, F11 "f11" 87, F12 "f12" 88,
    RightCtrl "ctrl_r" 97, PrintScreen "print" 99, RightAlt "alt_r" 100, Home "home" 102,
    Up "up" 103, PageUp "pgup" 104, Left "left" 105, Right "right" 106, End "end" 107,
    Down "down" 108, PageDown "pgdn" 109, Insert "insert" 110, Delete "delete" 111,
    LeftSuper "meta_l" 125, RightSuper "meta_r" 126, Menu "compose" 127,
}

impl Key {
    /// The scan code of set 1; `0xe0xx` for the keys that came with the AT keyboard.
    pub fn scan_code(self) -> u16 {
        match self {
            Key::RightCtrl => 0xe01d,
            Key::PrintScreen => 0xe037,
            Key::RightAlt => 0xe038,
            Key::Home => 0xe047,
            Key::Up => 0xe048,
            Key::PageUp => 0xe049,
            Key::Left => 0xe04b,
            Key::Right => 0xe04d,
            Key::End => 0xe04f,
            Key::Down => 0xe050,
            Key::PageDown => 0xe051,
            Key::Insert => 0xe052,
            Key::Delete => 0xe053,
            Key::LeftSuper => 0xe05b,
            Key::RightSuper => 0xe05c,
            Key::Menu => 0xe05d,
            // Up to F12 Linux took its numbers from the scan codes.
            other => u16::try_from(other.linux_code()).unwrap_or(0),
        }
    }

    /// The key with this scan code of set 1, as [`Key::scan_code`] tells it.
    pub fn from_scan_code(code: u16) -> Option<Key> {
        Key::ALL.iter().copied().find(|key| key.scan_code() == code)
    }

    /// The key, and whether shift is held, that types a character; `None` off the US layout.
    pub fn for_char(c: char) -> Option<(Key, bool)> {
        use Key::*;
        const LETTERS: [Key; 26] =
            [A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z];
        if c.is_ascii_alphabetic() {
            let at = usize::from(c.to_ascii_lowercase() as u8 - b'a');
            return Some((LETTERS[at], c.is_ascii_uppercase()));
        }
        Some(match c {
            '1' => (Num1, false),
            '2' => (Num2, false),
            '3' => (Num3, false),
            '4' => (Num4, false),
            '5' => (Num5, false),
            '6' => (Num6, false),
            '7' => (Num7, false),
            '8' => (Num8, false),
            '9' => (Num9, false),
            '0' => (Num0, false),
            '!' => (Num1, true),
            '@' => (Num2, true),
            '#' => (Num3, true),
            '$' => (Num4, true),
            '%' => (Num5, true),
            '^' => (Num6, true),
            '&' => (Num7, true),
            '*' => (Num8, true),
            '(' => (Num9, true),
            ')' => (Num0, true),
            '-' => (Minus, false),
            '_' => (Minus, true),
            '=' => (Equal, false),
            '+' => (Equal, true),
            '[' => (BracketLeft, false),
            '{' => (BracketLeft, true),
            ']' => (BracketRight, false),
            '}' => (BracketRight, true),
            ';' => (Semicolon, false),
            ':' => (Semicolon, true),
            '\'' => (Apostrophe, false),
            '"' => (Apostrophe, true),
            '`' => (Grave, false),
            '~' => (Grave, true),
            '\\' => (Backslash, false),
            '|' => (Backslash, true),
            ',' => (Comma, false),
            '<' => (Comma, true),
            '.' => (Dot, false),
            '>' => (Dot, true),
            '/' => (Slash, false),
            '?' => (Slash, true),
            ' ' => (Space, false),
            '\n' => (Return, false),
            '\t' => (Tab, false),
            _ => return None,
        })
    }
}

/// Presses keys in order and lets go of them in reverse.
pub fn chord(keys: &[Key]) -> Vec<KeyEvent> {
    let down = keys.iter().map(|key| KeyEvent { key: *key, down: true });
    let up = keys.iter().rev().map(|key| KeyEvent { key: *key, down: false });
    down.chain(up).collect()
}

/// The strokes that type a character.
pub fn type_char(c: char) -> Option<Vec<KeyEvent>> {
    let (key, shifted) = Key::for_char(c)?;
    Some(if shifted { chord(&[Key::LeftShift, key]) } else { chord(&[key]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_printable_ascii_character_has_its_own_stroke() {
        let strokes: HashSet<_> =
            (' '..='~').map(|c| Key::for_char(c).unwrap_or_else(|| panic!("{c}"))).collect();
        assert_eq!(strokes.len(), 95);
        assert_eq!(Key::for_char('é'), None);
    }

    #[test]
    fn no_two_keys_share_a_code() {
        let count = Key::ALL.len();
        assert_eq!(Key::ALL.iter().map(|k| k.qcode()).collect::<HashSet<_>>().len(), count);
        assert_eq!(Key::ALL.iter().map(|k| k.scan_code()).collect::<HashSet<_>>().len(), count);
        assert_eq!(Key::ALL.iter().map(|k| k.linux_code()).collect::<HashSet<_>>().len(), count);
    }

    #[test]
    fn shift_is_held_around_the_key() {
        let events = type_char('A').unwrap();
        let shown: Vec<_> = events.iter().map(|e| (e.key, e.down)).collect();
        let shift = Key::LeftShift;
        assert_eq!(shown, [(shift, true), (Key::A, true), (Key::A, false), (shift, false)]);
    }
}
