//! `longshore completions`: scripts by which a shell completes the command line.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::Cli;

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = HOW)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

const HOW: &str = "To have them in every new shell:
  bash  longshore completions bash >~/.local/share/bash-completion/completions/longshore
  zsh   longshore completions zsh >DIR/_longshore, where DIR is in $fpath
  fish  longshore completions fish >~/.config/fish/completions/longshore.fish";

/// Prints the script for a shell.
pub fn main(Completions { shell }: &Completions) -> ExitCode {
    let mut script = Vec::new();
    generate(*shell, &mut visible(), "longshore", &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("longshore: cannot write the script: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The command line without what only the process itself asks for: scripts of some shells would offer it.
fn visible() -> clap::Command {
    let all = Cli::command();
    let shown: Vec<_> = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let mut visible = clap::Command::new("longshore").version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    for argument in all.get_arguments() {
        visible = visible.arg(argument.clone());
    }
    visible.subcommands(shown)
}
