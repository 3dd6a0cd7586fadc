//! `exec` and `dev`.

use super::{Fake, run};
use crate::pb;

#[tokio::test]
async fn output_is_carried_byte_for_byte_and_the_code_is_passed_on() {
    let fake = Fake::start();
    let outcome =
        run(&fake, &["exec", "org/hello", "--host", "-e", "A=b=c", "-w", "/tmp", "hello.sh", "--json", "a b"]).await;
    assert_eq!((outcome.out.as_slice(), outcome.err.as_str()), (b"\xff\x00a\nlate".as_slice(), "careful"));
    assert_eq!(outcome.code, 7);
    let seen = fake.seen.runs.lock().unwrap();
    assert_eq!(seen[0].target(), pb::ExecTarget::Host);
    assert_eq!(seen[0].argv, ["hello.sh", "--json", "a b"]);
    assert_eq!((seen[0].env["A"].as_str(), seen[0].cwd.as_str()), ("b=c", "/tmp"));
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
}

#[tokio::test]
async fn a_local_process_is_told_its_socket_and_its_code_is_passed_on() {
    let fake = Fake::start();
    let script = r#"test "$1" = "$LONGSHORE_BACKEND_SOCKET" && exit 9"#;
    let outcome = run(&fake, &["dev", "org/hello", "--", "sh", "-c", script, "sh", "{socket}"]).await;
    assert_eq!(outcome.code, 9, "{}", outcome.err);
    let seen = fake.seen.attaches.lock().unwrap();
    assert!(outcome.err.contains(&format!("calls to org/hello go to {}", seen[0].socket)), "{}", outcome.err);
    assert_eq!(seen[0].directory, std::env::current_dir().unwrap().to_str().unwrap());
    assert!(!std::path::Path::new(&seen[0].socket).parent().unwrap().exists());
}

#[tokio::test]
async fn nothing_is_started_for_an_extension_that_is_not_there() {
    let fake = Fake::start();
    let outcome = run(&fake, &["dev", "gone/x", "--", "sh", "-c", "exit 9"]).await;
    assert_eq!(outcome.err, "longshore: gone/x is not installed\n  see what is installed with: longshore ls\n");
    assert_eq!(outcome.code, 1);
}
