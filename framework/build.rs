//! Passes the folder of libtorch on to every crate that depends on this one, as `DEP_LIMBECK_LIBTORCH_LIB`.

use std::env;

// For a libtorch that is gone after torch-sys was compiled; before that, .cargo/no-libtorch has the word.
const _: &str = include_str!(concat!(env!("LIBTORCH", "no LIBTORCH: see .cargo/config.toml"), "/build-version")); // missing? run `make libtorch`

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH_USE_PYTORCH");
    if env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        println!(
            "cargo::error=LIBTORCH_USE_PYTORCH makes torch-sys bypass the folder of `make libtorch`; unset it \
             (`make libtorch` uses the PyTorch of the active Python by itself)"
        );
        return;
    }
    let Ok(lib) = env::var("DEP_TCH_LIBTORCH_LIB") else {
        println!("cargo::error=torch-sys did not say where libtorch is; run `make libtorch` and build again");
        return;
    };
    println!("cargo::metadata=libtorch_lib={lib}");
    // The old tag comes before LD_LIBRARY_PATH, in which another libtorch may lie.
    println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{lib}");
}
