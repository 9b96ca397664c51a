//! Windows from its medium to a version, on the stand-in (`tests/guests/windows-stand-in`): real disks, hives, logs and restarts
//! of something that is not Windows. All share one installation; each failure is asked for by a scenario.

use gilt_tests::{Bench, root};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn bench() -> Bench {
    let bench = Bench::new();
    let medium = root().join("templates/media/windows-stand-in/install.iso");
    assert!(medium.exists(), "needs {}: run tests/guests/windows-stand-in/build", medium.display());
    bench
}

/// A template over the installed stand-in, whose first layer says how it is to behave.
fn template(bench: &Bench, name: &str, scenario: &Value, more: &str) -> PathBuf {
    let base = root().join("tests/templates/windows-base.yaml");
    let text = format!(
        "name: {name}\ninclude: [{}]\nlayers:\n- name: scenario\n  provisioners:\n  - powershell:\n      inline:\n      - >-\n        \
         Set-Content -Path C:\\ProgramData\\stand-in\\scenario.json -Value '{scenario}'\n{more}",
        base.display()
    );
    let path = bench.dir.path().join(format!("{name}.yaml"));
    std::fs::write(&path, text).expect("write a template");
    path
}

fn update(number: u32, title: &str, ubr: u32) -> Value {
    json!({
        "id": format!("00000000-0000-0000-0000-{number:012}"),
        "title": title,
        "kb": format!("KB{number}"),
        "ubr": ubr,
    })
}

fn wimlib(arguments: &[&str], wim: &Path) -> String {
    let done = Command::new("wimlib-imagex")
        .arg(arguments[0])
        .arg(wim)
        .args(&arguments[1..])
        .output()
        .expect("needs wimlib-imagex: run ci/setup");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn a_medium_becomes_a_version_with_its_inventory() {
    let bench = bench();
    // The home is shared by runs of this test: a scenario no earlier one had, so that every layer really runs.
    let rounds = json!({"run": bench.dir.path(), "updates": {"rounds": [
        [update(5_044_284, "Servicing stack", 2033), update(5_044_030, ".NET Framework", 0)],
        [update(5_048_667, "Cumulative Update for Windows", 2605)],
        [update(5_050_009, "Cumulative Update for Windows", 2894)],
    ]}});
    let more = "- name: updates\n  provisioners:\n  - windows-update: {require: {ubr: 2894, kbs: [KB5050009]}}\n\
                - name: program\n  provisioners:\n  - powershell: 'Set-Content -Path C:\\Tools\\tool.txt -Value one'\n  - windows-restart: {}\n";
    let template = template(&bench, "windows-whole", &rounds, more);
    let done = bench.build(&template, &["--publish"]);
    done.assert_code(0);
    let notes: Vec<&str> = done.named("note").filter_map(|event| event["text"].as_str()).collect();
    let restarts = notes.iter().filter(|note| note.starts_with("updates: round")).count();
    assert!(restarts >= 4, "three rounds and one that finds nothing: {notes:#?}");

    let shown = bench.gilt(&["store", "show", "windows-whole@1", "--json"]);
    shown.assert_code(0);
    let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let os = find(&shown, "os").expect("what the system is");
    assert_eq!(os["name"], "Windows Server 2025 Standard");
    assert_eq!(os["edition"], "ServerStandard");
    assert_eq!(os["build"], "26100.2894");
    assert_eq!(os["languages"], json!(["en-US"]));
    let updates = os["updates"].to_string();
    for kb in ["KB5044284", "KB5044030", "KB5048667", "KB5050009"] {
        assert!(updates.contains(kb), "{kb} is not in {updates}");
    }
    assert!(os["packages"].to_string().contains("Update Health Tools"), "{os}");

    let wim = bench.dir.path().join("pulled.wim");
    bench.gilt(&["pull", "windows-whole@1", "-o", &wim.display().to_string()]).assert_code(0);
    wimlib(&["verify"], &wim);
    let xml = bench.dir.path().join("image.xml");
    wimlib(&["info", "--extract-xml", &xml.display().to_string()], &wim);
    let xml = std::fs::read(&xml).expect("the XML");
    let xml: String =
        char::decode_utf16(xml.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])))
            .map(|c| c.unwrap_or('?'))
            .collect();
    for element in [
        "<EDITIONID>ServerStandard</EDITIONID>",
        "<BUILD>26100</BUILD>",
        "<SPBUILD>2894</SPBUILD>",
        "<ARCH>9</ARCH>",
        "<DEFAULT>en-US</DEFAULT>",
    ] {
        assert!(xml.contains(element), "no {element} in {xml}");
    }

    // The bill of materials of the image itself says the same.
    let bill = bench.gilt(&["inventory", &format!("{}:1", wim.display()), "--cyclonedx"]);
    bill.assert_code(0);
    assert!(bill.stdout.contains("pkg:generic/windows/update/KB5050009@"), "{}", bill.stdout);

    let listed = wimlib(&["dir", "1"], &wim);
    assert!(listed.contains("/Tools/tool.txt") || listed.contains(r"\Tools\tool.txt"), "{listed}");
    assert!(listed.contains("Winre.wim"), "the recovery environment is lost");
    for gone in ["gilt-build", "ProgramData/gilt", "ssh_host_", "authorized_keys", "scenario.json"]
    {
        assert!(!listed.contains(gone), "{gone} is in the image");
    }
    bench.assert_nothing_left();
}

/// The first value of that name, however deep.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => {
            map.get(name).or_else(|| map.values().find_map(|value| find(value, name)))
        }
        Value::Array(items) => items.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}

fn sysprep_errors(evidence: &Path) -> String {
    let path = evidence.join("guest/Windows-System32-Sysprep-Panther/setuperr.log");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn servicing_that_never_ends_is_called_so_in_time() {
    let bench = bench();
    let scenario = json!({"updates": {
        "rounds": [[update(5_044_284, "Servicing stack", 2033)]], "servicing-never-ends": true,
    }});
    let more = "- name: updates\n  provisioners:\n  - windows-update: {restart_timeout: 60s}\n";
    let done = bench.build(&template(&bench, "windows-servicing", &scenario, more), &[]);
    done.assert_failed(5, "TiWorker");
    let log = done.evidence().join("guest/Windows-Logs-CBS/CBS.log");
    let log = std::fs::read_to_string(log).expect("the log of servicing");
    assert!(log.contains("Package_for_KB5044284"), "{log}");
    bench.assert_nothing_left();
}

#[test]
fn an_update_that_fails_again_and_again_is_named() {
    let bench = bench();
    let mut bad = update(5_044_284, "Cumulative Update for Windows", 2033);
    bad["code"] = json!(4);
    bad["hresult"] = json!("0x80073712");
    let scenario = json!({"updates": {"rounds": [[bad]]}});
    let more = "- name: updates\n  provisioners:\n  - windows-update: {update_max_retries: 1, restart_timeout: 3m}\n";
    let done = bench.build(&template(&bench, "windows-update-fails", &scenario, more), &[]);
    done.assert_failed(4, "KB5044284");
    bench.assert_nothing_left();
}

#[test]
fn an_app_of_one_user_is_found_before_sysprep_runs() {
    let bench = bench();
    let scenario = json!({"appx": [{
        "name": "Contoso.App", "fullName": "Contoso.App_1.0.0.0_x64__abc", "users": ["S-1-5-21-1-2-3-1001"], "provisioned": false,
    }]});
    let done = bench.build(&template(&bench, "windows-appx", &scenario, ""), &[]);
    done.assert_failed(4, "Contoso.App_1.0.0.0_x64__abc");
    assert!(done.stderr.contains("Remove-AppxPackage"), "no cure in: {}", done.stderr);
    bench.assert_nothing_left();
}

#[test]
fn an_app_that_blocks_sysprep_is_named_with_its_cure() {
    let bench = bench();
    let scenario =
        json!({"sysprep": "appx", "sysprep-appx": {"fullName": "Contoso.App_1.0.0.0_x64__abc"}});
    let done = bench.build(&template(&bench, "windows-sysprep-appx", &scenario, ""), &[]);
    done.assert_failed(4, "Contoso.App_1.0.0.0_x64__abc");
    assert!(sysprep_errors(&done.evidence()).contains("0x80073cf2"));
    bench.assert_nothing_left();
}

#[test]
fn a_sysprep_that_returns_0_and_did_nothing_is_no_success() {
    let bench = bench();
    let done = bench.build(
        &template(&bench, "windows-sysprep-lies", &json!({"sysprep": "returns-0"}), ""),
        &[],
    );
    done.assert_failed(4, "IMAGE_STATE_COMPLETE");
    bench.assert_nothing_left();
}

#[test]
fn a_tag_without_the_registrys_word_is_no_proof() {
    let bench = bench();
    let done = bench
        .build(&template(&bench, "windows-sysprep-half", &json!({"sysprep": "half"}), ""), &[]);
    done.assert_failed(4, "does not prove that Windows was generalized");
    bench.assert_nothing_left();
}
