//! `call` and `logs`.

use super::{Fake, Terminals, run, run_with};

#[tokio::test]
async fn a_body_is_carried_byte_for_byte() {
    let fake = Fake::start();
    let arguments = ["call", "org/hello", "post", "/echo", "-d", "-", "-H", "Content-Type: a/b"];
    let outcome = run_with(&fake, &arguments, b"\x00\xff\r\n", Terminals::default()).await;
    assert_eq!((outcome.out.as_slice(), outcome.code), (b"\x00\xff\r\n".as_slice(), 0));
    let seen = fake.seen.calls.lock().unwrap();
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("POST", "/echo"));
    assert_eq!(seen[0].headers[0].name, "Content-Type");
    assert_eq!(seen[0].content_length, Some(4));
}

#[tokio::test]
async fn a_body_may_be_of_any_size() {
    let fake = Fake::start();
    let directory = tempfile::tempdir().unwrap();
    let (sent, got) = (directory.path().join("sent"), directory.path().join("got"));
    std::fs::write(&sent, vec![7; 5 << 20]).unwrap();
    let data = format!("@{}", sent.display());
    let outcome = run(&fake, &["call", "org/hello", "PUT", "/echo", "-d", &data, "-o", got.to_str().unwrap()]).await;
    assert_eq!((outcome.code, outcome.out()), (0, ""), "{}", outcome.err);
    assert_eq!(std::fs::read(&got).unwrap().len(), 5 << 20);
    assert_eq!(fake.seen.calls.lock().unwrap()[0].content_length, Some(5 << 20));
    // Of what is long and comes from elsewhere, nobody knows the length.
    let input: &'static [u8] = vec![8; 3 << 20].leak();
    let outcome = run_with(&fake, &["call", "org/hello", "PUT", "/echo", "-d", "-"], input, Terminals::default()).await;
    assert!(outcome.out == input && outcome.code == 0, "{}", outcome.err);
    assert_eq!(fake.seen.calls.lock().unwrap()[1].content_length, None);
    let outcome = run(&fake, &["call", "org/hello", "POST", "/echo"]).await;
    assert_eq!((outcome.code, outcome.out()), (0, ""));
    assert_eq!(fake.seen.calls.lock().unwrap()[2].content_length, Some(0));
}

#[tokio::test]
async fn json_holds_the_whole_body_within_its_limit() {
    let fake = Fake::start();
    let outcome = run(&fake, &["--json", "call", "org/hello", "PUT", "/echo", "-d", "text"]).await;
    assert_eq!(outcome.json()[0]["body"], "text");
    let input: &'static [u8] = vec![b'x'; (64 << 20) + 1].leak();
    let arguments = ["--json", "call", "org/hello", "PUT", "/echo", "-d", "-"];
    let outcome = run_with(&fake, &arguments, input, Terminals::default()).await;
    assert_eq!((outcome.code, outcome.out()), (1, ""));
    assert!(outcome.err.contains("64 MiB") && outcome.err.contains("leave --json out"), "{}", outcome.err);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_no_request() {
    let fake = Fake::start();
    let directory = tempfile::tempdir().unwrap();
    for (data, word) in [("@/no/such", "no such file"), (&*format!("@{}", directory.path().display()), "directory")] {
        let outcome = run(&fake, &["call", "org/hello", "PUT", "/echo", "-d", data]).await;
        assert_eq!((outcome.code, outcome.out()), (1, ""));
        assert!(outcome.err.contains(word), "{}", outcome.err);
    }
}

#[tokio::test]
async fn a_status_of_400_or_above_has_its_own_exit_code() {
    let fake = Fake::start();
    let outcome = run(&fake, &["call", "org/hello", "GET", "/404", "-i", "-d", "nope"]).await;
    assert_eq!(outcome.out, b"HTTP/1.1 404 Not Found\r\nx-a: \xff\r\n\r\nnope");
    assert_eq!(outcome.code, 22);
    let outcome = run(&fake, &["--json", "call", "org/hello", "GET", "/302"]).await;
    assert_eq!(outcome.code, 0);
    let expected = serde_json::json!({
        "status": 302, "headers": [{ "name": "x-a", "value_base64": "/w==" }], "body": "", "trailers": [],
    });
    assert_eq!(outcome.json(), [expected]);
}

#[tokio::test]
async fn a_failure_says_what_to_do() {
    let fake = Fake::start();
    let outcome = run(&fake, &["call", "starting/x", "GET", "/"]).await;
    assert_eq!(outcome.err, "longshore: the backend does not listen yet\n  wait for it with: --wait 30s\n");
    assert_eq!(outcome.code, 1);
    let outcome = run(&fake, &["--json", "call", "starting/x", "GET", "/"]).await;
    let error: serde_json::Value = serde_json::from_str(&outcome.err).unwrap();
    assert_eq!(error["error"]["reason"], "BACKEND_STARTING");
}

#[tokio::test]
async fn log_lines_carry_their_service() {
    let fake = Fake::start();
    let outcome = run(&fake, &["logs", "org/hello"]).await;
    assert_eq!(outcome.out(), "web  | one\nweb  | two\nweb  | thr\n");
    assert_eq!(outcome.err, "db   | warn\n");
    let outcome = run(&fake, &["logs", "org/hello", "web"]).await;
    assert_eq!((outcome.out(), outcome.err.as_str()), ("one\ntwo\nthr", "warn\n"));
    let outcome = run(&fake, &["logs", "--json", "org/hello"]).await;
    assert_eq!(outcome.json().len(), 3);
}

#[tokio::test]
async fn without_a_broker_it_says_how_to_start_one() {
    let fake = Fake::start();
    std::fs::remove_file(fake.socket()).unwrap();
    let outcome = run(&fake, &["ls"]).await;
    assert!(
        outcome.err.ends_with(": no such file or directory\n  start it with: longshore serve\n"),
        "{}",
        outcome.err
    );
    assert_eq!(outcome.code, 1);
    let outcome = run(&fake, &["version"]).await;
    assert_eq!((outcome.out().contains("does not answer"), outcome.code), (true, 0));
}
