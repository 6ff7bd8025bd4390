-- Work that several processes share. A claim moves the due time ahead and increases the number, which the writes about the
-- result name: those of an earlier claim change nothing.
ALTER TABLE outgoing ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;
ALTER TABLE notice_pause ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;
ALTER TABLE report_hook ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;

-- When each domain is due for a check by the guard, what its last checks were like, and the verdict of the last one until the
-- process that keeps the alerts has read it.
CREATE TABLE guard_domain (
    tenant    BIGINT NOT NULL,
    domain    TEXT   NOT NULL,
    slow      BIGINT NOT NULL,
    due       BIGINT NOT NULL,
    claim     BIGINT NOT NULL,
    failed    BIGINT NOT NULL,
    unreached BIGINT NOT NULL,
    reached   BIGINT NOT NULL,
    verdict   TEXT,
    PRIMARY KEY (tenant, domain)
);
CREATE INDEX guard_domain_due ON guard_domain (tenant, slow, due);
CREATE INDEX guard_domain_verdict ON guard_domain (tenant, domain) WHERE verdict IS NOT NULL;

-- How many orders each certification authority may still get, for all processes together.
CREATE TABLE acme_budget (
    directory TEXT NOT NULL PRIMARY KEY,
    state     TEXT NOT NULL
);
