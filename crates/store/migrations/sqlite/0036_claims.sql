-- Work that several processes share. A claim moves the due time ahead and increases the number, which the writes about the
-- result name: those of an earlier claim change nothing.
ALTER TABLE outgoing ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;
ALTER TABLE notice_pause ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;
ALTER TABLE report_hook ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;
