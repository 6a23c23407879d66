//! Binaries, tests and doctests of this package find libtorch at run time through a path, and `limbeck new` has the versions
//! that Limbeck was tested with.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(lib) = env::var("DEP_LIMBECK_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{lib}");
    }
    copy_lock_file()
}

/// The lock file is the workspace's, or lies in the package once that is published.
fn copy_lock_file() -> io::Result<()> {
    let mut lock = PathBuf::from("../Cargo.lock");
    if !lock.is_file() {
        lock = PathBuf::from("Cargo.lock");
    }
    println!("cargo::rerun-if-changed={}", lock.display());
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::copy(lock, PathBuf::from(out).join("Cargo.lock")).map(drop)
}
