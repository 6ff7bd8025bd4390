-- Receiving side: the CA's renewal information about each ordered certificate (RFC 9773), and the TXT records that were
-- published for a dns-01 challenge and have to be removed. MX hosts are also looked up by their names.
CREATE TABLE certificate_renewal (
    tenant       BIGINT NOT NULL,
    host         TEXT   COLLATE "C" NOT NULL,
    directory    TEXT   NOT NULL,
    window_start BIGINT NOT NULL,
    window_end   BIGINT NOT NULL,
    ask_at       BIGINT NOT NULL,
    PRIMARY KEY (tenant, host)
);
CREATE INDEX certificate_renewal_ask ON certificate_renewal (tenant, ask_at);
CREATE TABLE challenge_record (
    tenant     BIGINT NOT NULL,
    domain     TEXT   NOT NULL,
    name       TEXT   COLLATE "C" NOT NULL,
    value      TEXT   COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name, value)
);
CREATE INDEX mx_host_host ON mx_host (tenant, host);
