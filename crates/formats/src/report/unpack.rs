//! Decompression and compression of report files. The format (gzip, zip or plain) is detected by content (REC-04). The
//! inbox passes in what strangers sent; an [`UnpackBudget`] bounds what one received message or file may expand to
//! (REC-09). The output goes to [`Report::read`](super::Report::read).

use crate::limits::{JSON_NODES, REPORT_BYTES, REPORT_PACKED_BYTES, REPORT_RATIO, ZIP_MEMBERS};
use std::borrow::Cow;
use std::io::{Read, Write};

/// The format of a received report file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpacked {
    /// Uncompressed JSON.
    Plain,
    /// Compressed by gzip, as RFC 8460 §5 recommends.
    Gzip,
    /// Compressed by gzip, followed by bytes that are not gzip data. They are ignored, as gunzip does.
    GzipWithTrailingBytes,
    /// A member of a zip file: the first whose name ends in `.json`, else the first.
    Zip,
}

/// Why a report file can't be decompressed. The inbox quarantines such files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// The file is empty.
    #[error("the report is empty")]
    Empty,
    /// The file is longer than [`REPORT_PACKED_BYTES`].
    #[error("the report has {0} bytes as received; at most {REPORT_PACKED_BYTES} are accepted")]
    TooLong(usize),
    /// The decompressed size exceeds [`REPORT_BYTES`], or [`REPORT_RATIO`] times the received size.
    #[error("the report decompresses to more than the allowed {0} bytes")]
    Bomb(usize),
    /// The compressed data is invalid.
    #[error("the compressed data is invalid: {0}")]
    Broken(String),
    /// The memory for decompressed reports is in use. The same input may succeed later.
    #[error("the memory for decompressed reports is in use at the moment")]
    Busy,
}

/// What one received message or file may expand to, over all reports in it.
pub struct UnpackBudget<'r> {
    bytes: usize,
    nodes: usize,
    reserve: &'r mut dyn FnMut(usize) -> bool,
}

impl<'r> UnpackBudget<'r> {
    /// The budget for input of `received` bytes: [`REPORT_RATIO`] times as many bytes, at most [`REPORT_BYTES`], and
    /// [`JSON_NODES`] JSON values. `reserve` is called before memory is used, with a number of bytes; when it returns
    /// false, unpacking fails with [`UnpackError::Busy`].
    pub fn new(received: usize, reserve: &'r mut dyn FnMut(usize) -> bool) -> Self {
        Self { bytes: REPORT_BYTES.min(received.saturating_mul(REPORT_RATIO)), nodes: JSON_NODES, reserve }
    }

    /// The number of JSON values that are left; the parser counts it down.
    pub fn nodes(&mut self) -> &mut usize {
        &mut self.nodes
    }

    /// Reserves memory that is not decompressed text, such as that of parsed JSON.
    ///
    /// # Errors
    ///
    /// [`UnpackError::Busy`] if the memory is in use.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), UnpackError> {
        if (self.reserve)(bytes) { Ok(()) } else { Err(UnpackError::Busy) }
    }

    /// Reads at most `most` decompressed bytes, and takes them out of the budget.
    fn read(&mut self, mut reader: impl Read, most: usize) -> Result<Vec<u8>, UnpackError> {
        let most = most.min(self.bytes);
        let mut text = Vec::new();
        while text.len() <= most {
            let step = (text.len() / 2).clamp(FIRST_READ, LARGEST_READ).min(most + 1 - text.len());
            self.reserve(step)?;
            let limit = u64::try_from(step).unwrap_or(u64::MAX);
            text.reserve_exact(step);
            let count = reader.by_ref().take(limit).read_to_end(&mut text).map_err(|error| broken(&error))?;
            if count < step {
                break;
            }
        }
        if text.len() > most {
            return Err(UnpackError::Bomb(most));
        }
        self.bytes -= text.len();
        Ok(text)
    }
}

/// The smallest and the largest amount of decompressed data for which memory is reserved at once.
const FIRST_READ: usize = 32_768;
const LARGEST_READ: usize = 4 << 20;
/// The memory that the directory of a zip file takes, as a multiple of the file's size, at most.
const ZIP_DIRECTORY: usize = 8;

fn broken(error: &dyn std::fmt::Display) -> UnpackError {
    UnpackError::Broken(error.to_string())
}

/// Decompresses a report file. Returns the JSON text and the format of the file.
pub fn unpack(bytes: &[u8]) -> Result<(Vec<u8>, Unpacked), UnpackError> {
    let mut always = |_| true;
    let mut budget = UnpackBudget::new(bytes.len(), &mut always);
    if is_zip(bytes) && bytes.len() <= REPORT_PACKED_BYTES {
        return Ok((from_zip(bytes, &mut budget)?, Unpacked::Zip));
    }
    unpack_within(bytes, &mut budget).map(|(text, how)| (text.into_owned(), how))
}

/// Decompresses a report file that is not a zip file, within a budget. Returns the JSON text and the format.
///
/// # Errors
///
/// Any [`UnpackError`]. A report that exceeds what is left of the budget is a [`UnpackError::Bomb`].
pub fn unpack_within<'b>(
    bytes: &'b [u8],
    budget: &mut UnpackBudget<'_>,
) -> Result<(Cow<'b, [u8]>, Unpacked), UnpackError> {
    if bytes.is_empty() {
        return Err(UnpackError::Empty);
    }
    if bytes.len() > REPORT_PACKED_BYTES {
        return Err(UnpackError::TooLong(bytes.len()));
    }
    if !is_gzip(bytes) {
        return Ok((Cow::Borrowed(bytes), Unpacked::Plain));
    }
    let most = bytes.len().saturating_mul(REPORT_RATIO);
    // Several gzip members in sequence are one text (RFC 1952 §2.2).
    let mut rest = bytes;
    let mut text = Vec::new();
    while is_gzip(rest) {
        let mut member = budget.read(flate2::bufread::GzDecoder::new(&mut rest), most)?;
        match text.is_empty() {
            true => text = member,
            false => text.append(&mut member),
        }
    }
    let how = if rest.is_empty() { Unpacked::Gzip } else { Unpacked::GzipWithTrailingBytes };
    Ok((Cow::Owned(text), how))
}

/// True for data that begins as gzip does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// True for data that begins as a zip file does.
pub fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// Compresses a report by gzip.
pub fn pack(json: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(json)?;
    encoder.finish()
}

/// The files in a zip file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZipContents {
    /// The members up to the limit, without folders.
    pub members: Vec<ZipMember>,
    /// The number of members beyond the limit, which were not read.
    pub left_out: usize,
}

/// One file in a zip file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZipMember {
    /// The name as stored in the zip file, chosen by its sender; it may contain any characters.
    pub name: String,
    /// The content, which may itself be compressed; or why this member can't be decompressed.
    pub bytes: Result<Vec<u8>, UnpackError>,
}

/// Returns the first [`ZIP_MEMBERS`] files in a zip file, and the number of further ones. The total size is bounded like
/// that of one report.
///
/// # Errors
///
/// [`UnpackError::Broken`] if the directory of the zip file is invalid.
pub fn zip_members(bytes: &[u8]) -> Result<ZipContents, UnpackError> {
    let mut always = |_| true;
    zip_members_within(bytes, ZIP_MEMBERS, &mut UnpackBudget::new(bytes.len(), &mut always))
}

/// Returns the first `most` files in a zip file, within a budget, and the number of further ones.
///
/// # Errors
///
/// [`UnpackError::Broken`] if the directory of the zip file is invalid, [`UnpackError::Busy`] if the memory is in use.
pub fn zip_members_within(
    bytes: &[u8],
    most: usize,
    budget: &mut UnpackBudget<'_>,
) -> Result<ZipContents, UnpackError> {
    budget.reserve(bytes.len().saturating_mul(ZIP_DIRECTORY))?;
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(|error| broken(&error))?;
    let mut contents = ZipContents { members: Vec::new(), left_out: archive.len().saturating_sub(most) };
    for at in 0..archive.len().min(most) {
        let member = archive.by_index(at).map_err(|error| broken(&error));
        let name = match &member {
            Ok(member) if member.is_dir() => continue,
            Ok(member) => member.name().map_or_else(|_| String::new(), |name| name.to_string()),
            Err(_) => format!("member {}", at + 1),
        };
        let bytes = match member.and_then(|member| budget.read(member, REPORT_BYTES)) {
            Err(UnpackError::Busy) => return Err(UnpackError::Busy),
            read => read,
        };
        contents.members.push(ZipMember { name, bytes });
    }
    Ok(contents)
}

fn from_zip(bytes: &[u8], budget: &mut UnpackBudget<'_>) -> Result<Vec<u8>, UnpackError> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(|error| broken(&error))?;
    let wanted =
        archive.file_names().position(|name| name.is_ok_and(|name| name.ends_with(".json"))).unwrap_or(0);
    let member = archive.by_index(wanted).map_err(|error| broken(&error))?;
    budget.read(member, REPORT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rec_04_packing_is_told_by_content() {
        let json = br#"{"report-id":"1"}"#;
        assert_eq!(unpack(&pack(json).unwrap()).unwrap(), (json.to_vec(), Unpacked::Gzip));
        assert_eq!(unpack(json).unwrap(), (json.to_vec(), Unpacked::Plain));
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for name in ["readme.txt", "report.json"] {
            writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(if name == "report.json" { json } else { b"no" }).unwrap();
        }
        let zipped = writer.finish().unwrap().into_inner();
        assert_eq!(unpack(&zipped).unwrap(), (json.to_vec(), Unpacked::Zip));
    }

    #[test]
    fn rec_09_bombs_and_giants_are_refused() {
        let blanks = 8 << 20;
        let bomb = pack(&vec![b' '; blanks]).unwrap();
        assert!(bomb.len() * REPORT_RATIO < blanks, "gzip compresses blanks by more than the ratio");
        assert_eq!(unpack(&bomb), Err(UnpackError::Bomb(bomb.len() * REPORT_RATIO)));
        let nested = pack(&vec![0; REPORT_BYTES + 1]).unwrap();
        assert!(matches!(unpack(&nested), Err(UnpackError::Bomb(_))));
        assert!(matches!(unpack(&vec![b'{'; REPORT_PACKED_BYTES + 1]), Err(UnpackError::TooLong(_))));
        assert_eq!(unpack(b""), Err(UnpackError::Empty));
        let cut = pack(b"{}").unwrap();
        assert!(matches!(unpack(&cut[..cut.len() - 6]), Err(UnpackError::Broken(_))));
        assert!(matches!(unpack(b"PK\x03\x04rest"), Err(UnpackError::Broken(_))));
    }

    #[test]
    fn rec_04_gzip_followed_by_line_ends_zeros_or_other_bytes_is_unpacked() {
        let packed = pack(b"{}").unwrap();
        for trailing in [b"\r\n".as_slice(), &[0; 512], b"--\nlist footer"] {
            let (text, how) = unpack(&[&packed, trailing].concat()).unwrap();
            assert_eq!((text.as_slice(), how), (&b"{}"[..], Unpacked::GzipWithTrailingBytes));
        }
        let (text, how) = unpack(&[packed.as_slice(), &packed].concat()).unwrap();
        assert_eq!((text.as_slice(), how), (&b"{}{}"[..], Unpacked::Gzip));
        assert!(matches!(
            unpack(&[packed.as_slice(), &[0x1f, 0x8b, 8]].concat()),
            Err(UnpackError::Broken(_))
        ));
    }

    fn zip_of(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in members {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn rec_09_zip_members_beyond_the_limit_are_counted_and_a_broken_one_loses_no_other() {
        let mut always = |_| true;
        let mut zip = zip_of(&[("a.json", b"{\"first\":1}"), ("b.json", b"{}"), ("c.json", b"{}")]);
        let found = zip_members_within(&zip, 2, &mut UnpackBudget::new(zip.len(), &mut always)).unwrap();
        assert_eq!((found.members.len(), found.left_out), (2, 1));
        // One byte of the first member's compressed data.
        let at = zip.windows(6).position(|name| name == b"a.json").unwrap() + 6;
        zip[at] ^= 0xff;
        let found = zip_members(&zip).unwrap();
        assert_eq!(found.left_out, 0);
        assert!(matches!(found.members[0].bytes, Err(UnpackError::Broken(_))), "{found:?}");
        assert_eq!(found.members[2].bytes, Ok(b"{}".to_vec()));
    }

    #[test]
    fn rec_09_the_budget_covers_all_reports_of_one_input() {
        let report = pack(&[b'{'; 3000]).unwrap();
        let mut always = |_| true;
        let mut budget = UnpackBudget::new(5, &mut always);
        assert!(unpack_within(&report, &mut budget).is_ok());
        assert_eq!(unpack_within(&report, &mut budget), Err(UnpackError::Bomb(2000)));
    }

    #[test]
    fn unpacking_stops_when_no_more_memory_is_granted() {
        let report = pack(&vec![b' '; 1 << 20]).unwrap();
        let mut left: usize = 100_000;
        let mut reserve = |bytes| match left.checked_sub(bytes) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let mut budget = UnpackBudget::new(report.len(), &mut reserve);
        assert_eq!(unpack_within(&report, &mut budget), Err(UnpackError::Busy));
    }

    proptest! {
        #[test]
        fn packed_bytes_are_unpacked_unchanged(json in proptest::collection::vec(any::<u8>(), 0..500)) {
            prop_assert_eq!(unpack(&pack(&json).unwrap()).unwrap(), (json, Unpacked::Gzip));
        }

        #[test]
        fn any_bytes_are_rejected_or_unpacked(head in 0..3usize, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut text = [&b"\x1f\x8b\x08"[..], b"PK\x03\x04", b""][head].to_vec();
            text.extend(bytes);
            let _ = unpack(&text);
        }
    }
}
