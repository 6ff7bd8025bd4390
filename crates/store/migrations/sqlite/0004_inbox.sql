-- Receiving side: reports take less room, are found by domain and day, and what their signatures say is kept.
-- Nothing but the demo has written the tables that go.
DROP TABLE report_policy;
DROP TABLE report;
DROP TABLE quarantine;

-- Domains, organizations, hosts and result types: short numbers for texts that come again and again.
CREATE TABLE name (
    id   INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);

-- A report as it came, packed. digest stands for what it says, identity for whose and which it is.
CREATE TABLE report (
    id           INTEGER PRIMARY KEY,
    tenant       BIGINT NOT NULL,
    submitter    BIGINT NOT NULL REFERENCES name (id),
    report_id    TEXT   NOT NULL,
    range_start  BIGINT NOT NULL,
    range_end    BIGINT NOT NULL,
    organization BIGINT NOT NULL REFERENCES name (id),
    trust        BIGINT NOT NULL,
    signer       BIGINT REFERENCES name (id),
    way          BIGINT NOT NULL,
    received_at  BIGINT NOT NULL,
    warnings     BIGINT NOT NULL,
    digest       BIGINT NOT NULL,
    identity     BIGINT NOT NULL,
    packed       BLOB   NOT NULL
);
CREATE INDEX report_digest ON report (digest);
CREATE INDEX report_identity ON report (identity);

-- What it says under one policy. A range of several days stands at its first, with their count.
CREATE TABLE outcome (
    tenant     BIGINT NOT NULL,
    domain     BIGINT NOT NULL REFERENCES name (id),
    day        BIGINT NOT NULL,
    report     BIGINT NOT NULL REFERENCES report (id) ON DELETE CASCADE,
    days       BIGINT NOT NULL,
    kind       BIGINT NOT NULL,
    successful BIGINT NOT NULL,
    failed     BIGINT NOT NULL
);
CREATE INDEX outcome_domain_day ON outcome (tenant, domain, day);
CREATE INDEX outcome_report ON outcome (report);
CREATE TABLE failure (
    tenant      BIGINT NOT NULL,
    domain      BIGINT NOT NULL REFERENCES name (id),
    day         BIGINT NOT NULL,
    report      BIGINT NOT NULL REFERENCES report (id) ON DELETE CASCADE,
    kind        BIGINT NOT NULL,
    result_type BIGINT NOT NULL REFERENCES name (id),
    host        BIGINT NOT NULL REFERENCES name (id),
    address     TEXT   NOT NULL,
    sessions    BIGINT NOT NULL
);
CREATE INDEX failure_domain_day ON failure (tenant, domain, day);
CREATE INDEX failure_report ON failure (report);

-- Sums of a domain's day, kept with every report: sessions of those that count as evidence and of the
-- others; of the first also those under an MTA-STS policy, and how many reports failed on that day. Pages
-- read all of it in its order. (WITHOUT ROWID is SQLite's own; PostgreSQL clusters the table instead.)
CREATE TABLE domain_day (
    tenant       BIGINT NOT NULL,
    domain       BIGINT NOT NULL REFERENCES name (id),
    day          BIGINT NOT NULL,
    successful   BIGINT NOT NULL,
    failed       BIGINT NOT NULL,
    sts_sessions BIGINT NOT NULL,
    tainted      BIGINT NOT NULL,
    unproved     BIGINT NOT NULL,
    PRIMARY KEY (tenant, domain, day)
) WITHOUT ROWID;

-- Sums of what a submitter reported about a day, of any domain; counts tells reports that are evidence from others.
CREATE TABLE submitter_day (
    tenant     BIGINT NOT NULL,
    submitter  BIGINT NOT NULL REFERENCES name (id),
    counts     BIGINT NOT NULL,
    day        BIGINT NOT NULL,
    reports    BIGINT NOT NULL,
    successful BIGINT NOT NULL,
    failed     BIGINT NOT NULL,
    PRIMARY KEY (tenant, submitter, counts, day)
) WITHOUT ROWID;

-- Counts up with every change of a kind, so that what was made of it is known to be old; and how many reports
-- there are, which is slow to count.
CREATE TABLE version (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO version (name, value) VALUES ('reports', 0), ('report count', 0);

-- What could not be read, whole.
CREATE TABLE quarantine (
    id          INTEGER PRIMARY KEY,
    tenant      BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    way         BIGINT NOT NULL,
    reason      TEXT   NOT NULL,
    digest      BIGINT NOT NULL,
    raw         BLOB   NOT NULL
);
CREATE INDEX quarantine_digest ON quarantine (digest);

-- What the operator decided about a domain's roll-out.
CREATE TABLE decision (
    tenant BIGINT NOT NULL,
    domain TEXT   NOT NULL,
    state  TEXT   NOT NULL,
    PRIMARY KEY (tenant, domain)
);

-- What our own looks at the MX hosts saw, by day.
CREATE TABLE probe (
    tenant  BIGINT NOT NULL,
    domain  TEXT   NOT NULL,
    host    TEXT   NOT NULL,
    day     BIGINT NOT NULL,
    good    BIGINT NOT NULL,
    bad     BIGINT NOT NULL,
    problem TEXT   NOT NULL,
    PRIMARY KEY (tenant, domain, host, day)
);

-- People who may see the dashboard, and their sign-ins. Links and sign-ins are kept as digests.
CREATE TABLE person (
    tenant   BIGINT NOT NULL,
    name     TEXT   NOT NULL,
    role     TEXT   NOT NULL,
    password TEXT   NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE TABLE invitation (
    digest     TEXT   NOT NULL PRIMARY KEY,
    tenant     BIGINT NOT NULL,
    name       TEXT   NOT NULL,
    role       TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE TABLE sign_in (
    digest     TEXT   NOT NULL PRIMARY KEY,
    tenant     BIGINT NOT NULL,
    name       TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX journal_at ON journal (at);

-- Secrets of this store, such as the one in the address for reports by HTTPS.
CREATE TABLE secret (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- Alerts that were raised and are not over.
CREATE TABLE alert (
    tenant  BIGINT NOT NULL,
    domain  TEXT   NOT NULL,
    kind    TEXT   NOT NULL,
    subject TEXT   NOT NULL,
    since   BIGINT NOT NULL,
    state   TEXT   NOT NULL,
    PRIMARY KEY (tenant, domain, kind, subject)
);
