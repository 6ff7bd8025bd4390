-- The MX hosts and their certificates that checks saw at a domain of ours, by which a later check tells a former mail host and a
-- renewed certificate. `certificate` and `public_key` are SHA-256 digests in hexadecimal, empty where there was no TLS.
CREATE TABLE seen_host (
    tenant      BIGINT NOT NULL,
    domain      TEXT   COLLATE "C" NOT NULL,
    host        TEXT   COLLATE "C" NOT NULL,
    certificate TEXT   COLLATE "C" NOT NULL,
    public_key  TEXT   COLLATE "C" NOT NULL,
    seen_at     BIGINT NOT NULL,
    PRIMARY KEY (tenant, domain, host, certificate)
);
