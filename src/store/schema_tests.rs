//! Databases of every schema must load, and lose nothing.

use rusqlite::Connection;

use super::{AuditQuery, Store, schema};
use crate::model::{
    extension::{Maker, OwnerSource},
    journal::{ChangeKind, Step},
};

/// One database for each schema, oldest first.
const STORED: [&str; 7] = [
    include_str!("../../tests/schemas/1.sql"),
    include_str!("../../tests/schemas/2.sql"),
    include_str!("../../tests/schemas/3.sql"),
    include_str!("../../tests/schemas/4.sql"),
    include_str!("../../tests/schemas/5.sql"),
    include_str!("../../tests/schemas/6.sql"),
    include_str!("../../tests/schemas/7.sql"),
];

fn stored(sql: &str) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("longshore.db");
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let store = Store::open(&path).unwrap();
    (dir, store)
}

#[test]
fn there_is_a_database_of_every_schema() {
    assert_eq!(STORED.len(), schema::version(), "store one of the new schema in tests/schemas");
}

#[tokio::test]
async fn every_stored_database_loads() {
    for (number, sql) in (1..).zip(STORED) {
        let (_dir, store) = stored(sql);
        let all = store.extensions("", 10).await.unwrap();
        let seen: Vec<_> =
            all.iter().map(|one| (one.id.as_str(), one.generation, one.changing(), one.enabled)).collect();
        let mut expected = vec![
            ("a/b", 2, None, true),
            ("a/c", 1, Some(ChangeKind::Install), true),
            ("a/d", 3, Some(ChangeKind::Uninstall), true),
        ];
        if number >= 5 {
            expected.push(("a/e", 1, Some(ChangeKind::Update), true));
        }
        assert_eq!(seen, expected, "schema {number}");
        assert!(all[2].change.as_ref().unwrap().notes.remove_volumes, "schema {number}");
        let record = &all[0].record;
        assert_eq!((record.nonce.as_str(), record.ready_timeout_ms), ("00112233", Some(5000)));
        assert_eq!(record.backend.as_ref().unwrap().services, ["web"]);
        let ledger = store.ledger(None).await.unwrap();
        let seen: Vec<_> = ledger.iter().map(|entry| (entry.id.as_str(), entry.keep, entry.maker)).collect();
        assert_eq!(seen, [("c1", false, Maker::Broker), ("gone_data", true, Maker::Broker)], "schema {number}");
        assert!(ledger.iter().all(|entry| entry.source == OwnerSource::Created));
        assert_eq!(store.decisions(&"a/b".parse().unwrap()).await.unwrap().allow.len(), 1);
        let audit = store.audited(AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap();
        let [line] = &audit[..] else { panic!("schema {number}: {audit:?}") };
        let (entry, result) = (&line.entry, if number < 6 { "" } else { "done" });
        assert_eq!((&*entry.act, entry.uid, &entry.session, &*entry.result), ("install", Some(1000), &None, result));
        let begun = store.begin_install("gone/x".parse().unwrap(), record.clone()).await.unwrap();
        assert_eq!(begun.generation, 8, "a generation never comes twice");
        assert_eq!(begun.change.unwrap().step, Step::InstallFiles);
    }
}
