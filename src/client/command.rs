//! What to run, as the calls of Docker's extension SDK put it.

use super::words::{self, Refusal};
use crate::pb;

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The docker CLI: `docker.cli.exec`.
    Docker,
    /// The container of the backend service: `extension.vm.cli.exec`.
    Backend,
    /// This machine: `extension.host.cli.exec`.
    Host,
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    target: Target,
    argv: Vec<String>,
    line: String,
}

impl Command {
    /// As a blocking call means it: `cmd` and `args` are one line, split by the rules of [`words`]. `home` takes the
    /// place of `~`, but not in containers, where it is another.
    ///
    /// # Errors
    /// [`Refusal`], where a shell would be needed, a quote is open, or there is no word.
    pub fn blocking<A: AsRef<str>>(target: Target, cmd: &str, args: &[A], home: Option<&str>) -> Result<Self, Refusal> {
        let text = joined(cmd, args);
        let argv = words::split(&text, home.filter(|_| target != Target::Backend))?;
        if argv.is_empty() {
            return Err(Refusal::Empty);
        }
        Ok(Command { target, argv, line: target.line(&text) })
    }

    /// As a streaming call means it: every argument as it is.
    pub fn streaming<A: AsRef<str>>(target: Target, cmd: &str, args: &[A]) -> Self {
        let argv = std::iter::once(cmd).chain(args.iter().map(AsRef::as_ref)).map(str::to_owned).collect();
        Command { target, argv, line: target.line(&joined(cmd, args)) }
    }

    /// `execInContainer` of the SDK's first version: a line for a program in any container.
    ///
    /// # Errors
    /// Those of [`Command::blocking`].
    pub fn in_container(container: &str, cmd: &str) -> Result<Self, Refusal> {
        let inside = words::split(cmd, None)?;
        if inside.is_empty() {
            return Err(Refusal::Empty);
        }
        let argv = ["exec".to_owned(), container.to_owned()].into_iter().chain(inside).collect();
        Ok(Command { target: Target::Docker, argv, line: Target::Docker.line(&joined("exec", &[container, cmd])) })
    }

    /// Where it runs.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The program and its arguments; of the docker CLI, its arguments.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// The line as results show it in `cmd`.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Both, without a copy.
    pub(super) fn into_parts(self) -> (Vec<String>, String) {
        (self.argv, self.line)
    }
}

impl Target {
    /// A line as results show it: the word `docker`, which the SDK leaves out, stands before it.
    pub(super) fn line(self, text: &str) -> String {
        match self {
            Target::Docker => format!("docker {}", text.trim()),
            Target::Backend | Target::Host => text.trim().to_owned(),
        }
    }
}

impl From<Target> for pb::ExecTarget {
    fn from(target: Target) -> Self {
        match target {
            Target::Docker => pb::ExecTarget::Docker,
            Target::Backend => pb::ExecTarget::Backend,
            Target::Host => pb::ExecTarget::Host,
        }
    }
}

/// Joined with blanks; empty arguments leave no trace.
pub(super) fn joined<A: AsRef<str>>(cmd: &str, args: &[A]) -> String {
    let mut line = cmd.to_owned();
    for arg in args.iter().map(AsRef::as_ref).filter(|arg| !arg.is_empty()) {
        line.push(' ');
        line.push_str(arg);
    }
    line
}
