//! Two tenants in one database: no method reads, counts, changes or deletes rows of another tenant. Each method of [`Store`] is in
//! one of the lists below, or in [`OF_THE_INSTALLATION`] with the reason; a new method in none of them fails a test.

mod newer;

use super::*;
use crate::api_tokens::NewApiToken;
use crate::certificate_orders::{ChallengeRecord, RenewalInfo};
use crate::check_history::CheckedHost;
use crate::database::copy::tables_of_tenants;
use crate::dmarc::{DmarcQuota, DmarcSearch, NewDmarcReport};
use crate::domains::{Expected, NewSettings};
use crate::guard_schedule::{CheckClaim, CheckOutcome, FinishedCheck};
use crate::handover::{CountSource, LogPlace, SpooledBatch};
use crate::hosting::StoredCertificate;
use crate::mx_certificates::MxCertificate;
use crate::notices::{ChannelClaim, NewNotice};
use crate::ownership::OwnershipWord;
use crate::people::{Invitation, Person};
use crate::public_results::{NewPublicResult, PublicLimits};
use crate::record_changes::ChangeState;
use crate::reports::{
    Arrival, DropSelection, NewQuarantined, NewReport, QuarantineSelection, Quota, Search, SumLimits, Trust,
    WhichReports,
};
use crate::second_factors::Proposal;
use crate::sessions::NewSession;
use crate::tenants::TenantName;
use crate::testing_probes::TestingProbe;
use crate::{PolicyDigest, StoreError};
use formats::dmarc::{Alignment, Disposition, DmarcReport, DmarcRow};
use formats::report::{DateRange, Report};
use formats::{DomainName, PolicyId};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

/// The result of a call, as text.
type Answer<'s> = Pin<Box<dyn Future<Output = String> + Send + 's>>;
/// The name of a method, and a call of it.
type Call = (&'static str, for<'s> fn(&'s Store) -> Answer<'s>);

macro_rules! calls {
    ($store:ident; $($method:ident $(::<$type:ty>)? ($($argument:expr),* $(,)?);)*) => {
        vec![$((stringify!($method), {
            fn call($store: &Store) -> Answer<'_> {
                Box::pin(async move {
                    format!("{:?}", $store.$method$(::<$type>)?($($argument),*).await.unwrap())
                })
            }
            call as for<'s> fn(&'s Store) -> Answer<'s>
        })),*]
    };
}

const DAY: i64 = 20_000 * 86_400;
const ZERO: Timestamp = Timestamp::UNIX_EPOCH;
const NO_NOTICE: Option<NewNotice<'_, ()>> = None;
/// Room for all.
const ROOM: Quota = Quota { bytes: 1 << 30, items: 1000 };
/// Room for nothing.
const NO_ROOM: Quota = Quota { bytes: 0, items: 0 };

fn shared() -> NewPublicResult<'static> {
    let domain = Box::leak(Box::new(a()));
    NewPublicResult {
        word: "word",
        domain,
        at: at(DAY),
        protection: "testing",
        verdict: "v",
        checks: "",
        page: b"page",
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The claim of a channel in [`fill`].
fn claimed() -> ChannelClaim {
    ChannelClaim { channel: text("mail"), number: 1 }
}

/// The claim of the check in [`fill`].
fn check() -> CheckClaim {
    CheckClaim { domain: text("a.example"), number: 1 }
}

/// A check that reached an MX host.
fn checked_at(due: Timestamp) -> FinishedCheck<'static> {
    let outcome = CheckOutcome::Complete { is_unreached: false, has_reached: true };
    FinishedCheck { outcome, is_slow: false, due, verdict: None }
}

/// A time after everything that is stored.
fn later() -> Timestamp {
    at(DAY + 1_000_000_000)
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn a() -> DomainName {
    name("a.example")
}

/// A domain of this tenant alone, since a domain has one owner.
fn own_name(store: &Store) -> DomainName {
    name(&format!("t{}.example", store.tenant()))
}

fn word() -> OwnershipWord {
    OwnershipWord { word: "w".into(), expires_at: at(DAY + 9) }
}

fn mx() -> DomainName {
    name("mx1.a.example")
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn policy() -> PolicyDigest {
    PolicyDigest::of_lines(&["mx: mx1.a.example".to_owned()]).unwrap()
}

fn report(id: &str, trust: Trust) -> NewReport {
    let body = format!(
        r#"{{"organization-name":"O","date-range":{{"start-datetime":"2024-10-04T00:00:00Z","end-datetime":"2024-10-04T23:59:59Z"}},"contact-info":"a@b.example","report-id":"{id}","policies":[{{"policy":{{"policy-type":"sts","policy-string":[],"policy-domain":"a.example","mx-host":[]}},"summary":{{"total-successful-session-count":5,"total-failure-session-count":2}},"failure-details":[{{"result-type":"certificate-expired","receiving-mx-hostname":"mx1.a.example","receiving-ip":"192.0.2.1","failed-session-count":2}}]}}]}}"#
    );
    NewReport {
        submitter: "big.example".into(),
        signer: trust.counts().then(|| "big.example".into()),
        trust,
        about: None,
        arrival: Arrival::Import,
        received_at: at(DAY),
        source: "big.example".into(),
        report: Report::read(body.as_bytes()).unwrap().report,
        warnings: 0,
        packed: body.into_bytes(),
    }
}

fn dmarc(id: &str) -> NewDmarcReport {
    NewDmarcReport {
        source: "big.example".into(),
        submitter: "big.example".into(),
        signer: None,
        trust: Trust::Unverified,
        arrival: Arrival::Smtp,
        received_at: at(DAY),
        report: DmarcReport {
            organization: "O".into(),
            email: String::new(),
            report_id: id.into(),
            range: DateRange::utc_day(at(DAY)),
            domain: a(),
            rows: vec![DmarcRow {
                source: None,
                disposition: Disposition::None,
                dkim: Alignment::Pass,
                spf: Alignment::Fail,
                messages: 3,
            }],
            uncounted: 0,
        },
    }
}

fn unreadable(reason: &'static str) -> NewQuarantined<'static> {
    NewQuarantined {
        received_at: at(DAY),
        arrival: Arrival::Smtp,
        source: "192.0.2.0/24",
        is_trusted: false,
        reason,
        raw: reason.as_bytes(),
    }
}

fn batch(id: &str) -> SpooledBatch {
    SpooledBatch { id: id.into(), body: b"[]".to_vec(), sessions: 4 }
}

fn counted(id: &str) -> CountSource {
    CountSource::Batch { id: id.into(), at: at(DAY) }
}

fn log() -> CountSource {
    let to = LogPlace { inode: "1".into(), head: "h".into(), read_to: 7 };
    CountSource::Log { file: "mainlog".into(), from: None, to }
}

fn challenge() -> ChallengeRecord {
    ChallengeRecord {
        domain: a(),
        name: name("_acme-challenge.a.example"),
        value: "v".into(),
        created_at: at(DAY),
    }
}

fn new_settings(name: &str) -> NewSettings {
    NewSettings { name: text(name), spec: text("\"spec\""), journal: text("changed") }
}

fn certificate() -> MxCertificate {
    let (host, issuer) = (mx().to_string(), "R11".to_owned());
    MxCertificate { host, issuer, not_before: ZERO, not_after: later(), seen_at: at(DAY) }
}

fn renewal() -> RenewalInfo {
    RenewalInfo { directory: "https://ca.example/".into(), window: None, ask_at: at(DAY) }
}

fn checked() -> CheckedHost {
    CheckedHost { host: mx(), certificate: "c".into(), public_key: "k".into(), at: at(DAY) }
}

fn probe() -> TestingProbe {
    let (mx, at) = (mx(), at(DAY));
    TestingProbe { policy: policy(), mx, at, failure: None, receiving_ip: None, reason: String::new() }
}

fn ada(role: &str) -> Person {
    Person { name: "ada".into(), role: role.into(), password: "hash".into() }
}

/// What is unique in the whole database carries the tenant.
fn token(store: &Store, word: &str) -> String {
    format!("{word} of {}", store.tenant())
}

fn invitation(store: &Store) -> Invitation {
    Invitation { tenant: store.tenant(), name: "ada".into(), role: "reader".into(), expires_at: at(DAY) }
}

fn session<'s>(store: &Store, digest: &'s str) -> NewSession<'s> {
    NewSession {
        digest,
        tenant: store.tenant(),
        name: "ada",
        password: "hash",
        second_factor: None,
        begun_at: at(DAY - 9),
        expires_at: at(DAY),
        address: "",
        browser: "",
    }
}

/// Calls that fill all tables of a tenant. Row ids that they name are those of the tenant that is filled first.
fn fill() -> Vec<Call> {
    calls![store;
        raise(&a(), "k", "s", at(DAY), &text("alert"), Some(NewNotice { channels: &[text("mail")], changed_at: at(DAY), content: &text("told") }));
        claim_channel("mail", at(DAY), at(DAY + 9));
        put_domain(&a(), &text("spec"));
        put_domain_if(&a(), &text("spec"), Expected::Text("\"spec\""));
        put_domains(&[new_settings("a.example")], at(DAY), "operator");
        put_rollout(&a(), &vec![1]);
        journal(&a(), at(DAY), "operator", "held");
        put_decisions(&a(), &vec![1]);
        record_mx_hosts(&a(), &[mx()], at(DAY));
        put_mx_certificate(&certificate());
        put_guard_probe(&a(), &mx(), at(DAY), policy(), Some("expired"));
        watch_domains(&["a.example"].into(), at(DAY), SignedDuration::from_secs(300));
        claim_checks(false, at(DAY), at(DAY + 9), 9, &|_| true);
        finish_check(&check(), &FinishedCheck { verdict: Some("verdict"), ..checked_at(at(DAY)) });
        put_testing_probes(at(DAY), &a(), &[probe()]);
        put_checked_hosts(&a(), &[checked()]);
        put_checked_policy(&a(), &PolicyId::parse("1").unwrap(), b"file", at(DAY));
        put_certificate(&StoredCertificate { chain: "C".into(), expires_at: at(DAY * 2), ..StoredCertificate::to_order(mx(), ZERO) });
        put_renewal_info(&mx(), &renewal());
        put_challenge_record(&challenge());
        begin_record_change(&a(), at(DAY), &text("change"));
        ownership_word(&a(), &word(), at(DAY));
        own_domain(&own_name(store), at(DAY));
        put_last_look(&a(), at(DAY), &text("seen"));
        report_hook("hook");
        do_once("weekly", at(DAY), NO_NOTICE);
        put_public_result(&shared(), PublicLimits { pages: 5, results: 5, of_domain: 5 });
        keep_reports(&[report("1", Trust::Verified), report("2", Trust::Unverified), report("3", Trust::Verified)]);
        keep_report(&report("4", Trust::Unverified));
        keep_dmarc_reports(&[dmarc("1")], DmarcQuota::default());
        quarantine(&unreadable("first"), &ROOM);
        quarantine(&unreadable("second"), &ROOM);
        add_tallies_once(&BTreeMap::new(), &counted("b"));
        add_all_tallies_once(&BTreeMap::new(), &log());
        spool(&[batch("one"), batch("two.refused-1")], 1000, None);
        put_invitation(&token(store, "first"), &invitation(store), ZERO);
        accept(&token(store, "first"), store.tenant(), &ada("reader"), ZERO);
        put_invitation(&token(store, "second"), &invitation(store), ZERO);
        put_session(&session(store, &token(store, "s1")));
        put_session(&session(store, &token(store, "s2")));
        propose_second_factor(store.tenant(), "ada", Proposal { secret: "x", session: &token(store, "s1") }, at(DAY));
        put_recovery_codes(store.tenant(), "ada", &[text("code")]);
        add_api_token(&NewApiToken { digest: &token(store, "api"), name: "panel", scopes: "read", created_at: ZERO, expires_at: None }, 9);
    ]
}

/// Calls that only read, with arguments that find what [`fill`] stores.
fn reads() -> Vec<Call> {
    calls![store;
        alerts::<String>();
        due_notices::<String>("mail", later(), 9);
        domains::<String>();
        domain::<String>(&a());
        domain_text(&a());
        domain_texts(&["a.example"]);
        domains_after::<String>("", 9);
        owned_domains();
        tenant_rows();
        rollout::<Vec<u8>>(&a());
        rollouts::<Vec<u8>>();
        rollouts_of::<Vec<u8>>(&["a.example"]);
        journal_page(None, i64::MAX, 9);
        journal_page(Some("a.example"), i64::MAX, 9);
        journal_of(&a());
        decisions::<Vec<u8>>(&a());
        all_decisions::<Vec<u8>>();
        mx_history(&a());
        domains_with_mx(&mx(), ZERO);
        mx_certificates(&[&mx()]);
        guard_probes(&a(), ZERO);
        oldest_check(false);
        waiting_verdicts(9);
        reaches_mx();
        testing_probes(at(DAY), &a());
        domains_with_testing_probes(at(DAY));
        checked_hosts(&a());
        last_checked_policy(&a());
        challenge_records(later(), 9);
        record_changes::<String>(&a());
        last_look::<String>(&a());
        is_done("weekly", at(DAY));
        public_page("word");
        public_results(&a());
        log_place("mainlog");
        oldest_spooled();
        oldest_refused();
        spooled_sessions();
        reports(&Search { most: 9, ..Search::default() });
        reports(&Search { domain: Some(text("a.example")), failed: true, most: 9, ..Search::default() });
        report(1);
        report_count();
        reports_about(&a(), ZERO);
        days_of(&a(), ZERO);
        days_of_each(&["a.example"], ZERO);
        causes_of(&a(), ZERO);
        senders_about(&a(), ZERO);
        senders(ZERO);
        failure_groups(&a(), ZERO);
        sessions_by_kind(&a(), ZERO);
        domain_totals(&["a.example"], ZERO);
        last_reports(&["a.example"], ZERO);
        submitter_totals(true, ZERO, 9);
        senders_by_day(&a(), ZERO);
        hosts_by_day(&a(), ZERO);
        all_senders_by_day(ZERO);
        arrived(WhichReports { after: 0, to: i64::MAX, failed: true }, 9, 9);
        count_arrived(WhichReports { after: 0, to: i64::MAX, failed: false });
        reports_to_drop(&DropSelection::default(), 0, 9);
        quarantined(0, 9);
        quarantined_bytes(1);
        quarantine_usage();
        count_quarantined(&QuarantineSelection::default());
        unverified_usage();
        dmarc_sums(&DmarcSearch { domain: None, since: ZERO, most: 9 });
        dmarc_domains(ZERO, 9);
        people(store.tenant());
        person(store.tenant(), "ada");
        invitations(store.tenant(), ZERO);
        sessions_of(store.tenant(), "ada", ZERO);
        proposed_second_factor(store.tenant(), "ada", &token(store, "s1"), ZERO);
        recovery_codes_left(store.tenant(), "ada");
        renewals_to_ask(at(DAY + 1), 9);
        api_tokens();
    ]
}

/// Calls that read what the calls of [`changes`] make.
fn later_reads() -> Vec<Call> {
    calls![store;
        second_factor(store.tenant(), "ada");
        names_with_second_factor(store.tenant());
    ]
}

/// Calls that change and delete what [`fill`] stores; each changes something for the tenant that is filled first.
fn changes() -> Vec<Call> {
    calls![store;
        hold_channel(&claimed(), later());
        postpone_notices(&claimed(), later());
        put_aside_notices::<u64>("mail", later(), later());
        end_notices(&[1]);
        end_alert(&a(), "k", "s", Some(NewNotice { channels: &[text("mail")], changed_at: at(DAY), content: &text("over") }));
        delete_notices(later());
        end_verdicts(&[CheckClaim { number: 2, ..check() }]);
        claim_checks(false, at(DAY), at(DAY + 9), 9, &|_| true);
        hold_check(&CheckClaim { number: 3, ..check() }, at(DAY + 8));
        change_rollout(&a(), |state: &mut Vec<u8>| state.push(2));
        set_record_change(1, ChangeState::Done);
        end_challenge_record(&challenge());
        correct_certificate_plans(ZERO);
        claim_report_hook("hook", at(DAY), at(DAY + 9));
        begin_report_notice("hook", 1, 7, at(DAY));
        postpone_report_notice("hook", 1, at(DAY));
        end_report_notice("hook", 1, later());
        replace_spooled("one", &[]);
        delete_batches(later());
        delete_tallies(later());
        update_quarantine_reason(1, "other");
        release_quarantined(1);
        drop_quarantined(&QuarantineSelection { id: Some(2), ..QuarantineSelection::default() });
        quarantine(&unreadable("third"), &ROOM);
        expire_quarantined(later());
        quarantine(&unreadable("fourth"), &ROOM);
        shrink_quarantine(&NO_ROOM);
        drop_reports(&[2]);
        expire_reports(at(DAY + 1));
        forget_expired_reports(later());
        keep_report(&report("5", Trust::Unverified));
        drop_old_unverified(later());
        keep_report(&report("6", Trust::Unverified));
        shrink_unverified(&NO_ROOM);
        keep_report(&report("7", Trust::Unverified));
        keep_unverified_within(&NO_ROOM);
        keep_report(&report("8", Trust::Verified));
        shrink_evidence(0);
        shrink_expired(0);
        shrink_sums(&[], &SumLimits { others: 0, submitters: 0, before: later(), others_before: later() });
        delete_dmarc_reports(false, later(), 9);
        end_other_sessions(store.tenant(), "ada", &token(store, "s1"));
        activate_second_factor(store.tenant(), "ada", Proposal { secret: "x", session: &token(store, "s1") }, ZERO, 5, &[text("code")]);
        use_time_step(store.tenant(), "ada", 6);
        use_recovery_code(store.tenant(), "ada", "code");
        remove_second_factor(store.tenant(), "ada");
        propose_second_factor(store.tenant(), "ada", Proposal { secret: "y", session: &token(store, "s1") }, at(DAY));
        cancel_second_factor(store.tenant(), "ada");
        end_invitation(store.tenant(), "ada");
        change_password(store.tenant(), "ada", "hash", "new", "");
        put_provider_user(store.tenant(), &Person { name: text("zoe"), role: text("reader"), password: text("oidc$1") });
        remove_person(store.tenant(), "ada");
        remove_domain_if(&a(), Expected::Any);
        put_domain(&a(), &text("spec"));
        remove_domain(&a());
        revoke_api_token("panel");
    ]
}

/// Methods without a tenant.
const OF_THE_INSTALLATION: &[(&str, &[&str])] = &[
    (
        "the sending side serves the mail servers of the whole installation",
        &[
            "put_policies",
            "import_policies",
            "policies_of",
            "policy",
            "policies_after",
            "claim_refreshes",
            "policies_due",
            "postpone_refresh",
            "policy_used",
            "delete_policy",
            "delete_expired_policies",
            "count_policies",
            "add_tallies",
            "add_to_tally",
            "tally",
            "tally_after",
            "tally_of",
            "tally_sums",
            "tallied_failures",
            "tallied_record",
            "unreported_days",
            "maybe_testing",
            "put_outgoing",
            "close_day",
            "claim_outgoing",
            "hold_outgoing",
            "outgoing",
            "outgoing_by_id",
            "outgoing_text",
            "outgoing_targets",
            "put_target",
            "update_outgoing",
            "requeue",
            "outgoing_counts",
            "delete_outgoing",
        ],
    ),
    (
        "a name is served once on the internet",
        &[
            "put_hosted",
            "hosted",
            "hosting_versions",
            "hosted_after",
            "certificates_after",
            "certificate",
            "certificates_due",
            "certificate_ends",
            "count_hosted",
            "order_certificate",
            "renew_certificate",
            "certificate_keys",
            "put_certificate_key",
            "plan_renewal",
            "acme_account",
            "put_acme_account",
            "acme_budget",
            "change_acme_budget",
            "put_challenge",
            "challenge",
            "add_strangers",
            "strangers",
        ],
    ),
    (
        "the tenants themselves, and which of them owns a domain",
        &["tenants", "add_tenant", "domain_owner", "domain_owners", "begin_erasure", "remove_tenant"],
    ),
    ("everything of a tenant, with a test of its own", &["erase_rows"]),
    (
        "a process, its secrets and its database",
        &[
            "acquire",
            "renew",
            "renew_all",
            "lease_of",
            "lease_in_force",
            "leases_in_force",
            "take_lease",
            "release",
            "give_back",
            "keep_node",
            "nodes",
            "remove_node",
            "secret",
            "known_secret",
            "common_time",
        ],
    ),
    (
        "the secret token is of one tenant, which is returned",
        &["invitation", "session_of", "session_user", "sign_out", "api_token_of", "api_token_used"],
    ),
    ("row ids and versions are numbers of the database", &["newest_report", "reports_version"]),
    ("texts of all tenants are in one table; what a report of any tenant refers to stays", &["forget_texts"]),
    ("what is from before the limits is of the first tenant", &["size_earlier_reports", "spare_earlier"]),
];

async fn run(calls: &[Call], store: &Store) -> Vec<(&'static str, String)> {
    let mut results = Vec::new();
    for (name, call) in calls {
        results.push((*name, call(store).await));
    }
    results
}

/// The rows of a tenant, in all tables.
async fn rows(store: &Store) -> BTreeMap<String, Vec<String>> {
    tables_of_tenants(store, store.tenant()).await.unwrap()
}

#[tokio::test]
async fn no_method_reads_counts_changes_or_deletes_rows_of_another_tenant() {
    let (_scratch, store) = crate::scratch().await;
    cross(&store).await;
}

/// As a role that does not own the tables, so that row-level security holds: every method works.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn every_method_works_behind_row_level_security() {
    let restricted = crate::database::postgres::tests::behind_row_level_security().await;
    let Some((_owner, store)) = restricted else { return };
    cross(&store).await;
}

/// Row-level security alone: the statements have no condition of their own.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_statement_without_a_condition_reads_and_changes_no_rows_of_another_tenant() {
    use crate::query::{built, sql};
    let restricted = crate::database::postgres::tests::behind_row_level_security().await;
    let Some((owner, store)) = restricted else { return };
    let (first, second) = (store.of_tenant(Tenant::numbered(1)), store.of_tenant(Tenant::numbered(2)));
    run(&fill(), &first).await;
    let filled = rows(&first).await;
    let unprotected =
        sql("SELECT CAST(c.relname AS TEXT) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
         WHERE c.relkind = 'r' AND a.attname = 'tenant' AND NOT a.attisdropped AND NOT c.relrowsecurity \
         AND c.relnamespace = CAST(current_schema() AS regnamespace)");
    let unprotected: Vec<(String,)> = unprotected.fetch_all(&owner).await.unwrap();
    assert_eq!(unprotected, [], "tables with a tenant and without a policy");
    let count = async |store: &Store, table: &str| {
        built(format!("SELECT count(*) FROM {table}")).fetch_one::<(i64,)>(store).await.unwrap().0
    };
    for (table, rows) in &filled {
        let expected = i64::try_from(rows.len()).unwrap();
        assert!(expected > 0);
        assert_eq!(count(&first, table).await, expected, "{table}");
        assert_eq!(count(&second, table).await, 0, "{table}");
        assert_eq!(count(&store, table).await, 0, "{table}, for the first tenant");
        assert_eq!(count(&store.across(), table).await, expected, "{table}, for the installation");
        let mut writing = second.writing().await.unwrap();
        let delete = built(format!("DELETE FROM {table}"));
        assert_eq!(delete.execute(&mut writing).await.unwrap(), 0, "{table}");
        if table != "dmarc_row" {
            let take = built(format!("UPDATE {table} SET tenant = 2"));
            assert_eq!(take.execute(&mut writing).await.unwrap(), 0, "{table}");
        }
        writing.rollback().await.unwrap();
    }
    // Nor does it write rows for another one.
    let foreign = sql("INSERT INTO domain (tenant, name, spec) VALUES (1, 'b.example', '')");
    let error = foreign.execute(&second).await.unwrap_err().to_string();
    assert!(error.contains("row-level security"), "{error}");
}

async fn cross(store: &Store) {
    let (first, second) = (store.of_tenant(Tenant::numbered(1)), store.of_tenant(Tenant::numbered(2)));
    let nothing = run(&reads(), &second).await;
    run(&fill(), &first).await;
    let filled = rows(&first).await;
    let empty: Vec<&String> =
        filled.iter().filter(|(_, rows)| rows.is_empty()).map(|(table, _)| table).collect();
    assert_eq!(empty, [] as [&String; 0], "tables that the test does not fill");
    let found = run(&reads(), &first).await;
    for ((name, nothing), (_, found)) in nothing.iter().zip(&found) {
        assert_ne!(nothing, found, "{name} finds nothing of its own tenant");
    }
    // The certificate itself has no tenant, only the time of the question.
    let is_shared = |name: &str| name == "renewals_to_ask";
    for ((name, nothing), (_, of_second)) in nothing.iter().zip(run(&reads(), &second).await) {
        let is_apart = *nothing == of_second || is_shared(name) && !of_second.contains("ca.example");
        assert!(is_apart, "{name} reads rows of another tenant: {of_second}");
    }
    // The second tenant has none of the rows, and then rows of its own under the same names, and names the first one's row ids.
    for step in [changes(), fill(), reads(), changes(), later_reads()] {
        for (name, call) in step {
            call(&second).await;
            let after = rows(&first).await;
            for (table, rows) in &filled {
                assert_eq!(rows, &after[table], "{name} changes rows of another tenant in {table}");
            }
        }
    }
    store.forget_texts().await.unwrap();
    assert_eq!(run(&reads(), &first).await, found, "what the first tenant reads has changed");
    // The same calls do change the rows that they are about.
    let mut before = filled;
    for (name, call) in changes() {
        call(&first).await;
        let after = rows(&first).await;
        assert_ne!(before, after, "{name} changes nothing of its own tenant");
        before = after;
        if name == "activate_second_factor" {
            for (name, found) in run(&later_reads(), &first).await {
                assert!(found.contains('x') || found.contains("ada"), "{name}: {found}");
            }
            for (name, found) in run(&later_reads(), &second).await {
                assert!(!found.contains('x') && !found.contains("ada"), "{name}: {found}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_exported_and_erased_is_that_of_the_tenant_alone() {
    let (_scratch, store) = crate::scratch().await;
    let name = |text: &str| text.parse::<TenantName>().unwrap();
    let first = store.add_tenant(&name("first"), "", ZERO).await.unwrap().unwrap();
    let second = store.add_tenant(&name("second"), "", ZERO).await.unwrap().unwrap();
    let (first, second) = (store.of_tenant(first), store.of_tenant(second));
    for one in [&first, &second] {
        run(&fill(), one).await;
    }
    // What is served for the domain of each, and for one that belongs to neither.
    let served = [own_name(&first), own_name(&second), a()];
    for domain in &served {
        store.put_hosted(domain, Some("version: STSv1")).await.unwrap();
        let host = domain.below("mta-sts").unwrap();
        store.put_certificate(&StoredCertificate::to_order(host, ZERO)).await.unwrap();
    }
    let before = [rows(&first).await, rows(&second).await];
    let exported = exported(&second).await;
    let secret = ["sign_in", "invitation", "second_factor", "recovery_code", "domain_proof", "api_token"];
    for (table, rows) in &before[1] {
        let count = if secret.contains(&table.as_str()) { 0 } else { rows.len() };
        assert_eq!(exported.get(table).map_or(0, Vec::len), count, "{table}");
    }
    let all = format!("{exported:?}");
    assert!(all.contains("big.example") && all.contains("certificate-expired"), "texts and not numbers");
    let own = own_name(&first);
    for foreign in ["hash", "s1 of", own.as_str()] {
        assert!(!all.contains(foreign), "{foreign} is exported");
    }
    assert!(first.begin_erasure().await.unwrap());
    assert!(store.tenants().await.unwrap().iter().any(|one| one.is_leaving && one.tenant == first.tenant()));
    first.erase_rows().await.unwrap();
    assert_eq!(first.tenant_rows().await.unwrap(), []);
    for (table, rows) in rows(&first).await {
        assert!(rows.is_empty(), "{table} has rows of the erased tenant");
    }
    assert_eq!(rows(&second).await, before[1]);
    for (domain, is_left) in served.iter().zip([false, true, true]) {
        assert_eq!(store.hosted(domain).await.unwrap().is_some(), is_left, "{domain}");
        let host = domain.below("mta-sts").unwrap();
        assert_eq!(store.certificate(&host).await.unwrap().is_some(), is_left, "{host}");
    }
    assert_eq!(first.remove_tenant().await.unwrap(), []);
    // The first tenant of an installation can't leave.
    run(&fill(), &store).await;
    let main = rows(&store).await;
    assert!(!store.begin_erasure().await.unwrap());
    store.erase_rows().await.unwrap();
    assert_eq!(rows(&store).await, main);
}

/// The rows of an export, by table.
async fn exported(store: &Store) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut write = |table: &str, row: serde_json::Map<String, serde_json::Value>| {
        found.entry(table.to_owned()).or_default().push(serde_json::Value::from(row).to_string());
        Ok(())
    };
    store.export_tenant(&mut write).await.unwrap();
    found
}

#[test]
fn every_method_is_in_a_list() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut methods = BTreeSet::new();
    for folder in [folder.clone(), folder.join("reports"), folder.join("dmarc"), folder.join("hosting")] {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if !path.is_file()
                || ["database.rs", "query.rs", "writing.rs", "sums.rs"]
                    .iter()
                    .any(|name| path.ends_with(name))
            {
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for method in source.split("pub async fn ").skip(1) {
                let (signature, _) = method.split_once(')').unwrap();
                if signature.contains("&self") {
                    methods.insert(method.split(['(', '<']).next().unwrap().to_owned());
                }
            }
        }
    }
    let lists = [fill(), reads(), later_reads(), changes()].concat();
    let mut listed: BTreeSet<String> = lists.into_iter().map(|(name, _)| name.to_owned()).collect();
    listed.extend(OF_THE_INSTALLATION.iter().flat_map(|(_, names)| *names).map(|name| (*name).to_owned()));
    assert_eq!(methods, listed);
}

#[tokio::test]
async fn a_handle_for_the_same_tenant_shares_what_is_known_of_it() {
    let (_scratch, store) = crate::scratch().await;
    assert_eq!(store.tenant(), Tenant::FIRST);
    assert!(Arc::ptr_eq(&store.unverified, &store.of_tenant(Tenant::FIRST).unverified));
    assert!(!Arc::ptr_eq(&store.unverified, &store.of_tenant(Tenant::numbered(7)).unverified));
    let other: Result<_, StoreError> = store.of_tenant(Tenant::numbered(7)).report_count().await;
    assert_eq!(other.unwrap(), 0);
}
