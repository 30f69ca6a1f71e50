//! The package holds what a user needs to build and use it, and no more.

use std::path::Path;
use std::process::Command;

/// Whether a user needs a file.
fn is_needed(path: &str) -> bool {
    const ALONE: [&str; 10] = [
        ".cargo_vcs_info.json",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "Cargo.toml.orig",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "examples/loads.json",
        "src/suite/fingerprints.json",
    ];
    let is_source = |folder: &str, extension: &str| path.starts_with(folder) && path.ends_with(extension);
    ALONE.contains(&path)
        || (is_source("src/", ".rs") && !path.ends_with("_tests.rs"))
        || is_source("src/guide/", ".md")
        || is_source("shaders/", ".wgsl")
        || is_source("examples/", ".rs")
}

#[test]
fn the_package_holds_what_a_user_needs_and_no_more() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    let listed = String::from_utf8_lossy(&output.stdout).replace('\\', "/");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Vec<&str> = listed.lines().collect();
    let needless: Vec<&&str> = listed.iter().filter(|path| !is_needed(path)).collect();
    assert!(needless.is_empty(), "{needless:?}");
    // Files that the sources include, and files that a user reads first.
    for path in
        ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "src/lib.rs", "src/bin/eplb.rs"]
    {
        assert!(listed.contains(&path), "{path} is missing");
    }
    for (folder, extension) in [("shaders", "wgsl"), ("src", "rs"), ("src/guide", "md")] {
        for file in files_below(&root.join(folder)) {
            let path = file.strip_prefix(root).expect("a file below the root").display().to_string();
            let path = path.replace('\\', "/");
            if path.ends_with(&format!(".{extension}")) && is_needed(&path) {
                assert!(listed.contains(&&*path), "{path} is missing");
            }
        }
    }
    assert!(listed.contains(&"src/suite/fingerprints.json"));
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
