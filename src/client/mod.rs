//! What a front end needs to offer an extension's page the `exec` of Docker's extension SDK on top of `ExecService`.
//!
//! Docker Desktop has two ways to run a program, and real extensions depend on how they differ:
//!
//! | | blocking: the page waits for the result | streaming: the page is called back |
//! | --- | --- | --- |
//! | arguments | joined with blanks and split again as a POSIX shell does, without a shell ([`words`]) | passed on one by one as they are |
//! | output | two texts ([`ExecResult`]) | pieces, or lines with `splitOutputLines` ([`Delivery`]) |
//! | the end | a result; for every failure a [`Rejection`] of the same shape | `onError`, then `onClose` with the exit code |
//!
//! [`Programs`] runs programs in both ways. What it is made of sends nothing and waits for nothing, so that a front end
//! in another language can be built alike; `tests/client/argument_shapes.json` holds what real extensions pass and what
//! has to come of it.
//!
//! The calls of the SDK's first version are these: `execHostCmd(cmd)` and `execInVMExtension(cmd)` are [`Programs::exec`]
//! with no arguments beside the line, `execDockerCmd(cmd, ...args)` is it as it stands, `execInContainer(container, cmd)`
//! is [`Command::in_container`], and the functions named `spawn…` are [`Programs::spawn`] with events turned into
//! arguments by [`Event::callback`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use longshore::client::{Event, ExecOptions, Programs, SpawnOptions, Target};
//!
//! let endpoint = tonic::transport::Endpoint::try_from("unix:///run/user/1000/longshore/longshore.sock")?;
//! let programs = Programs::new(endpoint.connect().await?, "org/name");
//! let listed = programs.exec(Target::Docker, "ps", &["--format", r#""{{json .}}""#], ExecOptions::default()).await?;
//! let containers: Vec<serde_json::Value> = listed.parse_json_lines()?;
//!
//! let options = SpawnOptions { split_output_lines: true, ..Default::default() };
//! let mut events = programs.spawn(Target::Docker, "events", &["--format", "{{ json . }}"], options);
//! while let Some(event) = events.next().await {
//!     if let Event::Stdout(line) = event {
//!         println!("{} containers, and {line}", containers.len());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod collect;
mod command;
mod deliver;
mod lines;
mod process;
mod programs;
mod rejection;
mod result;
#[cfg(test)]
mod tests;
mod text;
pub mod words;

pub use self::{
    collect::Collector,
    command::{Command, Target},
    deliver::{Delivery, Event},
    lines::{LineSplitter, MAX_LINE_BYTES},
    process::{Closer, Process},
    programs::{ExecOptions, MAX_OUTPUT_BYTES, Programs, SpawnOptions},
    rejection::Rejection,
    result::{Code, ExecResult},
    text::Utf8Decoder,
};
