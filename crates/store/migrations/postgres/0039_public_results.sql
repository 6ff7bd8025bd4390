-- Results of public checks. Checks of a domain in a row that find the same are one result, from the first to the last. `word` is the
-- random part of the link; `checks` names the errors and warnings. `page` is compressed by gzip, or plain HTML of an earlier
-- release, or empty once pages of later results have taken its place.
CREATE TABLE public_result (
    number     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     BIGINT NOT NULL,
    word       TEXT   COLLATE "C" NOT NULL,
    domain     TEXT   COLLATE "C" NOT NULL,
    since      BIGINT NOT NULL,
    until      BIGINT NOT NULL,
    protection TEXT   COLLATE "C" NOT NULL,
    verdict    TEXT   NOT NULL,
    checks     TEXT   COLLATE "C" NOT NULL,
    page       BYTEA  NOT NULL,
    UNIQUE (tenant, word)
);
CREATE INDEX public_result_domain ON public_result (tenant, domain, until);
CREATE INDEX public_result_until ON public_result (tenant, until);
CREATE INDEX public_result_page ON public_result (tenant, until) WHERE length(page) > 0;
-- Pages of an earlier release have no domain; only their links find them.
INSERT INTO public_result (tenant, word, domain, since, until, protection, verdict, checks, page)
    SELECT tenant, word, '', 0, 0, '', '', '', convert_to(page, 'UTF8') FROM shared_page ORDER BY number;
DROP TABLE shared_page;
