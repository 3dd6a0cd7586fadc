//! Programs run by the broker and by others, to their end.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use longshore::pb::{
    self, ExecTarget, RunRequest, exec_service_client::ExecServiceClient, exited, run_response::Event,
};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::{
    Outcome,
    load::{self, Line},
};

/// The generated client of programs.
pub(crate) type Programs = ExecServiceClient<Line>;

/// Size of the pipes that the bench reads from, and of its reads.
const PIPE_BYTES: usize = 1 << 20;

/// A client on a connection of its own.
pub(crate) async fn programs(socket: &Path) -> Outcome<Programs> {
    Ok(ExecServiceClient::with_origin(load::line(socket, true).await?, load::origin()))
}

/// A program of an extension.
pub(crate) fn request(extension: &str, target: ExecTarget, argv: &[&str]) -> RunRequest {
    let argv = argv.iter().map(ToString::to_string).collect();
    RunRequest { extension: extension.into(), target: target.into(), argv, ..Default::default() }
}

/// Runs a program until all is told of it; what it wrote to its standard output, in bytes. It must end well.
pub(crate) async fn run(client: &mut Programs, request: RunRequest) -> Outcome<u64> {
    let mut events = client.run(request).await?.into_inner();
    let (mut bytes, mut outcome) = (0, None);
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::Output(output)) if output.stream() == pb::OutputStream::Stdout => {
                bytes += output.data.len() as u64;
            }
            Some(Event::Exited(exited)) => outcome = exited.outcome,
            Some(Event::Drained(drained)) if drained.cut => return Err("its output was cut".into()),
            _ => {}
        }
    }
    match outcome {
        Some(exited::Outcome::Code(0)) => Ok(bytes),
        other => Err(format!("the program ended with {other:?}").into()),
    }
}

/// The arguments of a program that writes so many MiB as fast as it can.
pub(crate) fn writer(mib: u64) -> [String; 4] {
    ["dd".into(), "if=/dev/zero".into(), "bs=1M".into(), format!("count={mib}")]
}

/// Runs it through the broker; MiB/s from the call to its end.
pub(crate) async fn written(client: &mut Programs, extension: &str, target: ExecTarget, mib: u64) -> Outcome<f64> {
    let argv = writer(mib);
    let request = request(extension, target, &argv.each_ref().map(String::as_str));
    let begun = Instant::now();
    let bytes = run(client, request).await?;
    speed(bytes, mib, begun)
}

/// Runs it with its output in a pipe that the bench reads; MiB/s from its start to its end.
pub(crate) async fn piped(mut command: Command, mib: u64) -> Outcome<f64> {
    let reading = move || {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setpipe_size(&theirs, PIPE_BYTES)?;
        command.stdin(Stdio::null()).stdout(theirs).stderr(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn()?;
        // It holds the other end.
        drop(command);
        let (mut pipe, mut buffer, mut bytes) = (File::from(ours), vec![0; PIPE_BYTES], 0);
        loop {
            match pipe.read(&mut buffer)? {
                0 => break,
                read => bytes += read as u64,
            }
        }
        let status = child.wait()?;
        if status.success() { speed(bytes, mib, begun) } else { Err(format!("the writer ended: {status}").into()) }
    };
    tokio::task::spawn_blocking(reading).await?
}

/// MiB/s, where all of it came.
#[allow(clippy::cast_precision_loss, reason = "a few thousand")]
pub(crate) fn speed(bytes: u64, mib: u64, begun: Instant) -> Outcome<f64> {
    match bytes.checked_sub(mib << 20) {
        Some(0) => Ok(mib as f64 / begun.elapsed().as_secs_f64()),
        _ => Err(format!("{bytes} bytes came instead of {mib} MiB").into()),
    }
}

/// Does it on a thread and a runtime of its own, as a small client has them.
pub(crate) async fn apart<T: Send + 'static, F: Future<Output = Outcome<T>>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> Outcome<T> {
    let working = move || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work());
    tokio::task::spawn_blocking(working).await?
}
