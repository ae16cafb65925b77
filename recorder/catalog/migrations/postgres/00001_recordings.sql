-- +goose Up
CREATE TABLE recordings (
    key            BIGINT  NOT NULL PRIMARY KEY, -- microseconds of the origin since 1970, or the next that is free
    id             TEXT    COLLATE "C" NOT NULL UNIQUE,
    origin_ns      BIGINT  NOT NULL, -- Unix time of the origin, or of the start when never answered
    prefix         TEXT    NOT NULL, -- folder in the store
    from_number    TEXT    COLLATE "C" NOT NULL,
    to_number      TEXT    COLLATE "C" NOT NULL,
    real_ms        BIGINT  NOT NULL,
    audio_ms       BIGINT  NOT NULL,
    suppressed_ms  BIGINT  NOT NULL,
    gap_ms         BIGINT  NOT NULL,
    mos            DOUBLE PRECISION NOT NULL, -- of the worst stream; 0: no estimate
    loss           DOUBLE PRECISION NOT NULL, -- percent, of the worst stream
    windows        JSONB   NOT NULL, -- reason: milliseconds
    terms          TSVECTOR NOT NULL,
    day            TEXT    COLLATE "C" NOT NULL,
    trunk          TEXT    COLLATE "C" NOT NULL,
    user_name      TEXT    COLLATE "C" NOT NULL,
    kind           TEXT    COLLATE "C" NOT NULL,
    store          TEXT    COLLATE "C" NOT NULL,
    node           TEXT    COLLATE "C" NOT NULL,
    bytes          BIGINT  NOT NULL,
    manifest_bytes BIGINT  NOT NULL,
    other_bytes    BIGINT  NOT NULL,
    spooled        BIGINT  NOT NULL -- 1: the store has not all of it yet
);
CREATE INDEX recordings_duration ON recordings (real_ms, key);
CREATE INDEX recordings_terms ON recordings USING gin (terms) WITH (fastupdate = off);
ALTER TABLE recordings ALTER COLUMN terms SET STATISTICS 1000;
CREATE TABLE manifests (
    key      BIGINT NOT NULL PRIMARY KEY,
    manifest BYTEA  NOT NULL -- packed JSON
);
ALTER TABLE manifests ALTER COLUMN manifest SET STORAGE EXTERNAL;
CREATE TABLE usage (
    day            TEXT   COLLATE "C" NOT NULL,
    trunk          TEXT   COLLATE "C" NOT NULL,
    user_name      TEXT   COLLATE "C" NOT NULL,
    kind           TEXT   COLLATE "C" NOT NULL,
    store          TEXT   COLLATE "C" NOT NULL,
    node           TEXT   COLLATE "C" NOT NULL,
    recordings     BIGINT NOT NULL,
    audio_ms       BIGINT NOT NULL,
    bytes          BIGINT NOT NULL,
    manifest_bytes BIGINT NOT NULL,
    other_bytes    BIGINT NOT NULL,
    PRIMARY KEY (day, trunk, user_name, kind, store, node)
);

-- +goose Down
DROP TABLE usage;
DROP TABLE manifests;
DROP TABLE recordings;
