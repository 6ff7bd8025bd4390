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
    let networks = 20_000_usize.div_ceil(256);
    assert!(allowed <= 50 + networks, "{allowed} attempts");
    let attempt = limits.begin_password(bob(), from("198.51.100.1"), NOW).unwrap();
    limits.succeeded(attempt, NOW);
    assert!(limits.begin_password(bob(), from("198.51.100.1"), NOW).is_ok());
}

#[test]
fn codes_are_limited_for_an_account_from_all_addresses_but_not_for_a_known_browser() {
    let limits = SignInLimits::default();
    let from_any = |number: u8| Source { address: Some(IpAddr::from([192, 0, 2, number])), browser: None };
    let allowed = (0..200).filter(|number| limits.begin_code(bob(), from_any(*number), NOW).is_ok());
    assert_eq!(allowed.count(), 10);
    let known = Source { browser: Some(BrowserId::new("a")), ..from_any(1) };
    assert!(limits.begin_code(bob(), known, NOW).is_ok());
    assert!(limits.begin_password(bob(), from_any(1), NOW).is_ok(), "passwords have their own counts");
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
    // An attempt adds up to three counts.
    assert!(count() <= MAX_COUNTS + 2 + usize::try_from(SHARED_COUNTS).unwrap(), "{}", count());
    assert!(fails(&limits, from("198.51.100.1"), after(86_400)) && count() < 10, "{}", count());
}
