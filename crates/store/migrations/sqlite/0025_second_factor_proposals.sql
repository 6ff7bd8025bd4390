-- Dashboard: a proposed second factor belongs to the session that asked for it, and ends. Earlier proposals have no session,
-- so that nobody can confirm them.
ALTER TABLE second_factor ADD COLUMN session TEXT NOT NULL DEFAULT '';
ALTER TABLE second_factor ADD COLUMN expires_at BIGINT NOT NULL DEFAULT 0;
