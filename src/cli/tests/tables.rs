//! `ls`, `ps`, `rm`, `grants`, `audit`, `info`, `enable`.

use super::{Fake, run};

#[tokio::test]
async fn ls_is_a_table_of_all_pages() {
    let fake = Fake::start();
    let outcome = run(&fake, &["ls"]).await;
    let expected = "\
EXTENSION     VERSION   STATE                  UI      BACKEND       HOST        VENDOR
org/hello     1.0       degraded (NO_SOCKET)   Hello   1/1 running   1 program   Org [2J
org/ui-only   2         ready                  -       -             -
";
    assert_eq!(outcome.out(), expected);
    assert_eq!(run(&fake, &["ls", "-q"]).await.out(), "org/hello\norg/ui-only\n");
    let json = run(&fake, &["ls", "--json"]).await.json();
    assert_eq!((json.len(), json[0][1]["state"].as_str()), (1, Some("ready")));
}

#[tokio::test]
async fn ps_shows_owners() {
    let fake = Fake::start();
    let outcome = run(&fake, &["ps", "--all"]).await;
    let expected = "\
KIND        ID             NAME                                  OWNER       KNOWN BY   SERVICE   STATE     IMAGE
container   0123456789ab   org_hello-desktop-extension-service   org/hello   created    hello     running   org/hello:1.0
volume      -              data                                  -
";
    assert_eq!(outcome.out(), expected);
    assert_eq!(run(&fake, &["ps", "-q"]).await.out(), "0123456789ab\n");
    let json = run(&fake, &["ps", "--json", "org/hello"]).await.json();
    assert_eq!(json[0][0]["owner"]["source"], "created");
}

#[tokio::test]
async fn rm_goes_on_after_a_failure_and_tells() {
    let fake = Fake::start();
    let outcome = run(&fake, &["rm", "gone/x", "org/hello"]).await;
    assert_eq!(outcome.out(), "removed org/hello\nkept its volumes; remove them with: docker volume rm hello_data\n");
    assert_eq!(outcome.err, "longshore: gone/x is not installed\n  see what is installed with: longshore ls\n");
    assert_eq!(outcome.code, 1);
}

#[tokio::test]
async fn the_audit_is_read_from_all_pages_and_ends_with_the_newest() {
    let fake = Fake::start();
    let outcome = run(&fake, &["audit", "org/hello", "--since", "1h"]).await;
    let expected = "\
TIME                   EXTENSION   BY           ACT         SUBJECT       DECISION          RESULT
1970-01-01T00:00:01Z   org/hello   uid 1000     host.exec   kubectl [2J   allowed           code 0
1970-01-01T00:00:02Z   org/hello   session s1   host.exec   kubectl [2J   allowed           code 0
1970-01-01T00:00:03Z   org/hello   uid 1000     host.exec   kubectl [2J   GRANTS_REQUIRED   -
";
    assert_eq!(outcome.out(), expected);
    let json = run(&fake, &["audit", "--json", "-n", "1"]).await.json();
    assert_eq!((json[0].as_array().map(Vec::len), &json[0][0]["id"]), (Some(1), &3.into()));
}

#[tokio::test]
async fn grants_are_listed_and_changed() {
    let fake = Fake::start();
    let outcome = run(&fake, &["grants", "org/hello"]).await;
    let expected = "\
GRANT               DECISION   NEEDED BY       LETS IT
engine.full         allow      -
host.exec:kubectl   missing    host.binaries   run the program kubectl on this machine
";
    assert_eq!(outcome.out(), expected);
    assert!(fake.seen.sets.lock().unwrap().is_empty());
    run(&fake, &["grants", "org/hello", "--allow", "host.exec:ls", "--deny", "env:HOME"]).await;
    let sets = fake.seen.sets.lock().unwrap();
    assert_eq!(sets[0].allow, ["engine.full", "host.exec:ls"]);
    assert_eq!(sets[0].deny, ["env:HOME"]);
}

#[tokio::test]
async fn info_and_enable_answer_in_words_and_in_json() {
    let fake = Fake::start();
    let outcome = run(&fake, &["info"]).await;
    assert!(outcome.out().contains("does not answer: refused"), "{}", outcome.out());
    assert!(outcome.out().ends_with("Capabilities:\n  exec.backend   no   no engine\n"), "{}", outcome.out());
    assert_eq!(run(&fake, &["info", "--json"]).await.json()[0]["engine"]["reachable"], false);
    assert_eq!(run(&fake, &["disable", "org/hello"]).await.out(), "org/hello: degraded (NO_SOCKET)\n");
    assert_eq!(run(&fake, &["version"]).await.out(), "longshore   0.1.0\nbroker      9.9.9\n");
}
