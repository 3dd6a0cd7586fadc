//! The corpus, damaged in many ways, and bytes at random.

use std::{fs, path::Path};

use proptest::{prelude::*, sample::Index};

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
    reference: 1000;
    request_path: 1000;
    header_lines: 1000;
    authority: 300;
    wire: 1000;
    log_frames: 500;
    gateway: 1000;
    response: 200;
}
