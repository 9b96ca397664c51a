//! CLIXML: what a PowerShell without a console writes to stderr in place of text.

/// Readable lines of what a guest wrote: `#< CLIXML` and its XML become the text of errors,
/// warnings and the like; anything else stays as it is. Progress says nothing and goes.
pub fn readable(text: &str) -> String {
    let Some(start) = text.find("#< CLIXML") else { return text.to_owned() };
    let (before, rest) = text.split_at(start);
    let mut out = before.to_owned();
    let mut rest = rest;
    while let Some(at) = rest.find("<S S=\"") {
        rest = &rest[at + 6..];
        let Some(name_end) = rest.find("\">") else { break };
        let stream = &rest[..name_end];
        rest = &rest[name_end + 2..];
        let Some(end) = rest.find("</S>") else { break };
        if !stream.eq_ignore_ascii_case("progress") {
            out.push_str(&unescape(&rest[..end]));
        }
        rest = &rest[end + 4..];
    }
    out
}

/// `_x000D_` and XML's own five.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("_x") {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 2..at + 6).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match (code.and_then(char::from_u32), rest.get(at + 6..at + 7)) {
            (Some('\r'), Some("_")) => rest = &rest[at + 7..],
            (Some(c), Some("_")) => {
                out.push(c);
                rest = &rest[at + 7..];
            }
            _ => {
                out.push_str("_x");
                rest = &rest[at + 2..];
            }
        }
    }
    out.push_str(rest);
    out.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form of real output; the text is ours.
    const SAMPLE: &str = "#< CLIXML\r\n<Objs Version=\"1.1.0.1\" xmlns=\"http://schemas.microsoft.com/powershell/2004/04\">\
        <Obj S=\"progress\" RefId=\"0\"><TN RefId=\"0\"><T>System.Management.Automation.PSCustomObject</T></TN><MS><I64 N=\"SourceId\">1</I64></MS></Obj>\
        <S S=\"Error\">Get-Item : no such &lt;path&gt;_x000D__x000A_</S><S S=\"Error\">At line:1_x000D__x000A_</S></Objs>";

    #[test]
    fn errors_become_lines_and_progress_goes() {
        assert_eq!(readable(SAMPLE), "Get-Item : no such <path>\nAt line:1\n");
        assert_eq!(readable("plain\n"), "plain\n");
        assert_eq!(
            readable(&format!("before\n{SAMPLE}")),
            "before\nGet-Item : no such <path>\nAt line:1\n"
        );
    }

    #[test]
    fn damaged_text_ends_quietly() {
        for cut in 0..SAMPLE.len() {
            if SAMPLE.is_char_boundary(cut) {
                readable(&SAMPLE[..cut]);
            }
        }
        assert_eq!(unescape("_x00_x_ _xZZZZ_ ü_x00e4_"), "_x00_x_ _xZZZZ_ üä");
    }
}
