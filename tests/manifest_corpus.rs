//! Manifests as files, each with the findings that are expected of it; damaged in every byte they must not do harm.
//!
//! `tests/corpus/manifest/NAME.json` is read for Linux and compared with `NAME.txt`, one finding a line. After a change
//! that is meant, `LONGSHORE_BLESS=1` writes the findings anew.

#![allow(missing_docs)]

use std::{fmt::Write, fs, path::PathBuf};

use longshore::model::manifest::{HostOs, parse};

fn corpus() -> Vec<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/manifest");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn findings(bytes: &[u8]) -> String {
    let parsed = parse(bytes, HostOs::Linux);
    let mut text = String::new();
    for problem in &parsed.problems {
        writeln!(text, "{:?} {problem}", problem.severity).unwrap();
    }
    if let Some(manifest) = &parsed.manifest {
        writeln!(text, "{manifest:#?}").unwrap();
    }
    text
}

#[test]
fn each_file_is_read_as_expected() {
    for file in corpus() {
        let found = findings(&fs::read(&file).unwrap());
        let expected = file.with_extension("txt");
        if std::env::var_os("LONGSHORE_BLESS").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&expected).unwrap(), "{}", file.display());
    }
}

#[test]
fn damage_is_never_more_than_a_finding() {
    for file in corpus() {
        let whole = fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            for byte in [b'"', b'\\', b'{', b']', b'0', 0, 0xff] {
                damaged[at] = byte;
                check(&damaged);
            }
            check(&whole[..at]);
        }
    }
}

fn check(bytes: &[u8]) {
    let parsed = parse(bytes, HostOs::Linux);
    let refused = parsed.problems.iter().any(|problem| problem.is_error());
    assert_eq!(parsed.manifest.is_none(), refused, "{}", String::from_utf8_lossy(bytes));
}
