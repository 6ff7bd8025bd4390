//! What a problem document of an ACME CA means to the operator (RFC 8555 §6.7): what the CA found, what follows, and what to do,
//! with the keys of `[host.acme]` and the lines to paste.

use formats::DomainName;
use formats::limits::EVIDENCE_CHARACTERS;
use formats::printable::printable;
use instant_acme::Problem;

/// What is known about a problem type.
struct Refusal {
    /// The type, without [`PREFIX`].
    kind: &'static str,
    finding: &'static str,
    /// What follows, and what to do. `{host}` is the policy host, `{domain}` the mail domain.
    remedy: &'static str,
}

const PREFIX: &str = "urn:ietf:params:acme:error:";

/// The remedy where the CA reached another server than this one, or none.
const UNREACHABLE: &str = "No certificate is issued before the CA reaches this server: let TCP port 80 (with `http` in [host]) and 443 in \
    through the firewall, at each address that {host} has, over IPv6 too; or set challenge = \"dns-01\" in [host.acme], which needs no open port";
const OTHER_SERVER: &str = "Another server answers for {host}: point the name here, let the proxy or web server before Sternpost pass on \
    /.well-known/acme-challenge/, or set challenge = \"dns-01\" in [host.acme], which needs no port";
const OTHER_CA: &str = "Another CA may issue it; it is asked where this one fails:\n  [[host.acme.then]]\n  directory = \"https://…\"";

const REFUSALS: &[Refusal] = &[
    Refusal {
        kind: "accountDoesNotExist",
        finding: "the CA does not know the account in the store, as after a reset of the CA",
        remedy: "The next order creates a new one by itself. If CAA records name the old account (accounturi), replace it there",
    },
    Refusal {
        kind: "badNonce",
        finding: "the CA rejected the nonces that it had issued",
        remedy: "Nothing is lost: the order is repeated by itself. If that goes on, the servers behind directory in [host.acme] do \
                 not share their nonces, which only the CA can change",
    },
    Refusal {
        kind: "caa",
        finding: "a CAA record forbids this CA to issue the certificate",
        remedy: "No order succeeds before a record allows it: add one beside it, with the CA's name, such as\n  \
                 {domain}. 300 IN CAA 0 issue \"letsencrypt.org\"\nor set directory in [host.acme] to the CA that the record names",
    },
    Refusal {
        kind: "connection",
        finding: "the CA could not connect to the policy host",
        remedy: UNREACHABLE,
    },
    Refusal {
        kind: "dns",
        finding: "the CA could not resolve the name of the policy host",
        remedy: "The failure counts against the CA's rate limits, so each retry waits longer. See what other resolvers get \
                 (a broken DNSSEC chain and a dead name server are the usual causes):\n  sternpost check {domain}",
    },
    Refusal {
        kind: "externalAccountRequired",
        finding: "the CA issues only for customers, and the account is bound to none",
        remedy: "No order is accepted before it is. Set in [host.acme] what the CA shows in its web interface as EAB key ID, and \
                 the file with its HMAC key:\n  key_id = \"…\"\n  key_file = \"eab.key\"",
    },
    Refusal {
        kind: "incorrectResponse",
        finding: "the CA got a wrong answer to its challenge",
        remedy: OTHER_SERVER,
    },
    Refusal {
        kind: "invalidContact",
        finding: "the CA does not accept the contact address",
        remedy: "No account is created before it does. Set an address that receives mail:\n  contact = \"mailto:postmaster@{domain}\"",
    },
    Refusal {
        kind: "invalidProfile",
        finding: "the CA has no such certificate profile",
        remedy: "No order is accepted before profile in [host.acme] is one that the CA's directory lists, or is left out",
    },
    Refusal {
        kind: "rateLimited",
        finding: "the CA has had too many orders or failed validations",
        remedy: "No order is sent to it for 15 minutes; certificates in use stay. Set new_per_hour in [host.acme] to what the CA \
                 allows, or name a second CA, which is asked meanwhile:\n  [[host.acme.then]]\n  directory = \"https://…\"",
    },
    Refusal {
        kind: "rejectedIdentifier",
        finding: "the CA does not issue certificates for this name",
        remedy: OTHER_CA,
    },
    Refusal {
        kind: "serverInternal",
        finding: "the CA has an internal fault",
        remedy: "The order is repeated by itself. A second CA is asked meanwhile:\n  [[host.acme.then]]\n  directory = \"https://…\"",
    },
    Refusal {
        kind: "tls",
        finding: "the TLS handshake of the CA with the policy host failed",
        remedy: "With tls-alpn-01, the CA connects to port 443 and has to reach Sternpost itself: a proxy that ends TLS before it \
                 answers instead. Set http in [host], so that it can use port 80, or challenge = \"dns-01\" in [host.acme]",
    },
    Refusal {
        kind: "unauthorized",
        finding: "the CA got another answer to its challenge than the one here",
        remedy: OTHER_SERVER,
    },
    Refusal {
        kind: "unsupportedContact",
        finding: "the CA does not accept this kind of contact",
        remedy: "No account is created before it does. Set a mail address:\n  contact = \"mailto:postmaster@{domain}\"",
    },
    Refusal {
        kind: "unsupportedIdentifier",
        finding: "the CA does not issue certificates for names of this kind",
        remedy: OTHER_CA,
    },
    Refusal {
        kind: "userActionRequired",
        finding: "the CA requires an action of the account's owner, such as to agree to new terms of service",
        remedy: "No order is accepted before that. The CA's text says where",
    },
];

/// A problem document in words: the finding with the CA's own text, what follows, and what to do.
pub(super) fn in_words(problem: &Problem, host: &DomainName) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let known = REFUSALS.iter().find(|refusal| Some(refusal.kind) == kind.strip_prefix(PREFIX));
    // The library's text has the detail, the type and what is said about single names. CAs quote in it what they were answered.
    let text = problem.to_string();
    let detail = printable(text.strip_prefix("API error: ").unwrap_or(&text), EVIDENCE_CHARACTERS);
    let Some(Refusal { finding, remedy, .. }) = known else { return format!("the CA refused: {detail}") };
    let domain = host.parent().unwrap_or_else(|| host.clone());
    let remedy = remedy.replace("{host}", host.as_str()).replace("{domain}", domain.as_str());
    format!("{finding}: {detail}. {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str) -> String {
        told_with(kind, "the reason")
    }

    fn told_with(kind: &str, detail: &str) -> String {
        let problem = serde_json::json!({ "type": kind, "detail": detail });
        let problem: Problem = serde_json::from_value(problem).unwrap();
        in_words(&problem, &DomainName::parse("mta-sts.example.org").unwrap())
    }

    #[test]
    fn each_refusal_has_the_text_of_the_ca_and_names_what_to_set() {
        for (kind, parts) in [
            ("rateLimited", &["for 15 minutes", "new_per_hour", "[[host.acme.then]]"][..]),
            ("caa", &["\n  example.org. 300 IN CAA 0 issue \"letsencrypt.org\"", "directory in [host.acme]"]),
            ("dns", &["could not resolve", "\n  sternpost check example.org"]),
            ("connection", &["port 80", "443", "mta-sts.example.org", "IPv6", "challenge = \"dns-01\""]),
            (
                "unauthorized",
                &["Another server answers for mta-sts.example.org", ".well-known/acme-challenge/"],
            ),
            ("badNonce", &["repeated by itself", "directory"]),
            ("externalAccountRequired", &["\n  key_id = \"…\"", "\n  key_file = \"eab.key\""]),
            ("rejectedIdentifier", &["does not issue", "\n  [[host.acme.then]]"]),
            ("tls", &["port 443", "challenge = \"dns-01\""]),
            ("invalidContact", &["\n  contact = \"mailto:postmaster@example.org\""]),
        ] {
            let text = told(&format!("{PREFIX}{kind}"));
            assert!(text.contains(&format!(": the reason ({PREFIX}{kind}). ")), "{text}");
            for part in parts {
                assert!(text.contains(part), "{kind}: {part}: {text}");
            }
        }
        assert_eq!(told("urn:example:odd"), "the CA refused: the reason (urn:example:odd)");
    }

    #[test]
    fn the_text_of_a_ca_is_short_and_has_no_control_characters() {
        for kind in ["urn:example:odd", "urn:ietf:params:acme:error:unauthorized"] {
            let detail = format!("\u{1b}[2J\nWhat to do: x{}", "y".repeat(1_000_000));
            let text = told_with(kind, &detail);
            assert!(!text.contains(['\u{1b}', '\n']) && text.len() < 5000, "{}", text.len());
        }
    }

    #[test]
    fn the_table_is_sorted_and_leaves_no_placeholder() {
        assert!(REFUSALS.is_sorted_by_key(|refusal| refusal.kind));
        for Refusal { kind, .. } in REFUSALS {
            let text = told(&format!("{PREFIX}{kind}"));
            assert!(!text.contains(['{', '}']) && !text.ends_with('.'), "{text}");
        }
    }
}
