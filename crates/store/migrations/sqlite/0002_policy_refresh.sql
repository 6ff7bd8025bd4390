-- Sending side: what an answer needs without looking anything up, and when to look again.
ALTER TABLE policy ADD COLUMN mode TEXT NOT NULL DEFAULT '';
ALTER TABLE policy ADD COLUMN dane TEXT NOT NULL DEFAULT '';
ALTER TABLE policy ADD COLUMN refresh_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE policy ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX policy_refresh ON policy (refresh_at);
CREATE INDEX policy_expiry ON policy (expires_at, mode);
