-- Receiving side: domains that were added by command, and what is served for domains.
CREATE TABLE domain (
    name TEXT NOT NULL PRIMARY KEY,
    spec TEXT NOT NULL
);
CREATE TABLE hosted (
    domain  TEXT   NOT NULL PRIMARY KEY,
    policy  TEXT   NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX hosted_version ON hosted (version);

-- Certificates of policy hosts. What has a key but no chain is being ordered.
CREATE TABLE certificate (
    host       TEXT   NOT NULL PRIMARY KEY,
    chain      TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    expires_at BIGINT NOT NULL,
    next_at    BIGINT NOT NULL,
    failures   BIGINT NOT NULL,
    problem    TEXT   NOT NULL,
    version    BIGINT NOT NULL
);
CREATE INDEX certificate_next ON certificate (next_at);
CREATE INDEX certificate_version ON certificate (version);
CREATE TABLE acme_account (
    directory   TEXT NOT NULL PRIMARY KEY,
    credentials TEXT NOT NULL
);
CREATE TABLE challenge (
    token      TEXT   NOT NULL PRIMARY KEY,
    answer     TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Who works on what, when several programs could.
CREATE TABLE lease (
    name       TEXT   NOT NULL PRIMARY KEY,
    holder     TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);
