//! The `longshore` program.

use std::process::ExitCode;

use longshore::cli::{self, Command};

fn main() -> ExitCode {
    let cli = cli::parse();
    match cli.command {
        Command::Client(command) => {
            let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else {
                return ExitCode::FAILURE;
            };
            let code = runtime.block_on(cli::run(cli.options, command));
            // A read of the terminal, or a write to a reader who stalls, would hold the exit for ever.
            runtime.shutdown_background();
            code
        }
        Command::Serve(_) | Command::Shim(_) => ExitCode::FAILURE,
    }
}
