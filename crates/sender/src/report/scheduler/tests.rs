use super::*;
use crate::report::{Addresses, DeliveryLimits, DkimKey, TargetMatch, TargetRule, Transport};
use formats::ResultType;
use formats::limits::REPORTS_PER_HOST;
use formats::report::{PolicyReport, Report, unpack};
use formats::result_type::PolicyType;
use formats::tlsrpt_record::{HttpsUrl, MailAddress, Rua};
use net::BoxFuture;
use net::clock::ManualClock;
use net::dns::{Absence, Answer, Data, Dns, DnsError, Kind, Security};
use net::https::{Bytes, PostError, Posts, Verify};
use net::smtp::{Fault, Mail, MailHosts, SessionFailure, SessionReport, Target, TlsDemand};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use store::outgoing::OutgoingFilter;
use store::tallies::{DayTally, TallyIncrement};
use tokio::sync::{Notify, Semaphore};

/// A simulated world: records by domain, HTTP statuses by host, and a relay that can be down.
#[derive(Default)]
struct World {
    records: Mutex<BTreeMap<String, Result<String, DnsError>>>,
    statuses: Mutex<BTreeMap<String, u16>>,
    relay_is_down: Mutex<bool>,
    relay_panics: Mutex<bool>,
    /// If set, the relay notifies that it has a mail, and accepts it only with a permit.
    gate: Option<(Notify, Semaphore)>,
    mails: Mutex<Vec<Mail>>,
    posted: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Dns for World {
    fn lookup<'a>(&'a self, name: &'a DomainName, _: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let nothing = Absence { security: Security::Insecure, ttl: None };
        let records = self.records.lock().unwrap();
        let found = records.get(name.as_str().trim_start_matches("_smtp._tls.")).cloned();
        let answer = found.unwrap_or(Err(DnsError::NoSuchName(nothing))).map(|text| Answer {
            records: vec![Data::Txt(text.into_bytes())],
            ttl: Duration::from_secs(300),
            security: Security::Insecure,
            aliases: Vec::new(),
            is_split: false,
        });
        Box::pin(async { answer })
    }
}

impl Posts for World {
    fn post<'a>(
        &'a self,
        url: &'a HttpsUrl,
        media_type: &'static str,
        body: Bytes,
        _: Verify,
    ) -> BoxFuture<'a, Result<u16, PostError>> {
        assert_eq!(media_type, "application/tlsrpt+gzip");
        let status = self.statuses.lock().unwrap().get(url.host().as_str()).copied().ok_or(PostError::Time);
        self.posted.lock().unwrap().push((url.to_string(), body.to_vec()));
        Box::pin(async move { status })
    }
}

impl MailHosts for World {
    fn session<'a>(
        &'a self,
        target: &'a Target,
        _: &'a TlsDemand,
        mail: Option<&'a Mail>,
    ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>> {
        let report = SessionReport::new(target);
        let panics = *self.relay_panics.lock().unwrap();
        assert!(!panics, "a defect in the delivery");
        if *self.relay_is_down.lock().unwrap() {
            let fault = Fault::Connect("connection refused".into());
            return Box::pin(async { Err(Box::new(SessionFailure { fault, report })) });
        }
        Box::pin(async move {
            self.mails.lock().unwrap().extend(mail.cloned());
            if let Some((received, may_accept)) = &self.gate {
                received.notify_one();
                may_accept.acquire().await.unwrap().forget();
            }
            Ok(report)
        })
    }
}

fn scheduler(
    store: Store,
    world: &Arc<World>,
    clock: &Arc<ManualClock>,
    rules: Vec<TargetRule>,
) -> Arc<ReportScheduler> {
    let delivery = ReportDelivery {
        dns: world.clone(),
        transport: Transport::Relay {
            host: "127.0.0.1".into(),
            port: 25,
            client: world.clone(),
            demand: TlsDemand::Opportunistic,
        },
        posts: world.clone(),
        verify: Verify::Certificate,
        reporter: Reporter {
            organization: "Sender".into(),
            from: MailAddress::parse("tlsrpt@sender.example").unwrap(),
            contact: MailAddress::parse("tlsrpt@sender.example").unwrap(),
            addresses: Addresses::Full,
        },
        keys: vec![DkimKey::generate(name("sender.example"), "k").unwrap()],
        denied: vec![name("denied.example")],
        target_rules: rules,
        busy: DeliveryLimits::default(),
    };
    Arc::new(ReportScheduler {
        store,
        clock: clock.clone(),
        delivery,
        rules: Rules { excluded: vec![name("excluded.example")], ..Rules::default() },
        counts: Counts::default(),
        stop: Default::default(),
    })
}

struct Bench {
    world: Arc<World>,
    clock: Arc<ManualClock>,
    scheduler: Arc<ReportScheduler>,
    _dir: tempfile::TempDir,
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

const DAY_ONE: &str = "2026-11-24T00:00:00Z";

impl Bench {
    async fn new() -> Self {
        Self::with(World::default()).await
    }

    async fn with(world: World) -> Self {
        Self::with_rules(world, Vec::new()).await
    }

    async fn with_rules(world: World, rules: Vec<TargetRule>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Arc::new(world);
        let clock = Arc::new(ManualClock::new("2026-11-24T12:00:00Z".parse().unwrap()));
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let scheduler = scheduler(store, &world, &clock, rules);
        Self { world, clock, scheduler, _dir: dir }
    }

    /// The scheduler of another process with the same store.
    async fn another(&self) -> Arc<ReportScheduler> {
        let store = Store::open(&self._dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        scheduler(store, &self.world, &self.clock, Vec::new())
    }

    /// Adds a tally of today's sessions with a domain, and publishes its record with these targets.
    async fn add_sessions(&self, domain: &str, rua: &str) {
        self.add_entry(domain, rua, PolicyType::NoPolicyFound, domain).await;
    }

    /// The same for sessions under a policy of this type and domain.
    async fn add_entry(&self, domain: &str, rua: &str, policy_type: PolicyType, policy_domain: &str) {
        let record = format!("v=TLSRPTv1; rua={rua}");
        self.world.records.lock().unwrap().insert(domain.to_owned(), Ok(record.clone()));
        let entry = PolicyReport {
            policy_type,
            policy_string: vec![],
            policy_domain: Some(name(policy_domain)),
            mx_host: vec![],
            successful: 3,
            failed: 0,
            details: vec![],
        };
        let added = TallyIncrement { entries: vec![entry], record: Some(record) };
        let day = DateRange::utc_day(self.clock.now()).start;
        let days = BTreeMap::from([(day, DayTally::from([(name(domain), added)]))]);
        assert_eq!(self.scheduler.store.add_tallies(&days).await.unwrap(), []);
    }

    /// Advances from noon to just past four hours after midnight, when all reports are due, and runs a round.
    async fn run_until_morning(&self) {
        self.clock.advance(12 * 3600 + 4 * 3600 + 60);
        self.scheduler.turn().await.unwrap();
    }

    async fn report(&self, domain: &str) -> Outgoing {
        let filter = OutgoingFilter { domain: Some(name(domain)), most: 1, ..OutgoingFilter::default() };
        self.scheduler.store.outgoing(&filter).await.unwrap().remove(0)
    }

    async fn replies(&self, domain: &str) -> Vec<(String, Reply)> {
        let report = self.report(domain).await;
        let targets = self.scheduler.store.outgoing_targets(report.id).await.unwrap();
        targets.into_iter().map(|target| (target.target, target.reply)).collect()
    }

    fn mails(&self) -> usize {
        self.world.mails.lock().unwrap().len()
    }
}

#[tokio::test]
async fn rpt_11_reports_are_spread_over_four_hours_after_midnight_and_none_is_built_before() {
    let bench = Bench::new().await;
    for n in 0..200 {
        bench.add_sessions(&format!("d{n}.example"), &format!("mailto:r@d{n}.example")).await;
    }
    bench.add_sessions("sub.excluded.example", "mailto:r@excluded.example").await;
    bench.clock.advance(12 * 3600 + 299);
    bench.scheduler.turn().await.unwrap();
    assert_eq!(bench.scheduler.counts.built.get(), 0);
    bench.clock.advance(1);
    bench.scheduler.turn().await.unwrap();
    assert_eq!(bench.scheduler.counts.built.get(), 200);
    let midnight = later(DAY_ONE.parse().unwrap(), DAY);
    let all = bench
        .scheduler
        .store
        .outgoing(&OutgoingFilter { most: 1000, ..OutgoingFilter::default() })
        .await
        .unwrap();
    let delays: BTreeSet<i64> =
        all.iter().map(|report| report.due.duration_since(midnight).as_secs()).collect();
    assert!(delays.len() > 190, "{} moments", delays.len());
    assert!(delays.iter().all(|delay| (300..14_400).contains(delay)), "{delays:?}");
    let early = delays.iter().filter(|delay| **delay < 7200).count();
    assert!((60..140).contains(&early), "{early} of 200 in the first half");
    // Halfway through the night about half of the reports are sent; in the morning all, each once.
    bench.clock.advance(7200 - 300);
    bench.scheduler.turn().await.unwrap();
    assert!((60..140).contains(&bench.mails()), "{}", bench.mails());
    bench.clock.advance(7200);
    for _ in 0..3 {
        bench.scheduler.turn().await.unwrap();
    }
    assert_eq!(bench.mails(), 200);
    assert_eq!(bench.scheduler.counts.sent.get(), 200);
    let unique: BTreeSet<_> =
        bench.world.mails.lock().unwrap().iter().map(|mail| mail.to[0].clone()).collect();
    assert_eq!(unique.len(), 200);
}

#[tokio::test]
async fn rpt_20_it_is_tried_again_with_growing_pauses_for_a_day_and_then_given_up() {
    let bench = Bench::new().await;
    *bench.world.relay_is_down.lock().unwrap() = true;
    bench.add_sessions("a.example", "mailto:r@a.example").await;
    bench.run_until_morning().await;
    let first = bench.clock.now();
    let mut pauses = Vec::new();
    loop {
        let report = bench.report("a.example").await;
        if report.state != DeliveryState::Waiting {
            assert_eq!(report.state, DeliveryState::GivenUp);
            assert!(report.outcome_text.contains("connection refused"), "{}", report.outcome_text);
            break;
        }
        let pause = report.due.duration_since(bench.clock.now()).as_secs();
        pauses.push(pause);
        bench.clock.advance(u32::try_from(pause).unwrap());
        bench.scheduler.turn().await.unwrap();
    }
    assert!(pauses.windows(2).rev().skip(1).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
    assert_eq!(pauses[..3], [300, 600, 1200]);
    assert_eq!(bench.clock.now().duration_since(first).as_secs(), 86_400);
    assert_eq!(bench.scheduler.counts.given_up.get(), 1);
    // The next report is sent as soon as the relay is back.
    bench.add_sessions("b.example", "mailto:r@b.example").await;
    *bench.world.relay_is_down.lock().unwrap() = false;
    bench.run_until_morning().await;
    bench.clock.advance(86_400);
    bench.scheduler.turn().await.unwrap();
    assert_eq!(bench.mails(), 1);
}

#[tokio::test]
async fn a_report_whose_delivery_panics_is_retried_with_a_growing_delay() {
    let bench = Bench::new().await;
    *bench.world.relay_panics.lock().unwrap() = true;
    bench.add_sessions("a.example", "mailto:r@a.example").await;
    bench.run_until_morning().await;
    for pause in [300, 600] {
        let report = bench.report("a.example").await;
        assert_eq!(report.state, DeliveryState::Waiting);
        assert_eq!(report.due.duration_since(bench.clock.now()).as_secs(), i64::from(pause));
        bench.clock.advance(pause);
        bench.scheduler.turn().await.unwrap();
    }
    *bench.world.relay_panics.lock().unwrap() = false;
    bench.clock.advance(1200);
    bench.scheduler.turn().await.unwrap();
    assert_eq!((bench.mails(), bench.report("a.example").await.state), (1, DeliveryState::Sent));
}

#[test]
fn a_report_whose_building_panics_is_left_out() {
    let build = |domain: &DomainName| match domain.as_str() {
        "bad.example" => panic!("a defect in the building"),
        other => other.len(),
    };
    let all = ["a.example", "bad.example", "b.example"].map(name);
    let built: Vec<usize> = all.iter().filter_map(|domain| unless_panic(domain, || build(domain))).collect();
    assert_eq!(built, [9, 9]);
}

#[tokio::test]
async fn rpt_20_every_target_gets_it_once_and_one_that_took_it_is_enough() {
    let bench = Bench::new().await;
    bench.world.statuses.lock().unwrap().extend([("up.example".into(), 201), ("down.example".into(), 503)]);
    bench
        .add_sessions(
            "a.example",
            "mailto:one@a.example,mailto:two@a.example,https://up.example/r,https://down.example/r",
        )
        .await;
    bench.run_until_morning().await;
    assert_eq!(bench.report("a.example").await.state, DeliveryState::Sent);
    let replies = bench.replies("a.example").await;
    let accepted: Vec<&str> =
        replies.iter().filter(|(_, reply)| *reply == Reply::Accepted).map(|(to, _)| to.as_str()).collect();
    assert_eq!(accepted, ["https://up.example/r", "mailto:one@a.example", "mailto:two@a.example"]);
    bench.clock.advance(40_000);
    bench.scheduler.turn().await.unwrap();
    assert_eq!((bench.mails(), bench.world.posted.lock().unwrap().len()), (2, 2));
    // The body of the POST request is the report.
    let posted = bench.world.posted.lock().unwrap()[0].1.clone();
    let report = Report::read(&unpack(&posted).unwrap().0).unwrap().report;
    assert_eq!(report.report_id, bench.report("a.example").await.report_id);
}

#[tokio::test]
async fn rpt_05_dane_sessions_are_reported_to_the_domain_of_the_mail_with_the_tlsa_base_domain() {
    let bench = Bench::new().await;
    bench.world.statuses.lock().unwrap().insert("up.example".into(), 201);
    // The provider of the MX host has a record too, and gets nothing.
    let mx = "mx.provider.example";
    let record = "v=TLSRPTv1; rua=https://provider.example/r".to_owned();
    bench.world.records.lock().unwrap().insert(mx.to_owned(), Ok(record));
    bench.add_entry("a.example", "https://up.example/r", PolicyType::Tlsa, mx).await;
    bench.run_until_morning().await;
    let posted = bench.world.posted.lock().unwrap().clone();
    assert_eq!(posted.iter().map(|(url, _)| url.as_str()).collect::<Vec<_>>(), ["https://up.example/r"]);
    let report = Report::read(&unpack(&posted[0].1).unwrap().0).unwrap().report;
    assert_eq!(report.policies.len(), 1);
    assert_eq!(
        (&report.policies[0].policy_type, &report.policies[0].policy_domain),
        (&PolicyType::Tlsa, &Some(name(mx)))
    );
    assert!(report.report_id.contains(".a.example@"), "{}", report.report_id);
    assert_eq!(bench.report("a.example").await.state, DeliveryState::Sent);
}

#[tokio::test]
async fn rpt_19_statuses_of_https_say_taken_refused_or_again() {
    let bench = Bench::new().await;
    for (status, state, replied) in [
        (200, DeliveryState::Sent, Reply::Accepted),
        (204, DeliveryState::Sent, Reply::Accepted),
        (301, DeliveryState::GivenUp, Reply::Refused),
        (404, DeliveryState::GivenUp, Reply::Refused),
        (429, DeliveryState::Waiting, Reply::Failed),
        (500, DeliveryState::Waiting, Reply::Failed),
    ] {
        let host = format!("s{status}.example");
        bench.world.statuses.lock().unwrap().insert(host.clone(), status);
        bench.add_sessions(&host, &format!("https://{host}/r")).await;
        bench.run_until_morning().await;
        assert_eq!(bench.report(&host).await.state, state, "{status}");
        assert_eq!(bench.replies(&host).await[0].1, replied, "{status}");
        bench.clock.advance(86_400 - 16 * 3600 - 60);
    }
}

#[tokio::test]
async fn reports_go_to_the_targets_of_the_current_record_or_of_the_known_one_if_the_look_up_fails() {
    let bench = Bench::new().await;
    for domain in ["gone.example", "dark.example", "changed.example", "denied.example", "unchanged.example"] {
        bench.add_sessions(domain, &format!("mailto:r@{domain}")).await;
    }
    bench.world.records.lock().unwrap().remove("gone.example");
    bench.world.records.lock().unwrap().insert("dark.example".into(), Err(DnsError::Timeout));
    bench
        .world
        .records
        .lock()
        .unwrap()
        .insert("changed.example".into(), Ok("v=TLSRPTv1; rua=mailto:new@changed.example".into()));
    bench.run_until_morning().await;
    let mut to: Vec<String> =
        bench.world.mails.lock().unwrap().iter().map(|mail| mail.to[0].clone()).collect();
    to.sort();
    assert_eq!(to, ["new@changed.example", "r@dark.example", "r@unchanged.example"]);
    assert_eq!(bench.report("gone.example").await.state, DeliveryState::Unwanted);
    let denied = bench.report("denied.example").await;
    assert_eq!(denied.state, DeliveryState::GivenUp);
    assert!(denied.outcome_text.contains("denies"), "{}", denied.outcome_text);
    // No known record and a failing lookup: the report waits.
    bench.clock.advance(8 * 3600 - 60);
    let day = DateRange::utc_day(bench.clock.now()).start;
    let entry = PolicyReport {
        policy_type: PolicyType::NoPolicyFound,
        policy_string: vec![],
        policy_domain: Some(name("new.example")),
        mx_host: vec![],
        successful: 1,
        failed: 0,
        details: vec![],
    };
    bench.scheduler.store.add_to_tally(day, &[entry]).await.unwrap();
    bench.world.records.lock().unwrap().insert("new.example".into(), Err(DnsError::Timeout));
    bench.run_until_morning().await;
    let waiting = bench.report("new.example").await;
    assert_eq!((waiting.state, waiting.tries), (DeliveryState::Waiting, 1));
    assert!(waiting.outcome_text.contains("_smtp._tls.new.example"), "{}", waiting.outcome_text);
}

#[tokio::test]
async fn rpt_08_ids_differ_between_installations_and_are_the_same_when_built_again() {
    let ids = async |bench: &Bench| {
        bench.scheduler.build().await.unwrap();
        bench.report("a.example").await.report_id
    };
    let [one, other] = [Bench::new().await, Bench::new().await];
    for bench in [&one, &other] {
        bench.add_sessions("a.example", "mailto:r@a.example").await;
        bench.clock.advance(12 * 3600 + 300);
    }
    let first = ids(&one).await;
    assert_ne!(first, ids(&other).await);
    // As after a crash before the report was queued.
    one.scheduler.store.delete_outgoing(one.clock.now()).await.unwrap();
    assert_eq!(ids(&one).await, first);
    one.clock.advance(4 * 3600);
    one.scheduler.turn().await.unwrap();
    let mail = String::from_utf8(one.world.mails.lock().unwrap()[0].message.clone()).unwrap();
    let word = first.split(['-', '.']).nth(1).unwrap();
    assert!(mail.contains(&format!("Message-ID: <{first}>")), "{mail}");
    let unfolded = mail.replace("\r\n\t", "").replace("\r\n ", "");
    assert!(unfolded.contains(&format!("!{word}.json.gz")), "{mail}");
}

fn rule(target: &str, send_to: Option<&[&str]>, copy_to: &[&str]) -> TargetRule {
    let rua = |texts: &[&str]| texts.iter().map(|text| Rua::parse(text).unwrap().unwrap()).collect();
    let target = (!target.is_empty()).then(|| TargetMatch::Host(name(target)));
    TargetRule { about: None, target, send_to: send_to.map(rua), copy_to: rua(copy_to) }
}

#[tokio::test]
async fn rules_replace_block_and_copy_and_each_target_says_which_one() {
    let rules = vec![
        rule("dead.example", Some(&["mailto:new@live.example"]), &[]),
        rule("spam.example", Some(&[]), &[]),
        rule("", None, &["https://copies.example/in"]),
    ];
    let bench = Bench::with_rules(World::default(), rules).await;
    bench.add_sessions("a.example", "mailto:old@dead.example").await;
    bench.add_sessions("b.example", "mailto:r@spam.example").await;
    bench.world.statuses.lock().unwrap().insert("copies.example".into(), 200);
    bench.run_until_morning().await;
    let (a, b) = (bench.report("a.example").await, bench.report("b.example").await);
    assert_eq!((a.state, bench.mails()), (DeliveryState::Sent, 1));
    let said: Vec<(String, String)> = {
        let targets = bench.scheduler.store.outgoing_targets(a.id).await.unwrap();
        targets.into_iter().map(|target| (target.target, target.reply_text)).collect()
    };
    assert_eq!(said[0].0, "https://copies.example/in");
    assert!(said[0].1.contains("the rule for domain *"), "{said:?}");
    assert_eq!(said[1].0, "mailto:new@live.example");
    assert!(said[1].1.contains("the rule for target dead.example"), "{said:?}");
    // Only the copy is left, so it decides.
    assert_eq!(b.state, DeliveryState::Sent);
    let blocked = Bench::with_rules(World::default(), vec![rule("spam.example", Some(&[]), &[])]).await;
    blocked.add_sessions("b.example", "mailto:r@spam.example").await;
    blocked.run_until_morning().await;
    let b = blocked.report("b.example").await;
    assert_eq!(
        (b.state, b.outcome_text.as_str()),
        (DeliveryState::GivenUp, "blocked by the rule for target spam.example")
    );
}

#[tokio::test]
async fn a_copy_that_fails_does_not_send_the_report_again() {
    let rules = vec![rule("", None, &["https://copies.example/in"])];
    let bench = Bench::with_rules(World::default(), rules).await;
    bench.add_sessions("a.example", "mailto:r@a.example").await;
    bench.run_until_morning().await;
    assert_eq!((bench.report("a.example").await.state, bench.mails()), (DeliveryState::Waiting, 1));
    bench.world.statuses.lock().unwrap().insert("copies.example".into(), 200);
    bench.clock.advance(3600);
    bench.scheduler.turn().await.unwrap();
    assert_eq!((bench.report("a.example").await.state, bench.mails()), (DeliveryState::Sent, 1));
}

#[tokio::test]
async fn a_report_with_a_busy_host_is_sent_to_its_other_targets_and_moves_behind_what_was_not_tried() {
    let rules = vec![rule("", None, &["https://copies.example/in"])];
    let mut bench = Bench::with_rules(World::default(), rules).await;
    Arc::get_mut(&mut bench.scheduler).unwrap().delivery.busy.wait = Duration::ZERO;
    bench.world.statuses.lock().unwrap().insert("copies.example".into(), 200);
    let mut held = Vec::new();
    for host in ["copies.example", "shared.example"] {
        for _ in 0..REPORTS_PER_HOST {
            held.push(bench.scheduler.delivery.busy.acquire(&name(host)).await.unwrap());
        }
    }
    bench.add_sessions("a.example", "mailto:r@a.example").await;
    bench.add_sessions("b.example", "mailto:r@shared.example").await;
    bench.run_until_morning().await;
    assert_eq!(bench.mails(), 1);
    for domain in ["a.example", "b.example"] {
        let report = bench.report(domain).await;
        assert_eq!((report.state, report.tries), (DeliveryState::Waiting, 0));
        assert!(report.due > bench.clock.now(), "{domain} is due again at once");
    }
    drop(held);
    bench.clock.advance(180);
    bench.scheduler.turn().await.unwrap();
    for domain in ["a.example", "b.example"] {
        assert_eq!(bench.report(domain).await.state, DeliveryState::Sent);
    }
    assert_eq!((bench.mails(), bench.world.posted.lock().unwrap().len()), (2, 2));
}

#[tokio::test]
async fn a_partly_built_day_is_completed_and_no_report_is_sent_twice() {
    let bench = Bench::new().await;
    for domain in ["a.example", "b.example"] {
        bench.add_sessions(domain, &format!("mailto:r@{domain}")).await;
    }
    let day: Timestamp = DAY_ONE.parse().unwrap();
    bench.clock.advance(12 * 3600 + 300);
    // As after a crash during the build: the day is closed, and one of two reports is queued.
    bench.scheduler.store.close_day(day, false).await.unwrap();
    let tally = bench.scheduler.store.tally(day).await.unwrap().remove(0);
    let one = new_report(day, tally, &[], &bench.scheduler.delivery.reporter, "k3x9", Duration::ZERO)
        .unwrap()
        .unwrap();
    bench.scheduler.store.put_outgoing(&[one]).await.unwrap();
    for _ in 0..3 {
        bench.clock.advance(8 * 3600);
        bench.scheduler.turn().await.unwrap();
    }
    assert_eq!(bench.mails(), 2);
}

#[tokio::test]
async fn old_data_is_deleted_and_days_that_ended_long_ago_get_no_reports() {
    let bench = Bench::new().await;
    bench.add_sessions("a.example", "mailto:r@a.example").await;
    bench.clock.advance(9 * 86_400);
    bench.scheduler.turn().await.unwrap();
    assert_eq!((bench.mails(), bench.scheduler.counts.built.get()), (0, 0));
    bench.clock.advance(100 * 86_400);
    bench.scheduler.delete_old(&bench.scheduler.store).await.unwrap();
    assert_eq!(bench.scheduler.store.tally(DAY_ONE.parse().unwrap()).await.unwrap(), []);
}

#[tokio::test]
async fn at_the_shutdown_results_of_running_deliveries_are_stored_and_no_new_ones_start() {
    let bench =
        Bench::with(World { gate: Some((Notify::new(), Semaphore::new(0))), ..World::default() }).await;
    let world = bench.world.clone();
    let (received, may_accept) = world.gate.as_ref().unwrap();
    let domains = REPORTS_PER_HOST + 3;
    for n in 0..domains {
        bench.add_sessions(&format!("d{n}.example"), "mailto:r@box.example").await;
    }
    bench.clock.advance(20 * 3600);
    bench.scheduler.build().await.unwrap();
    let running = tokio::spawn(bench.scheduler.clone().run());
    while bench.mails() < REPORTS_PER_HOST {
        received.notified().await;
    }
    bench.scheduler.stop.cancel();
    may_accept.add_permits(REPORTS_PER_HOST);
    running.await.unwrap();
    let all = bench
        .scheduler
        .store
        .outgoing(&OutgoingFilter { most: 99, ..OutgoingFilter::default() })
        .await
        .unwrap();
    let sent = all.iter().filter(|report| report.state == DeliveryState::Sent).count();
    assert_eq!((all.len(), sent, bench.mails()), (domains, REPORTS_PER_HOST, REPORTS_PER_HOST));
    // What was not sent does not wait for the end of the claims.
    let now = bench.clock.now();
    let due = bench.scheduler.store.claim_outgoing(now, now, 99).await.unwrap();
    assert_eq!(due.len(), domains - REPORTS_PER_HOST);
}

#[tokio::test]
async fn several_processes_with_one_store_build_and_send_each_report_once() {
    let bench = Bench::new().await;
    for n in 0..100 {
        bench.add_sessions(&format!("d{n}.example"), &format!("mailto:r@d{n}.example")).await;
    }
    let others = [bench.another().await, bench.another().await];
    bench.clock.advance(16 * 3600 + 60);
    let (one, two, three) = tokio::join!(bench.scheduler.turn(), others[0].turn(), others[1].turn());
    [one, two, three].into_iter().for_each(|done| done.unwrap());
    let to: BTreeSet<_> = bench.world.mails.lock().unwrap().iter().map(|mail| mail.to[0].clone()).collect();
    assert_eq!((bench.mails(), to.len()), (100, 100));
    let sum = |count: fn(&Counts) -> &Counter| {
        [&bench.scheduler, &others[0], &others[1]].iter().map(|one| count(&one.counts).get()).sum::<u64>()
    };
    assert_eq!((sum(|counts| &counts.built), sum(|counts| &counts.sent)), (100, 100));
}

#[tokio::test]
async fn one_process_builds_the_reports_and_one_that_lost_its_lease_queues_none() {
    let bench = Bench::new().await;
    bench.add_sessions("a.example", "mailto:r@a.example").await;
    bench.clock.advance(16 * 3600 + 60);
    let store = &bench.scheduler.store;
    let queued = async || {
        let all = OutgoingFilter { most: 9, ..OutgoingFilter::default() };
        store.outgoing(&all).await.unwrap().len()
    };
    let (now, minute) = (bench.clock.now(), Duration::from_secs(60));
    let lease = store.acquire("building", "one", now, minute).await.unwrap().unwrap();
    // The process stands still, and another one gets the lease.
    let next = store.take_lease("building", "one", "other", now, minute).await.unwrap().unwrap();
    let lost = bench.scheduler.build_in(&store.under(&lease)).await.unwrap_err();
    assert!(matches!(lost, SchedulerError::Store(StoreError::LeaseLost { .. })), "{lost}");
    assert_eq!(queued().await, 0);
    let builds = tokio::spawn(bench.another().await.keep_building(store.under(&next)));
    while queued().await == 0 {
        tokio::task::yield_now().await;
    }
    builds.abort();
}

#[tokio::test]
async fn a_report_of_a_process_that_hangs_is_sent_by_another_and_its_late_result_changes_nothing() {
    let bench =
        Bench::with(World { gate: Some((Notify::new(), Semaphore::new(0))), ..World::default() }).await;
    let world = bench.world.clone();
    let (received, may_accept) = world.gate.as_ref().unwrap();
    bench.add_sessions("a.example", "mailto:r@a.example").await;
    bench.clock.advance(16 * 3600 + 60);
    let (slow, other) = (bench.scheduler.clone(), bench.another().await);
    let hangs = tokio::spawn(async move { slow.turn().await });
    received.notified().await;
    other.turn().await.unwrap();
    assert_eq!(bench.mails(), 1, "the report is claimed");
    bench.clock.advance(15 * 60);
    let second = other.clone();
    let sends = tokio::spawn(async move { second.turn().await });
    received.notified().await;
    may_accept.add_permits(2);
    hangs.await.unwrap().unwrap();
    sends.await.unwrap().unwrap();
    let mails: BTreeSet<_> =
        world.mails.lock().unwrap().iter().map(|mail| message_id(&mail.message)).collect();
    assert_eq!((bench.mails(), mails.len()), (2, 1), "the same ID");
    assert_eq!((bench.scheduler.counts.sent.get(), other.counts.sent.get()), (0, 1));
    assert_eq!(bench.report("a.example").await.state, DeliveryState::Sent);
}

fn message_id(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    text.lines().find(|line| line.starts_with("Message-ID:")).unwrap().to_owned()
}

#[tokio::test]
async fn a_claim_is_renewed_before_each_further_target() {
    let bench =
        Bench::with(World { gate: Some((Notify::new(), Semaphore::new(0))), ..World::default() }).await;
    let world = bench.world.clone();
    let (received, may_accept) = world.gate.as_ref().unwrap();
    bench.add_sessions("a.example", "mailto:one@a.example,mailto:two@b.example,mailto:three@c.example").await;
    bench.clock.advance(16 * 3600 + 60);
    let (slow, other) = (bench.scheduler.clone(), bench.another().await);
    let sends = tokio::spawn(async move { slow.turn().await });
    for target in 1..=3 {
        received.notified().await;
        // Each target takes almost as long as it may.
        bench.clock.advance(590);
        other.turn().await.unwrap();
        assert_eq!(bench.mails(), target, "another process has taken the report");
        may_accept.add_permits(1);
    }
    sends.await.unwrap().unwrap();
    assert_eq!(bench.report("a.example").await.state, DeliveryState::Sent);
}

#[tokio::test]
async fn a_report_is_retried_after_a_clock_that_was_a_year_ahead_is_set_right() {
    const YEAR: i64 = 365 * 86_400;
    let bench = Bench::new().await;
    bench.add_sessions("a.example", "mailto:r@a.example").await;
    bench.clock.advance(16 * 3600 + 60);
    bench.scheduler.build().await.unwrap();
    *bench.world.relay_is_down.lock().unwrap() = true;
    bench.clock.set_by(YEAR);
    bench.scheduler.turn().await.unwrap();
    assert_eq!(bench.report("a.example").await.tries, 1);
    bench.clock.set_by(-YEAR);
    *bench.world.relay_is_down.lock().unwrap() = false;
    bench.scheduler.turn().await.unwrap();
    assert_eq!((bench.report("a.example").await.state, bench.mails()), (DeliveryState::Sent, 1));
}

#[tokio::test]
async fn a_clock_that_steps_back_sends_no_report_twice() {
    let bench = Bench::new().await;
    bench.add_sessions("a.example", "mailto:r@a.example").await;
    bench.run_until_morning().await;
    bench.clock.set_by(-2 * 86_400);
    bench.scheduler.turn().await.unwrap();
    bench.clock.set_by(30 * 86_400);
    bench.scheduler.turn().await.unwrap();
    assert_eq!(bench.mails(), 1);
    assert_eq!(bench.scheduler.counts.sent.get(), 1);
}

#[tokio::test]
async fn rpt_26_a_policy_in_testing_is_looked_at_and_its_report_tells_the_truth() {
    use crate::report::{Hosts, TestingProber};
    let bench = Bench::new().await;
    let day: Timestamp = DAY_ONE.parse().unwrap();
    let lines = ["version: STSv1", "mode: testing", "mx: mx1.other.example", "max_age: 86400"];
    let entry = PolicyReport {
        policy_type: PolicyType::Sts,
        policy_string: lines.map(str::to_owned).to_vec(),
        policy_domain: Some(name("a.example")),
        mx_host: vec!["mx1.other.example".into()],
        successful: 9,
        failed: 0,
        details: vec![],
    };
    bench.scheduler.store.add_to_tally(day, &[entry]).await.unwrap();
    let prober = TestingProber {
        store: bench.scheduler.store.clone(),
        clock: bench.clock.clone(),
        dns: Arc::new(Addressed),
        mail: bench.world.clone(),
        counts: crate::report::ProbeCounts::default(),
    };
    let mut hosts = Hosts::new();
    prober.run_round(&mut hosts).await.unwrap();
    prober.run_round(&mut hosts).await.unwrap();
    let probes = bench.scheduler.store.testing_probes(day, &name("a.example")).await.unwrap();
    assert_eq!(probes.len(), 1, "not twice within six hours: {probes:?}");
    assert_eq!(probes[0].failure, Some(ResultType::ValidationFailure));
    bench.clock.advance(6 * 3600);
    prober.run_round(&mut hosts).await.unwrap();
    assert_eq!(bench.scheduler.store.testing_probes(day, &name("a.example")).await.unwrap().len(), 2);
    bench.clock.advance(6 * 3600 + 300);
    bench.scheduler.build().await.unwrap();
    let report = bench.report("a.example").await;
    assert_eq!((report.successful, report.failed), (0, 9));
}

/// A DNS in which each name has the MX host `mx1` with an address.
struct Addressed;

impl Dns for Addressed {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let data = match kind {
            Kind::Mx => Data::Mx(net::dns::Mx {
                preference: 1,
                exchange: net::dns::Exchange::Host(name.below("mx1").unwrap()),
            }),
            Kind::A => Data::A([192, 0, 2, 1].into()),
            _ => return Box::pin(async { Err(DnsError::Timeout) }),
        };
        Box::pin(async {
            Ok(Answer {
                records: vec![data],
                ttl: Duration::from_secs(300),
                security: Security::Insecure,
                aliases: Vec::new(),
                is_split: false,
            })
        })
    }
}
