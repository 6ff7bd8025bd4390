//! Marks messages that were handled, and moves imported reports: by MOVE (RFC 6851), or where the server does not support
//! it, by a copy, after which the original is flagged as deleted and expunged. Only messages that were copied here are
//! expunged. A server that refuses a mark or a move changes nothing about the import, which is durable by then.

use super::ImapError;
use super::connection::ExpectedData;
use super::session::{IMPORTED_KEYWORD, Session, tolerated};
use formats::imap::{UidSet, quote_mailbox};

impl Session<'_> {
    /// Moves an imported report to `move_to`. Without that, or if the server refuses, marks it as read.
    pub(super) async fn file(&mut self, uid: u32) -> Result<(), ImapError> {
        if let Some(name) = &self.mailbox.move_to {
            let target = self.qualified(name);
            match self.transfer(uid, &target).await {
                Ok(()) => return Ok(()),
                Err(error @ ImapError::Refused { .. }) => {
                    let target = self.shown(&target);
                    let about = format!(
                        "reports can't be moved to {target}, and are marked as read instead: {error}"
                    );
                    let folder = self.folder.name.clone();
                    self.warn_once(&folder, &about);
                }
                Err(error) => return Err(error),
            }
        }
        self.flag_handled(uid).await?;
        // A command of its own: a server that refuses the keyword would refuse both.
        tolerated(self.add_flags(uid, "\\Seen").await)?;
        Ok(())
    }

    /// Adds the keyword, if the server stores keywords.
    pub(super) async fn flag_handled(&mut self, uid: u32) -> Result<(), ImapError> {
        if self.folder.has_keywords {
            self.folder.has_keywords = tolerated(self.add_flags(uid, IMPORTED_KEYWORD).await)?.is_some();
        }
        Ok(())
    }

    async fn add_flags(&mut self, uid: u32, flags: &str) -> Result<(), ImapError> {
        let command = format!("UID STORE {uid} +FLAGS.SILENT ({flags})");
        self.connection.command(&command, ExpectedData::Nothing).await.map(drop)
    }

    async fn transfer(&mut self, uid: u32, target: &str) -> Result<(), ImapError> {
        if self.can_move {
            match self.move_or_copy("MOVE", uid, target).await {
                Ok(()) => return Ok(()),
                // The server may refuse MOVE although it announces it.
                Err(ImapError::Refused { .. }) => self.can_move = false,
                Err(error) => return Err(error),
            }
        }
        self.move_or_copy("COPY", uid, target).await?;
        self.add_flags(uid, "\\Deleted").await?;
        if self.can_expunge_by_uid {
            let expunged =
                self.connection.command(&format!("UID EXPUNGE {uid}"), ExpectedData::Nothing).await;
            self.can_expunge_by_uid = tolerated(expunged)?.is_some();
        }
        if !self.can_expunge_by_uid {
            self.remembered().deleted.insert(uid);
        }
        Ok(())
    }

    /// Runs MOVE or COPY. Creates the target if it does not exist.
    async fn move_or_copy(&mut self, verb: &str, uid: u32, target: &str) -> Result<(), ImapError> {
        let quoted = quote_mailbox(target).unwrap_or_default();
        let command = format!("UID {verb} {uid} {quoted}");
        match self.connection.command(&command, ExpectedData::Nothing).await {
            // Not every server says TRYCREATE, so any refusal may mean that the folder does not exist.
            Err(ImapError::Refused { is_missing_folder, .. }) => {
                let created =
                    self.connection.command(&format!("CREATE {quoted}"), ExpectedData::Nothing).await;
                let is_created = tolerated(created)?.is_some();
                if is_created || is_missing_folder {
                    let subscribe = format!("SUBSCRIBE {quoted}");
                    tolerated(self.connection.command(&subscribe, ExpectedData::Nothing).await)?;
                }
                self.connection.command(&command, ExpectedData::Nothing).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Expunges copied messages where the server can't expunge by UID. EXPUNGE removes all messages that are flagged as
    /// deleted, so it is only sent if the server lists these, all of them, and each was copied here.
    pub(super) async fn expunge_copied(&mut self) -> Result<(), ImapError> {
        if self.can_expunge_by_uid || self.remembered().deleted.is_empty() {
            return Ok(());
        }
        // Without an answer, nothing is known about other messages.
        let Some(flagged) = self.search("DELETED").await? else { return Ok(()) };
        if flagged.is_complete() {
            let remembered = self.remembered();
            remembered.deleted = remembered.deleted.intersection(&flagged);
        }
        let ours = &self.remembered().deleted;
        if ours.is_empty() {
            return Ok(());
        }
        if flagged.is_complete() && flagged.without(ours).is_empty() {
            tolerated(self.connection.command("EXPUNGE", ExpectedData::Nothing).await)?;
            self.remembered().deleted = UidSet::default();
            return Ok(());
        }
        let folder = self.folder.name.clone();
        self.warn_once(
            &folder,
            "imported reports were copied and stay in the folder, flagged as deleted: the server can't expunge single \
             messages (UIDPLUS), and other messages are flagged as deleted too. They go when a mail program expunges the folder",
        );
        Ok(())
    }
}
