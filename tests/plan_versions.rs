//! The version of the plans is raised when plans change: `tests/plan_versions.txt` holds one line for each version, with a
//! hash of the fingerprints that it was committed with.

use std::path::Path;

use eplb_wgpu::PLAN_VERSION;

/// The fault in the fingerprints of a version, if there is one, given the list of all versions.
fn complaint(version: u32, hash: &str, list: &str) -> Option<String> {
    let mut versions = Vec::new();
    for line in list.lines() {
        let (version, hash) = line.split_once(' ')?;
        versions.push((version.parse::<u32>().ok()?, hash));
    }
    if !versions.is_sorted_by(|a, b| a.0 < b.0) {
        return Some("the versions do not ascend".into());
    }
    match versions.last() {
        Some(&(last, known)) if last == version && known == hash => {}
        Some(&(last, _)) if last == version => {
            return Some(format!(
                "the fingerprints changed, and PLAN_VERSION is still {version}: raise it in src/plan.rs and in \
                 src/suite/fingerprints.json, and append `{} {hash}` to tests/plan_versions.txt. Where cases were only added \
                 or removed, replace the last line by `{version} {hash}`",
                version + 1
            ));
        }
        _ => return Some(format!("append `{version} {hash}` to tests/plan_versions.txt")),
    }
    let before = versions.iter().rev().skip(1).find(|(_, known)| *known == hash);
    before.map(|(before, _)| format!("version {version} has the fingerprints of version {before}"))
}

#[test]
fn fingerprints_change_with_the_version_alone() {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let committed: serde_json::Value = serde_json::from_str(&read("src/suite/fingerprints.json")).unwrap();
    assert_eq!(
        committed["plan_version"], PLAN_VERSION,
        "src/suite/fingerprints.json is of another plan version"
    );
    let mut fingerprints = committed["fingerprints"].clone();
    fingerprints.sort_all_objects();
    assert!(fingerprints.as_object().is_some_and(|all| all.len() > 50));
    let hash = format!("{:016x}", xxhash_rust::xxh64::xxh64(fingerprints.to_string().as_bytes(), 0));
    assert_eq!(complaint(PLAN_VERSION, &hash, &read("tests/plan_versions.txt")), None);
}

#[test]
fn what_is_forgotten_is_named() {
    let says = |version, hash, list: &str, part: &str| {
        let found = complaint(version, hash, list).unwrap_or_default();
        assert!(found.contains(part), "{found:?} does not hold {part:?}");
    };
    assert_eq!(complaint(2, "b", "1 a\n2 b\n"), None);
    says(2, "c", "1 a\n2 b\n", "still 2: raise it");
    says(2, "c", "1 a\n2 b\n", "append `3 c`");
    says(3, "c", "1 a\n2 b\n", "append `3 c`");
    says(2, "a", "1 a\n2 a\n", "has the fingerprints of version 1");
    says(2, "b", "2 a\n2 b\n", "do not ascend");
}
