//! Running programs through the broker.

use std::{collections::HashMap, time::Duration};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
    transport::Channel,
};

use super::{
    collect::Collector,
    command::{Command, Target, joined},
    process::Process,
    rejection::Rejection,
    result::ExecResult,
};
use crate::pb::{self, exec_service_client::ExecServiceClient};

/// Most output of a blocking call, both kinds together, in bytes. Beyond it the program is ended and the call fails with
/// `ERR_CHILD_PROCESS_STDIO_MAXBUFFER`.
pub const MAX_OUTPUT_BYTES: i64 = 64 << 20;
/// The header that says for which view of an extension a call is made.
const SESSION_HEADER: &str = "longshore-session";

/// Runs programs for one extension, or for one view of it.
#[derive(Debug, Clone)]
pub struct Programs {
    service: ExecServiceClient<Channel>,
    extension: String,
    session: Option<MetadataValue<Ascii>>,
    home: Option<String>,
}

/// Options of a blocking call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Working directory, absolute. Default: that of the extension's programs, or the container's.
    pub cwd: Option<String>,
    /// Variables added to those that a program gets anyway, or put in their place.
    pub env: HashMap<String, String>,
    /// How long it may run; it is ended with everything it started then. Default: as long as it likes, as with Docker
    /// Desktop.
    pub timeout: Option<Duration>,
}

/// Options of a streaming call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpawnOptions {
    /// Working directory, as in [`ExecOptions`].
    pub cwd: Option<String>,
    /// Variables, as in [`ExecOptions`].
    pub env: HashMap<String, String>,
    /// Deliver lines rather than pieces.
    pub split_output_lines: bool,
}

impl Programs {
    /// Runs programs for an extension. `~` in blocking calls is this process's home directory.
    pub fn new(channel: Channel, extension: impl Into<String>) -> Self {
        let home = std::env::home_dir().and_then(|home| home.into_os_string().into_string().ok());
        let home = home.filter(|home| !home.is_empty());
        Programs { service: ExecServiceClient::new(channel), extension: extension.into(), session: None, home }
    }

    /// Runs them as the view whose session has that token, and ends them with it.
    ///
    /// # Errors
    /// The token holds what no header can.
    pub fn in_session(mut self, token: &str) -> Result<Self, InvalidMetadataValue> {
        let mut token: MetadataValue<Ascii> = token.parse()?;
        token.set_sensitive(true);
        self.session = Some(token);
        Ok(self)
    }

    /// Lets `~` stand for that directory; for `None`, for itself.
    pub fn with_home(mut self, home: Option<String>) -> Self {
        self.home = home;
        self
    }

    /// Runs a program to its end: `exec(cmd, args, options)` without `stream`. Dropping the future ends the program with
    /// everything it started.
    ///
    /// # Errors
    /// A [`Rejection`], unless the program exited with code 0.
    pub async fn exec<A: AsRef<str>>(
        &self,
        target: Target,
        cmd: &str,
        args: &[A],
        options: ExecOptions,
    ) -> Result<ExecResult, Box<Rejection>> {
        let command = Command::blocking(target, cmd, args, self.home.as_deref())
            .map_err(|refusal| Rejection::of_refusal(target.line(&joined(cmd, args)), &refusal))?;
        self.exec_command(command, options).await
    }

    /// The same with a command that is made already.
    ///
    /// # Errors
    /// Those of [`Programs::exec`].
    pub async fn exec_command(&self, command: Command, options: ExecOptions) -> Result<ExecResult, Box<Rejection>> {
        let target = command.target();
        let (argv, line) = command.into_parts();
        let limits = pb::ExecLimits {
            wall: options.timeout.and_then(|timeout| timeout.try_into().ok()),
            output_bytes: MAX_OUTPUT_BYTES,
            ..Default::default()
        };
        let request = pb::RunRequest { limits: Some(limits), ..self.request(target, argv, options.cwd, options.env) };
        let mut collector = Collector::new(line);
        match self.collect(request, &mut collector).await {
            Ok(()) => collector.finish(),
            Err(status) => Err(Rejection::of_status(collector.lost(), &status)),
        }
    }

    /// Starts a program whose output comes as events: `exec(cmd, args, {stream})`. Returns at once; it is started when
    /// the first event is waited for.
    pub fn spawn<A: AsRef<str>>(&self, target: Target, cmd: &str, args: &[A], options: SpawnOptions) -> Process {
        let (argv, line) = Command::streaming(target, cmd, args).into_parts();
        let request = self.request(target, argv, options.cwd, options.env);
        Process::new(self.clone(), request, line, options.split_output_lines)
    }

    async fn collect(&self, request: pb::RunRequest, collector: &mut Collector) -> Result<(), Status> {
        let mut events = self.service.clone().run(self.addressed(request)).await?.into_inner();
        while let Some(message) = events.message().await? {
            if let Some(event) = message.event {
                collector.take(event);
            }
        }
        Ok(())
    }

    fn request(
        &self,
        target: Target,
        argv: Vec<String>,
        cwd: Option<String>,
        env: HashMap<String, String>,
    ) -> pb::RunRequest {
        pb::RunRequest {
            extension: self.extension.clone(),
            target: pb::ExecTarget::from(target).into(),
            argv,
            cwd: cwd.unwrap_or_default(),
            env,
            ..Default::default()
        }
    }

    pub(super) fn service(&self) -> ExecServiceClient<Channel> {
        self.service.clone()
    }

    /// The message as a call of this view.
    pub(super) fn addressed<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(token) = &self.session {
            request.metadata_mut().insert(SESSION_HEADER, token.clone());
        }
        request
    }
}
