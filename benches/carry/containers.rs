//! Programs in a container: through the broker, by `docker exec`, and by a client of the Engine API.

use std::time::{Duration, Instant};

use bollard::{Docker, container::LogOutput, exec::StartExecResults, models::ExecConfig};
use futures_util::StreamExt as _;
use longshore::pb::ExecTarget;

use crate::{
    Outcome,
    measure::quantile,
    programs::p50,
    runs::{self, Programs, apart, programs, request, run},
    samples::Samples,
    settings::Settings,
    site::{self, ENGINE, Site, docker},
};

/// A program that does nothing.
const PROGRAM: &str = "/bin/true";
/// Fresh containers in a round.
const FRESH: usize = 3;
/// Answers of the engine take less than this many seconds.
const TIMEOUT_SECONDS: u64 = 120;

/// All of it.
pub(crate) async fn all(samples: &mut Samples, settings: &Settings, site: &Site) -> Outcome<()> {
    first(samples, site).await?;
    warm(samples, settings.lasting, site).await?;
    let mib = settings.body_bytes >> 20;
    let what = "container stdout MiB/s";
    let argv = runs::writer(mib);
    let argv = argv.each_ref().map(String::as_str);
    let cli = site::command(&[&["exec", &site.container][..], &argv].concat());
    samples.add(what, "docker exec", runs::piped(cli, mib).await?);
    let begun = Instant::now();
    let bytes = by_engine(&engine()?, &site.container, &argv).await?;
    samples.add(what, "bollard", runs::speed(bytes, mib, begun)?);
    let mut client = programs(&site.socket).await?;
    let speed = runs::written(&mut client, &site.extension, ExecTarget::Backend, mib).await?;
    samples.add(what, "Longshore", speed);
    Ok(())
}

/// The first program after the container has started.
async fn first(samples: &mut Samples, site: &Site) -> Outcome<()> {
    let mut client = programs(&site.socket).await?;
    let (mut own, mut cli) = (Vec::new(), Vec::new());
    for _ in 0..FRESH {
        docker(&["restart", "-t", "0", &site.container])?;
        let begun = Instant::now();
        by_cli(site).await?;
        cli.push(begun.elapsed().as_secs_f64() * 1e3);
        docker(&["restart", "-t", "0", &site.container])?;
        let begun = Instant::now();
        by_broker(&mut client, &site.extension).await?;
        own.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    samples.add("container first ms", "docker exec", quantile(&mut cli, 0.5));
    samples.add("container first ms", "Longshore", quantile(&mut own, 0.5));
    Ok(())
}

async fn warm(samples: &mut Samples, lasting: Duration, site: &Site) -> Outcome<()> {
    let mut add = |whose: &str, us: f64| samples.add("container p50 ms", whose, us / 1e3);
    add("docker exec", p50(lasting, async || by_cli(site).await).await?);
    let engine = engine()?;
    add("bollard", p50(lasting, async || by_engine(&engine, &site.container, &[PROGRAM]).await.map(drop)).await?);
    let (socket, extension) = (site.socket.clone(), site.extension.clone());
    let own = apart(move || async move {
        let mut client = programs(&socket).await?;
        p50(lasting, async || by_broker(&mut client, &extension).await).await
    });
    add("Longshore", own.await?);
    Ok(())
}

async fn by_broker(client: &mut Programs, extension: &str) -> Outcome<()> {
    run(client, request(extension, ExecTarget::Backend, &[PROGRAM])).await.map(drop)
}

async fn by_cli(site: &Site) -> Outcome<()> {
    let mut command = tokio::process::Command::from(site::command(&["exec", &site.container, PROGRAM]));
    let output = command.output().await?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

fn engine() -> Outcome<Docker> {
    Ok(Docker::connect_with_unix(ENGINE, TIMEOUT_SECONDS, bollard::API_DEFAULT_VERSION)?)
}

/// What a program wrote to its standard output, in bytes.
async fn by_engine(engine: &Docker, container: &str, argv: &[&str]) -> Outcome<u64> {
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(argv.iter().map(ToString::to_string).collect()),
        ..Default::default()
    };
    let exec = engine.create_exec(container, config).await?.id;
    let StartExecResults::Attached { mut output, .. } = engine.start_exec(&exec, None).await? else {
        return Err("the engine did not attach".into());
    };
    let mut bytes = 0;
    while let Some(piece) = output.next().await {
        if let LogOutput::StdOut { message } = piece? {
            bytes += message.len() as u64;
        }
    }
    match engine.inspect_exec(&exec).await?.exit_code {
        Some(0) => Ok(bytes),
        other => Err(format!("{argv:?} ended with {other:?}").into()),
    }
}
