-- +goose Up
ALTER TABLE recordings ADD COLUMN store TEXT NOT NULL DEFAULT '';      -- name of the store; empty: the one that has no name
ALTER TABLE recordings ADD COLUMN spooled BIGINT NOT NULL DEFAULT 0;   -- 1: the store has not all of it yet

-- +goose Down
ALTER TABLE recordings DROP COLUMN spooled;
ALTER TABLE recordings DROP COLUMN store;
