use super::super::webhook::tests::{receive, receive_only, tls};
use super::*;
use net::clock::ManualClock;
use receiver::rollout::guard::AlertKind;
use store::notices::NewNotice;

fn event(domain: &str, event: EventKind) -> Event {
    Event {
        schema: 1,
        event,
        tenant: None,
        domain: domain.to_owned(),
        at: Timestamp::from_second(1_790_000_000).unwrap(),
        alert: Alert {
            kind: AlertKind::MxUncovered,
            subject: "mx9.example.org".to_owned(),
            what: "mx9.example.org is an MX host, and the policy does not name it".to_owned(),
            consequence: "Senders refuse to deliver to it.".into(),
            remedy: "sternpost apply example.org".to_owned(),
            cause: None,
            domains: Vec::new(),
        },
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    out: std::path::PathBuf,
    clock: Arc<ManualClock>,
    messenger: Messenger,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_790_000_000).unwrap()));
        let out = dir.path().join("out");
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let messenger = Messenger {
            tenants: TenantList::new(&store),
            store,
            clock: clock.clone(),
            webhook: None,
            format: WebhookFormat::Json,
            transport: Some(Arc::new(Transport::Folder(out.clone()))),
            from: MailAddress::parse("sternpost@example.net").ok(),
            to: vec![MailAddress::parse("ops@example.net").unwrap()],
            counts: NoticeCounts::default(),
        };
        Self { _dir: dir, out, clock, messenger }
    }

    /// The messenger of another process with the same store.
    async fn another(&self) -> Messenger {
        Messenger {
            tenants: self.messenger.tenants.clone(),
            store: Store::open(&self._dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap(),
            clock: self.clock.clone(),
            webhook: None,
            format: WebhookFormat::Json,
            transport: Some(Arc::new(Transport::Folder(self.out.clone()))),
            from: self.messenger.from.clone(),
            to: self.messenger.to.clone(),
            counts: NoticeCounts::default(),
        }
    }

    async fn raise(&self, event: &Event) {
        let channels = [channel(&self.messenger.to[0])];
        let notice = NewNotice { channels: &channels, changed_at: self.clock.now(), content: event };
        let domain = formats::DomainName::parse(&event.domain).unwrap();
        self.messenger
            .store
            .raise(&domain, "k", "s", self.clock.now(), &event.alert, Some(notice))
            .await
            .unwrap();
    }

    /// Does once what each queue does.
    async fn round(&self) {
        round_of(&self.messenger).await;
    }

    fn mails(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.out).map(|files| files.collect::<Vec<_>>()).unwrap_or_default();
        files.into_iter().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }
}

async fn round_of(messenger: &Messenger) {
    for queue in messenger.queues() {
        messenger.deliver(queue).await.unwrap();
    }
}

#[tokio::test]
async fn several_processes_with_one_store_send_each_notice_once_and_at_the_pace_of_one() {
    let fixture = Fixture::new().await;
    let others = [fixture.another().await, fixture.another().await];
    let all = async || {
        tokio::join!(fixture.round(), round_of(&others[0]), round_of(&others[1]));
    };
    fixture.raise(&event("example.org", EventKind::Raised)).await;
    all().await;
    assert_eq!(fixture.mails().len(), 1);
    fixture.raise(&event("example.com", EventKind::Raised)).await;
    all().await;
    assert_eq!(fixture.mails().len(), 1, "a second mail within a minute");
    fixture.clock.set_by(61);
    all().await;
    all().await;
    assert_eq!(fixture.mails().len(), 2);
}

#[tokio::test]
async fn the_notice_of_a_process_that_died_is_sent_by_another_with_the_same_id() {
    let mut fixture = Fixture::new().await;
    let mut other = fixture.another().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    for messenger in [&mut fixture.messenger, &mut other] {
        messenger.webhook = Some(Arc::new(Webhook::new(&url, None, true, tls()).unwrap()));
    }
    let told = event("example.org", EventKind::Raised);
    let domain = formats::DomainName::parse("example.org").unwrap();
    let (channels, now) = ([WEBHOOK.to_owned()], fixture.clock.now());
    let notice = NewNotice { channels: &channels, changed_at: now, content: &told };
    other.store.raise(&domain, "k", "s", now, &told.alert, Some(notice)).await.unwrap();
    let webhook = fixture.messenger.webhook.as_ref().unwrap();
    let dies = fixture.messenger.deliver(Queue::Webhook(webhook));
    let (_open, head, _) = {
        let mut dies = std::pin::pin!(dies);
        tokio::select! {
            _ = &mut dies => unreachable!("it waits for the answer"),
            request = receive_only(&listener) => request,
        }
    };
    // The claim of the one that died holds for a while.
    let webhook = other.webhook.as_ref().unwrap();
    other.deliver(Queue::Webhook(webhook)).await.unwrap();
    assert_eq!(other.counts.by_channel.of(&[WEBHOOK, "delivered"]).get(), 0);
    fixture.clock.set_by(60);
    let (done, (again, _)) =
        tokio::join!(other.deliver(Queue::Webhook(webhook)), receive(&listener, "204 No Content"));
    done.unwrap();
    let id = |head: &str| head.lines().find(|line| line.starts_with("webhook-id: ")).unwrap().to_owned();
    assert_eq!(id(&head), id(&again));
    assert_eq!(other.counts.by_channel.of(&[WEBHOOK, "delivered"]).get(), 1);
    assert_eq!(
        other.store.claim_channel(WEBHOOK, later(now, SignedDuration::from_hours(1)), now).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn the_first_alert_is_sent_at_once_and_those_of_the_next_minute_in_one_message() {
    let fixture = Fixture::new().await;
    fixture.raise(&event("example.org", EventKind::Raised)).await;
    fixture.round().await;
    let mails = fixture.mails();
    assert_eq!(mails.len(), 1);
    for part in [
        "To: <ops@example.net>",
        "Subject: [sternpost] example.org: mx-uncovered mx9.example.org",
        "Auto-Submitted: auto-generated",
        "What to do: sternpost apply example.org",
        "Senders refuse to deliver to it.",
    ] {
        assert!(mails[0].contains(part), "{part}: {}", mails[0]);
    }
    for _ in 0..60 {
        fixture.raise(&event("example.com", EventKind::Raised)).await;
    }
    fixture.raise(&event("example.org", EventKind::Over)).await;
    fixture.round().await;
    assert_eq!(fixture.mails().len(), 1, "a second mail within a minute");
    fixture.clock.set_by(61);
    fixture.round().await;
    let mails = fixture.mails();
    let second = mails.iter().find(|mail| mail.contains("[sternpost] 60 alerts, 1 over")).unwrap();
    assert!(mails.len() == 2 && second.contains("And 11 more"), "{second}");
}

#[test]
fn an_alert_about_many_domains_names_them() {
    let mut event = event("d0.example", EventKind::Raised);
    assert_eq!(subject(&[&event]), "[sternpost] d0.example: mx-uncovered mx9.example.org");
    event.alert.domains = (0..60).map(|number| format!("d{number}.example")).collect();
    assert_eq!(subject(&[&event]), "[sternpost] d0.example and 59 more: mx-uncovered mx9.example.org");
    let body = body(&[&event]);
    assert!(body.contains("d0.example, d1.example,") && body.contains("d49.example and 10 more: "), "{body}");
}

#[test]
fn the_webhook_gets_the_cause_and_all_domains_in_one_event() {
    let mut event = event("d0.example", EventKind::Raised);
    event.alert.cause = Some("mx9.example.org".to_owned());
    event.alert.domains = (0..3).map(|number| format!("d{number}.example")).collect();
    let expected = serde_json::json!({
        "schema": 1,
        "event": "raised",
        "domain": "d0.example",
        "at": "2026-09-21T14:13:20Z",
        "alert": {
            "kind": "mx-uncovered",
            "subject": "mx9.example.org",
            "what": "mx9.example.org is an MX host, and the policy does not name it",
            "consequence": "Senders refuse to deliver to it.",
            "remedy": "sternpost apply example.org",
            "cause": "mx9.example.org",
            "domains": ["d0.example", "d1.example", "d2.example"],
        },
    });
    assert_eq!(serde_json::to_value(&event).unwrap(), expected);
    // The end of the alert has the same domains, so that a receiver can match both.
    let over = Event { event: EventKind::Over, ..event };
    let json = serde_json::to_value(&over).unwrap();
    assert_eq!((&json["event"], &json["alert"]), (&"over".into(), &expected["alert"]));
}

#[tokio::test]
async fn undelivered_notices_are_retried_and_dropped_after_a_day() {
    let fixture = Fixture::new().await;
    // A file with the folder's name makes delivery fail.
    std::fs::write(&fixture.out, "").unwrap();
    fixture.raise(&event("example.org", EventKind::Raised)).await;
    fixture.round().await;
    std::fs::remove_file(&fixture.out).unwrap();
    fixture.round().await;
    assert!(fixture.mails().is_empty(), "it was sent before the retry was due");
    fixture.clock.set_by(5);
    fixture.round().await;
    assert_eq!(fixture.mails().len(), 1);
    fixture.raise(&event("example.com", EventKind::Raised)).await;
    fixture.clock.set_by(25 * 3600);
    fixture.round().await;
    assert_eq!(fixture.mails().len(), 1, "an old notice was sent");
    let counts = &fixture.messenger.counts;
    let mail = |outcome| counts.by_channel.of(&["mail", outcome]).get();
    assert_eq!((mail("delivered"), mail("failed"), counts.dropped.get()), (1, 1, 1));
}

#[tokio::test]
async fn weekly_summaries_are_mailed_beside_alerts_and_retried() {
    let fixture = Fixture::new().await;
    let told = SummaryMail { subject: "[sternpost] a week".into(), body: "Größe: 3\n".into() };
    let channels = [weekly_channel(&fixture.messenger.to[0])];
    let notice = NewNotice { channels: &channels, changed_at: fixture.clock.now(), content: &told };
    let due = fixture.clock.now();
    assert!(fixture.messenger.store.do_once("weekly", due, Some(notice)).await.unwrap());
    std::fs::write(&fixture.out, "").unwrap();
    fixture.round().await;
    std::fs::remove_file(&fixture.out).unwrap();
    fixture.raise(&event("example.org", EventKind::Raised)).await;
    fixture.round().await;
    assert_eq!(fixture.mails().len(), 1, "the alert does not wait for the summary");
    fixture.clock.set_by(5);
    fixture.round().await;
    fixture.round().await;
    let mails = fixture.mails();
    let summary = mails.iter().find(|mail| mail.contains("Subject: [sternpost] a week")).unwrap();
    assert!(mails.len() == 2 && summary.contains("Auto-Submitted: auto-generated"), "{summary}");
}

/// A webhook that accepts connections and never answers.
#[tokio::test]
async fn a_webhook_that_never_answers_delays_no_mail() {
    let mut fixture = Fixture::new().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    fixture.messenger.webhook = Some(Arc::new(Webhook::new(&url, None, true, tls()).unwrap()));
    let channels = [WEBHOOK.to_owned(), channel(&fixture.messenger.to[0])];
    let told = event("example.org", EventKind::Raised);
    let domain = formats::DomainName::parse("example.org").unwrap();
    let now = fixture.clock.now();
    let notice = NewNotice { channels: &channels, changed_at: now, content: &told };
    let store = &fixture.messenger.store;
    store.raise(&domain, "k", "s", now, &told.alert, Some(notice)).await.unwrap();
    let Fixture { messenger, .. } = &fixture;
    let is_mailed = async {
        // The request is under way before the mail is looked for.
        let _open = silent.accept().await.unwrap();
        while fixture.mails().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        messenger.counts.by_channel.of(&[WEBHOOK, "failed"]).get()
    };
    let deliveries = join_all(messenger.queues().map(|queue| messenger.deliver_all(queue)));
    let failed = tokio::select! {
        failed = is_mailed => failed,
        _ = deliveries => unreachable!("the queues never end"),
    };
    assert_eq!(failed, 0, "the mail waited until the webhook had failed");
}

#[tokio::test]
async fn notices_of_a_further_tenant_are_delivered_and_name_it() {
    let fixture = Fixture::new().await;
    let store = &fixture.messenger.store;
    let now = fixture.clock.now();
    let name: TenantName = "acme".parse().unwrap();
    let tenant = store.add_tenant(&name, "Acme", now).await.unwrap().unwrap();
    let of_acme = Event { tenant: Some(name), ..event("example.org", EventKind::Raised) };
    let channels = [channel(&fixture.messenger.to[0])];
    let notice = NewNotice { channels: &channels, changed_at: now, content: &of_acme };
    let domain = formats::DomainName::parse("example.org").unwrap();
    store.of_tenant(tenant).raise(&domain, "k", "s", now, &of_acme.alert, Some(notice)).await.unwrap();
    for queue in fixture.messenger.queues() {
        fixture.messenger.deliver_of_tenants(queue).await.unwrap();
    }
    let [mail] = &fixture.mails()[..] else { panic!("{:?}", fixture.mails()) };
    assert!(mail.contains("example.org (tenant acme)"), "{mail}");
    assert!(serde_json::to_string(&of_acme).unwrap().contains(r#""tenant":"acme""#));
    assert!(!serde_json::to_string(&event("example.org", EventKind::Over)).unwrap().contains("tenant"));
}
