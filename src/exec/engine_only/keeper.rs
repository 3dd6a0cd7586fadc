//! What stands in a keeper's place where only the engine knows the program.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, copy, split},
    time::sleep,
};

use crate::{
    dockerd::{Frames, OutputStream, Stream},
    exec::{
        instance::Instance,
        pipes::{FarReader, FarWriter, OwnEnds},
    },
    model::error::Error,
    shim::{
        caller::{Channel, Inbox},
        wire::{End, Ended, MAX_REQUEST_BYTES, Message, StartReason},
    },
};

/// How often the engine is asked whether the program ended: what it left running keeps the stream open.
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// How often it is asked whether the program started.
const START_PAUSE: Duration = Duration::from_millis(5);
/// How long the engine may take to know how a program ended when its stream has.
const END_BOUND: Duration = Duration::from_secs(10);
/// What is read at once, in bytes.
const READ_BYTES: usize = 64 << 10;
/// Above this, a code may be a signal.
const SIGNAL_BASE: i64 = 128;

/// Stands between the engine and a run.
#[derive(Debug)]
pub(super) struct Keeper {
    instance: Instance,
    channel: Channel,
    inbox: Inbox,
    ends: OwnEnds,
    has_exited: bool,
}

/// Why nothing more is carried.
enum Over {
    /// The engine closed the stream.
    Ended,
    /// The run wants no more of it.
    Unwanted,
}

impl Keeper {
    pub(super) fn new(instance: Instance, channel: Channel, ends: OwnEnds) -> Self {
        Keeper { instance, channel, inbox: Inbox::new(MAX_REQUEST_BYTES), ends, has_exited: false }
    }

    /// Carries until the stream ends or the run wants no more, and says how the program ended.
    pub(super) async fn keep(mut self, stream: Stream) {
        let is_raw = self.ends.outputs[1].is_none();
        let (mut from, to) = split(stream);
        let mut frames = Frames::new(is_raw);
        match self.wait_for_start(&mut from, &mut frames).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.say(Message::Failed(error)),
        }
        // Ends when the program's input does, or with the stream.
        let typing = self.ends.stdin.take().map(|stdin| tokio::spawn(type_in(stdin, to)));
        let over = self.carry(&mut from, &mut frames).await;
        if let Some(typing) = typing {
            typing.abort();
        }
        match over {
            Over::Unwanted => {
                let ended = Ended { survivors: u32::from(!self.has_exited), ..Ended::default() };
                self.say(Message::Ended(ended));
            }
            Over::Ended => {
                self.ends.outputs = [None, None];
                if !self.has_exited {
                    self.say_exit_when_known().await;
                }
                self.say(Message::Empty);
            }
        }
    }

    fn say(&self, message: Message) {
        // A run that is gone hears nothing.
        let _ = self.channel.try_send(&message.to_frame(), &[]);
    }

    /// Whether it started. Where it did not, that was said: what came on the stream is the engine's own text then.
    async fn wait_for_start(&mut self, from: &mut ReadHalf<Stream>, frames: &mut Frames) -> Result<bool, String> {
        let mut is_open = true;
        loop {
            let state = self.instance.state().await.map_err(|failure| Error::from(failure).to_string())?;
            if state.has_started() {
                self.say(Message::Started { pid: 0, pidfd: false, terminal: false });
                return Ok(true);
            }
            if !state.is_running() && (!is_open || state.code().is_some_and(|code| code != 0)) {
                while is_open && frames.buffer().len() < READ_BYTES {
                    is_open = from.read_buf(frames.buffer()).await.unwrap_or_default() > 0;
                }
                let (reason, message) = explain(&frames.text());
                self.say(Message::StartFailed { reason, message });
                return Ok(false);
            }
            tokio::select! {
                read = from.read_buf(frames.buffer()), if is_open && frames.buffer().len() < READ_BYTES => {
                    is_open = read.unwrap_or_default() > 0;
                }
                () = sleep(START_PAUSE) => {}
            }
        }
    }

    async fn carry(&mut self, from: &mut ReadHalf<Stream>, frames: &mut Frames) -> Over {
        let mut asked = Instant::now();
        let mut pending: Option<(OutputStream, Bytes)> = None;
        loop {
            if pending.is_none() {
                match frames.piece() {
                    Ok(next) => pending = next,
                    Err(_) => return Over::Ended,
                }
            }
            if asked.elapsed() >= ASK_PAUSE && !self.has_exited {
                self.ask().await;
                asked = Instant::now();
            }
            let Keeper { channel, inbox, ends, .. } = self;
            tokio::select! {
                wish = next_wish(channel, inbox) => match wish {
                    Some((columns, rows)) => self.instance.resize(columns, rows).await,
                    None => return Over::Unwanted,
                },
                written = write_some(&mut ends.outputs, &mut pending), if pending.is_some() => {
                    if written.is_err() {
                        return Over::Unwanted;
                    }
                }
                read = from.read_buf(room(frames)), if pending.is_none() => {
                    if read.unwrap_or_default() == 0 {
                        return Over::Ended;
                    }
                }
                () = sleep(ASK_PAUSE), if !self.has_exited => {}
            }
        }
    }

    /// Asks whether the program ended, and says so.
    async fn ask(&mut self) {
        let Ok(state) = self.instance.state().await else { return };
        if let (false, Some(code)) = (state.is_running(), state.code()) {
            self.has_exited = true;
            self.say(Message::Exited { end: end_of(code), oom: false });
        }
    }

    async fn say_exit_when_known(&mut self) {
        let begun = Instant::now();
        loop {
            self.ask().await;
            if self.has_exited || begun.elapsed() > END_BOUND {
                return;
            }
            sleep(START_PAUSE).await;
        }
    }
}

/// The next size that the terminal shall have; `None` when the run wants no more. Signals cannot be sent.
async fn next_wish(channel: &Channel, inbox: &mut Inbox) -> Option<(u16, u16)> {
    loop {
        match channel.try_next(inbox) {
            Ok(Some((Message::Resize { columns, rows }, _))) => return Some((columns, rows)),
            Ok(Some((Message::Signal(_), _))) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => channel.readable().await.ok()?.clear_ready(),
            _ => return None,
        }
    }
}

fn room(frames: &mut Frames) -> &mut BytesMut {
    frames.buffer().reserve(READ_BYTES);
    frames.buffer()
}

/// Writes as much of a piece as fits. Fails when nobody reads it.
async fn write_some(
    outputs: &mut [Option<FarWriter>; 2],
    pending: &mut Option<(OutputStream, Bytes)>,
) -> io::Result<()> {
    let Some((output, data)) = pending else { return Ok(()) };
    let [stdout, stderr] = outputs;
    let pipe = match output {
        OutputStream::Stdout => stdout,
        OutputStream::Stderr => stderr,
    };
    if let Some(pipe) = pipe {
        let written = pipe.write(data).await?;
        data.advance(written);
        if !data.is_empty() {
            return Ok(());
        }
    }
    *pending = None;
    Ok(())
}

/// Carries what is typed, and its end.
async fn type_in(mut stdin: FarReader, mut to: WriteHalf<Stream>) {
    if copy(&mut stdin, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}

fn end_of(code: i64) -> End {
    let low = u8::try_from(code.rem_euclid(256)).unwrap_or_default();
    if code > SIGNAL_BASE { End::CodeOrSignal(low) } else { End::Code(low.into()) }
}

/// Why it did not start, by the only thing there is: what the engine's runtime says in words.
fn explain(said: &str) -> (StartReason, String) {
    let says = |part: &str| said.contains(part);
    let reason = if says("chdir to cwd") || says("no such file or directory") && says("cwd") {
        StartReason::DirectoryNotFound
    } else if says("executable file not found") || says("no such file or directory") {
        StartReason::ProgramNotFound
    } else if says("permission denied") || says("is a directory") {
        StartReason::NotExecutable
    } else if says("exec format error") {
        StartReason::WrongFormat
    } else if says("argument list too long") {
        StartReason::ArgumentsTooLong
    } else {
        StartReason::Other
    };
    let message = if said.is_empty() { "the engine does not say why" } else { said };
    (reason, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runtime_says_is_understood() {
        let unable = |what: &str| {
            format!("OCI runtime exec failed: exec failed: unable to start container process: {what}: unknown")
        };
        for (what, expected) in [
            ("exec: \"nothing\": executable file not found in $PATH", StartReason::ProgramNotFound),
            ("exec: \"/nothing\": stat /nothing: no such file or directory", StartReason::ProgramNotFound),
            ("exec: \"/plain\": permission denied", StartReason::NotExecutable),
            ("exec /bad: exec format error", StartReason::WrongFormat),
            (
                "chdir to cwd (\"/nowhere\") set in config.json failed: no such file or directory",
                StartReason::DirectoryNotFound,
            ),
            ("something else", StartReason::Other),
        ] {
            assert_eq!(explain(&unable(what)).0, expected, "{what}");
        }
        assert_eq!(end_of(7), End::Code(7));
        assert_eq!(end_of(137), End::CodeOrSignal(137));
        assert_eq!(end_of(128), End::Code(128));
    }
}
