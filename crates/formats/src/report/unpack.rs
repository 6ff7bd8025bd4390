//! Decompression and compression of report files. The format (gzip, zip or plain) is detected by content (REC-04). The
//! inbox passes in what strangers sent; an [`UnpackBudget`] bounds what one received message or file may expand to
//! (REC-09). The output goes to [`Report::read`](super::Report::read).

use super::budget::{Held, HeldText, UnlimitedMemory, UnpackBudget};
use crate::limits::{REPORT_BYTES, REPORT_PACKED_BYTES, REPORT_RATIO, ZIP_MEMBERS};
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
    /// The input needs more memory than there is for all reports together.
    #[error("reading the report takes more memory than there is for all reports")]
    Memory,
}

/// The memory of one entry in the directory of a zip file, without its name, at most.
const ZIP_ENTRY_BYTES: usize = 640;
/// Gzip members in one file. Some programs write a member for each 64 KiB of text.
const GZIP_MEMBERS: usize = 2000;

/// Decompressed text, or the received text if it was not compressed.
pub enum UnpackedText<'b, 'r> {
    /// The text as received, which was not compressed.
    Received(&'b [u8]),
    /// The decompressed text.
    Decompressed(HeldText<'r>),
}

impl UnpackedText<'_, '_> {
    /// Returns the text, whether it was compressed or not.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Received(bytes) => bytes,
            Self::Decompressed(text) => text.bytes(),
        }
    }
}

fn broken(error: &dyn std::fmt::Display) -> UnpackError {
    UnpackError::Broken(error.to_string())
}

/// Decompresses a report file. Returns the JSON text and the format of the file.
pub fn unpack(bytes: &[u8]) -> Result<(Vec<u8>, Unpacked), UnpackError> {
    let mut budget = UnpackBudget::new(bytes.len(), &UnlimitedMemory);
    if is_zip(bytes) && bytes.len() <= REPORT_PACKED_BYTES {
        return Ok((from_zip(bytes, &mut budget)?, Unpacked::Zip));
    }
    unpack_within(bytes, &mut budget).map(|(text, how)| (text.bytes().to_vec(), how))
}

/// Decompresses a report file that is not a zip file, within a budget. Returns the JSON text and the format.
///
/// # Errors
///
/// Any [`UnpackError`]. A report that exceeds what is left of the budget is a [`UnpackError::Bomb`].
pub fn unpack_within<'b, 'r>(
    bytes: &'b [u8],
    budget: &mut UnpackBudget<'r>,
) -> Result<(UnpackedText<'b, 'r>, Unpacked), UnpackError> {
    if bytes.is_empty() {
        return Err(UnpackError::Empty);
    }
    if bytes.len() > REPORT_PACKED_BYTES {
        return Err(UnpackError::TooLong(bytes.len()));
    }
    if !is_gzip(bytes) {
        return Ok((UnpackedText::Received(bytes), Unpacked::Plain));
    }
    let most = bytes.len().saturating_mul(REPORT_RATIO);
    // Several gzip members in sequence are one text (RFC 1952 §2.2).
    let (mut rest, mut members) = (bytes, 0);
    let mut text = HeldText::new(budget.memory());
    while is_gzip(rest) {
        members += 1;
        if members > GZIP_MEMBERS {
            return Err(UnpackError::Broken(format!("more than {GZIP_MEMBERS} gzip members")));
        }
        budget.read(&mut text, flate2::bufread::GzDecoder::new(&mut rest), most)?;
    }
    let how = if rest.is_empty() { Unpacked::Gzip } else { Unpacked::GzipWithTrailingBytes };
    Ok((UnpackedText::Decompressed(text), how))
}

/// The beginning of a gzip file's text, at most `most` bytes, as far as it can be decompressed; empty for other data.
/// For messages about files that can't be read as a whole.
pub fn beginning_of_gzip(bytes: &[u8], most: usize) -> Vec<u8> {
    let mut text = Vec::new();
    if is_gzip(bytes) {
        let limit = u64::try_from(most).unwrap_or(u64::MAX);
        // An error leaves what was read before it.
        let _ = flate2::bufread::GzDecoder::new(bytes).take(limit).read_to_end(&mut text);
    }
    text
}

/// The text of gzip data, as a stream. The caller bounds what it reads.
pub fn gzip_stream<'i>(input: &'i mut dyn std::io::BufRead) -> Box<dyn std::io::BufRead + 'i> {
    Box::new(std::io::BufReader::new(flate2::bufread::MultiGzDecoder::new(input)))
}

/// True for data that begins as gzip does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// True for data that begins as a zip file does.
pub fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// The name of a compression that is not read, by the first bytes of the data.
pub fn other_compression(bytes: &[u8]) -> Option<&'static str> {
    let is_bzip2 = bytes.starts_with(b"BZh") && bytes.get(4..10) == Some(b"1AY&SY");
    if is_bzip2 {
        return Some("bzip2");
    }
    let all: [(&[u8], &str); 4] = [
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"Dovecot-LZ4\r\x2a\x9b\xc5", "lz4"),
    ];
    all.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name)
}

/// Compresses a report by gzip.
pub fn pack(json: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(json)?;
    encoder.finish()
}

/// The files in a zip file.
pub struct ZipContents<'r> {
    /// The members up to the limit, without folders.
    pub members: Vec<ZipMember<'r>>,
    /// The number of members beyond the limit, which were not read.
    pub left_out: usize,
}

/// One file in a zip file.
pub struct ZipMember<'r> {
    /// The name as stored in the zip file, chosen by its sender; it may contain any characters.
    pub name: String,
    /// The content, which may itself be compressed; or why this member can't be decompressed.
    pub text: Result<HeldText<'r>, UnpackError>,
}

/// Returns the first [`ZIP_MEMBERS`] files in a zip file, and the number of further ones. The total size is bounded like
/// that of one report.
///
/// # Errors
///
/// [`UnpackError::Broken`] if the directory of the zip file is invalid.
pub fn zip_members(bytes: &[u8]) -> Result<ZipContents<'static>, UnpackError> {
    zip_members_within(bytes, ZIP_MEMBERS, &mut UnpackBudget::new(bytes.len(), &UnlimitedMemory))
}

/// Returns the first `most` files in a zip file, within a budget, and the number of further ones.
///
/// # Errors
///
/// [`UnpackError::Broken`] if the directory of the zip file is invalid, [`UnpackError::Busy`] or [`UnpackError::Memory`]
/// if there is no memory.
pub fn zip_members_within<'r>(
    bytes: &[u8],
    most: usize,
    budget: &mut UnpackBudget<'r>,
) -> Result<ZipContents<'r>, UnpackError> {
    let mut directory = Held::new(budget.memory());
    directory.grow(directory_bytes(bytes))?;
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(|error| broken(&error))?;
    let mut contents = ZipContents { members: Vec::new(), left_out: archive.len().saturating_sub(most) };
    for at in 0..archive.len().min(most) {
        let member = archive.by_index(at).map_err(|error| broken(&error));
        let name = match &member {
            Ok(member) if member.is_dir() => continue,
            Ok(member) => member.name().map_or_else(|_| String::new(), |name| name.to_string()),
            Err(_) => format!("member {}", at + 1),
        };
        let mut text = HeldText::new(budget.memory());
        let text = match member.and_then(|member| budget.read(&mut text, member, REPORT_BYTES)) {
            Err(UnpackError::Busy) => return Err(UnpackError::Busy),
            read => read.map(|()| text),
        };
        contents.members.push(ZipMember { name, text });
    }
    Ok(contents)
}

/// The memory for the directory of a zip file, at most: its entries have signatures and names.
fn directory_bytes(zip: &[u8]) -> usize {
    let mut entries = zip.windows(4).enumerate().filter(|(_, at)| at == b"PK\x01\x02").map(|(at, _)| at);
    let first = entries.next().unwrap_or(zip.len());
    (1 + entries.count()) * ZIP_ENTRY_BYTES + (zip.len() - first) * 3
}

fn from_zip(bytes: &[u8], budget: &mut UnpackBudget<'_>) -> Result<Vec<u8>, UnpackError> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(|error| broken(&error))?;
    let wanted =
        archive.file_names().position(|name| name.is_ok_and(|name| name.ends_with(".json"))).unwrap_or(0);
    let member = archive.by_index(wanted).map_err(|error| broken(&error))?;
    let mut text = HeldText::new(budget.memory());
    budget.read(&mut text, member, REPORT_BYTES)?;
    Ok(text.bytes)
}

#[cfg(test)]
mod tests {
    use super::super::budget::UnpackMemory;
    use super::super::budget::tests::Fixed;
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
        let mut zip = zip_of(&[("a.json", b"{\"first\":1}"), ("b.json", b"{}"), ("c.json", b"{}")]);
        let found = zip_members_within(&zip, 2, &mut UnpackBudget::new(zip.len(), &UnlimitedMemory)).unwrap();
        assert_eq!((found.members.len(), found.left_out), (2, 1));
        // One byte of the first member's compressed data.
        let at = zip.windows(6).position(|name| name == b"a.json").unwrap() + 6;
        zip[at] ^= 0xff;
        let found = zip_members(&zip).unwrap();
        assert_eq!(found.left_out, 0);
        assert!(matches!(found.members[0].text, Err(UnpackError::Broken(_))));
        assert_eq!(found.members[2].text.as_ref().map_err(Clone::clone).unwrap().bytes(), b"{}");
    }

    #[test]
    fn rec_09_the_budget_covers_all_reports_of_one_input() {
        let report = pack(&[b'{'; 3000]).unwrap();
        let mut budget = UnpackBudget::new(5, &UnlimitedMemory);
        assert!(unpack_within(&report, &mut budget).is_ok());
        assert_eq!(unpack_within(&report, &mut budget).err(), Some(UnpackError::Bomb(2000)));
    }

    #[test]
    fn unpacking_stops_when_no_more_memory_is_granted() {
        let report = pack(&vec![b' '; 1 << 20]).unwrap();
        let memory = Fixed::new(1_500_000);
        let others = memory.reserve(800_000);
        let mut budget = UnpackBudget::new(report.len(), &memory);
        assert_eq!((others, unpack_within(&report, &mut budget).err()), (Ok(()), Some(UnpackError::Busy)));
        assert_eq!(memory.used.get(), 800_000);
    }

    #[test]
    fn rec_09_what_fails_gives_its_memory_back_and_counts_as_work() {
        let memory = Fixed::new(64 << 20);
        let mut text = vec![b' '; 1 << 20];
        text.iter_mut().enumerate().for_each(|(at, byte)| *byte = b' ' + (at * at / 7 % 64) as u8);
        let mut crc = pack(&text).unwrap();
        let at = crc.len() - 6;
        crc[at] ^= 1;
        let cut = &pack(&text).unwrap()[..crc.len() / 2];
        let mut budget = UnpackBudget::new(2500, &memory);
        assert!(matches!(unpack_within(&crc, &mut budget), Err(UnpackError::Broken(_))));
        assert!(matches!(unpack_within(cut, &mut budget), Err(UnpackError::Broken(_))));
        assert_eq!(memory.used.get(), 0);
        // 1.5 of the 2.5 MB were read.
        assert!(matches!(unpack_within(&crc, &mut budget), Err(UnpackError::Bomb(left)) if left < 1_000_000));
        let good = pack(b"{}").unwrap();
        assert!(matches!(unpack_within(&good, &mut budget), Err(UnpackError::Bomb(0))));
        assert_eq!(memory.used.get(), 0);
        let kept = unpack_within(&pack(&text).unwrap(), &mut UnpackBudget::new(2500, &memory)).map(|_| ());
        assert_eq!((kept, memory.used.get()), (Ok(()), 0));
    }

    #[test]
    fn rec_09_the_directory_of_a_zip_file_is_given_back_and_gzip_members_are_bounded() {
        let memory = Fixed::new(1 << 20);
        let zip = zip_of(&[("a.json", b"{}")]);
        let found = zip_members_within(&zip, 9, &mut UnpackBudget::new(zip.len(), &memory)).unwrap();
        assert!((2..5000).contains(&memory.used.get()));
        drop(found);
        assert!(zip_members_within(&zip[..60], 9, &mut UnpackBudget::new(60, &memory)).is_err());
        assert_eq!(memory.used.get(), 0);
        let entries = [b"PK\x03\x04".as_slice(), &b"PK\x01\x02".repeat(1000)].concat();
        assert!(directory_bytes(&entries) > 600_000);
        let member = pack(b"").unwrap();
        assert!(unpack(&member.repeat(GZIP_MEMBERS)).is_ok());
        assert!(matches!(unpack(&member.repeat(GZIP_MEMBERS + 1)), Err(UnpackError::Broken(_))));
    }

    #[test]
    fn the_beginning_of_a_broken_gzip_file_can_be_shown() {
        let packed = pack(&[b'x'; 5000]).unwrap();
        assert_eq!(beginning_of_gzip(&packed[..packed.len() - 8], 100), [b'x'; 100]);
        assert_eq!(beginning_of_gzip(&packed[..packed.len() - 8], 9000), [b'x'; 5000]);
        assert!(beginning_of_gzip(b"text", 100).is_empty());
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
