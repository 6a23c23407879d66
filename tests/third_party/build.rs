fn main() {
    // Where libtorch is, for the loader: Limbeck's own build script says it.
    println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{}", std::env::var("DEP_LIMBECK_LIBTORCH_LIB").unwrap());
}
