//! One signed-in connection: searches the folders for new mail, imports the reports, and waits for more.

use super::connection::{Connection, Data, ExpectedData, SHOWN_CHARACTERS};
use super::memory::{FolderMemory, Memory};
use super::sign_in::{Capabilities, sign_in};
use super::{ImapError, ImapMailbox, Pacing};
use crate::inbox::Inbox;
use formats::imap::{Fetched, UidSet, decode_mailbox, encode_mailbox, quote_mailbox};
use formats::limits::{IMAP_FOLDERS, IMAP_ROUND_MESSAGES, IMAP_UID_RANGES, INBOX_MESSAGE_BYTES};
use rustls::ClientConfig;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::reports::Arrival;

/// The IMAP keyword on mail that was processed.
pub(super) const IMPORTED_KEYWORD: &str = "SternpostTaken";
/// Messages that fail in one round and are logged one by one; further ones are counted.
const LOGGED_FAILURES: usize = 10;
/// Reports in a row that the store refuses before it counts as failing.
const STORE_FAILURES: u32 = 3;

/// Logged once for each folder.
const DMARC_LEFT_ALONE: &str =
    "DMARC reports are left alone in their folder; `inbox.dmarc = true` imports them";

/// A signed-in connection.
pub(super) struct Session<'a> {
    pub(super) mailbox: &'a ImapMailbox,
    inbox: &'a Inbox,
    pacing: Pacing,
    pub(super) connection: Connection,
    pub(super) memory: &'a mut Memory,
    /// The prefixes of the server's namespaces, the user's own first.
    namespaces: Vec<String>,
    /// The selected folder.
    pub(super) folder: Folder,
    pub(super) can_move: bool,
    pub(super) can_expunge_by_uid: bool,
    failures: RoundFailures,
}

/// The selected folder.
#[derive(Default)]
pub(super) struct Folder {
    /// The name as it is sent; empty if no folder is selected.
    pub(super) name: String,
    /// The folder's `UIDVALIDITY` (RFC 9051 §2.3.1.1); 0 if the server states none.
    pub(super) validity: u32,
    /// Whether the server stores our keyword.
    pub(super) has_keywords: bool,
}

/// What failed in this round.
#[derive(Default)]
struct RoundFailures {
    /// The last error of the store, unless it worked afterwards, and how many there were.
    store: Option<ImapError>,
    store_failures: u32,
    /// Messages that failed for the first time.
    messages: usize,
    /// Whether a folder has more new mail than one round reads.
    has_more: bool,
}

/// Runs a connection until it fails. Calls `searched` whenever the folders were searched.
pub(super) async fn run(
    mailbox: &ImapMailbox,
    inbox: &Inbox,
    tls: &Arc<ClientConfig>,
    pacing: Pacing,
    memory: &mut Memory,
    searched: &mut (dyn FnMut() + Send),
) -> Result<(), ImapError> {
    let (connection, capabilities) = sign_in(mailbox, inbox, tls, &memory.secrets).await?;
    let mut session = Session {
        mailbox,
        inbox,
        pacing,
        connection,
        memory,
        namespaces: Vec::new(),
        folder: Folder::default(),
        can_move: capabilities.contains("MOVE"),
        can_expunge_by_uid: capabilities.contains("UIDPLUS") || capabilities.contains("IMAP4REV2"),
        failures: RoundFailures::default(),
    };
    session.find_namespaces(&capabilities).await?;
    let folders = session.folders().await?;
    session.memory.begin(&folders);
    let mut idles = capabilities.contains("IDLE");
    tracing::info!(?mailbox, idles, "importing reports from the mailbox");
    loop {
        let has_more = session.round(&folders).await?;
        searched();
        if !has_more {
            let is_alone = folders.len() == 1;
            session.wait(&mut idles, is_alone).await?;
        }
        // Mail often arrives in groups, and a server that announces without end is not asked without end.
        tokio::time::sleep(pacing.between_rounds).await;
    }
}

impl Session<'_> {
    async fn find_namespaces(&mut self, capabilities: &Capabilities) -> Result<(), ImapError> {
        if capabilities.contains("NAMESPACE") || capabilities.contains("IMAP4REV2") {
            let reply = tolerated(self.connection.command("NAMESPACE", ExpectedData::Namespaces).await)?;
            self.namespaces = reply.and_then(|data| data.namespaces).unwrap_or_default();
        }
        Ok(())
    }

    /// The name of a folder as it is sent: encoded, with the prefix of the user's namespace unless the name has a prefix.
    pub(super) fn qualified(&self, name: &str) -> String {
        let name = encode_mailbox(name);
        let is_inbox = name.eq_ignore_ascii_case("INBOX");
        let has_prefix =
            self.namespaces.iter().any(|prefix| !prefix.is_empty() && name.starts_with(prefix.as_str()));
        match self.namespaces.first() {
            Some(prefix) if !is_inbox && !has_prefix => format!("{prefix}{name}"),
            _ => name,
        }
    }

    /// The name of a folder as operators read it.
    pub(super) fn shown(&self, folder: &str) -> String {
        self.connection.secrets.shown(&decode_mailbox(folder), SHOWN_CHARACTERS)
    }

    /// The names of the folders to read. Patterns are expanded.
    async fn folders(&mut self) -> Result<Vec<String>, ImapError> {
        let target = self.mailbox.move_to.as_deref().map(|name| decode_mailbox(&self.qualified(name)));
        let mut all = Vec::new();
        for folder in &self.mailbox.folders {
            let name = self.qualified(folder);
            if !folder.contains(['*', '%']) {
                all.push(name);
                continue;
            }
            let command = format!("LIST \"\" {}", quote_mailbox(&name).unwrap_or_default());
            let Some(data) = self.unless_refused(&name, &command, ExpectedData::Mailboxes).await? else {
                continue;
            };
            // The server may encode the name in another way than we do.
            let is_target = |name: &String| target.as_ref() == Some(&decode_mailbox(name));
            all.extend(data.mailboxes.into_iter().filter(|name| !is_target(name)));
        }
        let mut seen = BTreeSet::new();
        all.retain(|name| seen.insert(name.clone()));
        if all.len() > IMAP_FOLDERS {
            tracing::warn!(mailbox = ?self.mailbox, "only the first {IMAP_FOLDERS} of {} folders are read", all.len());
            all.truncate(IMAP_FOLDERS);
        }
        Ok(all)
    }

    /// Searches all folders. The first one stays selected for IDLE, so it comes last. A folder that fails keeps no other
    /// from being read. Returns true if there is more new mail than one round reads.
    async fn round(&mut self, folders: &[String]) -> Result<bool, ImapError> {
        self.failures = RoundFailures::default();
        let mut is_any_open = false;
        for name in folders.iter().rev() {
            if self.select(name).await? {
                is_any_open = true;
                let imported = self.import_new().await;
                self.unless_folder_failed(imported)?;
                let expunged = self.expunge_copied().await;
                self.unless_folder_failed(expunged)?;
            }
            for alert in self.connection.take_alerts() {
                self.warn_once(name, &format!("the mail server has a message for you: {alert}"));
            }
        }
        let unlogged = self.failures.messages.saturating_sub(LOGGED_FAILURES);
        if unlogged > 0 {
            tracing::warn!(mailbox = ?self.mailbox, "{unlogged} further messages can't be read; they are tried again later");
        }
        match self.failures.store.take() {
            Some(error) => Err(error),
            None if is_any_open => Ok(self.failures.has_more),
            None => Err(ImapError::NoFolder),
        }
    }

    /// Logs that the server refused a command about the folder as a whole.
    fn unless_folder_failed(&mut self, outcome: Result<(), ImapError>) -> Result<(), ImapError> {
        match outcome {
            Err(error @ ImapError::Refused { .. }) => {
                let folder = self.folder.name.clone();
                self.warn_once(&folder, &error.to_string());
                Ok(())
            }
            other => other,
        }
    }

    /// Selects a folder. Returns false if the server refuses it, which is logged once.
    async fn select(&mut self, name: &str) -> Result<bool, ImapError> {
        if self.folder.name == name {
            return Ok(true);
        }
        self.folder = Folder::default();
        let command = format!("SELECT {}", quote_mailbox(name).unwrap_or_default());
        let Some(data) = self.unless_refused(name, &command, ExpectedData::Folder).await? else {
            return Ok(false);
        };
        // Without the code, all flags can be changed (RFC 9051 §7.1).
        let has_keywords = data.permanent_flags.is_none_or(|flags| {
            let mut flags = flags.trim_matches(['(', ')']).split(' ');
            flags.any(|flag| flag == "\\*" || flag.eq_ignore_ascii_case(IMPORTED_KEYWORD))
        });
        // The search below finds what these announce.
        self.connection.take_news();
        let validity = data.validity.unwrap_or_default();
        self.folder = Folder { name: name.to_owned(), validity, has_keywords };
        Ok(true)
    }

    pub(super) fn remembered(&mut self) -> &mut FolderMemory {
        self.memory.folder(&self.folder.name, self.folder.validity)
    }

    /// Imports new mail of the selected folder, at most [`IMAP_ROUND_MESSAGES`]. A message that fails does not keep the
    /// others from being imported.
    async fn import_new(&mut self) -> Result<(), ImapError> {
        let found = self.search_new().await?;
        let now = self.inbox.clock.elapsed();
        let due = self.remembered().due(&found, now);
        let late = due.late.into_iter().take(IMAP_ROUND_MESSAGES);
        let batch: Vec<u32> = due.fresh.iter().take(IMAP_ROUND_MESSAGES).chain(late).collect();
        for uid in batch {
            let outcome = self.import_message(uid).await;
            self.record(uid, outcome)?;
        }
        let is_batch = due.fresh.len() > IMAP_ROUND_MESSAGES as u64;
        let is_part = !found.is_complete() && found.range_count() + 1 >= IMAP_UID_RANGES;
        if !is_batch {
            // After a search that found more than fits into a set, the next one goes on above it.
            self.remembered().searched_to = found.last().filter(|_| is_part).unwrap_or_default();
        }
        self.failures.has_more |= is_batch || is_part;
        Ok(())
    }

    /// Remembers whether a message was imported. An error ends the connection.
    fn record(&mut self, uid: u32, outcome: Result<Imported, ImapError>) -> Result<(), ImapError> {
        let (now, back_off) = (self.inbox.clock.elapsed(), self.pacing.back_off);
        match outcome {
            Ok(imported) => {
                if imported == Imported::Report {
                    (self.failures.store, self.failures.store_failures) = (None, 0);
                }
                self.remembered().done(uid);
                Ok(())
            }
            Err(error @ (ImapError::Refused { .. } | ImapError::Busy(_))) => {
                if self.remembered().postpone(uid, now, back_off) {
                    self.warn_of(uid, &error);
                }
                Ok(())
            }
            Err(error @ ImapError::Store(_)) => {
                self.remembered().postpone(uid, now, back_off);
                self.failures.store_failures += 1;
                if self.failures.store_failures >= STORE_FAILURES {
                    return Err(error);
                }
                self.failures.store = Some(error);
                Ok(())
            }
            Err(error) => {
                if self.remembered().broke(uid, now, back_off) {
                    self.warn_of(uid, &error);
                }
                Err(error)
            }
        }
    }

    /// Logs the first failure of a message, up to a number of messages in each round.
    fn warn_of(&mut self, uid: u32, error: &ImapError) {
        self.failures.messages += 1;
        if self.failures.messages <= LOGGED_FAILURES {
            let (mailbox, folder) = (self.mailbox, self.shown(&self.folder.name));
            tracing::warn!(
                ?mailbox,
                folder,
                uid,
                "a message can't be read: {error}. It is tried again later"
            );
        }
    }

    /// The UIDs of new mail. Where the server stores no keyword, unread mail counts as new.
    async fn search_new(&mut self) -> Result<UidSet, ImapError> {
        let above = self.remembered().searched_to;
        // `n:*` always includes the last message, even below n (RFC 9051 §9, seq-range).
        let range = if above > 0 { format!("UID {}:* ", above.saturating_add(1)) } else { String::new() };
        let found = self.search_unhandled(&range).await?.unwrap_or_default();
        Ok(found.above(above))
    }

    async fn search_unhandled(&mut self, range: &str) -> Result<Option<UidSet>, ImapError> {
        if self.folder.has_keywords {
            let criteria = format!("{range}UNDELETED UNKEYWORD {IMPORTED_KEYWORD}");
            match tolerated(self.search(&criteria).await)? {
                Some(found) => return Ok(found),
                None => self.folder.has_keywords = false,
            }
        }
        self.search(&format!("{range}UNDELETED UNSEEN")).await
    }

    /// The UIDs that a search finds; `None` if the server sends no SEARCH response.
    pub(super) async fn search(&mut self, criteria: &str) -> Result<Option<UidSet>, ImapError> {
        let command = format!("UID SEARCH {criteria}");
        Ok(self.connection.command(&command, ExpectedData::Search).await?.found)
    }

    async fn import_message(&mut self, uid: u32) -> Result<Imported, ImapError> {
        let size = self.fetch(uid, "RFC822.SIZE").await?.and_then(|about| about.size);
        let limit = INBOX_MESSAGE_BYTES as u64;
        let what = match size {
            Some(size) if size > limit => return self.leave_large(uid).await,
            Some(_) => "BODY.PEEK[]".to_owned(),
            // One byte more than allowed shows that the message is larger.
            None => format!("BODY.PEEK[]<0.{}>", limit + 1),
        };
        let Some(body) = self.fetch(uid, &what).await?.and_then(|found| found.body) else {
            return Err(ImapError::Refused {
                command: "UID FETCH".to_owned(),
                text: "the response has no message".to_owned(),
                is_missing_folder: false,
            });
        };
        match body.len() > INBOX_MESSAGE_BYTES {
            true => self.leave_large(uid).await,
            false => self.import_body(uid, body).await,
        }
    }

    async fn import_body(&mut self, uid: u32, body: Vec<u8>) -> Result<Imported, ImapError> {
        let message = Arc::new(body);
        let reading = self.inbox.read_mail_patiently(&message, Arrival::Imap).await?;
        // Mail that does not claim to be a report stays in its folder, unread.
        if reading.is_other_mail() {
            self.inbox.counts.leave_alone(&reading);
            if reading.other_dmarc > 0 {
                self.warn_once(&self.folder.name.clone(), DMARC_LEFT_ALONE);
            }
            self.flag_handled(uid).await?;
            return Ok(Imported::Nothing);
        }
        let outcome = self.inbox.keep_reading(reading, message).await?;
        tracing::info!(?outcome, "report mail imported from the mailbox");
        self.file(uid).await?;
        Ok(Imported::Report)
    }

    async fn leave_large(&mut self, uid: u32) -> Result<Imported, ImapError> {
        let (mailbox, folder) = (self.mailbox, self.shown(&self.folder.name));
        tracing::info!(
            ?mailbox,
            folder,
            uid,
            "a message is larger than {INBOX_MESSAGE_BYTES} bytes and is left alone"
        );
        self.flag_handled(uid).await?;
        Ok(Imported::Nothing)
    }

    /// Fetches an item of a message; `None` if the message is gone, or the response breaks the grammar.
    async fn fetch(&mut self, uid: u32, what: &str) -> Result<Option<Fetched>, ImapError> {
        let command = format!("UID FETCH {uid} (UID {what})");
        Ok(self.connection.command(&command, ExpectedData::Message(uid)).await?.message)
    }

    /// Waits until the server announces mail, or until the next search is due.
    async fn wait(&mut self, idles: &mut bool, is_alone: bool) -> Result<(), ImapError> {
        if self.connection.take_news() {
            return Ok(());
        }
        if *idles && !self.folder.name.is_empty() {
            let limit = if is_alone { self.pacing.idle } else { self.pacing.poll };
            *idles = tolerated(self.connection.idle(limit).await)?.is_some();
        }
        if !*idles || self.folder.name.is_empty() {
            tokio::time::sleep(self.pacing.poll).await;
            tolerated(self.connection.command("NOOP", ExpectedData::Nothing).await)?;
        }
        self.connection.take_news();
        Ok(())
    }

    /// The data of a command about a folder. `None` if the server refuses it, which is logged once for each reason.
    async fn unless_refused(
        &mut self,
        folder: &str,
        command: &str,
        expected: ExpectedData,
    ) -> Result<Option<Data>, ImapError> {
        match self.connection.command(command, expected).await {
            Ok(data) => Ok(Some(data)),
            Err(error @ ImapError::Refused { .. }) => {
                self.warn_once(folder, &error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Logs a warning about a folder, unless it was logged before.
    pub(super) fn warn_once(&mut self, folder: &str, what: &str) {
        let folder = self.shown(folder);
        if self.memory.is_news(&format!("{folder} {what}")) {
            tracing::warn!(mailbox = ?self.mailbox, folder, "{what}");
        }
    }
}

/// The outcome of importing a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Imported {
    /// Report mail, which is stored.
    Report,
    /// Something else, which is left alone.
    Nothing,
}

/// `None` for a refused command; other errors stay errors.
pub(super) fn tolerated<T>(outcome: Result<T, ImapError>) -> Result<Option<T>, ImapError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(ImapError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
