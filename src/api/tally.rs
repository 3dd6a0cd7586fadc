//! How many calls there were: by method, by what came of them, and by how long they took.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prost::Message;
use prost_types::FileDescriptorSet;

use super::desks::damaged;
use crate::{model::error::Result, pb, times::Times};

/// The codes of gRPC, by their number.
pub(super) const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// Calls that are passed through to backends, whose methods are without number.
pub(super) const PASSED_THROUGH: &str = "(passed through)";
/// Calls of methods that there are not.
const UNKNOWN: &str = "(unknown)";

/// All calls that have ended.
#[derive(Debug)]
pub(super) struct Tally {
    methods: Vec<Method>,
    places: HashMap<String, usize>,
}

/// The calls of one method.
#[derive(Debug)]
pub(super) struct Method {
    /// Its service and name, such as `longshore.v1.BackendService/Fetch`.
    pub(super) name: String,
    codes: [AtomicU64; CODES.len()],
    pub(super) times: Times,
}

impl Tally {
    /// For our methods and those of health and reflection.
    pub(super) fn new() -> Result<Self> {
        let mut methods = vec![UNKNOWN.to_owned(), PASSED_THROUGH.to_owned()];
        for set in [pb::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            let set = FileDescriptorSet::decode(set).map_err(|e| damaged().caused_by(e))?;
            for file in &set.file {
                for service in &file.service {
                    let of = |name| format!("{}.{}/{name}", file.package(), service.name());
                    methods.extend(service.method.iter().map(|method| of(method.name())));
                }
            }
        }
        methods.extend(REFLECTION.map(str::to_owned));
        let places = methods.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
        let method = |name| Method { name, codes: Default::default(), times: Times::default() };
        Ok(Tally { methods: methods.into_iter().map(method).collect(), places })
    }

    /// As what calls of a method are counted; `method` is without the slash at its beginning.
    pub(super) fn place(&self, method: &str) -> usize {
        self.places.get(method).copied().unwrap_or(0)
    }

    /// Counts a call that has ended.
    pub(super) fn count(&self, place: usize, code: usize, took: Duration) {
        let method = &self.methods[place];
        method.codes[code.min(CODES.len() - 1)].fetch_add(1, Relaxed);
        method.times.count(took);
    }

    /// The methods that were called.
    pub(super) fn called(&self) -> impl Iterator<Item = &Method> {
        self.methods.iter().filter(|method| method.counts().next().is_some())
    }
}

/// The methods of reflection, whose description the library keeps to itself.
const REFLECTION: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

impl Method {
    /// What came of its calls, and how often.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = CODES.iter().zip(&self.codes).map(|(code, count)| (*code, count.load(Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_is_counted_by_itself() {
        let tally = Tally::new().unwrap();
        for (method, code) in [
            ("longshore.v1.BackendService/Fetch", 0),
            ("longshore.v1.BackendService/Fetch", 14),
            ("grpc.health.v1.Health/Check", 0),
            ("what.ever/Else", 12),
            (PASSED_THROUGH, 1),
        ] {
            tally.count(tally.place(method), code, Duration::from_millis(1));
        }
        let found: Vec<_> = tally.called().map(|method| (method.name.as_str(), method.counts().collect())).collect();
        let expected: [(&str, Vec<(&str, u64)>); 4] = [
            ("(unknown)", vec![("UNIMPLEMENTED", 1)]),
            ("(passed through)", vec![("CANCELLED", 1)]),
            ("longshore.v1.BackendService/Fetch", vec![("OK", 1), ("UNAVAILABLE", 1)]),
            ("grpc.health.v1.Health/Check", vec![("OK", 1)]),
        ];
        assert_eq!(found, expected);
    }
}
