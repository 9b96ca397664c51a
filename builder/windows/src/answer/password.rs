//! Passwords as answer files hide them: base64 of UTF-16LE of the password and the name of its
//! element. That hides them from a glance and from nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `element` is the name of the element the value stands in: `Password`, `AdministratorPassword`.
pub fn encode(password: &str, element: &str) -> String {
    let wide: Vec<u8> =
        password.encode_utf16().chain(element.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    STANDARD.encode(wide)
}

/// The password in an encoded value, if it is one for `element`.
pub fn decode(value: &str, element: &str) -> Option<String> {
    let bytes = STANDARD.decode(value).ok()?;
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units).collect::<Result<_, _>>().ok()?;
    text.strip_suffix(element).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of answer files that are in use (facts 8, row 4).
    #[test]
    fn the_vectors_of_files_in_use() {
        assert_eq!(
            encode("vagrant", "AdministratorPassword"),
            "dgBhAGcAcgBhAG4AdABBAGQAbQBpAG4AaQBzAHQAcgBhAHQAbwByAFAAYQBzAHMAdwBvAHIAZAA="
        );
        assert_eq!(encode("vagrant", "Password"), "dgBhAGcAcgBhAG4AdABQAGEAcwBzAHcAbwByAGQA");
    }

    #[test]
    fn what_was_encoded_comes_back() {
        for password in ["", "x", "päß🔑", "Password"] {
            assert_eq!(
                decode(&encode(password, "Password"), "Password").as_deref(),
                Some(password)
            );
        }
        assert_eq!(decode("eA==", "Password"), None);
        assert_eq!(decode("not base64", "Password"), None);
    }
}
