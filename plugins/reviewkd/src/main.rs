//! The `limbeck` command with everything built in, and ReviewKD.

use reviewkd as _; // a crate that is never named registers nothing

fn main() -> std::process::ExitCode {
    limbeck_cli::main()
}
