//! One stage, one stem: `shaders/s4_pack.wgsl`, `src/stages/s4_pack.rs`, `src/mirror/s4_pack.rs`,
//! `tests/device/s4_pack.rs`. A large shader and its mirror have the same parts: `shaders/s5_search/exchange.wgsl`,
//! `src/mirror/s5_search/exchange.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use eplb_wgpu::testing::shaders;

const PLACES: [(&str, &str); 4] =
    [("shaders", "wgsl"), ("src/stages", "rs"), ("src/mirror", "rs"), ("tests/device", "rs")];

/// The stems in a folder: files `<stem>.<extension>`.
fn stems(folder: &Path, extension: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let here = entries.filter(|path| path.extension().is_some_and(|e| e == extension));
    here.filter_map(|path| Some(path.file_stem()?.to_str()?.to_string())).collect()
}

/// The stems of stages among them: `s<digits>_<name>`.
fn stages(folder: &Path, extension: &str) -> BTreeSet<String> {
    stems(folder, extension).into_iter().filter(|stem| is_stage(stem)).collect()
}

fn is_stage(stem: &str) -> bool {
    let number = stem.strip_prefix('s').and_then(|rest| rest.split_once('_')).map(|(number, _)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Where a stage lacks its file.
fn complaints(root: &Path) -> Vec<String> {
    let found = PLACES.map(|(folder, extension)| (folder, extension, stages(&root.join(folder), extension)));
    let all: BTreeSet<String> = found.iter().flat_map(|(_, _, stems)| stems.clone()).collect();
    if all.is_empty() {
        return vec!["there is no stage".to_string()];
    }
    let lacking = found.iter().flat_map(|(folder, extension, stems)| {
        all.difference(stems).map(move |stem| format!("{folder}/{stem}.{extension} is not there"))
    });
    lacking.chain(all.iter().flat_map(|stem| unequal_parts(root, stem))).collect()
}

/// Where the parts of a stage's shader are not those of its mirror.
fn unequal_parts(root: &Path, stem: &str) -> Vec<String> {
    let [shader, mut mirror] = [("shaders", "wgsl"), ("src/mirror", "rs")]
        .map(|(folder, extension)| stems(&root.join(folder).join(stem), extension));
    mirror.remove("tests");
    let parts = shader.symmetric_difference(&mirror);
    parts.map(|part| format!("{stem}/{part} is in one of shaders and src/mirror alone")).collect()
}

/// Files of shaders that no pipeline is composed of.
fn unused_parts(folder: &Path, sources: &[String]) -> Vec<String> {
    let mut unused = Vec::new();
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            unused.extend(unused_parts(&path, sources));
        } else if path.extension().is_some_and(|extension| extension == "wgsl") {
            let part = std::fs::read_to_string(&path).unwrap_or_default();
            let used = sources.iter().any(|source| source.contains(part.trim()));
            unused.extend((!used).then(|| format!("{} is in no shader", path.display())));
        }
    }
    unused
}

mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_shader_its_host_side_its_mirror_and_its_test() {
        assert_eq!(complaints(crate::root()), Vec::<String>::new());
    }

    #[test]
    fn the_shaders_listed_are_those_in_the_folder() {
        let listed: BTreeSet<String> = shaders().iter().map(|unit| unit.stem.to_string()).collect();
        assert_eq!(listed, stems(&crate::root().join("shaders"), "wgsl"));
        assert!(!listed.is_empty(), "testing::shaders() is empty");
    }

    #[test]
    fn every_file_of_the_folder_is_in_a_shader() {
        let sources: Vec<String> = shaders().into_iter().map(|unit| unit.source).collect();
        assert_eq!(unused_parts(&crate::root().join("shaders"), &sources), Vec::<String>::new());
    }

    #[test]
    fn a_missing_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(complaints(dir.path()), ["there is no stage"]);
        for (folder, extension) in PLACES {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join(format!("s1_a.{extension}")), "").unwrap();
        }
        for other in ["shaders/common.wgsl", "src/stages/mod.rs", "src/mirror/s_x.rs", "src/stages/sx_y.rs"] {
            std::fs::write(dir.path().join(other), "").unwrap();
        }
        assert_eq!(complaints(dir.path()), Vec::<String>::new());
        std::fs::write(dir.path().join("src/mirror/s2_b.rs"), "").unwrap();
        assert_eq!(complaints(dir.path()).len(), 3);
        assert!(complaints(dir.path()).contains(&"shaders/s2_b.wgsl is not there".to_string()));
    }

    #[test]
    fn a_part_that_shader_or_mirror_lacks_is_found() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["shaders/s1_a/x.wgsl", "src/mirror/s1_a/x.rs", "src/mirror/s1_a/tests.rs"] {
            std::fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(unequal_parts(dir.path(), "s1_a"), Vec::<String>::new());
        std::fs::write(dir.path().join("src/mirror/s1_a/y.rs"), "").unwrap();
        assert_eq!(unequal_parts(dir.path(), "s1_a"), ["s1_a/y is in one of shaders and src/mirror alone"]);
    }

    #[test]
    fn a_part_that_no_shader_has_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("shaders/shared")).unwrap();
        std::fs::write(dir.path().join("shaders/shared/order.wgsl"), "fn before() {}\n").unwrap();
        std::fs::write(dir.path().join("README.md"), "of no shader").unwrap();
        assert_eq!(unused_parts(dir.path(), &["x\nfn before() {}\ny".to_string()]), Vec::<String>::new());
        assert_eq!(unused_parts(dir.path(), &["x".to_string()]).len(), 1);
    }
}
