//! Calls and programs in a container: by the directory that broker and engine share, and by the tunnel where they share
//! none.

use std::path::Path;

use longshore::pb::ExecTarget;

use crate::{
    Outcome, hijacked,
    load::{self, Direction, EXTENSION, Speech, Way},
    measure::quantile,
    programs::p50,
    runs::{self, apart, programs, request, run},
    samples::Samples,
    settings::Settings,
    site::Site,
};

/// Ways to a container, and how the broker is told of them.
const WAYS: [(&str, &str); 2] = [("a shared directory", "shared"), ("the tunnel", "apart")];
/// What the tunnel is compared with: a program's output and input on such a stream.
pub(crate) const ALONE: &str = "the engine's stream alone";

/// One round of both.
pub(crate) async fn all(samples: &mut Samples, settings: &Settings, directory: &Path, round: u32) -> Outcome<()> {
    for (whose, files) in WAYS {
        let site = Site::serving(directory.join(format!("{files}-{round}")), files).await?;
        calls(samples, settings, whose, &site).await?;
        let (socket, lasting) = (site.socket.clone(), settings.lasting);
        let p50 = apart(move || async move {
            let mut client = programs(&socket).await?;
            let argv = ["/bin/true"];
            p50(lasting, async || run(&mut client, request(EXTENSION, ExecTarget::Backend, &argv)).await.map(drop))
                .await
        });
        samples.add("within exec p50 us", whose, p50.await?);
        let mut client = programs(&site.socket).await?;
        let written = runs::written(&mut client, EXTENSION, ExecTarget::Backend, settings.body_bytes >> 20).await?;
        samples.add("within stdout MiB/s", whose, written);
        if files == "apart" {
            alone(samples, settings, site.container.clone()).await?;
        }
    }
    Ok(())
}

/// The stream that the tunnel is on, without it.
async fn alone(samples: &mut Samples, settings: &Settings, container: String) -> Outcome<()> {
    let mib = settings.body_bytes >> 20;
    let both = move || Outcome::Ok((hijacked::written(&container, mib)?, hijacked::read(&container, mib)?));
    let (written, read) = tokio::task::spawn_blocking(both).await??;
    for (what, speed) in [("down", written), ("up", read), ("stdout", written)] {
        samples.add(&format!("within {what} MiB/s"), ALONE, speed);
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a few hundred thousand")]
async fn calls(samples: &mut Samples, settings: &Settings, whose: &str, site: &Site) -> Outcome<()> {
    let way = Way { speech: Speech::Broker, socket: site.socket.clone(), pid: None };
    let (one, lasting) = (way.clone(), settings.lasting);
    let mut took = tokio::task::spawn_blocking(move || load::latencies(&one, lasting, None)).await??;
    samples.add("within p50 us", whose, quantile(&mut took, 0.5));
    let (calls, lasted) = load::flood(&way, load::IN_FLIGHT, settings.lasting).await?;
    samples.add("within rps", whose, calls as f64 / lasted.as_secs_f64());
    for (direction, shown) in [(Direction::Down, "down"), (Direction::Up, "up")] {
        let speed = load::body(&way, direction, settings.body_bytes, true).await?;
        samples.add(&format!("within {shown} MiB/s"), whose, speed);
    }
    Ok(())
}
