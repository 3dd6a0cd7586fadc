//! Starts a program in a job, tells its run how it goes, and ends the job.

use std::{
    io,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    process::{Child, Command},
    time::sleep,
};
use windows_sys::Win32::{
    Foundation::{ERROR_BAD_EXE_FORMAT, ERROR_DIRECTORY, ERROR_FILENAME_EXCED_RANGE},
    System::Threading::{CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW, CREATE_SUSPENDED},
};

use super::{
    job::{Job, resume},
    pipes::FarEnds,
    signal,
};
use crate::shim::{
    caller::{Channel, Inbox},
    wire::{End, Ended, MAX_REQUEST_BYTES, Message, Start, StartReason},
};

/// How often the job is asked whether it is empty when its program has ended.
const EMPTY_PAUSE: Duration = Duration::from_millis(50);
/// How long it may take to be empty when it was ended.
const END_BOUND: Duration = Duration::from_secs(10);
/// How often it is looked meanwhile.
const END_PAUSE: Duration = Duration::from_millis(5);
/// The code of programs that were ended here: nothing else uses it.
const ENDED_CODE: u32 = 0x4C53_0009;

/// Keeps one program.
#[derive(Debug)]
pub(super) struct Keeper {
    child: Child,
    job: Arc<Job>,
    channel: Channel,
    inbox: Inbox,
    has_exited: bool,
}

/// What the run wants.
enum Wish {
    /// The program is to end, and what it started may live on.
    EndProgram,
    /// All is to end.
    EndAll,
}

impl Keeper {
    /// Starts a program in `job`, and keeps it. One that cannot be started is told.
    pub(super) fn start(start: &Start, far: FarEnds, job: Arc<Job>, channel: Channel) {
        match spawn(start, far, &job) {
            Ok((child, pid)) => {
                let pid = i32::try_from(pid).unwrap_or(i32::MAX);
                channel.say(Message::Started { pid, pidfd: false, terminal: false });
                let inbox = Inbox::new(MAX_REQUEST_BYTES);
                tokio::spawn(Keeper { child, job, channel, inbox, has_exited: false }.keep());
            }
            Err((reason, message)) => channel.say(Message::StartFailed { reason, message }),
        }
    }

    async fn keep(mut self) {
        loop {
            if self.has_exited && self.job.count().is_ok_and(|count| count == 0) {
                return self.channel.say(Message::Empty);
            }
            let Keeper { child, channel, inbox, has_exited, .. } = &mut self;
            tokio::select! {
                status = child.wait(), if !*has_exited => {
                    *has_exited = true;
                    channel.say(Message::Exited { end: end_of(status), oom: false });
                }
                wish = next_wish(channel, inbox) => match wish {
                    Wish::EndProgram => self.end_program(),
                    Wish::EndAll => return self.end_all().await,
                },
                () = sleep(EMPTY_PAUSE), if *has_exited => {}
            }
        }
    }

    fn end_program(&mut self) {
        if let Some(process) = self.child.raw_handle().filter(|_| !self.has_exited) {
            // SAFETY: the handle is the child's, which is held. One that has just ended needs nothing.
            unsafe { windows_sys::Win32::System::Threading::TerminateProcess(process, ENDED_CODE) };
        }
    }

    async fn end_all(mut self) {
        let signalled = self.job.count().unwrap_or_default();
        let begun = Instant::now();
        let survivors = loop {
            if let Err(error) = self.job.end(ENDED_CODE) {
                tracing::warn!(%error, "a job cannot be ended");
            }
            match self.job.count().unwrap_or(u32::MAX) {
                0 => break 0,
                left if begun.elapsed() > END_BOUND => break left,
                _ => sleep(END_PAUSE).await,
            }
        };
        if !self.has_exited && survivors == 0 {
            let end = end_of(self.child.wait().await);
            self.channel.say(Message::Exited { end, oom: false });
        }
        self.channel.say(Message::Ended(Ended { signalled, escalated: false, caged: true, survivors }));
    }
}

/// Waits until the run wants something that ends something. Signals are all of one kind here.
async fn next_wish(channel: &Channel, inbox: &mut Inbox) -> Wish {
    loop {
        match channel.try_next(inbox) {
            Ok(Some((Message::Signal(_), _))) => return Wish::EndProgram,
            Ok(Some((Message::Resize { .. }, _))) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if channel.readable().await.is_err() {
                    return Wish::EndAll;
                }
            }
            _ => return Wish::EndAll,
        }
    }
}

fn spawn(start: &Start, far: FarEnds, job: &Job) -> Result<(Child, u32), (StartReason, String)> {
    let (program, arguments) = start.argv.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let other = |error: io::Error| (StartReason::Other, format!("{program}: {error}"));
    if let Some(cwd) = start.cwd.as_deref().filter(|cwd| !Path::new(cwd).is_dir()) {
        return Err((StartReason::DirectoryNotFound, format!("{cwd}: there is no such directory")));
    }
    let stdin = match &far.stdin {
        Some(name) => Stdio::from(FarEnds::reader(name).map_err(other)?),
        None => Stdio::null(),
    };
    let stdout = FarEnds::writer(&far.stdout).map_err(other)?;
    let stderr = far.stderr.as_ref().map(FarEnds::writer).transpose().map_err(other)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(start.env.iter().map(|(name, value)| (name, value)));
    command.stdin(stdin).stdout(stdout).stderr(stderr.map_or_else(Stdio::null, Stdio::from));
    // Suspended, so that it starts nothing before it is in the job.
    command.creation_flags(CREATE_SUSPENDED | CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP).kill_on_drop(true);
    if let Some(cwd) = &start.cwd {
        command.current_dir(cwd);
    }
    let child = command.spawn().map_err(|error| (reason_of(&error), format!("{program}: {error}")))?;
    let gone = || (StartReason::Other, format!("{program} ended before it was kept"));
    let (pid, process) = child.id().zip(child.raw_handle()).ok_or_else(gone)?;
    job.take(process).and_then(|()| resume(pid)).map_err(other)?;
    Ok((child, pid))
}

fn reason_of(error: &io::Error) -> StartReason {
    let code = error.raw_os_error().map(i32::cast_unsigned);
    match (error.kind(), code) {
        (_, Some(ERROR_BAD_EXE_FORMAT)) => StartReason::WrongFormat,
        (_, Some(ERROR_FILENAME_EXCED_RANGE)) => StartReason::ArgumentsTooLong,
        (_, Some(ERROR_DIRECTORY)) => StartReason::DirectoryNotFound,
        (io::ErrorKind::NotFound, _) => StartReason::ProgramNotFound,
        (io::ErrorKind::PermissionDenied, _) => StartReason::NotExecutable,
        _ => StartReason::Other,
    }
}

fn end_of(status: io::Result<std::process::ExitStatus>) -> End {
    let code = status.ok().and_then(|status| status.code()).unwrap_or(-1);
    match code.cast_unsigned() {
        ENDED_CODE => End::Signal { number: signal::KILL, core_dumped: false },
        _ => End::Code(code),
    }
}
