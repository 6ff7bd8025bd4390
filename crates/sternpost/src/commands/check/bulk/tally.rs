//! The counts of a bulk check, for the progress line, the table at the end and `--summary`. They are taken from results as they
//! come, and from the lines of an earlier run that is continued.

use super::classes::ClassCounts;
use super::earlier::{Counted, Earlier};
use super::first_pass::{FirstPass, PassCounts, State};
use crate::terminal::{say, show};
use check::render::forms;
use check::{Cause, Check, Severity};
use formats::Mode;
use formats::counted::counted;
use net::dns::batch::ResolverFault;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The results so far.
pub struct Tally {
    begun: Instant,
    shown_at: Option<Instant>,
    total: Option<usize>,
    /// Names that were done by earlier runs, and those of them that are not a domain.
    skipped: usize,
    skipped_invalid: usize,
    /// Names that were done, by this run and earlier ones.
    names: usize,
    invalid: usize,
    /// Lines with a name that the list had before. Not among `names`.
    repeated: usize,
    /// Names at which the first pass found nothing to check, and those for which DNS or the check failed.
    nothing: usize,
    undetermined: usize,
    checked: usize,
    first_pass: BTreeMap<(&'static str, State), usize>,
    modes: BTreeMap<&'static str, usize>,
    checks: BTreeMap<Check, (Severity, usize)>,
    causes: BTreeMap<(Check, Cause), usize>,
    classes: ClassCounts,
    is_shown: bool,
}

impl Tally {
    /// Begins to count; `total` is the number of lines of the list, if it is known.
    pub fn new(total: Option<usize>) -> Self {
        Self {
            begun: Instant::now(),
            shown_at: None,
            total,
            skipped: 0,
            skipped_invalid: 0,
            names: 0,
            invalid: 0,
            repeated: 0,
            nothing: 0,
            undetermined: 0,
            checked: 0,
            first_pass: BTreeMap::new(),
            modes: BTreeMap::new(),
            checks: BTreeMap::new(),
            causes: BTreeMap::new(),
            classes: ClassCounts::default(),
            is_shown: std::io::stderr().is_terminal(),
        }
    }

    /// Counts a line of an earlier run.
    pub fn add_earlier(&mut self, earlier: &Earlier) {
        self.skipped += 1;
        match (&earlier.result, earlier.first_pass) {
            _ if earlier.is_invalid => {
                self.skipped_invalid += 1;
                self.add_invalid();
            }
            (Some(result), first_pass) => self.add(result, first_pass),
            (None, found) if earlier.has_failed => self.add_failed(found),
            (None, Some(found)) => self.add_passed(found),
            (None, None) => self.names += 1,
        }
    }

    /// Counts a line that is not a domain.
    pub fn add_invalid(&mut self) {
        self.names += 1;
        self.invalid += 1;
    }

    /// Counts a line with a name that the list had before.
    pub fn add_repeated(&mut self) {
        self.repeated += 1;
    }

    /// Counts a name that the first pass found nothing to check at, or that it could not determine.
    pub fn add_passed(&mut self, found: FirstPass) {
        self.names += 1;
        match found.is_undetermined() {
            true => self.undetermined += 1,
            false => self.nothing += 1,
        }
        self.add_first_pass(found);
    }

    /// Counts a name whose check ended without a result.
    pub fn add_failed(&mut self, found: Option<FirstPass>) {
        self.names += 1;
        self.undetermined += 1;
        found.into_iter().for_each(|found| self.add_first_pass(found));
    }

    fn add_first_pass(&mut self, found: FirstPass) {
        let rows = [
            ("_mta-sts TXT", Some(found.mta_sts)),
            ("_smtp._tls TXT", Some(found.tlsrpt)),
            ("MX", found.mx),
            ("TLSA", found.tlsa),
        ];
        for (question, state) in rows {
            if let Some(state) = state {
                *self.first_pass.entry((question, state)).or_default() += 1;
            }
        }
    }

    /// Counts a checked domain. A check or cause counts once for each domain.
    pub fn add(&mut self, result: &Counted, found: Option<FirstPass>) {
        self.names += 1;
        self.checked += 1;
        if let Some(found) = found {
            self.add_first_pass(found);
        }
        self.classes.add(result, found);
        let mode = match result.mode {
            None => "undetermined",
            Some(Mode::Enforce) => "enforce",
            Some(Mode::Testing) => "testing",
            Some(Mode::None) => "no policy, or mode none",
        };
        *self.modes.entry(mode).or_default() += 1;
        let (mut checks, mut causes) = (BTreeSet::new(), BTreeSet::new());
        for (check, severity, cause) in &result.findings {
            if *severity == Severity::Info {
                continue;
            }
            let entry = self.checks.entry(*check).or_insert((*severity, 0));
            entry.0 = entry.0.min(*severity);
            entry.1 += usize::from(checks.insert(*check));
            if let Some(cause) = cause
                && causes.insert((*check, *cause))
            {
                *self.causes.entry((*check, *cause)).or_default() += 1;
            }
        }
    }

    /// Updates the progress line on a terminal, at most every 250 ms.
    pub fn show_progress(&mut self) {
        let soon = self.shown_at.is_some_and(|at| at.elapsed() < Duration::from_millis(250));
        if !self.is_shown || soon {
            return;
        }
        self.shown_at = Some(Instant::now());
        let rate = (self.names - self.skipped) as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let left = self.total.map(|total| total.saturating_sub(self.names + self.repeated));
        let estimate = match left {
            Some(left) => {
                format!(" of {}, {} left", self.total.unwrap_or(0), span(left as f64 / rate.max(0.001)))
            }
            None => String::new(),
        };
        eprint!("\r\x1b[K{}{estimate}, {rate:.0}/s", self.names);
    }

    /// Prints the table at the end to standard error; `whole` has all rows.
    pub fn end(&self, pass: Option<&PassCounts>, whole: bool) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
        let took = self.begun.elapsed();
        let invalid = self.invalid - self.skipped_invalid;
        let done = self.names - self.skipped - invalid;
        let mut line = format!(
            "{} in {} ({:.1}/s)",
            counted(done, "domain"),
            span(took.as_secs_f64()),
            done as f64 / took.as_secs_f64().max(0.001)
        );
        if self.skipped > 0 {
            let _ = write!(line, ", {} skipped as already done", self.skipped);
        }
        if invalid > 0 {
            let _ = write!(line, ", {} without a valid domain", counted(invalid, "line"));
        }
        if self.repeated > 0 {
            let _ = write!(line, ", {} with a name that the list had before", counted(self.repeated, "line"));
        }
        eprintln!("{line}");
        if let Some(pass) = pass.filter(|pass| pass.names > 0) {
            let (time, sent) = (pass.time.as_secs_f64().max(0.001), pass.queries.sent);
            eprintln!(
                "first pass: {} in {} ({:.0}/s), {}, {} of them repeated, {} answered over TCP",
                counted(pass.names, "name"),
                span(pass.time.as_secs_f64()),
                pass.names as f64 / time,
                counted(sent, "query"),
                pass.queries.repeated,
                pass.queries.over_tcp
            );
        }
        for (server, fault) in pass.iter().flat_map(|pass| &pass.faults) {
            eprintln!("{}", resolver_fault(*server, fault));
        }
        if !whole {
            eprint!("{}", self.text(Some(20)));
        }
    }

    /// Prints the counts to standard output.
    pub fn show(&self, as_json: bool) {
        match as_json {
            true => say(&self.json()),
            false => show(&self.text(None)),
        }
    }

    /// The table of what is wrong with MTA-STS.
    pub fn classes(&self) -> &ClassCounts {
        &self.classes
    }

    /// Names that were done.
    pub fn names(&self) -> usize {
        self.names
    }

    /// Domains that were checked.
    pub fn checked(&self) -> usize {
        self.checked
    }

    /// Names with nothing to check.
    pub fn nothing(&self) -> usize {
        self.nothing
    }

    /// Names for which DNS or the check failed.
    pub fn undetermined(&self) -> usize {
        self.undetermined
    }

    /// Lines that are not a domain.
    pub fn invalid(&self) -> usize {
        self.invalid
    }

    /// The modes with their counts.
    pub fn mode_rows(&self) -> Vec<(String, usize)> {
        self.modes.iter().map(|(mode, count)| ((*mode).to_owned(), *count)).collect()
    }

    /// The most frequent findings with their counts.
    pub fn finding_rows(&self, most: usize) -> Vec<(String, usize)> {
        let mut rows = self.rows();
        rows.sort_by_key(|(check, _, count)| (std::cmp::Reverse(*count), *check));
        let row = |(check, _, count): (Check, Severity, usize)| {
            (format!("{}: {}", check.id(), check.about()), count)
        };
        rows.into_iter().take(most).map(row).collect()
    }

    /// The states of the first pass with their counts, by query.
    pub fn first_pass_rows(&self) -> Vec<(String, usize)> {
        let row = |((question, state), count): (&(&'static str, State), &usize)| {
            (format!("{question}: {}", state.label()), *count)
        };
        self.first_pass.iter().map(row).collect()
    }

    /// The checks with their counts, the most severe and then the most frequent first.
    fn rows(&self) -> Vec<(Check, Severity, usize)> {
        let mut rows: Vec<_> =
            self.checks.iter().map(|(check, (severity, count))| (*check, *severity, *count)).collect();
        rows.sort_by_key(|(check, severity, count)| (*severity, std::cmp::Reverse(*count), *check));
        rows
    }

    /// The causes of a check with their counts, the most frequent first.
    fn causes(&self, check: Check) -> Vec<(Cause, usize)> {
        let own = self.causes.range((check, *Cause::ALL.first().unwrap_or(&Cause::OtherProtocol))..);
        let own = own.take_while(|((of, _), _)| *of == check);
        let mut rows: Vec<_> = own.map(|((_, cause), count)| (*cause, *count)).collect();
        rows.sort_by_key(|(cause, count)| (std::cmp::Reverse(*count), *cause));
        rows
    }

    /// The counts as a table, with at most this many checks; `None` for all, with their causes.
    pub fn text(&self, most: Option<usize>) -> String {
        let mut out = String::new();
        if most.is_none() {
            let _ = writeln!(
                out,
                "{}: {} checked, {} with nothing to check, {} undetermined, {} not a domain",
                counted(self.names, "name"),
                self.checked,
                self.nothing,
                self.undetermined,
                self.invalid
            );
        }
        self.first_pass_text(&mut out);
        for (mode, count) in &self.modes {
            let _ = writeln!(out, "  {count:>9}  {}{mode}", self.share(*count));
        }
        for (check, severity, count) in self.rows().into_iter().take(most.unwrap_or(usize::MAX)) {
            let (share, word) = (self.share(count), forms::severity_label(severity));
            let _ = writeln!(out, "  {count:>9}  {share}{word:<8} {check:<22} {}", check.about());
            for (cause, count) in self.causes(check).into_iter().filter(|_| most.is_none()) {
                let _ = writeln!(
                    out,
                    "  {count:>9}  {}           {cause:<20} {}",
                    self.share(count),
                    cause.about()
                );
            }
        }
        if most.is_none() {
            out += &self.classes.text();
        }
        out
    }

    fn first_pass_text(&self, out: &mut String) {
        if self.first_pass.is_empty() {
            return;
        }
        let heads = State::ALL.iter().map(|state| format!(" {:>12}", state.label()));
        let heads: String = heads.collect();
        let _ = writeln!(out, "  {:<14}{heads}", "first pass");
        for question in ["_mta-sts TXT", "_smtp._tls TXT", "MX", "TLSA"] {
            let count = |state: &State| self.first_pass.get(&(question, *state)).copied().unwrap_or(0);
            if State::ALL.iter().all(|state| count(state) == 0) {
                continue;
            }
            let counts: String = State::ALL.iter().map(|state| format!(" {:>12}", count(state))).collect();
            let _ = writeln!(out, "  {question:<14}{counts}");
        }
    }

    /// A count as a share of the checked domains.
    fn share(&self, count: usize) -> String {
        format!("{:>5.1} %  ", count as f64 * 100.0 / self.checked.max(1) as f64)
    }

    /// The counts as one line of JSON.
    pub fn json(&self) -> String {
        let mut first_pass: BTreeMap<&str, BTreeMap<State, usize>> = BTreeMap::new();
        for ((question, state), count) in &self.first_pass {
            first_pass.entry(question).or_default().insert(*state, *count);
        }
        let checks = self.rows().into_iter().map(|(check, severity, count)| {
            let causes = self.causes(check).into_iter();
            let causes: Vec<_> =
                causes.map(|(id, count)| serde_json::json!({"id": id, "domains": count})).collect();
            serde_json::json!({"check": check, "severity": severity, "domains": count, "causes": causes})
        });
        serde_json::json!({
            "schema": 1,
            "names": self.names,
            "checked": self.checked,
            "nothing_to_check": self.nothing,
            "undetermined": self.undetermined,
            "invalid": self.invalid,
            "first_pass": first_pass,
            "modes": self.modes,
            "mta_sts": self.classes.json(),
            "checks": checks.collect::<Vec<_>>(),
        })
        .to_string()
    }
}

/// What is wrong with a resolver, and what to do.
fn resolver_fault(server: SocketAddr, fault: &ResolverFault) -> String {
    let other =
        "Name a recursive resolver that serves this machine, such as a local Unbound: --resolver 127.0.0.1";
    match fault {
        ResolverFault::Unreachable(why) => format!(
            "the resolver {server} can't be reached ({why}), so the others got its queries. Remove it from --resolver or /etc/resolv.conf."
        ),
        ResolverFault::NoRecursion(count) => format!(
            "the resolver {server} offers no recursion, so {count} of its responses say nothing about the names: it is an \
             authoritative server, or does not serve this machine. {other}"
        ),
        ResolverFault::Refuses(count) => {
            let queries = counted(count, "query");
            format!("the resolver {server} refused {queries} and answered none. {other}")
        }
        ResolverFault::Silent(count) => {
            let queries = counted(count, "query");
            format!("the resolver {server} was sent {queries} and responded to none. {other}")
        }
    }
}

fn span(seconds: f64) -> String {
    match seconds as u64 {
        short @ 0..60 => format!("{short} s"),
        minutes @ 60..3600 => format!("{} min", minutes / 60),
        hours => format!("{} h {} min", hours / 3600, hours % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::super::earlier::Reader;
    use super::*;

    #[test]
    fn spans_are_printed_in_a_fitting_unit() {
        assert_eq!((span(5.9), span(61.0), span(7322.0)), ("5 s".into(), "1 min".into(), "2 h 2 min".into()));
    }

    #[test]
    fn a_fault_of_a_resolver_is_told_with_its_address_and_the_remedy() {
        let server = "192.0.2.1:53".parse().unwrap();
        for fault in [
            ResolverFault::Unreachable("no route".to_owned()),
            ResolverFault::NoRecursion(5),
            ResolverFault::Refuses(5),
            ResolverFault::Silent(5),
        ] {
            let text = resolver_fault(server, &fault);
            assert!(text.starts_with("the resolver 192.0.2.1:53 ") && text.contains("--resolver"), "{text}");
        }
    }

    #[test]
    fn earlier_lines_are_counted_like_results() {
        let reader = Reader::default();
        let mut tally = Tally::new(None);
        for line in [
            r#"{"schema":1,"domain":"a.example","mode":"enforce","findings":[{"check":"HTTPS-CERT-NAME","severity":"error","cause":{"id":"catch-all","what":"x"}},{"check":"HTTPS-CERT-NAME","severity":"error","cause":{"id":"catch-all","what":"x"}},{"check":"MX-SINGLE","severity":"info"},{"check":"OF-A-LATER-VERSION","severity":"error"}]}"#,
            r#"{"schema":1,"domain":"b.example","mode":"none","first_pass":{"mta_sts":"record","tlsrpt":"nxdomain"},"findings":[{"check":"HTTPS-CERT-NAME","severity":"error"}]}"#,
            r#"{"schema":1,"domain":"c.example","mode":"none","findings":[{"check":"DNS-SERVFAIL","severity":"error"}]}"#,
            r#"{"schema":1,"domain":"d.example","first_pass":{"mta_sts":"servfail","tlsrpt":"nxdomain"},"findings":[]}"#,
            r#"{"schema":1,"domain":"e.example","first_pass":{"mta_sts":"no-record","tlsrpt":"nxdomain"},"findings":[]}"#,
            r#"{"schema":1,"domain":"f.example","first_pass":{"mta_sts":"no-recursion","tlsrpt":"no-recursion"},"findings":[]}"#,
            r#"{"schema":1,"domain":"g.example","failed":"a fault","findings":[]}"#,
            r#"{"schema":1,"typed":"no domain","findings":[{"check":"DOM-SYNTAX","severity":"error"}]}"#,
        ] {
            tally.add_earlier(&reader.read(line.as_bytes()).unwrap());
        }
        assert!(reader.read(b"no line").is_none());
        let mut json: serde_json::Value = serde_json::from_str(&tally.json()).unwrap();
        let classes = json.as_object_mut().unwrap().remove("mta_sts").unwrap();
        assert_eq!((&classes["domains"], &classes["misconfigured"]), (&2.into(), &2.into()));
        assert_eq!(
            json,
            serde_json::json!({
                "schema": 1, "names": 8, "checked": 3, "nothing_to_check": 1, "undetermined": 3, "invalid": 1,
                "first_pass": {
                    "_mta-sts TXT": {"record": 1, "no-record": 1, "servfail": 1, "no-recursion": 1},
                    "_smtp._tls TXT": {"nxdomain": 3, "no-recursion": 1},
                },
                "modes": {"enforce": 1, "no policy, or mode none": 1, "undetermined": 1},
                "checks": [
                    {"check": "HTTPS-CERT-NAME", "severity": "error", "domains": 2, "causes": [{"id": "catch-all", "domains": 1}]},
                    {"check": "DNS-SERVFAIL", "severity": "error", "domains": 1, "causes": []},
                ],
            })
        );
        let text = tally.text(None);
        assert!(
            text.contains("8 names: 3 checked, 1 with nothing to check, 3 undetermined, 1 not a domain\n"),
            "{text}"
        );
        assert!(text.contains("          1   33.3 %             catch-all"), "{text}");
    }
}
