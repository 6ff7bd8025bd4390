//! Compression and decompression of report files. The format (gzip, zip or plain) is detected by content (REC-04). Size
//! and compression ratio are bounded (REC-09).

use crate::limits::{REPORT_BYTES, REPORT_PACKED_BYTES, REPORT_RATIO, ZIP_MEMBERS};
use std::io::{Read, Write};

/// The format of a received report file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpacked {
    /// Uncompressed JSON.
    Plain,
    /// Compressed by gzip, as RFC 8460 §5 recommends.
    Gzip,
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
}

/// Decompresses a report file. Returns the JSON text and the format of the file.
pub fn unpack(bytes: &[u8]) -> Result<(Vec<u8>, Unpacked), UnpackError> {
    if bytes.is_empty() {
        return Err(UnpackError::Empty);
    }
    if bytes.len() > REPORT_PACKED_BYTES {
        return Err(UnpackError::TooLong(bytes.len()));
    }
    let most = REPORT_BYTES.min(bytes.len().saturating_mul(REPORT_RATIO));
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let text = bounded(flate2::read::MultiGzDecoder::new(bytes), most)?;
        return Ok((text, Unpacked::Gzip));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Ok((from_zip(bytes, most)?, Unpacked::Zip));
    }
    Ok((bytes.to_vec(), Unpacked::Plain))
}

/// Compresses a report by gzip.
pub fn pack(json: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(json)?;
    encoder.finish()
}

fn bounded(reader: impl Read, most: usize) -> Result<Vec<u8>, UnpackError> {
    let mut text = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(limit).read_to_end(&mut text).map_err(|error| UnpackError::Broken(error.to_string()))?;
    if text.len() > most { Err(UnpackError::Bomb(most)) } else { Ok(text) }
}

/// Returns the names and contents of up to [`ZIP_MEMBERS`] files in a zip file. A member may itself be compressed,
/// and is returned unchanged. The total size is bounded like that of one report.
pub fn zip_members(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, UnpackError> {
    let broken = |error: zip::result::ZipError| UnpackError::Broken(error.to_string());
    let mut left = REPORT_BYTES.min(bytes.len().saturating_mul(REPORT_RATIO));
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(broken)?;
    let mut members = Vec::new();
    for at in 0..archive.len().min(ZIP_MEMBERS) {
        let member = archive.by_index(at).map_err(broken)?;
        if member.is_dir() {
            continue;
        }
        let name = member.name().map_err(broken)?.to_string();
        let bytes = bounded(member, left)?;
        left -= bytes.len();
        members.push((name, bytes));
    }
    Ok(members)
}

fn from_zip(bytes: &[u8], most: usize) -> Result<Vec<u8>, UnpackError> {
    let broken = |error: zip::result::ZipError| UnpackError::Broken(error.to_string());
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(broken)?;
    let wanted =
        archive.file_names().position(|name| name.is_ok_and(|name| name.ends_with(".json"))).unwrap_or(0);
    let member = archive.by_index(wanted).map_err(broken)?;
    bounded(member, most)
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
        let bomb = pack(&vec![b' '; 8 << 20]).unwrap();
        assert!(bomb.len() * REPORT_RATIO < 8 << 20 || unpack(&bomb).is_ok());
        let nested = pack(&vec![0; REPORT_BYTES + 1]).unwrap();
        assert!(matches!(unpack(&nested), Err(UnpackError::Bomb(_))));
        assert!(matches!(unpack(&vec![b'{'; REPORT_PACKED_BYTES + 1]), Err(UnpackError::TooLong(_))));
        assert_eq!(unpack(b""), Err(UnpackError::Empty));
        let cut = pack(b"{}").unwrap();
        assert!(matches!(unpack(&cut[..cut.len() - 6]), Err(UnpackError::Broken(_))));
        assert!(matches!(unpack(b"PK\x03\x04rest"), Err(UnpackError::Broken(_))));
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
