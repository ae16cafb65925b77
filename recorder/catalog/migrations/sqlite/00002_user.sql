-- +goose Up
ALTER TABLE recordings ADD COLUMN "user" TEXT NOT NULL DEFAULT ''; -- whose recording it is; empty: the call's
UPDATE recordings SET "user" = coalesce(json_extract(manifest, '$.user'), '')
WHERE kind IN ('station', 'consult', 'adhoc', 'snippet') AND json_valid(manifest);
CREATE INDEX recordings_user ON recordings ("user", origin_ns, id);

-- +goose Down
DROP INDEX recordings_user;
ALTER TABLE recordings DROP COLUMN "user";
