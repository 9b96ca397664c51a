//! Proof of a new boot. No single value proves it: `BootId` can be missing or stand still,
//! `LastBootUpTime` moves with the clock and not at a fast start (facts 2.5).

use crate::request::{Boot, Pending};

/// How far `LastBootUpTime` must move to be another boot and not a corrected clock.
const MOVED_SECONDS: i64 = 300;

/// Whether `after` is provably another boot than `before`. What is unknown proves nothing.
pub fn is_new_boot(before: &Boot, after: &Boot) -> bool {
    if let (Some(before), Some(after)) = (before.boot_id, after.boot_id)
        && before != after
    {
        return true;
    }
    let seconds = |boot: &Boot| boot.last_boot.as_deref().and_then(seconds);
    match (seconds(before), seconds(after)) {
        (Some(before), Some(after)) => (after - before).abs() > MOVED_SECONDS,
        _ => false,
    }
}

/// Seconds of a `2026-11-26T01:02:03Z`.
pub fn seconds(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24;
    if !in_range || !text.ends_with('Z') {
        return None;
    }
    // Days since the epoch of a proleptic Gregorian date, counted from 1 March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// What really waits for a restart, in words; `None` when nothing does.
pub fn waits_for(boot: &Boot) -> Option<String> {
    let hard: Vec<&str> = hard(&boot.pending).collect();
    match (hard.is_empty(), boot.servicing) {
        (true, false) => None,
        (true, true) => Some("servicing still works".into()),
        (false, _) => Some(hard.join(", ")),
    }
}

/// The sources that are no false alarms.
pub fn hard(pending: &[Pending]) -> impl Iterator<Item = &str> {
    pending.iter().filter(|pending| !pending.soft).map(|pending| pending.source.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(id: Option<i64>, last: Option<&str>) -> Boot {
        Boot { boot_id: id, last_boot: last.map(str::to_owned), ..Boot::default() }
    }

    #[test]
    fn one_of_two_signs_must_prove_it() {
        let at = |minute: u32| format!("2026-11-26T01:{minute:02}:00Z");
        let cases = [
            (boot(Some(1), None), boot(Some(2), None), true),
            (boot(Some(1), None), boot(Some(1), None), false),
            (boot(None, None), boot(None, None), false),
            (boot(None, None), boot(Some(2), None), false),
            // A corrected clock moves it a little.
            (boot(Some(1), Some(&at(1))), boot(Some(1), Some(&at(6))), false),
            (boot(Some(1), Some(&at(1))), boot(Some(1), Some(&at(7))), true),
            (boot(None, Some(&at(7))), boot(None, Some(&at(1))), true),
            (boot(None, Some("rubbish")), boot(None, Some(&at(1))), false),
        ];
        for (before, after, new) in cases {
            assert_eq!(is_new_boot(&before, &after), new, "{before:?} {after:?}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2024-02-29T12:00:01Z"), Some(1_709_208_001));
        for bad in
            ["", "2026-11-26", "2026-13-26T01:02:03Z", "2026-11-26T01:02:03", "äää-11-26T01:02:03Z"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn soft_signs_wait_for_nothing() {
        let pending = |source: &str, soft| Pending { source: source.into(), soft };
        let mut boot = boot(None, None);
        boot.pending = vec![pending("PendingFileRenameOperations", true)];
        assert_eq!(waits_for(&boot), None);
        boot.pending.push(pending("CBS RebootPending", false));
        assert_eq!(waits_for(&boot).as_deref(), Some("CBS RebootPending"));
    }
}
