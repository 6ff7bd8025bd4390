-- Outcomes of checks that anybody asked for, so that their links outlive a restart.
CREATE TABLE shared_page (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    tenant BIGINT  NOT NULL,
    word   TEXT    NOT NULL,
    page   TEXT    NOT NULL,
    UNIQUE (tenant, word)
);
