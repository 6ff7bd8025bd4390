//! Reads a message or file: extraction in the [`ExtractionPool`](super::ExtractionPool), then the signature. The result
//! says which reports are to be stored and what could not be read; nothing is stored here.

use super::extract::{Extraction, NoReport, Problem, extract_file, extract_message};
use super::pool::Busy;
use super::signature::{self, SignatureState};
use super::submitter::UNKNOWN_SUBMITTER;
use super::{Extracted, Inbox};
use formats::DomainName;
use formats::printable::printable;
use jiff::SignedDuration;
use net::clock::later;
use net::memory_budget::Reservation;
use std::sync::Arc;
use std::time::Duration;
use store::reports::{Arrival, NewReport, Trust};

/// The reports in a message or file, ready to be stored.
#[derive(Debug, Default)]
pub struct Reading {
    /// The reports.
    pub reports: Vec<NewReport>,
    /// What could not be read; not empty if there is no report.
    pub problems: Vec<Problem>,
    /// True if the input, or something unreadable in it, claims to be a TLS report. Other people's mail does not.
    pub claims: bool,
    /// The memory of the reports, until they are stored.
    memory: Option<Reservation>,
}

impl Reading {
    /// Gives back the memory budget, for callers that bound their memory by themselves. Returns the bytes in use.
    pub fn release(&mut self) -> usize {
        self.memory.take().map_or(0, |memory| memory.bytes())
    }

    /// Why something could not be read, as one printable line for the quarantine.
    pub fn reason(&self) -> String {
        reason(self.reports.len(), &self.problems)
    }
}

/// Problems that are named in a reason.
const NAMED_PROBLEMS: usize = 3;
/// Characters of a reason.
const REASON_CHARACTERS: usize = 500;
/// A report whose period begins later than this after now is rejected.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(24);
/// How long an import or a mailbox waits before it tries again to get memory.
pub(super) const BUSY_RETRY: Duration = Duration::from_millis(50);

/// Why something could not be read, as one printable line.
pub(super) fn reason(reports: usize, problems: &[Problem]) -> String {
    let several = reports > 0 || problems.len() > 1;
    let one = |problem: &Problem| match several && !problem.name.is_empty() {
        true => format!("{}: {}", problem.name, problem.why),
        false => problem.why.to_string(),
    };
    let mut text = match reports {
        0 => String::new(),
        1 => "1 report is stored, but ".to_owned(),
        many => format!("{many} reports are stored, but "),
    };
    text.push_str(&problems.iter().take(NAMED_PROBLEMS).map(one).collect::<Vec<_>>().join("; "));
    if problems.len() > NAMED_PROBLEMS {
        text.push_str(&format!("; and {} more", problems.len() - NAMED_PROBLEMS));
    }
    printable(&text, REASON_CHARACTERS)
}

impl Inbox {
    /// Extracts the reports from a message and verifies its signatures. `is_returned` is true when the envelope names no
    /// sender.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the memory for decompressed reports is in use.
    pub async fn read_mail(
        &self,
        message: Arc<Vec<u8>>,
        is_returned: bool,
        arrival: Arrival,
    ) -> Result<Reading, Busy> {
        let shared = message.clone();
        let job = move |memory: &mut Reservation| {
            let found = extract_message(&shared, is_returned, memory)?;
            let submitters = submitters(&found);
            let keys = signature::key_names(&shared, &submitters);
            Ok::<_, Busy>((found, submitters, keys))
        };
        let Some((found, memory)) = self.pool.run(job).await else { return Ok(unreadable()) };
        let (found, submitters, keys) = found?;
        let states = match keys.is_empty() {
            true => vec![SignatureState::Missing; submitters.len()],
            false => {
                let keys = signature::look_up_keys(self.dns.as_ref(), keys).await;
                let (submitters, now) = (submitters.clone(), self.clock.now());
                let job = move |_: &mut Reservation| signature::verify(&message, &submitters, &keys, now);
                self.pool.run(job).await.map_or_else(Vec::new, |(states, _)| states)
            }
        };
        let signed = |extracted: &Extracted| {
            let at = submitters.iter().position(|one| Some(one) == extracted.submitter.as_ref());
            at.and_then(|at| states.get(at)).cloned().unwrap_or(SignatureState::Missing)
        };
        Ok(self.reading(found, &signed, arrival, memory))
    }

    /// Reads a report file or zip file, which is not signed. The submitter comes from the file's name, or from the contact
    /// or organization in the report.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the memory for decompressed reports is in use.
    pub async fn read_file(
        &self,
        bytes: Arc<Vec<u8>>,
        name: &str,
        arrival: Arrival,
    ) -> Result<Reading, Busy> {
        let name = name.to_owned();
        let job = move |memory: &mut Reservation| extract_file(&bytes, &name, memory);
        let Some((found, memory)) = self.pool.run(job).await else { return Ok(unreadable()) };
        Ok(self.reading(found?, &|_| SignatureState::Missing, arrival, memory))
    }

    /// Like [`Inbox::read_file`], on the current thread, which must be one that may block. Waits for memory.
    pub fn read_file_here(&self, bytes: &[u8], name: &str, arrival: Arrival) -> Reading {
        loop {
            let mut memory = self.pool.memory().reservation();
            match extract_file(bytes, name, &mut memory) {
                Ok(found) => return self.reading(found, &|_| SignatureState::Missing, arrival, memory),
                Err(Busy) => drop(memory),
            }
            std::thread::sleep(BUSY_RETRY);
        }
    }

    /// Like [`Inbox::read_mail`], but waits for memory, for callers that nobody waits for.
    pub async fn read_mail_patiently(&self, message: &Arc<Vec<u8>>, arrival: Arrival) -> Reading {
        loop {
            match self.read_mail(message.clone(), false, arrival).await {
                Ok(reading) => return reading,
                Err(Busy) => tokio::time::sleep(BUSY_RETRY).await,
            }
        }
    }

    fn reading(
        &self,
        found: Extraction,
        signed: &dyn Fn(&Extracted) -> SignatureState,
        arrival: Arrival,
        memory: Reservation,
    ) -> Reading {
        let mut reading = Reading {
            problems: found.problems,
            claims: found.claims,
            memory: Some(memory),
            ..Reading::default()
        };
        for extracted in found.reports {
            let state = signed(&extracted);
            match self.new_report(extracted, state, arrival) {
                Ok(new) => reading.reports.push(new),
                Err(why) => {
                    reading.claims = true;
                    reading.problems.push(Problem { name: String::new(), why, claims: true });
                }
            }
        }
        reading
    }

    fn new_report(
        &self,
        extracted: Extracted,
        state: SignatureState,
        arrival: Arrival,
    ) -> Result<NewReport, NoReport> {
        let received_at = self.clock.now();
        let mut report = extracted.read.report;
        if report.date_range.start > later(received_at, CLOCK_SKEW) {
            return Err(NoReport::Future(report.date_range.start));
        }
        // A signed report is sent for one domain; without the signer's word, anybody could send it on for another.
        let is_signed_for = !matches!(state, SignatureState::Verified { signs_domain: false, .. });
        let about = extracted.policy_domain.filter(|_| is_signed_for);
        for policy in &mut report.policies {
            policy.policy_domain = policy.policy_domain.take().or_else(|| about.clone());
        }
        let (trust, signer) = match state {
            SignatureState::Verified { signer, .. } => (Trust::Verified, Some(signer.to_string())),
            SignatureState::Missing | SignatureState::Unknown | SignatureState::KeyAbsent => {
                (Trust::Unverified, None)
            }
            SignatureState::Failed => (Trust::Failed, None),
        };
        let submitter = extracted.submitter.map_or(UNKNOWN_SUBMITTER.to_owned(), |name| name.to_string());
        Ok(NewReport {
            submitter,
            signer,
            trust,
            about,
            arrival,
            received_at,
            report,
            warnings: extracted.read.warnings.len(),
            packed: extracted.packed,
        })
    }
}

/// The submitters of the reports, each once.
fn submitters(found: &Extraction) -> Vec<DomainName> {
    let mut all: Vec<DomainName> = Vec::new();
    for submitter in found.reports.iter().filter_map(|extracted| extracted.submitter.as_ref()) {
        if !all.contains(submitter) {
            all.push(submitter.clone());
        }
    }
    all
}

/// The reading of input on which a parser panicked. It should not; the input is kept for a retry.
fn unreadable() -> Reading {
    let problem = Problem { name: String::new(), why: NoReport::NotMail, claims: true };
    Reading { problems: vec![problem], claims: true, ..Reading::default() }
}
