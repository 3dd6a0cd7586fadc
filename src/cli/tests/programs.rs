//! `exec`, `execs`, `kill`, `sessions` and `dev`.

use super::{Fake, Terminals, run, run_with};
use crate::pb::{self, exec_request::Message, signal_request::Action};

#[tokio::test]
async fn output_is_carried_byte_for_byte_and_the_code_is_passed_on() {
    let fake = Fake::start();
    let outcome =
        run(&fake, &["exec", "org/hello", "--host", "-e", "A=b=c", "-w", "/tmp", "hello.sh", "--json", "a b"]).await;
    assert_eq!((outcome.out.as_slice(), outcome.err.as_str()), (b"\xff\x00a\nlate".as_slice(), "careful"));
    assert_eq!(outcome.code, 7);
    let seen = fake.seen.starts.lock().unwrap();
    assert_eq!(seen[0].target(), pb::ExecTarget::Host);
    assert_eq!(seen[0].argv, ["hello.sh", "--json", "a b"]);
    assert_eq!((seen[0].env["A"].as_str(), seen[0].cwd.as_str()), ("b=c", "/tmp"));
    assert_eq!((seen[0].stdin, &seen[0].terminal, &seen[0].limits), (false, &None, &None));
    assert!(fake.seen.inputs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn each_end_has_its_exit_code() {
    let fake = Fake::start();
    for (program, code) in [("killed", 137), ("missing", 127), ("ungranted", 125)] {
        assert_eq!(run(&fake, &["exec", "org/hello", program]).await.code, code, "{program}");
    }
    let outcome = run(&fake, &["exec", "org/hello", "ungranted"]).await;
    assert!(outcome.err.ends_with("  grant it with: longshore grants org/hello --allow host.exec:kubectl\n"));
    assert_eq!(run(&fake, &["exec", "gone/x", "ls"]).await.code, 125);
}

#[tokio::test]
async fn events_are_json_lines() {
    let fake = Fake::start();
    let outcome = run(&fake, &["--json", "exec", "org/hello", "killed"]).await;
    let lines = outcome.json();
    assert_eq!(lines[0], serde_json::json!({ "event": "started", "exec_id": "e1", "pid": 42 }));
    assert_eq!(lines[1]["data_base64"], "/wBhCg==");
    assert_eq!(lines[3]["signal"]["name"], "SIGKILL");
    assert_eq!((lines[5]["stdout_bytes"].as_i64(), outcome.code), (Some(8), 137));
    assert_eq!(lines[5]["termination"], serde_json::Value::Null);
}

#[tokio::test]
async fn input_is_passed_on_to_its_end() {
    let fake = Fake::start();
    let input: &'static [u8] = vec![b'\xfe'; 300_000].leak();
    let outcome = run_with(&fake, &["exec", "-i", "org/hello", "--docker", "ps"], input, Terminals::default()).await;
    assert_eq!((outcome.code, outcome.err.as_str()), (7, "careful"));
    let start = &fake.seen.starts.lock().unwrap()[0];
    assert_eq!(
        (start.target(), start.stdin, start.argv.as_slice()),
        (pb::ExecTarget::Docker, true, &["ps".into()][..])
    );
    let inputs = fake.seen.inputs.lock().unwrap();
    let Some((Message::CloseStdin(_), pieces)) = inputs.split_last() else { panic!("{} messages", inputs.len()) };
    let bytes: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| match piece {
            Message::Stdin(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(bytes == input);
}

#[tokio::test]
async fn a_terminal_without_one_is_refused() {
    let fake = Fake::start();
    let outcome = run(&fake, &["exec", "-it", "org/hello", "sh"]).await;
    assert_eq!(outcome.err, "longshore: standard input is no terminal\n  leave out --tty (-t)\n");
    assert_eq!(outcome.code, 125);
    let outcome = run(&fake, &["--json", "exec", "-t", "org/hello", "sh"]).await;
    assert!(outcome.err.contains("a terminal shows no JSON"), "{}", outcome.err);
    assert!(fake.seen.starts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_program_can_have_a_terminal_that_nobody_types_at() {
    let fake = Fake::start();
    let outcome = run(&fake, &["exec", "-t", "org/hello", "-e", "TERM=vt100", "sh"]).await;
    assert_eq!(outcome.code, 7);
    let start = &fake.seen.starts.lock().unwrap()[0];
    assert!(start.terminal.as_ref().is_some_and(|size| size.columns > 0 && size.rows > 0) && !start.stdin);
    assert_eq!(start.env["TERM"], "vt100");
}

#[tokio::test]
async fn what_was_ended_says_by_whom() {
    let fake = Fake::start();
    let outcome = run(&fake, &["exec", "--timeout", "90", "org/hello", "slow"]).await;
    assert_eq!((outcome.code, outcome.err.as_str()), (124, "carefullongshore: it was ended after 1m 30s\n"));
    let wall = fake.seen.starts.lock().unwrap()[0].limits.as_ref().unwrap().wall;
    assert_eq!(wall.unwrap().seconds, 90);
    let outcome = run(&fake, &["exec", "org/hello", "removed"]).await;
    let text = "carefullongshore: it was ended: the extension was disabled, changed or removed; 1 process of it could not be ended\n";
    assert_eq!((outcome.code, outcome.err.as_str()), (137, text));
}

#[tokio::test]
async fn programs_that_run_are_listed() {
    let fake = Fake::start();
    let outcome = run(&fake, &["execs"]).await;
    let expected = "\
EXEC   EXTENSION   TARGET    PROGRAM        PID   CONTAINER      SESSION   STATE        AGE
e1     org/hello   backend   sh             42    0123456789ab   -         running      3m
e2     org/hello   host      hello.sh [2J   -     -              s1        exited (3)   3m
";
    assert_eq!(outcome.out(), expected);
    assert_eq!(run(&fake, &["execs", "-q", "org/hello"]).await.out(), "e1\ne2\n");
    let json = run(&fake, &["execs", "--json"]).await.json();
    assert_eq!((&json[0][0]["exited"], &json[0][1]["exited"]["code"]), (&serde_json::Value::Null, &3.into()));
}

#[tokio::test]
async fn programs_are_ended_or_signalled() {
    let fake = Fake::start();
    let outcome = run(&fake, &["kill", "e1", "gone", "tough", "--grace", "1s"]).await;
    assert_eq!((outcome.out(), outcome.code), ("ended e1\n", 1));
    let expected = "\
longshore: there is no program gone
  it may have ended; see what runs with: longshore execs
longshore: 2 processes of tough could not be ended
";
    assert_eq!(outcome.err, expected);
    let outcome = run(&fake, &["kill", "e1", "--signal", "HUP"]).await;
    assert_eq!((outcome.out(), outcome.code), ("signalled e1\n", 0));
    let json = run(&fake, &["kill", "e1", "--json"]).await.json();
    assert_eq!((&json[0]["exec_id"], &json[0]["termination"]["containment"]), (&"e1".into(), &"WALK".into()));
    let seen = fake.seen.signals.lock().unwrap();
    assert!(
        matches!(&seen[0].action, Some(Action::End(end)) if end.grace.as_ref().is_some_and(|grace| grace.seconds == 1))
    );
    assert_eq!(seen[3].action, Some(Action::Signal("HUP".into())));
}

#[tokio::test]
async fn open_views_are_listed() {
    let fake = Fake::start();
    let outcome = run(&fake, &["sessions", "org/hello"]).await;
    assert_eq!(
        outcome.out(),
        "SESSION   EXTENSION   GENERATION   PROGRAMS   AGE\ns1        org/hello   3            2          2h\n"
    );
    assert_eq!(run(&fake, &["sessions", "org/hello", "--json"]).await.json()[0][0]["generation"], 3);
}

#[tokio::test]
async fn a_local_process_is_told_its_socket_and_its_code_is_passed_on() {
    let fake = Fake::start();
    let script = r#"test "$1" = "$LONGSHORE_BACKEND_SOCKET" && exit 9"#;
    let outcome = run(&fake, &["dev", "org/hello", "--", "sh", "-c", script, "sh", "{socket}"]).await;
    assert_eq!(outcome.code, 9, "{}", outcome.err);
    let seen = fake.seen.hellos.lock().unwrap();
    let socket = &seen[0].endpoints[0].socket;
    assert!(outcome.err.contains(&format!("calls to org/hello go to {socket}")), "{}", outcome.err);
    assert_eq!(seen[0].directory, std::env::current_dir().unwrap().to_str().unwrap());
    assert!(!std::path::Path::new(socket).parent().unwrap().exists());
}

#[tokio::test]
async fn nothing_is_started_for_an_extension_that_is_not_there() {
    let fake = Fake::start();
    let outcome = run(&fake, &["dev", "gone/x", "--", "sh", "-c", "exit 9"]).await;
    assert_eq!(outcome.err, "longshore: gone/x is not installed\n  see what is installed with: longshore ls\n");
    assert_eq!(outcome.code, 1);
}

#[tokio::test]
async fn dev_tells_a_program_that_is_not_there_from_one_that_cannot_be_executed() {
    let fake = Fake::start();
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let plain = plain.to_str().unwrap();
    let below = format!("{plain}/below");
    for (program, code, text) in [
        ("no-such-program-here", 127, "no such file or directory"),
        (&below, 127, "not a directory"),
        (plain, 126, "permission denied"),
        (dir.path().to_str().unwrap(), 126, "permission denied"),
    ] {
        let outcome = run(&fake, &["dev", "org/hello", "--", program]).await;
        assert_eq!(outcome.code, code, "{program}: {}", outcome.err);
        assert!(outcome.err.ends_with(&format!("longshore: {program}: {text}\n")), "{}", outcome.err);
    }
}
