//! Parses Postfix's lookup keys, and builds replies from arbitrary policies. No policy value can add an attribute.
#![no_main]
use formats::policy::lines;
use formats::socketmap::Reply;
use formats::tls_policy::{Answer, Level, LookupKey, Tlsrpt, TlsrptPolicy};
use formats::{DomainName, Policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = LookupKey::parse(text);
    let Ok(policy) = Policy::parse(text.as_bytes()) else { return };
    let policy_domain = DomainName::parse("example.org").expect("a name");
    let policy_string: Vec<String> = lines(text).map(str::to_owned).collect();
    let found = TlsrptPolicy::Sts { policy_string, mx: policy.mx.clone(), failure: None };
    let answer = Answer::Level(Level::Secure(policy.mx), Some(Tlsrpt { policy_domain, found }));
    let Reply::Ok(said) = answer.reply(true) else { panic!("a level is an answer") };
    assert!(!said.chars().any(|c| c.is_control()));
    assert_eq!(said.matches('{').count(), said.matches('}').count());
    assert_eq!(said.matches('{').count(), said.matches("{ policy_string = ").count());
});
