-- Sending side: batches of sessions that other machines handed over, each counted once; batches that wait here for the
-- machine that counts them; and how far log files have been read. Numbers of batches are not given twice.
CREATE TABLE session_batch (
    tenant BIGINT NOT NULL,
    id     TEXT   COLLATE "C" NOT NULL,
    at     BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE TABLE spooled_batch (
    number   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant   BIGINT NOT NULL,
    id       TEXT   COLLATE "C" NOT NULL,
    body     BYTEA  NOT NULL,
    bytes    BIGINT NOT NULL,
    sessions BIGINT NOT NULL,
    UNIQUE (tenant, id)
);
CREATE TABLE log_place (
    tenant  BIGINT NOT NULL,
    file    TEXT   COLLATE "C" NOT NULL,
    inode   TEXT   NOT NULL,
    head    TEXT   NOT NULL,
    read_to BIGINT NOT NULL,
    PRIMARY KEY (tenant, file)
);
