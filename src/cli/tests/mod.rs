//! The command line against a broker of test data, over a real socket.

mod arguments;
mod calls;
mod fake;
mod installs;
mod programs;
mod tables;

use std::{
    io,
    pin::Pin,
    process::ExitCode,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use clap::Parser as _;
use tokio::io::AsyncWrite;

use self::fake::Fake;
use super::{
    Cli, Command,
    console::{Console, Terminals},
    run_on,
};

/// What a command printed, and its exit code.
#[derive(Debug)]
struct Outcome {
    out: Vec<u8>,
    err: String,
    code: u8,
}

impl Outcome {
    fn out(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    fn json(&self) -> Vec<serde_json::Value> {
        self.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs a command line against the fake broker, with nothing at the keyboard.
async fn run(fake: &Fake, arguments: &[&str]) -> Outcome {
    run_with(fake, arguments, b"", Terminals::default()).await
}

/// The same with `input` at standard input.
async fn run_with(fake: &Fake, arguments: &[&str], input: &'static [u8], terminals: Terminals) -> Outcome {
    let socket = fake.socket();
    let words = ["longshore", "--socket", socket.to_str().unwrap()];
    let cli = Cli::try_parse_from(words.iter().chain(arguments)).unwrap();
    let Command::Client(command) = cli.command else { panic!("not a command of the client") };
    let (out, err) = (Buffer::default(), Buffer::default());
    let mut console = Console::of_streams(input, out.clone(), err.clone(), cli.options.json, terminals);
    let code = match run_on(&mut console, cli.options, command).await {
        Ok(code) => code,
        Err(failure) => {
            console.failure(&failure).await.unwrap();
            failure.exit_code()
        }
    };
    Outcome { out: out.take(), err: String::from_utf8(err.take()).unwrap(), code: number(code) }
}

/// The number of an exit code, which only its debug form tells.
fn number(code: ExitCode) -> u8 {
    let text = format!("{code:?}");
    text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// A buffer that can be read while a console writes to it.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl AsyncWrite for Buffer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
