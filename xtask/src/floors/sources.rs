//! The Rust files of a package, without its test code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, File, ImplItem, Item, ItemMod, Meta};

use super::Violation;
use crate::shell::Failure;

/// One file as the rules see it.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its path from the workspace root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Whether it is part of what the package builds, not an example.
    pub(crate) is_library_code: bool,
}

impl Source {
    pub(crate) fn is_ingress(&self) -> bool {
        self.path.file_name().is_some_and(|name| name == "ingress.rs")
    }
}

/// The files under `src` and `examples`; files that only exist under `#[cfg(test)]` are left out, since tests may
/// reach behind a door to see what it does.
pub(crate) fn of(root: &Path, package: &Path) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for (folder, is_library_code) in [("src", true), ("examples", false)] {
        let mut paths = Vec::new();
        walk(&package.join(folder), &mut paths)?;
        for path in paths {
            let text = fs::read_to_string(&path).map_err(Failure::file(&path))?;
            let path = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
            sources.push(Source { path, text, is_library_code });
        }
    }
    let test_modules: BTreeSet<PathBuf> = sources.iter().flat_map(test_modules).collect();
    sources.retain(|source| {
        let module = source.path.with_extension("");
        !test_modules.iter().any(|test| module.starts_with(test))
    });
    Ok(sources)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if !folder.is_dir() {
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(Failure::file(folder))? {
        entries.push(entry.map_err(Failure::file(folder))?.path());
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// The file as syntax, with everything under `#[cfg(test)]` taken out.
pub(crate) fn parse(source: &Source) -> Result<File, Violation> {
    let mut file = syn::parse_file(&source.text).map_err(|error| Violation {
        file: source.path.clone(),
        line: error.span().start().line,
        rule: "syntax",
        why: format!("cannot be read as Rust: {error}"),
    })?;
    if is_test_only(&file.attrs) {
        file.items.clear();
    }
    drop_tests(&mut file.items);
    Ok(file)
}

fn drop_tests(items: &mut Vec<Item>) {
    items.retain(|item| !is_test_only(attributes(item)));
    for item in items {
        match item {
            Item::Mod(ItemMod { content: Some((_, items)), .. }) => drop_tests(items),
            Item::Impl(block) => block.items.retain(|item| match item {
                ImplItem::Fn(function) => !is_test_only(&function.attrs),
                _ => true,
            }),
            _ => {}
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether the item is compiled for tests only: `#[cfg(test)]`, or `#[cfg(all(test, …))]`.
fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        _ => false,
    })
}

/// The modules (as paths without `.rs`) that this file declares for tests only.
fn test_modules(source: &Source) -> Vec<PathBuf> {
    struct Declared(Vec<String>);
    impl<'ast> Visit<'ast> for Declared {
        fn visit_item_mod(&mut self, module: &'ast ItemMod) {
            if module.content.is_none() && is_test_only(&module.attrs) {
                self.0.push(module.ident.to_string());
            }
            visit::visit_item_mod(self, module);
        }
    }
    let Ok(file) = syn::parse_file(&source.text) else { return Vec::new() };
    let mut declared = Declared(Vec::new());
    declared.visit_file(&file);
    let is_root = ["lib.rs", "main.rs", "mod.rs"].iter().any(|name| source.path.ends_with(name));
    let folder = if is_root { source.path.parent().map(PathBuf::from) } else { Some(source.path.with_extension("")) };
    declared.0.iter().map(|name| folder.clone().unwrap_or_default().join(name)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn source(path: &str, text: &str) -> Source {
        Source { path: PathBuf::from(path), text: text.to_owned(), is_library_code: true }
    }

    #[test]
    fn test_code_is_left_out() {
        let source = source("crates/gossip/src/lib.rs", "fn kept() {}\n#[cfg(test)]\nmod tests { fn dropped() {} }\n");
        let file = parse(&source).expect("it is Rust");
        assert_eq!(file.items.len(), 1);
    }

    #[test]
    fn files_declared_for_tests_only_are_found_from_either_kind_of_parent() {
        let root = source("crates/gossip/src/lib.rs", "#[cfg(test)]\nmod tests;\nmod machine;\n");
        assert_eq!(test_modules(&root), [PathBuf::from("crates/gossip/src/tests")]);
        let child = source("crates/gossip/src/machine.rs", "#[cfg(all(test, feature = \"actor\"))]\nmod cases;\n");
        assert_eq!(test_modules(&child), [PathBuf::from("crates/gossip/src/machine/cases")]);
    }

    #[test]
    fn a_file_that_is_not_rust_is_reported_with_its_line() {
        let parsed = parse(&source("crates/gossip/src/lib.rs", "fn a() {}\nfn b( {}\n"));
        let violation = parsed.err().expect("it is not Rust");
        assert_eq!((violation.line, violation.rule), (2, "syntax"));
    }
}
