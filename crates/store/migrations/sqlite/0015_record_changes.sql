-- Receiving side: changes of DNS records that were begun, so that one that was cut off is noticed at the next run, and can be
-- undone; and what name servers and policy hosts showed when a domain was last observed. Times are seconds since 1970 in UTC.
-- change and seen are JSON. state: 0 begun, 1 done, 2 not made or put back, 3 undone by the operator.
CREATE TABLE record_change (
    id     INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    tenant BIGINT  NOT NULL,
    domain TEXT    NOT NULL,
    at     BIGINT  NOT NULL,
    change TEXT    NOT NULL,
    state  BIGINT  NOT NULL
);
CREATE INDEX record_change_domain ON record_change (tenant, domain, id);

CREATE TABLE last_look (
    tenant BIGINT NOT NULL,
    domain TEXT   NOT NULL,
    at     BIGINT NOT NULL,
    seen   TEXT   NOT NULL,
    PRIMARY KEY (tenant, domain)
);
