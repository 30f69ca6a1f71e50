//! Nothing in `src/` uses itself in a circle: of the files and folders of one folder none needs another that needs it.
//!
//! A module and those below it are one thing, so their uses of each other do not count. A name counts for the file
//! that has it, not for those that export it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::modules::{program_text, rust_files};

/// The names that lead to a module or an item, from the root.
type Names = Vec<String>;

/// The uses of modules by each other, as the files say them.
#[derive(Default)]
struct Uses {
    /// The paths that each module names.
    paths: BTreeMap<Names, Vec<Names>>,
    /// Names that a module exports again, each with the place where it comes from.
    exports: BTreeMap<Names, Names>,
}

impl Uses {
    fn of(src: &Path) -> Self {
        let mut uses = Self::default();
        for file in rust_files(src) {
            let inside = file.strip_prefix(src).unwrap_or(&file).with_extension("");
            let mut module: Names = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            module.retain(|name| name != "mod" && name != "lib");
            if module.last().is_none_or(|name| name != "tests") {
                uses.read(&module, &program_text(&std::fs::read_to_string(&file).unwrap_or_default()));
            }
        }
        uses
    }

    fn read(&mut self, module: &Names, text: &str) {
        let tokens = tokens(text);
        let (mut paths, mut at) = (Vec::new(), 0);
        while let Some(token) = tokens.get(at) {
            let before = at.checked_sub(1).map_or("", |before| tokens[before].as_str());
            let (is_use, is_exported) = (token == "use", matches!(before, "pub" | ")"));
            let is_path = matches!(&**token, "crate" | "super") && before != "::";
            at += usize::from(!is_path);
            if is_use || is_path {
                let first = paths.len();
                tree(&tokens, &mut at, &[], &mut paths);
                for path in &mut paths[first..] {
                    let name = path.last().cloned();
                    *path = from_root(module, path);
                    if is_use && is_exported {
                        self.exports.insert(module.iter().cloned().chain(name).collect(), path.clone());
                    }
                }
            }
        }
        self.paths.insert(module.clone(), paths);
    }

    /// The module that has what a path leads to.
    fn home(&self, path: &Names) -> Names {
        let mut path = path.clone();
        for _ in 0..8 {
            let known = (0..=path.len()).rev().find(|&end| self.paths.contains_key(&path[..end]));
            let known = known.unwrap_or(0);
            match path.get(..=known).and_then(|name| self.exports.get(name)) {
                Some(origin) => path = [origin, &path[known + 1..]].concat(),
                None => return path[..known].to_vec(),
            }
        }
        path
    }

    /// By file or folder, those next to it that it uses.
    fn of_neighbours(&self) -> BTreeMap<Names, BTreeSet<Names>> {
        let mut graph: BTreeMap<Names, BTreeSet<Names>> = BTreeMap::new();
        for (module, paths) in &self.paths {
            for home in paths.iter().map(|path| self.home(path)) {
                let same = module.iter().zip(&home).take_while(|(a, b)| a == b).count();
                if same < module.len().min(home.len()) {
                    graph.entry(module[..=same].to_vec()).or_default().insert(home[..=same].to_vec());
                }
            }
        }
        graph
    }
}

fn tokens(text: &str) -> Vec<String> {
    let (mut tokens, mut chars) = (Vec::new(), text.chars().peekable());
    while let Some(c) = chars.next() {
        let mut token = String::from(c);
        let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
        while let Some(next) =
            chars.next_if(|next| if is_word(&c) { is_word(next) } else { c == ':' && *next == ':' })
        {
            token.push(next);
        }
        if !c.is_whitespace() {
            tokens.push(token);
        }
    }
    tokens
}

/// Collects the paths of a tree such as `a::{b, c::d}`.
fn tree(tokens: &[String], at: &mut usize, start: &[String], found: &mut Vec<Names>) {
    let is = |at: usize, token: &str| tokens.get(at).is_some_and(|found| found == token);
    let (mut path, mut is_group) = (start.to_vec(), false);
    while tokens.get(*at).is_some_and(|token| token.starts_with(|c: char| c.is_alphanumeric() || c == '_')) {
        path.push(tokens[*at].clone());
        *at += 1;
        if !is(*at, "::") {
            break;
        }
        *at += 1;
        is_group = is(*at, "{");
    }
    if !is_group {
        *at += usize::from(is(*at, "*")) + 2 * usize::from(is(*at, "as"));
        found.push(path);
        return;
    }
    while *at < tokens.len() && !is(*at, "}") {
        *at += 1;
        if !is(*at, "}") {
            tree(tokens, at, &path, found);
        }
    }
    *at += 1;
}

/// A path as it is written in a module, from the root.
fn from_root(module: &[String], path: &[String]) -> Names {
    let above = path.iter().take_while(|name| *name == "super").count();
    match path.first().map(String::as_str) {
        Some("crate") => path[1..].to_vec(),
        Some("self") => [module, &path[1..]].concat(),
        _ => [&module[..module.len().saturating_sub(above)], &path[above..]].concat(),
    }
}

/// The uses that are part of a circle.
fn circles(src: &Path) -> Vec<String> {
    let mut graph = Uses::of(src).of_neighbours();
    loop {
        let edges = graph.values().map(BTreeSet::len).sum::<usize>();
        let used: BTreeSet<Names> = graph.values().flatten().cloned().collect();
        graph.retain(|module, uses| used.contains(module) && !uses.is_empty());
        let left: BTreeSet<Names> = graph.keys().cloned().collect();
        graph.values_mut().for_each(|uses| uses.retain(|used| left.contains(used)));
        if edges == graph.values().map(BTreeSet::len).sum::<usize>() {
            break;
        }
    }
    let shown = |module: &Names| module.join("/");
    let edge = |(module, uses): (&Names, &BTreeSet<Names>)| {
        uses.iter().map(|used| format!("{} uses {}", shown(module), shown(used))).collect::<Vec<_>>()
    };
    graph.iter().flat_map(edge).collect()
}

mod tests {
    use super::*;

    #[test]
    fn nothing_uses_itself_in_a_circle() {
        assert_eq!(circles(&crate::root().join("src")), Vec::<String>::new());
    }

    fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        circles(dir.path())
    }

    #[test]
    fn circles_are_found() {
        let lib = ("lib.rs", "mod a; mod b;\npub use b::B;");
        let both = ["a uses b", "b uses a"];
        let files = [lib, ("a.rs", "use crate::{c, b::{C, B}};"), ("b.rs", "fn f() { crate::a::g() }")];
        assert_eq!(circles_of(&files), both);
        // By a name that the root exports, from files of folders, past a file of neither.
        let files = [
            lib,
            ("a.rs", ""),
            ("a/x.rs", "use crate::B as C;"),
            ("b.rs", ""),
            ("b/y.rs", "use crate::a;"),
            ("c.rs", "use crate::a;"),
        ];
        assert_eq!(circles_of(&files), both);
        // By the module above, which exports a name of the one below.
        let files = [
            ("a/mod.rs", "mod x;\nmod y;\npub(crate) use x::X;"),
            ("a/x.rs", "use super::y;"),
            ("a/y.rs", "use super::{X, Z};"),
        ];
        assert_eq!(circles_of(&files), ["a/x uses a/y", "a/y uses a/x"]);
    }

    #[test]
    fn a_module_and_those_below_it_are_one_thing() {
        let files = [
            ("a.rs", "mod x;\nuse x::X; use std::fmt; use self::x::*;"),
            ("a/x.rs", "use super::A; use crate::b;"),
            ("b.rs", "//! crate::a\n#[cfg(test)]\nmod tests { use crate::a; }"),
            ("b/tests.rs", "use crate::a;"),
        ];
        assert_eq!(circles_of(&files), Vec::<String>::new());
    }
}
