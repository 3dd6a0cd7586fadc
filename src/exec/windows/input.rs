//! The standard input of a program: the write end of its pipe.

use bytes::Bytes;
use tokio::{io::AsyncWriteExt as _, net::windows::named_pipe::NamedPipeServer, sync::Mutex};
use tokio_util::sync::CancellationToken;

use super::input_closed::InputClosed;

/// The write end.
#[derive(Debug)]
pub(super) struct Input {
    pipe: Mutex<Option<NamedPipeServer>>,
    /// Set when nobody is to write any more.
    over: CancellationToken,
}

impl Input {
    /// Of a pipe whose other end is the program's.
    pub(super) fn of(pipe: NamedPipeServer) -> Self {
        Input { pipe: Mutex::new(Some(pipe)), over: CancellationToken::new() }
    }

    /// Writes all of `data`, behind what others write; waits while the program does not read.
    pub(super) async fn write(&self, data: Bytes) -> Result<(), InputClosed> {
        let mut held = self.pipe.lock().await;
        let result = match held.as_mut() {
            Some(pipe) => tokio::select! {
                biased;
                () = self.over.cancelled() => Err(InputClosed),
                result = pipe.write_all(&data) => result.map_err(|_| InputClosed),
            },
            None => Err(InputClosed),
        };
        if result.is_err() {
            *held = None;
        }
        result
    }

    /// Closes it, when all that is being written is.
    pub(super) async fn close(&self) {
        *self.pipe.lock().await = None;
    }

    /// Closes it, whoever is writing.
    pub(super) fn cut(&self) {
        self.over.cancel();
        if let Ok(mut held) = self.pipe.try_lock() {
            *held = None;
        }
    }
}
