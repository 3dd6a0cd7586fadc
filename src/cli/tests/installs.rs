//! `install`, consent, `validate`, `inspect`.

use super::{Fake, Terminals, run, run_with};

const AT_TERMINAL: Terminals = Terminals { input: true, err: true };
const LIST: &str = "org/hello:1.0 asks to:\n  * run the program kubectl on this machine\n      host.exec:kubectl, asked for in host.binaries\n";

#[tokio::test]
async fn progress_is_lines_where_there_is_no_terminal() {
    let fake = Fake::start();
    let outcome = run(&fake, &["install", "org/hello:1.0", "--grant", "host.exec:kubectl"]).await;
    assert_eq!(outcome.err, "reading\nstarting: hello\n");
    assert_eq!(outcome.out(), "installed org/hello 1.0: degraded (NO_SOCKET)\n");
    let outcome = run(&fake, &["install", "org/hello:1.0", "--trust", "-q"]).await;
    assert_eq!((outcome.out(), outcome.err.as_str()), ("org/hello\n", ""));
}

#[tokio::test]
async fn json_is_one_object_for_each_step() {
    let fake = Fake::start();
    let outcome = run(&fake, &["install", "org/hello:1.0", "--trust", "--json"]).await;
    let lines = outcome.json();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[1]["progress"]["phase"], "starting");
    assert_eq!(lines[3]["extension"]["state"], "degraded");
    assert_eq!(outcome.err, "");
}

#[tokio::test]
async fn without_a_terminal_the_missing_flags_are_named() {
    let fake = Fake::start();
    let outcome = run(&fake, &["install", "org/hello:1.0"]).await;
    let said =
        format!("reading\nlongshore: permission is needed\n{LIST}  to accept this, add: --grant host.exec:kubectl\n");
    assert_eq!((outcome.err, outcome.code), (said, 1));
    let outcome = run(&fake, &["install", "org/hello:1.0", "--json"]).await;
    let error: serde_json::Value = serde_json::from_str(&outcome.err).unwrap();
    assert_eq!(error["error"]["missing_grants"][0]["name"], "host.exec:kubectl");
}

#[tokio::test]
async fn the_user_is_asked_and_the_answer_counts() {
    let fake = Fake::start();
    for (input, accepted) in [(&b"y\n"[..], true), (b"Yes\n", true), (b"\n", false), (b"n\n", false), (b"", false)] {
        fake.seen.installs.lock().unwrap().clear();
        let outcome = run_with(&fake, &["install", "org/hello:1.0"], input, AT_TERMINAL).await;
        assert!(outcome.err.contains(LIST) && outcome.err.contains("Grant this? [y/N] "), "{}", outcome.err);
        let requests = fake.seen.installs.lock().unwrap();
        assert_eq!((requests.len(), outcome.code), if accepted { (2, 0) } else { (1, 1) }, "{input:?}");
        assert!(!accepted || requests[1].accept_grants == ["host.exec:kubectl"]);
    }
}

#[tokio::test]
async fn an_update_asks_for_what_is_new_and_says_what_it_did() {
    let fake = Fake::start();
    let outcome = run(&fake, &["update", "org/hello:2.0", "--yes"]).await;
    assert_eq!(outcome.out(), "updated org/hello 1.0 to 2.0: degraded (NO_SOCKET)\n");
    assert!(outcome.err.contains("kept its volumes: hello_data"), "{}", outcome.err);
    let outcome = run(&fake, &["update", "org/hello:2.0", "--trust", "--json"]).await;
    assert_eq!(outcome.json()[0]["extension"]["version"], "2.0");
    assert_eq!(run(&fake, &["update", "org/hello:2.0"]).await.code, 1);
}

#[tokio::test]
async fn yes_accepts_what_is_listed_and_shows_it() {
    let fake = Fake::start();
    let outcome = run(&fake, &["install", "org/hello:1.0", "--yes", "--ready-timeout", "5s", "--detach"]).await;
    // Nothing is told twice, though the broker was asked twice.
    assert_eq!(outcome.err, format!("reading\n{LIST}granted, as --yes says\nstarting: hello\n"));
    assert_eq!(outcome.code, 0);
    let requests = fake.seen.installs.lock().unwrap();
    assert!(!requests[1].trust && requests[1].detach);
    assert_eq!(requests[1].ready_timeout.map(|time| time.seconds), Some(5));
}

#[tokio::test]
async fn more_that_is_missing_is_asked_for_until_nothing_new_comes() {
    let fake = Fake::start();
    let outcome = run(&fake, &["install", "org/many:1.0", "--yes"]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let accepted = std::mem::take(&mut *fake.seen.installs.lock().unwrap()).pop().unwrap().accept_grants;
    assert_eq!(accepted, ["host.exec:kubectl", "host.exec:helm", "host.exec:git"]);
    let outcome = run(&fake, &["install", "org/stuck:1.0", "--yes"]).await;
    assert!(outcome.code == 1 && outcome.err.contains("permission is needed"), "{}", outcome.err);
    assert_eq!(fake.seen.installs.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn validate_prints_findings_and_fails() {
    let fake = Fake::start();
    let outcome = run_with(&fake, &["validate", "-"], b"{]", Terminals::default()).await;
    assert_eq!(outcome.out(), "metadata.json:1:2: error: 2 bytes of nonsense\nnot valid: 1 error\n");
    assert_eq!(outcome.code, 1);
    let outcome = run(&fake, &["validate", "org/hello:1.0"]).await;
    assert_eq!((outcome.out(), outcome.code), ("valid\n", 0));
}

#[tokio::test]
async fn inspect_looks_at_the_image_where_nothing_is_installed() {
    let fake = Fake::start();
    let outcome = run(&fake, &["inspect", "gone/x"]).await;
    assert!(outcome.out().starts_with("Extension:   gone/x (not installed)\n"), "{}", outcome.out());
    assert!(outcome.out().contains("Needs:       host.exec:kubectl: run the program"), "{}", outcome.out());
    let outcome = run(&fake, &["inspect", "--json", "org/hello:2.0"]).await;
    assert_eq!(outcome.json()[0]["manifest"]["icon"], "i.svg");
    let outcome = run(&fake, &["inspect", "org/hello"]).await;
    assert!(outcome.out().contains("State:        degraded (NO_SOCKET)\n"), "{}", outcome.out());
}

#[tokio::test]
async fn events_are_lines_with_a_token_in_json() {
    let fake = Fake::start();
    let outcome = run(&fake, &["events"]).await;
    let line = "1970-01-01T00:00:01.000Z org/hello state backoff (RESTARTING): again [2J [observed late]\n";
    assert_eq!(outcome.out(), line);
    let outcome = run(&fake, &["events", "org/hello", "--json"]).await;
    assert_eq!((&outcome.json()[0]["state"], &outcome.json()[0]["resume_token"]), (&"backoff".into(), &"t".into()));
    assert!(run(&fake, &["events", "--resume", "old"]).await.err.contains("list again"));
}
