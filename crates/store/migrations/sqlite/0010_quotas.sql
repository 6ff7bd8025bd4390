-- Quotas for what strangers send, and retention of received reports. The source is the network of the client, or the
-- domain that the message names as its sender. Sizes are in bytes; that of a report includes its rows in other tables.
-- The bytes are the last column: SQLite reads all of a long value to get at those behind it.
CREATE TABLE quarantine_item (
    id          INTEGER PRIMARY KEY,
    tenant      BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    way         BIGINT NOT NULL,
    source      TEXT   NOT NULL,
    is_trusted  BIGINT NOT NULL,
    reason      TEXT   NOT NULL,
    digest      BIGINT NOT NULL,
    size        BIGINT NOT NULL,
    raw         BLOB   NOT NULL
);
INSERT INTO quarantine_item (id, tenant, received_at, way, source, is_trusted, reason, digest, size, raw)
    SELECT id, tenant, received_at, way, '', 0, reason, digest, length(raw), raw FROM quarantine ORDER BY id;
DROP TABLE quarantine;
CREATE INDEX quarantine_item_digest ON quarantine_item (digest);
CREATE INDEX quarantine_item_source ON quarantine_item (tenant, source, size);
CREATE INDEX quarantine_item_age ON quarantine_item (tenant, received_at);

-- Of an expired report only the row is left, with an empty text, so that a copy of it is still a duplicate.
ALTER TABLE report ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE report ADD COLUMN size BIGINT NOT NULL DEFAULT 0;
ALTER TABLE report ADD COLUMN is_expired BIGINT NOT NULL DEFAULT 0;
UPDATE report SET size = length(packed) + 1024 WHERE trust < 2;
CREATE INDEX report_age ON report (tenant, is_expired, received_at);
CREATE INDEX report_unverified ON report (tenant, source, size) WHERE trust < 2 AND is_expired = 0;
CREATE INDEX report_evidence ON report (tenant, source, size) WHERE trust >= 2 AND is_expired = 0;

-- How many items and reports the quotas have removed so far.
INSERT INTO version (name, value) VALUES ('quarantine evicted', 0), ('reports evicted', 0);
