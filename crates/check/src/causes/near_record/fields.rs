//! The fields of a record that deviates from the grammar: split where its owner meant to, with their names corrected.

use super::targets::repaired_targets;
use super::version::Version;
use super::{RecordKind, slip};
use crate::causes::Cause;
use crate::causes::characters::{Place, Slip, shown};
use crate::causes::characters::{text, trim};
use crate::causes::distance::edits;
use formats::limits::POLICY_ID_BYTES;
use formats::{DomainName, StsRecord, tlsrpt_record::TlsrptRecord};

/// The fields that were found.
pub(super) struct Fields {
    /// The text of the `id`, or the report targets as written, with their places.
    values: Vec<Vec<Place>>,
    /// Unknown fields that the grammar allows, as `name=value`.
    extensions: Vec<String>,
}

/// Keys of the policy file.
const POLICY_KEYS: &[&str] = &["mode", "mx", "max_age", "max-age", "version"];

/// Fields of DMARC records.
const DMARC_KEYS: &[&str] = &["p", "sp", "np", "pct", "fo", "adkim", "aspf", "rf", "ri", "psd", "t"];

/// Names that people write for `rua`.
const NEAR_RUA: &[&str] = &["ruf", "uri", "url", "mail", "mailto", "email", "report", "to"];

impl Fields {
    pub(super) fn read(kind: RecordKind, version: &Version, slips: &mut Vec<Slip>) -> Self {
        let mut found = Self { values: Vec::new(), extensions: Vec::new() };
        let mut pieces = split(kind, &version.before, slips);
        pieces.retain(|piece| !trim(piece).is_empty());
        let mut after = split(kind, &version.after, slips);
        if after.last().is_some_and(|piece| trim(piece).is_empty()) {
            after.pop();
        }
        pieces.extend(after);
        for piece in pieces {
            let piece = trim(&piece).to_vec();
            match piece.first() {
                Some((place, _)) => found.take(kind, version.is_foreign, &piece, *place, slips),
                None => {
                    let place = version.after.first().map_or(0, |(at, _)| *at);
                    slip(slips, Cause::EmptyField, place, "two semicolons follow each other");
                }
            }
        }
        found
    }

    fn take(
        &mut self,
        kind: RecordKind,
        is_foreign: bool,
        piece: &[Place],
        place: usize,
        slips: &mut Vec<Slip>,
    ) {
        if kind == RecordKind::Tlsrpt && self.goes_on(piece, place, slips) {
            return;
        }
        let sign = piece.iter().position(|(_, c)| *c == '=' || *c == ':');
        let Some(sign) = sign.filter(|at| *at > 0) else { return self.bare(kind, piece, place, slips) };
        let (name, value) =
            (piece.get(..sign).unwrap_or_default(), piece.get(sign + 1..).unwrap_or_default());
        let is_equals = piece.get(sign).is_some_and(|(_, c)| *c == '=');
        let spaced = name.len() != trim(name).len() || value.len() != trim(value).len();
        let (name, value) = (text(trim(name)), trim(value).to_vec());
        let lower = name.to_ascii_lowercase();
        match is_key(kind, &lower) {
            Some(is_near) => {
                if is_near {
                    let what = format!("the field is named {}, not {}", shown(&name, 40), kind.key());
                    slip(slips, Cause::NearKey, place, what);
                } else if name != lower {
                    slip(
                        slips,
                        Cause::KeyCase,
                        place,
                        format!("the field is named {name}, not {}", kind.key()),
                    );
                }
                if !is_equals {
                    slip(
                        slips,
                        Cause::WrongSeparator,
                        place,
                        format!("`:` is in the place of the `=` of {}", kind.key()),
                    );
                }
                if spaced {
                    slip(
                        slips,
                        Cause::SpaceInField,
                        place,
                        format!("there is white space around the `=` of {}", kind.key()),
                    );
                }
                self.values.push(value);
            }
            None if POLICY_KEYS.contains(&lower.as_str()) => {
                let what = format!(
                    "{} is a line of the policy file, which belongs to https://mta-sts.…/.well-known/mta-sts.txt",
                    shown(&name, 40)
                );
                let cause = if kind == RecordKind::Sts { Cause::PolicyLines } else { Cause::BadField };
                slip(slips, cause, place, what);
            }
            None if is_foreign => {}
            None if lower == "v" => slip(slips, Cause::BadField, place, "the version occurs twice"),
            None if DMARC_KEYS.contains(&lower.as_str()) && kind == RecordKind::Tlsrpt => {
                slip(slips, Cause::BadField, place, format!("the field {name} belongs to DMARC"));
            }
            None => self.extension(kind, &name, &text(&value), is_equals && !spaced, place, slips),
        }
    }

    /// Keeps an unknown field if the grammar allows it.
    fn extension(
        &mut self,
        kind: RecordKind,
        name: &str,
        value: &str,
        fits: bool,
        place: usize,
        slips: &mut Vec<Slip>,
    ) {
        let field = format!("{name}={value}");
        let probe = match kind {
            RecordKind::Sts => format!("v=STSv1; id=1; {field}"),
            RecordKind::Tlsrpt => format!("v=TLSRPTv1; rua=mailto:a@b.example; {field}"),
        };
        let is_allowed = match kind {
            RecordKind::Sts => {
                StsRecord::parse(probe.as_bytes()).is_ok_and(|read| read.extensions.len() == 1)
            }
            RecordKind::Tlsrpt => {
                TlsrptRecord::parse(probe.as_bytes()).is_ok_and(|read| read.extensions.len() == 1)
            }
        };
        if !fits || !is_allowed {
            slip(
                slips,
                Cause::BadField,
                place,
                format!("the field `{}` does not have the form name=value", shown(&field, 60)),
            );
        }
        if is_allowed {
            self.extensions.push(field);
        }
    }

    /// Takes a piece without `=`: an `id` or a target without its name.
    fn bare(&mut self, kind: RecordKind, piece: &[Place], place: usize, slips: &mut Vec<Slip>) {
        let written = text(piece);
        let is_id = kind == RecordKind::Sts
            && self.values.is_empty()
            && written.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && written.bytes().any(|byte| byte.is_ascii_digit());
        let what = format!("`{}` has no `=`; a field has the form name=value", shown(&written, 60));
        slip(slips, Cause::BadField, place, what);
        if is_id {
            self.values.push(piece.to_vec());
        }
    }

    /// True if the piece is a further report target, or the rest of one that has an unencoded `;`.
    fn goes_on(&mut self, piece: &[Place], place: usize, slips: &mut Vec<Slip>) -> bool {
        if begins_field(RecordKind::Tlsrpt, piece) {
            return false;
        }
        let written = text(piece);
        let lower = written.to_ascii_lowercase();
        let is_target =
            lower.starts_with("mailto:") || lower.starts_with("https:") || lower.starts_with("http:");
        let is_address = written.contains('@') && !written.contains('=');
        if !is_target && !is_address {
            return false;
        }
        let before = self.values.last().map(|value| text(value));
        match before {
            Some(before) if !is_target && !before.rsplit(',').next().unwrap_or_default().contains('@') => {
                slip(slips, Cause::Unencoded, place, "`;` in a report target is not encoded as %3B");
                if let Some(last) = self.values.last_mut() {
                    last.extend("%3B".chars().map(|c| (place, c)));
                    last.extend_from_slice(piece);
                }
            }
            Some(_) => {
                slip(
                    slips,
                    Cause::WrongSeparator,
                    place,
                    "`;` is in the place of the `,` between two report targets",
                );
                self.values.push(piece.to_vec());
            }
            None => {
                slip(slips, Cause::BadField, place, "the report target has no `rua=`");
                self.values.push(piece.to_vec());
            }
        }
        true
    }

    pub(super) fn sts(self, fallback: &str, slips: &mut Vec<Slip>) -> String {
        let written = self.values.into_iter().next();
        let kept: String = written
            .iter()
            .flatten()
            .map(|(_, c)| *c)
            .filter(char::is_ascii_alphanumeric)
            .take(POLICY_ID_BYTES)
            .collect();
        let end = slips_end(slips);
        match &written {
            None => slip(slips, Cause::NoId, end, "there is no id=, the value that changes with the policy"),
            Some(value) if kept.is_empty() => {
                slip(slips, Cause::NoId, value.first().map_or(0, |(at, _)| *at), "the id is empty");
            }
            Some(value) if text(value) != kept => {
                let what = format!(
                    "the id is {}; it has to be 1 to {POLICY_ID_BYTES} letters and digits",
                    shown(&text(value), 60)
                );
                slip(slips, Cause::IdForm, value.first().map_or(0, |(at, _)| *at), what);
            }
            Some(_) => {}
        }
        let id = if kept.is_empty() { fallback } else { &kept };
        let more: String = self.extensions.iter().map(|field| format!(" {field};")).collect();
        format!("v=STSv1; id={id};{more}")
    }

    pub(super) fn tlsrpt(self, domain: &DomainName, slips: &mut Vec<Slip>) -> String {
        let mut targets = repaired_targets(&self.values, domain, slips);
        if targets.is_empty() {
            if self.values.is_empty() {
                let end = slips_end(slips);
                slip(slips, Cause::BadField, end, "there is no rua=, the field with the report targets");
            }
            targets.push(format!("mailto:tlsrpt@{domain}"));
        }
        let more: String = self.extensions.iter().map(|field| format!("; {field}")).collect();
        format!("v=TLSRPTv1; rua={}{more}", targets.join(","))
    }
}

/// The place for what is missing: that of the last slip.
fn slips_end(slips: &[Slip]) -> usize {
    slips.iter().map(|slip| slip.column.saturating_sub(1)).max().unwrap_or(0)
}

/// Whether a name in lower case is that of the record's field: `Some(true)` for a name that only resembles it.
fn is_key(kind: RecordKind, lower: &str) -> Option<bool> {
    let key = kind.key();
    if lower == key {
        return Some(false);
    }
    let is_near = match kind {
        RecordKind::Sts => {
            ["ids", "idd", "policyid", "policy_id", "policy-id", "sts-id", "ld"].contains(&lower)
        }
        RecordKind::Tlsrpt => NEAR_RUA.contains(&lower) || edits(lower, key, 1).is_some(),
    };
    is_near.then_some(true)
}

/// Splits the text into fields: at each semicolon, and at other characters where a field begins behind them.
fn split(kind: RecordKind, signs: &[Place], slips: &mut Vec<Slip>) -> Vec<Vec<Place>> {
    let mut pieces = vec![Vec::new()];
    let mut index = 0;
    while let Some((place, c)) = signs.get(index) {
        let rest = signs.get(index + 1..).unwrap_or_default();
        let is_piece_empty = pieces.last().is_some_and(|piece: &Vec<Place>| trim(piece).is_empty());
        let ends = match c {
            ';' => true,
            '|' => {
                slip(slips, Cause::WrongSeparator, *place, "`|` is in the place of a `;`");
                true
            }
            ',' | '&' if begins_field(kind, rest) && !(*c == '&' && kind == RecordKind::Tlsrpt) => {
                slip(slips, Cause::WrongSeparator, *place, format!("{c:?} is in the place of a `;`"));
                true
            }
            ' ' | '\t' if !is_piece_empty && begins_field(kind, rest) && !is_after_separator(&pieces) => {
                slip(slips, Cause::MissingSemicolon, *place, "there is no `;` between two fields");
                true
            }
            _ => false,
        };
        match pieces.last_mut() {
            Some(piece) if !ends => piece.push((*place, *c)),
            _ => pieces.push(Vec::new()),
        }
        index += 1;
    }
    pieces
}

/// True if the piece so far ends in a sign after which white space means nothing.
fn is_after_separator(pieces: &[Vec<Place>]) -> bool {
    let last = pieces.last().and_then(|piece| piece.iter().rev().find(|(_, c)| !c.is_whitespace()));
    last.is_some_and(|(_, c)| matches!(c, '=' | ':' | ','))
}

/// True if a known field begins here; for MTA-STS also an unknown one.
fn begins_field(kind: RecordKind, signs: &[Place]) -> bool {
    let skipped = signs.iter().position(|(_, c)| !c.is_whitespace()).unwrap_or(signs.len());
    let rest = signs.get(skipped..).unwrap_or_default();
    let name: String =
        rest.iter().map(|(_, c)| *c).take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect();
    let sign = rest.iter().skip(name.len()).map(|(_, c)| *c).find(|c| !c.is_whitespace());
    let lower = name.to_ascii_lowercase();
    let is_policy = POLICY_KEYS.contains(&lower.as_str());
    match sign {
        _ if name.is_empty() => false,
        Some('=') => match kind {
            RecordKind::Sts => true,
            RecordKind::Tlsrpt => {
                is_policy
                    || is_key(kind, &lower).is_some()
                    || lower == "v"
                    || DMARC_KEYS.contains(&lower.as_str())
            }
        },
        Some(':') => is_policy || lower == kind.key(),
        _ => false,
    }
}
