//! The pipe of a program's standard input.

use bytes::{Buf as _, Bytes};
use tokio::{io::AsyncWriteExt as _, net::windows::named_pipe::NamedPipeServer};

use super::input::InputClosed;

/// Its write end.
#[derive(Debug)]
pub(super) struct InputPipe(NamedPipeServer);

impl InputPipe {
    /// Of a pipe whose other end is the program's.
    pub(super) fn of(pipe: NamedPipeServer) -> Self {
        InputPipe(pipe)
    }

    /// Writes all of it; waits while the program does not read.
    pub(super) async fn write(&mut self, data: &mut Bytes) -> Result<(), InputClosed> {
        while data.has_remaining() {
            self.0.write_buf(data).await.map_err(|_| InputClosed)?;
        }
        Ok(())
    }
}
