//! The schema, as the list of steps that lead to it.

use rusqlite::Connection;

/// Every change of the schema, in order; `user_version` counts how many were made. Never edit one that was released.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE extension (
        id              TEXT PRIMARY KEY,
        generation      INTEGER NOT NULL,
        phase           TEXT NOT NULL CHECK (phase IN ('installing', 'installed', 'uninstalling')),
        enabled         INTEGER NOT NULL,
        installed_at_ms INTEGER NOT NULL,
        record          TEXT NOT NULL
    ) STRICT;
    -- Outlives the extension, so that a generation never comes twice.
    CREATE TABLE last_generation (
        extension  TEXT PRIMARY KEY,
        generation INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE grants (
        extension     TEXT NOT NULL,
        name          TEXT NOT NULL,
        allow         INTEGER NOT NULL,
        decided_at_ms INTEGER NOT NULL,
        PRIMARY KEY (extension, name)
    ) STRICT;
    -- Entries of kept volumes outlive their extension: that is how a later install knows them.
    CREATE TABLE ledger (
        kind          TEXT NOT NULL,
        id            TEXT NOT NULL,
        name          TEXT NOT NULL,
        extension     TEXT NOT NULL,
        generation    INTEGER NOT NULL,
        service       TEXT NOT NULL,
        keep          INTEGER NOT NULL,
        first_seen_ms INTEGER NOT NULL,
        PRIMARY KEY (kind, id)
    ) STRICT;
    CREATE INDEX ledger_extension ON ledger (extension);
    CREATE TABLE audit (
        id        INTEGER PRIMARY KEY,
        at_ms     INTEGER NOT NULL,
        extension TEXT NOT NULL,
        uid       INTEGER,
        act       TEXT NOT NULL,
        subject   TEXT NOT NULL,
        decision  TEXT NOT NULL
    ) STRICT;
",
    "
    -- Who we are to the engine: marks the containers that the broker makes for itself. One row.
    CREATE TABLE broker (
        id TEXT NOT NULL
    ) STRICT;
    -- Images that work under way brought into the engine. What is found here by the next run goes again.
    CREATE TABLE fetched_image (
        image TEXT PRIMARY KEY,
        run   TEXT NOT NULL
    ) STRICT;
    -- Installs that broke off while the engine was making things: what comes of that late is not wanted.
    CREATE TABLE broken_install (
        nonce TEXT PRIMARY KEY,
        at_ms INTEGER NOT NULL
    ) STRICT;
",
    "
    -- What extensions are having the engine make through their gateways.
    CREATE TABLE open_create (
        nonce      TEXT PRIMARY KEY,
        extension  TEXT NOT NULL,
        generation INTEGER NOT NULL,
        kind       TEXT NOT NULL,
        volumes    TEXT NOT NULL,
        borrows    INTEGER NOT NULL,
        at_ms      INTEGER NOT NULL
    ) STRICT;
",
    "
    -- Containers whose process limit is squeezed while a tree in them is killed, and what it was (0: none).
    CREATE TABLE squeezed (
        container  TEXT PRIMARY KEY,
        pids_limit INTEGER NOT NULL,
        run        TEXT NOT NULL
    ) STRICT;
",
    "
    -- The generations of an extension: one at rest, two while it is updated.
    CREATE TABLE generation (
        extension TEXT NOT NULL,
        number    INTEGER NOT NULL,
        record    TEXT NOT NULL,
        PRIMARY KEY (extension, number)
    ) STRICT;
    -- The journal: what is under way with an extension. A step stands here before its effect.
    CREATE TABLE change (
        extension   TEXT PRIMARY KEY,
        step        TEXT NOT NULL,
        next        INTEGER,
        begun_at_ms INTEGER NOT NULL,
        notes       TEXT NOT NULL
    ) STRICT;
    INSERT INTO generation SELECT id, generation, record FROM extension;
    INSERT INTO change
        SELECT id, CASE phase WHEN 'installing' THEN 'install/make' ELSE 'uninstall/objects' END, NULL, installed_at_ms,
               json_object('remove_volumes', json(iif(coalesce(record ->> 'remove_volumes', 0), 'true', 'false')))
        FROM extension WHERE phase != 'installed';
    CREATE TABLE extension_at_rest (
        id              TEXT PRIMARY KEY,
        generation      INTEGER NOT NULL,
        enabled         INTEGER NOT NULL,
        installed_at_ms INTEGER NOT NULL
    ) STRICT;
    INSERT INTO extension_at_rest SELECT id, generation, enabled, installed_at_ms FROM extension;
    DROP TABLE extension;
    ALTER TABLE extension_at_rest RENAME TO extension;
    ALTER TABLE ledger ADD COLUMN source TEXT NOT NULL DEFAULT 'created';
    ALTER TABLE ledger ADD COLUMN maker TEXT NOT NULL DEFAULT 'broker';
    UPDATE ledger SET maker = 'extension' WHERE kind = 'container' AND service = '';
    -- Whose it was, and the volumes that it was to make: as JSON, a list of names.
    ALTER TABLE broken_install ADD COLUMN extension TEXT NOT NULL DEFAULT '';
    ALTER TABLE broken_install ADD COLUMN volumes TEXT NOT NULL DEFAULT '[]';
    -- What happened to extensions, for those who were not there.
    CREATE TABLE event (
        sequence  INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms     INTEGER NOT NULL,
        extension TEXT NOT NULL,
        what      TEXT NOT NULL
    ) STRICT;
",
    "
    ALTER TABLE audit ADD COLUMN session TEXT;
    -- What came of it; empty where that is not known.
    ALTER TABLE audit ADD COLUMN result TEXT NOT NULL DEFAULT '';
",
    "
    -- The Compose that was found last, as JSON, so that it is not run at every start to say its version. One row.
    CREATE TABLE compose (
        found TEXT NOT NULL
    ) STRICT;
",
];

/// The newest schema.
#[cfg(test)]
pub(super) fn version() -> usize {
    MIGRATIONS.len()
}

/// Whether this version can use the database.
pub(super) enum Schema {
    /// It has the newest schema.
    Ready,
    /// A newer version of Longshore wrote it, with this schema.
    Newer(u32),
}

/// Sets the connection up and brings the schema to the newest version.
pub(super) fn prepare(connection: &mut Connection) -> rusqlite::Result<Schema> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version as usize > MIGRATIONS.len() {
        return Ok(Schema::Newer(version));
    }
    for (number, step) in (1_u32..).zip(MIGRATIONS).skip(version as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(Schema::Ready)
}
