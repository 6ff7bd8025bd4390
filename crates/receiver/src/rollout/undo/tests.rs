//! Plays rollouts against a zone and policy hosts in memory: undo, changes that are cut off, and conflicts.

use super::super::apply::{NewHosts, Verification};
use super::super::plan::{Permit, PlannedStep};
use super::*;
use crate::domain::DomainSpec;
use crate::publish::{DnsPublisher, PublishError};
use crate::rollout::Hosting;
use crate::rollout::goal::{Goal, GoalSource};
use formats::MxPattern;
use jiff::SignedDuration;
use net::clock::Clock;
use net::dns::{
    Absence, Answer, Data, Dns, DnsError, Exchange, Kind, Mx, QueriedServer, Security, ServerFault, Survey,
};
use net::https::{AddressFetch, FetchError, Fetched, PolicyHosts};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::Store;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// What happens to the next change.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It succeeds.
    Made,
    /// The old records are removed, and the program is killed.
    CutInTwo,
    /// It is made, and the program is killed.
    CutAtTheEnd,
    /// Nothing is changed, and the program is killed.
    CutAtTheBeginning,
    /// Another program has changed the records.
    Conflict,
    /// The answer of the server refuses the change.
    Refused,
}

/// The zone, the policy hosts and the clock.
struct World {
    records: Mutex<BTreeMap<DomainName, Records>>,
    /// The policy at each address.
    files: Mutex<BTreeMap<IpAddr, Policy>>,
    fate: Mutex<Fate>,
    puts: Mutex<Vec<Change>>,
    /// A name server that does not answer, beside one that does.
    is_second_dead: Mutex<bool>,
    now: Arc<Mutex<Timestamp>>,
}

const OLD: [u8; 4] = [127, 0, 0, 7];
const NEW: [u8; 4] = [127, 0, 0, 9];

fn answer(records: Vec<Data>, aliases: Vec<DomainName>) -> Answer {
    let (ttl, security) = (Duration::from_secs(60), Security::Insecure);
    Answer { records, ttl, security, aliases, is_split: false }
}

fn none() -> DnsError {
    DnsError::NoSuchRecord(Absence { security: Security::Insecure, ttl: None })
}

fn addresses_of(place: &PolicyHostAt) -> Vec<IpAddr> {
    match place {
        PolicyHostAt::Addresses(all) => all.clone(),
        PolicyHostAt::Alias(target) if target.as_str() == "old.example" => vec![OLD.into()],
        _ => vec![NEW.into()],
    }
}

impl World {
    fn address(&self) -> Vec<IpAddr> {
        match self.records.lock().unwrap().get(&name("mta-sts.a.example")) {
            Some(Records::Place(place)) => addresses_of(place),
            _ => Vec::new(),
        }
    }

    fn find(&self, asked: &DomainName, kind: Kind) -> Result<Answer, DnsError> {
        let records = self.records.lock().unwrap();
        match (records.get(asked), kind) {
            (Some(Records::Txt(text)), Kind::Txt) => {
                Ok(answer(vec![Data::Txt(text.clone().into_bytes())], Vec::new()))
            }
            (Some(Records::Place(PolicyHostAt::Alias(target))), Kind::Cname) => {
                Ok(answer(vec![Data::Cname(target.clone())], Vec::new()))
            }
            (Some(Records::Place(place)), Kind::A) => {
                let all: Vec<Data> = addresses_of(place)
                    .into_iter()
                    .filter_map(|ip| match ip {
                        IpAddr::V4(ip) => Some(Data::A(ip)),
                        IpAddr::V6(_) => None,
                    })
                    .collect();
                let aliases = match place {
                    PolicyHostAt::Alias(target) => vec![target.clone()],
                    _ => Vec::new(),
                };
                if all.is_empty() { Err(none()) } else { Ok(answer(all, aliases)) }
            }
            (None, Kind::A) if asked.as_str() == "old.example" => {
                Ok(answer(vec![Data::A(OLD.into())], Vec::new()))
            }
            (None, Kind::Mx) => {
                let mx = Mx { preference: 10, exchange: Exchange::Host(name("mx.a.example")) };
                Ok(answer(vec![Data::Mx(mx)], Vec::new()))
            }
            _ => Err(none()),
        }
    }
}

impl Dns for World {
    fn lookup<'a>(&'a self, asked: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move { self.find(asked, kind) })
    }

    fn survey<'a>(&'a self, asked: &'a DomainName, kind: Kind) -> BoxFuture<'a, Survey> {
        let server = |text: &str, shows| QueriedServer {
            name: name(text),
            address: Some(IpAddr::from(NEW)),
            queried_name: asked.clone(),
            shows,
        };
        let second = match *self.is_second_dead.lock().unwrap() {
            true => Err(ServerFault::Silent),
            false => Ok(String::new()),
        };
        let servers = vec![server("ns1.example", Ok(String::new())), server("ns2.example", second)];
        Box::pin(async move { Survey { answer: self.find(asked, kind), servers } })
    }
}

fn fetched(address: IpAddr, policy: Option<&Policy>) -> Result<Fetched, FetchError> {
    let body = policy.ok_or(FetchError::Status(404))?.to_string().into_bytes();
    let (media_type, tls_version) = ("text/plain".to_owned(), String::new());
    Ok(Fetched { body, address, media_type, tls_version })
}

impl PolicyHosts for World {
    fn fetch<'a>(&'a self, _: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            let address = *self.address().first().ok_or(FetchError::Dns(none()))?;
            fetched(address, self.files.lock().unwrap().get(&address))
        })
    }

    fn fetch_each<'a>(
        &'a self,
        _: &'a DomainName,
        addresses: &'a [IpAddr],
    ) -> BoxFuture<'a, Vec<AddressFetch>> {
        Box::pin(async move {
            let files = self.files.lock().unwrap();
            let at = |address: &IpAddr| AddressFetch {
                address: *address,
                fetched: fetched(*address, files.get(address)),
                certificate: None,
            };
            addresses.iter().map(at).collect()
        })
    }
}

/// The publisher of the world's records.
struct Zone(Arc<World>);

/// As [`Zone`], for changes that are made completely or not at all.
struct WholeZone(Zone);

impl DnsPublisher for WholeZone {
    fn read<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Previous, PublishError>> {
        self.0.read(change)
    }

    fn put<'a>(
        &'a self,
        change: &'a Change,
        expected: &'a Previous,
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        self.0.put(change, expected)
    }

    fn is_whole(&self) -> bool {
        true
    }
}

impl Zone {
    fn make(&self, change: &Change) -> Result<Fate, PublishError> {
        let fate = std::mem::replace(&mut *self.0.fate.lock().unwrap(), Fate::Made);
        let mut records = self.0.records.lock().unwrap();
        match fate {
            Fate::Conflict => {
                let error = PublishError::new(&change.name, "another program changed it");
                return Err(PublishError { is_conflict: true, ..error });
            }
            Fate::Refused => {
                let error = PublishError::new(&change.name, "the key has a different secret");
                return Err(PublishError { is_unmade: true, ..error });
            }
            Fate::CutInTwo => drop(records.remove(&change.name)),
            Fate::CutAtTheBeginning => {}
            Fate::Made | Fate::CutAtTheEnd => {
                records.insert(change.name.clone(), change.records.clone());
            }
        }
        Ok(fate)
    }

    fn found(&self, change: &Change) -> Previous {
        let there = self.0.records.lock().unwrap().get(&change.name).cloned();
        let empty = match &change.records {
            Records::Place(_) => Records::Place(PolicyHostAt::Addresses(Vec::new())),
            _ => Records::NoTxt,
        };
        let records = there.unwrap_or(empty);
        let lines = Change { name: change.name.clone(), records: records.clone() }.lines();
        Previous { lines, records: Some(records) }
    }
}

impl DnsPublisher for Zone {
    fn read<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Previous, PublishError>> {
        Box::pin(async move { Ok(self.found(change)) })
    }

    fn put<'a>(
        &'a self,
        change: &'a Change,
        expected: &'a Previous,
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        Box::pin(async move {
            assert_eq!(self.found(change), *expected);
            if self.make(change)? != Fate::Made {
                // The program that waits for this ends.
                std::future::pending::<()>().await;
            }
            self.0.puts.lock().unwrap().push(change.clone());
            Ok(())
        })
    }
}

/// The policy host at the new address.
struct Files(Arc<World>);

impl Hosting for Files {
    fn put<'a>(&'a self, _: &'a DomainName, policy: Option<&'a Policy>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let mut files = self.0.files.lock().unwrap();
            match policy {
                Some(policy) => drop(files.insert(NEW.into(), policy.clone())),
                None => drop(files.remove(&IpAddr::from(NEW))),
            }
            Ok(())
        })
    }
}

#[derive(Debug)]
struct WorldClock(Arc<Mutex<Timestamp>>);

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

struct Stage {
    world: Arc<World>,
    applier: Applier,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let world = Arc::new(World {
            records: Mutex::default(),
            files: Mutex::default(),
            fate: Mutex::new(Fate::Made),
            puts: Mutex::default(),
            is_second_dead: Mutex::new(false),
            now: Arc::new(Mutex::new("2026-11-27T00:00:00Z".parse().unwrap())),
        });
        let folder = tempfile::tempdir().unwrap();
        let applier = Applier {
            dns: world.clone(),
            policies: world.clone(),
            publisher: Some(Arc::new(Zone(world.clone()))),
            hosting: Some(Arc::new(Files(world.clone()))),
            new_hosts: NewHosts::AddToPolicy,
            omitted: Vec::new(),
            store: Store::open(&folder.path().join("sternpost.db"), store::Tenant::FIRST).await.unwrap(),
            clock: Arc::new(WorldClock(world.now.clone())),
        };
        Self { world, applier, _folder: folder }
    }

    async fn run(&self, mode: Mode) -> PlannedStep {
        self.applier.run(&desired(mode), Permit::Enforce, Verification::Defer).await.unwrap().1
    }

    async fn undo(&self, mode: Mode) -> Result<Undone, UndoRefusal> {
        self.applier.undo(&desired(mode), "operator", "a test").await.unwrap()
    }

    fn record(&self, label: &str) -> Option<Records> {
        self.world.records.lock().unwrap().get(&name("a.example").below(label).unwrap()).cloned()
    }

    fn pass(&self, hours: i64) {
        *self.world.now.lock().unwrap() += SignedDuration::from_hours(hours);
    }

    async fn journal(&self) -> String {
        let all = self.applier.store.journal_of(&name("a.example")).await.unwrap();
        all.into_iter().map(|entry| format!("{}: {}\n", entry.who, entry.what)).collect()
    }
}

fn desired(mode: Mode) -> DesiredState {
    let spec = DomainSpec::new(name("a.example"));
    DesiredState {
        mx: vec![MxPattern::parse("mx.a.example").unwrap()],
        mode,
        policy_host: Some(PolicyHostAt::Alias(name("new.example"))),
        ..spec.desired(None, None)
    }
}

#[tokio::test]
async fn undo_goes_back_only_where_the_rules_of_the_plan_allow_it() {
    let stage = Stage::new().await;
    assert_eq!(stage.undo(Mode::Testing).await, Err(UndoRefusal::Nothing));
    // The name of the policy host existed before, at a host that serves nothing.
    let old = Records::Place(PolicyHostAt::Alias(name("old.example")));
    stage.world.records.lock().unwrap().insert(name("mta-sts.a.example"), old.clone());
    assert_eq!(stage.run(Mode::Testing).await, PlannedStep::Done);
    // The record was not there before, and senders may hold the policy.
    let refusal = stage.undo(Mode::Testing).await.unwrap_err();
    assert!(matches!(refusal, UndoRefusal::SendersHoldPolicy { .. }), "{refusal}");
    // A new id for the same policy can be taken back.
    let first = stage.record("_mta-sts");
    let due = |rollout: &mut RolloutState| (rollout.announce_due, rollout.offered) = (true, None);
    stage.applier.store.change_rollout(&name("a.example"), due).await.unwrap();
    stage.pass(1);
    assert_eq!(stage.run(Mode::Testing).await, PlannedStep::Done);
    assert_ne!(stage.record("_mta-sts"), first);
    let undone = stage.undo(Mode::Testing).await.unwrap();
    assert_eq!((undone.name, stage.record("_mta-sts")), (name("_mta-sts.a.example"), first.clone()));
    let journal = stage.journal().await;
    assert!(journal.contains("operator: the change of _mta-sts.a.example at"), "{journal}");
    assert!(journal.contains("Reason: a test"), "{journal}");
    // An id that announced another policy can't.
    assert_eq!(stage.run(Mode::Enforce).await, PlannedStep::Done);
    let refusal = stage.undo(Mode::Enforce).await.unwrap_err();
    assert!(matches!(refusal, UndoRefusal::OtherPolicy(_)), "{refusal}");
    // Nor is anything undone that others have changed since.
    let foreign = Records::Txt("v=STSv1; id=7;".to_owned());
    stage.world.records.lock().unwrap().insert(name("_mta-sts.a.example"), foreign.clone());
    let refusal = stage.undo(Mode::Enforce).await.unwrap_err();
    assert!(matches!(refusal, UndoRefusal::ChangedSince { .. }), "{refusal}");
    assert_eq!(stage.record("_mta-sts"), Some(foreign));
}

#[tokio::test]
async fn the_policy_host_is_pointed_back_only_to_one_that_serves_the_present_policy() {
    let stage = Stage::new().await;
    let old = Records::Place(PolicyHostAt::Alias(name("old.example")));
    stage.world.records.lock().unwrap().insert(name("mta-sts.a.example"), old.clone());
    let other = Policy::new(Mode::Testing, 86_400, vec![MxPattern::parse("mx.a.example").unwrap()]).unwrap();
    stage.world.files.lock().unwrap().insert(OLD.into(), other.clone());
    // Only the first step is taken, since then the policy host is cut off.
    let (step, rollout) = stage.applier.next_step(&desired(Mode::Testing), Permit::Testing).await.unwrap();
    let PlannedStep::Do(step) = step else { panic!("{step:?}") };
    stage.applier.start_step(&desired(Mode::Testing), step, rollout).await.unwrap();
    assert_ne!(stage.record("mta-sts"), Some(old.clone()));
    let present = Policy::new(Mode::Testing, 600, vec![MxPattern::parse("mx.a.example").unwrap()]).unwrap();
    stage.world.files.lock().unwrap().insert(NEW.into(), present.clone());
    let refusal = stage.undo(Mode::Testing).await.unwrap_err();
    assert!(matches!(&refusal, UndoRefusal::OldHost(why) if why.contains("127.0.0.7 serves")), "{refusal}");
    stage.world.files.lock().unwrap().remove(&IpAddr::from(OLD));
    let refusal = stage.undo(Mode::Testing).await.unwrap_err();
    assert!(matches!(&refusal, UndoRefusal::OldHost(why) if why.contains("404")), "{refusal}");
    stage.world.files.lock().unwrap().insert(OLD.into(), present);
    stage.undo(Mode::Testing).await.unwrap();
    assert_eq!(stage.record("mta-sts"), Some(old));
    assert_eq!(stage.undo(Mode::Testing).await, Err(UndoRefusal::Nothing), "an undo is not undone");
}

/// Runs the plan, which ends in the middle of a change.
async fn run_until_killed(stage: &Stage, mode: Mode) {
    let desired = desired(mode);
    let run = stage.applier.run(&desired, Permit::Enforce, Verification::Defer);
    let run = async move { drop(run.await.unwrap()) };
    tokio::select! {
        () = run => panic!("the change was not cut"),
        // The change waits for ever; the store is on a thread of its own, so this gives it time until the change has begun.
        () = async {
            while *stage.world.fate.lock().unwrap() != Fate::Made {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } => {}
    }
}

#[tokio::test]
async fn a_change_that_was_cut_off_is_put_back_or_finished_by_the_next_run() {
    for fate in [Fate::CutAtTheBeginning, Fate::CutInTwo, Fate::CutAtTheEnd] {
        let stage = Stage::new().await;
        let old = Records::Place(PolicyHostAt::Addresses(vec![OLD.into()]));
        stage.world.records.lock().unwrap().insert(name("mta-sts.a.example"), old.clone());
        *stage.world.fate.lock().unwrap() = fate;
        run_until_killed(&stage, Mode::Testing).await;
        let changes = stage.applier.store.record_changes::<RecordedChange>(&name("a.example")).await.unwrap();
        assert_eq!((changes.len(), changes[0].state), (1, ChangeState::Begun));
        assert_eq!(stage.record("mta-sts").is_none(), fate == Fate::CutInTwo);
        let done = stage.applier.recover(&desired(Mode::Testing)).await.unwrap();
        assert_eq!(done.len(), usize::from(fate == Fate::CutInTwo), "{done:?}");
        assert_eq!(stage.record("mta-sts") == Some(old), fate != Fate::CutAtTheEnd);
        assert!(stage.applier.recover(&desired(Mode::Testing)).await.unwrap().is_empty());
        // The plan goes on from there.
        assert_eq!(stage.run(Mode::Testing).await, PlannedStep::Done);
        assert_eq!(stage.world.address(), [IpAddr::from(NEW)]);
        assert_eq!(stage.journal().await.contains("that was interrupted at"), fate == Fate::CutInTwo);
    }
}

impl Stage {
    /// A change of the policy host's name that was cut off.
    async fn cut_off(before: Option<&Records>, fate: Fate) -> Self {
        let stage = Self::new().await;
        if let Some(before) = before {
            stage.world.records.lock().unwrap().insert(name("mta-sts.a.example"), before.clone());
        }
        *stage.world.fate.lock().unwrap() = fate;
        run_until_killed(&stage, Mode::Testing).await;
        stage
    }

    fn set(&self, label: &str, records: Option<Records>) {
        let name = name("a.example").below(label).unwrap();
        let mut all = self.world.records.lock().unwrap();
        match records {
            Some(records) => drop(all.insert(name, records)),
            None => drop(all.remove(&name)),
        }
    }

    async fn states(&self) -> Vec<ChangeState> {
        let all = self.applier.store.record_changes::<RecordedChange>(&name("a.example")).await.unwrap();
        all.into_iter().map(|stored| stored.state).collect()
    }
}

#[tokio::test]
async fn records_that_others_published_after_a_change_was_cut_off_are_left_alone() {
    let at = |last: u8| Records::Place(PolicyHostAt::Addresses(vec![[127, 0, 0, last].into()]));
    let alias = |target: &str| Records::Place(PolicyHostAt::Alias(name(target)));
    let mixed = Records::Place(PolicyHostAt::Addresses(vec![OLD.into(), [127, 0, 0, 66].into()]));
    for before in [None, Some(at(7)), Some(alias("old.example"))] {
        for fate in [Fate::CutAtTheBeginning, Fate::CutInTwo, Fate::CutAtTheEnd] {
            for foreign in [at(66), alias("elsewhere.example"), mixed.clone()] {
                let stage = Stage::cut_off(before.as_ref(), fate).await;
                stage.set("mta-sts", Some(foreign.clone()));
                let done = stage.applier.recover(&desired(Mode::Testing)).await.unwrap();
                assert!(
                    done.len() == 1 && done[0].contains("another program has changed the records"),
                    "{done:?}"
                );
                assert_eq!(stage.record("mta-sts"), Some(foreign));
                assert_eq!(stage.states().await, [ChangeState::Unmade]);
                assert!(stage.journal().await.contains("was not undone"));
            }
        }
    }
}

#[tokio::test]
async fn of_changes_that_are_whole_no_part_is_put_back_and_none_is_looked_after_by_hand() {
    let old = Records::Place(PolicyHostAt::Addresses(vec![OLD.into()]));
    let mut stage = Stage::cut_off(Some(&old), Fate::CutAtTheBeginning).await;
    stage.applier.publisher = Some(Arc::new(WholeZone(Zone(stage.world.clone()))));
    // The operator has removed the address.
    stage.set("mta-sts", None);
    let done = stage.applier.recover(&desired(Mode::Testing)).await.unwrap();
    assert!(done[0].contains("another program has removed the records"), "{done:?}");
    assert_eq!((stage.record("mta-sts"), stage.states().await), (None, vec![ChangeState::Unmade]));
    // With `dns = "manual"`, everything that is there is the operator's.
    let mut stage = Stage::cut_off(Some(&old), Fate::CutInTwo).await;
    stage.applier.publisher = None;
    let done = stage.applier.recover(&desired(Mode::Testing)).await.unwrap();
    assert!(done[0].contains("the operator changes the records now"), "{done:?}");
    assert_eq!((stage.record("mta-sts"), stage.states().await), (None, vec![ChangeState::Unmade]));
}

/// The publisher of a zone in which the records are not.
struct OtherZone;

impl DnsPublisher for OtherZone {
    fn read<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Previous, PublishError>> {
        let error = PublishError::new(&change.name, "it is not in the zone b.example");
        Box::pin(std::future::ready(Err(error)))
    }

    fn put<'a>(&'a self, change: &'a Change, _: &'a Previous) -> BoxFuture<'a, Result<(), PublishError>> {
        let error = PublishError::new(&change.name, "it is not in the zone b.example");
        Box::pin(std::future::ready(Err(error)))
    }
}

#[tokio::test]
async fn a_change_that_was_cut_off_in_a_zone_that_was_given_up_ends_plans_until_the_operator_drops_it() {
    let old = Records::Place(PolicyHostAt::Addresses(vec![OLD.into()]));
    let mut stage = Stage::cut_off(Some(&old), Fate::CutInTwo).await;
    stage.applier.publisher = Some(Arc::new(OtherZone));
    let desired = desired(Mode::Testing);
    let run = stage.applier.run(&desired, Permit::Testing, Verification::Defer).await.unwrap_err();
    let undo = stage.applier.undo(&desired, "operator", "a test").await.unwrap_err();
    for error in [run, undo] {
        assert!(matches!(error, ApplyError::CutOff(_)), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("a change of mta-sts.a.example") && text.contains("the zone b.example"),
            "{text}"
        );
        assert!(text.ends_with("sternpost undo --drop-change --reason TEXT a.example"), "{text}");
    }
    assert_eq!(stage.states().await, [ChangeState::Begun]);
    let (done, dropped) = stage.applier.drop_changes(&desired, "operator", "moved").await.unwrap();
    assert_eq!((done.len(), dropped.len()), (0, 1));
    let [before, after] = dropped[0].records().unwrap();
    assert!(before.ends_with("A 127.0.0.7") && after.ends_with("CNAME new.example."), "{before} {after}");
    let journal = stage.journal().await;
    assert!(journal.contains("operator: a change of mta-sts.a.example that was interrupted at"), "{journal}");
    assert!(journal.contains("127.0.0.7") && journal.contains("Reason: moved"), "{journal}");
    // The plan goes on from what is there, and the change is not undone later.
    stage.applier.publisher = Some(Arc::new(Zone(stage.world.clone())));
    assert_eq!(stage.run(Mode::Testing).await, PlannedStep::Done);
    assert_eq!(stage.states().await.last(), Some(&ChangeState::Unmade));
    assert_eq!(stage.applier.drop_changes(&desired, "operator", "moved").await.unwrap(), (vec![], vec![]));
}

#[tokio::test]
async fn only_changes_that_can_not_be_ended_are_dropped() {
    let old = Records::Place(PolicyHostAt::Addresses(vec![OLD.into()]));
    let stage = Stage::cut_off(Some(&old), Fate::CutInTwo).await;
    // Beside it, one that a later release has written.
    let (domain, now) = (name("a.example"), stage.applier.clock.now());
    stage.applier.store.begin_record_change(&domain, now, &["a later form"]).await.unwrap();
    let error = stage.applier.recover(&desired(Mode::Testing)).await.unwrap_err();
    assert!(error.to_string().contains("--drop-change"), "{error}");
    let (done, dropped) =
        stage.applier.drop_changes(&desired(Mode::Testing), "operator", "downgraded").await.unwrap();
    assert_eq!((done.len(), dropped.len(), dropped[0].records()), (1, 1, None));
    assert_eq!(stage.record("mta-sts"), Some(old));
    assert_eq!(stage.run(Mode::Testing).await, PlannedStep::Done);
}

/// A clock that is set forward as soon as the clocks of the machine have been read.
#[derive(Debug)]
struct SetAfterReading(Arc<Mutex<Timestamp>>);

impl Clock for SetAfterReading {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn boot(&self) -> Option<net::clock::Boot> {
        *self.0.lock().unwrap() += SignedDuration::from_hours(24 * 365);
        None
    }
}

#[tokio::test]
async fn a_clock_that_is_set_while_a_domain_is_observed_ends_no_waiting_period() {
    let mut stage = Stage::new().await;
    assert_eq!(stage.run(Mode::Testing).await, PlannedStep::Done);
    let waits = stage.run(Mode::None).await;
    assert!(matches!(waits, PlannedStep::Wait(..)), "{waits:?}");
    stage.applier.clock = Arc::new(SetAfterReading(stage.world.now.clone()));
    let (next, _) = stage.applier.next_step(&desired(Mode::None), Permit::Testing).await.unwrap();
    assert_eq!(next, waits);
}

#[tokio::test]
async fn an_approval_that_ends_between_the_choice_of_a_step_and_its_beginning_enforces_nothing() {
    let stage = Stage::new().await;
    assert_eq!(stage.run(Mode::Testing).await, PlannedStep::Done);
    let (domain, desired) = (name("a.example"), desired(Mode::Enforce));
    let change = async |change: fn(&mut RolloutState)| {
        stage.applier.store.change_rollout(&domain, change).await.unwrap();
    };
    let approve =
        |rollout: &mut RolloutState| assert!(rollout.approve(&rollout.clone(), Timestamp::UNIX_EPOCH));
    // As by the look of another process that finds another MX host, and by an approval of other hosts.
    let lapse = |rollout: &mut RolloutState| (rollout.approved, rollout.is_lapsed) = (None, true);
    let again = |rollout: &mut RolloutState| assert!(rollout.approve(&rollout.clone(), Timestamp::MAX));
    for end in [lapse as fn(&mut RolloutState), again] {
        change(approve).await;
        let (next, rollout) = stage.applier.next_step(&desired, Permit::Enforce).await.unwrap();
        let PlannedStep::Do(step) = next else { panic!("{next:?}") };
        change(end).await;
        let started = stage.applier.start_step(&desired, step, rollout).await.unwrap();
        assert_eq!(started, super::super::apply::StepOutcome::Idle(PlannedStep::Gate));
        let served = stage.world.files.lock().unwrap()[&IpAddr::from(NEW)].mode;
        assert_eq!(served, Mode::Testing);
    }
    // In enforcement, the approval has no effect.
    change(approve).await;
    assert_eq!(stage.run(Mode::Enforce).await, PlannedStep::Done);
    let new_id = |rollout: &mut RolloutState| (rollout.announce_due, rollout.offered) = (true, None);
    change(new_id).await;
    let (next, rollout) = stage.applier.next_step(&desired, Permit::Enforce).await.unwrap();
    let PlannedStep::Do(step) = next else { panic!("{next:?}") };
    change(lapse).await;
    let started = stage.applier.start_step(&desired, step, rollout).await.unwrap();
    assert!(matches!(started, super::super::apply::StepOutcome::Started(..)), "{started:?}");
}

#[tokio::test]
async fn a_change_that_an_answer_refuses_has_not_begun() {
    let stage = Stage::new().await;
    *stage.world.fate.lock().unwrap() = Fate::Refused;
    let run = stage.applier.run(&desired(Mode::Testing), Permit::Testing, Verification::Defer).await;
    assert!(run.unwrap_err().to_string().contains("different secret"));
    assert_eq!(stage.states().await, [ChangeState::Unmade]);
    // Weeks later, there is a record of the operator.
    let theirs = Records::Place(PolicyHostAt::Addresses(vec![OLD.into()]));
    stage.set("mta-sts", Some(theirs.clone()));
    assert!(stage.applier.recover(&desired(Mode::Testing)).await.unwrap().is_empty());
    assert_eq!(stage.record("mta-sts"), Some(theirs));
}

#[tokio::test]
async fn old_records_that_can_not_be_published_again_are_left_to_the_plan() {
    let stage = Stage::new().await;
    let line = |id: u8| format!("_mta-sts.a.example. 60 IN TXT \"v=STSv1; id={id};\"");
    let change = RecordedChange {
        name: name("_mta-sts.a.example"),
        before: Previous { lines: vec![line(1), line(2)], records: None },
        after: Records::Txt("v=STSv1; id=3;".to_owned()),
        policy: None,
    };
    stage
        .applier
        .store
        .begin_record_change(&name("a.example"), stage.applier.clock.now(), &change)
        .await
        .unwrap();
    stage.set("_mta-sts", Some(Records::Txt("v=STSv1; id=2;".to_owned())));
    stage.applier.recover(&desired(Mode::Testing)).await.unwrap();
    // The policy of id 3 may not be served any more.
    assert_eq!(stage.record("_mta-sts"), Some(Records::Txt("v=STSv1; id=2;".to_owned())));
    assert_eq!(stage.states().await, [ChangeState::Unmade]);
}

#[tokio::test]
async fn a_plan_ends_by_its_time_and_where_its_goal_ends() {
    struct Ends(Mutex<u32>);
    impl GoalSource for Ends {
        fn current(&self) -> BoxFuture<'_, Result<Goal, ApplyError>> {
            let mut left = self.0.lock().unwrap();
            let goal = Goal { desired: desired(Mode::Testing), permit: Permit::Testing };
            let is_over = *left == 0;
            *left = left.saturating_sub(1);
            let over = ApplyError::Stopped("another process".to_owned());
            Box::pin(std::future::ready(if is_over { Err(over) } else { Ok(goal) }))
        }
    }
    // Each number of questions: before recovery, before the step is chosen, and before it begins.
    for (questions, steps) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
        let stage = Stage::new().await;
        let goals = Ends(Mutex::new(questions));
        let error = stage.applier.run_towards(&goals, Verification::Defer, None).await.unwrap_err();
        assert!(matches!(error, ApplyError::Stopped(_)), "{error}");
        let begun = usize::from(stage.record("mta-sts").is_some())
            + usize::from(stage.world.files.lock().unwrap().contains_key(&IpAddr::from(NEW)));
        assert_eq!(begun, steps, "{questions}");
    }
    let stage = Stage::new().await;
    let goals = Ends(Mutex::new(100));
    let error =
        stage.applier.run_towards(&goals, Verification::Defer, Some(Duration::ZERO)).await.unwrap_err();
    assert!(matches!(error, ApplyError::Deadline(_)), "{error}");
    assert!(stage.world.puts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_conflict_changes_nothing_and_is_not_looked_after_later() {
    let stage = Stage::new().await;
    *stage.world.fate.lock().unwrap() = Fate::Conflict;
    let error =
        stage.applier.run(&desired(Mode::Testing), Permit::Testing, Verification::Defer).await.unwrap_err();
    assert!(matches!(&error, ApplyError::Publish(error) if error.is_conflict), "{error}");
    assert!(stage.world.puts.lock().unwrap().is_empty());
    assert!(stage.applier.recover(&desired(Mode::Testing)).await.unwrap().is_empty());
    assert_eq!(stage.undo(Mode::Testing).await, Err(UndoRefusal::Nothing));
}

#[tokio::test]
async fn pub_09_a_step_is_not_visible_while_a_name_server_is_down_unless_it_is_left_out() {
    let mut stage = Stage::new().await;
    stage.run(Mode::Testing).await;
    *stage.world.is_second_dead.lock().unwrap() = true;
    // What is in place stays in place.
    assert_eq!(stage.run(Mode::Testing).await, PlannedStep::Done);
    assert!(matches!(stage.run(Mode::Enforce).await, PlannedStep::Do(_)));
    // Each further run stops at the same step.
    let PlannedStep::Do(step) = stage.run(Mode::Enforce).await else {
        panic!("the announcement was taken as seen")
    };
    let instead = stage.applier.verify(&desired(Mode::Enforce), &step).await.unwrap().unwrap_err();
    assert!(
        instead.contains("ns2.example (127.0.0.9) does not show _mta-sts.a.example: it does not answer"),
        "{instead}"
    );
    assert!(instead.contains("sternpost omit a.example ns2.example"), "{instead}");
    let (_, seen) = stage
        .applier
        .store
        .last_look::<super::super::outside::Outside>(&name("a.example"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen.faults(), ["name server ns2.example (127.0.0.9): it does not answer"]);
    stage.applier.omitted = vec!["ns2.example".to_owned()];
    assert_eq!(stage.run(Mode::Enforce).await, PlannedStep::Done);
}

#[tokio::test]
async fn a_stale_copy_at_one_address_keeps_a_step_from_being_visible_and_counts_as_published() {
    let stage = Stage::new().await;
    let both = Records::Place(PolicyHostAt::Addresses(vec![NEW.into(), OLD.into()]));
    let both_at = PolicyHostAt::Addresses(vec![NEW.into(), OLD.into()]);
    let desired = |mode| DesiredState { policy_host: Some(both_at.clone()), ..desired(mode) };
    stage.world.records.lock().unwrap().insert(name("mta-sts.a.example"), both);
    let stale = Policy::new(Mode::Enforce, 999, vec![MxPattern::parse("mx.a.example").unwrap()]).unwrap();
    stage.world.files.lock().unwrap().insert(OLD.into(), stale.clone());
    let run =
        async |mode| stage.applier.run(&desired(mode), Permit::Testing, Verification::Defer).await.unwrap().1;
    let PlannedStep::Do(step) = run(Mode::Testing).await else { panic!("a stale copy was not noticed") };
    let instead = stage.applier.verify(&desired(Mode::Testing), &step).await.unwrap().unwrap_err();
    assert!(instead.contains("127.0.0.7 serves mode enforce"), "{instead}");
    let rollout: RolloutState = stage.applier.store.rollout(&name("a.example")).await.unwrap().unwrap();
    assert!(rollout.published.iter().any(|published| published.is(&stale) && published.until.is_none()));
    // Once the copy is replaced, it ends as any other policy.
    let present = stage.world.files.lock().unwrap()[&IpAddr::from(NEW)].clone();
    stage.world.files.lock().unwrap().insert(OLD.into(), present);
    assert_eq!(run(Mode::Testing).await, PlannedStep::Done);
    let rollout: RolloutState = stage.applier.store.rollout(&name("a.example")).await.unwrap().unwrap();
    assert!(rollout.published.iter().any(|published| published.is(&stale) && published.until.is_some()));
}
