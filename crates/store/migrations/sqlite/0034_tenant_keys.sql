-- Receiving side: the keys of domains, rollout states and the journal name the tenant, as those of all other data of a tenant do.
-- What there was belongs to the first tenant. The numbers of a tenant are apart from those of the installation (version); a row
-- is inserted with the first change.
ALTER TABLE domain RENAME TO earlier_domain;
CREATE TABLE domain (
    tenant BIGINT NOT NULL,
    name   TEXT   NOT NULL,
    spec   TEXT   NOT NULL,
    PRIMARY KEY (tenant, name)
);
INSERT INTO domain (tenant, name, spec) SELECT 0, name, spec FROM earlier_domain;
DROP TABLE earlier_domain;
ALTER TABLE rollout RENAME TO earlier_rollout;
CREATE TABLE rollout (
    tenant BIGINT NOT NULL,
    domain TEXT   NOT NULL,
    state  TEXT   NOT NULL,
    PRIMARY KEY (tenant, domain)
);
INSERT INTO rollout (tenant, domain, state) SELECT 0, domain, state FROM earlier_rollout;
DROP TABLE earlier_rollout;
ALTER TABLE journal ADD COLUMN tenant BIGINT NOT NULL DEFAULT 0;
DROP INDEX journal_domain;
DROP INDEX journal_at;
CREATE INDEX journal_domain ON journal (tenant, domain, id);
CREATE INDEX journal_listed ON journal (tenant, id);
CREATE TABLE tenant_counter (
    tenant BIGINT NOT NULL,
    name   TEXT   NOT NULL,
    value  BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
INSERT INTO tenant_counter (tenant, name, value) SELECT 0, name, value FROM version
    WHERE value <> 0 AND name IN ('report count', 'quarantine evicted', 'quarantine expired', 'reports evicted');
DELETE FROM version WHERE name IN ('report count', 'quarantine evicted', 'quarantine expired', 'reports evicted');
