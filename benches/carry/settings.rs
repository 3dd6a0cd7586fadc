//! How much is done.

use std::{env, time::Duration};

use crate::Outcome;

/// Rounds and sizes; the environment changes them.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `BENCH_ROUNDS`: every contender runs once in each. Default: 5.
    pub(crate) rounds: u32,
    /// `BENCH_SECONDS`: how long calls are made for one value. Default: 1.
    pub(crate) lasting: Duration,
    /// `BENCH_MIB`: size of large bodies. Default: 1024.
    pub(crate) body_bytes: u64,
    /// `BENCH_STREAMS`: how many idle streams. Default: 10000.
    pub(crate) streams: usize,
    /// `BENCH_PARTS`: those of `http`, `body`, `clients`, `grpc`, `memory`, `exec`, `many`, `start`, `install`,
    /// `tunnel`, `container`, `gateway`, `list` that are wanted. Default: all.
    parts: String,
    /// `BENCH_CONTENDERS`: those that are wanted, by name. Default: all.
    contenders: String,
    /// Whether this is the whole of it: only that becomes a result.
    pub(crate) is_whole: bool,
}

impl Settings {
    /// `BENCH_QUICK=1` sets defaults that take seconds and show only that it works.
    pub(crate) fn read() -> Outcome<Settings> {
        let is_quick = env::var_os("BENCH_QUICK").is_some();
        let number = |name: &str, whole: f64, quick: f64| -> Outcome<f64> {
            let default = if is_quick { quick } else { whole };
            match env::var(name) {
                Ok(text) => text.parse().map_err(|_| format!("{name}: {text:?} is no number").into()),
                Err(_) => Ok(default),
            }
        };
        let changed = ["QUICK", "ROUNDS", "SECONDS", "MIB", "STREAMS", "PARTS", "CONTENDERS"];
        let is_whole = changed.iter().all(|name| env::var_os(format!("BENCH_{name}")).is_none());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]
        Ok(Settings {
            rounds: number("BENCH_ROUNDS", 5.0, 1.0)? as u32,
            lasting: Duration::from_secs_f64(number("BENCH_SECONDS", 1.0, 0.2)?),
            body_bytes: (number("BENCH_MIB", 1024.0, 32.0)? as u64) << 20,
            streams: number("BENCH_STREAMS", 10_000.0, 500.0)? as usize,
            parts: env::var("BENCH_PARTS").unwrap_or_default(),
            contenders: env::var("BENCH_CONTENDERS").unwrap_or_default(),
            is_whole,
        })
    }

    pub(crate) fn wants(&self, part: &str) -> bool {
        names(&self.parts, part)
    }

    pub(crate) fn measures(&self, contender: &str) -> bool {
        names(&self.contenders, contender)
    }
}

/// Whether a list names one; an empty list names all.
fn names(list: &str, one: &str) -> bool {
    list.is_empty() || list.split(',').any(|named| named == one)
}
