-- Quotas for what strangers send, and retention of received reports. The source is the network of the client, or the
-- registered domain of the signer; it is empty if neither is known. Sizes are in bytes; that of a report includes its
-- rows in other tables. No long value is copied, so that the migration of a large store is short. The sizes of the reports
-- that are there are computed afterwards, in steps, from the newest ("unsized reports") to the oldest.

-- What the quotas need to know of a quarantined item. It is apart from the bytes: SQLite reads all of a long value to get
-- at columns behind it. "is_earlier" says that the item was there before the quotas.
CREATE TABLE quarantine_use (
    item       INTEGER NOT NULL PRIMARY KEY REFERENCES quarantine (id) ON DELETE CASCADE,
    tenant     BIGINT  NOT NULL,
    source     TEXT    NOT NULL,
    is_trusted BIGINT  NOT NULL,
    size       BIGINT  NOT NULL,
    is_earlier BIGINT  NOT NULL
);
INSERT INTO quarantine_use (item, tenant, source, is_trusted, size, is_earlier)
    SELECT id, tenant, '', 0, length(raw), 1 FROM quarantine;
CREATE INDEX quarantine_use_source ON quarantine_use (tenant, is_earlier, source, size);
CREATE INDEX quarantine_age ON quarantine (tenant, received_at);

-- Of an expired report only the row is left, with an empty text, so that a copy of it is still a duplicate.
ALTER TABLE report ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE report ADD COLUMN size BIGINT NOT NULL DEFAULT 0;
ALTER TABLE report ADD COLUMN is_expired BIGINT NOT NULL DEFAULT 0;
CREATE INDEX report_age ON report (tenant, is_expired, received_at);
CREATE INDEX report_unverified ON report (tenant, source, size) WHERE trust < 2 AND is_expired = 0;
CREATE INDEX report_evidence ON report (tenant, source, size) WHERE trust >= 2 AND is_expired = 0;

-- How many items and reports the limits have removed so far.
INSERT INTO version (name, value) VALUES ('quarantine evicted', 0), ('quarantine expired', 0), ('reports evicted', 0);
-- The last report from before the quotas, the last one of them without a size, and when the time began that they are
-- spared (0: not yet).
INSERT INTO version (name, value) SELECT 'earlier reports', coalesce(max(id), 0) FROM report;
INSERT INTO version (name, value) SELECT 'unsized reports', coalesce(max(id), 0) FROM report;
INSERT INTO version (name, value) VALUES ('retention start', 0);
