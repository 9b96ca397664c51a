//! A folder of MSU and CAB files: in which order they go in.
//!
//! Servicing stack first, then languages, then the rest, the cumulative update last, .NET after
//! it. Checkpoint updates (24H2, Server 2025) lie beside the cumulative update they lead to: only
//! that one is named, and DISM takes the others from its folder, which may hold no further MSU.

/// Why a folder cannot be installed from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    #[error("{0} holds no .msu or .cab file")]
    Empty(String),
    #[error("{target} is not in the folder; there are {}", .found.join(", "))]
    NoTarget { target: String, found: Vec<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Stack,
    Language,
    Other,
    Cumulative,
    DotNet,
}

fn rank(name: &str) -> Rank {
    let name = name.to_ascii_lowercase();
    if name.contains("ssu-") || name.contains("servicingstack") {
        Rank::Stack
    } else if name.contains("language") || name.contains("_lp") || name.contains("client-lang") {
        Rank::Language
    } else if name.contains("ndp") || name.contains("dotnet") {
        Rank::DotNet
    } else if name.ends_with(".msu") {
        Rank::Cumulative
    } else {
        Rank::Other
    }
}

/// Names to add, in order. With a `target` (`KB5072033`, or part of its name) all other MSU files
/// are its checkpoints and are not named themselves.
pub fn order_packages(
    folder: &str,
    names: &[String],
    target: Option<&str>,
) -> Result<Vec<String>, PackageError> {
    let is = |name: &str, end: &str| name.to_ascii_lowercase().ends_with(end);
    let mut found: Vec<String> =
        names.iter().filter(|name| is(name, ".msu") || is(name, ".cab")).cloned().collect();
    if found.is_empty() {
        return Err(PackageError::Empty(folder.to_owned()));
    }
    if let Some(target) = target {
        let wanted = target.to_ascii_lowercase();
        let hit = |name: &String| name.to_ascii_lowercase().contains(&wanted);
        if !found.iter().any(hit) {
            found.sort();
            return Err(PackageError::NoTarget { target: target.to_owned(), found });
        }
        found.retain(|name| !is(name, ".msu") || hit(name) || rank(name) != Rank::Cumulative);
    }
    // Of several cumulative updates the lower KB is the older one.
    found.sort_by_key(|name| (rank(name), kb(name), name.clone()));
    Ok(found)
}

fn kb(name: &str) -> u64 {
    let name = name.to_ascii_lowercase();
    let Some(at) = name.find("kb") else { return 0 };
    let digits: String = name[at + 2..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn languages_before_the_cumulative_update_and_dotnet_after_it() {
        let folder = names(&[
            "windows11.0-kb5072033-x64.msu",
            "windows11.0-kb5066128-x64-ndp481.msu",
            "Microsoft-Windows-Client-Language-Pack_x64_de-de.cab",
            "SSU-26100.1-x64.cab",
            "readme.txt",
            "feature.cab",
        ]);
        assert_eq!(
            order_packages("f", &folder, None).unwrap(),
            [
                "SSU-26100.1-x64.cab",
                "Microsoft-Windows-Client-Language-Pack_x64_de-de.cab",
                "feature.cab",
                "windows11.0-kb5072033-x64.msu",
                "windows11.0-kb5066128-x64-ndp481.msu",
            ]
        );
    }

    #[test]
    fn checkpoints_are_not_named_beside_their_target() {
        let folder =
            names(&["windows11.0-kb5043080-x64.msu", "windows11.0-kb5072033-x64.msu", "x.cab"]);
        assert_eq!(
            order_packages("f", &folder, Some("KB5072033")).unwrap(),
            ["x.cab", "windows11.0-kb5072033-x64.msu"]
        );
        assert_eq!(
            order_packages("f", &folder, None).unwrap(),
            ["x.cab", "windows11.0-kb5043080-x64.msu", "windows11.0-kb5072033-x64.msu"]
        );
        assert!(order_packages("f", &folder, Some("KB1")).is_err());
        assert!(order_packages("f", &names(&["a.txt"]), None).is_err());
    }
}
