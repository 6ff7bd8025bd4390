//! One signed-in connection: searches the folders for new mail, imports the reports, and waits for more.

use super::connection::Connection;
use super::memory::{FolderMemory, Memory};
use super::sign_in::{Capabilities, sign_in};
use super::{ImapError, ImapMailbox, Pacing};
use crate::inbox::Inbox;
use formats::imap::{Fetched, Response, Status, encode_mailbox, quote};
use formats::limits::{IMAP_FOLDERS, INBOX_MESSAGE_BYTES};
use rustls::ClientConfig;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::reports::Arrival;

/// The IMAP keyword on mail that was processed.
pub(super) const IMPORTED_KEYWORD: &str = "SternpostTaken";

/// Logged once for each folder.
const DMARC_LEFT_ALONE: &str =
    "DMARC reports are left alone in their folder; `inbox.dmarc = true` imports them";

/// A signed-in connection.
pub(super) struct Session<'a> {
    pub(super) mailbox: &'a ImapMailbox,
    inbox: &'a Inbox,
    pub(super) connection: Connection,
    pub(super) memory: &'a mut Memory,
    /// The prefixes of the server's namespaces, the user's own first.
    namespaces: Vec<String>,
    /// The selected folder.
    pub(super) folder: Folder,
    pub(super) can_move: bool,
    pub(super) can_expunge_by_uid: bool,
}

/// The selected folder.
#[derive(Default)]
pub(super) struct Folder {
    /// The name as it is sent; empty if no folder is selected.
    pub(super) name: String,
    /// Identifies the folder's UIDs.
    pub(super) validity: u32,
    /// Whether the server stores our keyword.
    pub(super) has_keywords: bool,
}

/// Runs a connection until it fails. Sets `worked` once the folders were searched.
pub(super) async fn run(
    mailbox: &ImapMailbox,
    inbox: &Inbox,
    tls: &Arc<ClientConfig>,
    pacing: Pacing,
    memory: &mut Memory,
    worked: &mut bool,
) -> Result<(), ImapError> {
    let (connection, capabilities) = sign_in(mailbox, inbox, tls).await?;
    let mut session = Session {
        mailbox,
        inbox,
        connection,
        memory,
        namespaces: Vec::new(),
        folder: Folder::default(),
        can_move: capabilities.contains("MOVE"),
        can_expunge_by_uid: capabilities.contains("UIDPLUS") || capabilities.contains("IMAP4REV2"),
    };
    session.find_namespaces(&capabilities).await?;
    let folders = session.folders().await?;
    let mut idles = capabilities.contains("IDLE");
    tracing::info!(?mailbox, idles, "importing reports from the mailbox");
    loop {
        session.round(&folders).await?;
        *worked = true;
        let is_alone = folders.len() == 1;
        session.wait(&mut idles, is_alone, pacing).await?;
    }
}

impl Session<'_> {
    async fn find_namespaces(&mut self, capabilities: &Capabilities) -> Result<(), ImapError> {
        if capabilities.contains("NAMESPACE") || capabilities.contains("IMAP4REV2") {
            let reply = tolerated(self.connection.command("NAMESPACE").await)?;
            let listed = |response| match response {
                Response::Namespaces(listed) => Some(listed),
                _ => None,
            };
            self.namespaces = reply.unwrap_or_default().into_iter().find_map(listed).unwrap_or_default();
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

    /// The names of the folders to read. Patterns are expanded.
    async fn folders(&mut self) -> Result<Vec<String>, ImapError> {
        let target = self.mailbox.move_to.as_deref().map(|name| self.qualified(name));
        let mut all = Vec::new();
        for folder in &self.mailbox.folders {
            let name = self.qualified(folder);
            if !folder.contains(['*', '%']) {
                all.push(name);
                continue;
            }
            let command = format!("LIST \"\" {}", quote(&name).unwrap_or_default());
            let Some(reply) = self.unless_refused(folder, &command).await? else { continue };
            let matching = reply.into_iter().filter_map(|response| match response {
                Response::Mailbox { name, is_selectable: true } => Some(name),
                _ => None,
            });
            all.extend(matching.filter(|name| Some(name) != target.as_ref()));
        }
        let mut seen = BTreeSet::new();
        all.retain(|name| seen.insert(name.clone()));
        if all.len() > IMAP_FOLDERS {
            tracing::warn!(mailbox = ?self.mailbox, "only the first {IMAP_FOLDERS} of {} folders are read", all.len());
            all.truncate(IMAP_FOLDERS);
        }
        Ok(all)
    }

    /// Searches all folders. The first one stays selected for IDLE, so it comes last.
    async fn round(&mut self, folders: &[String]) -> Result<(), ImapError> {
        let mut is_any_open = false;
        for name in folders.iter().rev() {
            if self.select(name).await? {
                is_any_open = true;
                self.import_new().await?;
                self.expunge_copied().await?;
            }
        }
        if is_any_open { Ok(()) } else { Err(ImapError::NoFolder) }
    }

    /// Selects a folder. Returns false if the server refuses it, which is logged once.
    async fn select(&mut self, name: &str) -> Result<bool, ImapError> {
        if self.folder.name == name {
            return Ok(true);
        }
        self.folder = Folder::default();
        let command = format!("SELECT {}", quote(name).unwrap_or_default());
        let Some(data) = self.unless_refused(name, &command).await? else { return Ok(false) };
        let code = |key: &str| {
            data.iter().find_map(|response| match response {
                Response::State(state) if state.status == Status::Ok => state.code_value(key),
                _ => None,
            })
        };
        // Without the code, all flags can be changed (RFC 9051 §7.1).
        let has_keywords = code("PERMANENTFLAGS").is_none_or(|flags| {
            let mut flags = flags.trim_matches(['(', ')']).split(' ');
            flags.any(|flag| flag == "\\*" || flag.eq_ignore_ascii_case(IMPORTED_KEYWORD))
        });
        let validity = code("UIDVALIDITY").and_then(|value| value.parse().ok()).unwrap_or_default();
        // The search below finds what these announce.
        self.connection.take_news();
        self.folder = Folder { name: name.to_owned(), validity, has_keywords };
        Ok(true)
    }

    pub(super) fn remembered(&mut self) -> &mut FolderMemory {
        self.memory.folder(&self.folder.name, self.folder.validity)
    }

    /// Imports all new mail of the selected folder. A message that fails does not keep the others from being imported.
    async fn import_new(&mut self) -> Result<(), ImapError> {
        let found = self.search_new().await?;
        for uid in self.remembered().due(&found) {
            match self.import_message(uid).await {
                Ok(()) => self.remembered().done(uid),
                Err(error @ ImapError::Refused { .. }) => {
                    self.remembered().done(uid);
                    self.warn_of(uid, &error, "It is passed over");
                }
                Err(error @ ImapError::Store(_)) => {
                    self.remembered().postpone(uid);
                    return Err(error);
                }
                Err(error) => {
                    if self.remembered().broke(uid) {
                        self.warn_of(uid, &error, "It is passed over until the next start");
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Logs the failure of a message, as often as there are such messages: once each.
    fn warn_of(&self, uid: u32, error: &ImapError, consequence: &str) {
        let (mailbox, folder) = (self.mailbox, self.folder.name.as_str());
        tracing::warn!(?mailbox, folder, uid, "a message can't be read: {error}. {consequence}");
    }

    /// The UIDs of new mail. Where the server stores no keyword, unread mail counts as new.
    async fn search_new(&mut self) -> Result<BTreeSet<u32>, ImapError> {
        if self.folder.has_keywords {
            let criteria = format!("UNDELETED UNKEYWORD {IMPORTED_KEYWORD}");
            match tolerated(self.search(&criteria).await)? {
                Some(found) => return Ok(found),
                None => self.folder.has_keywords = false,
            }
        }
        self.search("UNDELETED UNSEEN").await
    }

    pub(super) async fn search(&mut self, criteria: &str) -> Result<BTreeSet<u32>, ImapError> {
        let reply = self.connection.command(&format!("UID SEARCH {criteria}")).await?;
        let found = reply.into_iter().filter_map(|response| match response {
            Response::Search(found) => Some(found),
            _ => None,
        });
        Ok(found.flatten().collect())
    }

    async fn import_message(&mut self, uid: u32) -> Result<(), ImapError> {
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

    async fn import_body(&mut self, uid: u32, body: Vec<u8>) -> Result<(), ImapError> {
        let message = Arc::new(body);
        let reading = self.inbox.read_mail_patiently(&message, Arrival::Imap).await;
        // Mail that does not claim to be a report stays in its folder, unread.
        if reading.is_other_mail() {
            self.inbox.counts.leave_alone(&reading);
            if reading.other_dmarc > 0 {
                self.warn_once(&self.folder.name.clone(), DMARC_LEFT_ALONE);
            }
            return self.flag_handled(uid).await;
        }
        let outcome = self.inbox.keep_reading(reading, &message).await?;
        tracing::info!(?outcome, "report mail imported from the mailbox");
        self.file(uid).await
    }

    async fn leave_large(&mut self, uid: u32) -> Result<(), ImapError> {
        let (mailbox, folder) = (self.mailbox, self.folder.name.as_str());
        tracing::info!(
            ?mailbox,
            folder,
            uid,
            "a message is larger than {INBOX_MESSAGE_BYTES} bytes and is left alone"
        );
        self.flag_handled(uid).await
    }

    /// Fetches an item of a message; `None` if the message is gone, or the response breaks the grammar.
    async fn fetch(&mut self, uid: u32, what: &str) -> Result<Option<Fetched>, ImapError> {
        let reply = self.connection.command(&format!("UID FETCH {uid} (UID {what})")).await?;
        let found = reply.into_iter().filter_map(|response| match response {
            Response::Fetch(found) if found.uid == Some(uid) => Some(found),
            _ => None,
        });
        // The server may add responses about flags of the same message.
        Ok(found.reduce(|one, other| Fetched {
            uid: one.uid,
            size: one.size.or(other.size),
            body: one.body.or(other.body),
        }))
    }

    /// Waits until the server announces mail, or until the next search is due.
    async fn wait(&mut self, idles: &mut bool, is_alone: bool, pacing: Pacing) -> Result<(), ImapError> {
        if self.connection.take_news() {
            return Ok(());
        }
        if *idles && !self.folder.name.is_empty() {
            let limit = if is_alone { pacing.idle } else { pacing.poll };
            *idles = tolerated(self.connection.idle(limit).await)?.is_some();
        }
        if !*idles || self.folder.name.is_empty() {
            tokio::time::sleep(pacing.poll).await;
            self.connection.command("NOOP").await?;
        }
        self.connection.take_news();
        Ok(())
    }

    /// The data of a command about a folder. `None` if the server refuses it, which is logged once for each reason.
    async fn unless_refused(
        &mut self,
        folder: &str,
        command: &str,
    ) -> Result<Option<Vec<Response>>, ImapError> {
        match self.connection.command(command).await {
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
        if self.memory.is_news(&format!("{folder} {what}")) {
            tracing::warn!(mailbox = ?self.mailbox, folder, "{what}");
        }
    }
}

/// `None` for a refused command; other errors stay errors.
pub(super) fn tolerated<T>(outcome: Result<T, ImapError>) -> Result<Option<T>, ImapError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(ImapError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
