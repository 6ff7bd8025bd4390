-- Tokens of the HTTP API. Only the SHA-256 digest of a token is stored, in hexadecimal. `scopes` are words, separated by spaces.
CREATE TABLE api_token (
    digest     TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    tenant     BIGINT NOT NULL,
    name       TEXT   COLLATE "C" NOT NULL,
    scopes     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used  BIGINT,
    UNIQUE (tenant, name)
);
