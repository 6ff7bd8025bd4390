use super::*;
use crate::limits::{EXIM_MESSAGES, FAILURE_REASON_CHARS};
use proptest::prelude::*;

/// What Exim 4.96 logged for the domains of the lab.
const LOG: &str = include_str!("exim-4.96.log");

fn reader() -> EximLog {
    EximLog::new(TimeZone::UTC)
}

fn observed(posted: Posted) -> Observed {
    match posted.session {
        PostedSession::Observed(observed) => observed,
        PostedSession::Complete(session) => panic!("{session:?}"),
    }
}

fn all(text: &str) -> Vec<Posted> {
    let mut log = reader();
    text.lines().filter_map(|line| log.read(line.as_bytes())).collect()
}

fn one(line: &str) -> Option<Observed> {
    reader().read(line.as_bytes()).map(observed)
}

const ID: &str = "2026-11-27 14:21:57 1xWwpp-0007Wr-1G";

#[test]
fn the_sessions_of_exim_4_96_are_read() {
    let found: Vec<(String, ObservedTls)> =
        all(LOG).into_iter().map(observed).map(|session| (session.domain.to_string(), session.tls)).collect();
    let failed = ObservedTls::Failed;
    let expected = [
        ("good-enforce", ObservedTls::Verified),
        ("good-testing", ObservedTls::Verified),
        ("no-mta-sts", ObservedTls::Verified),
        ("plain-no-starttls", ObservedTls::None),
        ("mx-expired", failed(ResultType::ValidationFailure)),
        ("mx-wrong-name", failed(ResultType::ValidationFailure)),
        ("mx-no-starttls", failed(ResultType::StarttlsNotSupported)),
        ("dane-ee", ObservedTls::Dane),
        ("dane-mismatch", ObservedTls::DaneFailed(ResultType::ValidationFailure)),
        ("dane-beats-sts", ObservedTls::Dane),
        ("hosted-testing", ObservedTls::Verified),
        ("hosted-enforce", ObservedTls::Verified),
        ("alias-right", ObservedTls::DaneFailed(ResultType::DnssecInvalid)),
        ("many-patterns", ObservedTls::Verified),
        ("eight-aaaa", failed(ResultType::ValidationFailure)),
    ];
    assert_eq!(found, expected.map(|(name, tls)| (format!("{name}.test"), tls)));
    let first = all(LOG).remove(0);
    assert_eq!(first.at, Some("2026-11-27T14:21:57Z".parse().unwrap()));
    let first = observed(first);
    assert_eq!(first.mx.as_deref(), Some("mx1.good-enforce.test"));
    assert_eq!(first.ip, Some("127.77.1.0".parse().unwrap()));
}

#[test]
fn times_have_the_form_of_any_log_selector() {
    let at = |head: &str| {
        let line =
            format!("{head} 1xWwpp-0007Wr-1G => b@a.example R=r T=t H=mx.a.example [192.0.2.1] C=\"250\"");
        reader().read(line.as_bytes()).and_then(|posted| posted.at).map(|at| at.to_string())
    };
    assert_eq!(at("2026-11-27 14:21:57").as_deref(), Some("2026-11-27T14:21:57Z"));
    assert_eq!(at("2026-11-27 14:21:57.250 +0130").as_deref(), Some("2026-11-27T12:51:57.25Z"));
    assert_eq!(at("2026-11-27 14:21:57 -0500 [4711]").as_deref(), Some("2026-11-27T19:21:57Z"));
    for bad in ["2026-11-27", "2026-13-27 14:21:57", "2026-11-27 25:21:57", "Nov 27 14:21:57"] {
        assert_eq!(at(bad), None, "{bad}");
    }
    let with_port = format!(
        "{ID} == b@a.example R=r T=t defer (-37) H=mx.a.example [192.0.2.1]:25: TLS session: (x): expired"
    );
    assert_eq!(one(&with_port).unwrap().tls, ObservedTls::Failed(ResultType::CertificateExpired));
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    let line = format!("{ID} => b@a.example R=r T=t H=mx.a.example [192.0.2.1]");
    let at = EximLog::new(zone).read(line.as_bytes()).unwrap().at.unwrap();
    assert_eq!(at.to_string(), "2026-11-27T12:21:57Z");
    let new = "2026-11-27 14:21:57 1xWwpp-00000000Wr1-1GAB => b@a.example R=r T=t H=mx.a.example [192.0.2.1]";
    assert!(one(new).is_some());
}

#[test]
fn recipients_of_one_session_and_reused_connections_count_once() {
    let log = format!(
        "{ID} => b@a.example R=r T=t H=mx.a.example [192.0.2.1] X=TLS1.3:c:256 CV=yes C=\"250\"\n\
         {ID} -> c@a.example R=r T=t H=mx.a.example [192.0.2.1] X=TLS1.3:c:256 CV=yes C=\"250\"\n\
         {ID} -> c@b.example R=r T=t H=mx.a.example [192.0.2.1] X=TLS1.3:c:256 CV=yes C=\"250\"\n\
         2026-11-27 14:22:07 1xWwpp-0007Wr-1H => b@a.example R=r T=t H=mx.a.example [192.0.2.1]:25* X=TLS1.3:c:256 CV=yes C=\"250\"\n\
         2026-11-27 14:52:07 1xWwpp-0007Wr-1I == b@a.example R=r T=t defer (-37) H=mx.a.example [192.0.2.1]: TLS session: (x): expired\n\
         2026-11-27 15:52:07 1xWwpp-0007Wr-1I == b@a.example R=r T=t defer (-37) H=mx.a.example [192.0.2.1]: TLS session: (x): expired\n"
    );
    let found: Vec<String> =
        all(&log).into_iter().map(observed).map(|one| format!("{} {:?}", one.domain, one.tls)).collect();
    let expired = "a.example Failed(CertificateExpired)";
    assert_eq!(found, ["a.example Verified", "b.example Verified", expired, expired]);
}

#[test]
fn a_handshake_that_failed_before_a_plain_delivery_is_a_failure() {
    let log = format!(
        "{ID} H=mx.a.example [192.0.2.1]: TLS error on connection (send_client_hello): x\n\
         {ID} TLS session: failure: delivering unencrypted to H=mx.a.example [192.0.2.1] (not in hosts_require_tls)\n\
         {ID} => b@a.example R=r T=t H=mx.a.example [192.0.2.1] C=\"250\"\n"
    );
    let found = observed(all(&log).remove(0));
    assert_eq!(found.tls, ObservedTls::Failed(ResultType::ValidationFailure));
}

#[test]
fn texts_of_strangers_are_not_taken_for_facts() {
    let delivered = |rest: &str| one(&format!("{ID} => {rest}"));
    let plain =
        delivered("b@a.example R=r T=t H=mx.a.example [192.0.2.1] C=\"250 X=TLS1.3:c:256 CV=dane ok\"")
            .unwrap();
    assert_eq!(plain.tls, ObservedTls::None);
    let named = delivered(
        "b@a.example R=r T=t H=mx.a.example [192.0.2.1] X=TLS1.3:c:256 DN=\"CN=a CV=yes\" C=\"250\"",
    );
    assert_eq!(named.unwrap().tls, ObservedTls::Unverified);
    let quoted = delivered(
        "\"x\\\" H=evil.example [203.0.113.1] X=y CV=yes\"@a.example R=r T=t H=mx.a.example [192.0.2.1] C=\"250\"",
    );
    let quoted = quoted.unwrap();
    assert_eq!(
        (quoted.domain.as_str(), quoted.mx.as_deref(), quoted.tls),
        ("a.example", Some("mx.a.example"), ObservedTls::None)
    );
    // The reply of a mail server that speaks of TLS is no failure of TLS.
    for reply in [
        "SMTP error from remote mail server after RCPT TO:<b@a.example>: 450 TLS session: expired",
        "Connection refused",
    ] {
        let line = format!("{ID} == b@a.example R=r T=t defer (-44) H=mx.a.example [192.0.2.1]: {reply}");
        assert_eq!(one(&line), None, "{line}");
    }
    let dane = format!(
        "{ID} ** b@a.example R=r T=t H=mx.a.example [192.0.2.1]: SMTP error: 550 x: DANE error: made up"
    );
    assert_eq!(one(&dane), None);
}

#[test]
fn other_lines_are_no_sessions() {
    for line in [
        "",
        "2026-11-27 14:21:57 Warning: purging the environment.",
        "2026-11-27 14:21:57 1xWwpp-0007Wr-1G <= a@sender.test U=root P=local S=295",
        "2026-11-27 14:21:57 1xWwpp-0007Wr-1G Completed",
        "2026-11-27 14:21:57 1xWwpp-0007Wr-1G => bob <bob@local.example> R=local T=maildir",
        "2026-11-27 14:21:57 1xWwpp-0007Wr-1G == b@a.example R=out defer (-1): host lookup did not complete",
        "2026-11-27 14:21:57 1xWwpp-0007Wr-1G => b@a.example R=r T=t H=mx.a.example [not an address]",
        "2026-11-27 14:21:57 1xWwpp-0007Wr-1G => \"open@a.example R=r T=t H=mx.a.example [192.0.2.1]",
    ] {
        assert_eq!(one(line), None, "{line}");
    }
    let long = format!(
        "{ID} => b@a.example R=r T=t H=mx.a.example [192.0.2.1] C=\"{}\"",
        "x".repeat(EXIM_LINE_BYTES)
    );
    assert_eq!(one(&long), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..6)) {
        let mut log = reader();
        lines.iter().for_each(|line| drop(log.read(line)));
    }

    #[test]
    fn any_change_of_a_real_line_gives_a_session_in_bounds_or_none(
        line in 0..LOG.lines().count(), at in 0..400usize, with in "[ -~\u{e9}]{0,8}", cut in 0..12usize,
    ) {
        let line = LOG.lines().nth(line).unwrap();
        let at = at.min(line.len());
        let changed = format!("{}{with}{}", &line[..at], &line[(at + cut).min(line.len())..]);
        if let Some(found) = one(&changed) {
            prop_assert!(found.reason.is_none_or(|reason| reason.chars().count() <= FAILURE_REASON_CHARS));
        }
    }

    #[test]
    fn no_reply_of_a_mail_server_makes_a_plain_delivery_encrypted(reply in "[ -~]{0,60}") {
        let reply = reply.replace('\\', "\\\\").replace('"', "\\\"");
        let line = format!("{ID} => b@a.example R=r T=t H=mx.a.example [192.0.2.1] C=\"250 {reply}\"");
        prop_assert_eq!(one(&line).map(|found| found.tls), Some(ObservedTls::None));
    }

    #[test]
    fn whatever_is_in_quoted_addresses_domain_and_host_stay(
        to in local_part(), top in local_part(), from in local_part(), back in local_part(), is_failed in any::<bool>(),
    ) {
        let [to, top, from, back] = [to, top, from, back].map(|text| quoted(&text));
        let beginning = format!(
            "{to}@a.example ({top}@list.example) <{top}@own.example> F=<{from}@s.example> P=<{back}@s.example> R=r T=t"
        );
        let (line, tls) = match is_failed {
            true => (
                format!("{ID} == {beginning} defer (-37) H=mx.a.example [192.0.2.1]: TLS session: (x): expired"),
                ObservedTls::Failed(ResultType::CertificateExpired),
            ),
            false => (
                format!("{ID} => {beginning} H=mx.a.example [192.0.2.1] X=TLS1.3:c:256 CV=yes C=\"250\""),
                ObservedTls::Verified,
            ),
        };
        let found = one(&line).unwrap();
        prop_assert_eq!((found.domain.as_str(), found.mx.as_deref(), found.tls), ("a.example", Some("mx.a.example"), tls));
    }

    #[test]
    fn a_local_part_that_exim_logs_without_its_quotes_names_no_other_host(local in local_part(), is_failed in any::<bool>()) {
        let beginning = format!("{local}@a.example <{}@a.example> R=r T=t", quoted(&local));
        let line = match is_failed {
            true => format!("{ID} == {beginning} defer (-37) H=mx.a.example [192.0.2.1]: TLS session: (x): expired"),
            false => format!("{ID} => {beginning} H=mx.a.example [192.0.2.1] X=TLS1.3:c:256 CV=yes C=\"250\""),
        };
        if let Some(found) = one(&line) {
            prop_assert_eq!((found.domain.as_str(), found.mx.as_deref()), ("a.example", Some("mx.a.example")), "{}", line);
        }
    }
}

/// A local part that imitates the fields of a line.
fn local_part() -> impl Strategy<Value = String> {
    let parts = proptest::sample::select(vec![
        "x",
        "a@evil.example",
        "@evil.example",
        " R=r T=t",
        " H=mx.evil.example [192.0.2.66]",
        " X=TLS1.3:c:256",
        " CV=no",
        " C=\"250",
        " DN=\"",
        "\"",
        "\\",
        ">",
        ")",
        " <",
        " ",
        ": TLS session: (x): expired",
        " defer (-37)",
        " F=<",
        ": DANE error: x",
    ]);
    proptest::collection::vec(parts, 1..9).prop_map(|parts| parts.concat())
}

fn quoted(local: &str) -> String {
    format!("\"{}\"", local.replace('\\', "\\\\").replace('"', "\\\""))
}

#[test]
fn fields_in_addresses_are_not_taken_for_facts() {
    let own = "\"x H=mx.evil.example [192.0.2.66] CV=no \"@own.example";
    for addresses in
        [format!("<{own}>"), format!("F=<{own}>"), format!("P=<{own}>"), format!("({own}) <b@own.example>")]
    {
        let line = format!(
            "{ID} => b@good.example {addresses} R=r T=t H=mx.good.example DS [192.0.2.1] X=TLS1.3:c:256 CV=yes K C=\"250\" DT=1s"
        );
        let found = one(&line).unwrap();
        assert_eq!(
            (found.mx.as_deref(), found.tls),
            (Some("mx.good.example"), ObservedTls::Verified),
            "{line}"
        );
    }
}

#[test]
fn lines_of_concurrent_messages_do_not_disturb_each_other() {
    let line = |message: &str, rest: &str| format!("2026-11-27 14:21:57 {message} {rest}\n");
    let [one, two] = ["1xWwpp-0007Wr-1G", "1xWwpp-0007Wr-2G"];
    let to = |flag: &str, user: &str| {
        format!("{flag} {user}@a.example R=r T=t H=mx.a.example [192.0.2.1] X=TLS1.3:c:256 CV=yes C=\"250\"")
    };
    let other = "=> b@b.example R=r T=t H=mx.b.example [192.0.2.2] X=TLS1.3:c:256 CV=yes C=\"250\"";
    let plain = "=> c@c.example R=r T=t H=mx.c.example [192.0.2.3] C=\"250\"";
    let clear = "TLS session: failure: delivering unencrypted to H=mx.c.example [192.0.2.3] (not in hosts_require_tls)";
    let log = [
        line(one, &to("=>", "b")),
        line(two, clear),
        line(one, other),
        line(one, &to("->", "c")),
        line(two, plain),
        line(one, "Completed"),
    ];
    let found: Vec<String> = all(&log.concat())
        .into_iter()
        .map(observed)
        .map(|one| format!("{} {:?}", one.domain, one.tls))
        .collect();
    assert_eq!(found, ["a.example Verified", "b.example Verified", "c.example Failed(ValidationFailure)"]);
}

#[test]
fn the_number_of_remembered_messages_is_bounded() {
    let mut log = reader();
    for number in 0..EXIM_MESSAGES + 10 {
        let line = format!(
            "2026-11-27 14:21:57 1xWwpp-{number:06}-1G => b@a.example R=r T=t H=mx.a.example [192.0.2.1]"
        );
        assert!(log.read(line.as_bytes()).is_some());
    }
    assert_eq!(log.messages.sizes(), [EXIM_MESSAGES; 2]);
}

#[test]
fn deliveries_within_the_organization_are_no_sessions() {
    let line = |transport: &str| {
        format!("{ID} => b@a.example R=r T={transport} H=mx.a.example [192.0.2.1] C=\"250\"")
    };
    let names = ["remote_smtp", "dovecot_lmtp", "local_smtp", "remote_smtp_smarthost", "backend"];
    let taken = |transports: &Transports| -> Vec<&str> {
        names
            .into_iter()
            .filter(|name| reader().with_transports(transports.clone()).read(line(name).as_bytes()).is_some())
            .collect()
    };
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(taken(&Transports::default()), ["remote_smtp", "backend"]);
    assert_eq!(taken(&Transports { taken: list(&["dovecot_lmtp"]), skipped: vec![] }), ["dovecot_lmtp"]);
    assert_eq!(taken(&Transports { taken: vec![], skipped: list(&["backend"]) }), ["remote_smtp"]);
}
