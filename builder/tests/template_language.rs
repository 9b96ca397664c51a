//! The template language from outside: what is accepted, what it means, and how errors read.

use gilt::content_hash::Digest;
use gilt::lock::Digests;
use gilt::plan::{
    Build, CheckpointIndex, CheckpointInfo, LayerInputsRecord, LayerKey, PlanOptions, plan,
};
use gilt::template::{
    Action, BuildSpec, ByteSize, Code, Diagnostics, FileTransfer, Given, Guest, ResolveOptions,
    RuntimeValues, Start, Template,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A folder with `templates/t.yaml`, layers and what they need.
struct Project {
    dir: tempfile::TempDir,
}

const TEMPLATE: &str = r#"
name: debian-12-thin
description: Thin Debian 12 with Python and the current updates
include: [parts/debian.yaml]
variables:
  hostname: {type: string, default: gilt}
  apt_repo: {type: path, default: media/repo}
  token: {type: string, sensitive: true, env: MY_TOKEN, default: none-given}
profiles:
  ci: {machine: {memory: 768MiB}}
matrix:
  flavour: [plain, web]
source:
  iso: {path: media/installer.iso}
  answer:
    label: GILTCFG
    files: {answer.env: "HOSTNAME=${hostname}\nSSH_KEY=${build.ssh_public_key}\n"}
  http: {dir: http}
  boot_steps:
    - {wait_serial: "GNU GRUB", timeout: 90s, keys: "c", description: "grub prompt"}
  install_timeout: 10m
machine: {cpus: 2, memory: 1GiB, disk: 4GiB, firmware: uefi}
layers:
  - runtime-python
  - layer: updates
    name: updates-nov
    when: ${matrix.flavour} == "web"
    with: {as_of: 2026-11-22}
tests:
  - {name: python runs, shell: "python3 -c 'print(1)'", timeout: 30s}
publish: {channel: dev}
"#;

const PYTHON: &str = r#"
name: runtime-python
description: Python 3 from Debian's packages
guests: [linux]
parameters:
  packages: {type: list, default: [python3, python3-venv]}
inputs:
  repo: {path: "${var.apt_repo}", kind: dir}
provisioners:
  - shell: {script: install.sh, env: {PACKAGES: "${parameters.packages}"}, timeout: 10m, retries: 1}
  - file: {content: "host ${var.hostname}", destination: /etc/app.conf, mode: "0644"}
  - restart:
verify:
  - shell: python3 --version
"#;

const UPDATES: &str = r#"
name: updates
parameters:
  as_of: {type: string}
provisioners:
  - shell: {inline: ["apt-get -y upgrade"], as: root}
as_of: ${parameters.as_of}
max_age: 30d
"#;

impl Project {
    fn new() -> Self {
        let project = Self { dir: tempfile::tempdir().unwrap() };
        project.write("templates/t.yaml", TEMPLATE);
        project
            .write("templates/parts/debian.yaml", "guest: linux\nmachine: {tpm: false, cpus: 8}\n");
        project.write("templates/media/installer.iso", "an installer");
        project.write("templates/media/repo/Packages", "python3");
        project.write("templates/http/preseed.cfg", "d-i");
        project.write("layers/runtime-python/layer.yaml", PYTHON);
        project.write("layers/runtime-python/install.sh", "apt-get install");
        project.write("layers/updates/layer.yaml", UPDATES);
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

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}");
        self.write(name, &text.replace(from, to));
    }

    fn resolve(&self, options: &ResolveOptions) -> Result<Vec<BuildSpec>, Diagnostics> {
        let resolved = Template::load(&self.path("templates/t.yaml"))?.resolve(options)?;
        Ok(resolved.builds)
    }

    fn builds(&self) -> Vec<Build> {
        let specs =
            self.resolve(&ResolveOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        let mut digests = Digests::default();
        specs.into_iter().map(|spec| Build::new(spec, &mut digests).unwrap()).collect()
    }

    /// The complaint, with the folder's name taken out.
    fn complaint(&self) -> String {
        match self.resolve(&ResolveOptions::default()) {
            Err(error) => self.redact(&error.to_string()),
            Ok(_) => panic!("no complaint"),
        }
    }

    fn redact(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn var(name: &str, value: &str) -> ResolveOptions {
    let vars = vec![(name.to_owned(), value.to_owned())];
    ResolveOptions { given: Given { vars, ..Given::default() }, ..ResolveOptions::default() }
}

fn runtime() -> RuntimeValues {
    RuntimeValues {
        ssh_public_key: "ssh-ed25519 AAAA".into(),
        http: "http://10.0.2.2:8000".into(),
        name: "image".into(),
        id: "id".into(),
        username: "gilt-build".into(),
        password: "pw".into(),
    }
}

#[test]
fn a_template_resolves_to_one_typed_build_for_each_combination() {
    let project = Project::new();
    let builds =
        project.resolve(&ResolveOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<&str> = builds.iter().map(|build| build.name.as_str()).collect();
    assert_eq!(names, ["debian-12-thin-plain", "debian-12-thin-web"]);
    let web = &builds[1];
    assert_eq!(web.guest, Guest::Linux);
    assert_eq!(web.machine.cpus, 2, "the template wins over what it includes");
    assert_eq!(web.machine.memory, ByteSize::gib(1));
    assert_eq!(web.source.install_timeout, Duration::from_secs(600));
    let Start::Iso(iso) = &web.source.start else { panic!() };
    assert_eq!(iso.0.path(), Some(project.path("templates/media/installer.iso").as_path()));
    let answer = &web.source.answer.as_ref().unwrap().files["answer.env"];
    assert_eq!(answer.expand(&runtime()), "HOSTNAME=gilt\nSSH_KEY=ssh-ed25519 AAAA\n");

    let layers: Vec<&str> = web.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(layers, ["runtime-python", "updates-nov"]);
    assert_eq!(builds[0].layers.len(), 1);
    assert_eq!(builds[0].skipped[0].name, "updates-nov");
    let Action::Shell(shell) = &web.layers[0].provisioners[0].action else { panic!() };
    assert!(
        matches!(&shell.code, Code::Script(file) if file.path() == Some(&project.path("layers/runtime-python/install.sh")))
    );
    assert_eq!(shell.env["PACKAGES"].expand(&runtime()), "python3 python3-venv");
    assert_eq!((shell.timeout, shell.retries), (Duration::from_secs(600), 1));
    assert!(
        matches!(&web.layers[0].provisioners[1].action, Action::File(FileTransfer::Upload { mode: Some(mode), .. }) if mode.0 == 0o644)
    );
    assert!(
        web.layers[0].provisioners[0].location.ends_with("layers/runtime-python/layer.yaml:10")
    );
    assert_eq!(web.layers[1].as_of.unwrap().to_string(), "2026-11-22");
    assert_eq!(web.publish_image(), Some("debian-12-thin-web"));
}

#[test]
fn only_profiles_and_variables_change_the_builds() {
    let project = Project::new();
    let options = ResolveOptions {
        profiles: vec!["ci".into()],
        only: vec!["flavour=web".into()],
        ..var("hostname", "other")
    };
    let builds = project.resolve(&options).unwrap();
    assert_eq!(builds.len(), 1);
    assert_eq!(builds[0].machine.memory, ByteSize::mib(768));
    let answer = &builds[0].source.answer.as_ref().unwrap().files["answer.env"];
    assert!(answer.shown().starts_with("HOSTNAME=other\nSSH_KEY=${build.ssh_public_key}"));

    let mut options = ResolveOptions::default();
    options.given.environment.insert("MY_TOKEN".into(), "hunter2hunter2".into());
    let build = &project.resolve(&options).unwrap()[0];
    assert_eq!(build.secrets.scrub("x hunter2hunter2"), "x ***");
    assert!(!build.variables.contains_key("token"));
}

/// Changes one thing; what must differ is which layers' keys, and why.
#[test]
fn keys_change_with_what_a_guest_can_see_and_with_nothing_else() {
    let keys = |project: &Project| -> Vec<LayerKey> {
        project.builds()[1].steps().map(|(_, keyed)| keyed.key).collect()
    };
    type Edit = fn(&Project);
    let cases: &[(&str, Edit, usize)] = &[
        ("memory", |p| p.edit("templates/t.yaml", "memory: 1GiB", "memory: 2GiB"), 3),
        ("cpus", |p| p.edit("templates/t.yaml", "cpus: 2", "cpus: 4"), 3),
        (
            "timeouts",
            |p| {
                p.edit(
                    "layers/runtime-python/layer.yaml",
                    "timeout: 10m, retries: 1",
                    "timeout: 9m",
                )
            },
            3,
        ),
        (
            "descriptions",
            |p| p.edit("layers/runtime-python/layer.yaml", "Python 3 from", "From"),
            3,
        ),
        (
            "the image's name",
            |p| p.edit("templates/t.yaml", "name: debian-12-thin", "name: other"),
            3,
        ),
        (
            "the medium's name",
            |p| {
                p.edit("templates/t.yaml", "installer.iso", "renamed.iso");
                p.write("templates/media/renamed.iso", "an installer");
            },
            3,
        ),
        ("the layer's own script", |p| p.write("layers/runtime-python/install.sh", "other"), 1),
        ("an input's bytes", |p| p.write("templates/media/repo/Packages", "python4"), 1),
        ("the verify step", |p| p.edit("layers/runtime-python/layer.yaml", "--version", "-V"), 1),
        ("a parameter", |p| p.edit("templates/t.yaml", "2026-11-22", "2026-11-23"), 2),
        ("the disk's size", |p| p.edit("templates/t.yaml", "disk: 4GiB", "disk: 5GiB"), 0),
        ("the medium's bytes", |p| p.write("templates/media/installer.iso", "another"), 0),
        ("a served file", |p| p.write("templates/http/preseed.cfg", "other"), 0),
        (
            "a variable of the answer file",
            |p| p.edit("templates/t.yaml", "default: gilt", "default: tlig"),
            0,
        ),
    ];
    let before = keys(&Project::new());
    assert_eq!(before.len(), 3);
    for (what, edit, first_changed) in cases {
        let project = Project::new();
        edit(&project);
        let after = keys(&project);
        let same = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
        assert_eq!(same, *first_changed, "{what}");
        assert!(before[same..].iter().zip(&after[same..]).all(|(a, b)| a != b), "{what}");
    }
}

#[test]
fn images_of_a_matrix_share_the_keys_of_equal_layers() {
    let builds = Project::new().builds();
    assert_eq!(builds[0].install.key, builds[1].install.key);
    assert_eq!(builds[0].layers[0].key(), builds[1].layers[0].key());
    assert_ne!(builds[0].capture.key, builds[1].capture.key);
}

/// A change of this value makes every user build everything again: raise `KEY_FORMAT` and say so
/// in CHANGELOG.md.
#[test]
fn the_golden_key_stands() {
    let build = &Project::new().builds()[1];
    insta::assert_snapshot!(
        build
            .steps()
            .map(|(name, keyed)| format!("{name} {}", keyed.key))
            .collect::<Vec<_>>()
            .join("\n")
    );
    let inputs = &build.layers[0].keyed.inputs;
    insta::assert_snapshot!(inputs.named.keys().cloned().collect::<Vec<_>>().join("\n"));
}

#[derive(Default)]
struct Index {
    checkpoints: BTreeMap<LayerKey, CheckpointInfo>,
    last: BTreeMap<String, LayerInputsRecord>,
}

impl Index {
    fn of(build: &Build, age: Duration) -> Self {
        let mut index = Self::default();
        for (name, keyed) in build.steps() {
            let created = SystemTime::now() - age;
            index
                .checkpoints
                .insert(keyed.key, CheckpointInfo { created, seconds: 12.0, bytes: 1 << 20 });
            index.last.insert(name.to_owned(), LayerInputsRecord::from(keyed));
        }
        index
    }
}

impl CheckpointIndex for Index {
    fn find(&self, key: &LayerKey) -> Option<CheckpointInfo> {
        self.checkpoints.get(key).copied()
    }

    fn last_for(&self, _image: &str, layer: &str) -> Option<LayerInputsRecord> {
        self.last.get(layer).cloned()
    }

    fn last_duration(&self, _image: &str, layer: &str) -> Option<Duration> {
        self.last.contains_key(layer).then_some(Duration::from_secs(30))
    }
}

fn planned(build: &Build, index: &Index) -> String {
    let plan = plan(build, index, &PlanOptions::default());
    let lines = plan.steps.iter().map(|step| match step.is_reused() {
        true => format!("{}: reuse", step.name),
        false => format!("{}: run ({})", step.name, step.why()),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_plan_says_what_runs_and_why() {
    let day = Duration::from_secs(86_400);
    let project = Project::new();
    let build = &project.builds()[1];
    assert_eq!(
        planned(build, &Index::default()),
        "install: run (never built)\nruntime-python: run (never built)\nupdates-nov: run (never built)"
    );
    let index = Index::of(build, day);
    assert_eq!(planned(build, &index), "install: reuse\nruntime-python: reuse\nupdates-nov: reuse");

    assert_eq!(
        planned(build, &Index::of(build, 41 * day)),
        "install: reuse\nruntime-python: reuse\nupdates-nov: run (checkpoint is 41 days old, max_age is 30 days)"
    );

    let mut gone = Index::of(build, day);
    gone.checkpoints.remove(&build.layers[0].key());
    assert_eq!(planned(build, &gone), "install: reuse\nruntime-python: reuse\nupdates-nov: reuse");
    gone.checkpoints.remove(&build.layers[1].key());
    assert_eq!(
        planned(build, &gone),
        "install: reuse\nruntime-python: run (its checkpoint is no longer there)\nupdates-nov: run (runtime-python is made anew)"
    );

    project.write("layers/runtime-python/install.sh", "other");
    let changed = &project.builds()[1];
    assert_eq!(
        planned(changed, &index),
        "install: reuse\nruntime-python: run (install.sh changed)\nupdates-nov: run (runtime-python is made anew)"
    );

    project.edit("layers/runtime-python/layer.yaml", "[python3, python3-venv]", "[python3]");
    project.edit("templates/t.yaml", "disk: 4GiB", "disk: 6GiB");
    project.edit("templates/t.yaml", "default: gilt", "default: tlig");
    let changed = &project.builds()[1];
    assert_eq!(
        planned(changed, &index),
        "install: run (machine disk changed, variable hostname changed)\n\
         runtime-python: run (install.sh changed, parameter packages changed, variable hostname changed, install is made anew)\n\
         updates-nov: run (runtime-python is made anew)"
    );
}

#[test]
fn a_secret_is_in_no_key_and_no_output_but_changes_the_key() {
    let project = Project::new();
    project.edit("layers/runtime-python/layer.yaml", "host ${var.hostname}", "token ${var.token}");
    let build = |token: &str| {
        let spec = project.resolve(&var("token", token)).unwrap().remove(1);
        Build::new(spec, &mut Digests::default()).unwrap()
    };
    let one = build("s3cr3t-value");
    assert_ne!(one.layers[0].key(), build("another-one").layers[0].key());
    let shown = format!(
        "{one:?} {} {}",
        one.spec.to_json(),
        serde_json::to_string(&one.layers[0].keyed.inputs).unwrap()
    );
    assert!(!shown.contains("s3cr3t-value"));
    assert!(!shown.contains(&Digest::of(b"s3cr3t-value").to_string()));
}

#[test]
fn unknown_keys_name_the_nearest_and_all_mistakes_are_shown_at_once() {
    let project = Project::new();
    project.write(
        "templates/t.yaml",
        r#"name: bad
variables:
  size: {type: sise}
source: {iso: media/installer.iso, install_timout: 10m, boot_wait: 10}
machine: {memroy: 1GiB, firmware: efi, cpus: two, disk: 4}
communicatr: {type: ssh}
layers:
  - runtime-pyton
  - layer: updates
    with: {asof: 2026-11-22}
  - {name: x, provisioners: [{shel: ls}, {shell: {script: a.sh, inline: [b]}}, {file: {destination: /x}}]}
tests:
  - {name: t, shell: "echo ${nope} ${HOME:-x}"}
generalize: {keep: [machineid]}
"#,
    );
    insta::assert_snapshot!(project.complaint());
}

#[test]
fn layer_mistakes_point_into_the_layers_file() {
    let project = Project::new();
    project.edit(
        "layers/runtime-python/layer.yaml",
        "${parameters.packages}",
        "${parameters.package} ${packages}",
    );
    project.edit("layers/runtime-python/layer.yaml", "mode: \"0644\"", "mode: rw");
    project.edit("layers/updates/layer.yaml", "as_of: ${parameters.as_of}", "as_of: ${build.id}");
    insta::assert_snapshot!(project.complaint());
}

#[test]
fn broken_yaml_is_explained() {
    let project = Project::new();
    let complain = |text: &str| {
        project.write("templates/t.yaml", text);
        project.complaint()
    };
    let all = [
        "name: a\nsource: {iso: ${x}}\n",
        "name: a\n\tmachine: {}\n",
        "name: a\nname: b\n",
        "name: &a [*a]\n",
        "- list\n",
        "",
        "name: a\n---\nname: b\n",
        "name: a\ndescription: b: c\n",
        "name: !!str a\n<<: {}\n",
        "? [a]\n: b\n",
    ]
    .map(complain);
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn includes_in_a_circle_are_refused() {
    let project = Project::new();
    project.write("templates/parts/debian.yaml", "include: [../t.yaml]\n");
    insta::assert_snapshot!(project.complaint());
}

#[test]
fn a_missing_value_is_asked_for_once_and_hides_no_other_mistake() {
    let project = Project::new();
    project.edit("templates/t.yaml", "default: gilt}", "env: MY_HOST}");
    project.edit("templates/t.yaml", "cpus: 2", "cpus: -1");
    insta::assert_snapshot!(project.complaint());
}

#[test]
fn a_wrong_digest_and_missing_inputs_are_named() {
    let project = Project::new();
    project.edit(
        "templates/t.yaml",
        "installer.iso}",
        &format!("installer.iso, sha256: {:064}}}", 0),
    );
    fs::remove_file(project.path("layers/runtime-python/install.sh")).unwrap();
    let spec = project.resolve(&ResolveOptions::default()).unwrap().remove(0);
    let error = Build::new(spec, &mut Digests::default()).unwrap_err();
    assert!(matches!(error, gilt::plan::KeyError::Mismatch(_)));
    insta::assert_snapshot!(project.redact(&error.to_string()));
}

#[test]
fn windows_templates_are_typed() {
    let project = Project::new();
    project.write(
        "templates/t.yaml",
        r#"
name: windows-server-2025
guest: windows
variables: {key: {sensitive: true, default: AAAAA-BBBBB}}
source:
  iso: media/installer.iso
  windows: {image_name: Windows Server 2025 SERVERSTANDARD, product_key: "${key}", timezone: W. Europe Standard Time, drivers: [http]}
machine: {memory: 4GiB, disk: 40GiB, tpm: true, secure_boot: true, disk_interface: sata, net_device: e1000e}
communicator: {username: builder, port: 2222}
layers:
  - name: updates
    provisioners:
      - windows-update: {search_criteria: "IsInstalled=0", filters: ["exclude:$_.Title -like '*Preview*'", "include:$true"], require: {ubr: 2314, kbs: [KB5044284]}}
      - windows-restart: {restart_timeout: 15m}
      - powershell: {inline: ["Get-Service"], as: system, valid_exit_codes: [0, 3010]}
      - windows-shell: {inline: [ver]}
      - windows-install: {source: media/installer.iso, arguments: [/quiet]}
      - windows-feature: {capabilities: [Language.Basic~~~de-DE~0.0.1.0]}
      - windows-cleanup: {reset_base: false}
generalize: {sysprep: {mode: oobe, vm: true}}
"#,
    );
    let builds =
        project.resolve(&ResolveOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    insta::assert_json_snapshot!(
        serde_json::from_str::<serde_json::Value>(
            &project.redact(&builds[0].to_json().to_string())
        )
        .unwrap()
    );
}

#[test]
fn paths_are_relative_to_the_file_they_stand_in() {
    let project = Project::new();
    project.edit("templates/t.yaml", "  iso: {path: media/installer.iso}\n", "");
    project.write("templates/parts/debian.yaml", "source: {iso: ../media/installer.iso}\n");
    let builds = project.resolve(&ResolveOptions::default()).unwrap();
    let Start::Iso(iso) = &builds[0].source.start else { panic!() };
    assert_eq!(
        iso.0.path(),
        Some(project.path("templates/media/installer.iso").as_path() as &Path)
    );
}

#[test]
fn keys_that_cannot_be_typed_and_names_that_cannot_be_set_are_refused() {
    let project = Project::new();
    project.edit("templates/t.yaml", "keys: \"c\"", "keys: \"c<wait5><entr>\"");
    project.edit("templates/t.yaml", "GNU GRUB", "/GNU (GRUB/");
    project.edit(
        "templates/t.yaml",
        "  install_timeout: 10m\n",
        "  install_timeout: 10m\n  boot_wait: 1s\n",
    );
    project.edit(
        "layers/runtime-python/layer.yaml",
        "env: {PACKAGES:",
        "env: {1X: a, GILT_LAYER: b, PACKAGES:",
    );
    insta::assert_snapshot!(project.complaint());
}

#[test]
fn a_reference_to_a_list_among_items_stands_for_its_items() {
    let project = Project::new();
    project.edit(
        "layers/runtime-python/layer.yaml",
        "script: install.sh,",
        "script: install.sh, args: [install, \"${parameters.packages}\"],",
    );
    let build = &project.resolve(&ResolveOptions::default()).unwrap()[0];
    let Action::Shell(shell) = &build.layers[0].provisioners[0].action else { panic!() };
    let args: Vec<String> = shell.args.iter().map(|arg| arg.expand(&runtime())).collect();
    assert_eq!(args, ["install", "python3", "python3-venv"]);
}

#[test]
fn variables_are_taken_from_the_nearest_place_and_checked() {
    let project = Project::new();
    project.edit("templates/t.yaml", "  token:", "  count: {type: int, default: 1, min: 1, max: 9, env: MY_COUNT}\n  edition: {one_of: [a, b], default: a}\n  token:");
    project.edit("templates/t.yaml", "default: gilt}", "file: host.txt, default: gilt}");
    project.edit(
        "templates/t.yaml",
        "description: Thin",
        "description: ${count} ${edition} ${hostname} Thin",
    );
    project.write("v.yaml", "count: 3\nedition: b\n");
    let description = |options: &ResolveOptions| match project.resolve(options) {
        Ok(builds) => builds[0].description.clone().unwrap(),
        Err(error) => project.redact(&error.to_string()),
    };
    let mut options = ResolveOptions::default();
    let mut shown = vec![description(&options)];
    project.write("templates/host.txt", "from-file\n");
    shown.push(description(&options));
    options.given.environment.insert("MY_COUNT".into(), "2".into());
    shown.push(description(&options));
    options.given.environment.insert("GILT_VAR_count".into(), "4".into());
    shown.push(description(&options));
    options.given.var_files.push(project.path("v.yaml"));
    shown.push(description(&options));
    options.given.vars.push(("count".into(), "5".into()));
    shown.push(description(&options));
    options.given.vars.extend([
        ("count".into(), "12".into()),
        ("editon".into(), "c".into()),
        ("edition".into(), "c".into()),
    ]);
    shown.push(description(&options));
    project.write("v.yaml", "count: x\neditions: b\n");
    options.given.vars.clear();
    shown.push(description(&options));
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn old_layers_are_warned_of() {
    let project = Project::new();
    project.edit("templates/t.yaml", "as_of: 2026-11-22", "as_of: 2020-01-01");
    let template = Template::load(&project.path("templates/t.yaml")).unwrap();
    let resolved = template.resolve(&ResolveOptions::default()).unwrap();
    assert_eq!(resolved.warnings.len(), 1);
    assert!(resolved.warnings[0].message.starts_with("layer `updates-nov` is as of 2020-01-01, "));
}

/// Whatever is typed, gilt answers with builds or with complaints that point into the file.
#[test]
fn no_text_makes_the_reader_panic() {
    let project = Project::new();
    let path = project.path("templates/t.yaml");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "\n",
        "\t",
        "\"",
        "'",
        "${",
        "$${",
        "}",
        "&a ",
        "*a",
        "|\n",
        "null",
        "é",
        "<<: ",
        "# ",
        "when: ",
        "${matrix.flavour}",
        "${build.http}",
        "!!x ",
        "---\n",
        "9999999999999999999",
        "-1",
        "\u{feff}",
        "\0",
    ];
    let mut complaints = 0;
    for _ in 0..1500 {
        let mut text: Vec<char> = TEMPLATE.chars().collect();
        for _ in 0..1 + random(4) {
            let at = random(text.len());
            match random(3) {
                0 => {
                    let end = (at + 1 + random(20)).min(text.len());
                    text.drain(at..end);
                }
                1 => {
                    let piece: Vec<char> = pieces[random(pieces.len())].chars().collect();
                    text.splice(at..at, piece);
                }
                _ => {
                    let end = (at + 1 + random(30)).min(text.len());
                    let copy = text[at..end].to_vec();
                    let to = random(text.len());
                    text.splice(to..to, copy);
                }
            }
        }
        let text: String = text.into_iter().collect();
        let result = Template::from_text(&path, text.clone())
            .and_then(|template| template.resolve(&ResolveOptions::default()));
        if let Err(error) = result {
            complaints += 1;
            for diagnostic in &error.0 {
                let Some(place) = &diagnostic.at else { continue };
                assert!(
                    place.start.line >= 1 && place.start.column >= 1 && place.start <= place.end,
                    "{place:?} in {text:?}"
                );
            }
            assert!(!error.to_string().is_empty());
        }
    }
    assert!(complaints > 500, "only {complaints} of the texts were wrong");
}
