//! Waiting for a merge: it runs on after `Remove-VMSnapshot` returned, and a disk captured before its end is
//! the old one.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    reply::Drive,
};

/// One look at a machine whose checkpoints merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeState {
    pub drives: Vec<Drive>,
    /// For each of the files asked about, whether it still exists.
    pub files_left: Vec<bool>,
}

impl MergeState {
    fn unmerged(&self) -> usize {
        let automatic = |drive: &&Drive| {
            let path = drive.path.to_ascii_lowercase();
            path.ends_with(".avhdx") || path.ends_with(".avhd")
        };
        self.drives.iter().filter(automatic).count()
            + self.files_left.iter().filter(|left| **left).count()
    }
}

/// Whether to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Done,
    LookAgain,
}

/// Judges looks. A look that succeeds after the deadline still counts.
#[derive(Debug, Clone)]
pub struct MergeWatch {
    subject: String,
    deadline: Duration,
}

impl MergeWatch {
    pub fn new(machine: &str, deadline: Duration) -> Self {
        Self { subject: format!("the checkpoints of {machine} to merge"), deadline }
    }

    pub fn look(&self, waited: Duration, state: &MergeState) -> Result<Verdict> {
        let left = state.unmerged();
        if left == 0 {
            return Ok(Verdict::Done);
        }
        if waited >= self.deadline {
            return Err(Error::TimedOut {
                subject: self.subject.clone(),
                after_ms: waited.as_millis().try_into().unwrap_or(u64::MAX),
                last_seen: format!("{left} differencing files"),
            });
        }
        Ok(Verdict::LookAgain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_that_ended_late_is_still_done_and_one_that_did_not_times_out() {
        let watch = MergeWatch::new("web", Duration::from_secs(5));
        let left = MergeState { drives: vec![], files_left: vec![false, true] };
        let done = MergeState { drives: vec![], files_left: vec![false] };
        assert_eq!(watch.look(Duration::ZERO, &left).unwrap(), Verdict::LookAgain);
        assert_eq!(watch.look(Duration::from_secs(9), &done).unwrap(), Verdict::Done);
        assert!(matches!(watch.look(Duration::from_secs(5), &left), Err(Error::TimedOut { .. })));
    }
}
