//! Lenient parsing of reports. Known deviations of real reporters from RFC 8460 §4 are accepted and recorded as
//! warnings (REC-08). A report is rejected only if it lacks the members that give it a meaning, or exceeds a limit.

mod quirk;
mod time;

pub use quirk::Quirk;

use super::texts::ReportTexts;
use super::{DateRange, FailureDetail, PolicyReport, Report, Unpacked};
use crate::domain::DomainName;
use crate::json::Json;
use crate::limits::{
    JSON_NODES, REPORT_BYTES, REPORT_DETAILS, REPORT_POLICIES, REPORT_TEXT_BYTES, REPORT_WARNINGS,
};
use crate::result_type::{PolicyType, ResultType};
use std::net::IpAddr;

/// A parsed report with its warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReport {
    /// The parsed report.
    pub report: Report,
    /// The deviations from RFC 8460, at most [`REPORT_WARNINGS`].
    pub warnings: Vec<Warning>,
}

impl ReadReport {
    /// Adds the warning for the packing of the report's file, if it deserves one.
    pub fn with_packing(self, packing: Unpacked) -> Self {
        if packing == Unpacked::GzipWithTrailingBytes { self.with(Quirk::TrailingBytes) } else { self }
    }

    /// Adds the warning for text that follows the report, unless it is empty.
    pub fn with_trailing(self, text: &str) -> Self {
        if text.is_empty() { self } else { self.with(Quirk::TrailingText) }
    }

    /// Adds a warning for the whole report.
    fn with(mut self, quirk: Quirk) -> Self {
        if self.warnings.len() < REPORT_WARNINGS {
            self.warnings.insert(0, Warning { path: String::new(), quirk });
        }
        self
    }
}

/// A deviation from RFC 8460, and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The path of the member, e.g. `policies[0].summary.total-failure-session-count`; empty for the whole report.
    pub path: String,
    /// The kind of deviation.
    pub quirk: Quirk,
}

/// Why a report can't be parsed. The inbox quarantines such reports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The report is longer than [`REPORT_BYTES`].
    #[error("the report has {0} bytes; at most {REPORT_BYTES} are accepted")]
    TooLong(usize),
    /// The text is not valid JSON, or is nested too deeply.
    #[error("line {line}, column {column}: {message}")]
    Json {
        /// The line of the error, counted from 1.
        line: usize,
        /// The column of the error, counted from 1.
        column: usize,
        /// The error message of the JSON parser.
        message: String,
    },
    /// An essential member is missing or invalid.
    #[error("{path}: {problem}")]
    Member {
        /// The path of the member.
        path: String,
        /// What is wrong with the member.
        problem: String,
    },
    /// The text has more than one report. [`ReportTexts`] divides such texts.
    #[error("the text has more than one report")]
    Several,
    /// The report has more than [`REPORT_DETAILS`] details or [`REPORT_POLICIES`] policies.
    #[error("{0}: too many entries")]
    TooMany(String),
}

impl Report {
    /// Parses a decompressed report.
    ///
    /// # Errors
    ///
    /// If an essential member is missing or invalid, or the report exceeds a limit.
    pub fn read(bytes: &[u8]) -> Result<ReadReport, ReadError> {
        Self::read_within(bytes, &mut { JSON_NODES })
    }

    /// Parses a decompressed report of at most `nodes` JSON values, and counts `nodes` down, also if the report is rejected.
    /// Values and lines within a string, where a policy should be an array, count too. Several reports that arrive together
    /// share one count.
    ///
    /// # Errors
    ///
    /// As for [`Report::read`].
    pub fn read_within(bytes: &[u8], nodes: &mut usize) -> Result<ReadReport, ReadError> {
        if bytes.len() > REPORT_BYTES {
            return Err(ReadError::TooLong(bytes.len()));
        }
        let texts = ReportTexts::decode(bytes);
        let mut objects = texts.objects();
        // Text without an object is parsed for the error.
        let first = objects.next().unwrap_or(texts.whole());
        if objects.next().is_some() {
            return Err(ReadError::Several);
        }
        Ok(Self::read_text(&texts, first, nodes)?.with_trailing(objects.trailing()))
    }

    /// Parses one of the objects in `texts`. Otherwise like [`Report::read_within`].
    ///
    /// # Errors
    ///
    /// As for [`Report::read`].
    pub fn read_text(
        texts: &ReportTexts<'_>,
        object: &str,
        nodes: &mut usize,
    ) -> Result<ReadReport, ReadError> {
        let mut reader = Reader { warnings: Vec::new(), details: 0, nodes };
        if let Some(quirk) = texts.quirk() {
            reader.warn("", quirk);
        }
        let json = Json::parse(object, reader.nodes).map_err(|error| ReadError::Json {
            line: error.line(),
            column: error.column(),
            message: error.to_string().chars().take(200).collect(),
        })?;
        let report = reader.report(&json)?;
        Ok(ReadReport { report, warnings: reader.warnings })
    }
}

struct Reader<'n> {
    warnings: Vec<Warning>,
    details: usize,
    /// The number of JSON values that are left.
    nodes: &'n mut usize,
}

type Members = Vec<(String, Json)>;

/// The value of a member that is a number of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Known(u64),
    /// The member is missing.
    Absent,
    /// The member exists but is not a number of sessions.
    Unreadable,
}

impl Count {
    fn or(self, other: u64) -> u64 {
        match self {
            Self::Known(count) => count,
            Self::Absent | Self::Unreadable => other,
        }
    }
}

impl Reader<'_> {
    fn warn(&mut self, path: &str, quirk: Quirk) {
        match self.warnings.len() {
            n if n < REPORT_WARNINGS - 1 => self.warnings.push(Warning { path: path.to_owned(), quirk }),
            n if n < REPORT_WARNINGS => {
                self.warnings.push(Warning { path: String::new(), quirk: Quirk::More })
            }
            _ => {}
        }
    }

    fn report(&mut self, json: &Json) -> Result<Report, ReadError> {
        let members = self.object(json, "report")?;
        let report_id = self.report_id(members)?;
        let date_range = self.date_range(members)?;
        let policies = self.policies(members)?;
        Ok(Report {
            organization_name: self.text(members, "organization-name", "", true),
            contact_info: self.text(members, "contact-info", "", true),
            report_id,
            date_range,
            policies,
        })
    }

    fn object<'j>(&mut self, json: &'j Json, path: &str) -> Result<&'j Members, ReadError> {
        let Json::Object(members) = json else {
            return Err(ReadError::Member {
                path: path.to_owned(),
                problem: format!("{} where an object was expected", json.kind()),
            });
        };
        for (index, (name, _)) in members.iter().enumerate().skip(1).take(64) {
            if members.iter().take(index).any(|(before, _)| before == name) {
                self.warn(&join(path, &name.chars().take(64).collect::<String>()), Quirk::Duplicate);
            }
        }
        Ok(members)
    }

    fn report_id(&mut self, members: &Members) -> Result<String, ReadError> {
        let id = match find(members, "report-id") {
            Some(Json::Text(id)) if !id.trim().is_empty() => self.cut(id, "report-id"),
            Some(Json::Count(number)) => number.to_string(),
            other => {
                let problem = other.map_or("missing".to_owned(), |json| {
                    format!("{} where a string was expected", json.kind())
                });
                return Err(ReadError::Member { path: "report-id".into(), problem });
            }
        };
        if id.rsplit_once('+').is_some_and(|(_, end)| {
            end.is_empty() || (end.contains('.') && !end.contains('@') && DomainName::parse(end).is_ok())
        }) {
            self.warn("report-id", Quirk::ReportIdSuffix);
        }
        Ok(id)
    }

    fn date_range(&mut self, members: &Members) -> Result<DateRange, ReadError> {
        let missing = || ReadError::Member { path: "date-range".into(), problem: "missing".into() };
        let range = self.object(find(members, "date-range").ok_or_else(missing)?, "date-range")?;
        let start = self.time(range, "start-datetime")?;
        let end = self.time(range, "end-datetime")?;
        let mut range = DateRange { start, end };
        if end < start {
            self.warn("date-range", Quirk::Reversed);
            range = DateRange { start: end, end: start };
        }
        let day = DateRange::utc_day(range.start);
        if range.start == day.start && range.end.as_second() == day.end.as_second() + 1 {
            self.warn("date-range.end-datetime", Quirk::EndsAtMidnight);
        } else if range.start != day.start || range.end.as_second() != day.end.as_second() {
            self.warn("date-range", Quirk::NotADay);
        }
        Ok(range)
    }

    fn policies(&mut self, members: &Members) -> Result<Vec<PolicyReport>, ReadError> {
        let items = match find(members, "policies") {
            Some(Json::Array(items)) => items.as_slice(),
            // A program that converts XML writes a list of one element like this.
            Some(single @ Json::Object(_)) => {
                self.warn("policies", Quirk::WrongKind);
                std::slice::from_ref(single)
            }
            other => {
                let problem = other.map_or("missing".to_owned(), |json| {
                    format!("{} where an array was expected", json.kind())
                });
                return Err(ReadError::Member { path: "policies".into(), problem });
            }
        };
        if items.len() > REPORT_POLICIES {
            return Err(ReadError::TooMany("policies".into()));
        }
        let mut policies = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            policies.push(self.policy(item, &format!("policies[{index}]"))?);
        }
        let mut domains = policies.iter().filter_map(|policy| policy.policy_domain.as_ref());
        if domains.next().is_some_and(|first| domains.any(|other| other != first)) {
            self.warn("policies", Quirk::SeveralDomains);
        }
        Ok(policies)
    }

    fn policy(&mut self, json: &Json, path: &str) -> Result<PolicyReport, ReadError> {
        let members = self.object(json, path)?;
        let inner_path = join(path, "policy");
        let missing = || ReadError::Member { path: inner_path.clone(), problem: "missing".into() };
        let policy = self.object(find(members, "policy").ok_or_else(missing)?, &inner_path)?;
        let policy_type = self.policy_type(policy, &inner_path)?;
        let policy_string = self.policy_string(policy, &inner_path, &policy_type);
        let mx_host = self.mx_host(policy, &inner_path);
        let policy_domain = self.domain(policy, "policy-domain", &inner_path);
        let details = self.details(members, path)?;
        let (successful, failed) = self.summary(members, path, &details)?;
        Ok(PolicyReport { policy_type, policy_string, policy_domain, mx_host, successful, failed, details })
    }

    fn policy_type(&mut self, policy: &Members, path: &str) -> Result<PolicyType, ReadError> {
        let path = join(path, "policy-type");
        let Some(Json::Text(text)) = find(policy, "policy-type") else {
            return Err(ReadError::Member { path, problem: "missing, or not a string".into() });
        };
        let kind = PolicyType::parse(&self.cut(text, &path));
        match &kind {
            PolicyType::Other(_) => self.warn(&path, Quirk::UnknownName),
            known if known.as_str() != text => self.warn(&path, Quirk::OtherCase),
            _ => {}
        }
        Ok(kind)
    }

    fn policy_string(&mut self, policy: &Members, path: &str, kind: &PolicyType) -> Vec<String> {
        let wanted = *kind != PolicyType::NoPolicyFound;
        let path = join(path, "policy-string");
        let mut lines = self.strings(policy, "policy-string", &path, wanted);
        if let [only] = lines.as_slice() {
            if let Some(inner) = nested_array(only, self.nodes) {
                self.warn(&path, Quirk::NestedArray);
                lines = inner;
            } else if only.trim_end().contains('\n') {
                self.warn(&path, Quirk::WholePolicyInOneString);
                // Beyond the limit, the string stays as it is.
                if let Some(left) = self.nodes.checked_sub(crate::policy::lines(only).count()) {
                    *self.nodes = left;
                    lines = crate::policy::lines(only).map(str::to_owned).collect();
                }
            }
        }
        if *kind == PolicyType::Sts {
            let tight = |line: &String| {
                line.split_once(':').is_some_and(|(_, value)| value.starts_with(|c: char| !c.is_whitespace()))
            };
            if lines.iter().any(tight) {
                self.warn(&path, Quirk::NoSpaceAfterColon);
            }
        }
        lines
    }

    fn mx_host(&mut self, policy: &Members, path: &str) -> Vec<String> {
        let path = join(path, "mx-host");
        let hosts = self.strings(policy, "mx-host", &path, false);
        hosts
            .into_iter()
            .map(|host| match host.strip_prefix("mx:") {
                Some(bare) => {
                    self.warn(&path, Quirk::MxPrefix);
                    bare.trim().to_owned()
                }
                None => host,
            })
            .collect()
    }

    fn summary(
        &mut self,
        members: &Members,
        path: &str,
        details: &[FailureDetail],
    ) -> Result<(u64, u64), ReadError> {
        let path = join(path, "summary");
        let sum: u64 = details.iter().map(|detail| detail.failed_session_count).fold(0, u64::saturating_add);
        let Some(summary) = find(members, "summary") else {
            self.warn(&path, Quirk::Missing);
            return Ok((0, sum));
        };
        let summary = self.object(summary, &path)?;
        let successful = self.count(summary, "total-successful-session-count", &path).or(0);
        let total = join(&path, "total-failure-session-count");
        let failed = match self.count(summary, "total-failure-session-count", &path) {
            Count::Known(count) => count,
            // Some writers omit members with the value 0.
            Count::Absent => sum,
            // The unreadable value may count failures of unknown kind, so the day must not appear free of failures.
            Count::Unreadable => {
                self.warn(&total, Quirk::FailuresUnknown);
                return Ok((successful, sum.saturating_add(1)));
            }
        };
        match failed.cmp(&sum) {
            std::cmp::Ordering::Less => self.warn(&total, Quirk::TotalBelowDetails),
            std::cmp::Ordering::Greater => self.warn(&total, Quirk::TotalAboveDetails),
            std::cmp::Ordering::Equal => {}
        }
        Ok((successful, failed))
    }

    fn details(&mut self, members: &Members, path: &str) -> Result<Vec<FailureDetail>, ReadError> {
        let path = join(path, "failure-details");
        let items = match find(members, "failure-details") {
            None => return Ok(Vec::new()),
            Some(Json::Null) => {
                self.warn(&path, Quirk::Null);
                return Ok(Vec::new());
            }
            Some(Json::Array(items)) => items.as_slice(),
            Some(single @ Json::Object(members)) if is_detail(members) => {
                self.warn(&path, Quirk::WrongKind);
                std::slice::from_ref(single)
            }
            Some(other) => {
                self.warn(&path, Quirk::WrongKind);
                let is_empty = match other {
                    Json::Text(text) => text.trim().is_empty(),
                    Json::Object(members) => members.is_empty(),
                    _ => false,
                };
                if is_empty {
                    return Ok(Vec::new());
                }
                self.warn(&path, Quirk::FailuresUnknown);
                return Ok(vec![unknown_failure()]);
            }
        };
        self.details += items.len();
        if self.details > REPORT_DETAILS {
            return Err(ReadError::TooMany(path));
        }
        let mut details = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            details.push(self.detail(item, &format!("{path}[{index}]"))?);
        }
        Ok(details)
    }

    fn detail(&mut self, json: &Json, path: &str) -> Result<FailureDetail, ReadError> {
        let members = self.object(json, path)?;
        let name_path = join(path, "result-type");
        let result_type = match self.text(members, "result-type", path, true) {
            None => ResultType::Other(String::new()),
            Some(text) => {
                let kind = ResultType::parse(&text);
                match &kind {
                    ResultType::Other(_) => self.warn(&name_path, Quirk::UnknownName),
                    known if known.as_str() != text => self.warn(&name_path, Quirk::OtherCase),
                    _ => {}
                }
                kind
            }
        };
        let host = match self.text(members, "receiving-mx-hostname", path, false) {
            Some(host) => Some(host),
            None => {
                let other = self.text(members, "receiving-mx-host-name", path, false);
                if other.is_some() {
                    self.warn(&join(path, "receiving-mx-hostname"), Quirk::OtherName);
                }
                other
            }
        };
        Ok(FailureDetail {
            result_type,
            sending_mta_ip: self.address(members, "sending-mta-ip", path),
            receiving_mx_hostname: host,
            receiving_mx_helo: self.text(members, "receiving-mx-helo", path, false),
            receiving_ip: self.address(members, "receiving-ip", path),
            failed_session_count: self.failed_sessions(members, path),
            additional_information: self.text(members, "additional-information", path, false),
            failure_reason_code: self.text(members, "failure-reason-code", path, false),
        })
    }

    /// Returns the count of a failure detail. A missing or unreadable count is at least one failure, since the detail reports
    /// one.
    fn failed_sessions(&mut self, members: &Members, path: &str) -> u64 {
        match self.count(members, "failed-session-count", path) {
            Count::Known(count) => count,
            Count::Absent | Count::Unreadable => {
                self.warn(&join(path, "failed-session-count"), Quirk::FailuresUnknown);
                1
            }
        }
    }

    fn text(&mut self, members: &Members, name: &str, path: &str, wanted: bool) -> Option<String> {
        let path = join(path, name);
        match find(members, name) {
            None if wanted => self.warn(&path, Quirk::Missing),
            None => {}
            Some(Json::Null) => self.warn(&path, Quirk::Null),
            Some(Json::Text(text)) if text.trim().is_empty() => self.warn(&path, Quirk::Empty),
            Some(Json::Text(text)) => return Some(self.cut(text, &path)),
            Some(Json::Count(number)) => {
                self.warn(&path, Quirk::WrongKind);
                return Some(number.to_string());
            }
            Some(_) => self.warn(&path, Quirk::WrongKind),
        }
        None
    }

    fn cut(&mut self, text: &str, path: &str) -> String {
        if text.len() <= REPORT_TEXT_BYTES {
            return text.to_owned();
        }
        self.warn(path, Quirk::Cut);
        let end = (0..=REPORT_TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.get(..end).unwrap_or_default().to_owned()
    }

    fn strings(&mut self, members: &Members, name: &str, path: &str, wanted: bool) -> Vec<String> {
        match find(members, name) {
            None if wanted => self.warn(path, Quirk::Missing),
            None => {}
            Some(Json::Null) => self.warn(path, Quirk::Null),
            Some(Json::Text(text)) if text.trim().is_empty() => self.warn(path, Quirk::Empty),
            Some(Json::Text(text)) => {
                self.warn(path, Quirk::StringForArray);
                return vec![self.policy_text(text, path)];
            }
            Some(Json::Array(items)) => {
                if items.is_empty() && wanted {
                    self.warn(path, Quirk::Empty);
                }
                return items
                    .iter()
                    .filter_map(|item| match item {
                        Json::Text(text) => Some(self.policy_text(text, path)),
                        _ => {
                            self.warn(path, Quirk::WrongKind);
                            None
                        }
                    })
                    .collect();
            }
            Some(_) => self.warn(path, Quirk::WrongKind),
        }
        Vec::new()
    }

    /// Limits the length of a policy string. It may contain a whole policy, so the limit is higher than for other
    /// texts.
    fn policy_text(&mut self, text: &str, path: &str) -> String {
        if text.len() <= crate::limits::POLICY_BYTES { text.to_owned() } else { self.cut(text, path) }
    }

    fn count(&mut self, members: &Members, name: &str, path: &str) -> Count {
        const MOST: u64 = 1 << 53;
        let path = join(path, name);
        match find(members, name) {
            Some(Json::Count(count)) if *count <= MOST => return Count::Known(*count),
            Some(Json::Count(_)) => {
                self.warn(&path, Quirk::OddCount);
                return Count::Known(MOST);
            }
            Some(Json::Number(number)) if *number >= 0.0 => {
                self.warn(&path, Quirk::OddCount);
                return Count::Known(number.min(MOST as f64).ceil() as u64);
            }
            Some(Json::Text(text)) if text.trim().parse::<u64>().is_ok_and(|count| count <= MOST) => {
                self.warn(&path, Quirk::StringForNumber);
                return text.trim().parse().map_or(Count::Unreadable, Count::Known);
            }
            Some(Json::Null) => self.warn(&path, Quirk::Null),
            Some(_) => self.warn(&path, Quirk::WrongKind),
            None => {
                self.warn(&path, Quirk::Missing);
                return Count::Absent;
            }
        }
        Count::Unreadable
    }

    fn address(&mut self, members: &Members, name: &str, path: &str) -> Option<IpAddr> {
        let text = self.text(members, name, path, false)?;
        let path = join(path, name);
        let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
        if bare.len() < text.len() {
            self.warn(&path, Quirk::BracketedAddress);
        }
        let bare = bare.strip_prefix("IPv6:").unwrap_or(bare);
        let address = bare.parse().ok();
        if address.is_none() {
            self.warn(&path, Quirk::NotAnAddress);
        }
        address
    }

    fn domain(&mut self, members: &Members, name: &str, path: &str) -> Option<DomainName> {
        let text = self.text(members, name, path, true)?;
        let parsed = DomainName::parse(text.trim()).ok();
        if parsed.is_none() {
            self.warn(&join(path, name), Quirk::NotADomain);
        }
        parsed
    }
}

/// True for the members of a failure detail.
fn is_detail(members: &Members) -> bool {
    ["result-type", "failed-session-count"].iter().any(|name| find(members, name).is_some())
}

/// Stands for failures that the report mentions in a way that can't be read.
fn unknown_failure() -> FailureDetail {
    FailureDetail {
        result_type: ResultType::Other(String::new()),
        sending_mta_ip: None,
        receiving_mx_hostname: None,
        receiving_mx_helo: None,
        receiving_ip: None,
        failed_session_count: 1,
        additional_information: None,
        failure_reason_code: None,
    }
}

fn find<'j>(members: &'j Members, name: &str) -> Option<&'j Json> {
    members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
}

fn nested_array(text: &str, nodes: &mut usize) -> Option<Vec<String>> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    match Json::parse(text, nodes).ok()? {
        Json::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Json::Text(text) => Some(text),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests;
