-- Leases have a number that grows with each new holder, by which a write of an earlier holder is refused. A released lease keeps
-- its row, with an empty holder, so that the number does not begin anew.
ALTER TABLE lease ADD COLUMN fence BIGINT NOT NULL DEFAULT 0;

-- The running servers, each with its name for leases. seen_at is by the clock of the database, as are the ends of leases.
CREATE TABLE node (
    id         TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    holder     TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    version    TEXT   NOT NULL,
    schema     BIGINT NOT NULL,
    roles      TEXT   NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL
);
