//! One run of Compose: own process group, bounded output, killed with its group when nobody waits any more.

use std::{ffi::OsString, io, path::Path, process::Stdio};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

/// Longest standard output that is kept; a longer one is an error. Normalised files of real extensions have 30 KiB.
const MAX_STDOUT_BYTES: usize = 32 * 1024 * 1024;
/// How much of the end of standard error is kept.
const MAX_STDERR_BYTES: usize = 64 * 1024;

/// How a run ended.
#[derive(Debug)]
pub(super) struct Output {
    /// Whether it exited with 0.
    pub(super) success: bool,
    /// All of standard output.
    pub(super) stdout: Vec<u8>,
    /// The end of standard error.
    pub(super) stderr: Vec<u8>,
}

/// A child whose process group dies with this value.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // `id` is `None` once the child was waited for: then its number may be somebody else's.
        #[cfg(unix)]
        if let Some(pid) = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Runs `program` with exactly these variables, gives it `input`, and waits for its end.
///
/// # Errors
/// It cannot be started, or it writes more than is kept.
pub(super) async fn run(
    program: &Path,
    arguments: &[OsString],
    dir: Option<&Path>,
    variables: &[(OsString, OsString)],
    input: &[u8],
) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if let Some(dir) = dir {
        command.current_dir(dir);
    }
    #[cfg(unix)]
    command.process_group(0);
    #[cfg(target_os = "linux")]
    die_with_us(&mut command);
    let mut group = Group(command.spawn()?);
    let (stdin, stdout, stderr) = (group.0.stdin.take(), group.0.stdout.take(), group.0.stderr.take());
    let give = async move {
        if let Some(mut stdin) = stdin {
            // One that ends early does not read everything; its exit code says why.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), stdout, stderr) = tokio::join!(give, read_all(stdout), read_end(stderr));
    let status = group.0.wait().await?;
    Ok(Output { success: status.success(), stdout: stdout?, stderr: stderr? })
}

/// A Compose that outlives a killed broker would go on making containers behind the back of the next one. The kernel
/// sends the signal when the thread that started the child ends; the runtime's workers last as long as the process.
#[cfg(target_os = "linux")]
fn die_with_us(command: &mut Command) {
    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
    let broker = getpid();
    // SAFETY: between fork and exec only two system calls are made; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // It may have died before that.
            if getppid() == Some(broker) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        })
    };
}

async fn read_all(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(MAX_STDOUT_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() > MAX_STDOUT_BYTES {
        return Err(io::Error::other(format!("its output is larger than {MAX_STDOUT_BYTES} bytes")));
    }
    Ok(bytes)
}

async fn read_end(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(bytes) };
    while pipe.read_buf(&mut bytes).await? > 0 {
        if bytes.len() > 2 * MAX_STDERR_BYTES {
            bytes.drain(..bytes.len() - MAX_STDERR_BYTES);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn shell(script: &str, input: &[u8]) -> io::Result<Output> {
        run(Path::new("/bin/sh"), &["-c".into(), script.into()], None, &[("A".into(), "b".into())], input).await
    }

    #[tokio::test]
    async fn it_sees_only_what_it_is_given() {
        let output = shell("cat; echo $A$HOME$USER; exit 3", b"in ").await.unwrap();
        assert!(!output.success);
        assert_eq!(output.stdout, b"in b\n");
    }

    #[tokio::test]
    async fn output_is_bounded() {
        let output = shell("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo end >&2", b"").await.unwrap();
        assert!(output.stderr.len() <= 2 * MAX_STDERR_BYTES && output.stderr.ends_with(b"end\n"));
        assert!(shell("head -c 40000000 /dev/zero", b"").await.unwrap_err().to_string().contains("larger"));
    }

    #[tokio::test]
    async fn dropping_it_kills_the_group() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        assert!(tokio::time::timeout(Duration::from_millis(500), shell(&script, b"")).await.is_err());
        let pid = std::fs::read_to_string(pid).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        for _ in 0..100 {
            // Gone, or dead and not yet collected by whoever inherited it.
            if !std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{stat} still runs");
    }
}
