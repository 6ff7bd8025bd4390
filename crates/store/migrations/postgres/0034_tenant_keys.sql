-- Receiving side: the keys of domains, rollout states and the journal name the tenant, as those of all other data of a tenant do.
-- What there was belongs to the first tenant. The numbers of a tenant are apart from those of the installation (version); a row
-- is inserted with the first change.
ALTER TABLE domain ADD COLUMN tenant BIGINT NOT NULL DEFAULT 0;
ALTER TABLE domain DROP CONSTRAINT domain_pkey;
ALTER TABLE domain ADD PRIMARY KEY (tenant, name);
ALTER TABLE rollout ADD COLUMN tenant BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rollout DROP CONSTRAINT rollout_pkey;
ALTER TABLE rollout ADD PRIMARY KEY (tenant, domain);
ALTER TABLE journal ADD COLUMN tenant BIGINT NOT NULL DEFAULT 0;
DROP INDEX journal_domain;
DROP INDEX journal_at;
CREATE INDEX journal_domain ON journal (tenant, domain, id);
CREATE INDEX journal_listed ON journal (tenant, id);
CREATE TABLE tenant_counter (
    tenant BIGINT NOT NULL,
    name   TEXT   COLLATE "C" NOT NULL,
    value  BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
INSERT INTO tenant_counter (tenant, name, value) SELECT 0, name, value FROM version
    WHERE value <> 0 AND name IN ('report count', 'quarantine evicted', 'quarantine expired', 'reports evicted');
DELETE FROM version WHERE name IN ('report count', 'quarantine evicted', 'quarantine expired', 'reports evicted');
