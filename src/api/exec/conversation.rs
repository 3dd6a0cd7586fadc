//! `Exec`: what a caller says to a program, beside what the program says.
//!
//! Output is read when the response stream is polled, so a caller that does not read holds its program back. What the
//! caller says must arrive all the same (an interrupt above all), so it is heard by a task of its own, which ends with
//! the stream.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, Fuse, FusedFuture},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::convert;
use crate::{
    api::messages::Messages,
    core::RunRequest,
    exec::{Event, ExecHandle, Run},
    model::error::{Error, Reason, Result},
    pb::{self, exec_request::Message},
};

/// The most input that one message may hold, in bytes.
const MAX_INPUT_BYTES: usize = 1 << 20;
/// How much input waits for a program that does not read, before the caller is held back, in bytes.
const MAX_WAITING_BYTES: usize = 256 << 10;

/// The first message of a conversation.
pub(super) async fn start(requests: &mut Messages) -> Result<pb::ExecStart> {
    match requests.next().await?.and_then(|first: pb::ExecRequest| first.message) {
        Some(Message::Start(start)) => Ok(start),
        _ => Err(out_of_order("the first message must hold `start`")),
    }
}

/// What a program takes of what is said to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    stdin: bool,
    terminal: bool,
}

impl Input {
    pub(super) fn of(request: &RunRequest) -> Input {
        Input { stdin: request.stdin, terminal: request.terminal.is_some() }
    }
}

/// A running program and its caller.
pub(super) struct Conversation {
    run: Run,
    /// `None` once it has said all.
    listener: Option<AbortOnDropHandle<Result<()>>>,
}

impl Conversation {
    pub(super) fn new(run: Run, input: Input, requests: Messages) -> Self {
        let listener = run.handle().map(|exec| {
            let listener = Listener { exec, input, waiting: VecDeque::new(), waiting_bytes: 0 };
            AbortOnDropHandle::new(tokio::spawn(listener.listen(requests).in_current_span()))
        });
        Conversation { run, listener }
    }
}

impl Stream for Conversation {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        let conversation = self.get_mut();
        if let Some(listener) = &mut conversation.listener
            && let Poll::Ready(heard) = listener.poll_unpin(cx)
        {
            conversation.listener = None;
            match heard {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Poll::Ready(Some(Err(error))),
                Err(error) => return Poll::Ready(Some(Err(Error::bug("a listener broke off").caused_by(error)))),
            }
        }
        conversation.run.poll_next_unpin(cx).map(|event| event.map(Ok))
    }
}

/// What is still to be done to a program's input, in order.
enum Typed {
    Bytes(Bytes),
    End,
}

/// Hears a caller.
struct Listener {
    exec: ExecHandle,
    input: Input,
    waiting: VecDeque<Typed>,
    waiting_bytes: usize,
}

impl Listener {
    /// Until the caller has said all, or something wrong.
    async fn listen(mut self, mut requests: Messages) -> Result<()> {
        let mut typing: Fuse<BoxFuture<'static, ()>> = Fuse::terminated();
        let mut is_over = false;
        loop {
            if typing.is_terminated() {
                match self.waiting.pop_front() {
                    Some(typed) => typing = self.typing(typed),
                    None if is_over => return Ok(()),
                    None => {}
                }
            }
            let may_hear = !is_over && self.waiting_bytes <= MAX_WAITING_BYTES;
            tokio::select! {
                biased;
                () = &mut typing => {}
                request = requests.next(), if may_hear => match request? {
                    Some(request) => self.hear(request)?,
                    None => {
                        is_over = true;
                        if self.input.stdin && !self.input.terminal {
                            self.waiting.push_back(Typed::End);
                        }
                    }
                },
            }
        }
    }

    fn typing(&mut self, typed: Typed) -> Fuse<BoxFuture<'static, ()>> {
        let exec = self.exec.clone();
        match typed {
            Typed::Bytes(bytes) => {
                self.waiting_bytes -= bytes.len();
                // A program need not read what it is given; one that closed its input has said so.
                async move { exec.write(bytes).await.unwrap_or_default() }.boxed().fuse()
            }
            Typed::End => async move { exec.close_stdin().await }.boxed().fuse(),
        }
    }

    fn hear(&mut self, request: pb::ExecRequest) -> Result<()> {
        match request.message {
            Some(Message::Stdin(bytes)) if bytes.len() > MAX_INPUT_BYTES => {
                let message = format!("`stdin` holds {} bytes; send at most {MAX_INPUT_BYTES} at once", bytes.len());
                return Err(out_of_order(&message));
            }
            Some(Message::Stdin(bytes)) if self.input.stdin || self.input.terminal => {
                self.waiting_bytes += bytes.len();
                self.waiting.push_back(Typed::Bytes(bytes));
            }
            Some(Message::CloseStdin(_)) if self.input.stdin || self.input.terminal => {
                self.waiting.push_back(Typed::End);
            }
            Some(Message::Stdin(_) | Message::CloseStdin(_)) => {
                return Err(out_of_order("the program has no input; start it with `stdin` or `terminal`"));
            }
            Some(Message::Resize(size)) if self.input.terminal => self.exec.resize(convert::window(size)?),
            Some(Message::Resize(_)) => {
                return Err(out_of_order("the program has no terminal; start it with `terminal`"));
            }
            Some(Message::Signal(name)) => self.exec.signal(convert::signal(&name)?),
            Some(Message::Start(_)) => return Err(out_of_order("`start` comes once; send input or signals")),
            None => return Err(out_of_order("the message is empty; send input or a signal")),
        }
        Ok(())
    }
}

fn out_of_order(message: &str) -> Error {
    Error::new(Reason::RequestInvalid, "message", message)
}
