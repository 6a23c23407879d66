//! `limbeck new`: a crate with a working plugin in it, ready to be built, tested and run.
//!
//! What is written are the files in `scaffold/`, with other names. Those of the plugins are Rust that the tests of this
//! repository compile, check and plan as they stand.

use std::fs;
use std::path::{Path, PathBuf};

use limbeck::error::{Error, Result};
use limbeck::files::write_atomically;
use limbeck::registry::{self, Role};

/// The roles that there is a scaffold for.
pub const ROLES: [Role; 5] = [Role::Distiller, Role::Critic, Role::Negatives, Role::Model, Role::Dataset];

/// Where libtorch and its header of last resort were when this command was built.
const LIBTORCH: &str = env!("LIBTORCH");
const NO_LIBTORCH: Option<&str> = option_env!("CPATH");

/// A crate to be made.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// What its plugin is for: one of [`ROLES`].
    pub role: Role,
    /// The name of crate, plugin and, of a distiller, method.
    pub name: &'a str,
    /// The folder that is made.
    pub folder: &'a Path,
    /// Limbeck's sources, a folder or a git URL; absent: the checkout that built this command.
    pub limbeck: Option<&'a str>,
}

impl New<'_> {
    /// Writes the crate.
    ///
    /// # Errors
    /// If the name cannot be one or is taken, if there is no Limbeck where it should be, or if the folder has files in it.
    pub fn write(&self) -> Result<()> {
        self.check_name()?;
        let source = Framework::find(self.limbeck)?;
        let occupied = fs::read_dir(self.folder).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            let folder = self.folder.display();
            return Err(Error::plan(format!("{folder} has files in it: choose another folder with --out")));
        }
        for (path, text) in self.files(&source)? {
            let path = self.folder.join(path);
            let folder = path.parent().unwrap_or(self.folder);
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
            write_atomically(&path, text.as_bytes())?;
        }
        Ok(())
    }

    /// A name is an identifier, of the crate too, and free in every role that the scaffold registers.
    fn check_name(&self) -> Result<()> {
        let name = self.name;
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !(plain && name.starts_with(|first: char| first.is_ascii_lowercase())) {
            return Err(self.bad_name("write it in lower-case letters, digits and underscores, a letter first"));
        }
        if name.starts_with("limbeck") || RESERVED.contains(&name) {
            return Err(self.bad_name("a crate cannot be called that"));
        }
        let roles = if self.role == Role::Distiller { vec![Role::Distiller, Role::Method] } else { vec![self.role] };
        match registry::plugins().into_iter().find(|plugin| plugin.name == name && roles.contains(&plugin.role)) {
            Some(taken) => {
                Err(self.bad_name(&format!("there is a {} of that name, in crate {}", taken.role, taken.package)))
            }
            None => Ok(()),
        }
    }

    fn bad_name(&self, why: &str) -> Error {
        Error::plan(format!("the name `{}`: {why}", self.name))
    }

    /// The files by their path in the crate.
    fn files(&self, source: &Framework) -> Result<Vec<(String, String)>> {
        let role = self.role.name();
        let (plugin, experiment) = match self.role {
            Role::Distiller => (include_str!("scaffold/distiller.rs"), include_str!("scaffold/distiller.toml")),
            Role::Critic => (include_str!("scaffold/critic.rs"), include_str!("scaffold/critic.toml")),
            Role::Negatives => (include_str!("scaffold/negatives.rs"), include_str!("scaffold/negatives.toml")),
            Role::Model => (include_str!("scaffold/model.rs"), include_str!("scaffold/model.toml")),
            Role::Dataset => (include_str!("scaffold/dataset.rs"), include_str!("scaffold/dataset.toml")),
            other => return Err(Error::plan(format!("there is no scaffold for a {other}"))),
        };
        let plugin_file = format!("src/{role}.rs");
        let templates = [
            ("Cargo.toml", include_str!("scaffold/package.toml")),
            (".cargo/config.toml", include_str!("scaffold/config.toml")),
            (".gitignore", "/target\n/runs\n"),
            ("README.md", include_str!("scaffold/README.md")),
            ("build.rs", include_str!("scaffold/build.rs")),
            ("experiment.toml", experiment),
            ("src/lib.rs", include_str!("scaffold/lib.rs")),
            ("src/main.rs", include_str!("scaffold/main.rs")),
            (&plugin_file, plugin),
            ("tests/conformance.rs", include_str!("scaffold/conformance.rs")),
        ];
        let (type_name, role_type) = (camel_case(self.name), camel_case(role));
        let words = [
            (format!("my_{role}"), self.name.to_owned()),
            (format!("My{role_type}"), type_name.clone()),
            ("my_plugin".to_owned(), self.name.to_owned()),
            ("MyPlugin".to_owned(), type_name),
            ("my_role".to_owned(), role.to_owned()),
            ("MyRole".to_owned(), role_type),
            ("LIMBECK_DEPENDENCIES".to_owned(), source.dependencies(self.role)),
            ("LIMBECK_CONFORMANCE".to_owned(), source.dependency("limbeck-conformance", "framework/conformance")),
            ("TARGET_FOLDER".to_owned(), source.target()),
            ("NO_LIBTORCH_FOLDER".to_owned(), quoted(NO_LIBTORCH.unwrap_or_default())),
            ("LIBTORCH_FOLDER".to_owned(), quoted(&source.libtorch.display().to_string())),
        ];
        let mut files = Vec::new();
        for (path, text) in templates {
            let mut text = text.to_owned();
            for (word, value) in &words {
                text = text.replace(word, value);
            }
            files.push((path.to_owned(), text));
        }
        // The versions that Limbeck was tested with.
        files.push(("Cargo.lock".to_owned(), include_str!(concat!(env!("OUT_DIR"), "/Cargo.lock")).to_owned()));
        Ok(files)
    }
}

/// What a crate cannot be called: keywords, and what every crate here depends on.
const RESERVED: [&str; 39] = [
    "abstract", "as", "async", "await", "box", "break", "const", "continue", "core", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "fn", "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub",
    "ref", "return", "self", "serde", "static", "std", "struct", "test", "trait", "type", "use",
];

/// `two_words` → `TwoWords`
fn camel_case(name: &str) -> String {
    let words = name.split('_').filter(|word| !word.is_empty());
    words.map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Where the framework comes from.
struct Framework {
    place: Place,
    /// The view of libtorch that the crate is compiled against.
    libtorch: PathBuf,
}

enum Place {
    Folder(PathBuf),
    Git(String),
}

impl Framework {
    fn find(given: Option<&str>) -> Result<Self> {
        let built_with = PathBuf::from(LIBTORCH);
        match given {
            Some(url) if url.contains("://") => {
                Ok(Framework { place: Place::Git(url.to_owned()), libtorch: built_with })
            }
            // Git's short form, which cargo does not take.
            Some(url) if url.starts_with("git@") && url.contains(':') => {
                let url = format!("ssh://{}", url.replacen(':', "/", 1));
                Ok(Framework { place: Place::Git(url), libtorch: built_with })
            }
            Some(folder) => {
                let folder = fs::canonicalize(folder).map_err(Error::io("read", folder))?;
                let libtorch = folder.join(".libtorch");
                if !is_checkout(&folder) {
                    let folder = folder.display();
                    return Err(Error::plan(format!(
                        "{folder} is no checkout of Limbeck: it has no framework/Cargo.toml"
                    )));
                }
                if !libtorch.exists() {
                    let folder = folder.display();
                    return Err(Error::plan(format!(
                        "there is no libtorch in {folder} yet: run `make libtorch` there"
                    )));
                }
                Ok(Framework { place: Place::Folder(folder), libtorch })
            }
            None => {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned();
                if !is_checkout(&folder) {
                    let folder = folder.display();
                    return Err(Error::plan(format!(
                        "the checkout that built this command, {folder}, is gone: name another one, or a git URL, with --limbeck"
                    )));
                }
                Ok(Framework { place: Place::Folder(folder), libtorch: built_with })
            }
        }
    }

    /// The section that lets the crate share a checkout's target folder.
    fn target(&self) -> String {
        match &self.place {
            Place::Git(_) => String::new(),
            Place::Folder(checkout) => format!(
                "\n# What the checkout has compiled, the C++ of torch-sys above all, is not compiled again.\n[build]\ntarget-dir = {}\n",
                quoted(&checkout.join("target").display().to_string())
            ),
        }
    }

    /// The lines of `[dependencies]`.
    fn dependencies(&self, role: Role) -> String {
        let mut packages = vec![("limbeck", "framework"), ("limbeck-cli", "experiments")];
        if role == Role::Dataset {
            packages.push(("limbeck-datasets", "datasets"));
        }
        let lines: Vec<String> =
            packages.into_iter().map(|(package, folder)| self.dependency(package, folder)).collect();
        lines.join("\n")
    }

    /// The line of one dependency, whose package lies in that folder of the checkout.
    fn dependency(&self, package: &str, folder: &str) -> String {
        match &self.place {
            Place::Folder(checkout) => {
                format!("{package} = {{ path = {} }}", quoted(&checkout.join(folder).display().to_string()))
            }
            Place::Git(url) => format!("{package} = {{ git = {} }}", quoted(url)),
        }
    }
}

fn is_checkout(folder: &Path) -> bool {
    folder.join("framework/Cargo.toml").is_file()
}
