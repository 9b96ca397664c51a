//! One line that names the cause, from what the guest left on its serial line and in its output.

/// A pattern in a guest's last words, and what it means. Searched from the end: the last match in
/// the text wins, for the first trouble named there is often a symptom of nothing.
struct Sign {
    pattern: &'static str,
    meaning: &'static str,
}

/// Sources: messages of the Linux kernel, systemd, GRUB, OVMF, apt and dpkg, as printed by
/// Debian 12's versions of them.
const SIGNS: &[Sign] = &[
    Sign { pattern: "Kernel panic - not syncing", meaning: "the guest's kernel panicked" },
    Sign {
        pattern: "VFS: Unable to mount root fs",
        meaning: "the kernel found no root file system",
    },
    Sign { pattern: "gilt-install: FAILED", meaning: "the installer gave up" },
    Sign {
        pattern: "No bootable option or device was found",
        meaning: "the firmware found nothing to boot",
    },
    Sign { pattern: "BdsDxe: failed to load", meaning: "the firmware could not load a boot entry" },
    Sign { pattern: "grub rescue>", meaning: "GRUB did not find its files" },
    Sign { pattern: "You are in emergency mode", meaning: "systemd stopped in emergency mode" },
    Sign { pattern: "Out of memory: Killed process", meaning: "the guest ran out of memory" },
    Sign { pattern: "No space left on device", meaning: "the guest's disk is full" },
    Sign { pattern: "EXT4-fs error", meaning: "the guest's file system is damaged" },
    Sign { pattern: "I/O error", meaning: "the guest's disk gave I/O errors" },
    Sign {
        pattern: "Temporary failure resolving",
        meaning: "the guest resolved no host name; it has no network but the host's",
    },
    Sign {
        pattern: "Unable to locate package",
        meaning: "apt does not know a package; is it in the served repository?",
    },
    Sign { pattern: "Could not get lock /var/lib/dpkg", meaning: "another apt runs in the guest" },
    Sign { pattern: "dpkg: error processing", meaning: "dpkg failed on a package" },
    Sign { pattern: "command not found", meaning: "a script called a program the guest lacks" },
    Sign { pattern: "Permission denied", meaning: "a script was refused access" },
];

/// What was seen: the sign and the line it stood in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clue {
    pub meaning: String,
    pub line: String,
}

/// Looks for the last telling line in `text` (serial log or command output).
pub fn diagnose(text: &str) -> Option<Clue> {
    // Panics outrank all: what follows one is noise.
    let panic = &SIGNS[0];
    let find = |signs: &[Sign]| {
        text.lines().rev().find_map(|line| {
            let sign = signs.iter().find(|sign| line.contains(sign.pattern))?;
            let line = line.trim().chars().take(200).collect();
            Some(Clue { meaning: sign.meaning.to_owned(), line })
        })
    };
    find(std::slice::from_ref(panic)).or_else(|| find(&SIGNS[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_outranks_what_is_printed_after_it() {
        let text = "Kernel panic - not syncing: Attempted to kill init!\nI/O error, dev vda\n";
        let clue = diagnose(text).unwrap();
        assert_eq!(clue.meaning, "the guest's kernel panicked");
        assert!(clue.line.ends_with("kill init!"));
    }

    #[test]
    fn the_last_sign_wins() {
        let text = "sh: 1: foo: Permission denied\nE: Unable to locate package nosuch\nbye\n";
        assert_eq!(diagnose(text).unwrap().line, "E: Unable to locate package nosuch");
    }

    #[test]
    fn an_innocent_log_has_no_clue() {
        assert_eq!(diagnose("Debian GNU/Linux 12 gilt ttyS0\n\ngilt login:"), None);
    }
}
