//! The `limbeck` command. Everything is in the library, so that a crate with methods of its own makes the same command
//! with two lines: `use my_method as _;` and this function.

use std::process::ExitCode;

fn main() -> ExitCode {
    limbeck_cli::main()
}
