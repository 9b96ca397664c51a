//! Names and symbolic links between Unix and Windows.
//!
//! A Unix name is bytes, a WIM's is UTF-16. UTF-8 converts, and so do unpaired surrogates in
//! their three-byte form (WTF-8), which is how such a name of Windows looks on Unix. Other bytes
//! have no WIM name. `/` and `\` change places in the target of a link, as wimlib does it.

use crate::tree::{Name, Reparse, reparse_tag};

/// The WIM name of a Unix one. `None` where the bytes are not WTF-8.
pub fn name_from_bytes(bytes: &[u8]) -> Option<Name> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Some(Name::from(text));
    }
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                units.extend(text.encode_utf16());
                break;
            }
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                units.extend(std::str::from_utf8(good).ok()?.encode_utf16());
                match bad {
                    [0xed, b @ 0xa0..=0xbf, c @ 0x80..=0xbf, after @ ..] => {
                        units.push(0xd000 | u16::from(b & 0x3f) << 6 | u16::from(c & 0x3f));
                        rest = after;
                    }
                    _ => return None,
                }
            }
        }
    }
    Some(Name(units.into()))
}

/// The Unix bytes of a WIM name.
pub fn name_to_bytes(name: &Name) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.0.len() + 8);
    for unit in char::decode_utf16(name.0.iter().copied()) {
        match unit {
            Ok(char) => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(error) => {
                let unit = error.unpaired_surrogate();
                out.push(0xed);
                out.push(0x80 | (unit >> 6 & 0x3f) as u8);
                out.push(0x80 | (unit & 0x3f) as u8);
            }
        }
    }
    out
}

fn swap_slashes(unit: u16) -> u16 {
    const SLASH: u16 = b'/' as u16;
    const BACKSLASH: u16 = b'\\' as u16;
    match unit {
        SLASH => BACKSLASH,
        BACKSLASH => SLASH,
        other => other,
    }
}

/// The reparse point for a Unix symbolic link; absolute targets get the drive `C:`, and the flag
/// that says nobody rewrote them. `None` if the target is not WTF-8 or longer than a reparse
/// point can be.
pub fn reparse_from_target(target: &[u8]) -> Option<Reparse> {
    let swapped: Vec<u16> = name_from_bytes(target)?.0.iter().copied().map(swap_slashes).collect();
    let is_absolute = target.first() == Some(&b'/');
    let (mut substitute, mut print) = (Vec::new(), Vec::new());
    if is_absolute {
        substitute.extend(r"\??\C:".encode_utf16());
        print.extend("C:".encode_utf16());
    }
    substitute.extend_from_slice(&swapped);
    print.extend_from_slice(&swapped);
    let substitute_bytes = u16::try_from(substitute.len() * 2).ok()?;
    let print_bytes = u16::try_from(print.len() * 2).ok()?;
    // Both names, their end marks and the head fit the 16 KiB NTFS allows.
    (u32::from(substitute_bytes) + u32::from(print_bytes) + 24 <= 16 * 1024).then_some(())?;
    let mut data = Vec::new();
    for field in [0, substitute_bytes, substitute_bytes + 2, print_bytes] {
        data.extend_from_slice(&field.to_le_bytes());
    }
    data.extend_from_slice(&u32::from(!is_absolute).to_le_bytes());
    for name in [&substitute, &print] {
        data.extend(name.iter().chain(&[0]).flat_map(|unit| unit.to_le_bytes()));
    }
    Some(Reparse { tag: reparse_tag::SYMLINK, flags: 1, data: data.into() })
}

/// The target a symbolic link or junction has on Unix. `None` for other reparse points and
/// damaged ones.
pub fn target_from_reparse(reparse: &Reparse) -> Option<Vec<u8>> {
    let data = &reparse.data;
    let u16_at = |at: usize| Some(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?));
    let names_at = match reparse.tag {
        reparse_tag::SYMLINK => 12,
        reparse_tag::MOUNT_POINT => 8,
        _ => return None,
    };
    let start = names_at + usize::from(u16_at(0)?);
    let bytes = data.get(start..start + usize::from(u16_at(2)?))?;
    let units: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let is_relative = reparse.tag == reparse_tag::SYMLINK && u16_at(8)? & 1 != 0;
    let mut target = units.as_slice();
    if !is_relative {
        for prefix in [r"\??\", r"\\?\"] {
            let prefix: Vec<u16> = prefix.encode_utf16().collect();
            if let Some(rest) = target.strip_prefix(prefix.as_slice()) {
                target = rest;
                break;
            }
        }
        if let [letter, colon, rest @ ..] = target
            && *colon == u16::from(b':')
            && u8::try_from(*letter).is_ok_and(|letter| letter.is_ascii_alphabetic())
        {
            target = rest;
        }
    }
    let swapped: Vec<u16> = target.iter().copied().map(swap_slashes).collect();
    (!swapped.is_empty()).then(|| name_to_bytes(&Name(swapped.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_comes_back() {
        for target in
            [&b"a/b"[..], b"/etc/passwd", b"/", b".", b"../x", b"we\\ird", "ä/€".as_bytes()]
        {
            let reparse = reparse_from_target(target).unwrap();
            assert_eq!(target_from_reparse(&reparse).as_deref(), Some(target));
        }
    }

    #[test]
    fn unpaired_surrogate_has_a_name_on_unix_and_latin_1_has_none_in_a_wim() {
        let name = Name([0x61, 0xd800, 0x62].into());
        assert_eq!(name_from_bytes(&name_to_bytes(&name)), Some(name));
        assert_eq!(name_from_bytes(b"caf\xe9"), None);
    }

    #[test]
    fn lengths_that_leave_the_data_are_refused() {
        let mut reparse = reparse_from_target(b"abc").unwrap();
        reparse.data[2] = 0xff;
        assert_eq!(target_from_reparse(&reparse), None);
    }
}
