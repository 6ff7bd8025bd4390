//! What input may be by its first bytes. Names and media types are often wrong, so the format is detected from the content.

use super::mime::is_mail;
use formats::dmarc::{self, is_dmarc_text};
use formats::mbox::is_mbox;
use formats::report::{beginning_of_gzip, begins_as_json, is_gzip, is_tar, is_zip};

/// Detects gzip, zip, tar, or text in any encoding that begins like JSON.
pub(super) fn looks_like_a_report(bytes: &[u8]) -> bool {
    is_gzip(bytes) || is_zip(bytes) || begins_as_json(bytes) || is_tar(bytes)
}

/// True for compressed data or an archive. What is in it is a file of its own.
pub(super) fn is_packed(bytes: &[u8]) -> bool {
    is_gzip(bytes) || is_zip(bytes) || is_tar(bytes)
}

/// True for gzip data whose text does not begin like a report or mail, such as a backup. It is not decompressed, so that it
/// does not use up what the message may expand to. An archive counts as a backup unless there are reports in it.
pub(super) fn is_other_gzip(bytes: &[u8], has_reports_in_archives: bool) -> bool {
    let text = beginning_of_gzip(bytes, BEGINNING_BYTES);
    let is_backup = is_tar(&text) && !has_reports_in_archives;
    let is_other = !looks_like_a_report(&text) && !is_dmarc_text(&text) && !is_mail(&text) && !is_mbox(&text);
    !text.trim_ascii().is_empty() && (is_backup || is_other)
}

/// Decompressed bytes that show what gzip data is.
pub(super) const BEGINNING_BYTES: usize = dmarc::HEAD_BYTES;
