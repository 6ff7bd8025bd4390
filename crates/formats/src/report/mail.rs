//! The names of report files (RFC 8460 §5.1) and the subjects of report mails (§5.3). The report delivery writes
//! them; the inbox and the import parse them to find the submitter of a report.

use crate::domain::DomainName;
use std::fmt;

/// The name of a report file: `SENDER!DOMAIN!BEGIN!END[!ID].json[.gz]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFileName {
    /// The domain of the report's sender.
    pub sender: DomainName,
    /// The policy domain, which the report is about.
    pub policy_domain: DomainName,
    /// The first second of the report, as Unix time.
    pub begin: i64,
    /// The last second of the report, as Unix time.
    pub end: i64,
    /// Distinguishes several reports of one range; 1 to 64 letters and digits, if present.
    pub unique_id: Option<String>,
    /// True if the extension is `.json.gz`, false for `.json`.
    pub gzip: bool,
}

impl ReportFileName {
    /// Parses a file name. Surrounding white space and leading folders are ignored.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim().rsplit(['/', '\\']).next()?;
        let (stem, gzip) = match name.strip_suffix(".gz") {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        let mut parts = stem.strip_suffix(".json")?.split('!');
        let parsed = Self {
            sender: DomainName::parse(parts.next()?).ok()?,
            policy_domain: DomainName::parse(parts.next()?).ok()?,
            begin: parts.next()?.parse().ok()?,
            end: parts.next()?.parse().ok()?,
            unique_id: match parts.next() {
                Some(id)
                    if !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric()) =>
                {
                    Some(id.to_owned())
                }
                Some(_) => return None,
                None => None,
            },
            gzip,
        };
        parts.next().is_none().then_some(parsed)
    }
}

impl fmt::Display for ReportFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}!{}!{}!{}", self.sender, self.policy_domain, self.begin, self.end)?;
        if let Some(id) = &self.unique_id {
            write!(f, "!{id}")?;
        }
        f.write_str(if self.gzip { ".json.gz" } else { ".json" })
    }
}

/// Returns the name of the gzip-compressed file for a report of `range` from `sender` about `policy_domain`.
pub fn file_name_of(
    sender: &DomainName,
    policy_domain: &DomainName,
    range: super::DateRange,
    unique_id: Option<&str>,
) -> ReportFileName {
    ReportFileName {
        sender: sender.clone(),
        policy_domain: policy_domain.clone(),
        begin: range.start.as_second(),
        end: range.end.as_second(),
        unique_id: unique_id.map(str::to_owned),
        gzip: true,
    }
}

/// The identifying headers of a report mail (RFC 8460 §5.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportMail {
    /// The policy domain, which is also in `TLS-Report-Domain`.
    pub policy_domain: DomainName,
    /// The submitter, which is also in `TLS-Report-Submitter`.
    pub submitter: DomainName,
    /// The `report-id` in the subject, without angle brackets.
    pub report_id: String,
}

impl ReportMail {
    /// Returns the subject (RPT-15).
    pub fn subject(&self) -> String {
        format!(
            "Report Domain: {} Submitter: {} Report-ID: <{}>",
            self.policy_domain, self.submitter, self.report_id
        )
    }

    /// Parses a subject. Folding may leave white space anywhere in it, including the id.
    pub fn parse_subject(subject: &str) -> Option<Self> {
        let rest = subject.trim();
        let rest = strip_prefix_ignore_case(rest, "Report Domain:")?;
        let (domain, rest) = split_ignore_case(rest, "Submitter:")?;
        let (submitter, id) = split_ignore_case(rest, "Report-ID:")?;
        let id: String = id.chars().filter(|c| !c.is_whitespace()).collect();
        let id = id.strip_prefix('<').unwrap_or(&id);
        let id = id.strip_suffix('>').unwrap_or(id);
        Some(Self {
            policy_domain: DomainName::parse(domain.trim()).ok()?,
            submitter: DomainName::parse(submitter.trim()).ok()?,
            report_id: (!id.is_empty()).then(|| id.to_owned())?,
        })
    }
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| text.get(prefix.len()..)).flatten()
}

fn split_ignore_case<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let at = text
        .char_indices()
        .map(|(at, _)| at)
        .find(|at| text.get(*at..at + word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word)))?;
    Some((text.get(..at)?, text.get(at + word.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rpt_12_file_names_say_sender_domain_range_and_id() {
        let name = "mail.sender.example!example.com!1470013207!1470186007!001.json.gz";
        let parsed = ReportFileName::parse(name).unwrap();
        assert_eq!(
            (parsed.sender.as_str(), parsed.begin, parsed.unique_id.as_deref(), parsed.gzip),
            ("mail.sender.example", 1_470_013_207, Some("001"), true)
        );
        assert_eq!(parsed.to_string(), name);
        assert!(ReportFileName::parse("a.example!b.example!1!2.json").is_some());
        for bad in [
            "",
            "a.json",
            "a.example!b.example!1.json",
            "a.example!b.example!x!2.json.gz",
            "a.example!b.example!1!2!!.json",
            "a.example!b.example!1!2!3!4.json",
            "a b!b.example!1!2.json",
            "a.example!b.example!1!2.xml",
        ] {
            assert!(ReportFileName::parse(bad).is_none(), "{bad:?}");
        }
        let range = super::super::DateRange::utc_day("2026-11-24T01:00:00Z".parse().unwrap());
        let made = file_name_of(&parsed.sender, &parsed.policy_domain, range, None);
        assert_eq!(made.to_string(), "mail.sender.example!example.com!1795478400!1795564799.json.gz");
    }

    #[test]
    fn rpt_15_the_subject_names_domain_submitter_and_id() {
        let mail = ReportMail {
            policy_domain: DomainName::parse("example.com").unwrap(),
            submitter: DomainName::parse("mail.sender.example").unwrap(),
            report_id: "735ff.e317@example".into(),
        };
        assert_eq!(
            mail.subject(),
            "Report Domain: example.com Submitter: mail.sender.example Report-ID: <735ff.e317@example>"
        );
        assert_eq!(ReportMail::parse_subject(&mail.subject()), Some(mail.clone()));
        let folded = "Report Domain: example.com\r\n Submitter: mail.sender.example\r\n Report-ID: <735ff.\r\n e317@example>";
        assert_eq!(ReportMail::parse_subject(folded), Some(mail));
        assert_eq!(ReportMail::parse_subject("Hello"), None);
    }

    proptest! {
        #[test]
        fn written_names_are_parsed_unchanged(sender in "[a-z]{1,9}\\.example", domain in "[a-z]{1,9}\\.example", begin in 0i64..1 << 40, end in 0i64..1 << 40, id in proptest::option::of("[a-zA-Z0-9]{1,20}"), gzip: bool) {
            let name = ReportFileName { sender: DomainName::parse(&sender).unwrap(), policy_domain: DomainName::parse(&domain).unwrap(), begin, end, unique_id: id, gzip };
            prop_assert_eq!(ReportFileName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn any_text_is_rejected_or_accepted(text in "(Report Domain: )?\\PC{0,60}( Submitter: a.example)?\\PC{0,30}(Report-ID: )?\\PC{0,30}") {
            let _ = ReportMail::parse_subject(&text);
            let _ = ReportFileName::parse(&text);
        }
    }
}
