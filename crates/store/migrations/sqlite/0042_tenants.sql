-- The tenants beside the first one, `main`, which has the number 0 and no row. Numbers are never used again. A tenant that is
-- leaving is being erased.
CREATE TABLE tenant (
    number       BIGINT NOT NULL PRIMARY KEY,
    name         TEXT   NOT NULL UNIQUE,
    display_name TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    is_leaving   BIGINT NOT NULL
);
INSERT INTO version (name, value) VALUES ('tenant number', 0);
-- Which of these tenants owns a domain: the one that has proved it.
CREATE TABLE domain_owner (
    domain    TEXT   NOT NULL PRIMARY KEY,
    tenant    BIGINT NOT NULL,
    proved_at BIGINT NOT NULL
);
CREATE INDEX domain_owner_tenant ON domain_owner (tenant);
-- What a tenant has to publish to prove that it owns a domain.
CREATE TABLE domain_proof (
    tenant     BIGINT NOT NULL,
    domain     TEXT   NOT NULL,
    word       TEXT   NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, domain)
);
