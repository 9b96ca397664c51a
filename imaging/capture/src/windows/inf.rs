//! The `[Version]` section of a driver's INF file: whose it is and which version.

use std::collections::HashMap;

/// What an INF says of its driver package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverInf {
    pub provider: Option<String>,
    pub class: Option<String>,
    /// `mm/dd/yyyy`, as it is written.
    pub date: Option<String>,
    pub version: Option<String>,
    pub catalog: Option<String>,
}

/// Reads the text of an INF. Names in `%percents%` come from its `[Strings]`.
pub fn parse_inf(text: &str) -> DriverInf {
    let mut section = String::new();
    let mut version: HashMap<String, String> = HashMap::new();
    let mut strings: HashMap<String, String> = HashMap::new();
    for line in text.lines() {
        let line = without_comment(line).trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = name.trim().to_lowercase();
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let into = match section.as_str() {
            "version" => &mut version,
            "strings" => &mut strings,
            _ => continue,
        };
        into.entry(key.trim().to_lowercase()).or_insert_with(|| value.trim().to_owned());
    }
    let value = |key: &str| -> Option<String> {
        let text = version.get(key)?.trim_matches('"');
        let resolved = match text.strip_prefix('%').and_then(|text| text.strip_suffix('%')) {
            Some(token) => strings.get(&token.to_lowercase())?.trim_matches('"'),
            None => text,
        };
        Some(resolved.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let driver_ver = value("driverver");
    let part = |i: usize| {
        let parts = driver_ver.as_deref()?.split(',').nth(i)?.trim();
        (!parts.is_empty()).then(|| parts.to_owned())
    };
    DriverInf {
        provider: value("provider"),
        class: value("class"),
        date: part(0),
        version: part(1),
        catalog: ["catalogfile", "catalogfile.ntamd64", "catalogfile.nt"]
            .iter()
            .find_map(|k| value(k)),
    }
}

/// Cuts at the first `;` outside quotes.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ';' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_strings_are_joined() {
        let inf = parse_inf(
            "; NetKVM\r\n[Version]\r\nSignature = \"$Windows NT$\"\r\nClass = Net ; network\r\n\
             Provider = %VENDOR%\r\nDriverVer = 07/11/2024,100.95.104.26200\r\n\
             CatalogFile.NTamd64 = netkvm.cat\r\n[Strings]\r\nVendor = \"Red Hat; Inc.\"\r\n",
        );
        assert_eq!(
            inf,
            DriverInf {
                provider: Some("Red Hat; Inc.".into()),
                class: Some("Net".into()),
                date: Some("07/11/2024".into()),
                version: Some("100.95.104.26200".into()),
                catalog: Some("netkvm.cat".into()),
            }
        );
    }
}
