//! Windows Update: what is asked for, what comes back, and when to stop.
//!
//! ```text
//! search ─ filter ─ install ─ restart ─┐
//!    ▲                                 │   ends when nothing is found,
//!    └─────────────────────────────────┘   or nothing gets any further
//! ```

mod criteria;
mod packages;

use crate::request::{FoundUpdate, UpdateResult, UpdateRound};
use std::collections::BTreeMap;

pub use criteria::{CriteriaError, check_criteria};
pub use packages::{PackageError, order_packages};

/// Checks `include:CONDITION` and `exclude:CONDITION`.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let (kind, condition) = filter
        .split_once(':')
        .ok_or_else(|| format!("`{filter}` begins with neither `include:` nor `exclude:`"))?;
    if !matches!(kind, "include" | "exclude") {
        return Err(format!("`{kind}:` is neither `include:` nor `exclude:`"));
    }
    if condition.trim().is_empty() {
        return Err(format!("`{filter}` has no condition; `$true` is one that always holds"));
    }
    Ok(())
}

/// `OperationResultCode` in words.
pub fn outcome(code: i64) -> &'static str {
    match code {
        0 => "not started",
        1 => "in progress",
        2 => "installed",
        3 => "installed with errors",
        4 => "failed",
        5 => "aborted",
        _ => "unknown",
    }
}

/// Codes of the Windows Update Agent worth a word of their own, and what to do.
const CODES: &[(u32, &str)] = &[
    (0x0024_0005, "a restart is needed first"),
    (0x8007_0005, "access denied: the Windows Update Agent does not install from a remote session"),
    (0x8024_001e, "the update service was stopped in the middle"),
    (0x8024_0009, "another search or installation is under way"),
    (0x8024_0016, "another installation or a restart is pending"),
    (0x8024_0017, "the update does not fit this system"),
    (0x8024_0019, "an update that must be installed alone was not"),
    (0x8024_0020, "the update needs a user who is logged on; exclude it"),
    (0x8024_0022, "all updates of the round failed"),
    (0x8024_0024, "there was no update to install"),
    (0x8024_200d, "the update must be downloaded again"),
    (0x8024_402c, "the update server's name does not resolve; has the guest a network?"),
    (0x8024_4022, "the update server answers 503"),
    (0x8007_0070, "the guest's disk is full"),
    (0x8007_3712, "the component store is damaged or a checkpoint package is missing"),
    (0x800f_0823, "a servicing operation is pending; restart first"),
    (0x800f_081e, "the package does not fit this system"),
    (0x800f_0922, "the package could not be installed; often the system partition is full"),
];

/// An HRESULT as `0x8024200d: what it means`.
pub fn hresult_words(hresult: i64) -> String {
    let code = u32::try_from(hresult & 0xFFFF_FFFF).unwrap_or(0);
    match CODES.iter().find(|(of, _)| *of == code) {
        Some((_, words)) => format!("0x{code:08x}: {words}"),
        None => format!("0x{code:08x}"),
    }
}

/// What one round says about the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is left.
    Done,
    /// Restart, and search again.
    Restart,
    /// These do not get any further.
    Stuck(Vec<String>),
}

/// Remembers rounds: how often an update failed, or came back although it was installed.
#[derive(Clone, Debug)]
pub struct Rounds {
    max_retries: u32,
    tries: BTreeMap<String, u32>,
    /// The last result of each update, by id.
    results: BTreeMap<String, UpdateResult>,
    /// Updates that may ask a person.
    skipped: BTreeMap<String, String>,
}

impl Rounds {
    pub fn new(max_retries: u32) -> Self {
        Self {
            max_retries,
            tries: BTreeMap::new(),
            results: BTreeMap::new(),
            skipped: BTreeMap::new(),
        }
    }

    pub fn take(&mut self, round: &UpdateRound) -> Next {
        for update in round.found.iter().filter(|update| update.interactive) {
            self.skipped.insert(update.id.clone(), name(update));
        }
        for result in &round.results {
            *self.tries.entry(result.id.clone()).or_insert(0) += 1;
            self.results.insert(result.id.clone(), result.clone());
        }
        let open: Vec<&FoundUpdate> =
            round.found.iter().filter(|update| !update.interactive).collect();
        if open.is_empty() {
            return Next::Done;
        }
        let tries = |update: &&&FoundUpdate| self.tries.get(&update.id).copied().unwrap_or(0);
        let stuck: Vec<String> = open
            .iter()
            .filter(|update| tries(update) > self.max_retries)
            .map(|update| match self.results.get(&update.id) {
                Some(result) if result.hresult != 0 => {
                    format!("{} ({})", name(update), hresult_words(result.hresult))
                }
                Some(result) if result.code == 2 => {
                    format!("{} (is found again after each installation)", name(update))
                }
                Some(result) => format!("{} ({})", name(update), outcome(result.code)),
                None => name(update),
            })
            .collect();
        // What was found and not even tried gets no further either.
        if !stuck.is_empty() {
            return Next::Stuck(stuck);
        }
        if round.results.is_empty() {
            return Next::Stuck(open.iter().map(|update| name(update)).collect());
        }
        Next::Restart
    }

    /// The table for the log: what, how it ended.
    pub fn table(&self) -> Vec<String> {
        let mut rows: Vec<String> = self
            .results
            .values()
            .map(|result| {
                let kbs = if result.kbs.is_empty() { "-".into() } else { result.kbs.join(" ") };
                let error = match result.hresult {
                    0 => String::new(),
                    code => format!(" {}", hresult_words(code)),
                };
                format!("{kbs}  {}{error}  {}", outcome(result.code), result.title)
            })
            .collect();
        rows.extend(
            self.skipped.values().map(|name| format!("skipped, it may ask a person  {name}")),
        );
        rows.sort();
        rows
    }
}

fn name(update: &FoundUpdate) -> String {
    match update.kbs.first() {
        Some(kb) => format!("{kb} {}", update.title),
        None => update.title.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: &str) -> FoundUpdate {
        FoundUpdate { id: id.into(), title: id.into(), ..FoundUpdate::default() }
    }

    fn result(id: &str, code: i64, hresult: i64) -> UpdateResult {
        UpdateResult { id: id.into(), title: id.into(), code, hresult, ..UpdateResult::default() }
    }

    #[test]
    fn rounds_go_on_until_nothing_is_found() {
        let mut rounds = Rounds::new(1);
        let first = UpdateRound {
            found: vec![found("a"), found("b")],
            results: vec![result("a", 2, 0), result("b", 2, 0)],
            ..UpdateRound::default()
        };
        assert_eq!(rounds.take(&first), Next::Restart);
        let second = UpdateRound {
            found: vec![found("c")],
            results: vec![result("c", 2, 0)],
            ..UpdateRound::default()
        };
        assert_eq!(rounds.take(&second), Next::Restart);
        assert_eq!(rounds.take(&UpdateRound::default()), Next::Done);
        assert_eq!(rounds.table().len(), 3);
    }

    #[test]
    fn one_that_comes_back_for_ever_ends_the_rounds_by_name() {
        let mut rounds = Rounds::new(2);
        let round = UpdateRound {
            found: vec![found("x")],
            results: vec![result("x", 4, -2_145_124_318)],
            ..UpdateRound::default()
        };
        assert_eq!(rounds.take(&round), Next::Restart);
        assert_eq!(rounds.take(&round), Next::Restart);
        let Next::Stuck(names) = rounds.take(&round) else { panic!("stuck") };
        assert_eq!(names, ["x (0x80240022: all updates of the round failed)"]);
    }

    #[test]
    fn what_may_ask_a_person_is_left_out_and_told() {
        let mut rounds = Rounds::new(2);
        let mut update = found("asks");
        update.interactive = true;
        let round = UpdateRound { found: vec![update], ..UpdateRound::default() };
        assert_eq!(rounds.take(&round), Next::Done);
        assert_eq!(rounds.table(), ["skipped, it may ask a person  asks"]);
    }

    #[test]
    fn codes_of_the_documentation() {
        for (code, word) in [
            (-2_147_024_891, "0x80070005"),
            (-2_145_116_147, "0x8024200d"),
            (0x0024_0005, "0x00240005"),
        ] {
            let words = hresult_words(code);
            assert!(words.starts_with(word) && words.len() > word.len(), "{words}");
        }
        let names: Vec<_> = (0..6).map(outcome).collect();
        assert_eq!(names[2..5], ["installed", "installed with errors", "failed"]);
    }

    #[test]
    fn filters() {
        assert!(check_filter("include:$true").is_ok());
        assert!(check_filter("exclude:$_.Title -like '*Preview*'").is_ok());
        for bad in ["$true", "only:$true", "include:", "exclude:  "] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
    }
}
