//! Reads tar archives (POSIX.1-2001 ustar, with the long names of GNU tar and of pax). Operators keep reports in them, and
//! some programs export reports so. The archive is in memory, so its members are slices of it and cost nothing.

/// The size of a header, and of what members are padded to.
const BLOCK: usize = 512;

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarMember<'t> {
    /// The name, chosen by the archive's author; it may contain any characters.
    pub name: String,
    /// The content; shorter than it was if the archive is cut.
    pub bytes: &'t [u8],
    /// True if the archive ends within this member.
    pub is_cut: bool,
}

/// True for data that begins with the header of a tar archive.
pub fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar") && bytes.len() >= BLOCK && checksum_matches(bytes)
}

/// The ordinary files of an archive in their order, up to the first block that is no header.
pub fn tar_members(archive: &[u8]) -> impl Iterator<Item = TarMember<'_>> {
    let mut rest = archive;
    let mut long_name = None;
    std::iter::from_fn(move || {
        loop {
            if !is_tar(rest) {
                return None;
            }
            let (header, after) = rest.split_at_checked(BLOCK)?;
            let size = octal(header.get(124..136)?)?;
            let bytes = after.get(..size).unwrap_or(after);
            rest = after.get(size.div_ceil(BLOCK).saturating_mul(BLOCK)..).unwrap_or_default();
            match header.get(156)? {
                b'L' => long_name = Some(text(bytes)),
                b'x' => long_name = pax_path(bytes).or(long_name.take()),
                b'0' | b'7' | 0 => {
                    let name = long_name.take().unwrap_or_else(|| name_of(header));
                    return Some(TarMember { name, bytes, is_cut: bytes.len() < size });
                }
                _ => long_name = None,
            }
        }
    })
}

/// The name in a header: a prefix and a name, which end in zeros unless they fill their field.
fn name_of(header: &[u8]) -> String {
    let field = |from: usize, to: usize| text(header.get(from..to).unwrap_or_default());
    let (prefix, name) = (field(345, 500), field(0, 100));
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// The path in the records of a pax header, each `LENGTH KEY=VALUE\n`.
fn pax_path(mut records: &[u8]) -> Option<String> {
    loop {
        let blank = records.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(records.get(..blank)?).ok()?.parse().ok()?;
        let record = records.get(blank + 1..length)?;
        if let Some(path) = record.strip_prefix(b"path=") {
            return Some(text(path.strip_suffix(b"\n").unwrap_or(path)));
        }
        records = records.get(length..)?;
    }
}

/// A number in octal digits, between blanks and zeros.
fn octal(field: &[u8]) -> Option<usize> {
    let digits = text(field);
    usize::from_str_radix(digits.trim(), 8).ok()
}

/// The checksum is the sum of the header's bytes, with blanks in its own place.
fn checksum_matches(bytes: &[u8]) -> bool {
    let (Some(header), Some(stated)) = (bytes.get(..BLOCK), bytes.get(148..156)) else { return false };
    let value = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { usize::from(*byte) };
    octal(stated) == Some(header.iter().enumerate().map(value).sum())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One entry of an archive.
    fn entry(name: &str, kind: u8, bytes: &[u8]) -> Vec<u8> {
        let mut header = vec![0; BLOCK];
        header[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        header[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].copy_from_slice(b"        ");
        let sum: usize = header.iter().map(|byte| usize::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let padding = vec![0; bytes.len().div_ceil(BLOCK) * BLOCK - bytes.len()];
        [&header, bytes, &padding].concat()
    }

    fn names(archive: &[u8]) -> Vec<(String, usize, bool)> {
        tar_members(archive).map(|member| (member.name, member.bytes.len(), member.is_cut)).collect()
    }

    #[test]
    fn the_files_of_an_archive_are_read_with_long_names() {
        let long = format!("{}.json.gz", "n".repeat(150));
        let path = format!("path={long}\n");
        let record = format!("{} {path}", path.len() + 4);
        let archive = [
            entry("in/", b'5', b""),
            entry("in/a.json", b'0', &[1; 700]),
            entry("././@LongLink", b'L', format!("{long}\0").as_bytes()),
            entry("cut name", b'0', b"b"),
            entry("pax", b'x', record.as_bytes()),
            entry("cut name", b'0', b"c"),
            entry("last", 0, b"dd"),
            vec![0; 2 * BLOCK],
            entry("behind the end", b'0', b"e"),
        ]
        .concat();
        let file = |name: &str, length| (name.to_owned(), length, false);
        assert!(is_tar(&archive));
        assert_eq!(
            names(&archive),
            [file("in/a.json", 700), file(&long, 1), file(&long, 1), file("last", 2)]
        );
        let cut = [entry("in/", b'5', b""), entry("a", b'0', &[1; 700])].concat();
        assert_eq!(names(&cut[..2 * BLOCK + 100]), [("a".to_owned(), 100, true)]);
    }

    #[test]
    fn other_data_is_no_archive() {
        let mut wrong = entry("a", b'0', b"");
        wrong[0] ^= 1;
        assert!(!is_tar(&wrong) && !is_tar(b"ustar") && !is_tar(&[0; BLOCK]));
        let mut huge = entry("a", b'0', b"x");
        huge[124..136].copy_from_slice(b"777777777777");
        assert!(!is_tar(&huge) && names(&huge).is_empty());
    }

    proptest! {
        #[test]
        fn any_archive_is_read(kind in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..900), cut in 0..2000usize) {
            let archive = [entry("a", kind, &bytes), entry("b", b'0', &bytes), bytes].concat();
            let found: usize = names(&archive[..cut.min(archive.len())]).iter().map(|(_, length, _)| length).sum();
            prop_assert!(found <= cut);
        }
    }
}
