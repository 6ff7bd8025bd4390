-- The whole schema, as the SQLite migrations up to this number leave it. From here on both folders have the same
-- numbers. Times are seconds since 1970 in UTC, days are the first second of a UTC day. Booleans are 0 or 1. Texts
-- compare byte by byte (COLLATE "C"), as in SQLite and in the program.

-- Sending side: policies to the end of their max_age (RFC 8461 section 3.3).
CREATE TABLE policy (
    domain     TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    record_id  TEXT   NOT NULL,
    body       TEXT   NOT NULL,
    fetched_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    mode       TEXT   COLLATE "C" NOT NULL DEFAULT '',
    dane       TEXT   NOT NULL DEFAULT '',
    refresh_at BIGINT NOT NULL DEFAULT 0,
    used_at    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX policy_refresh ON policy (refresh_at);
CREATE INDEX policy_expiry ON policy (expires_at, mode);

-- Sending side: sessions of a day, and the reports made of them (RFC 8460 sections 4 and 5). The key is a digest of
-- what a row is about. The policy of DANE is that of an MX host, with another domain than the recipient's.
CREATE TABLE tally (
    key           BYTEA  NOT NULL PRIMARY KEY,
    day           BIGINT NOT NULL,
    domain        TEXT   COLLATE "C" NOT NULL,
    policy_domain TEXT   COLLATE "C" NOT NULL,
    policy_type   TEXT   COLLATE "C" NOT NULL,
    policy_string TEXT   NOT NULL,
    mx_host       TEXT   NOT NULL,
    successful    BIGINT NOT NULL,
    failed        BIGINT NOT NULL
);
CREATE INDEX tally_day ON tally (day, domain);
CREATE TABLE tally_failure (
    tally                  BYTEA  NOT NULL REFERENCES tally (key) ON DELETE CASCADE,
    key                    BYTEA  NOT NULL,
    result_type            TEXT   COLLATE "C" NOT NULL,
    sending_mta_ip         TEXT   NOT NULL,
    receiving_mx_hostname  TEXT   NOT NULL,
    receiving_mx_helo      TEXT   NOT NULL,
    receiving_ip           TEXT   NOT NULL,
    additional_information TEXT   NOT NULL,
    failure_reason_code    TEXT   NOT NULL,
    failed                 BIGINT NOT NULL,
    PRIMARY KEY (tally, key)
);
-- The _smtp._tls record as the mail server found it that day.
CREATE TABLE tally_record (
    day    BIGINT NOT NULL,
    domain TEXT   COLLATE "C" NOT NULL,
    record TEXT   NOT NULL,
    PRIMARY KEY (day, domain)
);
-- Handshakes of our own for policies in testing.
CREATE TABLE tested (
    day          BIGINT NOT NULL,
    domain       TEXT   COLLATE "C" NOT NULL,
    mx           TEXT   COLLATE "C" NOT NULL,
    at           BIGINT NOT NULL,
    result_type  TEXT   NOT NULL,
    receiving_ip TEXT   NOT NULL,
    reason       TEXT   NOT NULL,
    PRIMARY KEY (day, domain, mx, at)
);
-- Reports to deliver, and the results of their delivery.
CREATE TABLE outgoing (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day        BIGINT NOT NULL,
    domain     TEXT   COLLATE "C" NOT NULL,
    report_id  TEXT   NOT NULL,
    packed     BYTEA  NOT NULL,
    successful BIGINT NOT NULL,
    failed     BIGINT NOT NULL,
    state      TEXT   COLLATE "C" NOT NULL,
    tries      BIGINT NOT NULL,
    due        BIGINT NOT NULL,
    first_try  BIGINT NOT NULL,
    said       TEXT   NOT NULL,
    UNIQUE (day, domain)
);
CREATE INDEX outgoing_due ON outgoing (state, due);
CREATE TABLE outgoing_target (
    outgoing BIGINT NOT NULL REFERENCES outgoing (id) ON DELETE CASCADE,
    target   TEXT   COLLATE "C" NOT NULL,
    state    TEXT   NOT NULL,
    tries    BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    said     TEXT   NOT NULL,
    PRIMARY KEY (outgoing, target)
);
-- Days for which nothing is counted any more, and whether every report of them is built.
CREATE TABLE reported_day (
    day      BIGINT NOT NULL PRIMARY KEY,
    is_built BIGINT NOT NULL
);

-- Receiving side: the rollout state of each domain, the journal, and the operator's decisions.
CREATE TABLE rollout (
    domain TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    state  TEXT NOT NULL
);
CREATE TABLE journal (
    id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain TEXT   COLLATE "C" NOT NULL,
    at     BIGINT NOT NULL,
    who    TEXT   NOT NULL,
    what   TEXT   NOT NULL
);
CREATE INDEX journal_domain ON journal (domain);
CREATE INDEX journal_at ON journal (at);
CREATE TABLE decision (
    tenant BIGINT NOT NULL,
    domain TEXT   COLLATE "C" NOT NULL,
    state  TEXT   NOT NULL,
    PRIMARY KEY (tenant, domain)
);

-- Receiving side: domains that were added by command, and what is served for domains.
CREATE TABLE domain (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    spec TEXT NOT NULL
);
CREATE TABLE hosted (
    domain  TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    policy  TEXT   NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX hosted_version ON hosted (version);
CREATE TABLE certificate (
    host       TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
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
    directory   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    credentials TEXT NOT NULL
);
CREATE TABLE challenge (
    token      TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    answer     TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE TABLE lease (
    name       TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    holder     TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Receiving side: texts of reports that come again and again, by short numbers.
CREATE TABLE name (
    id   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text TEXT COLLATE "C" NOT NULL UNIQUE
);
-- A report as it came, packed. The digest is of what it says, the identity of whose and which it is. The id is taken
-- from a row of the table version.
CREATE TABLE report (
    id           BIGINT NOT NULL PRIMARY KEY,
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
    packed       BYTEA  NOT NULL
);
CREATE INDEX report_digest ON report (digest);
CREATE INDEX report_identity ON report (identity);
-- What a report says under one policy. A range of several days is at its first, with their number.
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
    address     TEXT   COLLATE "C" NOT NULL,
    sessions    BIGINT NOT NULL
);
CREATE INDEX failure_domain_day ON failure (tenant, domain, day);
CREATE INDEX failure_report ON failure (report);
-- Sums of a domain's day and of a submitter's day, kept with every report.
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
);
CREATE TABLE submitter_day (
    tenant     BIGINT NOT NULL,
    submitter  BIGINT NOT NULL REFERENCES name (id),
    counts     BIGINT NOT NULL,
    day        BIGINT NOT NULL,
    reports    BIGINT NOT NULL,
    successful BIGINT NOT NULL,
    failed     BIGINT NOT NULL,
    PRIMARY KEY (tenant, submitter, counts, day)
);
-- Messages and files that could not be read as a report, whole.
CREATE TABLE quarantine (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant      BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    way         BIGINT NOT NULL,
    reason      TEXT   NOT NULL,
    digest      BIGINT NOT NULL,
    raw         BYTEA  NOT NULL
);
CREATE INDEX quarantine_digest ON quarantine (digest);

-- Numbers that others look for. Each is changed in the transaction that uses it.
CREATE TABLE version (
    name  TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO version (name, value) VALUES
    ('reports', 0), ('report count', 0), ('report id', 0), ('hosted', 0), ('certificate', 0), ('closed days', 0);

-- Results of the guard's probes of MX hosts, by day.
CREATE TABLE probe (
    tenant  BIGINT NOT NULL,
    domain  TEXT   COLLATE "C" NOT NULL,
    host    TEXT   COLLATE "C" NOT NULL,
    day     BIGINT NOT NULL,
    good    BIGINT NOT NULL,
    bad     BIGINT NOT NULL,
    problem TEXT   NOT NULL,
    PRIMARY KEY (tenant, domain, host, day)
);

-- Users of the dashboard, invitations and sessions. Their tokens are kept as digests.
CREATE TABLE person (
    tenant   BIGINT NOT NULL,
    name     TEXT   COLLATE "C" NOT NULL,
    role     TEXT   NOT NULL,
    password TEXT   NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE TABLE invitation (
    digest     TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    tenant     BIGINT NOT NULL,
    name       TEXT   COLLATE "C" NOT NULL,
    role       TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE TABLE sign_in (
    digest     TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    tenant     BIGINT NOT NULL,
    name       TEXT   COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE TABLE secret (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- Active alerts, and notifications that are not delivered yet.
CREATE TABLE alert (
    tenant  BIGINT NOT NULL,
    domain  TEXT   COLLATE "C" NOT NULL,
    kind    TEXT   COLLATE "C" NOT NULL,
    subject TEXT   COLLATE "C" NOT NULL,
    since   BIGINT NOT NULL,
    state   TEXT   NOT NULL,
    PRIMARY KEY (tenant, domain, kind, subject)
);
CREATE TABLE notice (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant  BIGINT NOT NULL,
    channel TEXT   COLLATE "C" NOT NULL,
    told    TEXT   NOT NULL,
    born    BIGINT NOT NULL,
    tries   BIGINT NOT NULL,
    due     BIGINT NOT NULL
);
CREATE INDEX notice_due ON notice (tenant, channel, due);
CREATE TABLE notice_pause (
    tenant  BIGINT NOT NULL,
    channel TEXT   COLLATE "C" NOT NULL,
    until   BIGINT NOT NULL,
    PRIMARY KEY (tenant, channel)
);

-- The policy that the last check of a domain found.
CREATE TABLE look (
    tenant    BIGINT NOT NULL,
    domain    TEXT   COLLATE "C" NOT NULL,
    policy_id TEXT   COLLATE "C" NOT NULL,
    file      BYTEA  NOT NULL,
    at        BIGINT NOT NULL,
    PRIMARY KEY (tenant, domain)
);
-- Check results that are shared by link.
CREATE TABLE shared_page (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant BIGINT NOT NULL,
    word   TEXT   COLLATE "C" NOT NULL,
    page   TEXT   NOT NULL,
    UNIQUE (tenant, word)
);
