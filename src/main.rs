//! The one binary: broker, command line and shim.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == "shim") {
        return longshore::shim::main(args);
    }
    ExitCode::SUCCESS
}
