//! Report targets that are not valid URIs, corrected without loss of the owner's address or URL.

use super::slip;
use crate::causes::Cause;
use crate::causes::characters::text;
use crate::causes::characters::{Place, Slip, shown};
use crate::causes::distance::edits;
use formats::DomainName;
use formats::limits::RUA_TARGETS;
use formats::tlsrpt_record::Rua;

/// The valid targets that the values were meant to be, each once, at most [`RUA_TARGETS`].
pub(super) fn repaired_targets(
    values: &[Vec<Place>],
    domain: &DomainName,
    slips: &mut Vec<Slip>,
) -> Vec<String> {
    let mut targets: Vec<String> = Vec::new();
    for value in values {
        let end = value.last().map_or(0, |(at, _)| *at);
        let pieces: Vec<&[Place]> = value.split(|(_, c)| *c == ',').collect();
        for piece in pieces {
            let place = piece.iter().find(|(_, c)| !c.is_whitespace()).map_or(end, |(at, _)| *at);
            let words = words(&text(piece), place, slips);
            if words.is_empty() {
                slip(
                    slips,
                    Cause::EmptyTarget,
                    place,
                    "there is no report target between two commas, or after the last one",
                );
            }
            for word in words {
                let target = repaired(&word, domain, place, slips);
                targets.extend(target.filter(|target| !targets.contains(target)));
            }
        }
    }
    targets.truncate(RUA_TARGETS);
    targets
}

/// Splits at white space where a further target begins, and joins what belongs to one.
fn words(piece: &str, place: usize, slips: &mut Vec<Slip>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in piece.split_whitespace() {
        let begins =
            word.contains(':') || word.contains('@') && words.last().is_some_and(|last| last.contains('@'));
        match words.last_mut() {
            Some(last) if !begins => last.push_str(word),
            _ => words.push(word.to_owned()),
        }
    }
    if piece.split_whitespace().count() > 1 {
        slip(
            slips,
            Cause::TargetSpace,
            place,
            "white space is in a report target or separates two; only commas separate targets",
        );
    }
    words
}

/// Corrects one target. `None` if nothing can be made of it.
fn repaired(word: &str, domain: &DomainName, place: usize, slips: &mut Vec<Slip>) -> Option<String> {
    if let Ok(Some(rua)) = Rua::parse(word) {
        return Some(rua.to_string());
    }
    let bare = word.trim_matches(|c: char| "<>()[]{}\"'".contains(c));
    if bare.len() != word.len() {
        slip(
            slips,
            Cause::BadTarget,
            place,
            format!("{} has brackets or quotes around the report target", shown(word, 80)),
        );
    }
    let candidate = with_scheme(bare, place, slips)?;
    let fixed = match candidate.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("mailto") => address(rest, domain, place, slips)?,
        _ => candidate,
    };
    let rua = Rua::parse(&fixed).ok().flatten();
    if rua.is_none() {
        slip(
            slips,
            Cause::BadTarget,
            place,
            format!("{} is not a report target that senders can use", shown(word, 80)),
        );
    }
    Some(rua?.to_string())
}

/// Adds or corrects the scheme.
fn with_scheme(target: &str, place: usize, slips: &mut Vec<Slip>) -> Option<String> {
    let unusable = |slips: &mut Vec<Slip>| {
        slip(slips, Cause::BadTarget, place, format!("{} is not a mail address or URL", shown(target, 80)));
    };
    let (scheme, rest) = match target.split_once([':', '=']) {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => (scheme, rest),
        _ if target.contains('@') => {
            slip(slips, Cause::NoScheme, place, format!("{} has no mailto: before it", shown(target, 80)));
            return Some(format!("mailto:{target}"));
        }
        _ if target.contains('.') && !target.contains(':') => {
            slip(slips, Cause::NoScheme, place, format!("{} has no https:// before it", shown(target, 80)));
            return Some(format!("https://{target}"));
        }
        _ => {
            unusable(slips);
            return None;
        }
    };
    let lower = scheme.to_ascii_lowercase();
    let is_address = rest.contains('@') && !rest.starts_with("//www");
    match lower.as_str() {
        "mailto" if target.contains("mailto=") || target.contains("MAILTO=") => {
            slip(slips, Cause::NearScheme, place, "the target has `mailto=`, not `mailto:`");
            Some(format!("mailto:{rest}"))
        }
        "mailto" if rest.starts_with('/') => {
            slip(slips, Cause::NearScheme, place, "the target has slashes after `mailto:`");
            Some(format!("mailto:{}", rest.trim_start_matches('/')))
        }
        "mailto" => Some(format!("mailto:{rest}")),
        "https" => Some(format!("https://{}", rest.trim_start_matches('/'))),
        "http" | "htps" | "htpps" | "httsp" | "https1" => {
            slip(
                slips,
                Cause::NearScheme,
                place,
                format!("the target has the scheme {scheme}:, and senders support only mailto: and https:"),
            );
            Some(format!("https://{}", rest.trim_start_matches('/')))
        }
        near if is_address
            && (edits(near, "mailto", 2).is_some() || ["mail", "email", "smtp"].contains(&near)) =>
        {
            slip(slips, Cause::NearScheme, place, format!("the target has {scheme}:, not mailto:"));
            Some(format!("mailto:{}", rest.trim_start_matches('/')))
        }
        _ => {
            slip(
                slips,
                Cause::NearScheme,
                place,
                format!(
                    "the target has the scheme {}:, and senders support only mailto: and https:",
                    shown(scheme, 20)
                ),
            );
            None
        }
    }
}

/// Corrects the address of a `mailto:` target.
fn address(rest: &str, domain: &DomainName, place: usize, slips: &mut Vec<Slip>) -> Option<String> {
    let (address, query) = match rest.split_once('?') {
        Some((address, query)) => (address, format!("?{query}")),
        None => (rest, String::new()),
    };
    let (mut local, mut host) = match address.rsplit_once('@') {
        Some((local, host)) => (local.to_owned(), host.to_owned()),
        None if address.is_empty() => {
            slip(slips, Cause::BadTarget, place, "mailto: has no address behind it");
            return None;
        }
        None => {
            slip(
                slips,
                Cause::BadTarget,
                place,
                format!("mailto:{} has no `@` and no domain", shown(address, 60)),
            );
            (address.to_owned(), domain.to_string())
        }
    };
    if let Some((name, size)) = host.clone().split_once('!') {
        slip(
            slips,
            Cause::SizeLimit,
            place,
            format!("`!{}` is a size limit, which TLS reports do not have", shown(size, 20)),
        );
        host = name.to_owned();
    }
    if local.contains(['!', ';', ',']) {
        slip(slips, Cause::Unencoded, place, "`!`, `,` or `;` in the address is not percent-encoded");
        local = local.replace('!', "%21").replace(';', "%3B").replace(',', "%2C");
    }
    if !has_valid_escapes(&local) {
        slip(
            slips,
            Cause::BadTarget,
            place,
            "a `%` in the address is not followed by two hexadecimal digits",
        );
        local = local.replace('%', "%25");
    }
    let Ok(name) = DomainName::parse(host.trim_matches('.')) else {
        slip(slips, Cause::BadTarget, place, format!("{} is not a domain name", shown(&host, 60)));
        return None;
    };
    if name.as_str() != host.to_ascii_lowercase() {
        slip(
            slips,
            Cause::BadTarget,
            place,
            format!("{} is not written as a domain name; it is {name} in DNS", shown(&host, 60)),
        );
    }
    Some(format!("mailto:{local}@{name}{query}"))
}

fn has_valid_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2)
}
