//! The shipped Windows templates and layers are read, planned and shown as a user does it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    // With its drive: gilt runs elsewhere.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["win.iso", "OpenSSH-Win64.zip", "virtio-win.iso"] {
            std::fs::write(files.dir.path().join(name), name).unwrap();
        }
        files
    }

    fn gilt(&self, args: &[&str], template: &Path, more: &[&str]) -> Output {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let text = std::fs::read_to_string(template).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gilt"));
        command.args(args).arg(template).args(["--var", &format!("iso={}", at("win.iso"))]);
        if text.contains("  openssh:") {
            command.args(["--var", &format!("openssh={}", at("OpenSSH-Win64.zip"))]);
        }
        if more.contains(&"virtio") {
            command.args(["--var", &format!("virtio_iso={}", at("virtio-win.iso"))]);
        }
        command
            .args(more)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GILT_HOME", self.dir.path().join("home"))
            .output()
            .unwrap()
    }
}

fn templates() -> Vec<PathBuf> {
    ["windows-11", "windows-10", "windows-server-2022", "windows-server-2025"]
        .iter()
        .map(|name| root().join("templates").join(format!("{name}.yaml")))
        .collect()
}

fn good(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn every_template_is_valid_and_can_be_planned() {
    let files = Files::new();
    for template in templates() {
        let name = template.file_stem().unwrap().to_string_lossy().into_owned();
        good(&files.gilt(&["validate"], &template, &[]));
        let plan = good(&files.gilt(&["plan"], &template, &[]));
        for step in ["install", "windows-updates", "windows-cleanup"] {
            assert!(plan.contains(step), "{name}: {plan}");
        }
        let shown =
            good(&files.gilt(&["answer-file", "show"], &template, &["--profile", "virtio"]));
        assert!(shown.contains("urn:schemas-microsoft-com:unattend"), "{shown}");
        assert!(shown.contains("/IMAGE/NAME"), "{shown}");
    }
}

#[test]
fn profiles_change_the_answer_file() {
    let files = Files::new();
    let template = root().join("templates/windows-11.yaml");
    let plain = good(&files.gilt(&["answer-file", "show"], &template, &[]));
    let key = |text: &str| text.contains("<Key>&lt;hidden&gt;</Key>");
    assert!(key(&plain) && plain.contains("Windows 11 Pro"), "{plain}");
    assert!(!plain.contains("BypassTPMCheck") && !plain.contains("VK7JG"));
    let shown =
        |profile| good(&files.gilt(&["answer-file", "show"], &template, &["--profile", profile]));
    let evaluation = shown("evaluation");
    assert!(evaluation.contains("Windows 11 Enterprise Evaluation"), "{evaluation}");
    assert!(!key(&evaluation), "{evaluation}");
    assert!(shown("no-requirements").contains("BypassTPMCheck"));
}

fn with(text: &str) -> (Files, PathBuf) {
    let files = Files::new();
    let template = files.dir.path().join("t.yaml");
    std::fs::write(&template, text).unwrap();
    (files, template)
}

fn refused(text: &str) -> String {
    let (files, template) = with(text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_gilt"));
    let output = command
        .arg("validate")
        .arg(&template)
        .env("GILT_HOME", files.dir.path().join("home"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_windows_would_refuse_is_refused_when_the_template_is_read() {
    let layer = |provisioner: &str| {
        format!(
            "name: w\nguest: windows\nsource: {{iso: win.iso}}\nlayers:\n  - {{name: u, provisioners: [{provisioner}]}}\n"
        )
    };
    let text =
        refused(&layer("{windows-update: {search_criteria: \"IsInstalled=0 or Title='x'\"}}"));
    assert!(text.contains("there is no property `Title`"), "{text}");
    let text = refused(&layer("{windows-update: {filters: [\"$true\"]}}"));
    assert!(text.contains("include:"), "{text}");
    let text =
        refused("name: w\nguest: windows\nsource: {iso: win.iso}\ncommunicator: {type: winrm}\n");
    assert!(text.contains("OpenSSH"), "{text}");
    let text = refused(
        "name: w\nguest: windows\nsource: {iso: win.iso}\ntests:\n  - {name: t, powershell: \"exit 0\"}\n",
    );
    assert!(text.contains("cannot start a captured Windows image yet"), "{text}");
}

/// Every Windows layer of the catalogue, each with what it asks for.
#[test]
fn every_layer_of_the_catalogue_is_valid() {
    let layers: Vec<String> = std::fs::read_dir(root().join("layers"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("windows-"))
        .collect();
    assert!(layers.len() >= 6, "{layers:?}");
    let list: String = layers
        .iter()
        .map(|layer| match layer.as_str() {
            "windows-updates" => {
                format!("  - {{layer: {layer}, with: {{as_of: \"2026-11-01\"}}}}\n")
            }
            _ => format!("  - {layer}\n"),
        })
        .collect();
    let (files, template) = with(&format!(
        "name: w\nguest: windows\nvariables:\n  sxs: {{type: path, default: sxs}}\n  vcredist: {{type: path, default: vc.exe}}\n  dotnet: {{type: path, default: dotnet.exe}}\n  msi: {{type: path, default: app.msi}}\nsource: {{iso: win.iso}}\nlayers:\n{list}"
    ));
    std::fs::create_dir(files.dir.path().join("sxs")).unwrap();
    for name in ["sxs/a.cab", "vc.exe", "dotnet.exe", "app.msi"] {
        std::fs::write(files.dir.path().join(name), name).unwrap();
    }
    let catalogue = root().join("layers").display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_gilt"))
        .arg("plan")
        .arg(&template)
        .args(["--layers-dir", &catalogue])
        .current_dir(files.dir.path())
        .env("GILT_HOME", files.dir.path().join("home"))
        .output()
        .unwrap();
    let plan = good(&output);
    assert!(layers.iter().all(|layer| plan.contains(layer.as_str())), "{plan}");
}
