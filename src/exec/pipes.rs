//! The pipes between a run and whatever keeps its program.

use std::{io, os::fd::OwnedFd};

use tokio::net::unix::pipe;

use super::{input::Input, input_pipe::InputPipe, output::Output, program::Stdin};

/// Both sides.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) outputs: [Output; 2],
    pub(super) input: Option<Input>,
    pub(super) far: FarEnds,
}

/// The ends for the program.
#[derive(Debug)]
pub(super) struct FarEnds {
    /// `None`: nothing is to be read.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    /// `None`: there is one output for both.
    pub(super) stderr: Option<OwnedFd>,
}

impl Pipes {
    /// New ones.
    pub(super) fn open(stdin: Stdin, has_stderr: bool) -> io::Result<Self> {
        let (input, stdin) = match stdin {
            Stdin::Null => (None, None),
            Stdin::Piped => {
                let (pipe, far) = InputPipe::open()?;
                (Some(Input::of(pipe)), Some(far))
            }
        };
        let (out, stdout) = Output::open()?;
        let (err, stderr) = if has_stderr {
            let (err, far) = Output::open()?;
            (err, Some(far))
        } else {
            (Output::ended(), None)
        };
        Ok(Pipes { outputs: [out, err], input, far: FarEnds { stdin, stdout, stderr } })
    }
}

/// A far end of a pipe that is read in this process.
pub(super) type FarReader = pipe::Receiver;
/// One that is written to in this process.
pub(super) type FarWriter = pipe::Sender;

/// The far ends where no program has them but this process.
#[derive(Debug)]
pub(super) struct OwnEnds {
    pub(super) stdin: Option<FarReader>,
    pub(super) outputs: [Option<FarWriter>; 2],
}

impl FarEnds {
    /// Has the runtime see to them.
    pub(super) fn watched(self) -> io::Result<OwnEnds> {
        let output = pipe::Sender::from_owned_fd;
        Ok(OwnEnds {
            stdin: self.stdin.map(pipe::Receiver::from_owned_fd).transpose()?,
            outputs: [Some(output(self.stdout)?), self.stderr.map(output).transpose()?],
        })
    }
}
