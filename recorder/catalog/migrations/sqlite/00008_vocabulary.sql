-- +goose Up
CREATE VIRTUAL TABLE IF NOT EXISTS recordings_vocabulary USING fts5vocab (recordings_terms, row); -- the terms that there are; it stores nothing

-- +goose Down
DROP TABLE recordings_vocabulary;
