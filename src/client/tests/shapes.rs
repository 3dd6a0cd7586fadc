//! Arguments, as real extensions pass them and as nobody would.

use proptest::prelude::*;
use serde::Deserialize;

use crate::client::{
    Command, Target,
    words::{Refusal, split},
};

/// What the home directory is in the file.
const HOME: &str = "/home/me";

/// One call of an extension's page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    from: String,
    mode: Mode,
    target: Place,
    cmd: String,
    args: Vec<String>,
    /// What runs.
    argv: Option<Vec<String>>,
    /// Or why nothing does.
    refused: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Blocking,
    Streaming,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    Docker,
    Backend,
    Host,
}

impl From<Place> for Target {
    fn from(place: Place) -> Self {
        match place {
            Place::Docker => Target::Docker,
            Place::Backend => Target::Backend,
            Place::Host => Target::Host,
        }
    }
}

#[test]
fn what_real_extensions_pass_is_understood() {
    let shapes: Vec<Shape> = serde_json::from_str(include_str!("../../../tests/client/argument_shapes.json")).unwrap();
    assert!(shapes.len() > 60);
    for shape in shapes {
        let target = shape.target.into();
        let command = match shape.mode {
            Mode::Blocking => Command::blocking(target, &shape.cmd, &shape.args, Some(HOME)),
            Mode::Streaming => Ok(Command::streaming(target, &shape.cmd, &shape.args)),
        };
        let found = command.as_ref().map(Command::argv).map_err(|refusal| refusal.reason());
        let wanted = match (&shape.argv, &shape.refused) {
            (Some(argv), None) => Ok(argv.as_slice()),
            (None, Some(reason)) => Err(reason.as_str()),
            _ => panic!("one of both: {shape:?}"),
        };
        assert_eq!(found, wanted, "{} passes {} {:?}", shape.from, shape.cmd, shape.args);
    }
}

#[test]
fn a_refusal_says_what_and_where() {
    let refusal = split("é 'x|y' a||b", None).unwrap_err();
    assert_eq!(refusal, Refusal::Operator { operator: "||", at: 9 });
    assert_eq!(
        refusal.to_string(),
        "|| at character 10 needs a shell, and none runs this; put it in quotes to pass it on as it is"
    );
    assert_eq!(split("a \"b", None), Err(Refusal::OpenQuote { quote: '"', at: 2 }));
}

#[test]
fn a_line_is_shown_as_it_was_given() {
    let line = |target, cmd, args: &[&str]| Command::blocking(target, cmd, args, None).unwrap().line().to_owned();
    assert_eq!(line(Target::Docker, "ps", &["", "--format", "'{{.ID}}' "]), "docker ps --format '{{.ID}}'");
    assert_eq!(line(Target::Host, "kubectl", &["get pods"]), "kubectl get pods");
    let inside = Command::in_container("web", "sh -c 'a; b'").unwrap();
    assert_eq!(inside.argv(), ["exec", "web", "sh", "-c", "a; b"]);
    assert_eq!((inside.target(), inside.line()), (Target::Docker, "docker exec web sh -c 'a; b'"));
    assert_eq!(Command::in_container("web", "id | cat").unwrap_err().reason(), "SHELL_OPERATOR");
}

/// A word as authors quote it, in one of the ways there are.
fn quoted(word: &str, way: u8) -> String {
    match way % 3 {
        0 => format!("'{}'", word.replace('\'', r"'\''")),
        1 => {
            let escaped: String =
                word.chars().flat_map(|c| "$`\"\\".contains(c).then_some('\\').into_iter().chain([c])).collect();
            format!("\"{escaped}\"")
        }
        // A line end after a backslash is no character: it has to be quoted otherwise.
        _ => word.chars().map(|c| if c == '\n' { "'\n'".into() } else { format!("\\{c}") }).collect(),
    }
}

proptest! {
    #[test]
    fn no_line_panics(line in any::<String>(), shell in "[ a'\"\\\\{}~/$`|\n]{0,30}") {
        for text in [line, shell] {
            let _ = split(&text, Some("/home"));
        }
    }

    #[test]
    fn quoting_is_undone(words in prop::collection::vec(("[^\0]{1,12}", any::<u8>()), 0..6)) {
        let line: Vec<String> = words.iter().map(|(word, way)| quoted(word, *way)).collect();
        let found = split(&line.join(" "), Some("/home")).unwrap();
        prop_assert_eq!(found, words.into_iter().map(|(word, _)| word).collect::<Vec<_>>());
    }

    #[test]
    fn a_shell_would_split_it_alike(line in "[a-c '\"\\\\]{0,24}") {
        // Where `sh` finds an error, so do we; else it prints our words.
        let shell = std::process::Command::new("sh").arg("-c").arg(format!("printf '%s\\0' x {line}")).output().unwrap();
        match split(&line, None) {
            Ok(words) => {
                let expected: Vec<_> = ["x"].into_iter().chain(words.iter().map(String::as_str)).map(|word| format!("{word}\0")).collect();
                prop_assert_eq!(String::from_utf8_lossy(&shell.stdout), expected.concat());
            }
            Err(_) => prop_assert!(!shell.status.success()),
        }
    }

    #[test]
    fn streaming_reads_nothing(cmd in any::<String>(), args in prop::collection::vec(any::<String>(), 0..5)) {
        let command = Command::streaming(Target::Host, &cmd, &args);
        prop_assert_eq!(&command.argv()[0], &cmd);
        prop_assert_eq!(&command.argv()[1..], &args[..]);
    }
}
