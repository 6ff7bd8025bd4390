-- Times are seconds since 1970 in UTC, days are the first second of a UTC day.
-- The SQL here and in src/ keeps to what SQLite and PostgreSQL share.

-- Sending side: policies to the end of their max_age (RFC 8461 section 3.3).
CREATE TABLE policy (
    domain     TEXT   NOT NULL PRIMARY KEY,
    record_id  TEXT   NOT NULL,
    body       TEXT   NOT NULL,
    fetched_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Sending side: what is tallied for tomorrow's reports (RFC 8460 section 4).
CREATE TABLE tally (
    id            INTEGER PRIMARY KEY,
    day           BIGINT NOT NULL,
    policy_domain TEXT   NOT NULL,
    policy_type   TEXT   NOT NULL,
    policy_string TEXT   NOT NULL,
    mx_host       TEXT   NOT NULL,
    successful    BIGINT NOT NULL,
    failed        BIGINT NOT NULL,
    UNIQUE (day, policy_domain, policy_type, policy_string, mx_host)
);
CREATE TABLE tally_failure (
    tally_id               BIGINT NOT NULL REFERENCES tally (id) ON DELETE CASCADE,
    result_type            TEXT   NOT NULL,
    sending_mta_ip         TEXT   NOT NULL,
    receiving_mx_hostname  TEXT   NOT NULL,
    receiving_mx_helo      TEXT   NOT NULL,
    receiving_ip           TEXT   NOT NULL,
    additional_information TEXT   NOT NULL,
    failure_reason_code    TEXT   NOT NULL,
    failed                 BIGINT NOT NULL,
    PRIMARY KEY (tally_id, result_type, sending_mta_ip, receiving_mx_hostname, receiving_mx_helo,
                 receiving_ip, additional_information, failure_reason_code)
);

-- Receiving side: reports as they came, and what they say.
CREATE TABLE report (
    id           INTEGER PRIMARY KEY,
    submitter    TEXT   NOT NULL,
    report_id    TEXT   NOT NULL,
    range_start  BIGINT NOT NULL,
    range_end    BIGINT NOT NULL,
    organization TEXT   NOT NULL,
    trust        TEXT   NOT NULL,
    received_at  BIGINT NOT NULL,
    raw          BLOB   NOT NULL
);
CREATE TABLE report_policy (
    report        BIGINT NOT NULL REFERENCES report (id) ON DELETE CASCADE,
    policy_domain TEXT   NOT NULL,
    policy        TEXT   NOT NULL
);
CREATE INDEX report_identity ON report (submitter, report_id);
CREATE INDEX report_policy_domain ON report_policy (policy_domain);
CREATE TABLE quarantine (
    id          INTEGER PRIMARY KEY,
    received_at BIGINT NOT NULL,
    reason      TEXT   NOT NULL,
    raw         BLOB   NOT NULL
);

-- Receiving side: where each domain stands in its roll-out, and every decision about it.
CREATE TABLE rollout (
    domain TEXT NOT NULL PRIMARY KEY,
    state  TEXT NOT NULL
);
CREATE TABLE journal (
    id     INTEGER PRIMARY KEY,
    domain TEXT   NOT NULL,
    at     BIGINT NOT NULL,
    who    TEXT   NOT NULL,
    what   TEXT   NOT NULL
);
CREATE INDEX journal_domain ON journal (domain);
