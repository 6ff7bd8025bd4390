//! The verdict, the filters and the links of the overview.

use super::groups::group_view;
use super::*;
use crate::judge::StepCause;
use crate::snapshot::{Group, Order};

fn entry(name: &str, need: Urgency, mode: Option<Mode>, sessions: (u64, u64)) -> Entry {
    Entry {
        name: name.to_owned(),
        need,
        mode,
        wanted: Mode::Enforce,
        binds: mode == Some(Mode::Enforce),
        since: mode.map(|_| Timestamp::UNIX_EPOCH),
        evidence: String::new(),
        next: NextStep::Nothing,
        successful: sessions.0,
        failed: sessions.1,
        host: HostedBy::Static,
        certificate_ends: None,
        is_certificate_ending: false,
        tags: Vec::new(),
    }
}

fn fine(name: &str) -> Entry {
    entry(name, Urgency::Fine, Some(Mode::Enforce), (10, 0))
}

#[test]
fn the_verdict_says_whether_anything_is_wrong() {
    let risk = entry("r.example", Urgency::Failing, Some(Mode::Enforce), (1, 1));
    let waits = entry("w.example", Urgency::Waiting, None, (0, 0));
    let way = entry("t.example", Urgency::OnItsWay, Some(Mode::Testing), (0, 0));
    for (domains, expected) in [
        (vec![fine("a.example")], "The domain is enforced, and nothing needs action"),
        (vec![fine("a.example"), fine("b.example")], "All 2 domains are enforced, and nothing needs action"),
        (vec![fine("a.example"), way.clone()], "Nothing needs action; 1 of 2 domains is enforced"),
        (vec![way.clone()], "Nothing needs action"),
        (vec![waits.clone()], "The domain needs action"),
        (vec![fine("a.example"), waits.clone()], "1 of 2 domains needs action"),
        (vec![fine("a.example"), risk.clone()], "Mail is at risk for 1 of 2 domains"),
        (vec![risk.clone()], "Mail to the domain is at risk"),
        (vec![fine("a.example"), waits.clone(), way], "1 of 3 domains needs action"),
        (vec![risk.clone(), risk.clone()], "Mail is at risk for all 2 domains"),
        (vec![risk.clone(), waits.clone()], "Mail is at risk for 1 of 2 domains; 1 more needs action"),
        (vec![risk, waits.clone(), waits], "Mail is at risk for 1 of 3 domains; 2 more need action"),
    ] {
        assert_eq!(verdict(&Totals::of(&domains)), expected);
    }
}

#[test]
fn the_bar_of_modes_is_full_and_each_mode_with_a_domain_is_seen() {
    let way = |name: &str, mode| entry(name, Urgency::OnItsWay, mode, (0, 0));
    let mut domains: Vec<Entry> = (0..2_000).map(|number| fine(&format!("d{number}.example"))).collect();
    domains.push(way("t.example", Some(Mode::Testing)));
    domains.push(way("u.example", None));
    domains.push(way("r.example", Some(Mode::None)));
    let bar = segments(&Totals::of(&domains));
    let labels: Vec<(&str, usize)> = bar.iter().map(|one| (one.label, one.count)).collect();
    assert_eq!(labels, [("enforced", 2_000), ("in testing", 1), ("retiring", 1), ("not set up", 1)]);
    assert_eq!(bar.iter().map(|one| one.width).sum::<usize>(), 1_000);
    assert!(bar.iter().all(|one| one.width >= 8));
    assert!(bar.windows(2).all(|pair| pair[0].from + pair[0].width == pair[1].from), "{bar:?}");
    let links: Vec<&str> = bar.iter().map(|one| one.link.as_str()).collect();
    assert_eq!(links, ["/?state=enforced#domains", "/?state=testing#domains", "", "/?state=unset#domains"]);
    let thirds = [fine("a.example"), way("t.example", Some(Mode::Testing)), way("u.example", None)];
    let bar = segments(&Totals::of(&thirds));
    assert_eq!(
        bar.iter().map(|one| (one.from, one.width)).collect::<Vec<_>>(),
        [(0, 333), (333, 333), (666, 334)]
    );
    assert_eq!(segments(&Totals::default()), []);
}

#[test]
fn the_verdict_has_a_sign_and_says_since_when_domains_are_enforced() {
    let risk = entry("r.example", Urgency::Failing, Some(Mode::Enforce), (1, 1));
    let waits = entry("w.example", Urgency::Waiting, None, (0, 0));
    let way = entry("t.example", Urgency::OnItsWay, Some(Mode::Testing), (0, 0));
    let mark = |domains: &[Entry]| verdict_mark(&Totals::of(domains)).0;
    assert_eq!(mark(&[fine("a.example")]), "fine");
    assert_eq!(mark(&[fine("a.example"), way.clone()]), "way");
    assert_eq!(mark(&[waits.clone(), way.clone()]), "waiting");
    assert_eq!(mark(&[waits, risk]), "failing");
    assert_eq!(enforced_since(&Totals::of(&[way])), "");
    assert_eq!(enforced_since(&Totals::of(&[fine("a.example")])), "since 1970-01-01");
    let later = Entry { since: Some(Timestamp::from_second(86_400 * 40).unwrap()), ..fine("b.example") };
    let both = Totals::of(&[fine("a.example"), later]);
    assert_eq!(enforced_since(&both), "the first since 1970-01-01, the last since 1970-02-10");
}

#[test]
fn links_keep_the_other_parameters_and_lead_to_the_first_page() {
    let query =
        OverviewQuery { q: "a b".into(), state: "action".into(), page: 3, ..OverviewQuery::default() };
    assert_eq!(
        query.link(&[("sort", "failed"), ("dir", "desc")]),
        "/?q=a%20b&state=action&sort=failed&dir=desc#domains"
    );
    assert_eq!(query.link(&[("state", ""), ("page", "2")]), "/?q=a%20b&page=2#domains");
    let sorted = OverviewQuery { sort: "failed".into(), dir: "desc".into(), ..OverviewQuery::default() };
    let columns = headings(&sorted, false);
    let failed = columns.iter().find(|column| column.label == "Failed").unwrap();
    assert_eq!((failed.order, failed.link.as_str()), ("descending", "/?sort=failed#domains"));
    assert!(columns.iter().all(|column| column.label != "Certificate"));
}

#[test]
fn a_group_of_one_leads_to_the_domain_and_a_large_one_has_one_command() {
    let group = |step, count: usize| Group {
        id: "setup".into(),
        need: Urgency::Waiting,
        order: Order::New,
        what: "Not set up yet".into(),
        means: String::new(),
        remedy: String::new(),
        step: Some(step),
        since: None,
        domains: (0..count).map(|number| format!("d{number}.example")).collect(),
    };
    let one = group_view(&group(StepCause::Approve, 1));
    assert_eq!(one.button.unwrap().1, "/domains/d0.example#next-step");
    let some = group_view(&group(StepCause::SetUp, 5));
    assert_eq!(some.command, "sternpost apply d0.example d1.example d2.example d3.example d4.example");
    assert_eq!((some.named.len(), some.further, some.link.as_str()), (3, 2, "/?cause=setup#domains"));
    assert_eq!(group_view(&group(StepCause::SetUp, 21)).command, "sternpost apply");
    assert!(group_view(&group(StepCause::Damaged, 1)).button.is_none(), "its page can't be shown");
}

#[test]
fn domains_are_filtered_by_tag_and_by_risk() {
    let tagged = |name: &str, need, tags: &[&str]| Entry {
        tags: Tag::parse_all(tags.iter().copied()).unwrap(),
        ..entry(name, need, Some(Mode::Enforce), (10, 0))
    };
    let domains = vec![
        tagged("a.example", Urgency::Failing, &["press", "shop"]),
        tagged("b.example", Urgency::Fine, &["shop"]),
        tagged("c.example", Urgency::Fine, &[]),
    ];
    let snapshot = Snapshot::of(domains);
    // The filters and their counts agree.
    for (state, _) in STATES {
        let by_state = OverviewQuery { state: state.into(), ..OverviewQuery::default() };
        assert_eq!(
            by_state.select(&snapshot).len(),
            OverviewQuery::count_in(state, &snapshot.totals),
            "{state}"
        );
    }
    let names = |query: OverviewQuery| -> Vec<String> {
        query.select(&snapshot).iter().map(|entry| entry.name.clone()).collect()
    };
    let by_tag = OverviewQuery { tag: "shop".into(), ..OverviewQuery::default() };
    assert_eq!(names(by_tag.clone()), ["a.example", "b.example"]);
    let at_risk = OverviewQuery { state: "risk".into(), ..by_tag.clone() };
    assert_eq!(at_risk.link(&[]), "/?state=risk&tag=shop#domains");
    assert_eq!(names(at_risk), ["a.example"]);
    assert_eq!(names(OverviewQuery { tag: "sho".into(), ..OverviewQuery::default() }), [""; 0]);
    let chips: Vec<(String, usize, String)> =
        tags(&by_tag, &snapshot).into_iter().map(|chip| (chip.label, chip.count, chip.link)).collect();
    let expected = [("shop", 2, "/?#domains"), ("press", 1, "/?tag=press#domains")];
    assert_eq!(chips, expected.map(|(tag, count, link)| (tag.to_owned(), count, link.to_owned())));
}
