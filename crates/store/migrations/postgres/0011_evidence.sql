-- Evidence. The mail's domain of a report, as a number of the table name; 0 if it is not known.
ALTER TABLE report ADD COLUMN about BIGINT NOT NULL DEFAULT 0;
-- The position in the report's list of policies, which joins an outcome with its failures; -1 in older rows. The
-- digest of the policy; 0 if the report does not state it. The MX host under whose name a DANE policy was reported,
-- as a number of the table name; 0 if the row is under the name that the report has.
ALTER TABLE outcome ADD COLUMN entry BIGINT NOT NULL DEFAULT -1;
ALTER TABLE outcome ADD COLUMN policy BIGINT NOT NULL DEFAULT 0;
ALTER TABLE outcome ADD COLUMN host BIGINT NOT NULL DEFAULT 0;
ALTER TABLE failure ADD COLUMN entry BIGINT NOT NULL DEFAULT -1;

-- The MX hosts of domains, with the first and the last day on which each was observed.
CREATE TABLE mx_host (
    tenant    BIGINT NOT NULL,
    domain    TEXT COLLATE "C" NOT NULL,
    host      TEXT COLLATE "C" NOT NULL,
    first_day BIGINT NOT NULL,
    last_day  BIGINT NOT NULL,
    PRIMARY KEY (tenant, domain, host)
);

-- Results of the guard's probes of MX hosts, by day and by the digest of the policy in force; 0 in older rows.
CREATE TABLE guard_probe (
    tenant  BIGINT NOT NULL,
    domain  TEXT COLLATE "C" NOT NULL,
    host    TEXT COLLATE "C" NOT NULL,
    day     BIGINT NOT NULL,
    policy  BIGINT NOT NULL,
    good    BIGINT NOT NULL,
    bad     BIGINT NOT NULL,
    problem TEXT   NOT NULL,
    PRIMARY KEY (tenant, domain, host, day, policy)
);
INSERT INTO guard_probe (tenant, domain, host, day, policy, good, bad, problem)
    SELECT tenant, domain, host, day, 0, good, bad, problem FROM probe;
DROP TABLE probe;

-- Handshakes of the sending side under policies in testing, by the digest of the policy. Older ones are not kept: they
-- do not say under which policy they were.
CREATE TABLE testing_probe (
    tenant       BIGINT NOT NULL,
    day          BIGINT NOT NULL,
    domain       TEXT COLLATE "C" NOT NULL,
    policy       BIGINT NOT NULL,
    mx           TEXT COLLATE "C" NOT NULL,
    at           BIGINT NOT NULL,
    result_type  TEXT   NOT NULL,
    receiving_ip TEXT   NOT NULL,
    reason       TEXT   NOT NULL,
    PRIMARY KEY (tenant, day, domain, policy, mx, at)
);
DROP TABLE tested;
