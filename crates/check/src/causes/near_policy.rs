//! Policy files that no sender accepts, although a person sees what they were meant to be. [`repair`] says what deviates
//! from the grammar (RFC 8461 §3.2), with line and column, and writes the file anew with the values of its owner. It is for
//! people only; senders use [`formats::Policy::parse`], and must not guess.

use super::Cause;
pub use super::characters::Slip;
use super::characters::{Place, clean, decode, shown, told};
use formats::limits::POLICY_BYTES;
use formats::{DomainName, Mode, MxPattern, Policy};
use lines::{Line, lines};

mod lines;
mod values;

/// What a policy file was meant to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearPolicy {
    /// What deviates from the grammar, in the order of the file.
    pub slips: Vec<Slip>,
    /// The file that the owner meant. What it did not say is taken from the MX records, or is a careful default. It may
    /// enforce and lack an MX host, so publish [`Self::proposed`] instead.
    pub corrected: Policy,
    /// The lines from which nothing was taken, or not all: their number and their text, cut for display.
    pub dropped: Vec<(usize, String)>,
}

impl NearPolicy {
    /// The cause: the first deviation, at which senders stop.
    pub fn cause(&self) -> Option<Cause> {
        self.slips.first().map(|slip| slip.cause)
    }

    /// The file to publish in place of this one. `hosts` are the MX hosts of the domain. No sender accepted the file so
    /// far, so it is in mode testing, with a `max_age` of one day at most, and covers all hosts. A policy of mode none
    /// stays as it is.
    pub fn proposed(&self, hosts: &[DomainName]) -> Policy {
        let mut policy = covering(&self.corrected, hosts);
        if policy.mode != Mode::None {
            policy.mode = Mode::Testing;
            policy.max_age = match policy.max_age {
                age @ 1..=DEFAULT_MAX_AGE => age,
                _ => DEFAULT_MAX_AGE,
            };
        }
        policy
    }

    /// The lines of [`Self::dropped`] in words; `None` without such lines. At most four are named.
    pub fn told_dropped(&self) -> Option<String> {
        let one = |(line, text): &(usize, String)| format!("line {line} (`{text}`)");
        let mut all: Vec<String> = self.dropped.iter().take(MOST_TOLD).map(one).collect();
        if let Some(more) = self.dropped.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
            all.push(format!("and {more} more"));
        }
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// All deviations in words.
    pub fn told(&self) -> String {
        told(&self.slips)
    }
}

/// `max_age` where the file has none, in seconds: one day, so that senders soon notice a correction.
const DEFAULT_MAX_AGE: u32 = 86_400;

/// The most dropped lines that are named.
const MOST_TOLD: usize = 4;

/// The policy with a line for each MX host that it does not cover. One of mode none needs no lines.
pub(crate) fn covering(policy: &Policy, hosts: &[DomainName]) -> Policy {
    let mut policy = policy.clone();
    if policy.mode != Mode::None {
        let missing = hosts.iter().filter(|host| !policy.covers(host));
        let missing: Vec<MxPattern> = missing.filter_map(|host| MxPattern::exact(host).ok()).collect();
        policy.mx.extend(missing);
    }
    policy
}

/// Compares a file with the grammar. `hosts` are the domain's MX hosts, for a file without a usable `mx` line. Returns
/// `None` for a file that has nothing of a policy in it.
pub fn repair(file: &[u8], hosts: &[DomainName]) -> Option<NearPolicy> {
    let mut slips = Vec::new();
    let text = characters(file.get(..POLICY_BYTES).unwrap_or(file), &mut slips);
    let found = lines(&text, &mut slips);
    let mut read = Read::default();
    for line in found {
        if !read.take(&line, hosts, &mut slips) {
            read.dropped.push((line.place.0, shown(&line.raw, 60)));
        }
    }
    if !read.has_key {
        return None;
    }
    let dropped = std::mem::take(&mut read.dropped);
    let corrected = read.policy(hosts)?;
    slips.sort_by_key(|slip| (slip.line, slip.column, slip.cause));
    Some(NearPolicy { slips, corrected, dropped })
}

/// Adds a slip unless one of this cause is there already.
fn slip(slips: &mut Vec<Slip>, cause: Cause, (line, column): (usize, usize), what: impl Into<String>) {
    if !slips.iter().any(|slip| slip.cause == cause) {
        slips.push(Slip { cause, line, column, what: what.into() });
    }
}

/// A character with its line and column, both counted from 1.
type Spot = ((usize, usize), char);

/// Decodes the file, and replaces characters that were pasted.
fn characters(file: &[u8], slips: &mut Vec<Slip>) -> Vec<Spot> {
    if let Some(text) = utf_16(file) {
        slip(
            slips,
            Cause::Utf16,
            (1, 1),
            "the file is saved as UTF-16; save it as UTF-8 without a byte-order mark",
        );
        return spots(text.char_indices().collect());
    }
    let file = match file.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => {
            slip(
                slips,
                Cause::ByteOrderMark,
                (1, 1),
                "the file begins with a UTF-8 byte-order mark; save it without one",
            );
            rest
        }
        None => file,
    };
    let decoded = decode(file);
    let odd = std::str::from_utf8(file).err().map(|error| error.valid_up_to());
    let breaks: Vec<usize> = decoded.iter().filter(|(_, c)| *c == '\n').map(|(at, _)| *at).collect();
    let place = |at: usize| {
        let line = breaks.partition_point(|end| *end < at);
        let begin = line.checked_sub(1).and_then(|last| breaks.get(last)).map_or(0, |end| end + 1);
        (line + 1, at - begin + 1)
    };
    if let Some(at) = odd {
        let byte = file.get(at).copied().unwrap_or_default();
        slip(slips, Cause::NotUtf8, place(at), format!("the byte 0x{byte:02x} is not UTF-8"));
    }
    let cleaned: Vec<Place> = clean(decoded, slips, place);
    cleaned.into_iter().map(|(at, c)| (place(at), c)).collect()
}

fn spots(text: Vec<Place>) -> Vec<Spot> {
    let (mut line, mut column) = (1, 0);
    let place = |(_, c): Place| {
        column += 1;
        let spot = ((line, column), c);
        if c == '\n' {
            (line, column) = (line + 1, 0);
        }
        spot
    };
    text.into_iter().map(place).collect()
}

/// The text of a file in UTF-16, with a byte-order mark or with a NUL in every other byte. `None` for other files.
fn utf_16(file: &[u8]) -> Option<String> {
    let zeros = |odd: usize| file.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    let most = file.len() / 2;
    let is_big = match file {
        [0xff, 0xfe, ..] => false,
        [0xfe, 0xff, ..] => true,
        _ if file.len() >= 16 && zeros(1) * 10 >= most * 9 => false,
        _ if file.len() >= 16 && zeros(0) * 10 >= most * 9 => true,
        _ => return None,
    };
    let units = file.chunks_exact(2).filter_map(|pair| <[u8; 2]>::try_from(pair).ok());
    let units = units.map(|pair| if is_big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) });
    let text: String = char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect();
    Some(text.trim_start_matches('\u{feff}').to_owned())
}

/// What was read so far.
#[derive(Default)]
struct Read {
    /// True if the file has a key of a policy, or what was meant as one.
    has_key: bool,
    mode: Option<Mode>,
    max_age: Option<u32>,
    mx: Vec<MxPattern>,
    /// As [`NearPolicy::dropped`].
    dropped: Vec<(usize, String)>,
}

/// Keys, with names that people write for them.
const KEYS: &[(&str, &[&str])] = &[
    ("version", &["v", "ver", "sts", "sts_version", "policy_version"]),
    ("mode", &["modus", "policy", "policy_mode", "policymode", "mods", "modes"]),
    (
        "mx",
        &[
            "nmx",
            "mxs",
            "mx1",
            "mx2",
            "mx3",
            "mxx",
            "mx-host",
            "mx_host",
            "mxhost",
            "mx_record",
            "mailserver",
            "mail",
            "host",
        ],
    ),
    ("max_age", &["max-age", "maxage", "max age", "max.age", "age", "ttl", "max_ttl"]),
];

/// The key that a name was meant to be, and whether it is written so.
fn key_of(name: &str) -> Option<(&'static str, bool)> {
    let lower = name.to_ascii_lowercase();
    let exact = KEYS.iter().find(|(key, _)| *key == lower).map(|(key, _)| (*key, true));
    let alias = || KEYS.iter().find(|(_, near)| near.contains(&lower.as_str())).map(|(key, _)| (*key, false));
    let near = || {
        // Of a short key, two letters are half: `note` was not meant as `mode`.
        let most = |key: &str| if key.len() > 4 { 2 } else { 1 };
        let is_near = |key: &str| key.len() > 3 && super::distance::edits(&lower, key, most(key)).is_some();
        KEYS.iter().find(|(key, _)| is_near(key)).map(|(key, _)| (*key, false))
    };
    exact.or_else(alias).or_else(near)
}

impl Read {
    /// Takes what a line says. Returns false if that is nothing, or not all.
    fn take(&mut self, line: &Line, hosts: &[DomainName], slips: &mut Vec<Slip>) -> bool {
        let Some((key, is_exact)) = key_of(&line.key) else {
            // Unknown keys are allowed, if they are keys at all.
            let file = format!("version: STSv1\nmode: none\nmax_age: 1\n{}", line.raw);
            if Policy::parse(file.as_bytes()).is_err() {
                slip(
                    slips,
                    Cause::BadLine,
                    line.place,
                    format!("`{}` is not a line of the form `key: value`", shown(&line.raw, 60)),
                );
            }
            return false;
        };
        if key == "version" && line.key.eq_ignore_ascii_case("v") {
            slip(
                slips,
                Cause::RecordInPolicy,
                line.place,
                "this is the text of the _mta-sts record, not of a policy file",
            );
        } else if !is_exact {
            slip(
                slips,
                Cause::NearKey,
                line.place,
                format!("the key is {}, not {key}", shown(&line.key, 40)),
            );
        } else if line.key != key {
            slip(
                slips,
                Cause::KeyCase,
                line.place,
                format!("the key is {}, not {key}: keys are in lower case", line.key),
            );
        }
        self.has_key = true;
        let (value, is_placeholder) = values::bare(line, slips);
        match key {
            "version" => {
                values::version(&value, line, slips);
                true
            }
            "mode" => {
                let mode = values::mode(&value, line, slips);
                self.mode = self.mode.or(mode);
                mode.is_some()
            }
            "max_age" => {
                let max_age = values::max_age(&value, line, slips);
                self.max_age = self.max_age.or(max_age);
                max_age.is_some()
            }
            _ => {
                let found = values::mx(&value, line, slips);
                // The text of a placeholder is a host only if an MX record says so.
                let is_host = |pattern: &MxPattern| hosts.iter().any(|host| pattern.matches(host));
                let mut is_whole = !found.is_empty();
                for pattern in found {
                    match pattern.filter(|pattern| !is_placeholder || is_host(pattern)) {
                        Some(pattern) if !self.mx.contains(&pattern) => self.mx.push(pattern),
                        Some(_) => {}
                        None => is_whole = false,
                    }
                }
                is_whole
            }
        }
    }

    fn policy(self, hosts: &[DomainName]) -> Option<Policy> {
        let mode = self.mode.unwrap_or(Mode::Testing);
        let mx = match self.mx.is_empty() && mode != Mode::None {
            true => hosts.iter().filter_map(|host| MxPattern::exact(host).ok()).collect(),
            false => self.mx,
        };
        Policy::new(mode, self.max_age.unwrap_or(DEFAULT_MAX_AGE), mx)
    }
}

/// The place and the name of a key of a valid policy that is unknown, but was meant as another, with that one.
pub(crate) fn near_key(file: &[u8], line: usize) -> Option<(String, &'static str)> {
    let text = String::from_utf8_lossy(file);
    let name = text.lines().nth(line.checked_sub(1)?)?.split(':').next()?.trim().to_owned();
    let (key, _) = key_of(&name)?;
    Some((name, key))
}

#[cfg(test)]
mod tests;
