-- Receiving side: domains whose owners point their policy host here although it has no policy for them, as they asked for it. It
-- belongs to the installation: the policy host is one for all tenants.
CREATE TABLE stranger (
    domain   TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    first_at BIGINT NOT NULL,
    last_at  BIGINT NOT NULL,
    requests BIGINT NOT NULL
);
CREATE INDEX stranger_last ON stranger (last_at, domain);
