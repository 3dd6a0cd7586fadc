//! The result, for people and for programs.

use std::{fmt::Write as _, fs};

use serde_json::{Value, json};

use crate::{Outcome, aims, many::COUNT, peers::repository, samples::Samples, settings::Settings, tunnel};

const BEGIN: &str = "<!-- speed: written by make bench -->\n";
const END: &str = "<!-- speed ends -->\n";

/// Columns: how they are headed, what they show.
type Columns = [(&'static str, &'static str)];

const HTTP: &Columns = &[
    ("p50, one core, µs", "http p50 one core us"),
    ("p50, µs", "http p50 all cores us"),
    ("p99, µs", "http p99 all cores us"),
    ("calls/s, 64 in flight", "http rps"),
    ("CPU/call, µs", "http cpu us"),
    ("download, MiB/s", "body down MiB/s"),
    ("upload, MiB/s", "body up MiB/s"),
];
const GRPC: &Columns = &[
    ("p50, one core, µs", "grpc p50 one core us"),
    ("p50, µs", "grpc p50 all cores us"),
    ("p99, µs", "grpc p99 all cores us"),
    ("calls/s, 64 in flight", "grpc rps"),
    ("CPU/call, µs", "grpc cpu us"),
    ("streamed answer, MiB/s", "grpc stream MiB/s"),
    ("the same in stock settings", "grpc stock stream MiB/s"),
];
const CLIENTS: &Columns = &[("download, MiB/s", "body down MiB/s"), ("upload, MiB/s", "body up MiB/s")];
const PROGRAMS: &Columns =
    &[("`/bin/true` from start to end, p50, µs", "exec p50 us"), ("output, MiB/s", "exec stdout MiB/s")];
const CONTAINERS: &Columns = &[
    ("`/bin/true`, p50, ms", "container p50 ms"),
    ("the first since the container started, ms", "container first ms"),
    ("output, MiB/s", "container stdout MiB/s"),
];
const WITHIN: &Columns = &[
    ("p50 of a call, µs", "within p50 us"),
    ("calls/s, 64 in flight", "within rps"),
    ("download, MiB/s", "within down MiB/s"),
    ("upload, MiB/s", "within up MiB/s"),
    ("`/bin/true`, p50, µs", "within exec p50 us"),
    ("output, MiB/s", "within stdout MiB/s"),
];
const MANY: &Columns =
    &[("all started, ms", "many started ms"), ("all ended, ms", "many ended ms"), ("memory for each, KiB", "many KiB")];
const INSTALLS: &Columns = &[("install, ms", "install ms"), ("uninstall, ms", "uninstall ms")];
const LISTS: &Columns = &[("p50, ms", "list ms")];
const ENGINE: &Columns = &[("archive of a file, MiB/s", "archive MiB/s")];

/// The tables.
pub(crate) fn tables(samples: &Samples, settings: &Settings, machine: &str) -> String {
    let mib = settings.body_bytes >> 20;
    let mut text = format!("Medians of {} rounds on {machine}; bodies of {mib} MiB.\n\n", settings.rounds);
    let all = ["direct", "Longshore", "nginx", "HAProxy", "Envoy", "Node.js"];
    table(&mut text, "HTTP backend", HTTP, &all, samples);
    table(&mut text, "gRPC backend, passed through", GRPC, &all[..5], samples);
    table(&mut text, "Client of `Stream`", CLIENTS, &["Rust, 16 KiB frames", "grpc-js", "grpcio"], samples);
    let started = ["posix_spawn", "tokio", "Node.js", "Longshore", "Longshore, holding 1 GiB"];
    table(&mut text, "Program on the host", PROGRAMS, &started, samples);
    table(&mut text, &format!("{COUNT} programs at once"), MANY, &["tokio", "Longshore"], samples);
    table(&mut text, "Program in a container", CONTAINERS, &["docker exec", "bollard", "Longshore"], samples);
    let ways = ["a shared directory", "the tunnel", tunnel::ALONE];
    table(&mut text, "Into a container by", WITHIN, &ways, samples);
    table(&mut text, "Engine API", ENGINE, &["the engine's own socket", "Longshore"], samples);
    table(&mut text, "An extension with a container", INSTALLS, &["docker", "Longshore"], samples);
    table(&mut text, "List of 1,000 containers", LISTS, &["the engine's own list", "Longshore"], samples);
    text.push_str("| | What | Least | Aim | Found | |\n| --- | --- | --- | --- | --- | --- |\n");
    for aim in aims::of(samples) {
        let (must, wanted) = aim.bounds();
        let (number, what, unit, verdict) = (aim.number, aim.what, aim.unit, aim.verdict());
        let _ = writeln!(text, "| {number} | {what} | {must} | {wanted} | {:.2}{unit} | {verdict} |", aim.found);
    }
    text
}

fn table(text: &mut String, first: &str, columns: &Columns, rows: &[&str], samples: &Samples) {
    let heads: Vec<_> = columns.iter().map(|(head, _)| *head).collect();
    let _ = writeln!(text, "| {first} | {} |\n|{}", heads.join(" | "), " --- |".repeat(columns.len() + 1));
    for row in rows {
        let cells: Vec<_> = columns.iter().map(|(_, what)| shown(samples.median(what, row))).collect();
        let _ = writeln!(text, "| {row} | {} |", cells.join(" | "));
    }
    text.push('\n');
}

fn shown(value: f64) -> String {
    match value {
        _ if value.is_nan() || value == 0.0 => "–".to_owned(),
        _ if value < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Puts the tables into the README and all values into `benches/results`.
pub(crate) fn save(tables: &str, samples: &Samples, settings: &Settings, machine: &str) -> Outcome<()> {
    let path = repository("README.md");
    let readme = fs::read_to_string(&path)?;
    let (before, rest) = readme.split_once(BEGIN).ok_or("the README has no place for the result")?;
    let (_, after) = rest.split_once(END).ok_or("the README has no end of the result")?;
    fs::write(path, format!("{before}{BEGIN}\n{tables}\n{END}{after}"))?;
    let aims: Vec<Value> = aims::of(samples)
        .iter()
        .map(|aim| json!({ "number": aim.number, "what": aim.what, "found": aim.found, "verdict": aim.verdict() }))
        .collect();
    let all = json!({
        "machine": machine,
        "rounds": settings.rounds,
        "body_bytes": settings.body_bytes,
        "aims": aims,
        "values": samples.to_json(),
    });
    fs::write(repository("benches/results/latest.json"), format!("{all:#}\n"))?;
    Ok(())
}

/// What it ran on.
pub(crate) fn machine() -> String {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}
