//! The framework knows no plugin by name, and a plugin states each of its settings once.

use std::collections::BTreeSet;
use std::path::Path;

use limbeck::registry::{self, Role};
use limbeck_datasets as _;
use limbeck_distillers as _;
use limbeck_models as _;
use proc_macro2::{Group, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};

use super::package::Package;
use super::root;

/// The names under which experiments ask for what other packages have.
fn plugin_names() -> BTreeSet<&'static str> {
    let roles = [Role::Method, Role::Distiller, Role::Critic, Role::Negatives, Role::Model, Role::Dataset];
    let mut names = BTreeSet::new();
    for plugin in registry::plugins() {
        if roles.contains(&plugin.role) && plugin.package != "limbeck" {
            names.insert(plugin.name);
        }
    }
    names
}

/// What a type of this name is called: `ResNet8x4`'s case aside, `resnet8x4` is `Resnet8x4`.
fn as_a_type(name: &str) -> String {
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// Whether it is the inside of `#[doc = "…"]`, which comments of documentation become.
fn is_documentation(group: &Group) -> bool {
    matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(first)) if first == "doc")
}

/// Finds the names in texts and among the types.
fn find(tokens: TokenStream, names: &BTreeSet<&str>, path: &Path, faults: &mut Vec<String>) {
    for token in tokens {
        if let TokenTree::Group(group) = token {
            if !is_documentation(&group) {
                find(group.stream(), names, path, faults);
            }
            continue;
        }
        let text = token.to_string();
        for name in names {
            let in_a_text = text.contains(&format!("\"{name}\""))
                || text.contains(&format!("\\\"{name}\\\""))
                || text.contains(&format!("`{name}`"));
            if in_a_text || text == as_a_type(name) {
                faults.push(format!("{}:{}: {text}", path.display(), token.span().start().line));
            }
        }
    }
}

#[test]
fn the_framework_names_no_plugin() {
    let names = plugin_names();
    assert!(names.contains("kd") && names.contains("resnet8x4") && names.contains("cifar100"), "{names:?}");
    let mut faults = Vec::new();
    for file in &Package::read(&root(), "framework").files {
        find(file.tree.to_token_stream(), &names, &file.path, &mut faults);
    }
    assert!(faults.is_empty(), "the framework names plugins:\n{}", faults.join("\n"));
}

/// What states settings twice: a `Default` by hand beside the fields of a recipe, and a text of TOML beside both.
#[derive(Default)]
struct Statements {
    recipes: BTreeSet<String>,
    defaults: Vec<(usize, String)>,
    texts: Vec<usize>,
}

fn name_of(path: &syn::Path) -> String {
    path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
}

impl<'a> Visit<'a> for Statements {
    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        if let (Some((_, of, _)), syn::Type::Path(on)) = (&item.trait_, &*item.self_ty) {
            let on = name_of(&on.path);
            if name_of(of) == "Default" {
                self.defaults.push((item.impl_token.span.start().line, on));
            } else if name_of(of).ends_with("Config") {
                self.recipes.insert(on);
            }
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_macro(&mut self, invocation: &'a syn::Macro) {
        if name_of(&invocation.path) != "plugin" {
            return;
        }
        let tokens: Vec<TokenTree> = invocation.tokens.clone().into_iter().collect();
        for three in tokens.windows(3) {
            if let [TokenTree::Ident(key), TokenTree::Punct(_), TokenTree::Literal(text)] = three
                && key == "settings"
                && text.to_string().contains('=')
            {
                self.texts.push(key.span().start().line);
            }
        }
    }
}

#[test]
fn a_setting_is_stated_once() {
    let mut faults = Vec::new();
    for folder in ["framework", "distillers", "models", "datasets", "plugins/reviewkd"] {
        for file in &Package::read(&root(), folder).files {
            let mut statements = Statements::default();
            statements.visit_file(&file.tree);
            let path = file.path.display();
            for (line, recipe) in statements.defaults {
                if statements.recipes.contains(&recipe) {
                    faults.push(format!("{path}:{line}: `impl Default for {recipe}`; derive it with `Settings`"));
                }
            }
            for line in statements.texts {
                faults.push(format!("{path}:{line}: settings as a text; derive them with `Settings`"));
            }
        }
    }
    assert!(faults.is_empty(), "settings are stated twice:\n{}", faults.join("\n"));
}
