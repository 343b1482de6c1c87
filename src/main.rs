//! The program: parse, dispatch, end. Everything else is the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    supafly::cli::main()
}
