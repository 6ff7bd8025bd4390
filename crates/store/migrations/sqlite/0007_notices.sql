-- News of alerts on their way to people and programs. A row goes when it was taken, or is too old to be news.
CREATE TABLE notice (
    id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    tenant  BIGINT  NOT NULL,
    channel TEXT    NOT NULL,
    told    TEXT    NOT NULL,
    born    BIGINT  NOT NULL,
    tries   BIGINT  NOT NULL,
    due     BIGINT  NOT NULL
);
CREATE INDEX notice_due ON notice (tenant, channel, due);

-- Until when nothing goes out on a channel, so that what comes meanwhile goes together.
CREATE TABLE notice_pause (
    tenant  BIGINT NOT NULL,
    channel TEXT   NOT NULL,
    until   BIGINT NOT NULL,
    PRIMARY KEY (tenant, channel)
);
