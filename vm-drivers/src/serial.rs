//! What a guest said on its serial line: reading it, waiting for it, and telling what it means.

use std::{
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use regex::Regex;
use tokio::time::Instant;

use crate::{
    driver::ExitWatch,
    error::{Error, Result},
};

/// Lines shown with a failure.
/// How often the log is looked at for a panic.
const PANIC_POLL: Duration = Duration::from_millis(250);
const TAIL_LINES: usize = 40;
/// The most that is searched at once; a guest that writes faster than we look loses the oldest.
const WINDOW_BYTES: u64 = 1 << 20;
const POLL: Duration = Duration::from_millis(50);

/// The file a machine's serial line is written to.
#[derive(Clone, Debug)]
pub struct SerialLog {
    path: PathBuf,
    /// Where this machine's words begin; before that are an earlier machine's.
    begin: u64,
}

/// What to look for.
#[derive(Clone, Debug)]
pub enum SerialPattern {
    Literal(String),
    Regex(Regex),
}

impl SerialPattern {
    /// `/…/` is a regular expression, anything else is taken literally.
    pub fn parse(text: &str) -> Result<Self> {
        match text.strip_prefix('/').and_then(|t| t.strip_suffix('/')).filter(|t| !t.is_empty()) {
            Some(source) => Regex::new(source).map(Self::Regex).map_err(|e| Error::Malformed {
                what: format!("regular expression {text}"),
                reason: e.to_string(),
            }),
            None => Ok(Self::Literal(text.into())),
        }
    }

    fn find(&self, text: &str) -> Option<(usize, usize)> {
        match self {
            Self::Literal(literal) => text.find(literal).map(|at| (at, at + literal.len())),
            Self::Regex(regex) => regex.find(text).map(|m| (m.start(), m.end())),
        }
    }
}

impl std::fmt::Display for SerialPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(literal) => write!(f, "{literal:?}"),
            Self::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

/// A found pattern and where to look on from.
#[derive(Clone, Debug)]
pub struct SerialMatch {
    pub text: String,
    /// Offset in the log just behind the match.
    pub end: u64,
}

impl SerialLog {
    /// A log whose present contents, if any, belong to the past.
    pub fn continuing(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let begin = std::fs::metadata(&path).map(|m| m.len()).unwrap_or(0);
        Self { path, begin }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where this machine's words begin.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    pub fn end(&self) -> u64 {
        std::fs::metadata(&self.path).map(|m| m.len()).unwrap_or(0)
    }

    /// Raw bytes from `offset`, at most the last MiB, and the offset they begin at.
    pub fn read_from(&self, offset: u64) -> (Vec<u8>, u64) {
        let read = || -> std::io::Result<(Vec<u8>, u64)> {
            let mut file = std::fs::File::open(&self.path)?;
            let start = offset.max(file.metadata()?.len().saturating_sub(WINDOW_BYTES));
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(WINDOW_BYTES).read_to_end(&mut bytes)?;
            Ok((bytes, start))
        };
        // A guest that has said nothing yet has no file.
        read().unwrap_or((Vec::new(), offset))
    }

    /// Waits, without end, until the guest's kernel gives up, and returns the line that says so.
    pub async fn kernel_panic(&self) -> String {
        let pattern = regex::Regex::new(r"(?m)^(?:\[ *[0-9.]+\] )?Kernel panic - not syncing: .*$");
        let Ok(pattern) = pattern.map(SerialPattern::Regex) else {
            return std::future::pending().await;
        };
        let mut from = self.begin();
        loop {
            tokio::time::sleep(PANIC_POLL).await;
            if let Some(found) = self.find(&pattern, from) {
                return found.text;
            }
            // A line that is only half there is looked at again.
            from = from.max(self.end().saturating_sub(512));
        }
    }

    /// The last lines this machine said, without control sequences.
    pub fn tail(&self) -> String {
        let (bytes, _) = self.read_from(self.begin.max(self.end().saturating_sub(32 << 10)));
        let text = plain_text(&bytes).text;
        let lines: Vec<&str> =
            text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    pub fn last_line(&self) -> String {
        self.tail().lines().last().unwrap_or_default().to_owned()
    }

    /// Looks once.
    pub fn find(&self, pattern: &SerialPattern, from: u64) -> Option<SerialMatch> {
        let (bytes, start) = self.read_from(from);
        let plain = plain_text(&bytes);
        let (begin, end) = pattern.find(&plain.text)?;
        Some(SerialMatch {
            text: plain.text[begin..end].to_owned(),
            end: start + plain.raw_end(end) as u64,
        })
    }

    /// Waits until the guest says something, looking from `from` on.
    pub async fn wait_for(
        &self,
        pattern: &SerialPattern,
        from: u64,
        limit: Duration,
        exit: &ExitWatch,
    ) -> Result<SerialMatch> {
        let subject = format!("{pattern} on the serial line");
        let deadline = Instant::now() + limit;
        let mut seen = u64::MAX;
        loop {
            // Both are read before the search, so that last words and late words still count.
            let ended = exit.ended();
            let late = Instant::now() >= deadline;
            let end = self.end();
            if end != seen {
                seen = end;
                if let Some(found) = self.find(pattern, from) {
                    return Ok(found);
                }
            }
            if let Some(reason) = ended {
                return Err(Error::Ended { subject, reason, serial_tail: self.tail() });
            }
            if late {
                let last = self.last_line();
                return Err(Error::TimedOut {
                    subject,
                    after: limit,
                    last_seen: if last.is_empty() { "nothing at all".into() } else { last },
                    serial_tail: self.tail(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Text freed of terminal control sequences, with the way back to the raw bytes.
pub struct PlainText {
    pub text: String,
    /// For each byte of `text`, the raw offset just behind what it came from.
    raw_ends: Vec<u32>,
}

impl PlainText {
    fn raw_end(&self, text_end: usize) -> usize {
        match text_end.checked_sub(1) {
            Some(last) => self.raw_ends.get(last).map_or(0, |e| *e as usize),
            None => 0,
        }
    }
}

/// Drops escape sequences (ECMA-48) and control characters other than tab and newline. Firmware
/// and boot loaders place every few characters with them.
pub fn plain_text(bytes: &[u8]) -> PlainText {
    let mut text = String::with_capacity(bytes.len());
    let mut raw_ends = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == 0x1b {
            at += escape_length(&bytes[at..]);
            continue;
        }
        let (piece, length) = match byte {
            b'\n' | b'\t' | 0x20..=0x7e => (char::from(byte), 1),
            0..=0x1f | 0x7f => {
                at += 1;
                continue;
            }
            _ => utf8_char(&bytes[at..]),
        };
        at += length;
        text.push(piece);
        raw_ends.resize(text.len(), u32::try_from(at).unwrap_or(u32::MAX));
    }
    PlainText { text, raw_ends }
}

fn utf8_char(bytes: &[u8]) -> (char, usize) {
    for length in 2..=4.min(bytes.len()) {
        if let Ok(text) = std::str::from_utf8(&bytes[..length])
            && let Some(c) = text.chars().next()
        {
            return (c, length);
        }
    }
    (char::REPLACEMENT_CHARACTER, 1)
}

fn escape_length(bytes: &[u8]) -> usize {
    match bytes.get(1) {
        // CSI: parameters and intermediates, then one final byte.
        Some(b'[') => 2 + bytes[2..].iter().take_while(|b| (0x20..=0x3f).contains(*b)).count() + 1,
        // OSC: up to BEL or ST.
        Some(b']') => bytes.iter().position(|b| *b == 7).map_or(bytes.len(), |end| end + 1),
        Some(b'(' | b')') => 3,
        Some(_) => 2,
        None => 1,
    }
    .min(bytes.len())
}

/// A sentence for the words a dying or stuck boot is known by.
pub fn diagnose(text: &str) -> Option<String> {
    const KNOWN: &[(&str, &str)] = &[
        ("Kernel panic - not syncing", "the guest's kernel panicked"),
        ("You are in emergency mode", "the guest dropped to emergency mode"),
        ("dracut-emergency", "the guest's initrd found no root"),
        ("Gave up waiting for root", "the guest's initrd found no root"),
        ("No bootable device", "the firmware found nothing to boot"),
        ("No bootable option or device", "the firmware found nothing to boot"),
        ("grub rescue>", "the boot loader found no configuration"),
        ("Not enough memory", "the guest has too little memory"),
        ("Out of memory: Killed process", "the guest ran out of memory"),
        ("No space left on device", "a disk of the guest is full"),
        ("Security Violation", "Secure Boot refused the boot loader"),
        ("Access Denied", "Secure Boot refused the boot loader"),
    ];
    let (_, meaning, line) = KNOWN
        .iter()
        .filter_map(|(sign, meaning)| {
            let at = text.rfind(sign)?;
            let begin = text[..at].rfind('\n').map_or(0, |n| n + 1);
            let line = text[begin..].lines().next().unwrap_or_default().trim();
            Some((at, meaning, line))
        })
        .max_by_key(|(at, ..)| *at)?;
    Some(format!("{meaning}: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    #[test]
    fn control_sequences_do_not_hide_words() {
        let raw = b"\x1b[2J\x1b[01;01H G\x1b[0;37mNU \x1b[1;1HGRUB\r\n\x1b(Bok \xc3\xa9\xff";
        assert_eq!(plain_text(raw).text, " GNU GRUB\nok \u{e9}\u{fffd}");
    }

    #[tokio::test]
    async fn the_next_wait_begins_behind_the_last_match() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial.log");
        std::fs::write(&path, "old login:\n").unwrap();
        let log = SerialLog::continuing(&path);
        let exit = ExitWatch::never();
        let login = SerialPattern::parse("/log.n:/").unwrap();
        assert!(log.wait_for(&login, log.begin(), SOON, &exit).await.unwrap_err().is_timeout());
        let mut text = b"old login:\n".to_vec();
        text.extend_from_slice(b"\x1b[1mlo\x1b[0mgin: one\nlogin: two");
        std::fs::write(&path, &text).unwrap();
        let first = log.wait_for(&login, log.begin(), SOON, &exit).await.unwrap();
        assert_eq!(&text[first.end as usize..][..4], b" one");
        let second = log.wait_for(&login, first.end, SOON, &exit).await.unwrap();
        assert_eq!(&text[second.end as usize..], b" two");
        assert!(log.find(&login, second.end).is_none());
    }

    #[tokio::test]
    async fn a_dead_machine_ends_the_wait_at_once_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial.log");
        std::fs::write(&path, "").unwrap();
        let log = SerialLog::continuing(&path);
        std::fs::write(&path, "booting\nKernel panic - not syncing: no init\n").unwrap();
        let (sender, exit) = ExitWatch::channel();
        sender.send_replace(Some(crate::ExitReason::PoweredOff));
        let begun = Instant::now();
        let pattern = SerialPattern::Literal("never".into());
        let error = log.wait_for(&pattern, 0, Duration::from_secs(60), &exit).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(error.serial_tail().unwrap().contains("no init"));
        assert_eq!(
            diagnose(error.serial_tail().unwrap()).unwrap(),
            "the guest's kernel panicked: Kernel panic - not syncing: no init"
        );
        // What it said before it died still counts as seen.
        let pattern = SerialPattern::Literal("booting".into());
        log.wait_for(&pattern, 0, SOON, &exit).await.unwrap();
    }
}
