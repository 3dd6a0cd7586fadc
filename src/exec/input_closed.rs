//! That a program takes no more input.

/// That nothing more can be written: the program closed its input or ended, or it was closed from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputClosed;

impl std::fmt::Display for InputClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the program's standard input is closed")
    }
}

impl std::error::Error for InputClosed {}
