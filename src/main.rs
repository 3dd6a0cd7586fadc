//! The one binary: broker, command line and shim.
#![deny(clippy::unwrap_used, clippy::expect_used)]

use std::{env, process::ExitCode};

use longshore::{
    app,
    cli::{self, Command},
    shim,
};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    // Before anything else: in a container the shim has no more than the kernel.
    if args.next().is_some_and(|arg| arg == "shim") {
        return shim::main(args);
    }
    let cli = cli::parse();
    match cli.command {
        Command::Serve(args) => app::main(&args),
        Command::Repair(args) => app::repair::main(&args),
        Command::Doctor(args) => {
            let checkup = app::doctor::examine(&args, cli.options.socket.as_deref());
            cli::doctor::main(&cli.options, checkup)
        }
        Command::Completions(args) => cli::completions::main(&args),
        Command::Client(command) => cli::main(cli.options, command),
        // Only the process itself asks for it, by its first argument.
        Command::Shim(_) => ExitCode::FAILURE,
    }
}
