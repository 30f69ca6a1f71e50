//! The public API is what `tests/public_api.txt` lists. A change of it is meant, and then the list is renewed:
//!
//! `EPLB_RENEW_PUBLIC_API=1 cargo test --test public_api`
//!
//! The sources are read, so this works with any toolchain: what `src/lib.rs` names and exports, without bodies, private
//! fields and documentation. Impl blocks count that are in the file or folder of the type.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::{Attribute, Fields, ImplItem, Item, Type, UseTree, Visibility};

/// A module of the crate: its items, and where its submodules' files are.
struct Module {
    items: Vec<Item>,
    folder: PathBuf,
}

impl Module {
    fn read(file: &Path, folder: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let items = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display())).items;
        Self { items, folder: folder.to_path_buf() }
    }

    /// A submodule, from a file of its own or from this one.
    fn child(&self, name: &str) -> Self {
        let folder = self.folder.join(name);
        for item in &self.items {
            if let Item::Mod(module) = item
                && module.ident == name
                && let Some((_, items)) = &module.content
            {
                return Self { items: items.clone(), folder };
            }
        }
        let file = self.folder.join(format!("{name}.rs"));
        if file.exists() { Self::read(&file, &folder) } else { Self::read(&folder.join("mod.rs"), &folder) }
    }

    /// This module and everything below it, without tests.
    fn with_children(&self) -> Vec<Item> {
        let mut all = self.items.clone();
        for item in &self.items {
            if let Item::Mod(module) = item
                && !of_tests(&module.attrs)
            {
                all.extend(self.child(&module.ident.to_string()).with_children());
            }
        }
        all
    }
}

fn of_tests(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("cfg")
            && attr.meta.require_list().is_ok_and(|list| {
                let text = list.tokens.to_string();
                text == "test" || text.starts_with("all (test")
            })
    })
}

fn is_hidden(attrs: &[Attribute]) -> bool {
    let hides =
        |attr: &Attribute| attr.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "hidden");
    attrs.iter().any(|attr| attr.path().is_ident("doc") && hides(attr))
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The attributes that are a part of the API.
fn keep_attrs(attrs: &mut Vec<Attribute>) {
    const KEPT: [&str; 5] = ["cfg", "default", "derive", "must_use", "non_exhaustive"];
    attrs.retain(|attr| KEPT.iter().any(|name| attr.path().is_ident(name)));
}

/// Public paths and the text of what is there.
#[derive(Default)]
struct Listing(BTreeMap<String, Vec<Item>>);

impl Listing {
    /// Lists what a module holds for all to see.
    fn module(&mut self, path: &str, module: &Module) {
        for item in &module.items {
            match item {
                Item::Mod(child) if is_public(&child.vis) && !is_hidden(&child.attrs) => {
                    let name = child.ident.to_string();
                    self.module(&format!("{path}::{name}"), &module.child(&name));
                }
                Item::Use(export) if is_public(&export.vis) => {
                    self.exports(path, module, &module.items, &export.tree, export.attrs.clone());
                }
                item if name_of(item).is_some() => self.item(path, item, &module.with_children(), &[]),
                _ => {}
            }
        }
    }

    /// Lists what `pub use` names in a module of these items, of which impl blocks may be of what it names.
    fn exports(
        &mut self,
        path: &str,
        module: &Module,
        exporting: &[Item],
        tree: &UseTree,
        attrs: Vec<Attribute>,
    ) {
        match tree {
            UseTree::Path(step) if step.ident == "crate" => {
                let root = root();
                self.exports(path, &root, exporting, &step.tree, attrs);
            }
            UseTree::Path(step) => {
                let child = module.child(&step.ident.to_string());
                self.exports(path, &child, exporting, &step.tree, attrs);
            }
            UseTree::Group(group) => {
                let items = group.items.iter();
                items.for_each(|tree| self.exports(path, module, exporting, tree, attrs.clone()));
            }
            UseTree::Name(name) => {
                let around = [&module.with_children(), exporting].concat();
                let named = |item: &&Item| name_of(item).is_some_and(|found| name.ident == found);
                match module.items.iter().find(named) {
                    Some(item) => self.item(path, item, &around, &attrs),
                    // Exported there too.
                    None => self.reexport(path, module, &name.ident.to_string(), &attrs),
                }
            }
            UseTree::Rename(_) | UseTree::Glob(_) => panic!("{path}: exports are by name"),
        }
    }

    fn reexport(&mut self, path: &str, module: &Module, name: &str, attrs: &[Attribute]) {
        let mut found = Listing::default();
        found.module("", module);
        for item in found.0.remove("").unwrap_or_default() {
            let is_of = match &item {
                Item::Impl(block) => self_type(block).is_some_and(|of| of == name),
                item => name_of(item).is_some_and(|found| found == name),
            };
            if is_of {
                self.0.entry(path.to_string()).or_default().push(with_attrs(item, attrs));
            }
        }
    }

    /// Lists an item and the impl blocks around it that are of its type.
    fn item(&mut self, path: &str, item: &Item, around: &[Item], attrs: &[Attribute]) {
        let Some(item) = public_part(item) else { return };
        let name = name_of(&item).unwrap_or_default();
        let place = self.0.entry(path.to_string()).or_default();
        place.push(with_attrs(item, attrs));
        place.extend(around.iter().filter_map(|item| public_impl(item, &name)));
        // Constants that a macro makes of its lines.
        for item in around {
            if let Item::Macro(made) = item
                && made.mac.path.is_ident("presets")
                && name == "Preset"
            {
                place.push(constants_of(&made.mac.tokens.to_string()));
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (path, items) in &self.0 {
            let file = syn::File { shebang: None, attrs: Vec::new(), items: items.clone() };
            text.push_str(&format!("// {path}\n\n{}\n", prettyplease::unparse(&file)));
        }
        text
    }
}

/// `impl Preset { pub const NAME: Preset; … }`
fn constants_of(lines: &str) -> Item {
    let names = lines.split(';').filter_map(|line| line.split_whitespace().next());
    let constants: String = names.map(|name| format!("pub const {name}: Preset = {{}};")).collect();
    syn::parse_str(&format!("impl Preset {{ {constants} }}")).expect("an impl block")
}

fn with_attrs(mut item: Item, more: &[Attribute]) -> Item {
    let attrs = match &mut item {
        Item::Const(item) => &mut item.attrs,
        Item::Enum(item) => &mut item.attrs,
        Item::Fn(item) => &mut item.attrs,
        Item::Struct(item) => &mut item.attrs,
        Item::Type(item) => &mut item.attrs,
        _ => return item,
    };
    let known: Vec<Attribute> = std::mem::take(attrs);
    let text = |attr: &Attribute| attr.meta.require_list().map(|list| list.tokens.to_string()).ok();
    let is_new = |attr: &&Attribute| !known.iter().any(|known| text(known) == text(attr));
    attrs.extend(more.iter().filter(|attr| attr.path().is_ident("cfg")).filter(is_new).cloned());
    attrs.extend(known);
    item
}

/// The name of a public item.
fn name_of(item: &Item) -> Option<String> {
    let (visibility, name) = match item {
        Item::Const(item) => (&item.vis, &item.ident),
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Fn(item) => (&item.vis, &item.sig.ident),
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Trait(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        _ => return None,
    };
    is_public(visibility).then(|| name.to_string())
}

/// An item without what nobody outside sees of it.
fn public_part(item: &Item) -> Option<Item> {
    let mut item = item.clone();
    match &mut item {
        Item::Const(item) => keep_attrs(&mut item.attrs),
        Item::Enum(item) => {
            keep_attrs(&mut item.attrs);
            for variant in &mut item.variants {
                keep_attrs(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| keep_attrs(&mut field.attrs));
            }
        }
        Item::Fn(item) => {
            keep_attrs(&mut item.attrs);
            item.block.stmts.clear();
        }
        Item::Struct(item) => {
            keep_attrs(&mut item.attrs);
            match &mut item.fields {
                Fields::Named(fields) => {
                    let public = std::mem::take(&mut fields.named).into_iter();
                    fields.named = public.filter(|field| is_public(&field.vis)).collect();
                }
                Fields::Unnamed(fields) => {
                    let public = std::mem::take(&mut fields.unnamed).into_iter();
                    fields.unnamed = public.filter(|field| is_public(&field.vis)).collect();
                }
                Fields::Unit => {}
            }
            item.fields.iter_mut().for_each(|field| keep_attrs(&mut field.attrs));
        }
        Item::Type(item) => keep_attrs(&mut item.attrs),
        Item::Trait(item) => keep_attrs(&mut item.attrs),
        _ => return None,
    }
    Some(item)
}

fn self_type(block: &syn::ItemImpl) -> Option<String> {
    let Type::Path(of) = &*block.self_ty else { return None };
    of.path.segments.last().map(|segment| segment.ident.to_string())
}

/// The public part of an impl block of this type.
fn public_impl(item: &Item, name: &str) -> Option<Item> {
    let Item::Impl(block) = item else { return None };
    if self_type(block)? != name || of_tests(&block.attrs) {
        return None;
    }
    let mut block = block.clone();
    keep_attrs(&mut block.attrs);
    if block.trait_.is_some() {
        block.items.clear();
        return Some(Item::Impl(block));
    }
    block.items.retain_mut(|item| match item {
        ImplItem::Const(item) => {
            keep_attrs(&mut item.attrs);
            is_public(&item.vis) && !of_tests(&item.attrs)
        }
        ImplItem::Fn(item) => {
            keep_attrs(&mut item.attrs);
            item.block.stmts.clear();
            is_public(&item.vis) && !of_tests(&item.attrs)
        }
        _ => false,
    });
    (!block.items.is_empty()).then_some(Item::Impl(block))
}

fn root() -> Module {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    Module::read(&src.join("lib.rs"), &src)
}

#[test]
fn the_public_api_is_as_listed() {
    let mut listing = Listing::default();
    listing.module("eplb_wgpu", &root());
    let found = listing.text();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/public_api.txt");
    if std::env::var_os("EPLB_RENEW_PUBLIC_API").is_some() {
        std::fs::write(&path, &found).expect("the list can be written");
    }
    // Git may have given the lines other ends.
    let listed = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    let differs = |(a, b): &(&str, &str)| a != b;
    let first = found.lines().zip(listed.lines()).position(|pair| differs(&pair));
    let first = first.unwrap_or_else(|| found.lines().count().min(listed.lines().count()));
    assert!(
        found == listed,
        "the public API is not as tests/public_api.txt lists it, from line {} on: {:?}, listed {:?}. If that is meant, \
         EPLB_RENEW_PUBLIC_API=1 cargo test --test public_api renews the list, and CHANGELOG.md tells of it",
        first + 1,
        found.lines().nth(first).unwrap_or("nothing"),
        listed.lines().nth(first).unwrap_or("nothing"),
    );
}

#[test]
fn the_list_holds_what_it_should_and_nothing_private() {
    let mut listing = Listing::default();
    listing.module("eplb_wgpu", &root());
    let found = listing.text();
    for part in [
        "pub struct Planner {}",
        "pub async fn plan_async(",
        "pub const GREEDY: Preset",
        "impl std::error::Error for Error {}",
        "// eplb_wgpu::rebalance",
        "pub const MAX_SLOTS: usize",
        "#[non_exhaustive]\npub struct PlanFile",
    ] {
        assert!(found.contains(part), "{part}");
    }
    for part in ["fixed_windows", "FIXED_TOTAL", "pub(crate)", "testing", "profile", "ShaderUnit", "///"] {
        assert!(!found.contains(part), "{part}");
    }
}
