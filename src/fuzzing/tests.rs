//! The corpus, damaged in many ways, and bytes at random.

use std::{fs, path::Path};

use proptest::{prelude::*, sample::Index};

use crate::{files::unpack::Placement, model::error::Reason};

/// The files of one parser's corpus.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus of {name}");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// What may become of a file.
#[derive(Debug, Clone)]
enum Damage {
    Cut(Index),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<Index>(), proptest::collection::vec(any::<u8>(), 1..6))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let room = bytes.len() + 1;
        match damage {
            Damage::Cut(at) => bytes.truncate(at.index(room)),
            Damage::Set(at, byte) => bytes.iter_mut().skip(at.index(room)).take(1).for_each(|at| *at = *byte),
            Damage::Insert(at, inserted) => {
                let at = at.index(room);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Damage::Repeat(from, to) => {
                let (from, to) = (from.index(room), to.index(room));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend(part.iter().take(4096));
            }
        }
    }
    bytes
}

/// Files of the corpus with some damage, or bytes at random.
fn inputs(name: &str) -> impl Strategy<Value = Vec<u8>> {
    let files = proptest::sample::select(corpus(name));
    prop_oneof![
        4 => (files, proptest::collection::vec(damage(), 0..5)).prop_map(|(file, damages)| damaged(file, &damages)),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
    ]
}

/// Every file as it is, then many that are damaged.
fn survives(name: &str, cases: u32, enter: fn(&[u8])) {
    corpus(name).iter().for_each(|file| enter(file));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases, ..ProptestConfig::default() });
    let outcome = runner.run(&inputs(name), |bytes| {
        enter(&bytes);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{name}: {failure}"));
}

macro_rules! targets {
    ($($name:ident: $cases:literal;)+) => {
        $(
            #[test]
            fn $name() {
                survives(stringify!($name), $cases, super::$name);
            }
        )+

        /// Each is a target of the fuzzer as well.
        #[test]
        fn all_of_them_are_fuzzed() {
            let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/Cargo.toml")).unwrap();
            for name in [$(stringify!($name)),+] {
                assert!(manifest.contains(&format!("\"{name}\"")), "{name} is no target in tests/fuzz/Cargo.toml");
            }
        }
    };
}

targets! {
    compose: 300;
    metadata: 400;
    labels: 500;
    archive: 150;
    reference: 1000;
    request_path: 1000;
    header_lines: 1000;
    authority: 300;
    wire: 1000;
    log_frames: 500;
    gateway: 1000;
    response: 200;
}

/// What the corpus of archives tries, and what comes of it: an error's reason, or how much is left out with a warning.
const ARCHIVES: &[(&str, Result<usize, Reason>)] = &[
    ("absolute", Err(Reason::UnsafeFile)),
    ("beside", Ok(0)),
    ("block_device", Err(Reason::UnsafeFile)),
    ("char_device", Err(Reason::UnsafeFile)),
    ("deep", Err(Reason::UnsafeFile)),
    ("dotdot", Err(Reason::UnsafeFile)),
    ("dotdot_first", Err(Reason::UnsafeFile)),
    ("hard_out", Ok(4)),
    ("hard_to_link", Ok(1)),
    ("huge", Err(Reason::UnsafeFile)),
    ("huge_link", Err(Reason::UnsafeFile)),
    ("huge_name", Err(Reason::SourceUnreadable)),
    ("link_below", Ok(0)),
    ("links_out", Ok(5)),
    ("long_component", Err(Reason::UnsafeFile)),
    ("nameless", Err(Reason::UnsafeFile)),
    ("nul_in_name", Err(Reason::UnsafeFile)),
    ("old_directory", Ok(0)),
    ("pax_link", Ok(0)),
    ("pax_path", Err(Reason::UnsafeFile)),
    ("pax_size", Err(Reason::UnsafeFile)),
    ("pipe", Err(Reason::UnsafeFile)),
    ("short", Err(Reason::SourceUnreadable)),
    ("sparse", Ok(0)),
    ("sparse_huge", Err(Reason::UnsafeFile)),
    ("sparse_pax", Err(Reason::UnsafeFile)),
    ("through_a_link", Ok(0)),
    ("through_links", Ok(1)),
    ("twice", Ok(0)),
    ("unknown_kind", Err(Reason::UnsafeFile)),
    ("usual", Ok(0)),
];

#[test]
fn every_trick_of_an_archive_is_met_as_it_should_be() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/archive");
    let mut names: Vec<_> =
        fs::read_dir(&directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ARCHIVES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let met = |name: &str| {
        let report = super::archive::unpack(&fs::read(directory.join(name)).unwrap(), Placement::AsIs);
        report.map(|report| report.warnings.len()).map_err(|error| error.reason())
    };
    let wrong: Vec<_> = ARCHIVES
        .iter()
        .map(|(name, expected)| (*name, met(name), expected))
        .filter(|(_, met, it)| met != *it)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
