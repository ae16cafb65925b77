-- +goose Up
ALTER TABLE recordings ADD COLUMN other_sip_call_id TEXT NOT NULL DEFAULT ''; -- on the callee's leg, where that has another
CREATE INDEX recordings_other_sip_call_id ON recordings (other_sip_call_id, origin_ns, id) WHERE other_sip_call_id <> '';

-- +goose Down
DROP INDEX recordings_other_sip_call_id;
ALTER TABLE recordings DROP COLUMN other_sip_call_id;
