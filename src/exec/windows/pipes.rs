//! The pipes between a run and whatever keeps its program: named ones, of names that nobody guesses and for this user
//! alone, because the system's nameless pipes cannot be waited for.

use std::{fs, io, os::windows::io::OwnedHandle, path::PathBuf};

use futures_util::FutureExt as _;
use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer};

use super::{input::Input, input_pipe::InputPipe, output::Output, program::Stdin};
use crate::{
    local::{self, Security},
    random,
};

/// Both sides.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) outputs: [Output; 2],
    pub(super) input: Option<Input>,
    pub(super) far: FarEnds,
}

/// The names of the ends for the program, none of which is open yet.
#[derive(Debug)]
pub(super) struct FarEnds {
    /// `None`: nothing is to be read.
    pub(super) stdin: Option<PathBuf>,
    pub(super) stdout: PathBuf,
    /// `None`: there is one output for both.
    pub(super) stderr: Option<PathBuf>,
}

/// A far end of a pipe that is read in this process.
pub(super) type FarReader = NamedPipeClient;
/// One that is written to in this process.
pub(super) type FarWriter = NamedPipeClient;

/// The far ends where no program has them but this process.
#[derive(Debug)]
pub(super) struct OwnEnds {
    pub(super) stdin: Option<FarReader>,
    pub(super) outputs: [Option<FarWriter>; 2],
}

impl Pipes {
    /// New ones.
    pub(super) fn open(stdin: Stdin, has_stderr: bool) -> io::Result<Self> {
        let security = Security::of_this_user()?;
        let pipe = || -> io::Result<(NamedPipeServer, PathBuf)> {
            let name = PathBuf::from(format!(r"\\.\pipe\longshore-{}", random::nonce()));
            let near = local::create(&name, &security, true)?;
            // Begins to wait for the other end: without that nothing would ever be read.
            let _ = near.connect().now_or_never();
            Ok((near, name))
        };
        let (input, stdin) = match stdin {
            Stdin::Null => (None, None),
            Stdin::Piped => {
                let (near, far) = pipe()?;
                (Some(Input::of(InputPipe::of(near))), Some(far))
            }
        };
        let (out, stdout) = pipe()?;
        let (err, stderr) = if has_stderr {
            let (err, far) = pipe()?;
            (Output::of(err), Some(far))
        } else {
            (Output::ended(), None)
        };
        Ok(Pipes { outputs: [Output::of(out), err], input, far: FarEnds { stdin, stdout, stderr } })
    }
}

impl FarEnds {
    /// Opens them for this process, and has the runtime see to them.
    pub(super) fn watched(self) -> io::Result<OwnEnds> {
        let open = |name: PathBuf| local::open(&name);
        Ok(OwnEnds {
            stdin: self.stdin.map(open).transpose()?,
            outputs: [Some(open(self.stdout)?), self.stderr.map(open).transpose()?],
        })
    }

    /// Opens the end at which a program reads.
    pub(super) fn reader(name: &PathBuf) -> io::Result<OwnedHandle> {
        fs::OpenOptions::new().read(true).open(name).map(Into::into)
    }

    /// Opens the end at which a program writes.
    pub(super) fn writer(name: &PathBuf) -> io::Result<OwnedHandle> {
        fs::OpenOptions::new().write(true).open(name).map(Into::into)
    }
}
