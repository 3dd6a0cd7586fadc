//! A large answer of the engine: by its own socket, and by the extension's.

use std::{path::Path, time::Instant};

use crate::{
    Outcome,
    body::Sent,
    load,
    samples::Samples,
    settings::Settings,
    site::{ENGINE, Site, docker},
};

/// A file in the container, with nothing on the disk.
const FILE: &str = "/big";
/// Most that an archive of one file is larger than the file.
const FRAME_BYTES: u64 = 64 << 10;

/// Downloads the file's archive by both.
pub(crate) async fn all(samples: &mut Samples, settings: &Settings, site: &Site) -> Outcome<()> {
    let mib = settings.body_bytes >> 20;
    let (of, seek) = (format!("of={FILE}"), format!("seek={mib}"));
    docker(&["exec", &site.container, "dd", "if=/dev/zero", &of, "bs=1M", "count=0", &seek])?;
    for (whose, socket) in [("the engine's own socket", Path::new(ENGINE)), ("Longshore", &site.gateway()?)] {
        let speed = download(socket, &site.container, settings.body_bytes).await?;
        samples.add("archive MiB/s", whose, speed);
    }
    Ok(())
}

async fn download(socket: &Path, container: &str, bytes: u64) -> Outcome<f64> {
    let mut sender = load::http(socket).await?;
    let begun = Instant::now();
    let request = load::request("GET", &format!("/containers/{container}/archive?path={FILE}"), Sent::Whole(None))?;
    let came = load::read(sender.send_request(request).await?).await?;
    if !(bytes..=bytes + FRAME_BYTES).contains(&came) {
        return Err(format!("{came} bytes came instead of {bytes}").into());
    }
    Ok(bytes as f64 / f64::from(1 << 20) / begun.elapsed().as_secs_f64())
}
