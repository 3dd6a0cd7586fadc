//! What was aimed at, and how it was met.

use crate::samples::{OWN, Samples};

/// One figure, with what it must and should be.
pub(crate) struct Aim {
    pub(crate) number: &'static str,
    pub(crate) what: &'static str,
    pub(crate) found: f64,
    /// The least that was demanded, and what was aimed at.
    pub(crate) must: f64,
    pub(crate) aim: f64,
    pub(crate) unit: &'static str,
    /// Whether less is better.
    is_cost: bool,
}

impl Aim {
    /// How it was met, in a word or two.
    pub(crate) fn verdict(&self) -> &'static str {
        let meets = |bound: f64| if self.is_cost { self.found <= bound } else { self.found >= bound };
        match () {
            () if self.found.is_nan() => "not measured",
            () if meets(self.aim) => "reached",
            () if meets(self.must) => "the least only",
            () => "missed",
        }
    }

    /// Its bounds.
    pub(crate) fn bounds(&self) -> (String, String) {
        let sign = if self.is_cost { "≤" } else { "≥" };
        (format!("{sign} {}{}", self.must, self.unit), format!("{sign} {}{}", self.aim, self.unit))
    }
}

/// All of them.
pub(crate) fn of(samples: &Samples) -> Vec<Aim> {
    let own = |what: &str, other: &str| samples.ratio((what, OWN), (what, other));
    let cost = |number, what, found, must, aim, unit| Aim { number, what, found, must, aim, unit, is_cost: true };
    let gain = |number, what, found, must, aim| Aim { number, what, found, must, aim, unit: "", is_cost: false };
    let frames = |what: &str| samples.ratio((what, "Rust, 16 KiB frames"), (what, "nginx"));
    let streaming = |what: &str| samples.median(&format!("streaming {what} resident MiB"), OWN);
    let held = |what: &str| samples.median(what, OWN);
    let beside = |client: &str| samples.ratio(("p99 beside a stalled reader us", client), ("p99 alone us", client));
    let when_full =
        samples.ratio(("exec p50 us", "Longshore, holding 1 GiB"), ("exec p50 us", "Longshore, before that"));
    let first = samples.ratio(("container first ms", OWN), ("container p50 ms", "docker exec"));
    let registering = |whose: &str| samples.median("registration ms", whose);
    let delay = registering("beside 100 silent") - registering("alone");
    vec![
        cost("S1", "`Fetch`, p50 on one core ÷ nginx", own("http p50 one core us", "nginx"), 2.0, 1.5, ""),
        gain("S2", "`Fetch`, calls per second at 64 in flight ÷ direct", own("http rps", "direct"), 0.33, 0.45),
        cost("S2", "`Fetch`, CPU per call ÷ nginx", own("http cpu us", "nginx"), 1.4, 1.1, ""),
        gain("S3", "download through `Stream` ÷ nginx", own("body down MiB/s", "nginx"), 0.75, 0.9),
        gain("S3", "upload through `Stream` ÷ nginx", own("body up MiB/s", "nginx"), 0.75, 0.9),
        gain("S3", "download by a client with 16 KiB frames ÷ nginx", frames("body down MiB/s"), 0.5, 0.65),
        gain("S3", "upload by a client with 16 KiB frames ÷ nginx", frames("body up MiB/s"), 0.5, 0.65),
        cost("S3", "most memory while downloading", streaming("down"), 24.0, 12.0, " MiB"),
        cost("S3", "most memory while uploading", streaming("up"), 24.0, 12.0, " MiB"),
        cost("S4", "pass-through, CPU per call ÷ nginx", own("grpc cpu us", "nginx"), 0.8, 0.6, ""),
        gain("S4", "pass-through, calls per second ÷ HAProxy", own("grpc rps", "HAProxy"), 0.85, 1.0),
        gain("S5", "pass-through, streamed answer ÷ direct", own("grpc stream MiB/s", "direct"), 0.9, 0.95),
        gain("S5", "the same, clients in stock settings", own("grpc stock stream MiB/s", "direct"), 0.9, 0.95),
        cost("S6", "program on the host, start to end ÷ tokio's own", own("exec p50 us", "tokio"), 2.0, 1.6, ""),
        cost("S6", "the same with 1 GiB held ÷ without", when_full, 1.5, 1.1, ""),
        gain("S7", "its output ÷ a pipe of 1 MiB", own("exec stdout MiB/s", "posix_spawn"), 0.6, 0.75),
        cost("S8", "program in a container ÷ `docker exec`", own("container p50 ms", "docker exec"), 0.1, 0.03, ""),
        cost("S8", "the first there ÷ `docker exec`", first, 0.7, 0.6, ""),
        gain("S9", "its output ÷ `docker exec`", own("container stdout MiB/s", "docker exec"), 2.0, 4.0),
        cost("S10", "idle, memory", held("idle resident MiB"), 12.0, 8.0, " MiB"),
        cost("S10", "idle, threads", held("idle threads"), 6.0, 4.0, ""),
        cost("S10", "idle, wake-ups per second", held("idle wake-ups/s"), 2.0, 0.0, ""),
        cost("S10", "with 50 extensions, memory", held("with 50 resident MiB"), 12.0, 8.0, " MiB"),
        cost("S11", "from its start to the first answer", held("start ms"), 20.0, 5.0, " ms"),
        cost("S11", "the same with 50 extensions", held("start with 50 ms"), 150.0, 50.0, " ms"),
        cost("S12", "an idle stream, of 10,000 on 10 connections", held("idle stream KiB"), 24.0, 12.0, " KiB"),
        cost("S13", "a stalled reader, memory", held("stalled reader KiB"), 1024.0, 256.0, " KiB"),
        cost("S13", "p99 beside a stalled reader ÷ alone, Rust", beside("Rust"), 2.0, 1.3, ""),
        cost("S13", "p99 beside a stalled reader ÷ alone, grpc-js", beside("grpc-js"), 2.0, 1.3, ""),
        cost("S13", "p99 beside a stalled reader ÷ alone, grpcio", beside("grpcio"), 2.0, 1.3, ""),
        cost("S13", "a program that nobody reads, memory", held("stalled program KiB"), 1024.0, 256.0, " KiB"),
        cost("S13", "p99 beside a program that nobody reads ÷ alone", beside("program"), 2.0, 1.3, ""),
        cost("", "a list of 1,000 containers with 50 extensions", held("list ms"), 50.0, 50.0, " ms"),
        cost("", "a container made by hand is told, beside those", held("by hand ms"), 1000.0, 1000.0, " ms"),
        cost("", "registering, beside 100 silent connections − alone", delay, 50.0, 50.0, " ms"),
    ]
}
