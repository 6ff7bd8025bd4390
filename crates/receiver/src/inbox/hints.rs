//! Tells from the header and the structure of a message which DKIM keys are worth looking up before it is extracted.
//! Nothing is decompressed. A mailbox is mostly private mail, and no keys are looked up for it.

use super::claims;
use super::mime::{Kind, take_apart};
use super::signature::{self, KeyName};
use super::submitter::Origin;
use formats::dmarc::DmarcFileName;
use formats::report::{UnpackError, UnpackMemory};

/// The keys of the signatures by the submitter that the header of a message names, if the message seems to be a report.
/// What seems to be a DMARC report counts only `with_dmarc`. The guess may be wrong in both directions.
///
/// # Errors
///
/// [`UnpackError::Busy`] or [`UnpackError::Memory`] if there is no memory for the headers.
pub(super) fn likely_keys(
    message: &[u8],
    with_dmarc: bool,
    memory: &dyn UnpackMemory,
) -> Result<Vec<KeyName>, UnpackError> {
    let Some(mail) = take_apart(message, memory)? else { return Ok(Vec::new()) };
    let is_report_file = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.ends_with(".json.gz") || name.ends_with(".json")
    };
    let is_dmarc_file = |name: &str| DmarcFileName::parse(name).is_some();
    let has_file = |is_wanted: &dyn Fn(&str) -> bool| {
        let mut contents = mail.parts.iter().filter(|part| part.kind == Kind::Content);
        !claims::is_bounce(&mail) && contents.any(|part| is_wanted(part.head.file_name()))
    };
    let origin = Origin::of(&mail.head);
    // The subjects of both kinds of mail have the same form.
    let submitter = if has_file(&is_dmarc_file) {
        origin.from.filter(|_| with_dmarc)
    } else {
        let is_likely = claims::mail_claims(&mail, false) || has_file(&is_report_file);
        origin.submitter.filter(|_| is_likely)
    };
    Ok(submitter.map(|submitter| signature::key_names(message, &[submitter])).unwrap_or_default())
}
