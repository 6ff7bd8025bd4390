use super::*;
use crate::report::{Addresses, DeliveryLimits, DkimKey, Transport};
use formats::ResultType;
use formats::limits::REPORTS_PER_HOST;
use formats::report::{PolicyReport, Report, unpack};
use formats::result_type::PolicyType;
use formats::tlsrpt_record::{HttpsUrl, MailAddress};
use net::BoxFuture;
use net::clock::ManualClock;
use net::dns::{Absence, Answer, Data, Dns, DnsError, Kind, Security};
use net::https::{Bytes, PostError, Posts, Verify};
use net::smtp::{Fault, Mail, MailHosts, SessionFailure, SessionReport, Target, TlsDemand};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use store::outgoing::OutgoingFilter;
use store::tallies::{Added, DayTally};
use tokio::sync::{Notify, Semaphore};

/// What the world says: records by domain, statuses of hosts by HTTPS, and the relay's mood.
#[derive(Default)]
struct World {
    records: Mutex<BTreeMap<String, Result<String, DnsError>>>,
    statuses: Mutex<BTreeMap<String, u16>>,
    relay_is_down: Mutex<bool>,
    /// The relay tells that it has a mail, and says that it took it when it may.
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
        if *self.relay_is_down.lock().unwrap() {
            let fault = Fault::Connect("nobody is there".into());
            return Box::pin(async { Err(Box::new(SessionFailure { fault, report })) });
        }
        Box::pin(async move {
            self.mails.lock().unwrap().extend(mail.cloned());
            if let Some((taken, may_say)) = &self.gate {
                taken.notify_one();
                may_say.acquire().await.unwrap().forget();
            }
            Ok(report)
        })
    }
}

struct Place {
    world: Arc<World>,
    clock: Arc<ManualClock>,
    scheduler: Arc<ReportScheduler>,
    _dir: tempfile::TempDir,
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

const DAY_ONE: &str = "2026-11-24T00:00:00Z";

impl Place {
    async fn new() -> Self {
        Self::with(World::default()).await
    }

    async fn with(world: World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Arc::new(world);
        let clock = Arc::new(ManualClock::new("2026-11-24T12:00:00Z".parse().unwrap()));
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
                contact: MailAddress::parse("tlsrpt@sender.example").unwrap(),
                addresses: Addresses::Full,
            },
            keys: vec![DkimKey::generate(name("sender.example"), "k").unwrap()],
            denied: vec![name("denied.example")],
            busy: DeliveryLimits::default(),
        };
        let scheduler = ReportScheduler {
            store: Store::open(&dir.path().join("s.db")).await.unwrap(),
            clock: clock.clone(),
            delivery,
            rules: Rules { excluded: vec![name("excluded.example")], ..Rules::default() },
            counts: Counts::default(),
            stop: Default::default(),
        };
        Self { world, clock, scheduler: Arc::new(scheduler), _dir: dir }
    }

    /// A day of mail to a domain whose record has these targets.
    async fn mail(&self, domain: &str, rua: &str) {
        let record = format!("v=TLSRPTv1; rua={rua}");
        self.world.records.lock().unwrap().insert(domain.to_owned(), Ok(record.clone()));
        let entry = PolicyReport {
            policy_type: PolicyType::NoPolicyFound,
            policy_string: vec![],
            policy_domain: Some(name(domain)),
            mx_host: vec![],
            successful: 3,
            failed: 0,
            details: vec![],
        };
        let added = Added { entries: vec![entry], record: Some(record) };
        let day = DateRange::utc_day(self.clock.now()).start;
        let days = BTreeMap::from([(day, DayTally::from([(name(domain), added)]))]);
        assert_eq!(self.scheduler.store.add_tallies(&days).await.unwrap(), []);
    }

    /// To four hours and a bit past midnight: all reports have gone.
    async fn morning(&self) {
        self.clock.advance(12 * 3600 + 4 * 3600 + 60);
        self.scheduler.turn().await.unwrap();
    }

    async fn report(&self, domain: &str) -> Outgoing {
        let wanted = OutgoingFilter { domain: Some(name(domain)), most: 1, ..OutgoingFilter::default() };
        self.scheduler.store.outgoing(&wanted).await.unwrap().remove(0)
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
    let place = Place::new().await;
    for n in 0..200 {
        place.mail(&format!("d{n}.example"), &format!("mailto:r@d{n}.example")).await;
    }
    place.mail("sub.excluded.example", "mailto:r@excluded.example").await;
    place.clock.advance(12 * 3600 + 299);
    place.scheduler.turn().await.unwrap();
    assert_eq!(place.scheduler.counts.built.get(), 0);
    place.clock.advance(1);
    place.scheduler.turn().await.unwrap();
    assert_eq!(place.scheduler.counts.built.get(), 200);
    let midnight = later(DAY_ONE.parse().unwrap(), DAY);
    let all = place
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
    // Half of the night: half of the reports; in the morning all, each once.
    place.clock.advance(7200 - 300);
    place.scheduler.turn().await.unwrap();
    assert!((60..140).contains(&place.mails()), "{}", place.mails());
    place.clock.advance(7200);
    for _ in 0..3 {
        place.scheduler.turn().await.unwrap();
    }
    assert_eq!(place.mails(), 200);
    assert_eq!(place.scheduler.counts.sent.get(), 200);
    let unique: BTreeSet<_> =
        place.world.mails.lock().unwrap().iter().map(|mail| mail.to[0].clone()).collect();
    assert_eq!(unique.len(), 200);
}

#[tokio::test]
async fn rpt_20_it_is_tried_again_with_growing_pauses_for_a_day_and_then_given_up() {
    let place = Place::new().await;
    *place.world.relay_is_down.lock().unwrap() = true;
    place.mail("a.example", "mailto:r@a.example").await;
    place.morning().await;
    let first = place.clock.now();
    let mut pauses = Vec::new();
    loop {
        let report = place.report("a.example").await;
        if report.state != DeliveryState::Waiting {
            assert_eq!(report.state, DeliveryState::GivenUp);
            assert!(report.said.contains("nobody is there"), "{}", report.said);
            break;
        }
        let pause = report.due.duration_since(place.clock.now()).as_secs();
        pauses.push(pause);
        place.clock.advance(u32::try_from(pause).unwrap());
        place.scheduler.turn().await.unwrap();
    }
    assert!(pauses.windows(2).rev().skip(1).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
    assert_eq!(pauses[..3], [300, 600, 1200]);
    assert_eq!(place.clock.now().duration_since(first).as_secs(), 86_400);
    assert_eq!(place.scheduler.counts.given_up.get(), 1);
    // The next one goes as soon as the relay is back.
    place.mail("b.example", "mailto:r@b.example").await;
    *place.world.relay_is_down.lock().unwrap() = false;
    place.morning().await;
    place.clock.advance(86_400);
    place.scheduler.turn().await.unwrap();
    assert_eq!(place.mails(), 1);
}

#[tokio::test]
async fn rpt_20_every_target_gets_it_once_and_one_that_took_it_is_enough() {
    let place = Place::new().await;
    place.world.statuses.lock().unwrap().extend([("up.example".into(), 201), ("down.example".into(), 503)]);
    place
        .mail(
            "a.example",
            "mailto:one@a.example,mailto:two@a.example,https://up.example/r,https://down.example/r",
        )
        .await;
    place.morning().await;
    assert_eq!(place.report("a.example").await.state, DeliveryState::Sent);
    let replies = place.replies("a.example").await;
    let accepted: Vec<&str> =
        replies.iter().filter(|(_, reply)| *reply == Reply::Accepted).map(|(to, _)| to.as_str()).collect();
    assert_eq!(accepted, ["https://up.example/r", "mailto:one@a.example", "mailto:two@a.example"]);
    place.clock.advance(40_000);
    place.scheduler.turn().await.unwrap();
    assert_eq!((place.mails(), place.world.posted.lock().unwrap().len()), (2, 2));
    // What was posted is the report.
    let posted = place.world.posted.lock().unwrap()[0].1.clone();
    let report = Report::read(&unpack(&posted).unwrap().0).unwrap().report;
    assert_eq!(report.report_id, "20261124.a.example@sender.example");
}

#[tokio::test]
async fn rpt_19_statuses_of_https_say_taken_refused_or_again() {
    let place = Place::new().await;
    for (status, state, replied) in [
        (200, DeliveryState::Sent, Reply::Accepted),
        (204, DeliveryState::Sent, Reply::Accepted),
        (301, DeliveryState::GivenUp, Reply::Refused),
        (404, DeliveryState::GivenUp, Reply::Refused),
        (429, DeliveryState::Waiting, Reply::Failed),
        (500, DeliveryState::Waiting, Reply::Failed),
    ] {
        let host = format!("s{status}.example");
        place.world.statuses.lock().unwrap().insert(host.clone(), status);
        place.mail(&host, &format!("https://{host}/r")).await;
        place.morning().await;
        assert_eq!(place.report(&host).await.state, state, "{status}");
        assert_eq!(place.replies(&host).await[0].1, replied, "{status}");
        place.clock.advance(86_400 - 16 * 3600 - 60);
    }
}

#[tokio::test]
async fn reports_go_only_where_the_record_says_now_or_said_when_it_cant_be_asked() {
    let place = Place::new().await;
    for domain in ["gone.example", "dark.example", "changed.example", "denied.example", "unasked.example"] {
        place.mail(domain, &format!("mailto:r@{domain}")).await;
    }
    place.world.records.lock().unwrap().remove("gone.example");
    place.world.records.lock().unwrap().insert("dark.example".into(), Err(DnsError::Timeout));
    place
        .world
        .records
        .lock()
        .unwrap()
        .insert("changed.example".into(), Ok("v=TLSRPTv1; rua=mailto:new@changed.example".into()));
    place.morning().await;
    let mut to: Vec<String> =
        place.world.mails.lock().unwrap().iter().map(|mail| mail.to[0].clone()).collect();
    to.sort();
    assert_eq!(to, ["new@changed.example", "r@dark.example", "r@unasked.example"]);
    assert_eq!(place.report("gone.example").await.state, DeliveryState::Unwanted);
    let denied = place.report("denied.example").await;
    assert_eq!(denied.state, DeliveryState::GivenUp);
    assert!(denied.said.contains("denies"), "{}", denied.said);
    // A record that was never seen and can't be asked: it waits.
    place.clock.advance(8 * 3600 - 60);
    let day = DateRange::utc_day(place.clock.now()).start;
    let entry = PolicyReport {
        policy_type: PolicyType::NoPolicyFound,
        policy_string: vec![],
        policy_domain: Some(name("new.example")),
        mx_host: vec![],
        successful: 1,
        failed: 0,
        details: vec![],
    };
    place.scheduler.store.add_to_tally(day, &[entry]).await.unwrap();
    place.world.records.lock().unwrap().insert("new.example".into(), Err(DnsError::Timeout));
    place.morning().await;
    let waiting = place.report("new.example").await;
    assert_eq!((waiting.state, waiting.tries), (DeliveryState::Waiting, 1));
    assert!(waiting.said.contains("_smtp._tls.new.example"), "{}", waiting.said);
}

#[tokio::test]
async fn rpt_18_sending_reports_adds_nothing_to_what_is_reported() {
    let place = Place::new().await;
    place.mail("a.example", "mailto:r@a.example").await;
    place.morning().await;
    assert_eq!(place.mails(), 1);
    let today = DateRange::utc_day(place.clock.now()).start;
    assert_eq!(place.scheduler.store.tally(today).await.unwrap(), []);
}

#[tokio::test]
async fn a_day_that_was_built_in_part_is_built_whole_and_nothing_twice() {
    let place = Place::new().await;
    for domain in ["a.example", "b.example"] {
        place.mail(domain, &format!("mailto:r@{domain}")).await;
    }
    let day: Timestamp = DAY_ONE.parse().unwrap();
    place.clock.advance(12 * 3600 + 300);
    // As after a crash in the middle: closed, one of two in line.
    place.scheduler.store.close_day(day, false).await.unwrap();
    let tally = place.scheduler.store.tally(day).await.unwrap().remove(0);
    let one =
        new_report(day, tally, &[], &place.scheduler.delivery.reporter, Duration::ZERO).unwrap().unwrap();
    place.scheduler.store.put_outgoing(&[one]).await.unwrap();
    for _ in 0..3 {
        place.clock.advance(8 * 3600);
        place.scheduler.turn().await.unwrap();
    }
    assert_eq!(place.mails(), 2);
}

#[tokio::test]
async fn what_is_old_is_forgotten_and_days_long_over_are_not_reported() {
    let place = Place::new().await;
    place.mail("a.example", "mailto:r@a.example").await;
    place.clock.advance(9 * 86_400);
    place.scheduler.turn().await.unwrap();
    assert_eq!((place.mails(), place.scheduler.counts.built.get()), (0, 0));
    place.clock.advance(100 * 86_400);
    place.scheduler.sweep().await.unwrap();
    assert_eq!(place.scheduler.store.tally(DAY_ONE.parse().unwrap()).await.unwrap(), []);
}

#[tokio::test]
async fn when_it_is_to_stop_what_is_being_delivered_is_written_down_and_nothing_new_goes() {
    let place =
        Place::with(World { gate: Some((Notify::new(), Semaphore::new(0))), ..World::default() }).await;
    let world = place.world.clone();
    let (taken, may_say) = world.gate.as_ref().unwrap();
    let domains = REPORTS_PER_HOST + 3;
    for n in 0..domains {
        place.mail(&format!("d{n}.example"), "mailto:r@box.example").await;
    }
    place.clock.advance(20 * 3600);
    let running = tokio::spawn(place.scheduler.clone().run());
    while place.mails() < REPORTS_PER_HOST {
        taken.notified().await;
    }
    place.scheduler.stop.cancel();
    may_say.add_permits(REPORTS_PER_HOST);
    running.await.unwrap();
    let all = place
        .scheduler
        .store
        .outgoing(&OutgoingFilter { most: 99, ..OutgoingFilter::default() })
        .await
        .unwrap();
    let sent = all.iter().filter(|report| report.state == DeliveryState::Sent).count();
    assert_eq!((all.len(), sent, place.mails()), (domains, REPORTS_PER_HOST, REPORTS_PER_HOST));
}

#[tokio::test]
async fn a_clock_that_is_set_back_sends_nothing_again() {
    let place = Place::new().await;
    place.mail("a.example", "mailto:r@a.example").await;
    place.morning().await;
    place.clock.set_by(-2 * 86_400);
    place.scheduler.turn().await.unwrap();
    place.clock.set_by(30 * 86_400);
    place.scheduler.turn().await.unwrap();
    assert_eq!(place.mails(), 1);
    assert_eq!(place.scheduler.counts.sent.get(), 1);
}

#[tokio::test]
async fn rpt_26_a_policy_in_testing_is_looked_at_and_its_report_tells_the_truth() {
    use crate::report::{Hosts, TestingProber};
    let place = Place::new().await;
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
    place.scheduler.store.add_to_tally(day, &[entry]).await.unwrap();
    let prober = TestingProber {
        store: place.scheduler.store.clone(),
        clock: place.clock.clone(),
        dns: Arc::new(Addressed),
        mail: place.world.clone(),
    };
    let mut hosts = Hosts::new();
    prober.turn(&mut hosts).await.unwrap();
    prober.turn(&mut hosts).await.unwrap();
    let looks = place.scheduler.store.testing_probes(day, &name("a.example")).await.unwrap();
    assert_eq!(looks.len(), 1, "not twice within six hours: {looks:?}");
    assert_eq!(looks[0].failure, Some(ResultType::ValidationFailure));
    place.clock.advance(6 * 3600);
    prober.turn(&mut hosts).await.unwrap();
    assert_eq!(place.scheduler.store.testing_probes(day, &name("a.example")).await.unwrap().len(), 2);
    place.clock.advance(6 * 3600 + 300);
    place.scheduler.build().await.unwrap();
    let report = place.report("a.example").await;
    assert_eq!((report.successful, report.failed), (0, 9));
}

/// Names whose MX is `mx1`, with an address.
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
