-- The tenants beside the first one, `main`, which has the number 0 and no row. Numbers are never used again. A tenant that is
-- leaving is being erased.
CREATE TABLE tenant (
    number       BIGINT NOT NULL PRIMARY KEY,
    name         TEXT   COLLATE "C" NOT NULL UNIQUE,
    display_name TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    is_leaving   BIGINT NOT NULL
);
INSERT INTO version (name, value) VALUES ('tenant number', 0);
-- Which of these tenants owns a domain: the one that has proved it.
CREATE TABLE domain_owner (
    domain    TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    tenant    BIGINT NOT NULL,
    proved_at BIGINT NOT NULL
);
CREATE INDEX domain_owner_tenant ON domain_owner (tenant);
-- What a tenant has to publish to prove that it owns a domain.
CREATE TABLE domain_proof (
    tenant     BIGINT NOT NULL,
    domain     TEXT   COLLATE "C" NOT NULL,
    word       TEXT   NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, domain)
);

-- The second wall between tenants, for a role that does not own the tables: each transaction sees the rows of the tenant that it
-- names (sternpost.tenant), or of all tenants for work of the installation. A later table with a tenant needs a policy of its own.
DO $$
DECLARE
    found TEXT;
    named CONSTANT TEXT := $text$current_setting('sternpost.tenant', TRUE)$text$;
BEGIN
    FOR found IN
        SELECT CAST(c.relname AS TEXT) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relkind = 'r' AND a.attname = 'tenant' AND NOT a.attisdropped
            AND c.relnamespace = CAST(current_schema() AS regnamespace)
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', found);
        EXECUTE format(
            $text$CREATE POLICY of_tenant ON %I USING (tenant = CAST(nullif(nullif(%s, 'all'), '') AS BIGINT) OR %s = 'all')$text$,
            found, named, named);
    END LOOP;
    EXECUTE 'ALTER TABLE dmarc_row ENABLE ROW LEVEL SECURITY';
    EXECUTE 'CREATE POLICY of_tenant ON dmarc_row USING (EXISTS (SELECT 1 FROM dmarc_report WHERE dmarc_report.id = dmarc_row.report))';
END $$;
