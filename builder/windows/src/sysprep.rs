//! How a run of Sysprep stands, from what it leaves: never from its exit code (facts 4.3, 4.4).
//!
//! ```text
//! tag   running   what it means
//! no    yes       at work
//! yes   yes       nearly done
//! yes   no        done
//! no    no        failed, and the machine with it
//! ```

use crate::request::SysprepWatch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Working,
    Done,
    Failed,
}

/// Where a run stands.
pub fn standing(watch: &SysprepWatch) -> Standing {
    match (watch.tag, watch.running) {
        (_, true) => Standing::Working,
        (true, false) => Standing::Done,
        (false, false) => Standing::Failed,
    }
}

/// `ImageState` and what it says of an image (Windows Setup states).
pub fn image_state_words(state: &str) -> &'static str {
    match state {
        "IMAGE_STATE_COMPLETE" => "installed, bound to this machine",
        // The documentation prints it with a blank in it.
        "IMAGE_STATE_UNDEPLOYABLE" | "IMAGE_STATE _UNDEPLOYABLE" => "half way, never deployable",
        "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE" => "generalized, starts with the welcome",
        "IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT" => "generalized, starts in audit mode",
        "IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE" => "specialized, starts with the welcome",
        "IMAGE_STATE_SPECIALIZE_RESEAL_TO_AUDIT" => "specialized, starts in audit mode",
        _ => "a state gilt does not know",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_and_process_decide_and_the_exit_code_does_not() {
        for (tag, running, exit_code, expected) in [
            (false, true, None, Standing::Working),
            (true, true, None, Standing::Working),
            (true, false, Some(0), Standing::Done),
            (true, false, Some(1), Standing::Done),
            (false, false, Some(0), Standing::Failed),
            (false, false, None, Standing::Failed),
        ] {
            let watch = SysprepWatch {
                tag,
                running,
                exit_code,
                image_state: Some("IMAGE_STATE_COMPLETE".into()),
                ..SysprepWatch::default()
            };
            assert_eq!(standing(&watch), expected, "{watch:?}");
        }
    }

    #[test]
    fn states_of_the_documentation() {
        for (state, deployable) in [
            ("IMAGE_STATE_COMPLETE", false),
            ("IMAGE_STATE_UNDEPLOYABLE", false),
            ("IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE", true),
            ("IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT", true),
            ("IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE", false),
        ] {
            assert_eq!(image_state_words(state).starts_with("generalized"), deployable, "{state}");
        }
    }
}
