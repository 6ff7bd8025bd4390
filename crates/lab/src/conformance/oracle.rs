//! The oracle: what was seen in a phase, and whether it conforms.

use super::case::{Case, Check, Fate, Level, Phase};
use super::world::SENDER;
use crate::traffic::{Event, Fetch, FetchStep, Mail, MailStep, Observed, RecordType};
use net::https::POLICY_PATH;

/// The outcome of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The mail server did what the RFC asks for.
    Conforms,
    /// The mail server was stricter than the RFC asks for.
    DoesMore,
    /// The case needs what the driver or the mail server does not offer.
    NotObservable,
    /// The lab could not run the case.
    LabFailed,
    /// The mail server did something else than the RFC asks for, at the level of the case.
    Violates,
}

impl Outcome {
    /// The words in tables. `level` is that of the case.
    pub fn words(self, level: Level) -> String {
        match self {
            Self::Conforms => "conforms".into(),
            Self::DoesMore => "does more than asked".into(),
            Self::NotObservable => "not observable".into(),
            Self::LabFailed => "lab failed".into(),
            Self::Violates => format!("violates ({})", level.as_str()),
        }
    }
}

/// What was seen of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The fate of the message.
    pub fate: Fate,
    /// The events of the case in the phase, in order.
    pub events: Vec<Event>,
}

/// The outcome of a phase, with the reason unless it conforms.
pub fn judge(case: &Case, phase: &Phase, seen: &Seen) -> (Outcome, Option<String>) {
    let (fate, wanted) = (seen.fate.as_str(), words(&phase.conforms));
    if !phase.conforms.contains(&seen.fate) {
        return match phase.beyond.contains(&seen.fate) {
            true => (Outcome::DoesMore, Some(format!("{fate}; {wanted} would be enough"))),
            false => (Outcome::Violates, Some(format!("{fate} instead of {wanted}"))),
        };
    }
    let failed = phase.checks.iter().find(|check| !holds(**check, case, seen));
    match failed {
        Some(check) => (Outcome::Violates, Some(format!("not so: {}", check.sentence()))),
        None => (Outcome::Conforms, None),
    }
}

fn words(fates: &[Fate]) -> String {
    fates.iter().map(|fate| fate.as_str()).collect::<Vec<_>>().join(" or ")
}

/// The fate of the message of phase number `number` as the events show it.
pub fn fate(case: &Case, number: usize, events: &[Event]) -> Fate {
    let recipient = super::run::recipient(case, number);
    let sender = super::run::envelope_sender(case, number);
    let mut fate = Fate::Waits;
    for mail in mails(events) {
        let MailStep::Delivered { from, to, tls } = &mail.step else { continue };
        if to.contains(&recipient) {
            return if *tls { Fate::Tls } else { Fate::Clear };
        }
        if from.is_empty() && to.contains(&sender) && mail.host.ends_with(SENDER) {
            fate = Fate::Bounced;
        }
    }
    fate
}

fn mails(events: &[Event]) -> impl Iterator<Item = &Mail> {
    events.iter().filter_map(|event| match &event.what {
        Observed::Mail(mail) => Some(mail),
        _ => None,
    })
}

fn fetches(events: &[Event]) -> impl Iterator<Item = &Fetch> {
    events.iter().filter_map(|event| match &event.what {
        Observed::Fetch(fetch) => Some(fetch),
        _ => None,
    })
}

fn holds(check: Check, case: &Case, seen: &Seen) -> bool {
    let events = &seen.events;
    let domain = case.domain();
    let host = |label: &str| format!("{label}.{domain}");
    let policy_host = host("mta-sts");
    let asked = |name: &str, kind: RecordType| {
        events.iter().any(|event| match &event.what {
            Observed::Dns(question) => question.kind == kind && question.name.trim_end_matches('.') == name,
            _ => false,
        })
    };
    let requests = || fetches(events).filter(|fetch| matches!(fetch.step, FetchStep::Request { .. }));
    match check {
        Check::RecordAsked => asked(&host("_mta-sts"), RecordType::TXT),
        Check::Fetched => requests().any(|fetch| fetch.host == policy_host),
        Check::NotFetched => !requests().any(|fetch| fetch.host == policy_host),
        Check::RightRequest => {
            let mut all = requests().filter(|fetch| fetch.host == policy_host).peekable();
            let is_right = |fetch: &Fetch| match &fetch.step {
                FetchStep::Request { method, path, host } => {
                    method == "GET"
                        && path == POLICY_PATH
                        && host.trim_end_matches(":443").starts_with(&policy_host)
                }
                _ => true,
            };
            all.peek().is_some() && all.all(is_right)
        }
        Check::NoRequestTo(label) => !fetches(events).any(|fetch| fetch.host == host(label)),
        Check::DeliveredTo(label) => mails(events)
            .filter(|mail| matches!(mail.step, MailStep::Delivered { .. }))
            .all(|mail| mail.host == host(label)),
        Check::Order(labels) => {
            let mut order: Vec<&str> = Vec::new();
            for mail in mails(events).filter(|mail| mail.step == MailStep::Connected) {
                if !order.contains(&mail.host.as_str()) {
                    order.push(&mail.host);
                }
            }
            labels.iter().zip(order).all(|(label, connected)| host(label) == connected)
        }
        Check::MxSni => {
            let uses_sts = asked(&host("_mta-sts"), RecordType::TXT) || requests().next().is_some();
            let has_sni = |mail: &Mail| !matches!(&mail.step, MailStep::Hello(name) if name.as_ref() != Some(&mail.host));
            !uses_sts || mails(events).all(has_sni)
        }
        Check::TlsaAsked(label) => asked(&host(&format!("_25._tcp.{label}")), RecordType::TLSA),
        Check::NoTlsaAsked => !events
            .iter()
            .any(|event| matches!(&event.what, Observed::Dns(question) if question.kind == RecordType::TLSA)),
        Check::NothingInClear => !mails(events).any(|mail| match &mail.step {
            MailStep::Command { line, tls: false } => line.to_ascii_uppercase().starts_with("RCPT TO"),
            _ => false,
        }),
    }
}
