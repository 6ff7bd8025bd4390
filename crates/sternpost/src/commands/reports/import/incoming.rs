//! The items of an import on their way from the reader to the store: verifies the signatures of messages, and collects the
//! items of each transaction.

use super::reader::{Copies, ImportItem, not_now};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use net::BoxFuture;
use receiver::inbox::Inbox;
use receiver::inbox::files::Item;
use std::sync::Arc;
use std::time::Duration;
use store::reports::Arrival;
use tokio::sync::mpsc::Receiver;

/// Maximum number of items that are stored together: as many as the store takes in one transaction, and fewer than the reader is
/// ahead by ([`CHUNKS_AHEAD`](super::reader::CHUNKS_AHEAD)), so that it goes on reading while the store writes.
const BATCH_REPORTS: usize = 1000;
/// Bytes of items, with their reports, after which a transaction is written.
const BATCH_BYTES: usize = 32 << 20;
/// How long a transaction waits for the next item. The items that wait hold memory that the next one may need.
const BATCH_PAUSE: Duration = Duration::from_millis(50);
/// Messages whose DKIM signatures are verified at the same time.
const CONCURRENT_MAILS: usize = 16;

/// The items from the reader. Messages are read here, several at the same time.
pub(super) struct Incoming<'i> {
    inbox: &'i Arc<Inbox>,
    ready: Receiver<Vec<ImportItem>>,
    /// What is left of the chunk that was received last.
    chunk: std::vec::IntoIter<ImportItem>,
    /// The messages that are being read, at most [`CONCURRENT_MAILS`].
    mails: FuturesUnordered<BoxFuture<'static, ImportItem>>,
}

impl<'i> Incoming<'i> {
    /// The items that a reader sends.
    pub(super) fn of(inbox: &'i Arc<Inbox>, ready: Receiver<Vec<ImportItem>>) -> Self {
        Self { inbox, ready, chunk: Vec::new().into_iter(), mails: FuturesUnordered::new() }
    }

    /// The next item of the chunk, unless it is a message.
    fn next_of_chunk(&mut self) -> Option<ImportItem> {
        match self.chunk.as_slice().first() {
            Some(ImportItem::Mail(..)) | None => None,
            Some(_) => self.chunk.next(),
        }
    }

    /// Waits for the next item, in any order. `None` after the last one. No item is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<ImportItem> {
        loop {
            let is_full = self.mails.len() >= CONCURRENT_MAILS;
            let next = if is_full { None } else { self.chunk.next() };
            match next {
                Some(ImportItem::Mail(item, copies)) => {
                    self.mails.push(read_mail(self.inbox.clone(), item, copies));
                    continue;
                }
                Some(other) => return Some(other),
                None => {}
            }
            // The messages come first, so that they make progress between report files.
            tokio::select! {
                biased;
                Some(read) = self.mails.next() => return Some(read),
                chunk = self.ready.recv(), if !is_full => match chunk {
                    Some(chunk) => self.chunk = chunk.into_iter(),
                    None => return self.mails.next().await,
                },
            }
        }
    }
}

fn read_mail(inbox: Arc<Inbox>, item: Item, copies: Copies) -> BoxFuture<'static, ImportItem> {
    Box::pin(async move {
        match inbox.read_mail_patiently(&item.bytes, Arrival::Import).await {
            Ok(reading) => ImportItem::Read(item, reading, copies),
            Err(busy) => ImportItem::Unread(not_now(item, &busy)),
        }
    })
}

/// Collects the items of one transaction: as many as fit, without waiting long for one.
pub(super) async fn batch_from(first: ImportItem, items: &mut Incoming<'_>) -> Vec<ImportItem> {
    let mut bytes = first.bytes();
    let mut batch = vec![first];
    while batch.len() < BATCH_REPORTS && bytes < BATCH_BYTES {
        let next = match items.next_of_chunk() {
            Some(next) => Some(next),
            None => tokio::time::timeout(BATCH_PAUSE, items.next()).await.ok().flatten(),
        };
        let Some(next) = next else { break };
        bytes += next.bytes();
        batch.push(next);
    }
    batch
}
