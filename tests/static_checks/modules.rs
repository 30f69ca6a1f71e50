//! Dependencies between the modules of `src/` point one way.
//!
//! The text is scanned for `crate::…` and `super::…` paths and for the word `wgpu`; comments, strings and test
//! modules do not count. A name re-exported from the root (`crate::Loads`) counts as its module.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Names that some files may not know.
struct Rule {
    /// Files and folders of `src/` the rule is about; each has to be there.
    files: &'static [&'static str],
    /// Modules they may use, or any where it is `None`.
    only: Option<&'static [&'static str]>,
    /// Modules they may not use.
    never: &'static [&'static str],
    /// Whether they may name wgpu.
    wgpu: bool,
    /// Whether names re-exported from the root are free: they are the public API.
    public: bool,
}

const MACHINERY: &[&str] = &["engine", "layout", "mirror", "params", "planner", "stages", "testing"];

const RULES: &[Rule] = &[
    // The problem and its answer know nothing of how it is solved.
    Rule {
        files: &["loads.rs", "loads", "cluster.rs", "cluster", "options.rs", "plan.rs", "plan", "error.rs"],
        only: None,
        never: MACHINERY,
        wgpu: false,
        public: false,
    },
    // The judges share no code with the planner, nor with each other, but what spreads any work over threads.
    Rule {
        files: &["check.rs", "check", "bound.rs", "bound"],
        only: Some(&["loads", "cluster", "error", "threads"]),
        never: &[],
        wgpu: false,
        public: false,
    },
    // The CPU backend is the specification: it works where no driver is.
    Rule {
        files: &["mirror"],
        only: None,
        never: &["engine", "stages", "planner"],
        wgpu: false,
        public: false,
    },
    // The engine runs any stage.
    Rule { files: &["engine"], only: None, never: &["stages", "planner"], wgpu: true, public: false },
    // Modules that are built on the library could be outside of it.
    Rule { files: &["trace", "maps", "cli"], only: None, never: MACHINERY, wgpu: false, public: true },
];

/// One use of a module: its name, or the name at the root that leads to it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    line: usize,
    name: String,
}

fn complaints(src: &Path, rules: &[Rule]) -> Vec<String> {
    let exports = exports(&std::fs::read_to_string(src.join("lib.rs")).unwrap_or_default());
    let mut complaints = Vec::new();
    for rule in rules {
        for place in rule.files {
            let files = rust_files(&src.join(place));
            if files.is_empty() {
                complaints.push(format!("src/{place} is not there"));
            }
            for file in files {
                let text = program_text(&std::fs::read_to_string(&file).unwrap_or_default());
                let shown = file.strip_prefix(src).unwrap_or(&file).display().to_string();
                let place = Place::of(src, &file);
                let found = broken(rule, &text, &exports, &place);
                complaints.extend(found.into_iter().map(|what| format!("src/{shown}: {what}")));
            }
        }
    }
    complaints
}

/// How the text of one file breaks a rule.
fn broken(rule: &Rule, text: &str, exports: &BTreeMap<String, String>, place: &Place) -> Vec<String> {
    let mut found = Vec::new();
    if !rule.wgpu {
        let lines = text.lines().enumerate().filter(|(_, line)| words(line).any(|word| word == "wgpu"));
        found.extend(lines.map(|(at, _)| format!("line {}: it names wgpu", at + 1)));
    }
    for Use { line, name } in uses(text, place.depth) {
        let exported = exports.get(&name);
        if rule.public && exported.is_some() {
            continue;
        }
        let module = exported.unwrap_or(&name);
        let refused = rule.only.is_some_and(|only| !only.contains(&module.as_str()));
        if *module != place.module && (refused || rule.never.contains(&module.as_str())) {
            found.push(format!("line {line}: it uses {module}"));
        }
    }
    found
}

/// The first names after the root's path, groups (`crate::{a, b::c}`) included. From a file `depth` modules
/// below the root, as many `super::` are the root too.
fn uses(text: &str, depth: usize) -> BTreeSet<Use> {
    let mut found = BTreeSet::new();
    let upwards = "super::".repeat(depth);
    for (at, root) in text.match_indices("crate::").chain(text.match_indices(&upwards)) {
        let line = text[..at].matches('\n').count() + 1;
        let rest = text[at + root.len()..].trim_start();
        let names = match rest.strip_prefix('{') {
            Some(group) => group_heads(group),
            None => words(rest).next().map(str::to_string).into_iter().collect(),
        };
        found.extend(names.into_iter().map(|name| Use { line, name }));
    }
    found
}

/// The first word of each entry of a group, up to its closing brace.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut entry) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.extend(words(&std::mem::take(&mut entry)).next().map(str::to_string)),
            _ => entry.push(c),
        }
    }
    heads.extend(words(&entry).next().map(str::to_string));
    heads
}

/// Names re-exported by `pub use module::…;` in the root, with their modules.
fn exports(lib: &str) -> BTreeMap<String, String> {
    let text = program_text(lib);
    let statements =
        text.split(';').filter_map(|statement| statement.split_once("pub use ").map(|(_, path)| path));
    let mut exports = BTreeMap::new();
    for path in statements {
        let names: Vec<&str> = words(path.trim_start().trim_start_matches("crate::")).collect();
        for name in names.iter().skip(1) {
            exports.insert((*name).to_string(), names[0].to_string());
        }
    }
    exports
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The text without comments, strings and the module of tests: by the custom of this project it stands at the end of
/// a file. Lines keep their numbers.
pub fn program_text(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let (mut out, mut chars) = (String::new(), source.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|&c| c != '\n').is_some() {},
            '"' => {
                while let Some(c) = chars.next().filter(|&c| c != '"') {
                    if c == '\\' {
                        chars.next();
                    }
                    if c == '\n' {
                        out.push('\n');
                    }
                }
            }
            // Not the start of a string.
            '\'' if chars.peek() == Some(&'"') => {
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

/// The Rust files at a path, tests in files of their own (`…_tests.rs`) left out.
pub fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.flat_map(|entry| rust_files(&entry.path())).collect();
    files.retain(|file| {
        file.to_string_lossy().ends_with(".rs") && !file.to_string_lossy().ends_with("_tests.rs")
    });
    files.sort();
    files
}

/// Where a file stands among the modules.
struct Place {
    /// The module at the root that it belongs to.
    module: String,
    /// How many modules it is below the root.
    depth: usize,
}

impl Place {
    fn of(src: &Path, file: &Path) -> Self {
        let inside = file.strip_prefix(src).unwrap_or(file).with_extension("");
        let mut names: Vec<_> = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        // `a/mod.rs` is the module `a` itself.
        names.retain(|name| name != "mod");
        Self { depth: names.len(), module: names.into_iter().next().unwrap_or_default() }
    }
}

mod tests {
    use super::*;

    #[test]
    fn dependencies_between_modules_point_one_way() {
        assert_eq!(complaints(&crate::root().join("src"), RULES), Vec::<String>::new());
    }

    const LIB: &str =
        "pub mod loads;\npub use loads::Loads;\npub use engine::device::{DeviceChoice, devices};\n";

    fn complaints_about(text: &str, rule: &Rule, file: &str) -> Vec<String> {
        let place = Place::of(Path::new("src"), &Path::new("src").join(file));
        broken(rule, &program_text(text), &exports(LIB), &place)
    }

    #[test]
    fn what_a_module_may_not_know_is_found() {
        let [problem, judges, mirror, engine, outside] = RULES else { panic!("a rule without its test") };
        let cases = [
            (problem, "use wgpu::Device;", "line 1: it names wgpu"),
            (problem, "\nuse crate::engine::device;", "line 2: it uses engine"),
            (problem, "use crate::DeviceChoice;", "line 1: it uses engine"),
            (judges, "use crate::{loads::Loads, plan::{Plan, Stop}};", "line 1: it uses plan"),
            (judges, "fn f() { crate::mirror::run() }", "line 1: it uses mirror"),
            (mirror, "use crate::{\n    Loads,\n    stages::s1,\n};", "line 1: it uses stages"),
            (engine, "use crate::stages;", "line 1: it uses stages"),
            (outside, "use crate::engine::device::DeviceChoice;", "line 1: it uses engine"),
            (outside, "fn f(_: &wgpu::Device) {}", "line 1: it names wgpu"),
        ];
        for (rule, text, complaint) in cases {
            assert_eq!(complaints_about(text, rule, "own.rs"), [complaint], "{text}");
        }
    }

    #[test]
    fn what_a_module_may_know_passes() {
        let [problem, judges, mirror, engine, outside] = RULES else { panic!("a rule without its test") };
        let cases = [
            (
                problem,
                "//! Not of wgpu.\nuse crate::check; fn f() -> &'static str { \"wgpu \\\" crate::engine\" }",
            ),
            (problem, "use crate::loads::Loads;\n#[cfg(test)]\nmod tests { use crate::engine; }"),
            (judges, "use crate::{Loads, cluster::Cluster, error::Error};"),
            (mirror, "use crate::mirror::s1; use crate::options::Search;"),
            (engine, "use wgpu::Device; use crate::engine::device; use crate::mirror;"),
            (
                outside,
                "use crate::{DeviceChoice, Loads}; use crate::trace::read; let c = '\"'; use crate::plan;",
            ),
        ];
        for (rule, text) in cases {
            assert_eq!(complaints_about(text, rule, "own.rs"), Vec::<String>::new(), "{text}");
        }
        // A file may use its own module, whatever the rule.
        assert_eq!(complaints_about("use crate::engine;", problem, "engine/mod.rs"), Vec::<String>::new());
    }

    #[test]
    fn a_path_upwards_is_followed_to_the_root() {
        let [problem, ..] = RULES else { panic!("no rule") };
        let found = |text, file| complaints_about(text, problem, file);
        assert_eq!(found("use super::engine;", "loads.rs"), ["line 1: it uses engine"]);
        assert_eq!(found("use super::engine;", "a/mod.rs"), ["line 1: it uses engine"]);
        assert_eq!(found("use super::super::{x, engine::y};", "a/b.rs"), ["line 1: it uses engine"]);
        assert_eq!(found("use super::engine;", "a/b.rs"), Vec::<String>::new());
    }

    #[test]
    fn a_rule_about_nothing_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let rules = [Rule { files: &["mirror"], only: None, never: &[], wgpu: false, public: false }];
        assert_eq!(complaints(dir.path(), &rules), ["src/mirror is not there"]);
        std::fs::create_dir(dir.path().join("mirror")).unwrap();
        std::fs::write(dir.path().join("mirror/s1_tests.rs"), "use wgpu;").unwrap();
        std::fs::write(dir.path().join("mirror/s1.rs"), "use wgpu;").unwrap();
        assert_eq!(complaints(dir.path(), &rules), ["src/mirror/s1.rs: line 1: it names wgpu"]);
    }
}
