//! Every dependency comes from crates.io under a licence that `deny.toml` allows.
//!
//! Only the dependencies of this platform are sure to be there without the network; after `cargo fetch`,
//! EPLB_ALL_PLATFORMS=1 looks at those of all.

use std::process::Command;

use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Complaints about packages of `cargo metadata` whose licence is not allowed.
fn complaints(packages: &[Value], allowed: &[LicenseReq]) -> Vec<String> {
    let complaint = |package: &Value| {
        let text = |field: &str| package[field].as_str();
        if let Some(source) = text("source").filter(|&source| source != CRATES_IO) {
            return Some(format!("is from {source}"));
        }
        let Some(licence) = text("license") else { return Some("states no licence".into()) };
        match Expression::parse_mode(licence, ParseMode::LAX) {
            Ok(expression) if expression.evaluate(|wanted| allowed.contains(wanted)) => None,
            Ok(_) => Some(format!("is under {licence}, which deny.toml does not allow")),
            Err(error) => Some(format!("is under {licence}: {}", error.reason)),
        }
    };
    let all = packages.iter().filter_map(|package| Some((package, complaint(package)?)));
    all.map(|(package, what)| format!("{} {} {what}", package["name"], package["version"])).collect()
}

/// The requirement that one entry of the list stands for, its exception included.
fn requirement(entry: &str) -> LicenseReq {
    let expression = Expression::parse(entry).unwrap_or_else(|error| panic!("deny.toml: {error}"));
    let mut all = expression.requirements();
    let first = all.next().expect("one licence").req.clone();
    assert!(all.next().is_none(), "deny.toml: {entry} is not one licence");
    first
}

fn allowed() -> Vec<LicenseReq> {
    let text = std::fs::read_to_string(crate::root().join("deny.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let list = table["licenses"]["allow"].as_array().unwrap();
    list.iter().map(|entry| requirement(entry.as_str().unwrap())).collect()
}

fn cargo(arguments: &[&str]) -> Vec<u8> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo).args(arguments).current_dir(crate::root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn packages() -> Vec<Value> {
    let mut arguments = vec!["metadata", "--format-version=1", "--locked", "--all-features"];
    let version = String::from_utf8(cargo(&["-vV"])).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    if std::env::var_os("EPLB_ALL_PLATFORMS").is_none() {
        arguments.extend(["--filter-platform", host]);
    }
    let metadata: Value = serde_json::from_slice(&cargo(&arguments)).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

mod tests {
    use super::*;

    #[test]
    fn licences_of_all_dependencies_are_allowed() {
        let packages = packages();
        assert!(packages.len() > 50, "{} packages are not all of them", packages.len());
        let complaints = complaints(&packages, &allowed());
        assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    }

    #[test]
    fn what_is_not_allowed_is_found() {
        let found = |licence: Option<&str>, source: Option<&str>| {
            let package =
                serde_json::json!({ "name": "a", "version": "1", "license": licence, "source": source });
            complaints(&[package], &[requirement("MIT"), requirement("Apache-2.0 WITH LLVM-exception")])
        };
        for licence in ["MIT", "MIT/GPL-3.0-only", "MIT OR GPL-3.0-only", "Apache-2.0 WITH LLVM-exception"] {
            assert_eq!(found(Some(licence), Some(CRATES_IO)), Vec::<String>::new(), "{licence}");
        }
        for licence in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "Apache-2.0", "My own"] {
            assert_eq!(found(Some(licence), None).len(), 1, "{licence}");
        }
        assert_eq!(found(None, None).len(), 1);
        assert_eq!(found(Some("MIT"), Some("git+https://example.org/a")).len(), 1);
    }
}
