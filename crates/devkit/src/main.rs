//! `cargo dev …`: see [`devkit::commands`].

use std::process::ExitCode;

fn main() -> ExitCode {
    devkit::commands::main()
}
