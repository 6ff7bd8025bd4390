-- DMARC aggregate reports: their counts, without their text. Times are seconds since 1970 in UTC, days are the first
-- second of a UTC day. source is that of the report, as in the table report. cost is the number of rows and one more; both
-- are for the quota.
CREATE TABLE dmarc_report (
    id           INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    tenant       BIGINT  NOT NULL,
    source       TEXT    NOT NULL,
    submitter    TEXT    NOT NULL,
    signer       TEXT,
    organization TEXT    NOT NULL,
    report_id    TEXT    NOT NULL,
    domain       TEXT    NOT NULL,
    day          BIGINT  NOT NULL,
    trust        BIGINT  NOT NULL,
    way          BIGINT  NOT NULL,
    received_at  BIGINT  NOT NULL,
    identity     BIGINT  NOT NULL,
    digest       BIGINT  NOT NULL,
    messages     BIGINT  NOT NULL,
    uncounted    BIGINT  NOT NULL,
    cost         BIGINT  NOT NULL
);
CREATE INDEX dmarc_report_identity ON dmarc_report (tenant, identity);
CREATE INDEX dmarc_report_day ON dmarc_report (tenant, day, domain);
CREATE INDEX dmarc_report_cost ON dmarc_report (tenant, trust, source, cost);
CREATE INDEX dmarc_report_received ON dmarc_report (tenant, received_at);

-- Messages from one source with one result. The source is empty where it is not known.
CREATE TABLE dmarc_row (
    report      BIGINT NOT NULL REFERENCES dmarc_report (id) ON DELETE CASCADE,
    source      TEXT   NOT NULL,
    disposition BIGINT NOT NULL,
    dkim        BIGINT NOT NULL,
    spf         BIGINT NOT NULL,
    messages    BIGINT NOT NULL,
    PRIMARY KEY (report, source, disposition, dkim, spf)
);

-- How far a webhook has announced the received reports: those up to row id position. target is the last report of the notice
-- that is being delivered, or position if there is none.
CREATE TABLE report_hook (
    tenant   BIGINT NOT NULL,
    hook     TEXT   NOT NULL,
    position BIGINT NOT NULL,
    target   BIGINT NOT NULL,
    begun    BIGINT NOT NULL,
    tries    BIGINT NOT NULL,
    due      BIGINT NOT NULL,
    PRIMARY KEY (tenant, hook)
);

-- When a task that runs at fixed times was last done.
CREATE TABLE schedule (
    tenant  BIGINT NOT NULL,
    name    TEXT   NOT NULL,
    done_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
