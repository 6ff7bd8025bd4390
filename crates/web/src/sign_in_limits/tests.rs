//! The attacks of a stranger on an account, and what its owner can do meanwhile.

use super::*;

const NOW: Duration = Duration::from_secs(1_000_000);

fn after(seconds: u64) -> Duration {
    NOW + Duration::from_secs(seconds)
}

fn bob() -> Account {
    Account::new(Tenant::FIRST, "bob")
}

fn from(address: &str) -> Source {
    Source { address: Some(address.parse().unwrap()), browser: None }
}

/// Whether an attempt is allowed. It then fails.
fn fails(limits: &SignInLimits, source: Source, now: Duration) -> bool {
    limits.begin_password(bob(), source, now).is_ok()
}

#[test]
fn failures_from_one_address_do_not_keep_the_owner_out_at_another() {
    let limits = SignInLimits::default();
    let (stranger, owner) = (from("192.0.2.66"), from("198.51.100.1"));
    for second in 0..3590 {
        fails(&limits, stranger, after(second));
    }
    assert!(!fails(&limits, stranger, after(3590)));
    let attempt = limits.begin_password(bob(), owner, after(3590)).unwrap();
    limits.succeeded(attempt, after(3590));
}

#[test]
fn a_browser_that_signed_in_before_has_its_own_count_even_at_the_address_of_the_stranger() {
    let limits = SignInLimits::default();
    let here = from("192.0.2.66");
    let known = Source { browser: Some(BrowserId::new("a")), ..here };
    for second in 0..590 {
        fails(&limits, here, after(second));
    }
    assert!(!fails(&limits, here, after(590)));
    let attempt = limits.begin_password(bob(), known, after(590)).unwrap();
    assert!(attempt.is_from_known_browser);
    limits.succeeded(attempt, after(590));
    assert!(!fails(&limits, here, after(590)), "its success frees nobody else");
}

#[test]
fn a_stolen_cookie_gives_a_thief_few_attempts_and_takes_none_from_the_owner() {
    let limits = SignInLimits::default();
    let thief = Source { browser: Some(BrowserId::new("a")), ..from("192.0.2.66") };
    let allowed = (0..20).filter(|_| fails(&limits, thief, NOW)).count();
    assert_eq!(allowed, 10, "five by the cookie and five by the address");
    let owner = Source { address: from("198.51.100.1").address, ..thief };
    assert!(fails(&limits, owner, NOW), "by the address");
}

#[test]
fn a_wait_is_told_to_the_second_and_ends() {
    let limits = SignInLimits::default();
    let here = from("2001:db8::1");
    assert_eq!((0..9).filter(|_| fails(&limits, from("2001:db8::2"), NOW)).count(), 5);
    let wait = limits.begin_password(bob(), here, after(10)).unwrap_err();
    assert_eq!(wait, Duration::from_secs(20), "the same /64");
    assert!(!fails(&limits, here, after(29)) && fails(&limits, here, after(30)));
    assert!(!fails(&limits, here, after(30)));
    let other = Account::new(Tenant::FIRST, "ann");
    assert!(limits.begin_password(other, here, after(30)).is_ok());
}

#[test]
fn attempts_at_the_same_moment_count_before_any_of_them_is_judged() {
    let limits = SignInLimits::default();
    let attempts: Vec<_> = (0..50).map(|_| limits.begin_password(bob(), from("192.0.2.1"), NOW)).collect();
    assert_eq!(attempts.iter().filter(|one| one.is_ok()).count(), 5);
    // One was right, and one could not be judged.
    let mut allowed = attempts.into_iter().flatten();
    limits.undo(allowed.next().unwrap(), NOW);
    assert!(fails(&limits, from("192.0.2.1"), NOW) && !fails(&limits, from("192.0.2.1"), NOW));
    limits.succeeded(allowed.next().unwrap(), NOW);
    assert!(fails(&limits, from("192.0.2.1"), NOW));
}

#[test]
fn one_address_has_few_attempts_for_all_names_together_and_successes_use_none() {
    let limits = SignInLimits::default();
    let here = from("192.0.2.1");
    let begin =
        |number: u32| limits.begin_password(Account::new(Tenant::FIRST, &format!("user{number}")), here, NOW);
    for number in 0..100 {
        limits.succeeded(begin(number).unwrap(), NOW);
    }
    assert_eq!((0..100).filter(|number| begin(*number).is_ok()).count(), 30);
}

#[test]
fn guessing_from_many_addresses_is_slowed_and_another_network_still_gets_in() {
    let limits = SignInLimits::default();
    let address = |number: u32| Source {
        address: Some(IpAddr::from(Ipv4Addr::from_bits(0x0A00_0000 + number))),
        browser: None,
    };
    let allowed = (0..20_000).filter(|number| fails(&limits, address(*number), NOW)).count();
    // Five networks make the account guarded, with 30 attempts each. Then each network has six.
    let networks = 20_000_usize.div_ceil(256);
    assert!(allowed <= 5 * 30 + networks * 6, "{allowed} attempts");
    let owner = from("198.51.100.1");
    assert!(fails(&limits, owner, NOW) && fails(&limits, owner, NOW), "two typing errors");
    let attempt = limits.begin_password(bob(), owner, NOW).unwrap();
    limits.succeeded(attempt, NOW);
    let neighbor = limits.begin_password(bob(), from("198.51.100.2"), NOW).unwrap();
    limits.succeeded(neighbor, NOW);
    for _ in 0..20 {
        let attempt = limits.begin_password(bob(), owner, NOW).unwrap();
        limits.succeeded(attempt, NOW);
    }
}

#[test]
fn one_network_alone_never_makes_an_account_guarded() {
    let limits = SignInLimits::default();
    // A new /64 of one /48 each second, for an hour.
    for second in 0..3600_u16 {
        let address = IpAddr::from([0x2001, 0xdb8, 1, second, 0, 0, 0, 1]);
        fails(&limits, Source { address: Some(address), browser: None }, after(second.into()));
    }
    let tries = (0..9).filter(|_| fails(&limits, from("198.51.100.1"), after(3600))).count();
    assert_eq!(tries, 5, "another network has its own tries");
    assert!(fails(&limits, from("198.51.100.2"), after(3600)), "and so has its neighbor");
}

#[test]
fn one_address_does_not_keep_out_its_neighbors() {
    let limits = SignInLimits::default();
    for second in 0..7200 {
        fails(&limits, from("192.0.2.66"), after(second));
    }
    assert_eq!((0..9).filter(|_| fails(&limits, from("192.0.2.1"), after(7200))).count(), 5);
}

#[test]
fn all_browsers_of_an_account_have_a_sum_for_passwords_and_for_codes() {
    let limits = SignInLimits::default();
    let browser =
        |number: u32| Source { browser: Some(BrowserId::new(&number.to_string())), ..from("192.0.2.66") };
    let passwords = (0..1000).filter(|number| fails(&limits, browser(*number), NOW)).count();
    assert_eq!(passwords, 50 + 5, "by the cookies, and by the address");
    let begin = |number| limits.begin_code(bob(), CodeKind::App, browser(number), NOW);
    assert_eq!((0..1000).filter(|number| begin(*number).is_ok()).count(), 10 + 5, "and by the network");
    let ann = Account::new(Tenant::FIRST, "ann");
    let known = Source { browser: Some(BrowserId::new("of ann")), ..from("192.0.2.66") };
    assert!(limits.begin_password(ann, known, NOW).unwrap().is_from_known_browser);
}

#[test]
fn codes_are_limited_for_an_account_and_one_network_does_not_use_up_all() {
    let limits = SignInLimits::default();
    let begin = |address: &str| limits.begin_code(bob(), CodeKind::App, from(address), NOW);
    assert_eq!((1..200).filter(|last| begin(&format!("192.0.2.{last}")).is_ok()).count(), 5);
    assert!(begin("198.51.100.1").is_ok());
    let others = (0..200).filter(|third| begin(&format!("203.0.{third}.1")).is_ok()).count();
    assert_eq!(others, 4, "ten for the account in all");
    let known = Source { browser: Some(BrowserId::new("a")), ..from("192.0.2.1") };
    assert!(limits.begin_code(bob(), CodeKind::App, known, NOW).is_ok());
    assert!(limits.begin_password(bob(), from("192.0.2.1"), NOW).is_ok(), "passwords have their own counts");
}

#[test]
fn failed_codes_keep_nobody_from_a_recovery_code() {
    let limits = SignInLimits::default();
    for third in 0..200 {
        for kind in [CodeKind::App, CodeKind::Recovery] {
            let _ = limits.begin_code(bob(), kind, from(&format!("203.0.{third}.1")), NOW);
        }
    }
    let begin = |kind| limits.begin_code(bob(), kind, from("198.51.100.1"), NOW);
    assert!(begin(CodeKind::App).is_err());
    assert_eq!((0..9).filter(|_| begin(CodeKind::Recovery).is_ok()).count(), 5);
}

#[test]
fn attempts_that_were_not_judged_leave_no_counts() {
    let limits = SignInLimits::default();
    let count = || limits.counts.lock().unwrap().until.len();
    fails(&limits, from("192.0.2.1"), NOW);
    let before = count();
    let sources = [from("192.0.2.1"), from("2001:db8::1")];
    for source in sources {
        let known = Source { browser: Some(BrowserId::new("a")), ..source };
        for source in [source, known] {
            let attempts = [
                limits.begin_password(Account::new(Tenant::FIRST, "ann"), source, NOW).unwrap(),
                limits.begin_code(bob(), CodeKind::App, source, NOW).unwrap(),
                limits.begin_code(bob(), CodeKind::Recovery, source, NOW).unwrap(),
            ];
            attempts.into_iter().for_each(|attempt| limits.undo(attempt, NOW));
        }
    }
    assert_eq!(count(), before);
}

#[test]
fn known_browsers_share_no_counts_with_strangers_when_the_table_is_full() {
    let limits = SignInLimits::default();
    {
        let mut counts = limits.counts.lock().unwrap();
        let (end, number) = (after(86_400), u64::try_from(MAX_COUNTS).unwrap());
        counts.until.extend((0..number + SHARED_COUNTS).map(|number| (Key::Shared(number), end)));
        counts.swept = NOW;
    }
    assert!(!fails(&limits, from("192.0.2.1"), NOW), "strangers share full counts");
    let known = Source { browser: Some(BrowserId::new("a")), ..from("192.0.2.1") };
    assert!(limits.begin_password(bob(), known, NOW).unwrap().is_from_known_browser);
    assert!(limits.begin_code(bob(), CodeKind::App, known, NOW).unwrap().is_from_known_browser);
    assert!(
        limits.begin_code(bob(), CodeKind::App, from("192.0.2.1"), NOW).is_ok(),
        "after the right password"
    );
}

#[test]
fn the_counts_of_strangers_are_bounded_and_removed_when_they_are_idle() {
    let limits = SignInLimits::default();
    for number in 0..60_000_u32 {
        let address = IpAddr::from(Ipv4Addr::from_bits(number << 8));
        let account = Account::new(Tenant::FIRST, &number.to_string());
        let _ = limits.begin_password(account, Source { address: Some(address), browser: None }, NOW);
    }
    let count = || limits.counts.lock().unwrap().until.len();
    // An attempt adds up to five counts.
    assert!(count() <= MAX_COUNTS + 4 + usize::try_from(SHARED_COUNTS).unwrap(), "{}", count());
    assert!(fails(&limits, from("198.51.100.1"), after(86_400)) && count() < 10, "{}", count());
}
