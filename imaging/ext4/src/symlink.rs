//! Unix symbolic links as Windows reparse points, the way other WIM tools store them.
//!
//! `/` and `\` change places; a relative target is both names, an absolute one becomes
//! `\??\C:\etc\x` with the print name `C:\etc\x`. ([MS-FSCC] 2.1.2.4, and what wimlib-imagex writes.)

use crate::bytes::{le16, le32, take};
use gilt_wim::tree::{Reparse, reparse_tag};

const RELATIVE: u32 = 1;

/// `None` when the target has no form in UTF-16 or is too long for a reparse point.
pub fn symlink_reparse(target: &[u8]) -> Option<Reparse> {
    let text = std::str::from_utf8(target).ok()?;
    let swapped: Vec<u16> = text
        .chars()
        .map(|c| match c {
            '/' => '\\',
            '\\' => '/',
            other => other,
        })
        .collect::<String>()
        .encode_utf16()
        .collect();
    let absolute = target.first() == Some(&b'/');
    let with =
        |prefix: &str| -> Vec<u16> { prefix.encode_utf16().chain(swapped.clone()).collect() };
    let (substitute, print) =
        if absolute { (with(r"\??\C:"), with("C:")) } else { (with(""), with("")) };
    let bytes = |units: &[u16]| u16::try_from(units.len() * 2).ok();
    let (substitute_len, print_len) = (bytes(&substitute)?, bytes(&print)?);
    let mut data = Vec::new();
    data.extend(0_u16.to_le_bytes());
    data.extend(substitute_len.to_le_bytes());
    data.extend(substitute_len.checked_add(2)?.to_le_bytes());
    data.extend(print_len.to_le_bytes());
    data.extend(if absolute { 0 } else { RELATIVE }.to_le_bytes());
    for name in [&substitute, &print] {
        data.extend(name.iter().flat_map(|unit| unit.to_le_bytes()));
        data.extend([0; 2]);
    }
    // A reparse point has at most 16 KiB with its header of 8 bytes.
    (data.len() <= 16 * 1024 - 8).then(|| Reparse {
        tag: reparse_tag::SYMLINK,
        flags: 0,
        data: data.into(),
    })
}

/// The Unix target of a symbolic link made by [`symlink_reparse`] or by wimlib.
pub fn symlink_target(reparse: &Reparse) -> Option<Vec<u8>> {
    if reparse.tag != reparse_tag::SYMLINK {
        return None;
    }
    let raw = &reparse.data;
    let (offset, len) = (usize::from(le16(raw, 0)?), usize::from(le16(raw, 2)?));
    let relative = le32(raw, 8)? & RELATIVE != 0;
    let name = raw.get(12 + offset..12 + offset + len)?;
    let units: Vec<u16> = (0..name.len() / 2)
        .filter_map(|index| take(name, index * 2).map(u16::from_le_bytes))
        .collect();
    let text = String::from_utf16(&units).ok()?;
    let path = if relative {
        text.as_str()
    } else {
        // `\??\C:` and any other drive.
        let path = text.strip_prefix(r"\??\").unwrap_or(&text);
        match path.as_bytes() {
            [_, b':', ..] => &path[2..],
            _ => path,
        }
    };
    let swapped = path.chars().map(|c| match c {
        '/' => '\\',
        '\\' => '/',
        other => other,
    });
    Some(swapped.collect::<String>().into_bytes())
}
