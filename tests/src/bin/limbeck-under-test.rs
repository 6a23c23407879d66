//! The `limbeck` command, as the tests of this package start it.

fn main() -> std::process::ExitCode {
    limbeck_experiments::main()
}
