-- The last look of a preflight at a domain of ours, against which the next one is held.
CREATE TABLE look (
    tenant    BIGINT NOT NULL,
    domain    TEXT   NOT NULL,
    policy_id TEXT   NOT NULL,
    file      BLOB   NOT NULL,
    at        BIGINT NOT NULL,
    PRIMARY KEY (tenant, domain)
);
