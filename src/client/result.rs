//! The result of a blocking call.

use serde::{Serialize, de::DeserializeOwned};

/// What a program wrote and how it ended, with the fields that Docker's SDK gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ExecResult {
    /// The command line, with the word `docker` before those of the docker CLI.
    pub cmd: String,
    /// Whether it was ended from outside: by a limit, a signal of the API, the end of its session.
    pub killed: bool,
    /// Name of the signal that ended it, such as `SIGKILL`.
    pub signal: Option<String>,
    /// Exit code. Absent after success, as Docker Desktop has it, and after a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What it wrote to standard output; what is not UTF-8 is U+FFFD.
    pub stdout: String,
    /// What it wrote to standard error. Pages look here for the reason of any failure, so where the program never ran,
    /// this says why.
    pub stderr: String,
}

/// An exit code, or in its place the name that Node.js gives a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Code {
    /// As the program exited; as shells have it where it could not be run: 126, 127, else 125.
    Number(i32),
    /// `ERR_CHILD_PROCESS_STDIO_MAXBUFFER`.
    Name(&'static str),
}

impl ExecResult {
    /// Standard output split at line ends, as JavaScript splits: behind the last line end there is one more, empty line.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.stdout.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line))
    }

    /// Each line of standard output that is not blank, read as JSON.
    ///
    /// # Errors
    /// The first line that is no JSON, or not of that type.
    pub fn parse_json_lines<T: DeserializeOwned>(&self) -> serde_json::Result<Vec<T>> {
        self.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str).collect()
    }

    /// All of standard output read as JSON.
    ///
    /// # Errors
    /// It is no JSON, or not of that type.
    pub fn parse_json_object<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.stdout)
    }
}
