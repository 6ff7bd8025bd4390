-- Sending side: sessions of a day, and the reports made of them (RFC 8460 section 4, 5). Rows have a digest of
-- what they are about as their key, so that many are written at once without asking for numbers first. The domain
-- is whose mail it was and who gets the report; the policy of DANE is that of an MX host, with another domain.
DROP TABLE tally_failure;
DROP TABLE tally;
CREATE TABLE tally (
    key           BLOB   PRIMARY KEY,
    day           BIGINT NOT NULL,
    domain        TEXT   NOT NULL,
    policy_domain TEXT   NOT NULL,
    policy_type   TEXT   NOT NULL,
    policy_string TEXT   NOT NULL,
    mx_host       TEXT   NOT NULL,
    successful    BIGINT NOT NULL,
    failed        BIGINT NOT NULL
);
CREATE INDEX tally_day ON tally (day, domain);
CREATE TABLE tally_failure (
    tally                  BLOB   NOT NULL REFERENCES tally (key) ON DELETE CASCADE,
    key                    BLOB   NOT NULL,
    result_type            TEXT   NOT NULL,
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
    day           BIGINT NOT NULL,
    domain        TEXT   NOT NULL,
    record        TEXT   NOT NULL,
    PRIMARY KEY (day, domain)
);
-- Handshakes of our own for policies in testing.
CREATE TABLE tested (
    day           BIGINT NOT NULL,
    domain        TEXT   NOT NULL,
    mx            TEXT   NOT NULL,
    at            BIGINT NOT NULL,
    result_type   TEXT   NOT NULL,
    receiving_ip  TEXT   NOT NULL,
    reason        TEXT   NOT NULL,
    PRIMARY KEY (day, domain, mx, at)
);
-- Reports on their way, and what became of them.
CREATE TABLE outgoing (
    id            INTEGER PRIMARY KEY,
    day           BIGINT NOT NULL,
    domain        TEXT   NOT NULL,
    report_id     TEXT   NOT NULL,
    packed        BLOB   NOT NULL,
    successful    BIGINT NOT NULL,
    failed        BIGINT NOT NULL,
    state         TEXT   NOT NULL,
    tries         BIGINT NOT NULL,
    due           BIGINT NOT NULL,
    first_try     BIGINT NOT NULL,
    said          TEXT   NOT NULL,
    UNIQUE (day, domain)
);
CREATE INDEX outgoing_due ON outgoing (state, due);
CREATE TABLE outgoing_target (
    outgoing BIGINT NOT NULL REFERENCES outgoing (id) ON DELETE CASCADE,
    target   TEXT   NOT NULL,
    state    TEXT   NOT NULL,
    tries    BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    said     TEXT   NOT NULL,
    PRIMARY KEY (outgoing, target)
);
-- Days for which nothing is counted any more, and whether every report of them is built.
CREATE TABLE reported_day (
    day      BIGINT PRIMARY KEY,
    is_built BIGINT NOT NULL
);
