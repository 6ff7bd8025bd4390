-- The certificates of the MX hosts of our domains, as each host presented one last. seen_at is when it did.
CREATE TABLE mx_certificate (
    tenant     BIGINT NOT NULL,
    host       TEXT   COLLATE "C" NOT NULL,
    issuer     TEXT   NOT NULL,
    not_before BIGINT NOT NULL,
    not_after  BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL,
    PRIMARY KEY (tenant, host)
);
CREATE INDEX mx_certificate_seen ON mx_certificate (tenant, seen_at);
