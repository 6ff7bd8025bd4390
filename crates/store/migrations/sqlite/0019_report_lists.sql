-- The newest reports, of all senders and of one, are found in the order of their numbers. Without these indexes, the first
-- page of the list sorted all reports of the tenant.
CREATE INDEX report_listed ON report (tenant, is_expired, id);
CREATE INDEX report_submitter ON report (tenant, submitter, is_expired, id);
