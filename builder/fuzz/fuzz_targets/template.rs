//! Any text -> a template or complaints; never a panic, a hang, or a place outside the text.
#![no_main]

use gilt::template::{ResolveOptions, Template};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    // An include would read files of this machine.
    if text.contains("include") || text.contains("file") {
        return;
    }
    let path = Path::new("/nowhere/templates/t.yaml");
    let built = Template::from_text(path, text.to_owned())
        .and_then(|template| template.resolve(&ResolveOptions::default()));
    match built {
        Ok(resolved) => {
            for build in resolved.builds {
                let _ = build.to_json();
            }
        }
        Err(problems) => {
            for problem in &problems.0 {
                if let Some(place) = &problem.at {
                    assert!(place.start <= place.end);
                }
            }
            let _ = problems.to_string();
        }
    }
});
