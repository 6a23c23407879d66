//! How the source must stay: no file imports in a circle, one name is one type of a package, the framework names no plugin,
//! a setting is stated once, and nobody links what they do not use.

#![allow(clippy::unwrap_used)]

mod circles;
mod closures;
mod package;
mod plugins;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use syn::visit::{self, Visit};

use package::Package;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folders of the workspace's packages.
fn members() -> Vec<String> {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    members.iter().map(|member| member.as_str().unwrap().to_owned()).collect()
}

fn packages() -> Vec<Package> {
    members().iter().map(|folder| Package::read(&root(), folder)).collect()
}

#[test]
fn no_files_import_in_a_circle() {
    let mut faults = String::new();
    for package in packages() {
        let arrows = package.arrows();
        for (members, shortest) in circles::circles(package.files.len(), &arrows.keys().copied().collect()) {
            faults += &format!("{}: {} files use each other in a circle, for example\n", package.name, members.len());
            let pairs = shortest.iter().zip(shortest.iter().cycle().skip(1));
            for (from, to) in pairs {
                let used = &arrows[&(*from, *to)];
                faults +=
                    &format!("  {}:{} uses {} of {}\n", package.shown(*from), used.line, used.path, package.shown(*to));
            }
            faults += "and all their arrows:\n";
            for ((from, to), used) in &arrows {
                if members.contains(from) && members.contains(to) {
                    faults +=
                        &format!("  {}:{} → {} ({})\n", package.shown(*from), used.line, package.shown(*to), used.path);
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

/// Where types of each name are defined.
#[derive(Default)]
struct Types {
    places: BTreeMap<String, Vec<usize>>,
}

impl Types {
    fn add(&mut self, ident: &syn::Ident) {
        self.places.entry(ident.to_string()).or_default().push(ident.span().start().line);
    }
}

impl<'a> Visit<'a> for Types {
    fn visit_item_enum(&mut self, item: &'a syn::ItemEnum) {
        self.add(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        self.add(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        self.add(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'a syn::ItemType) {
        self.add(&item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_union(&mut self, item: &'a syn::ItemUnion) {
        self.add(&item.ident);
        visit::visit_item_union(self, item);
    }
}

#[test]
fn one_name_is_one_type_of_a_package() {
    let mut faults = String::new();
    for package in packages() {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in &package.files {
            let mut types = Types::default();
            types.visit_file(&file.tree);
            for (name, lines) in types.places {
                let here = lines.iter().map(|line| format!("{}:{line}", file.path.display()));
                places.entry(name).or_default().extend(here);
            }
        }
        for (name, places) in places {
            if places.len() > 1 {
                faults +=
                    &format!("{}: {name} is defined {} times: {}\n", package.name, places.len(), places.join(", "));
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

/// The packages that are linked into one which depends on `package`.
fn linked_with(package: &str) -> Vec<String> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--offline", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    let output = tree.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).unwrap();
    list.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn a_plugin_links_no_command_no_network_and_no_other_plugin() {
    let linked = linked_with("limbeck");
    assert!(linked.contains(&"tch".to_owned()), "{linked:?}");
    for package in &linked {
        let ours = package.starts_with("limbeck") && !["limbeck", "limbeck-derive"].contains(&package.as_str());
        assert!(
            !ours && !["clap", "rustls", "ureq", "tempfile"].contains(&package.as_str()),
            "who depends on `limbeck` links {package}"
        );
    }
}
