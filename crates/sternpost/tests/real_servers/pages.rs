//! The dashboard under a real browser (`tests/pages/drive.mjs`): every page at three widths and in two
//! themes without a fault of accessibility, by keyboard, without JavaScript, and under attack. Pictures of
//! all pages go to `target/pages`.

use crate::ground::Ground;
use crate::patience::until_ready;
use crate::postfix::unpacked;
use crate::support::{daemon, in_a_room_of_its_own, shell, until};
use formats::report::{DateRange, Report, pack};
use formats::{DomainName, Mode, MxPattern, PolicyId};
use jiff::{SignedDuration, Timestamp};
use receiver::rollout::RolloutState;
use receiver::rollout::guard::{Alert, AlertKind};
use receiver::rollout::state::{InMode, PublishedPolicy};
use std::path::Path;
use store::public_results::{NewPublicResult, PublicLimits};
use store::reports::{Arrival, NewQuarantined, NewReport, Quota, Trust};
use store::{PolicyDigest, Store};

const EVIL: &str = "<script>window.owned=1</script><img src=x onerror=alert(1)>\"'";

fn report(domain: &str, id: &str, day: Timestamp, ok: u64, failed: u64, text: &str) -> NewReport {
    let range = DateRange::utc_day(day);
    let detail = serde_json::json!({ "result-type": "certificate-expired", "receiving-mx-hostname": format!("mx1.{domain}"),
        "receiving-ip": "192.0.2.1", "failed-session-count": failed, "additional-information": text });
    let details = if failed > 0 { vec![detail] } else { vec![] };
    let json = serde_json::json!({ "organization-name": text, "date-range": { "start-datetime": range.start.to_string(),
        "end-datetime": range.end.to_string() }, "contact-info": text, "report-id": id, "policies": [{ "policy":
        { "policy-type": "sts", "policy-string": [text], "policy-domain": domain, "mx-host": [] }, "summary":
        { "total-successful-session-count": ok, "total-failure-session-count": failed }, "failure-details": details }] });
    let bytes = json.to_string().into_bytes();
    let read = Report::read(&bytes).unwrap();
    NewReport {
        submitter: format!("{}.sender.example", if text == EVIL { "evil" } else { "fine" }),
        signer: None,
        trust: Trust::Trusted,
        about: None,
        arrival: Arrival::Smtp,
        received_at: day,
        source: String::new(),
        report: read.report,
        warnings: read.warnings.len(),
        packed: pack(&bytes).unwrap(),
    }
}

/// Three domains: one that fails, one that is ready, one that is new; and whatever pages have to stand.
async fn fill(file: &Path) {
    let store = Store::open(file, store::Tenant::FIRST).await.unwrap();
    let now = Timestamp::now();
    let ago = |days: i64| now - SignedDuration::from_hours(24 * days);
    let name = |text: &str| DomainName::parse(text).unwrap();
    for (word, days, protection, checks) in [
        ("first", 9, "errors", "SMTP-CERT-EXPIRED MATCH-MX-UNCOVERED"),
        ("second", 5, "testing", ""),
        ("third", 0, "enforced", ""),
    ] {
        let domain = name("checked.example");
        let (at, verdict, page) = (ago(days), EVIL, b"<p>The page</p>".as_slice());
        let result = NewPublicResult { word, domain: &domain, at, protection, verdict, checks, page };
        let limits = PublicLimits { pages: 2, results: 9, of_domain: 9 };
        store.put_public_result(&result, limits).await.unwrap();
    }
    for domain in ["failing.example", "ready.example"] {
        let promise = PublishedPolicy {
            mode: Mode::Testing,
            max_age: 86_400,
            mx: vec![MxPattern::parse(&format!("mx1.{domain}")).unwrap()],
            until: None,
            assumed: false,
        };
        let rollout = RolloutState {
            mode: Some(InMode { mode: Mode::Testing, since: ago(20) }),
            published: vec![promise],
            last_id: Some(PolicyId::parse("20261101000000").unwrap()),
            ..RolloutState::default()
        };
        store.put_rollout(&name(domain), &rollout).await.unwrap();
        store.journal(&name(domain), ago(20), "planner", &format!("announced {EVIL}")).await.unwrap();
        let bad = (domain == "failing.example").then_some(EVIL);
        let host = name(&format!("mx1.{domain}"));
        for day in [20, 0] {
            store.record_mx_hosts(&name(domain), std::slice::from_ref(&host), ago(day)).await.unwrap();
        }
        let policy = PolicyDigest::of_lines(&[format!("mx: {host}")]).unwrap();
        for day in 0..10 {
            store.put_guard_probe(&name(domain), &host, ago(day), policy, bad).await.unwrap();
            let failed = if domain == "failing.example" && day < 3 { 7 } else { 0 };
            let text = if day % 2 == 0 { EVIL } else { "Fine Mail" };
            let id = format!("{domain}-{day}");
            store.keep_report(&report(domain, &id, ago(day), 400, failed, text)).await.unwrap();
        }
    }
    for (domain, said) in [("taken.example", "ok"), ("waiting.example", EVIL)] {
        let sent = store::outgoing::NewOutgoing {
            day: DateRange::utc_day(ago(1)).start,
            domain: name(domain),
            report_id: format!("{domain}@ours.example"),
            packed: pack(b"{}").unwrap(),
            successful: 5,
            failed: 1,
            due: now,
        };
        store.put_outgoing(&[sent]).await.unwrap();
        let mut round = store.claim_outgoing(now, now, 9).await.unwrap().pop().unwrap();
        round.outcome_text = said.to_owned();
        round.tries = 1;
        round.state = if said == EVIL {
            store::outgoing::DeliveryState::Waiting
        } else {
            store::outgoing::DeliveryState::Sent
        };
        store.update_outgoing(&round).await.unwrap();
    }
    let alert = Alert {
        kind: AlertKind::ReportedFailure,
        subject: "certificate-expired at mx1.failing.example".into(),
        what: format!("senders met {EVIL}"),
        consequence: "Mail waits.".into(),
        remedy: "Mend it.".into(),
        cause: None,
        domains: Vec::new(),
    };
    store
        .raise(
            &name("failing.example"),
            "reported-failure",
            "x",
            ago(1),
            &alert,
            None::<store::notices::NewNotice<()>>,
        )
        .await
        .unwrap();
    let evil = NewQuarantined {
        received_at: now,
        arrival: Arrival::Smtp,
        source: EVIL,
        is_trusted: false,
        reason: EVIL,
        raw: EVIL.as_bytes(),
    };
    store.quarantine(&evil, &Quota { bytes: 1 << 20, items: 100 }).await.unwrap();
    let dmarc = store::dmarc::NewDmarcReport {
        source: EVIL.to_owned(),
        submitter: EVIL.to_owned(),
        signer: None,
        trust: Trust::Unverified,
        arrival: Arrival::Smtp,
        received_at: now,
        report: formats::dmarc::DmarcReport::read(&dmarc_report(ago(1)), &mut 1000).unwrap(),
    };
    store.keep_dmarc_reports(&[dmarc], store::dmarc::DmarcQuota::default()).await.unwrap();
    store.close().await;
}

/// Domains with a long history, alike alerts, or none of both.
const MANY: [&str; 8] = [
    "enforced.example",
    "xn--mller-kva.example",
    "silent.example",
    "one.example",
    "two.example",
    "three.example",
    "four.example",
    "five.example",
];

/// Domains that fill a second page of the table.
fn plain_domains() -> impl Iterator<Item = String> {
    (0..24).map(|number| format!("d{number:02}.example"))
}

/// An installation as an operator has it: a domain with 80 days of reports and an outage that is over, one with a name in
/// Unicode, one without any report, five that share a broken MX host, and some that are fine.
async fn fill_many(file: &Path) {
    let store = Store::open(file, store::Tenant::FIRST).await.unwrap();
    let now = Timestamp::now();
    let ago = |days: i64| now - SignedDuration::from_hours(24 * days);
    let name = |text: &str| DomainName::parse(text).unwrap();
    let published = |domain: &str, mode: Mode, since: i64| RolloutState {
        mode: Some(InMode { mode, since: ago(since) }),
        published: vec![PublishedPolicy {
            mode,
            max_age: 604_800,
            mx: vec![MxPattern::parse(&format!("mx1.{domain}")).unwrap()],
            until: None,
            assumed: false,
        }],
        last_id: Some(PolicyId::parse("20261001000000").unwrap()),
        mx: vec![name(&format!("mx1.{domain}"))],
        ..RolloutState::default()
    };
    for (number, domain) in MANY.iter().map(|name| (*name).to_owned()).chain(plain_domains()).enumerate() {
        let (mode, since) = if domain == "silent.example" { (Mode::Testing, 3) } else { (Mode::Enforce, 50) };
        store
            .put_rollout(&name(&domain), &published(&domain, mode, since + number as i64 % 9))
            .await
            .unwrap();
    }
    let domain = "enforced.example";
    let journal =
        [(78, "testing announced"), (57, "enforcement allowed by evidence"), (50, "enforcement announced")];
    for (day, what) in journal {
        store.journal(&name(domain), ago(day), "planner", what).await.unwrap();
    }
    let mut reports = Vec::new();
    for day in (0..80_i64).rev() {
        for (number, sender) in ["big", "large", "isp", "school"].into_iter().enumerate() {
            let volume =
                4_000 / (number as u64 + 1) * (if day % 7 < 2 { 2 } else { 5 }) + day as u64 * 7 % 113;
            let failed = if (18..24).contains(&day) { volume / 90 } else { u64::from(day == 40) * 30 };
            let id = format!("{domain}-{day}-{sender}");
            let new = report(domain, &id, ago(day), volume, failed, "Fine Mail");
            reports.push(NewReport { submitter: format!("{sender}.sender.example"), ..new });
        }
        let text =
            report("xn--mller-kva.example", &format!("m-{day}"), ago(day), 900 + day as u64, 0, "Fine Mail");
        reports.push(NewReport { submitter: "big.sender.example".into(), ..text });
        for domain in plain_domains().take(if day < 30 { 12 } else { 0 }) {
            reports.push(report(
                &domain,
                &format!("{domain}-{day}"),
                ago(day),
                50 + day as u64,
                0,
                "Fine Mail",
            ));
        }
    }
    store.keep_reports(&reports).await.unwrap();
    for day in 0..30 {
        let policy = PolicyDigest::of_lines(&[format!("mx: mx1.{domain}")]).unwrap();
        store
            .put_guard_probe(&name(domain), &name("mx1.enforced.example"), ago(day), policy, None)
            .await
            .unwrap();
    }
    // As the guard stored it before the program was started again.
    let certificate = store::mx_certificates::MxCertificate {
        host: "mx1.enforced.example".into(),
        issuer: "Example Trust (R11)".into(),
        not_before: ago(30),
        not_after: ago(-60),
        seen_at: ago(1),
    };
    store.put_mx_certificate(&certificate).await.unwrap();
    for (number, domain) in ["one", "two", "three", "four", "five"].into_iter().enumerate() {
        let alert = Alert {
            kind: AlertKind::MxUnverified,
            subject: "mx.shared.example".into(),
            what: "mx.shared.example failed TLS authentication: the certificate has expired".into(),
            consequence: "Senders that hold the enforced policy refuse to deliver to it: mail is queued, and bounces after a few days.".into(),
            remedy: "Offer STARTTLS with a certificate for mx.shared.example from a public CA".into(),
            cause: Some("mx.shared.example".into()),
            domains: Vec::new(),
        };
        let domain = name(&format!("{domain}.example"));
        let none = None::<store::notices::NewNotice<()>>;
        store
            .raise(&domain, "mx-unverified", "mx.shared.example", ago(number as i64), &alert, none)
            .await
            .unwrap();
    }
    let ends = Alert {
        kind: AlertKind::PolicyCertificateEnds,
        subject: "mta-sts.xn--mller-kva.example".into(),
        what: "the policy host's certificate expires at 2026-12-04T10:00:00Z".into(),
        consequence: "Senders that cached the policy apply it until its max_age expires; after that, and at all other senders, mail is not protected.".into(),
        remedy: "Renew it before then".into(),
        cause: None,
        domains: Vec::new(),
    };
    let domain = name("xn--mller-kva.example");
    let none = None::<store::notices::NewNotice<()>>;
    store.raise(&domain, "policy-certificate-ends", "x", ago(2), &ends, none).await.unwrap();
    store.close().await;
}

/// A DMARC report about the day of a time, with a message that is not aligned.
fn dmarc_report(at: Timestamp) -> Vec<u8> {
    let begin = at.as_second();
    format!(
        "<feedback><report_metadata><org_name>x</org_name><date_range><begin>{begin}</begin></date_range></report_metadata><policy_published><domain>failing.example</domain></policy_published><record><row><source_ip>2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff</source_ip><count>9007199254740993</count><policy_evaluated><disposition>quarantine</disposition><dkim>fail</dkim></policy_evaluated></row></record></feedback>"
    )
    .into_bytes()
}

#[test]
fn every_page_stands_in_a_real_browser_for_everyone_and_against_attackers() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut config = "[dns]\nservers = [\"127.0.0.1:1\"]\n[dashboard]\npublic_check = true\n[gate]\nclean_days = 7\n[[domain]]\nname = \"failing.example\"\nrua = [\"mailto:r@failing.example\"]\n\
                      [[domain]]\nname = \"ready.example\"\nrua = [\"mailto:r@ready.example\"]\n[[domain]]\nname = \"new.example\"\n".to_owned();
        for name in MANY.iter().map(|name| (*name).to_owned()).chain(plain_domains()) {
            config += &format!("[[domain]]\nname = \"{name}\"\nrua = [\"mailto:r@{name}\"]\n");
            if ["enforced.example", "one.example"].contains(&name.as_str()) {
                config += "tags = [\"shop\", \"customer-7\"]\n";
            }
        }
        std::fs::write(place.path().join("sternpost.toml"), config).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(fill(&place.path().join("sternpost.db")));
        runtime.block_on(fill_many(&place.path().join("sternpost.db")));
        let log = place.path().join("log");
        let command =
            format!("{} --config {}/sternpost.toml", env!("CARGO_BIN_EXE_sternpost"), place.path().display());
        let mut running = daemon(&format!("{command} serve"), &log);
        until_ready(&mut running.0, &log);
        let link = place.path().join("dashboard-link");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&link).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let operator = std::fs::read_to_string(&link).unwrap();
        assert!(!std::fs::read_to_string(&log).unwrap().contains(operator.trim()), "the link is in the log");
        let reader = shell(&format!("{command} dashboard invite reader --role reader 2>/dev/null"));
        let unused = shell(&format!("{command} dashboard invite guest --role reader 2>/dev/null"));
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let said = shell(&format!(
            "node {}/tests/pages/drive.mjs {} http://127.0.0.1:8460 {} {} {} {}",
            here.display(),
            unpacked("pages").display(),
            here.join("../../target/pages").display(),
            operator.trim(),
            reader.trim(),
            unused.trim()
        ));
        assert!(said.contains("313 looks at pages, no fault"), "{said}");
    });
}

#[test]
fn the_pages_of_an_empty_installation_say_what_to_do_first() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let config = "[dns]\nservers = [\"127.0.0.1:1\"]\n[dashboard]\n";
        std::fs::write(place.path().join("sternpost.toml"), config).unwrap();
        let log = place.path().join("log");
        let command =
            format!("{} --config {}/sternpost.toml", env!("CARGO_BIN_EXE_sternpost"), place.path().display());
        let mut running = daemon(&format!("{command} serve"), &log);
        until_ready(&mut running.0, &log);
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let said = shell(&format!(
            "node {}/tests/pages/empty.mjs {} http://127.0.0.1:8460 {} {}",
            here.display(),
            unpacked("pages").display(),
            here.join("../../target/pages").display(),
            std::fs::read_to_string(place.path().join("dashboard-link")).unwrap().trim()
        ));
        assert!(said.contains("28 looks at pages, no fault"), "{said}");
    });
}

/// The page of a running check leads to the result, by a script and without one.
#[test]
fn the_page_of_a_running_check_leads_to_the_result_with_a_script_and_without() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut ground = Ground::new(
            place.path(),
            &["good-enforce", "mx-silent", "host-silent", "http-stalls"],
            "good-enforce",
        );
        ground.configure("", "[dashboard]\nlisten = [\"127.0.0.1:8460\"]\npublic_check = true\n");
        ground.run();
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let said = shell(&format!(
            "node {}/tests/pages/public.mjs {} http://127.0.0.1:8460 {} mx-silent.test host-silent.test http-stalls.test",
            here.display(),
            unpacked("pages").display(),
            here.join("../../target/pages").display(),
        ));
        assert!(said.contains("7 looks at pages, no fault"), "{said}");
        ground.stop();
    });
}

/// nginx passes the path on, as docs/reports.md shows, or removes it.
#[test]
fn every_page_is_reached_below_a_path_through_nginx() {
    for proxy_pass in [
        "location /sternpost { proxy_pass http://127.0.0.1:8460;",
        "location /sternpost/ { proxy_pass http://127.0.0.1:8460/;",
    ] {
        in_a_room_of_its_own(move || {
            let place = tempfile::tempdir().unwrap();
            let at = place.path().display();
            let config = "[dns]\nservers = [\"127.0.0.1:1\"]\n[dashboard]\nurl = \"http://127.0.0.1:8080/sternpost\"\nbehind_proxy = true\npublic_check = true\n[inbox]\nhttp = \"/in\"\n\
                          [[domain]]\nname = \"failing.example\"\nrua = [\"mailto:r@failing.example\"]\n[[domain]]\nname = \"ready.example\"\n";
            std::fs::write(place.path().join("sternpost.toml"), config).unwrap();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(fill(&place.path().join("sternpost.db")));
            let front = format!(
                "daemon off; pid {at}/nginx.pid; error_log {at}/nginx.err;\nevents {{}}\nhttp {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
                 server {{ listen 127.0.0.1:8080; location / {{ return 404; }}\n{proxy_pass} proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr; }} }} }}\n"
            );
            std::fs::write(place.path().join("nginx.conf"), front).unwrap();
            let log = place.path().join("log");
            let command = format!("{} --config {at}/sternpost.toml", env!("CARGO_BIN_EXE_sternpost"));
            let mut running = daemon(&format!("{command} serve"), &log);
            until_ready(&mut running.0, &log);
            let _nginx = daemon(
                &format!("nginx -e {at}/nginx.err -c {at}/nginx.conf"),
                &place.path().join("nginx.log"),
            );
            until("nginx serves", || shell("ss -Hltn").contains("127.0.0.1:8080"));
            let link = std::fs::read_to_string(place.path().join("dashboard-link")).unwrap();
            assert!(link.starts_with("http://127.0.0.1:8080/sternpost/welcome/"), "{link}");
            let here = Path::new(env!("CARGO_MANIFEST_DIR"));
            let said = shell(&format!(
                "node {}/tests/pages/below.mjs {} http://127.0.0.1:8080/sternpost {}",
                here.display(),
                unpacked("pages").display(),
                link.trim()
            ));
            let pages: u32 = said.split(" pages below").next().unwrap().trim().parse().unwrap();
            assert!(pages >= 20 && said.contains("no fault"), "{said}");
            // `reports address` wants a URL that the internet reaches.
            let secret = runtime.block_on(async {
                let store =
                    Store::open(&place.path().join("sternpost.db"), store::Tenant::FIRST).await.unwrap();
                store.known_secret("reports").await.unwrap().unwrap()
            });
            let url = format!("http://127.0.0.1:8080/sternpost/in/{secret}");
            let posted =
                shell(&format!("curl -s -o /dev/null -w '%{{http_code}}' --data-binary nonsense {url}"));
            assert_eq!(posted, "202", "{url}");
        });
    }
}

/// The pages that `sternpost check --html` writes, as the snapshots hold them, with the style of today.
#[test]
fn pages_of_checks_stand_in_a_real_browser_without_a_fault() {
    let place = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let template = std::fs::read_to_string(here.join("../check/templates/check_page.html")).unwrap();
    let style = std::fs::read_to_string(here.join("../check/templates/style.css")).unwrap();
    let head = template.split("<body>").next().unwrap();
    let head = head.replace("{% include \"style.css\" %}", &style).replace("{{ title }}", "A check");
    assert!(!head.contains("{%") && !head.contains("{{"));
    let mut files = Vec::new();
    for name in ["mx-expired", "nothing-yet", "http-challenge", "good-all"] {
        let body = std::fs::read_to_string(here.join(format!("tests/check/{name}.html"))).unwrap();
        let file = place.path().join(format!("check-{name}.html"));
        std::fs::write(&file, format!("{head}{body}")).unwrap();
        files.push(file.display().to_string());
    }
    let said = shell(&format!(
        "node {}/tests/pages/one.mjs {} {} {}",
        here.display(),
        unpacked("pages").display(),
        here.join("../../target/pages").display(),
        files.join(" ")
    ));
    assert!(said.contains("24 looks at pages, no fault"), "{said}");
}
