-- +goose Up
-- The class of a recording's duration and the hours of its key become terms.
DROP INDEX recordings_terms; -- to make it anew is much faster than to keep it
UPDATE recordings SET terms = terms || array_to_tsvector(ARRAY[
    '2' || lpad(width_bucket(real_ms, ARRAY[
        1000, 1189, 1414, 1682, 2000, 2378, 2828, 3364, 4000, 4757, 5657, 6727, 8000, 9514, 11314, 13454, 16000, 19027, 22627, 26909, 32000, 38055,
        45255, 53817, 64000, 76109, 90510, 107635, 128000, 152219, 181019, 215269, 256000, 304437, 362039, 430539, 512000, 608874, 724077, 861078,
        1024000, 1217748, 1448155, 1722156, 2048000, 2435496, 2896309, 3444312, 4096000, 4870992, 5792619, 6888623, 8192000, 9741985, 11585238,
        13777247, 16384000, 19483969, 23170475, 27554494, 32768000, 38967939, 46340950, 55108987, 65536000]::bigint[])::text, 2, '0'),
    '30' || to_hex(div(floor(key / 3600000000.0) + 4194304, 1)::bigint),
    '31' || to_hex(div(floor(key / 3600000000.0) + 4194304, 8)::bigint),
    '32' || to_hex(div(floor(key / 3600000000.0) + 4194304, 64)::bigint),
    '33' || to_hex(div(floor(key / 3600000000.0) + 4194304, 512)::bigint),
    '34' || to_hex(div(floor(key / 3600000000.0) + 4194304, 4096)::bigint)]);
CREATE INDEX recordings_terms ON recordings USING gin (terms) WITH (fastupdate = off);

-- +goose Down
UPDATE recordings SET terms = (SELECT coalesce(array_to_tsvector(array_agg(t)), '') FROM unnest(tsvector_to_array(terms)) AS t WHERE t NOT LIKE '2%' AND t NOT LIKE '3%');
