ALTER TABLE recordings RENAME TO recordings_before;
DROP INDEX recordings_origin;
DROP INDEX recordings_trunk;
DROP INDEX recordings_kind;
DROP INDEX recordings_conversation;
DROP INDEX recordings_sip_call_id;
DROP INDEX recordings_user;
DROP INDEX recordings_other_sip_call_id;
CREATE TABLE recordings (
    key            INTEGER NOT NULL PRIMARY KEY, -- microseconds of the origin since 1970, or the next that is free
    id             TEXT    NOT NULL UNIQUE,
    origin_ns      INTEGER NOT NULL, -- Unix time of the origin, or of the start when never answered
    prefix         TEXT    NOT NULL, -- folder in the store
    from_number    TEXT    NOT NULL,
    to_number      TEXT    NOT NULL,
    real_ms        INTEGER NOT NULL,
    audio_ms       INTEGER NOT NULL,
    suppressed_ms  INTEGER NOT NULL,
    gap_ms         INTEGER NOT NULL,
    mos            REAL    NOT NULL, -- of the worst stream; 0: no estimate
    loss           REAL    NOT NULL, -- percent, of the worst stream
    windows        TEXT    NOT NULL, -- JSON, reason: milliseconds
    terms          TEXT    NOT NULL, -- those of fields, separated by spaces
    day            TEXT    NOT NULL,
    trunk          TEXT    NOT NULL,
    user_name      TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    store          TEXT    NOT NULL,
    node           TEXT    NOT NULL,
    bytes          INTEGER NOT NULL,
    manifest_bytes INTEGER NOT NULL,
    other_bytes    INTEGER NOT NULL,
    spooled        INTEGER NOT NULL -- 1: the store has not all of it yet
);
CREATE INDEX recordings_duration ON recordings (real_ms, key);
CREATE VIRTUAL TABLE recordings_terms USING fts5 (terms, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii');
CREATE TABLE manifests (
    key      INTEGER NOT NULL PRIMARY KEY,
    manifest BLOB    NOT NULL -- packed JSON
);
CREATE TABLE usage (
    day            TEXT    NOT NULL,
    trunk          TEXT    NOT NULL,
    user_name      TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    store          TEXT    NOT NULL,
    node           TEXT    NOT NULL,
    recordings     INTEGER NOT NULL,
    audio_ms       INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    manifest_bytes INTEGER NOT NULL,
    other_bytes    INTEGER NOT NULL,
    PRIMARY KEY (day, trunk, user_name, kind, store, node)
) WITHOUT ROWID;
