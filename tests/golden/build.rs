//! Binaries, tests and doctests of this package find libtorch at run time through this path.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_LIMBECK_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{lib}");
    }
}
