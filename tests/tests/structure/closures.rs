//! Closures with a name are few.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

use super::root;

/// How many closures with a name the workspace may have: such a closure is mostly a statement or a function in disguise.
const NAMED_CLOSURES: usize = 200;

/// Every Rust file below `folder`, built files left out.
fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            rust_files(&path, files);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

/// The closures that get a name: `let name = |…| …`.
#[derive(Default)]
struct NamedClosures {
    count: usize,
}

impl<'a> Visit<'a> for NamedClosures {
    fn visit_local(&mut self, local: &'a syn::Local) {
        if let Some(init) = &local.init
            && matches!(*init.expr, syn::Expr::Closure(_))
        {
            self.count += 1;
        }
        visit::visit_local(self, local);
    }
}

#[test]
fn closures_with_a_name_are_few() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    let mut by_file = BTreeMap::new();
    for path in files {
        let mut closures = NamedClosures::default();
        closures.visit_file(&syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap());
        if closures.count > 0 {
            by_file.insert(path.strip_prefix(root()).unwrap().display().to_string(), closures.count);
        }
    }
    let count: usize = by_file.values().sum();
    let list: Vec<String> = by_file.iter().map(|(file, count)| format!("  {count:3} {file}")).collect();
    assert!(
        count < NAMED_CLOSURES,
        "{count} closures have a name, and fewer than {NAMED_CLOSURES} should:\n{}",
        list.join("\n")
    );
}
