//! Any text as an answer file, a guest's answer, criteria, CLIXML or a log.
#![no_main]

use gilt_windows::answer::AnswerFile;
use gilt_windows::request::{Boot, Preflight, UpdateRound, last_answer};
use gilt_windows::{clixml, diagnosis, update};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(file) = AnswerFile::parse(text) {
        let _ = file.render();
    }
    let _ = last_answer::<Boot>(text);
    let _ = last_answer::<Preflight>(text);
    let _ = last_answer::<UpdateRound>(text);
    let _ = update::check_criteria(text);
    let _ = clixml::readable(text);
    let _ = diagnosis::classify(text);
});
