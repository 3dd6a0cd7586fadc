//! What the arguments mean.

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use crate::cli::{Cli, ClientCommand, Command};

fn kind_of_error(arguments: &[&str]) -> ErrorKind {
    Cli::try_parse_from(std::iter::once(&"longshore").chain(arguments)).unwrap_err().kind()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_socket_can_stand_anywhere() {
    for arguments in [
        ["longshore", "--socket", "/s", "serve"],
        ["longshore", "serve", "--socket", "/s"],
        ["longshore", "--socket", "/s", "ls"],
        ["longshore", "ls", "--socket", "/s"],
    ] {
        let cli = Cli::try_parse_from(arguments).unwrap();
        let socket = match cli.command {
            Command::Serve(serve) => serve.socket.or(cli.options.socket),
            _ => cli.options.socket,
        };
        assert_eq!(socket.as_deref(), Some("/s".as_ref()), "{arguments:?}");
    }
}

#[test]
fn what_follows_the_program_belongs_to_it() {
    for arguments in
        [&["exec", "a/b", "--host", "ls", "--json", "-l"][..], &["exec", "a/b", "--", "ls", "--json", "-l"]]
    {
        let cli = Cli::try_parse_from(std::iter::once(&"longshore").chain(arguments)).unwrap();
        assert!(!cli.options.json && matches!(cli.command, Command::Client(ClientCommand::Exec(_))), "{arguments:?}");
    }
    let shim = Cli::try_parse_from(["longshore", "shim", "--spawner", "-x"]).unwrap();
    assert!(matches!(shim.command, Command::Shim(shim) if shim.arguments == ["--spawner", "-x"]));
}

#[test]
fn mistakes_are_usage_errors() {
    assert_eq!(kind_of_error(&["exec", "a/b"]), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind_of_error(&["exec", "a/b", "--host", "--backend", "ls"]), ErrorKind::ArgumentConflict);
    assert_eq!(kind_of_error(&["exec", "a/b", "--host", "--docker", "ps"]), ErrorKind::ArgumentConflict);
    assert_eq!(kind_of_error(&["exec", "a/b", "--docker", "-s", "web", "ps"]), ErrorKind::ArgumentConflict);
    assert_eq!(kind_of_error(&["exec", "a/b", "--timeout", "0", "ls"]), ErrorKind::ValueValidation);
    assert_eq!(kind_of_error(&["kill"]), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind_of_error(&["kill", "e1", "-s", "HUP", "--grace", "1s"]), ErrorKind::ArgumentConflict);
    assert_eq!(kind_of_error(&["call", "a/b", "GET", "/", "-H", "nocolon"]), ErrorKind::ValueValidation);
    assert_eq!(kind_of_error(&["call", "a/b", "GET", "/", "--timeout", "soon"]), ErrorKind::ValueValidation);
    assert_eq!(kind_of_error(&["logs", "a/b", "--tail=-1"]), ErrorKind::ValueValidation);
    assert_eq!(kind_of_error(&["logs", "a/b", "--since", "yesterday"]), ErrorKind::ValueValidation);
    assert_eq!(kind_of_error(&["rm"]), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind_of_error(&["nothing"]), ErrorKind::InvalidSubcommand);
}
