-- Dashboard: a name has at most one invitation, sessions say where they began, and second factors (RFC 6238) with their
-- recovery codes. last_step is the time step of the last accepted code, which is never accepted again.
DELETE FROM invitation WHERE EXISTS (
    SELECT 1 FROM invitation AS newer
    WHERE newer.tenant = invitation.tenant AND newer.name = invitation.name
      AND (newer.expires_at > invitation.expires_at
        OR (newer.expires_at = invitation.expires_at AND newer.digest > invitation.digest)));
CREATE UNIQUE INDEX invitation_name ON invitation (tenant, name);
ALTER TABLE sign_in ADD COLUMN begun_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sign_in ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE sign_in ADD COLUMN browser TEXT NOT NULL DEFAULT '';
CREATE INDEX sign_in_name ON sign_in (tenant, name);
CREATE TABLE second_factor (
    tenant    BIGINT NOT NULL,
    name      TEXT   NOT NULL,
    secret    TEXT   NOT NULL,
    is_active BIGINT NOT NULL,
    last_step BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE TABLE recovery_code (
    tenant BIGINT NOT NULL,
    name   TEXT   NOT NULL,
    digest TEXT   NOT NULL,
    PRIMARY KEY (tenant, name, digest)
);
