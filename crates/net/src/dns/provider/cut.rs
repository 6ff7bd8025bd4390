//! Changes that are cut off: for each request of a change, the connection is lost at that request, before or after it has
//! had its effect, once or for good, or the program is killed. Whatever happens, no record of others is touched, and our
//! records are the old ones, the new ones, or named as lost; a later run gets from there to the old and to the new ones.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What happens from the request on at which the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// That request is lost before it has an effect.
    Before,
    /// That request has its effect, and its response is lost.
    After,
    /// That request and all later ones are lost.
    ForGood,
    /// The program ends, before the request has an effect.
    Killed,
}

const CUTS: [Cut; 4] = [Cut::Before, Cut::After, Cut::ForGood, Cut::Killed];

/// A provider that handles single records, or whole record sets.
struct Fake {
    sets: Mutex<BTreeMap<&'static str, Vec<Record>>>,
    is_by_record: bool,
    requests: AtomicUsize,
    cut: Mutex<Option<(usize, Cut)>>,
}

impl Fake {
    fn new(records: &[Record], is_by_record: bool) -> Self {
        let fake = Self {
            sets: Mutex::default(),
            is_by_record,
            requests: AtomicUsize::new(0),
            cut: Mutex::default(),
        };
        for record in records {
            let mut sets = fake.sets.lock().unwrap();
            sets.entry(record.data.kind().as_str()).or_default().push(record.clone());
        }
        fake
    }

    fn cut_at(&self, at: usize, how: Cut) {
        self.requests.store(0, Ordering::SeqCst);
        *self.cut.lock().unwrap() = Some((at, how));
    }

    fn heal(&self) {
        *self.cut.lock().unwrap() = None;
    }

    /// One request with an effect.
    async fn request(
        &self,
        effect: impl FnOnce(&mut BTreeMap<&'static str, Vec<Record>>),
    ) -> Result<(), Fault> {
        let at = self.requests.fetch_add(1, Ordering::SeqCst);
        let cut = *self.cut.lock().unwrap();
        let lost = || Fault::Other("the connection was lost".to_owned());
        match cut {
            Some((first, Cut::Before)) if at == first => return Err(lost()),
            Some((first, Cut::ForGood)) if at >= first => return Err(lost()),
            Some((first, Cut::Killed)) if at == first => std::future::pending().await,
            _ => effect(&mut self.sets.lock().unwrap()),
        }
        match cut {
            Some((first, Cut::After)) if at == first => Err(lost()),
            _ => Ok(()),
        }
    }

    fn all(&self) -> Vec<String> {
        let sets = self.sets.lock().unwrap();
        // As DNS demands.
        let has = |kind: &str| sets.get(kind).is_some_and(|set| !set.is_empty());
        assert!(!has("CNAME") || !has("A") && !has("AAAA"), "a CNAME beside addresses");
        let mut all: Vec<String> =
            sets.values().flatten().map(|record| zone_file_line(&name(), 300, record)).collect();
        all.sort();
        all
    }
}

impl Dialect for Fake {
    fn find_zone<'a>(
        &'a self,
        zone: &'a DomainName,
        _: &'a DomainName,
    ) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            self.request(|_| {}).await?;
            Ok(zone.to_string())
        })
    }

    fn list<'a>(&'a self, record_set: &'a RecordSet<'a>) -> BoxFuture<'a, Result<Vec<Record>, Fault>> {
        Box::pin(async move {
            self.request(|_| {}).await?;
            Ok(self.sets.lock().unwrap().get(record_set.kind.as_str()).cloned().unwrap_or_default())
        })
    }

    fn set<'a>(
        &'a self,
        record_set: &'a RecordSet<'a>,
        _: u32,
        records: &'a [Record],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let kind = record_set.kind.as_str();
            if !self.is_by_record {
                return self.request(|sets| drop(sets.insert(kind, records.to_vec()))).await;
            }
            let there = self.list(record_set).await?;
            let (gone, new) = differences(&there, records);
            for record in gone {
                let remove = |set: &mut Vec<Record>| {
                    if let Some(at) = set.iter().position(|known| known.data == record.data) {
                        set.remove(at);
                    }
                };
                self.request(|sets| remove(sets.entry(kind).or_default())).await?;
            }
            for record in new {
                self.request(|sets| sets.entry(kind).or_default().push(record.clone())).await?;
            }
            Ok(())
        })
    }
}

fn name() -> DomainName {
    DomainName::parse("mta-sts.example.org").unwrap()
}

fn provider() -> Provider {
    Provider::new(Service::DeSec, "token", DomainName::parse("example.org").unwrap(), None).unwrap()
}

fn txt(text: &str) -> Record {
    Record::new(Data::Txt(text.as_bytes().to_vec()))
}

/// The records at a name before, and what replaces them.
fn case() -> impl Strategy<Value = (Vec<Record>, Replacement)> {
    let address = |last: u8| IpAddr::from([192, 0, 2, last]);
    let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    let addresses = (1..4u8, 0..3u16).prop_map(move |(a, aaaa)| {
        (1..=a).map(address).chain((0..aaaa).map(v6)).map(|ip| Record::new(Data::address(ip))).collect()
    });
    let alias = Just(vec![Record::new(Data::alias("old.example.net"))]);
    let places = prop_oneof![Just(Vec::new()), alias, addresses];
    let target = prop_oneof![
        Just(Replacement::Alias(DomainName::parse("policy.example.net").unwrap())),
        Just(Replacement::Addresses(vec![address(9), v6(9)])),
    ];
    let texts =
        prop::sample::subsequence(vec!["site=1", "v=STSv1; id=1;", "V=stsv1; id=0;", "v=spf1 -all"], 0..=4)
            .prop_map(|texts| texts.into_iter().map(txt).collect());
    let value = prop::option::of(Just("v=STSv1; id=2;".to_owned()));
    prop_oneof![
        (places, target),
        (texts, value.prop_map(|value| Replacement::Txt { prefix: "v=STSv1", value })),
    ]
}

use std::net::IpAddr;

/// Runs a change until it ends, or until the program is killed at a request.
async fn run(fake: &Fake, new: &Replacement) -> Option<Result<Previous, ProviderError>> {
    let provider = provider();
    let name = name();
    let change = provider.replace_by(fake, &name, new, None, 300);
    // Nothing else waits for anything, so a change that does not end at once waits for ever.
    let mut change = std::pin::pin!(change);
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match change.as_mut().poll(context) {
            std::task::Poll::Ready(outcome) => Some(outcome),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

async fn holds(before: &[Record], new: &Replacement, is_by_record: bool, at: usize, cut: Cut) -> bool {
    let whole = Fake::new(before, is_by_record);
    let old = whole.all();
    run(&whole, new).await.unwrap().unwrap();
    let wanted = whole.all();
    let others: Vec<String> = old.iter().filter(|line| wanted.contains(line)).cloned().collect();

    let fake = Fake::new(before, is_by_record);
    fake.cut_at(at, cut);
    let outcome = run(&fake, new).await;
    let is_cut = fake.requests.load(Ordering::SeqCst) > at;
    let now = fake.all();
    assert!(others.iter().all(|line| now.contains(line)), "{cut:?} at {at}: {others:?}, {now:?}");
    match &outcome {
        Some(Ok(_)) => assert_eq!(now, wanted, "{cut:?} at {at}"),
        Some(Err(ProviderError::RollbackFailed { lost, .. })) => {
            let is_named = |line: &String| now.contains(line) || lost.contains(line);
            assert!(old.iter().all(is_named), "{cut:?} at {at}: {old:?}, {now:?}, {lost:?}");
        }
        Some(Err(error)) => assert_eq!(now, old, "{cut:?} at {at}: {error}"),
        None => assert_eq!(cut, Cut::Killed),
    }
    // The next run finishes, or goes back: what it needs was stored before the change.
    fake.heal();
    let stored = run(&Fake::new(before, is_by_record), new).await.unwrap().unwrap();
    if let Some(restores) = &stored.restores {
        run(&fake, restores).await.unwrap().unwrap();
        assert_eq!(fake.all(), old, "{cut:?} at {at}");
    }
    run(&fake, new).await.unwrap().unwrap();
    assert_eq!(fake.all(), wanted, "{cut:?} at {at}");
    is_cut
}

proptest! {
    #[test]
    fn a_change_that_is_cut_at_any_request_is_undone_or_named_and_can_be_finished((before, new) in case(), is_by_record in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            for cut in CUTS {
                let mut at = 0;
                while holds(&before, &new, is_by_record, at, cut).await {
                    at += 1;
                }
                assert!(at >= 2, "no request was cut");
            }
        });
    }
}

#[tokio::test]
async fn records_that_another_program_has_changed_are_left_as_they_are() {
    let new = Replacement::Txt { prefix: "v=STSv1", value: Some("v=STSv1; id=3;".to_owned()) };
    let fake = Fake::new(&[txt("v=STSv1; id=1;"), txt("site=1")], true);
    let (provider, name) = (provider(), name());
    let (_, changes) = provider.plan(&fake, &name, &new).await.unwrap();
    let expected = previous(&name, &new, 300, &changes);
    // Records of others may change.
    fake.sets.lock().unwrap().insert("TXT", vec![txt("v=STSv1; id=2;"), txt("site=2")]);
    let before = fake.all();
    let error = provider.replace_by(&fake, &name, &new, Some(&expected), 300).await.unwrap_err();
    assert!(matches!(error, ProviderError::Changed(..)), "{error}");
    assert!(error.to_string().contains("v=STSv1; id=2;"), "{error}");
    assert_eq!(fake.all(), before);
    fake.sets.lock().unwrap().insert("TXT", vec![txt("v=STSv1; id=1;"), txt("site=2")]);
    provider.replace_by(&fake, &name, &new, Some(&expected), 300).await.unwrap();
    assert!(fake.all().iter().any(|line| line.contains("site=2")));
}
