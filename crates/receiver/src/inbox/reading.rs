//! Reads a message or file: extraction in the [`ExtractionPool`](super::ExtractionPool) and the signature. The result
//! says which reports are to be stored and what could not be read; nothing is stored here.
//!
//! The keys of a message's signatures are looked up between two jobs of the pool, while the message holds none of the
//! pool's memory: a slow name server costs its own message time and nothing else. As a rule, the keys can be told from the
//! header. Otherwise the message is extracted, what was extracted is dropped, and it is extracted again with the keys.

use super::dmarc::ExtractedDmarc;
use super::extract::{
    Extraction, GzipContent, LeftInGzip, NoReport, Problem, extract_file, extract_gzip_file, file_within,
    message_claims, message_within,
};
use super::job_memory::{JobMemory, Stop};
use super::pool::{Busy, Job};
use super::signature::{self, KeyName, Keys, SignatureState};
use super::submitter::UNKNOWN_SUBMITTER;
use super::{Extracted, Inbox, claims, hints};
use formats::DomainName;
use formats::limits::DNS_TIME;
use formats::printable::printable;
use formats::report::UnpackError;
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use net::memory_budget::Reservation;
use std::sync::Arc;
use store::dmarc::NewDmarcReport;
use store::reports::{Arrival, NewReport, Trust};

/// The reports in a message or file, ready to be stored.
#[derive(Debug, Default)]
pub struct Reading {
    /// The TLS reports.
    pub reports: Vec<NewReport>,
    /// What could not be read; not empty if there is no report.
    pub problems: Vec<Problem>,
    /// True if the input, or something unreadable in it, claims to be a TLS report. Other people's mail does not.
    pub claims: bool,
    /// The DMARC reports; empty if they are not imported here.
    pub dmarc: Vec<NewDmarcReport>,
    /// The number of DMARC reports that are left alone, since they are not imported here.
    pub other_dmarc: usize,
    /// The memory of the reports, until they are stored.
    memory: Option<Reservation>,
}

impl Reading {
    /// Gives back the memory budget, for callers that bound their memory by themselves. Returns the bytes in use.
    pub fn release(&mut self) -> usize {
        self.take_memory().map_or(0, |memory| memory.bytes())
    }

    /// The memory of the reports, for callers that take the reports out and store them later.
    pub fn take_memory(&mut self) -> Option<Reservation> {
        self.memory.take()
    }

    /// The memory that the reports use, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.memory.as_ref().map_or(0, Reservation::bytes)
    }

    /// True if there is nothing to import, and nothing unreadable claims to be a TLS report. A mailbox keeps such mail.
    pub fn is_other_mail(&self) -> bool {
        self.reports.is_empty() && self.dmarc.is_empty() && !self.claims
    }

    /// Why something could not be read, as one printable line for the quarantine.
    pub fn reason(&self) -> String {
        reason(self.reports.len() + self.dmarc.len(), &self.problems)
    }
}

/// What a file of gzip data is.
#[derive(Debug)]
pub enum GzipFile {
    /// The reports in it.
    Read(Reading),
    /// A mail, mails or a tar archive, from which nothing was read.
    Left(LeftInGzip),
}

/// The maximum number of problems that a reason names.
const NAMED_PROBLEMS: usize = 3;
/// The maximum length of a reason, in characters.
const REASON_CHARACTERS: usize = 500;
/// A report whose period begins later than this after now is rejected.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(24);
/// How often a message may need keys that were not looked up before.
const KEY_ROUNDS: usize = 2;

/// The outcome of one job for a message.
enum Step {
    /// These keys have to be looked up first.
    Keys(Vec<KeyName>),
    /// The reports, the submitters, and the state of the signatures for each of these.
    Read(Extraction, Vec<DomainName>, Vec<SignatureState>),
}

/// A message with all that a job needs.
struct MailJob {
    message: Arc<Vec<u8>>,
    is_returned: bool,
    /// Whether DMARC reports are imported, so that the keys of their senders are needed.
    dmarc: bool,
    now: Timestamp,
    /// The keys that were looked up.
    keys: Keys,
    /// The number of times that keys were looked up.
    round: usize,
}

impl MailJob {
    fn run(&self, memory: &JobMemory<'_>) -> Result<Step, Stop> {
        let unknown = |mut names: Vec<KeyName>| {
            names.retain(|name| self.round < KEY_ROUNDS && !self.keys.contains_key(name));
            names
        };
        if self.round == 0 {
            // A message whose header never fits into the memory fails below.
            let likely = unless_busy(hints::likely_keys(&self.message, self.dmarc, memory), memory)?;
            let keys = unknown(likely.unwrap_or_default());
            if !keys.is_empty() {
                return Ok(Step::Keys(keys));
            }
        }
        let found = message_within(&self.message, self.is_returned, memory)?;
        let submitters = submitters(&found, self.dmarc);
        let keys = unknown(signature::key_names(&self.message, &submitters));
        if !keys.is_empty() {
            return Ok(Step::Keys(keys));
        }
        let held = unless_busy(signature::reserve_for_verifying(&self.message, memory), memory)?;
        let states = match self.keys.is_empty() || held.is_none() {
            true => vec![SignatureState::Missing; submitters.len()],
            false => signature::verify(&self.message, &submitters, &self.keys, self.now),
        };
        Ok(Step::Read(found, submitters, states))
    }
}

/// `None` if there can never be enough memory; an error if there is none at the moment.
fn unless_busy<T>(outcome: Result<T, UnpackError>, memory: &JobMemory<'_>) -> Result<Option<T>, Stop> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(UnpackError::Busy) => Err(memory.stop()),
        Err(_) => Ok(None),
    }
}

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
        let now = self.clock.now();
        let mut keys = Keys::new();
        let mut deadline = None;
        for round in 0..=KEY_ROUNDS {
            let (dmarc, keys_now) = (self.dmarc, keys.clone());
            let work = MailJob { message: message.clone(), is_returned, dmarc, now, keys: keys_now, round };
            let job: Job<Step> = Arc::new(move |memory: &JobMemory<'_>| work.run(memory));
            let Some((step, memory)) = self.pool.read(message.len(), self.client, job).await? else { break };
            match step {
                Step::Keys(names) => {
                    // Nothing is held while others are waited for.
                    drop(memory);
                    let deadline = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + DNS_TIME);
                    keys.extend(signature::look_up_keys(self.dns.as_ref(), names, deadline).await);
                }
                Step::Read(found, submitters, states) => {
                    let signed = |submitter: Option<&DomainName>| {
                        let at = submitters.iter().position(|one| Some(one) == submitter);
                        at.and_then(|at| states.get(at)).cloned().unwrap_or(SignatureState::Missing)
                    };
                    return Ok(self.reading(found, &signed, arrival, memory));
                }
            }
        }
        let job: Job<bool> = Arc::new(move |_: &JobMemory<'_>| Ok(message_claims(&message, is_returned)));
        let claims = self.pool.read(0, None, job).await?;
        Ok(defect(claims.is_some_and(|(claims, _)| claims)))
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
        let (length, file) = (bytes.len(), name.to_owned());
        let job: Job<Extraction> = Arc::new(move |memory: &JobMemory<'_>| file_within(&bytes, &file, memory));
        match self.pool.read(length, self.client, job).await? {
            Some((found, memory)) => Ok(self.reading(found, &|_| SignatureState::Missing, arrival, memory)),
            None => Ok(defect(claims::is_named_so(name))),
        }
    }

    /// Like [`Inbox::read_file`], on the current thread, which must be one that may block, of a runtime. Waits for memory.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the memory is in use for longer than [`Inbox::patience`].
    pub fn read_file_here(&self, bytes: &[u8], name: &str, arrival: Arrival) -> Result<Reading, Busy> {
        let (found, memory) = self.extract_here(|memory| extract_file(bytes, name, memory))?;
        Ok(self.reading(found, &|_| SignatureState::Missing, arrival, memory))
    }

    /// Like [`Inbox::read_file_here`], for a file of gzip data. If it is a mail, an mbox or a tar archive, the caller imports
    /// each mail or file of it.
    ///
    /// # Errors
    ///
    /// As for [`Inbox::read_file_here`].
    pub fn read_gzip_here(&self, bytes: &[u8], name: &str, arrival: Arrival) -> Result<GzipFile, Busy> {
        let (found, memory) = self.extract_here(|memory| extract_gzip_file(bytes, name, memory))?;
        Ok(match found {
            GzipContent::Reports(found) => {
                GzipFile::Read(self.reading(found, &|_| SignatureState::Missing, arrival, memory))
            }
            GzipContent::Left(left) => GzipFile::Left(left),
        })
    }

    /// Extracts on the current thread, and waits for memory. Returns the result with its memory.
    fn extract_here<T>(
        &self,
        extract: impl Fn(&mut Reservation) -> Result<T, Busy>,
    ) -> Result<(T, Reservation), Busy> {
        let mut deadline = None;
        loop {
            let mut memory = self.pool.memory().reservation();
            let busy = match extract(&mut memory) {
                Ok(found) => return Ok((found, memory)),
                Err(busy) => busy,
            };
            drop(memory);
            let deadline = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + self.patience);
            tokio::runtime::Handle::current().block_on(self.wait_for_memory(busy, deadline))?;
        }
    }

    /// Like [`Inbox::read_mail`], but waits for memory, for callers without a waiting client.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the memory is in use for longer than [`Inbox::patience`].
    pub async fn read_mail_patiently(
        &self,
        message: &Arc<Vec<u8>>,
        arrival: Arrival,
    ) -> Result<Reading, Busy> {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            match self.read_mail(message.clone(), false, arrival).await {
                Ok(reading) => return Ok(reading),
                Err(busy) => self.wait_for_memory(busy, deadline).await?,
            }
        }
    }

    /// Waits until the memory that was refused may be there. Fails at the deadline.
    pub(super) async fn wait_for_memory(
        &self,
        busy: Busy,
        deadline: tokio::time::Instant,
    ) -> Result<(), Busy> {
        let room = self.pool.memory().wait_for_room(busy.needed);
        tokio::time::timeout_at(deadline, room).await.map_err(|_| busy)?;
        // Between the refusal and the check, others may have given memory back and taken it again.
        if tokio::time::Instant::now() < deadline { Ok(()) } else { Err(busy) }
    }

    fn reading(
        &self,
        found: Extraction,
        signed: &dyn Fn(Option<&DomainName>) -> SignatureState,
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
            let state = signed(extracted.submitter.as_ref());
            match self.new_report(extracted, state, arrival) {
                Ok(new) => reading.reports.push(new),
                Err(why) => {
                    reading.claims = true;
                    reading.problems.push(Problem { name: String::new(), why, claims: true });
                }
            }
        }
        self.add_dmarc(&mut reading, found.dmarc, signed, arrival);
        reading
    }

    /// Adds the DMARC reports that were found, if they are imported here, else their number.
    fn add_dmarc(
        &self,
        reading: &mut Reading,
        found: Vec<ExtractedDmarc>,
        signed: &dyn Fn(Option<&DomainName>) -> SignatureState,
        arrival: Arrival,
    ) {
        if !self.dmarc {
            reading.other_dmarc = found.len();
            if !found.is_empty() && reading.reports.is_empty() && reading.problems.is_empty() {
                let problem = Problem { name: String::new(), why: NoReport::Dmarc, claims: false };
                reading.problems.push(problem);
            }
            return;
        }
        let received_at = self.clock.now();
        for ExtractedDmarc { report, submitter } in found {
            if report.range.start > later(received_at, CLOCK_SKEW) {
                let why = NoReport::Future(report.range.start);
                reading.problems.push(Problem { name: String::new(), why, claims: false });
                continue;
            }
            let (trust, signer) = trust_of(signed(submitter.as_ref()));
            let submitter = submitter.map_or(UNKNOWN_SUBMITTER.to_owned(), |name| name.to_string());
            let source = self.source_of(signer.as_deref());
            let new = NewDmarcReport { source, submitter, signer, trust, arrival, received_at, report };
            reading.dmarc.push(new);
        }
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
        let (trust, signer) = trust_of(state);
        let submitter = extracted.submitter.map_or(UNKNOWN_SUBMITTER.to_owned(), |name| name.to_string());
        let source = self.source_of(signer.as_deref());
        Ok(NewReport {
            source,
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

    /// The source whose quota a report uses. What is signed is its signer's, whichever way it comes.
    fn source_of(&self, signer: Option<&str>) -> String {
        organization_of(signer).unwrap_or_else(|| self.source.clone())
    }
}

/// The registered domain of the signer.
fn organization_of(signer: Option<&str>) -> Option<String> {
    suffix::registered_domain(signer?).map(str::to_owned)
}

/// The trust in a report whose message has this signature, and the signer.
fn trust_of(state: SignatureState) -> (Trust, Option<String>) {
    match state {
        SignatureState::Verified { signer, .. } => (Trust::Verified, Some(signer.to_string())),
        SignatureState::Missing | SignatureState::Unknown | SignatureState::KeyAbsent => {
            (Trust::Unverified, None)
        }
        SignatureState::Failed => (Trust::Failed, None),
    }
}

/// The submitters of the reports, each once; with those of DMARC reports if these are imported.
fn submitters(found: &Extraction, with_dmarc: bool) -> Vec<DomainName> {
    let mut all: Vec<DomainName> = Vec::new();
    let of_tls = found.reports.iter().filter_map(|extracted| extracted.submitter.as_ref());
    let of_dmarc =
        found.dmarc.iter().filter(|_| with_dmarc).filter_map(|extracted| extracted.submitter.as_ref());
    for submitter in of_tls.chain(of_dmarc) {
        if !all.contains(submitter) {
            all.push(submitter.clone());
        }
    }
    all
}

/// The reading of input on which a parser panicked. It should not. Input that claims to be a report is kept for a retry.
fn defect(claims: bool) -> Reading {
    let problem = Problem { name: String::new(), why: NoReport::Defect, claims };
    Reading { problems: vec![problem], claims, ..Reading::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_that_breaks_a_parser_claims_to_be_a_report_only_by_its_label() {
        for claims in [false, true] {
            let reading = defect(claims);
            assert!(reading.reports.is_empty() && reading.claims == claims);
            assert!(reading.reason().contains("defect in this program"));
        }
        let labelled = b"From: a@b.example\r\nContent-Type: application/tlsrpt+gzip\r\n\r\nx";
        let private = b"From: a@b.example\r\nContent-Type: application/gzip\r\n\r\nx";
        assert!(message_claims(labelled, false) && !message_claims(private, false));
        assert!(!message_claims(b"", false));
    }
}
