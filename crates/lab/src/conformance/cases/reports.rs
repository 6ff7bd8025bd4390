//! TLS reports (RFC 8460): what the mail server reports about the sessions of a day, to whom, and in which form. The mail server has
//! to send its reports when the driver asks for it, or these cases are not observable.

use super::{Case, elsewhere, plain};
use crate::behavior::Behavior;
use crate::case::TlsaSetup;
use crate::cases::{policy_text, second};
use crate::conformance::case::{Change, Fate, Group::Reports, Level, Phase};
use crate::conformance::tls_report::{Day, Entry, ReportCheck};
use crate::dns::{Signing, Tampering};
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;
use formats::result_type::PolicyType::{self, NoPolicyFound, Sts, Tlsa};

const EE: TlsaSetup = TlsaSetup { usage: 3, selector: 1, matching: 1, right: true, claims: None };

pub(super) fn cases() -> Vec<Case> {
    [counts(), policies(), results(), form(), targets(), records(), days()].concat()
}

/// A domain that fulfills its policy, and whose reports go to `reports.test`.
fn case(id: &'static str, source: &'static str, about: &'static str) -> Case {
    let mut case = plain(id, Reports, source, about).discriminates();
    case.days =
        vec![Day { messages: 1, targets: Vec::new(), entries: vec![success(Sts)], checks: Vec::new() }];
    let address = mail(id, "reports");
    case.rua(&[&address]).targets(&[&address])
}

fn mail(id: &str, host: &str) -> String {
    format!("mailto:{id}@{host}.test")
}

fn success(policy: PolicyType) -> Entry {
    Entry { policy, successful: 1, failed: 0, results: Vec::new() }
}

fn failure(policy: PolicyType, names: &'static [&'static str]) -> Entry {
    Entry { policy, successful: 0, failed: 1, results: vec![names] }
}

impl Case {
    /// The record names these targets.
    fn rua(self, targets: &[&str]) -> Self {
        let text = format!("v=TLSRPTv1; rua={}", targets.join(","));
        self.with(|s| s.tlsrpt_records = vec![vec![text]])
    }

    /// The report has to reach these targets.
    fn targets(self, targets: &[&str]) -> Self {
        let targets: Vec<String> = targets.iter().map(|one| (*one).to_owned()).collect();
        self.day(|day| day.targets.clone_from(&targets))
    }

    fn day(mut self, change: impl Fn(&mut Day)) -> Self {
        self.days.iter_mut().for_each(change);
        self
    }

    fn entry(self, entry: Entry) -> Self {
        self.day(|day| day.entries = vec![entry.clone()])
    }

    fn report_checks(self, checks: &[ReportCheck]) -> Self {
        self.day(|day| day.checks = checks.to_vec())
    }

    /// There may be no report.
    fn silent(mut self) -> Self {
        self.without = crate::conformance::case::Without::Conforms;
        self.targets(&[])
    }

    /// Without a policy, with a TLSA record that is `right` or not.
    fn dane(self, right: bool) -> Self {
        self.no_policy().with(|s| {
            s.signing = Signing::Signed;
            s.mx.iter_mut().for_each(|mx| mx.tlsa = vec![TlsaSetup { right, ..EE }]);
        })
    }
}

fn counts() -> Vec<Case> {
    let many = |case: Case, messages: usize, fate, entry: Entry| {
        let phases = std::iter::repeat_with(|| Phase::of(&[fate])).take(messages).collect();
        case.phases(phases)
            .entry(entry)
            .day(|day| day.messages = messages)
            .report_checks(&[ReportCheck::Counts])
    };
    const SOURCE: &str = "RFC 8460 §4.1, §4.4";
    vec![
        many(
            case("report-counts", SOURCE, "three messages under a policy that is fulfilled"),
            3,
            Fate::Tls,
            Entry { successful: 3, ..success(Sts) },
        ),
        many(
            case(
                "report-counts-failed",
                SOURCE,
                "two messages, and the certificate of the MX host has expired",
            ),
            2,
            Fate::Waits,
            Entry { failed: 2, ..failure(Sts, &["certificate-expired"]) },
        )
        .with(|s| s.mx.iter_mut().for_each(|mx| mx.cert = Cert::Expired)),
    ]
}

fn policies() -> Vec<Case> {
    const SOURCE: &str = "RFC 8460 §4.2, §4.4";
    let changed = Change::Policy(
        HttpBehavior::Policy(policy_text("enforce", &["mx1.report-policy-changed.test"], "700000")),
        Cert::Good,
    );
    let new_id = Change::Record("v=STSv1; id=20260202000000;".into());
    vec![
        case("report-sts", SOURCE, "a policy in mode enforce that is fulfilled"),
        case("report-tlsa", SOURCE, "TLSA records that match").dane(true).entry(success(Tlsa)),
        case("report-no-policy", SOURCE, "neither a policy nor TLSA records")
            .no_policy()
            .entry(success(NoPolicyFound)),
        case("report-sts-string", SOURCE, "the lines of the policy file").report_checks(&[
            ReportCheck::PolicyStrings(&[
                "version: STSv1",
                "mode: enforce",
                "mx: mx1.report-sts-string.test",
                "max_age: 604800",
            ]),
        ]),
        case("report-tlsa-string", SOURCE, "the TLSA record in presentation form")
            .dane(true)
            .entry(success(Tlsa))
            .report_checks(&[ReportCheck::PolicyStrings(&["3 1 1 "])]),
        case("report-policy-changed", SOURCE, "two policies on one day")
            .level(Level::Should)
            .phases(vec![
                Phase::of(&[Fate::Tls]),
                Phase::of(&[Fate::Tls]).after(vec![changed, new_id]),
                Phase::of(&[Fate::Tls]),
            ])
            .day(|day| day.messages = 3)
            .report_checks(&[ReportCheck::PolicyStrings(&["max_age: 604800", "max_age: 700000"])]),
    ]
}

fn results() -> Vec<Case> {
    let refused = |id, source, about, names: &'static [&'static str]| {
        case(id, source, about).fates(&[Fate::Waits]).entry(failure(Sts, names))
    };
    let certificate = |id, about, kind, names: &'static [&'static str]| {
        refused(id, "RFC 8460 §4.3.1", about, names).with(|s| s.mx.iter_mut().for_each(|mx| mx.cert = kind))
    };
    let fetch = |id, about, answers: HttpBehavior, names: &'static [&'static str]| {
        case(id, "RFC 8460 §4.3.2.2", about).with(|s| s.answers = answers).entry(failure(Sts, names))
    };
    vec![
        certificate(
            "report-expired",
            "the certificate of the MX host has expired",
            Cert::Expired,
            &["certificate-expired"],
        ),
        certificate(
            "report-wrong-name",
            "the certificate is for another host",
            Cert::WrongName,
            &["certificate-host-mismatch"],
        ),
        certificate(
            "report-untrusted",
            "the certificate is from an unknown CA",
            Cert::Untrusted,
            &["certificate-not-trusted"],
        )
        // RFC 8460 §4.3.3: the general type SHOULD be used only where no other fits.
        .level(Level::Should),
        certificate(
            "report-self-signed",
            "a self-signed certificate",
            Cert::SelfSigned,
            // RFC 8460 §4.3.1 names no type for it alone.
            &["certificate-not-trusted", "validation-failure"],
        ),
        refused(
            "report-no-starttls",
            "RFC 8460 §4.3.1",
            "the MX host offers no STARTTLS",
            &["starttls-not-supported"],
        )
        .with(|s| s.mx.iter_mut().for_each(|mx| mx.behavior = Some(Behavior::NoStarttls))),
        refused(
            "report-mx-mismatch",
            "RFC 8460 §4.3.2.2, §4.3.3",
            "the policy names another MX host",
            &["validation-failure", "certificate-host-mismatch"],
        )
        .with(|s| s.answers = HttpBehavior::Policy(elsewhere("report-mx-mismatch"))),
        fetch(
            "report-fetch",
            "the policy host answers with status 500",
            HttpBehavior::Status(500),
            &["sts-policy-fetch-error"],
        ),
        fetch(
            "report-policy-invalid",
            "the policy file has no mode",
            HttpBehavior::Policy(
                "version: STSv1\r\nmx: mx1.report-policy-invalid.test\r\nmax_age: 604800\r\n".into(),
            ),
            &["sts-policy-invalid"],
        ),
        case("report-webpki", "RFC 8460 §4.3.2.2", "the certificate of the policy host has expired")
            .with(|s| s.host_cert = Cert::Expired)
            .entry(failure(Sts, &["sts-webpki-invalid"])),
        case("report-tlsa-mismatch", "RFC 8460 §4.3.1, §4.3.2.1", "no TLSA record matches")
            .dane(false)
            .fates(&[Fate::Waits])
            .entry(failure(Tlsa, &["validation-failure", "certificate-not-trusted", "tlsa-invalid"])),
        case("report-tlsa-servfail", "RFC 8460 §4.3.2.1", "the query for TLSA records gets SERVFAIL")
            .dane(true)
            .level(Level::Should)
            .with(|s| s.mx.iter_mut().for_each(|mx| mx.tlsa_trouble = Some(Tampering::ServFail)))
            .fates(&[Fate::Waits])
            .entry(failure(Tlsa, &["dnssec-invalid", "tlsa-invalid"])),
        case(
            "report-testing",
            "RFC 8461 §5, RFC 8460 §4.3",
            "a policy in testing; the certificate of the MX host has expired",
        )
        .with(|s| {
            s.mx.iter_mut().for_each(|mx| mx.cert = Cert::Expired);
            let mx = "mx1.report-testing.test";
            s.answers = HttpBehavior::Policy(policy_text("testing", &[mx], "604800"));
        })
        .fates(&[Fate::Tls])
        .entry(failure(Sts, &["certificate-expired"])),
        case(
            "report-second-host",
            "RFC 8460 §4.3",
            "the first MX host has an expired certificate, the second takes the mail",
        )
        .level(Level::Should)
        .with(|s| {
            s.mx.iter_mut().for_each(|mx| mx.cert = Cert::Expired);
            s.mx.push(second(|_| {}));
            let hosts = ["mx1.report-second-host.test", "mx2.report-second-host.test"];
            s.answers = HttpBehavior::Policy(policy_text("enforce", &hosts, "604800"));
        })
        .entry(Entry { results: vec![&["certificate-expired"]], ..success(Sts) }),
    ]
}

fn form() -> Vec<Case> {
    let with = |id, source, about, check| case(id, source, about).report_checks(&[check]);
    vec![
        with("report-form", "RFC 8460 §4.4", "the text of the report", ReportCheck::Form),
        with("report-signed", "RFC 8460 §3", "the signature of the mail", ReportCheck::Signed)
            .level(Level::Must),
        with(
            "report-mail-headers",
            "RFC 8460 §5.3",
            "subject and headers of the mail",
            ReportCheck::MailHeaders,
        ),
        with(
            "report-file-name",
            "RFC 8460 §5.1, §5.2",
            "name and compression of the file",
            ReportCheck::FileName,
        ),
    ]
}

fn targets() -> Vec<Case> {
    let to = |id: &'static str, source, about, others: &[String], reached: &[String]| {
        let all: Vec<&str> = others.iter().chain(reached).map(String::as_str).collect();
        let reached: Vec<&str> = reached.iter().map(String::as_str).collect();
        case(id, source, about).rua(&all).targets(&reached)
    };
    let url = |id: &str| format!("https://reports.test/{id}");
    let id = "report-two-targets";
    vec![
        to("report-https", "RFC 8460 §3, §5.4", "a target by HTTPS", &[], &[url("report-https")])
            .report_checks(&[ReportCheck::MailHeaders]),
        to(
            id,
            "RFC 8460 §3",
            "two targets by mail and one by HTTPS",
            &[],
            &[mail(id, "reports"), mail(id, "more-reports"), url(id)],
        )
        .level(Level::May),
        to(
            "report-first-target-refuses",
            "RFC 8460 §3, §5.5",
            "the first target refuses mail",
            &[mail("report-first-target-refuses", "refusing-reports")],
            &[mail("report-first-target-refuses", "reports")],
        )
        .level(Level::Should),
        to(
            "report-unknown-scheme",
            "RFC 8460 §3",
            "the first target has an unknown scheme",
            &["ftp://reports.test/in".to_owned()],
            &[mail("report-unknown-scheme", "reports")],
        )
        .level(Level::Should),
        to(
            "report-target-expired",
            "RFC 8460 §3",
            "the target's domain enforces a policy, and the certificate of its MX host has expired",
            &[],
            &[mail("report-target-expired", "expired-reports")],
        ),
        to(
            "report-target-clear",
            "RFC 8460 §3",
            "the target's domain enforces a policy, and its MX host offers no STARTTLS",
            &[],
            &[mail("report-target-clear", "clear-reports")],
        ),
    ]
}

fn records() -> Vec<Case> {
    const SOURCE: &str = "RFC 8460 §3";
    let text = |id: &str| format!("v=TLSRPTv1; rua={}", mail(id, "reports"));
    vec![
        case("report-record-twice", SOURCE, "two valid _smtp._tls records")
            .with(|s| {
                let other = text("report-record-twice") + ",mailto:other@reports.test";
                s.tlsrpt_records = vec![vec![text("report-record-twice")], vec![other]];
            })
            .silent(),
        case("report-record-version", SOURCE, "a record of another version")
            .with(|s| s.tlsrpt_records = vec![vec![text("report-record-version").replace("v1", "v2")]])
            .silent(),
        case("report-record-other-texts", SOURCE, "other TXT records beside the valid one")
            .with(|s| s.tlsrpt_records.push(vec!["v=spf1 -all".into()])),
        case("report-record-extension", SOURCE, "an unknown field after rua")
            .with(|s| s.tlsrpt_records = vec![vec![text("report-record-extension") + "; x=y"]]),
    ]
}

fn days() -> Vec<Case> {
    let mut two = case("report-days", "RFC 8460 §4.1, §4.4", "mail on two days")
        .report_checks(&[ReportCheck::Counts, ReportCheck::NextDay]);
    two.days = [two.days.clone(), two.days].concat();
    two.phases = vec![Phase::of(&[Fate::Tls]), Phase::of(&[Fate::Tls])];

    let id = "report-own-delivery";
    let address = mail(id, id);
    let mut own =
        case(id, "RFC 8460 §3", "the reports go to the domain itself; no other mail on the second day")
            .rua(&[&address])
            .targets(&[&address])
            .level(Level::Should);
    own.days.push(Day { messages: 0, targets: Vec::new(), entries: Vec::new(), checks: Vec::new() });
    vec![two, own]
}
