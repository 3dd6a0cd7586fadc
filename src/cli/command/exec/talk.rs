//! The talk with a program: what it is given, and what it tells.

use bytes::BytesMut;
use futures_util::{
    FutureExt as _, StreamExt as _,
    stream::{self, Stream},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::oneshot,
};
use tonic::Streaming;

use super::end::End;
use crate::{
    cli::{
        SIGNAL_BASE,
        connect::Connection,
        console::Console,
        failure::Failure,
        signals::{EndSignals, SizeChanges},
        terminal::Terminal,
        view::exec::event_json,
    },
    pb::{self, exec_request::Message, exec_response::Event},
};

/// How much input is sent at a time, at most.
const PIECE_BYTES: usize = 64 << 10;

type Input = Box<dyn AsyncRead + Send + Unpin>;

/// A program to be started, and what it is to be talked with.
pub(super) struct Talk {
    pub(super) start: pb::ExecStart,
    /// Its input; none is sent without.
    pub(super) input: Option<Input>,
    /// The terminal that its own stands in for.
    pub(super) terminal: Option<Terminal>,
}

impl Talk {
    /// Starts it and talks with it until it has ended. The terminal is as before when this returns, or is given up.
    pub(super) async fn hold(self, console: &mut Console, broker: &Connection) -> Result<End, Failure> {
        let Talk { start, input, terminal } = self;
        let is_typed_at = terminal.is_some() && input.is_some();
        // Both from before it has a size, so that no change and no end is missed.
        let sizes = terminal.as_ref().map(|_| SizeChanges::listen()).transpose()?;
        let mut signals = terminal.as_ref().map(|_| EndSignals::listen()).transpose()?;
        let look = terminal.as_ref().map(Terminal::try_clone).transpose()?;
        let (begin, begun) = oneshot::channel();
        let later = async move {
            // Where it never begins, nobody listens to what follows.
            let _ = begun.await;
            stream::select(pieces(input), resizes(look.zip(sizes)))
        };
        let first = stream::once(async { Message::Start(start) });
        let requests = first.chain(later.flatten_stream()).map(|message| pb::ExecRequest { message: Some(message) });
        let talking = async {
            let mut events = broker.exec().exec(requests).await?.into_inner();
            let raw_terminal = terminal.filter(|_| is_typed_at);
            follow(console, &mut events, raw_terminal, begin).await
        };
        tokio::select! {
            end = talking => end,
            number = ended_by(signals.as_mut()) => Err(Failure::new("").exiting(SIGNAL_BASE.saturating_add(number))),
        }
    }
}

/// Passes on what a program tells, until it has ended. Keys are typed to the program from its start on: until then
/// Ctrl-C still ends this command.
async fn follow(
    console: &mut Console,
    events: &mut Streaming<pb::ExecResponse>,
    terminal: Option<Terminal>,
    begin: oneshot::Sender<()>,
) -> Result<End, Failure> {
    let (mut end, mut begin) = (End::default(), Some(begin));
    // Whatever ends this, dropping it gives the terminal back.
    let mut raw = None;
    while let Some(message) = events.message().await? {
        let Some(event) = message.event else { continue };
        if console.wants_json() {
            console.print_json(&event_json(&event)).await?;
        }
        match event {
            Event::Started(_) => {
                raw = terminal.as_ref().map(Terminal::make_raw).transpose()?;
                // Input that nobody reads any more is no loss.
                let _ = begin.take().map(|begin| begin.send(()));
            }
            Event::Output(output) if !console.wants_json() => write(console, &output).await?,
            Event::Output(_) => {}
            Event::Exited(exited) => end.exited = Some(exited),
            Event::Drained(drained) => end.drained = drained,
        }
    }
    drop(raw);
    Ok(end)
}

async fn write(console: &mut Console, output: &pb::Output) -> Result<(), Failure> {
    match output.stream() {
        pb::OutputStream::Stderr => console.write_err(&output.data).await?,
        _ => console.write_out(&output.data).await?,
    }
    Ok(())
}

/// The number of the signal that ends this command, where it has to clear up behind itself.
async fn ended_by(signals: Option<&mut EndSignals>) -> u8 {
    match signals {
        Some(signals) => signals.any().await,
        None => std::future::pending().await,
    }
}

/// The input in pieces, and its end. An input that cannot be read has ended.
fn pieces(input: Option<Input>) -> impl Stream<Item = Message> + Send {
    stream::unfold(input, |input| async move {
        let mut input = input?;
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        match input.read_buf(&mut piece).await {
            Ok(length) if length > 0 => Some((Message::Stdin(piece.freeze()), Some(input))),
            _ => Some((Message::CloseStdin(pb::CloseStdin {}), None)),
        }
    })
}

/// The sizes of the terminal, each time that it has changed.
fn resizes(terminal: Option<(Terminal, SizeChanges)>) -> impl Stream<Item = Message> + Send {
    stream::unfold(terminal, |terminal| async move {
        let (terminal, mut changes) = terminal?;
        changes.next().await?;
        Some((Message::Resize(terminal.size()), Some((terminal, changes))))
    })
}
