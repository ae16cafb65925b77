-- +goose Up
CREATE TABLE recordings (
    id           TEXT   NOT NULL PRIMARY KEY,
    conversation TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    trunk        TEXT   NOT NULL,
    sip_call_id  TEXT   NOT NULL,
    from_uri     TEXT   NOT NULL,
    to_uri       TEXT   NOT NULL,
    direction    TEXT   NOT NULL,
    origin_ns    BIGINT NOT NULL, -- Unix time of the origin, or of the start when never answered
    start_ns     BIGINT NOT NULL, -- Unix time of the INVITE
    real_ms      BIGINT NOT NULL,
    audio_ms     BIGINT NOT NULL,
    prefix       TEXT   NOT NULL, -- folder in the store
    manifest     TEXT   NOT NULL  -- JSON
);
CREATE INDEX recordings_origin ON recordings (origin_ns, id);
CREATE INDEX recordings_trunk ON recordings (trunk, origin_ns, id);
CREATE INDEX recordings_kind ON recordings (kind, origin_ns, id);
CREATE INDEX recordings_conversation ON recordings (conversation, origin_ns, id);
CREATE INDEX recordings_sip_call_id ON recordings (sip_call_id, origin_ns, id);

-- +goose Down
DROP TABLE recordings;
