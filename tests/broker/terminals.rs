//! `longshore exec -it` as somebody at a terminal meets it.

use std::{ffi::OsString, time::Duration};

use rustix::process::Signal;

use crate::{
    programs::{count_marked, tools, wait_until_none},
    pty::Pty,
    support::{BrokerOptions, Stage, as_both, unique},
};

/// How long what was typed may take to be there.
const SOON: Duration = Duration::from_secs(20);

as_both!(a_shell_is_at_home, what_ends_the_command_ends_the_program, a_broker_that_is_killed_gives_the_terminal_back);

/// A shell of the extension in a new terminal, having said that it is there.
fn shell(stage: &Stage, target: &str, marker: &str) -> Pty {
    let id = stage.id();
    let marked = format!("MARK={marker}");
    let arguments = ["exec", "-it", "-e", &marked, "-e", "PS1=> ", &id, target, "--", "/bin/sh"];
    let command = stage.broker.cli(&arguments);
    let words: Vec<OsString> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(Into::into).collect();
    let mut terminal = Pty::run(&words, 91, 17);
    terminal.shows("> ");
    terminal
}

pub(crate) async fn a_shell_is_at_home(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    for target in ["--host", "--backend"] {
        let mut terminal = shell(&stage, target, &unique("mark"));
        assert!(terminal.is_raw());
        terminal.type_in(b"test -t 0 && echo $((6 * 7)) $TERM; stty size\r");
        terminal.shows("42 vt220");
        terminal.shows("17 91");
        terminal.shows("> ");
        terminal.resize(120, 40);
        // The size is there when the program has been told, which no prompt says.
        terminal.type_in(b"until stty size | grep '40 120'; do sleep 0.05; done\r");
        terminal.shows("\n40 120");
        terminal.shows("> ");
        // One program says it and sleeps: between two of them an interrupt would meet nobody.
        terminal.type_in(b"sh -c 'echo go-$((1 + 1)); exec sleep 1000'\r");
        terminal.shows("go-2");
        terminal.type_in(b"\x03");
        terminal.shows("> ");
        terminal.type_in(b"echo code-$?\r");
        terminal.shows("code-130");
        terminal.type_in(b"exit 9\r");
        assert_eq!(terminal.ends(), 9);
        // The end of input is typed as well.
        let mut terminal = shell(&stage, target, &unique("mark"));
        terminal.type_in(b"\x04");
        assert_eq!(terminal.ends(), 0);
    }
}

async fn what_ends_the_command_ends_the_program(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    for target in ["--host", "--backend"] {
        let marker = unique("mark");
        let mut terminal = shell(&stage, target, &marker);
        terminal.type_in(b"sleep 1000 & echo go-$((1 + 1))\r");
        terminal.shows("go-2");
        assert!(count_marked(&marker) > 0);
        terminal.signal(Signal::TERM);
        assert_eq!(terminal.ends(), 143);
        tokio::time::timeout(SOON, wait_until_none(&marker)).await.unwrap();
    }
}

async fn a_broker_that_is_killed_gives_the_terminal_back(options: BrokerOptions) {
    let mut stage = Stage::without_wait(tools(), options).await;
    let marker = unique("mark");
    let mut terminals = ["--host", "--backend"].map(|target| shell(&stage, target, &marker));
    stage.broker.kill();
    for terminal in &mut terminals {
        terminal.shows("longshore: the broker closed the connection\r\n");
        assert_eq!(terminal.ends(), 125);
    }
    tokio::time::timeout(SOON, wait_until_none(&marker)).await.unwrap();
    stage.broker.restart().await;
}
