//! The commands that need no machine, run as a user runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let project = Self { dir: tempfile::tempdir().unwrap() };
        project.write(
            "templates/t.yaml",
            r#"name: thin
description: A thin image
include: [parts/base.yaml]
variables:
  token: {sensitive: true, default: hunter2hunter2}
profiles:
  ci: {machine: {memory: 768MiB}}
matrix: {flavour: [plain, web]}
source: {iso: {path: media/installer.iso}}
layers:
  - runtime
  - {layer: app, when: "${matrix.flavour} == web", with: {greeting: hello}}
"#,
        );
        project.write("templates/parts/base.yaml", "machine: {disk: 4GiB}\n");
        project.write("templates/media/installer.iso", "an installer");
        project.write(
            "layers/runtime/layer.yaml",
            "name: runtime\ndescription: A runtime\nguests: [linux]\nparameters:\n  packages: {type: list, default: [a, b], description: What to install}\ninputs: {repo: {path: repo, kind: dir}}\nprovisioners:\n  - shell: {script: install.sh, env: {TOKEN: \"${var.token}\"}}\nverify:\n  - shell: \"true\"\n",
        );
        project.write("layers/runtime/install.sh", "echo");
        project.write("layers/runtime/repo/Packages", "a\nb\n");
        project.write(
            "layers/app/layer.yaml",
            "name: app\nparameters: {greeting: {}}\nprovisioners:\n  - file: {content: \"${parameters.greeting}\", destination: /etc/greeting}\n",
        );
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn gilt(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_gilt"))
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GILT_HOME", self.path("home"))
            .output()
            .unwrap()
    }

    /// Exit code, stdout and stderr as one text.
    fn shown(&self, args: &[&str]) -> String {
        let output = self.gilt(args);
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).replace(&format!("{}/", self.dir.path().display()), "")
        };
        format!(
            "$ gilt {}\n{}{}[exit code {}]\n",
            args.join(" "),
            text(&output.stdout),
            text(&output.stderr),
            output.status.code().unwrap_or(-1)
        )
    }
}

#[test]
fn help_says_what_each_command_does() {
    let project = Project::new();
    let shown = ["validate", "plan", "inspect", "lock", "schema", "fmt"]
        .map(|command| project.shown(&[command, "--help"]));
    insta::assert_snapshot!(shown.join("\n"));
    insta::assert_snapshot!(
        ["ls", "show", "why"]
            .map(|command| project.shown(&["layers", command, "--help"]))
            .join("\n")
    );
}

#[test]
fn validate_counts_mistakes_and_checks_profiles() {
    let project = Project::new();
    let good = project.shown(&["validate", "templates/t.yaml"]);
    let profile =
        fs::read_to_string(project.path("templates/t.yaml")).unwrap().replace("768MiB", "768");
    project.write("templates/t.yaml", &profile);
    let bad = project.shown(&["validate", "templates/t.yaml"]);
    let json = project.shown(&["--json", "validate", "templates/t.yaml"]);
    let missing = project.shown(&["validate", "nothing.yaml"]);
    insta::assert_snapshot!([good, bad, json, missing].join("\n"));
}

#[test]
fn validate_reads_no_media() {
    let project = Project::new();
    fs::remove_file(project.path("templates/media/installer.iso")).unwrap();
    assert!(project.gilt(&["validate", "templates/t.yaml"]).status.success());
    let plan = project.shown(&["plan", "templates/t.yaml"]);
    assert!(
        plan.contains("there is no file templates/media/installer.iso")
            && plan.ends_with("[exit code 2]\n"),
        "{plan}"
    );
}

#[test]
fn plan_shows_layers_and_reasons() {
    let project = Project::new();
    insta::assert_snapshot!(project.shown(&["plan", "templates/t.yaml", "--only", "thin-plain"]));
    let json = project.gilt(&["plan", "templates/t.yaml", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["plans"][1]["steps"][2]["do"], "run");
    assert_eq!(json["plans"][1]["steps"][2]["why"][0]["reason"], "never-built");
    assert_eq!(json["plans"][0]["skipped"][0]["name"], "app");
}

#[test]
fn layers_are_listed_shown_and_explained() {
    let project = Project::new();
    let shown = [
        project.shown(&["layers", "ls"]),
        project.shown(&["layers", "show", "runtime"]),
        project.shown(&["layers", "show", "runtme"]),
        project.shown(&["layers", "why", "templates/t.yaml", "app"]),
        project.shown(&["layers", "why", "templates/t.yaml", "ap"]),
    ];
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn a_lock_file_lists_every_input_and_locked_refuses_another() {
    let project = Project::new();
    let unlocked = project.shown(&["plan", "templates/t.yaml", "--locked"]);
    let first = project.shown(&["lock", "templates/t.yaml"]);
    let text = fs::read_to_string(project.path("templates/gilt.lock")).unwrap();
    let again = project.shown(&["lock", "templates/t.yaml", "--check"]);
    assert!(project.gilt(&["plan", "templates/t.yaml", "--locked"]).status.success());
    project.write("layers/runtime/repo/Packages", "a\nc\n");
    let changed = project.shown(&["plan", "templates/t.yaml", "--locked"]);
    let checked = project.shown(&["lock", "templates/t.yaml", "--check"]);
    insta::assert_snapshot!([unlocked, first, text, again, changed, checked].join("\n"));
    assert!(project.gilt(&["lock", "templates/t.yaml"]).status.success());
    assert!(project.gilt(&["plan", "templates/t.yaml", "--locked"]).status.success());
}

#[test]
fn inspect_shows_what_was_understood_and_no_secret() {
    let project = Project::new();
    let shown =
        project.shown(&["inspect", "templates/t.yaml", "--only", "flavour=web", "--profile", "ci"]);
    assert!(!shown.contains("hunter2"));
    insta::assert_snapshot!(shown);
}

#[test]
fn fmt_tidies_and_check_only_tells() {
    let project = Project::new();
    project.write("templates/parts/base.yaml", "machine: {disk: 4GiB}   \n\n\n\n# end\n\n");
    let told = project.shown(&["fmt", "--check", "templates/parts/base.yaml", "templates/t.yaml"]);
    assert!(told.ends_with("[exit code 2]\n") && told.contains("1 of 2 files"), "{told}");
    assert!(project.gilt(&["fmt", "templates/parts/base.yaml"]).status.success());
    let text = fs::read_to_string(project.path("templates/parts/base.yaml")).unwrap();
    assert_eq!(text, "machine: {disk: 4GiB}\n\n# end\n");
    assert!(project.gilt(&["fmt", "--check", "templates/parts/base.yaml"]).status.success());
}

/// The files in docs are what the types say; `GILT_BLESS=1` writes them anew.
#[test]
fn the_schemas_and_references_in_docs_are_current() {
    let project = Project::new();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let files: [(&str, &[&str]); 4] = [
        ("template.schema.json", &["schema", "template"]),
        ("layer.schema.json", &["schema", "layer"]),
        ("template-reference.md", &["schema", "template", "--reference"]),
        ("layer-reference.md", &["schema", "layer", "--reference"]),
    ];
    for (name, args) in files {
        let output = project.gilt(args);
        assert!(output.status.success());
        let now = String::from_utf8(output.stdout).unwrap();
        let path = docs.join(name);
        if std::env::var_os("GILT_BLESS").is_some() {
            fs::create_dir_all(&docs).unwrap();
            fs::write(&path, &now).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(there == now, "docs/{name} is out of date; run this test with GILT_BLESS=1");
    }
}
