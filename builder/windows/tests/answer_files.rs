//! Every answer file gilt writes: as a snapshot, within the limits, and each setting in a pass
//! where Microsoft's reference allows it.

use gilt_windows::answer::passes::{self, Pass};
use gilt_windows::answer::xml::{self, Element};
use gilt_windows::answer::{
    Account, AnswerError, AnswerFile, Architecture, Firmware, ImageChoice, Install, Reseal,
    redacted,
};
use std::collections::BTreeMap;
use std::path::Path;

fn install() -> Install {
    Install {
        architecture: Architecture::Amd64,
        firmware: Firmware::Uefi,
        image: ImageChoice::Name("Windows Server 2025 SERVERSTANDARD".into()),
        product_key: None,
        locale: "en-US".into(),
        keyboard: "0409:00000409".into(),
        timezone: "UTC".into(),
        computer_name: "GILT-BUILD".into(),
        organization: None,
        account: Account { name: "gilt-build".into(), password: "vagrant".into() },
        bypass_requirements: false,
    }
}

fn everything() -> Install {
    Install {
        architecture: Architecture::Arm64,
        firmware: Firmware::Bios,
        image: ImageChoice::Index(6),
        product_key: Some("W269N-WFGWX-YVC9B-4J6C9-T83GX".into()),
        organization: Some("Müller & <Söhne>".into()),
        bypass_requirements: true,
        ..install()
    }
}

/// A table of Microsoft's documentation (tests/oracles.rs).
fn oracle(name: &str) -> String {
    let Some(folder) = option_env!("GILT_ORACLES_FOLDER") else {
        panic!("tests without the tables are ignored")
    };
    let path = Path::new(folder).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Component (lower case) and path -> passes.
fn reference() -> BTreeMap<(String, String), Vec<String>> {
    let text = oracle("unattend-passes.tsv");
    let rows = text.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let passes = fields[2].split(',').map(str::to_owned).collect();
        ((fields[0].to_lowercase(), fields[1].replace(" | ", "/")), passes)
    });
    rows.collect()
}

/// The passes of a setting, or of its nearest parent.
fn allowed<'a>(
    reference: &'a BTreeMap<(String, String), Vec<String>>,
    component: &str,
    path: &str,
) -> Option<&'a Vec<String>> {
    let mut path = path.to_owned();
    loop {
        if let Some(found) = reference.get(&(component.to_lowercase(), path.clone())) {
            return Some(found);
        }
        let (parent, _) = path.rsplit_once('/')?;
        path = parent.to_owned();
    }
}

#[test]
#[cfg_attr(not(oracles), ignore = "needs Microsoft's tables in ../shared/oracles or GILT_ORACLES")]
fn every_setting_stands_where_the_reference_allows_it() {
    let reference = reference();
    let mut seen = 0;
    let mut walk = |text: &str| {
        let root = xml::parse(text).unwrap();
        assert_eq!(root.attribute("xmlns"), Some("urn:schemas-microsoft-com:unattend"));
        for settings in &root.children {
            let pass = settings.attribute("pass").unwrap();
            for component in &settings.children {
                let name = component.attribute("name").unwrap();
                let mut stack: Vec<(String, &Element)> =
                    component.children.iter().map(|child| (child.name.clone(), child)).collect();
                while let Some((path, element)) = stack.pop() {
                    let passes = allowed(&reference, name, &path)
                        .unwrap_or_else(|| panic!("{name}/{path} is not in the reference"));
                    assert!(
                        passes.iter().any(|of| of == pass),
                        "{name}/{path} in {pass}: {passes:?}"
                    );
                    seen += 1;
                    stack.extend(
                        element
                            .children
                            .iter()
                            .map(|child| (format!("{path}/{}", child.name), child)),
                    );
                }
            }
        }
    };
    for install in [install(), everything()] {
        walk(&install.answer_file().render().unwrap());
    }
    for reseal in [Reseal::default(), Reseal { persist_drivers: true, ..Reseal::default() }] {
        walk(&reseal.answer_file().render().unwrap());
    }
    assert!(seen > 150, "{seen} settings were looked at");
}

#[test]
#[cfg_attr(not(oracles), ignore = "needs Microsoft's tables in ../shared/oracles or GILT_ORACLES")]
fn our_own_rules_are_those_of_the_reference() {
    let reference = reference();
    for (component, setting, passes) in passes::rules() {
        let mut ours: Vec<&str> = passes.iter().map(|pass| pass.name()).collect();
        ours.sort_unstable();
        let rows: Vec<_> = reference
            .iter()
            .filter(|((of, path), _)| {
                *of == component.to_lowercase()
                    && (setting.is_empty()
                        || path == setting
                        || path.starts_with(&format!("{setting}/")))
            })
            // A row that caught words of the page beside the passes.
            .filter(|(_, passes)| passes.iter().all(|pass| Pass::of_name(pass).is_some()))
            // A page of the WinPE component that was copied from the other one's.
            .filter(|((_, path), _)| path != "DriverPaths/PathAndCredentials/Key")
            .collect();
        let noisy = setting == "DoNotCleanUpNonPresentDevices";
        assert!(noisy || !rows.is_empty(), "{component}/{setting} is not in the reference");
        for ((_, path), theirs) in rows {
            let mut theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
            theirs.sort_unstable();
            if setting.is_empty() {
                assert!(
                    theirs.iter().all(|pass| ours.contains(pass)),
                    "{component}/{path}: {theirs:?}"
                );
            } else if path == setting {
                assert_eq!(theirs, ours, "{component}/{path}");
            }
        }
    }
}

#[test]
fn what_gilt_writes() {
    insta::assert_snapshot!(
        "install_uefi",
        redacted(&install().answer_file().render().unwrap()).unwrap()
    );
    insta::assert_snapshot!(
        "install_bios_all",
        redacted(&everything().answer_file().render().unwrap()).unwrap()
    );
    let persist = Reseal { persist_drivers: true, ..Reseal::default() };
    insta::assert_snapshot!("reseal", persist.answer_file().render().unwrap());
}

#[test]
fn the_password_is_hidden_in_the_file_and_gone_in_what_is_shown() {
    let text = install().answer_file().render().unwrap();
    assert!(!text.contains("vagrant"));
    assert!(text.contains("dgBhAGcAcgBhAG4AdABQAGEAcwBzAHcAbwByAGQA"));
    assert!(
        text.contains(
            "dgBhAGcAcgBhAG4AdABBAGQAbQBpAG4AaQBzAHQAcgBhAHQAbwByAFAAYQBzAHMAdwBvAHIAZAA="
        )
    );
    let shown = redacted(&everything().answer_file().render().unwrap()).unwrap();
    assert!(!shown.contains("dgBhAGcA") && !shown.contains("W269N"), "{shown}");
}

fn over(pass: &str, component: &str, settings: &str) -> String {
    format!(
        "<unattend xmlns=\"urn:schemas-microsoft-com:unattend\" xmlns:wcm=\"http://schemas.microsoft.com/WMIConfig/2002/State\">\n\
         <settings pass=\"{pass}\">\n<component name=\"{component}\" processorArchitecture=\"amd64\">\n{settings}\n</component></settings></unattend>"
    )
}

#[test]
fn a_users_own_settings_lie_over_ours() {
    let mut file = install().answer_file();
    let own = over(
        "specialize",
        "Microsoft-Windows-Shell-Setup",
        "<TimeZone>W. Europe Standard Time</TimeZone><ProductKey>AAAAA</ProductKey>",
    );
    file.merge(&own).unwrap();
    let commands = over(
        "specialize",
        "Microsoft-Windows-Deployment",
        "<RunSynchronous><RunSynchronousCommand wcm:action=\"add\"><Order>1</Order><Path>cmd /c echo</Path></RunSynchronousCommand></RunSynchronous>",
    );
    file.merge(&commands).unwrap();
    let join = over(
        "specialize",
        "Microsoft-Windows-UnattendedJoin",
        "<Identification><JoinWorkgroup>BUILD</JoinWorkgroup></Identification>",
    );
    file.merge(&join).unwrap();
    let shell = file.settings(Pass::Specialize, passes::SHELL).unwrap();
    assert_eq!(
        shell.iter().find(|of| of.name == "TimeZone").unwrap().text,
        "W. Europe Standard Time"
    );
    assert_eq!(shell.iter().find(|of| of.name == "ComputerName").unwrap().text, "GILT-BUILD");
    let deployment = file.settings(Pass::Specialize, passes::DEPLOYMENT).unwrap();
    let orders: Vec<_> = deployment[0]
        .children
        .iter()
        .map(|command| command.child("Order").unwrap().text.as_str())
        .collect();
    assert_eq!(orders, ["1", "2"], "ours first");
    file.render().unwrap();
}

#[test]
fn a_bad_setting_of_a_user_is_refused_with_its_place() {
    let refused = |own: &str| install().answer_file().merge(own).unwrap_err().to_string();
    // The error of a template that is in use elsewhere.
    let text = refused(&over(
        "oobeSystem",
        "Microsoft-Windows-Shell-Setup",
        "<ComputerName>x</ComputerName>",
    ));
    assert_eq!(
        text,
        "4:1: oobeSystem Microsoft-Windows-Shell-Setup/ComputerName: not allowed in this pass, but in offlineServicing, specialize"
    );
    let text = refused(&over(
        "specialize",
        "Microsoft-Windows-Shell-Setup",
        "<ComputerName>much-too-long-for-it</ComputerName>",
    ));
    assert!(text.contains("15 bytes"), "{text}");
    let text = refused(&over(
        "oobeSystem",
        "Microsoft-Windows-Shell-Setup",
        "<FirstLogonCommands></FirstLogonCommands>",
    ));
    assert!(text.contains("first_boot"), "{text}");
    let long = "x".repeat(260);
    let text = refused(&over(
        "specialize",
        "Microsoft-Windows-Deployment",
        &format!(
            "<RunSynchronous><RunSynchronousCommand wcm:action=\"add\"><Order>1</Order><Path>{long}</Path></RunSynchronousCommand></RunSynchronous>"
        ),
    ));
    assert!(text.contains("260 characters, at most 259"), "{text}");
    let text = refused(&over(
        "windowsPE",
        "Microsoft-Windows-Setup",
        "<DiskConfiguration><Disk wcm:action=\"add\"><CreatePartitions><CreatePartition wcm:action=\"add\"><Order>1</Order><Size>5</Size><Extend>true</Extend></CreatePartition></CreatePartitions></Disk></DiskConfiguration>",
    ));
    assert!(text.contains("exclude each other"), "{text}");
    let text = refused(&over("nosuch", "x", ""));
    assert!(text.contains("there is no pass `nosuch`"), "{text}");
    assert!(matches!(install().answer_file().merge("<a/>"), Err(AnswerError::Xml(_))));
}

#[test]
fn what_is_written_is_read_back() {
    let file = everything().answer_file();
    let again = AnswerFile::parse(&file.render().unwrap()).unwrap();
    assert_eq!(again.render().unwrap(), file.render().unwrap());
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    /// Names, keys and passwords of any kind never break the document or the limits.
    #[test]
    fn any_values_make_a_document(name in "\\PC{0,30}", secret in "\\PC{0,60}", organization in ".{0,40}") {
        let install = Install {
            organization: Some(organization),
            account: Account { name, password: secret },
            ..install()
        };
        let text = install.answer_file().render().unwrap();
        xml::parse(&text).unwrap();
    }

    #[test]
    fn hostile_text_is_an_error_and_never_a_panic(text in ".{0,400}") {
        let _ = AnswerFile::parse(&text);
    }
}
