use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use cap_std::ambient_authority;
use proptest::prelude::*;
use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

/// One entry of an archive that no honest program would write.
struct Hostile(Builder<Vec<u8>>);

impl Hostile {
    fn new() -> Self {
        Hostile(Builder::new(Vec::new()))
    }

    /// Sets name and target byte by byte: the builder itself refuses what is tested here.
    fn raw(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o6755);
        header.set_size(content.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.raw(EntryType::Regular, name, "", content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.raw(EntryType::Directory, name, "", b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Symlink, name, target, b"")
    }

    fn hard(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Link, name, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A destination with a witness beside it that must stay as it is.
struct Place {
    temp: TempDir,
    dir: Dir,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("to")).unwrap();
        fs::create_dir(temp.path().join("outside")).unwrap();
        fs::write(temp.path().join("outside/witness"), "unharmed").unwrap();
        let dir = Dir::open_ambient_dir(temp.path().join("to"), ambient_authority()).unwrap();
        Place { temp, dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.temp.path().join("to").join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn unpack(&self, placement: Placement, archive: Hostile) -> Result<Unpacked> {
        let result = Unpacker::new(placement).image_path("/ui").unpack(archive.bytes().as_slice(), &self.dir);
        self.assert_unharmed();
        result
    }

    fn assert_unharmed(&self) {
        let names: Vec<_> = fs::read_dir(self.temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let outside = self.temp.path().join("outside");
        assert_eq!(fs::read_to_string(outside.join("witness")).unwrap(), "unharmed");
        assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
    }
}

fn reason(result: Result<Unpacked>) -> Reason {
    result.unwrap_err().reason()
}

#[test]
fn a_tree_is_taken_under_each_placement() {
    let tree =
        || Hostile::new().dir("ui/").file("ui/index.html", "hi").dir("ui/a/").file("ui/a/x", "x").link("ui/l", "a/x");
    for (placement, prefix) in [(Placement::AsIs, "ui/"), (Placement::Into("u".into()), "u/")] {
        let place = Place::new();
        let report = place.unpack(placement, tree()).unwrap();
        assert_eq!((report.warnings.len(), report.top), (0, Top::Dir));
        assert_eq!(place.read(&format!("{prefix}index.html")), "hi");
        assert_eq!(place.read(&format!("{prefix}l")), "x");
        let mode = fs::metadata(place.at(&format!("{prefix}a/x"))).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755, "setuid is dropped");
    }
}

#[test]
fn a_single_file_and_a_link_at_the_top() {
    let place = Place::new();
    let report = place.unpack(Placement::Into("icon.svg".into()), Hostile::new().file("logo.svg", "<svg/>")).unwrap();
    assert_eq!((report.top, place.read("icon.svg")), (Top::File, "<svg/>".into()));
    let report = place.unpack(Placement::Into("x".into()), Hostile::new().link("ui", "/opt/build")).unwrap();
    assert_eq!(report.top, Top::Symlink("/opt/build".into()));
    assert!(fs::symlink_metadata(place.at("x")).is_err(), "nothing is written");
    let below = Hostile::new().link("ui", "/etc").file("ui/passwd", "x");
    assert_eq!(reason(place.unpack(Placement::Into("x".into()), below)), Reason::UnsafeFile);
    let beside = Hostile::new().file("a", "").file("b", "");
    assert_eq!(reason(place.unpack(Placement::Into("x".into()), beside)), Reason::UnsafeFile);
    place.unpack(Placement::Into("y".into()), Hostile::new().dir("./").file("./in", "x")).unwrap();
    assert_eq!(place.read("y/in"), "x");
}

#[test]
fn names_that_lead_outside_are_refused() {
    for name in ["../outside/witness", "/etc/passwd", "ui/../../outside/new", "ui/..", ".."] {
        let place = Place::new();
        for archive in [Hostile::new().file(name, "evil"), Hostile::new().dir(name), Hostile::new().link(name, "/etc")]
        {
            assert_eq!(reason(place.unpack(Placement::AsIs, archive)), Reason::UnsafeFile, "{name}");
        }
    }
    let empty = Hostile::new().file("", "evil");
    assert_eq!(reason(Place::new().unpack(Placement::AsIs, empty)), Reason::UnsafeFile);
}

#[test]
fn nothing_is_written_through_a_link() {
    let place = Place::new();
    let outside = place.temp.path().join("outside").display().to_string();
    let archive = Hostile::new()
        .link("ui/esc", "../../outside")
        .file("ui/esc/witness", "evil")
        .link("ui/abs", &outside)
        .file("ui/abs/witness", "evil")
        .link("ui/file", "../../outside/witness")
        .file("ui/file", "evil")
        .link("ui/one", "two")
        .link("ui/two", "../../outside")
        .file("ui/one/new", "evil");
    let report = place.unpack(Placement::AsIs, archive).unwrap();
    assert_eq!((place.read("ui/esc/witness"), place.read("ui/file")), ("evil".into(), "evil".into()));
    assert!(fs::symlink_metadata(place.at("ui/two")).is_err());
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);

    // Links of somebody else's that are there already are replaced as well.
    symlink(&outside, place.at("there")).unwrap();
    symlink(format!("{outside}/witness"), place.at("there_file")).unwrap();
    let archive = Hostile::new().file("there/witness", "evil").file("there_file", "evil").dir("there2/");
    place.unpack(Placement::AsIs, archive).unwrap();
    assert!(fs::symlink_metadata(place.at("there")).unwrap().is_dir());
}

#[test]
fn links_out_of_the_tree_and_dangling_ones_are_left_out() {
    let place = Place::new();
    let archive = Hostile::new()
        .dir("ui/")
        .file("ui/f", "x")
        .link("ui/gone", "nothing")
        .link("ui/out", "../../outside/witness")
        .link("ui/etc", "/etc/passwd")
        .link("ui/abs", "/ui/f")
        .link("ui/loop", "loop")
        .link("ui/chain", "abs")
        .link("ui/top", "..");
    let report = place.unpack(Placement::Into("ui".into()), archive).unwrap();
    let mut kept: Vec<_> =
        fs::read_dir(place.at("ui")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    kept.sort();
    assert_eq!(kept, ["abs", "chain", "f"]);
    assert_eq!(fs::read_link(place.at("ui/abs")).unwrap(), Path::new("f"));
    assert_eq!(report.warnings.len(), 5, "{:?}", report.warnings);
}

#[test]
fn hard_links_stay_inside() {
    let place = Place::new();
    let archive = Hostile::new()
        .file("ui/f", "x")
        .hard("ui/ok", "ui/f")
        .hard("ui/out", "../outside/witness")
        .hard("ui/abs", "/etc/passwd")
        .hard("ui/later", "ui/z")
        .hard("ui/dir", "ui")
        .hard("ui/f", "ui/f")
        .link("ui/l", "../../outside/witness")
        .hard("ui/vial", "ui/l")
        .file("ui/vial", "evil")
        .file("ui/ok", "new")
        .file("ui/z", "z");
    let report = place.unpack(Placement::AsIs, archive).unwrap();
    assert_eq!(
        (place.read("ui/f"), place.read("ui/ok"), place.read("ui/vial")),
        ("x".into(), "new".into(), "evil".into())
    );
    assert_eq!(report.warnings.len(), 5, "{:?}", report.warnings);
    assert!(!place.at("ui/later").exists() && !place.at("ui/abs").exists());
}

#[test]
fn special_files_are_refused_by_name() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::new(b'Q')] {
        let error = Place::new().unpack(Placement::AsIs, Hostile::new().raw(kind, "ui/bad", "", b"")).unwrap_err();
        assert_eq!(error.reason(), Reason::UnsafeFile);
        assert!(error.message().contains("ui/bad"), "{error}");
    }
}

#[test]
fn the_last_of_two_wins() {
    let place = Place::new();
    let archive = Hostile::new()
        .file("a", "1")
        .file("a", "2")
        .file("b/c/d", "1")
        .link("b/c/l", "d")
        .file("b", "file")
        .file("e", "file")
        .file("e/f", "below")
        .dir("g/")
        .link("g", "a")
        .link("h", "a")
        .dir("h/");
    place.unpack(Placement::AsIs, archive).unwrap();
    assert_eq!(
        (place.read("a"), place.read("b"), place.read("e/f"), place.read("g")),
        ("2".into(), "file".into(), "below".into(), "2".into())
    );
    assert!(fs::symlink_metadata(place.at("h")).unwrap().is_dir());
}

#[test]
fn a_stream_that_breaks_off_is_an_error() {
    let bytes = Hostile::new().file("ui/a", &"x".repeat(2_000)).file("ui/b", "y").bytes();
    for length in [0, 100, 512, 1_000, 2_559, 2_560, 3_000, 3_584, 3_900] {
        let place = Place::new();
        let result = Unpacker::new(Placement::AsIs).unpack(&bytes[..length], &place.dir);
        assert_eq!(reason(result), Reason::SourceUnreadable, "{length}");
    }
    let mut header = Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_mode(0o644);
    header.set_size(1 << 30);
    header.set_cksum();
    let mut short = header.as_bytes().to_vec();
    short.extend([0; 1_024]);
    let result = Unpacker::new(Placement::AsIs).unpack(short.as_slice(), &Place::new().dir);
    assert_eq!(reason(result), Reason::SourceUnreadable);
    header.set_size(1 << 40);
    header.set_cksum();
    let result = Unpacker::new(Placement::AsIs).unpack(header.as_bytes().as_slice(), &Place::new().dir);
    let error = result.unwrap_err();
    assert!(error.message().contains("limit"), "{error}");
    let garbage = [b'x'; 4_096];
    assert_eq!(
        reason(Unpacker::new(Placement::AsIs).unpack(&garbage[..], &Place::new().dir)),
        Reason::SourceUnreadable
    );
}

#[test]
fn limits_hold() {
    let with = |limits: Limits, archive: Hostile| {
        Unpacker::new(Placement::AsIs).limits(limits).unpack(archive.bytes().as_slice(), &Place::new().dir)
    };
    let few = Limits { max_entries: 2, ..Limits::default() };
    assert_eq!(reason(with(few, Hostile::new().file("a", "").file("a", "").file("a", ""))), Reason::UnsafeFile);
    let small = Limits { max_bytes: 5, ..Limits::default() };
    with(small.clone(), Hostile::new().file("a", "12345")).unwrap();
    assert_eq!(reason(with(small.clone(), Hostile::new().file("a", "123").file("b", "456"))), Reason::UnsafeFile);
    // Content of an entry that has none is not read for ever either.
    assert_eq!(reason(with(small, Hostile::new().raw(EntryType::Symlink, "l", "x", b"123456"))), Reason::UnsafeFile);
}

#[test]
fn a_header_without_end_is_refused() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(4 << 30);
    header.set_cksum();
    let stream = header.as_bytes().chain(io::repeat(b'a'));
    let error = Unpacker::new(Placement::AsIs).unpack(stream, &Place::new().dir).unwrap_err();
    assert_eq!(error.reason(), Reason::UnsafeFile, "{error}");
}

#[test]
fn sparse_files_are_filled() {
    let place = Place::new();
    let sparse = |real_bytes: u64| {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_path("sparse").unwrap();
        header.set_mode(0o644);
        header.set_size(512);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(real_bytes);
        gnu.sparse[0].set_offset(real_bytes - 512);
        gnu.sparse[0].set_length(512);
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, &[b'x'; 512][..]).unwrap();
        builder.into_inner().unwrap()
    };
    Unpacker::new(Placement::AsIs).unpack(sparse(4_096).as_slice(), &place.dir).unwrap();
    let filled = place.read("sparse");
    assert_eq!((filled.len(), filled.trim_start_matches('\0')), (4_096, "x".repeat(512).as_str()));
    let result = Unpacker::new(Placement::AsIs).unpack(sparse(1 << 42).as_slice(), &place.dir);
    assert_eq!(reason(result), Reason::UnsafeFile);
}

#[test]
fn long_names_and_deep_trees() {
    let place = Place::new();
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o600);
    let deep = format!("{}file", "d/".repeat(300));
    let long = format!("{}/{}", "n".repeat(200), "m".repeat(200));
    for name in [&deep, &long] {
        builder.append_data(&mut header, name, &b"x"[..]).unwrap();
    }
    builder.append_pax_extensions([("path", "paxed/file".as_bytes())]).unwrap();
    header.set_path("ignored").unwrap();
    header.set_cksum();
    builder.append(&header, &b"y"[..]).unwrap();
    Unpacker::new(Placement::AsIs).unpack(builder.into_inner().unwrap().as_slice(), &place.dir).unwrap();
    assert_eq!((place.read(&deep), place.read(&long), place.read("paxed/file")), ("x".into(), "x".into(), "y".into()));

    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut header, "d/".repeat(600) + "f", &b"x"[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    assert_eq!(reason(Unpacker::new(Placement::AsIs).unpack(archive.as_slice(), &place.dir)), Reason::UnsafeFile);
}

#[test]
fn a_directory_is_read_by_the_same_rules() {
    let place = Place::new();
    let from = tempfile::tempdir().unwrap();
    let at = |path: &str| from.path().join(path);
    fs::create_dir_all(at("build/deep/er")).unwrap();
    fs::write(at("build/deep/er/f"), "x").unwrap();
    fs::set_permissions(at("build/deep/er/f"), fs::Permissions::from_mode(0o4555)).unwrap();
    fs::write(at("secret"), "secret").unwrap();
    symlink("deep/er/f", at("build/ok")).unwrap();
    symlink("../secret", at("build/out")).unwrap();
    symlink(place.temp.path().join("outside"), at("build/abs")).unwrap();
    symlink("build", at("ui")).unwrap();
    symlink("/etc", at("etc")).unwrap();
    let source = Dir::open_ambient_dir(from.path(), ambient_authority()).unwrap();
    let take = |path: &str, placement| Unpacker::new(placement).copy_tree(&source, Path::new(path), &place.dir);

    let report = take("build", Placement::Into("ui".into())).unwrap();
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
    assert_eq!(
        (place.read("ui/ok"), fs::metadata(place.at("ui/deep/er/f")).unwrap().mode() & 0o7777),
        ("x".into(), 0o555)
    );
    assert_eq!(take("ui", Placement::Into("v".into())).unwrap().top, Top::Symlink("build".into()));
    assert_eq!(take("ui/deep", Placement::Into("w".into())).unwrap().top, Top::Dir);
    assert_eq!(place.read("w/er/f"), "x");
    assert_eq!(take("secret", Placement::Into("one".into())).unwrap().top, Top::File);
    assert_eq!(reason(take("etc/passwd", Placement::AsIs)), Reason::SourceUnreadable);
    assert_eq!(reason(take("../x", Placement::AsIs)), Reason::SourceUnreadable);
    assert_eq!(reason(take("none", Placement::AsIs)), Reason::SourceUnreadable);
    let _socket = std::os::unix::net::UnixListener::bind(at("build/sock")).unwrap();
    assert_eq!(reason(take("build", Placement::Into("z".into()))), Reason::UnsafeFile);
    let all = Place::new();
    fs::remove_file(at("build/sock")).unwrap();
    Unpacker::new(Placement::AsIs).copy_tree(&source, Path::new("."), &all.dir).unwrap();
    assert_eq!((all.read("ui/deep/er/f"), all.read("secret")), ("x".into(), "secret".into()));
    place.assert_unharmed();
}

/// Every link in the destination, with whether it ends inside; `None` if it leads nowhere.
fn ends(place: &Place) -> Vec<(PathBuf, Option<bool>)> {
    let root = fs::canonicalize(place.at("")).unwrap();
    let (mut pending, mut found) = (vec![root.clone()], Vec::new());
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
            let kind = entry.file_type().unwrap();
            if kind.is_symlink() {
                let end = fs::canonicalize(entry.path()).ok();
                found.push((entry.path(), end.map(|end| end.starts_with(&root))));
            } else if kind.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    found
}

fn hostile_name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "..", ".", "", "outside", "witness"]), 1..5)
        .prop_map(|parts| parts.join("/"))
}

fn hostile_entry() -> impl Strategy<Value = (EntryType, String, String)> {
    let kinds = vec![EntryType::Regular, EntryType::Directory, EntryType::Symlink, EntryType::Link];
    (prop::sample::select(kinds), "[abc](/[abc]){0,2}", prop_oneof![hostile_name(), "[abc](/[abc]){0,2}"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever entries come in whatever order, nothing outside changes and every link that is kept leads inside.
    #[test]
    fn no_archive_reaches_outside(entries in prop::collection::vec(hostile_entry(), 0..25), strict in hostile_name()) {
        let place = Place::new();
        let mut archive = Hostile::new();
        for (kind, name, link) in &entries {
            archive = archive.raw(*kind, name, link, if *kind == EntryType::Regular { b"evil" } else { b"" });
        }
        let _ = place.unpack(Placement::AsIs, archive);
        for (path, end) in ends(&place) {
            prop_assert!(end.is_some_and(|inside| inside), "{path:?}");
        }
        // A second archive may cut off what the first one's links lead to, but not turn them outwards.
        let mut archive = Hostile::new().file(&strict, "evil");
        for (kind, name, link) in entries.iter().rev() {
            archive = archive.raw(*kind, name, link, if *kind == EntryType::Regular { b"evil" } else { b"" });
        }
        let _ = place.unpack(Placement::AsIs, archive);
        for (path, end) in ends(&place) {
            prop_assert!(end.is_none_or(|inside| inside), "{path:?}");
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let place = Place::new();
        let _ = Unpacker::new(Placement::AsIs).unpack(bytes.as_slice(), &place.dir);
        place.assert_unharmed();
    }
}
