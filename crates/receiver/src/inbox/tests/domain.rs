//! Which domain the results of a report are about, by the mail or by the address of a POST.

use super::*;

/// A report of DANE results under the name of an MX host.
fn dane(id: &str) -> Vec<u8> {
    let json = String::from_utf8(json(id)).unwrap();
    let json = json
        .replace("\"sts\"", "\"tlsa\"")
        .replace("\"policy-domain\":\"a.example\"", "\"policy-domain\":\"mx.shared.example\"");
    json.replace("failure-session-count\":0", "failure-session-count\":5").into_bytes()
}

fn with_header(mail: &[u8], name: &'static str, value: &str) -> Vec<u8> {
    [format!("{name}: {value}\r\n").as_bytes(), mail].concat()
}

fn replaced(mail: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(mail.to_vec()).unwrap();
    assert!(text.contains(from), "{text}");
    text.replace(from, to).into_bytes()
}

/// The failed sessions of a domain's reports that count, and the sessions of those that do not.
async fn sums(inbox: &Inbox, domain: &str) -> (u64, u64) {
    let since = jiff::Timestamp::UNIX_EPOCH;
    let days = inbox.store.days_of(&DomainName::parse(domain).unwrap(), since).await.unwrap();
    days.iter().fold((0, 0), |(failed, unproved), day| (failed + day.failed, unproved + day.unproved))
}

async fn sharing(dns: Names) -> (tempfile::TempDir, Inbox) {
    let (dir, inbox) = inbox(dns).await;
    let day = "2026-11-23T00:00:00Z".parse().unwrap();
    let mx = [DomainName::parse("mx.shared.example").unwrap()];
    for domain in ["a.example", "b.example"] {
        inbox.store.record_mx_hosts(&DomainName::parse(domain).unwrap(), &mx, day).await.unwrap();
    }
    (dir, inbox)
}

const SIGNED: [&str; 4] = ["From", "Subject", "TLS-Report-Submitter", "TLS-Report-Domain"];

#[tokio::test]
async fn dane_results_count_for_the_domain_of_the_mail_if_the_sender_has_signed_it() {
    let key = key();
    let dns = || publishing("s._domainkey.big.example", &key.record);
    let mail = message("multipart/report", pack(&dane("1")).unwrap());
    let named = with_header(&mail, "TLS-Report-Domain", "a.example");
    let signed = |mail: &[u8], headers: &[&str]| sign_headers(mail, &key, "big.example", headers, false);
    let (here, elsewhere) = ([(5, 0), (0, 0), (0, 0)], [(0, 0), (0, 0), (5, 0)]);
    for (about, mail, expected) in [
        ("the header is signed", signed(&named, &SIGNED), here),
        ("the subject is signed, and there is no header", signed(&mail, &SIGNED[..3]), here),
        // As signers do that sign the fields of RFC 6376 §5.4.1.
        ("the subject is signed, and the header names the same domain", signed(&named, &SIGNED[..3]), here),
        ("neither is signed", signed(&named, &["From", "TLS-Report-Submitter"]), elsewhere),
        (
            "the signed subject has no domain",
            signed(&replaced(&named, "Report Domain: a.example", "Your report for a.example"), &SIGNED[..3]),
            elsewhere,
        ),
        (
            "the signed subject names another domain",
            signed(&replaced(&named, "Report Domain: a.example", "Report Domain: b.example"), &SIGNED[..3]),
            elsewhere,
        ),
        (
            "a second subject is added",
            with_header(
                &signed(&named, &SIGNED[..3]),
                "Subject",
                "Report Domain: a.example Submitter: x.example",
            ),
            elsewhere,
        ),
        (
            "a second header names the same domain",
            with_header(&signed(&named, &SIGNED[..3]), "TLS-Report-Domain", "a.example"),
            elsewhere,
        ),
        // A report for one domain that is sent on for another.
        (
            "a header is added",
            with_header(&signed(&mail, &SIGNED[..3]), "TLS-Report-Domain", "b.example"),
            elsewhere,
        ),
        (
            "a second header is added",
            with_header(&signed(&named, &SIGNED), "TLS-Report-Domain", "b.example"),
            elsewhere,
        ),
    ] {
        let (_dir, inbox) = sharing(dns()).await;
        assert_eq!(accept(&inbox, &mail).await.reports[0].trust, Trust::Verified, "{about}");
        let mut found = Vec::new();
        for domain in ["a.example", "b.example", "mx.shared.example"] {
            found.push(sums(&inbox, domain).await);
        }
        assert_eq!(found, expected, "{about}");
    }
}

#[tokio::test]
async fn dane_results_from_before_the_first_observation_of_the_mx_host_move_to_the_domain_then() {
    let key = key();
    let (_dir, inbox) = inbox(publishing("s._domainkey.big.example", &key.record)).await;
    let mail = message("multipart/report", pack(&dane("1")).unwrap());
    let mail = with_header(&mail, "TLS-Report-Domain", "a.example");
    accept(&inbox, &sign_headers(&mail, &key, "big.example", &SIGNED, false)).await;
    let day = "2026-11-23T00:00:00Z".parse().unwrap();
    let mx = [DomainName::parse("mx.shared.example").unwrap()];
    // Another customer of the same host is not concerned.
    for (observed, expected) in
        [("b.example", [(0, 0), (0, 0), (5, 0)]), ("a.example", [(5, 0), (0, 0), (0, 0)])]
    {
        inbox.store.record_mx_hosts(&DomainName::parse(observed).unwrap(), &mx, day).await.unwrap();
        let mut found = Vec::new();
        for domain in ["a.example", "b.example", "mx.shared.example"] {
            found.push(sums(&inbox, domain).await);
        }
        assert_eq!(found, expected, "{observed}");
    }
}

#[tokio::test]
async fn a_posted_report_is_about_a_domain_only_at_the_address_of_that_domain() {
    let (_dir, inbox) = sharing(Names::default()).await;
    let domain = DomainName::parse("a.example").unwrap();
    inbox.accept_posted(dane("1"), None).await.unwrap();
    assert_eq!((sums(&inbox, "a.example").await, sums(&inbox, "mx.shared.example").await), ((0, 0), (0, 6)));
    inbox.accept_posted(dane("2"), Some(domain.clone())).await.unwrap();
    assert_eq!((sums(&inbox, "a.example").await, sums(&inbox, "mx.shared.example").await), ((0, 6), (0, 6)));
    // A report without a policy names no domain.
    let text = String::from_utf8(json("3")).unwrap();
    let text = text.replace("\"sts\"", "\"no-policy-found\"").replace("\"policy-domain\":\"a.example\",", "");
    inbox.accept_posted(text.clone().into_bytes(), Some(domain)).await.unwrap();
    assert_eq!(sums(&inbox, "a.example").await, (0, 7));
    inbox.accept_posted(text.replace("\"3\"", "\"4\"").into_bytes(), None).await.unwrap();
    assert_eq!(sums(&inbox, "a.example").await, (0, 7));
}

#[tokio::test]
async fn a_posted_report_that_can_not_be_read_keeps_the_domain_of_its_address() {
    let (_dir, inbox) = sharing(Names::default()).await;
    let inbox = Inbox { arrival: Arrival::Https, ..inbox };
    let domain = DomainName::parse("a.example").unwrap();
    let broken = |number: u8| format!("{{\"report-id\": {number}").into_bytes();
    inbox.accept_posted(broken(1), Some(domain.clone())).await.unwrap();
    inbox.accept_posted(broken(2), None).await.unwrap();
    let reasons = inbox.store.quarantined(0, 9).await.unwrap().into_iter().map(|one| one.reason);
    let domains: Vec<_> = reasons.map(|reason| posted::domain_of(&reason)).collect();
    assert_eq!(domains, [Some(domain), None]);
}
