//! All of Limbeck's built-in plugins, and one distiller more.

mod cosine;

fn main() -> std::process::ExitCode {
    limbeck_experiments::main()
}
