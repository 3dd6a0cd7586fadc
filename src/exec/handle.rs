//! What can be done to a program that runs, from anywhere.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    execution::{ExecInfo, ExecView, Execution},
    input::InputClosed,
    program::{Cause, Termination, WindowSize},
};

/// A handle on an exec. It keeps nothing alive: what is done through it when the exec is over has no effect.
#[derive(Debug, Clone)]
pub struct ExecHandle(pub(super) Arc<Execution>);

impl ExecHandle {
    /// What never changes about it.
    pub fn info(&self) -> &ExecInfo {
        &self.0.info
    }

    /// How it is now.
    pub fn view(&self) -> ExecView {
        self.0.view()
    }

    /// Writes all of `data` to its standard input, behind what was written before. Completes when the system has it; a
    /// program that does not read lets this wait, and nothing else.
    ///
    /// # Errors
    ///
    /// Nothing more can be written: the input was [`super::Stdin::Null`] or closed, or the program is over. How much of
    /// `data` it got cannot be known.
    pub async fn write(&self, data: Bytes) -> Result<(), InputClosed> {
        let input = self.0.input.as_ref().ok_or(InputClosed)?;
        self.0.note_typed();
        let result = input.write(data).await;
        self.0.note_typed();
        result
    }

    /// Closes its standard input, behind what was written before; it goes on writing. At a terminal its end-of-file
    /// character is typed instead (twice within a line, since the first one there only hands over what was typed); a
    /// program that put the terminal into raw mode sees no end.
    pub async fn close_stdin(&self) {
        if let Some(input) = &self.0.input {
            input.close().await;
        }
    }

    /// Changes the size of its terminal; where it has none, nothing happens.
    pub fn resize(&self, size: WindowSize) {
        self.0.resize(size);
    }

    /// Sends the program itself a signal, by its number on this machine; where it has ended, nothing happens. No effect
    /// where only the engine runs it ([`super::Containment::Engine`]).
    pub fn signal(&self, number: i32) {
        self.0.signal(number);
    }

    /// Has the whole tree ended: TERM, its grace, KILL. Comes before the start, and nothing starts. Where it is being ended
    /// already, or its limits have ended it, the first cause stays. Does not wait.
    pub fn end(&self, cause: Cause) {
        self.0.end(cause);
    }

    /// The same, and waits until it is gone: what came of it. `None` where it had ended by itself. `grace` in place of the
    /// program's own, where it is given.
    pub async fn terminate(&self, cause: Cause, grace: Option<Duration>) -> Option<Termination> {
        match grace {
            Some(grace) => self.0.end_within(cause, grace),
            None => self.0.end(cause),
        }
        self.0.gone().await;
        self.0.termination()
    }

    /// Completes when the whole tree is gone, or nothing can be known of it any more.
    pub async fn gone(&self) {
        self.0.hear_to_the_end().await;
    }
}
