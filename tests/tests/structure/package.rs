//! A package as its syntax trees, and who uses whose items in it.
//!
//! A path is followed from module to module, through `use` declarations, globs and re-exports, to the file that defines
//! the item. What only types can tell is not seen: methods, fields, and paths that a macro of another package makes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A package of the workspace: its library, test modules left out.
pub struct Package {
    pub name: String,
    pub files: Vec<SourceFile>,
    modules: Vec<Module>,
}

pub struct SourceFile {
    /// Seen from the root of the workspace.
    pub path: PathBuf,
    /// Without what is compiled for tests alone.
    pub tree: syn::File,
}

/// A module: a file, or a part of one.
struct Module {
    file: usize,
    parent: Option<usize>,
    /// A name may stand for a module, a type and a function at once.
    names: HashMap<String, Vec<Name>>,
    globs: Vec<Vec<String>>,
}

#[derive(Clone)]
enum Name {
    Module(usize),
    /// An item, with the file that defines it.
    Item(usize),
    /// What a `use` declaration binds.
    Alias(Vec<String>),
}

/// Where one file uses an item of another.
pub struct Use {
    pub line: usize,
    pub path: String,
}

/// By the files' places in [`Package::files`]: who uses, whose item, and the first such place.
pub type Arrows = BTreeMap<(usize, usize), Use>;

/// Whether an item is compiled for tests alone.
pub fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return attribute.path().is_ident("test") };
        list.path.is_ident("cfg")
            && list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
    })
}

/// The attributes of an item.
fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Removes what is compiled for tests alone.
fn without_tests(items: &mut Vec<syn::Item>) {
    items.retain(|item| !is_test(attributes(item)));
    for item in items {
        match item {
            syn::Item::Mod(syn::ItemMod { content: Some((_, items)), .. }) => without_tests(items),
            syn::Item::Impl(item) => item.items.retain(|item| match item {
                syn::ImplItem::Fn(function) => !is_test(&function.attrs),
                _ => true,
            }),
            _ => {}
        }
    }
}

impl Package {
    /// The path of a file by its number, as a message shows it.
    pub fn shown(&self, file: usize) -> std::path::Display<'_> {
        self.files[file].path.display()
    }

    /// Reads the library of the package in `folder`, a folder of the workspace at `root`, and the modules below it.
    pub fn read(root: &Path, folder: &str) -> Package {
        let manifest: toml::Table = fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap().parse().unwrap();
        let mut package = Package {
            name: manifest["package"]["name"].as_str().unwrap().to_owned(),
            files: Vec::new(),
            modules: Vec::new(),
        };
        let sources = Path::new(folder).join("src");
        package.add_file(root, sources.join("lib.rs"), &sources, None);
        package
    }

    fn add_file(&mut self, root: &Path, path: PathBuf, children: &Path, parent: Option<usize>) -> usize {
        let mut tree = syn::parse_file(&fs::read_to_string(root.join(&path)).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        without_tests(&mut tree.items);
        let items = tree.items.clone();
        self.files.push(SourceFile { path, tree });
        self.add_module(root, self.files.len() - 1, &items, children, parent)
    }

    /// `children` is the folder in which the modules that it declares lie.
    fn add_module(
        &mut self,
        root: &Path,
        file: usize,
        items: &[syn::Item],
        children: &Path,
        parent: Option<usize>,
    ) -> usize {
        let module = self.modules.len();
        self.modules.push(Module { file, parent, names: HashMap::new(), globs: Vec::new() });
        for item in items {
            let ident = match item {
                syn::Item::Mod(declared) => {
                    let name = declared.ident.to_string();
                    let below = children.join(&name);
                    let child = match &declared.content {
                        Some((_, items)) => self.add_module(root, file, items, &below, Some(module)),
                        None => {
                            let beside = children.join(format!("{name}.rs"));
                            let path = if root.join(&beside).exists() { beside } else { below.join("mod.rs") };
                            self.add_file(root, path, &below, Some(module))
                        }
                    };
                    self.bind(module, name, Name::Module(child));
                    continue;
                }
                syn::Item::Const(item) => &item.ident,
                syn::Item::Enum(item) => &item.ident,
                syn::Item::Fn(item) => &item.sig.ident,
                syn::Item::Static(item) => &item.ident,
                syn::Item::Struct(item) => &item.ident,
                syn::Item::Trait(item) => &item.ident,
                syn::Item::Type(item) => &item.ident,
                syn::Item::Union(item) => &item.ident,
                syn::Item::Macro(syn::ItemMacro { ident: Some(ident), .. }) => ident,
                _ => continue,
            };
            self.bind(module, ident.to_string(), Name::Item(file));
        }
        let mut declarations = Declarations::default();
        for item in items {
            // A module within has declarations of its own.
            if !matches!(item, syn::Item::Mod(_)) {
                declarations.visit_item(item);
            }
        }
        for (path, name) in declarations.leaves {
            match name {
                Some(name) => self.bind(module, name, Name::Alias(path)),
                None => self.modules[module].globs.push(path),
            }
        }
        module
    }

    fn bind(&mut self, module: usize, name: String, meaning: Name) {
        self.modules[module].names.entry(name).or_default().push(meaning);
    }

    /// Every use of one file's items by another.
    pub fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (file, source) in self.files.iter().enumerate() {
            // A file's own module comes before those within it.
            let Some(module) = self.modules.iter().position(|module| module.file == file) else { continue };
            self.add_arrows(module, &source.tree.items, &mut arrows);
        }
        arrows
    }

    fn add_arrows(&self, module: usize, items: &[syn::Item], arrows: &mut Arrows) {
        let mut paths = Paths::default();
        for item in items {
            match item {
                syn::Item::Mod(syn::ItemMod { ident, content: Some((_, items)), .. }) => {
                    for name in &self.modules[module].names[&ident.to_string()] {
                        if let Name::Module(inner) = name {
                            self.add_arrows(*inner, items, arrows);
                        }
                    }
                }
                syn::Item::Mod(_) => {}
                item => paths.visit_item(item),
            }
        }
        let from = self.modules[module].file;
        for (line, path) in paths.found {
            for to in self.files_of(module, &path) {
                if to != from {
                    arrows.entry((from, to)).or_insert_with(|| Use { line, path: path.join("::") });
                }
            }
        }
    }

    /// The files that define the item which `path` names in `module`.
    fn files_of(&self, module: usize, path: &[String]) -> Vec<usize> {
        let mut files = Vec::new();
        for name in self.follow(module, path, &mut HashSet::new()) {
            if let Name::Item(file) = name {
                files.push(file);
            }
        }
        files
    }

    /// What `path` names, seen from `module`: modules and items. The walk ends at an item: what follows is its own.
    fn follow(&self, module: usize, path: &[String], seen: &mut HashSet<(usize, String)>) -> Vec<Name> {
        let mut place = module;
        let mut rest = path;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" | "$crate" => place = 0,
                "self" => {}
                "super" => match self.modules[place].parent {
                    Some(parent) => place = parent,
                    None => return Vec::new(),
                },
                _ => break,
            }
            rest = after;
        }
        let mut reached = vec![Name::Module(place)];
        for segment in rest {
            let mut next = Vec::new();
            for name in reached {
                match name {
                    Name::Module(module) => next.extend(self.look_up(module, segment, seen)),
                    item => next.push(item),
                }
            }
            reached = next;
        }
        reached
    }

    fn look_up(&self, module: usize, name: &str, seen: &mut HashSet<(usize, String)>) -> Vec<Name> {
        if !seen.insert((module, name.to_owned())) {
            return Vec::new();
        }
        let here = &self.modules[module];
        let mut found = Vec::new();
        for meaning in here.names.get(name).into_iter().flatten() {
            match meaning {
                Name::Alias(path) => found.extend(self.follow(module, path, seen)),
                other => found.push(other.clone()),
            }
        }
        if found.is_empty() {
            for glob in &here.globs {
                for source in self.follow(module, glob, seen) {
                    if let Name::Module(source) = source {
                        found.extend(self.look_up(source, name, seen));
                    }
                }
            }
        }
        seen.remove(&(module, name.to_owned()));
        found
    }
}

/// A path with one more segment.
fn below(path: &[String], ident: &syn::Ident) -> Vec<String> {
    [path, &[ident.to_string()]].concat()
}

/// The leaves of `use` declarations: a path and the name that it gets, none for a glob.
#[derive(Default)]
struct Declarations {
    leaves: Vec<(Vec<String>, Option<String>)>,
}

impl Declarations {
    fn add(&mut self, before: &[String], tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => self.add(&below(before, &path.ident), &path.tree),
            // `use a::b::{self}`
            syn::UseTree::Name(name) if name.ident == "self" => {
                self.leaves.push((before.to_vec(), before.last().cloned()));
            }
            syn::UseTree::Name(name) => self.leaves.push((below(before, &name.ident), Some(name.ident.to_string()))),
            syn::UseTree::Rename(name) => self.leaves.push((below(before, &name.ident), Some(name.rename.to_string()))),
            syn::UseTree::Glob(_) => self.leaves.push((before.to_vec(), None)),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.add(before, tree);
                }
            }
        }
    }
}

impl<'a> Visit<'a> for Declarations {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.add(&[], &item.tree);
    }
}

/// Every path of a piece of code, with its line. A re-export is none: it lends a name, and whoever takes it is the user.
#[derive(Default)]
struct Paths {
    found: Vec<(usize, Vec<String>)>,
}

impl Paths {
    fn add(&mut self, path: &syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.found.push((path.span().start().line, segments));
    }

    /// Finds paths in what a macro is given, which has no syntax yet.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Ident(first) => {
                    let mut path = vec![first.to_string()];
                    let mut end = at + 1;
                    while let [TokenTree::Punct(colon), TokenTree::Punct(_), TokenTree::Ident(next), ..] =
                        &tokens[end..]
                    {
                        if colon.as_char() != ':' || colon.spacing() != Spacing::Joint {
                            break;
                        }
                        path.push(next.to_string());
                        end += 3;
                    }
                    let called = matches!(tokens.get(end), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
                    let a_type = path[0].starts_with(char::is_uppercase);
                    let before = at.checked_sub(1).map(|before| tokens[before].to_string());
                    let a_method = before.as_deref() == Some(".");
                    if !a_method && (path.len() > 1 || called || a_type) {
                        self.found.push((first.span().start().line, path));
                    }
                    at = end;
                    continue;
                }
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                _ => {}
            }
            at += 1;
        }
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if !matches!(item.vis, syn::Visibility::Inherited) {
            return;
        }
        let mut declarations = Declarations::default();
        declarations.visit_item_use(item);
        for (path, name) in declarations.leaves {
            if name.is_some() {
                self.found.push((item.span().start().line, path));
            }
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.add(path);
        visit::visit_path(self, path);
    }

    // A plain lower-case name is a variable; a function is seen where it is called.
    fn visit_expr_path(&mut self, expression: &'a syn::ExprPath) {
        match expression.path.get_ident() {
            Some(name) if name.to_string().starts_with(char::is_lowercase) => {}
            _ => visit::visit_expr_path(self, expression),
        }
    }

    fn visit_expr_call(&mut self, call: &'a syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func {
            self.add(&function.path);
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, invocation: &'a syn::Macro) {
        self.add(&invocation.path);
        self.add_tokens(invocation.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'a syn::Attribute) {}

    fn visit_vis_restricted(&mut self, _: &'a syn::VisRestricted) {}
}
