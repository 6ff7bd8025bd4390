-- Numbers that others look for are taken from rows of this table, in the transaction that uses them: the last versions
-- of policies and certificates, the row id of the newest report, and how many days were closed.
INSERT INTO version (name, value) VALUES
    ('hosted', (SELECT COALESCE(MAX(version), 0) FROM hosted)),
    ('certificate', (SELECT COALESCE(MAX(version), 0) FROM certificate)),
    ('report id', (SELECT COALESCE(MAX(id), 0) FROM report)),
    ('closed days', 0);
