//! The standard input of a program: what writes to it, until somebody closes it.

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::input_pipe::InputPipe;

/// The write end.
#[derive(Debug)]
pub(super) struct Input {
    pipe: Mutex<Option<InputPipe>>,
    /// Set when nobody is to write any more.
    over: CancellationToken,
}

/// That nothing more can be written: the program closed its input or ended, or it was closed from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputClosed;

impl std::fmt::Display for InputClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the program's standard input is closed")
    }
}

impl std::error::Error for InputClosed {}

impl Input {
    /// Writes to that pipe.
    pub(super) fn of(pipe: InputPipe) -> Self {
        Input { pipe: Mutex::new(Some(pipe)), over: CancellationToken::new() }
    }

    /// Writes all of `data`, behind what others write; waits while the program does not read.
    pub(super) async fn write(&self, mut data: Bytes) -> Result<(), InputClosed> {
        let mut held = self.pipe.lock().await;
        let result = match held.as_mut() {
            Some(pipe) => tokio::select! {
                biased;
                () = self.over.cancelled() => Err(InputClosed),
                result = pipe.write(&mut data) => result,
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
