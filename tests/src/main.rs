//! The command, for tests that start it as a process of its own.

fn main() -> std::process::ExitCode {
    // By this name it tells its user what to type.
    let arguments = std::env::args_os().skip(1);
    limbeck_cli::cli::main(std::iter::once("limbeck".into()).chain(arguments))
}
