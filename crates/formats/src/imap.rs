//! IMAP responses (RFC 9051 §7, RFC 3501 §7), as far as a program needs them that fetches mail, and the names of
//! mailboxes.
//!
//! The bytes of a connection go to a [`FrameReader`], which cuts them into responses and bounds each. [`Response::parse`]
//! reads one. A response that is not needed, or that breaks the grammar, becomes [`Response::Other`]: servers have
//! extensions, and one odd response must not end the connection. What a response keeps is bounded, whatever the server
//! sends: UIDs are a [`UidSet`] of ranges. Names of mailboxes are sent in [`encode_mailbox`]'s form, which never
//! contains a line end.

mod frame;
mod mailbox_name;
mod uid_set;
mod values;

pub use frame::{FrameError, FrameReader};
pub use mailbox_name::{decode_mailbox, encode_mailbox, quote, quote_mailbox};
pub use uid_set::UidSet;

use crate::limits::{
    IMAP_CAPABILITIES, IMAP_CAPABILITY_BYTES, IMAP_CODE_BYTES, IMAP_NAME_BYTES, IMAP_NAMESPACES,
    IMAP_TEXT_BYTES,
};
use std::collections::BTreeSet;
use values::{Value, values};

/// One response of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// `+`: the server waits for more. The field is the text behind it; in SASL, the challenge in base64.
    Continuation(String),
    /// The end of the command with this tag.
    Done {
        /// The command's tag.
        tag: String,
        /// The result of the command.
        state: State,
    },
    /// An untagged status, such as the greeting or `* OK [UIDVALIDITY 3]`.
    State(State),
    /// The server's capabilities, in upper case; at most [`IMAP_CAPABILITIES`].
    Capabilities(BTreeSet<String>),
    /// The UIDs or numbers that a search found.
    Search(UidSet),
    /// The number of messages in the selected mailbox.
    Exists(u32),
    /// Data of one message.
    Fetch(Fetched),
    /// The prefixes of the namespaces (RFC 2342), the user's own first; at most [`IMAP_NAMESPACES`]. Encoded as in
    /// [`encode_mailbox`].
    Namespaces(Vec<String>),
    /// One mailbox of a LIST response.
    Mailbox {
        /// The name as the server sent it, usually encoded as in [`encode_mailbox`]; at most [`IMAP_NAME_BYTES`], and
        /// without control characters.
        name: String,
        /// False for `\Noselect` and `\NonExistent`.
        is_selectable: bool,
    },
    /// A response of any other kind.
    Other,
}

/// The result of a command (RFC 9051 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `OK`: the command succeeded.
    Ok,
    /// `NO`: the command failed.
    No,
    /// `BAD`: the command is unknown or malformed. Unknown statuses count as this one.
    Bad,
    /// `BYE`: the server closes the connection.
    Bye,
    /// `PREAUTH`: the connection is authenticated already.
    PreAuth,
}

/// A status with its response code and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The status word of the response.
    pub status: Status,
    /// The text within the brackets, such as `UIDVALIDITY 3`; empty without a response code. At most
    /// [`IMAP_CODE_BYTES`].
    pub code: String,
    /// The human-readable text; at most [`IMAP_TEXT_BYTES`].
    pub text: String,
}

/// Data of one message, from a FETCH response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// `UID`; `None` if the response has none.
    pub uid: Option<u32>,
    /// `RFC822.SIZE`, in bytes.
    pub size: Option<u64>,
    /// `BODY[]`, or its beginning if only that was asked for.
    pub body: Option<Vec<u8>>,
}

impl Response {
    /// Parses one response, as [`FrameReader`] returns it. Accepts any bytes.
    pub fn parse(frame: &[u8]) -> Self {
        let line = frame.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("+", text) => Self::Continuation(cut(text, IMAP_TEXT_BYTES).to_owned()),
            ("*", rest) => untagged(frame, rest),
            (tag, rest) => {
                Self::Done { tag: cut(tag, IMAP_TEXT_BYTES).to_owned(), state: State::parse(rest) }
            }
        }
    }
}

fn untagged(frame: &[u8], line: &str) -> Response {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let data = || values(frame.get(b"* ".len() + word.len()..).unwrap_or_default()).unwrap_or_default();
    match word.to_ascii_uppercase().as_str() {
        "OK" | "NO" | "BAD" | "BYE" | "PREAUTH" => Response::State(State::parse(line)),
        "CAPABILITY" => Response::Capabilities(upper_words(rest)),
        "SEARCH" => Response::Search(search(rest)),
        "ESEARCH" => Response::Search(extended_search(rest)),
        "NAMESPACE" => Response::Namespaces(prefixes(&data())),
        "LIST" => mailbox(&data()).unwrap_or(Response::Other),
        _ => match (word.parse(), rest.split(' ').next().map(str::to_ascii_uppercase).as_deref()) {
            (Ok(count), Some("EXISTS")) => Response::Exists(count),
            (Ok(_), Some("FETCH")) => match data().as_slice() {
                [_, Value::List(items), ..] => Response::Fetch(fetched(items)),
                _ => Response::Other,
            },
            _ => Response::Other,
        },
    }
}

fn upper_words(text: &str) -> BTreeSet<String> {
    let words = text.split_ascii_whitespace().filter(|word| word.len() <= IMAP_CAPABILITY_BYTES);
    words.take(IMAP_CAPABILITIES).map(str::to_ascii_uppercase).collect()
}

/// The first `most` bytes, or fewer, so that no character is cut in two.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// The numbers of a SEARCH response. RFC 7162 appends `(MODSEQ n)`.
fn search(text: &str) -> UidSet {
    let mut is_understood = true;
    let words = text.split_ascii_whitespace().take_while(|word| !word.starts_with('('));
    let numbers = words.map_while(|word| {
        let number = word.parse().ok();
        is_understood &= number.is_some();
        number.map(|uid| (uid, uid))
    });
    let mut found = UidSet::from_ranges(numbers);
    if !is_understood {
        found.set_incomplete();
    }
    found
}

/// The UIDs behind `ALL` in a response of RFC 4731, which a server of IMAP4rev2 alone sends: `4,7:9`.
fn extended_search(text: &str) -> UidSet {
    let mut words = text.split_ascii_whitespace().skip_while(|word| !word.eq_ignore_ascii_case("ALL"));
    let mut is_understood = true;
    let all = words.nth(1).unwrap_or_default().split(',').filter(|range| !range.is_empty());
    let ranges = all.filter_map(|range| {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        let bounds = first.parse().ok().zip(last.parse().ok());
        is_understood &= bounds.is_some();
        bounds
    });
    let mut found = UidSet::from_ranges(ranges);
    if !is_understood {
        found.set_incomplete();
    }
    found
}

fn fetched(items: &[Value<'_>]) -> Fetched {
    let mut found = Fetched::default();
    for pair in items.chunks_exact(2) {
        let [Value::Atom(name), value] = pair else { continue };
        let name = name.to_ascii_uppercase();
        match value {
            Value::Atom(number) if name == "UID" => found.uid = number.parse().ok(),
            Value::Atom(number) if name == "RFC822.SIZE" => found.size = number.parse().ok(),
            // A part of a body has its origin behind the brackets: `BODY[]<0>`.
            Value::Text(body) if name == "BODY[]" || name.starts_with("BODY[]<") => {
                found.body = Some(body.to_vec());
            }
            _ => {}
        }
    }
    found
}

/// The prefixes of a NAMESPACE response: three lists (personal, other users', shared), each of pairs of prefix and
/// delimiter.
fn prefixes(classes: &[Value<'_>]) -> Vec<String> {
    let prefix = |namespace: &Value<'_>| namespace.members().first().and_then(Value::text);
    let prefixes = classes.iter().flat_map(Value::members).filter_map(prefix);
    prefixes.filter(|prefix| is_usable_name(prefix)).take(IMAP_NAMESPACES).collect()
}

/// False for a name that could not be sent back within a line, or that is longer than any real one.
fn is_usable_name(name: &str) -> bool {
    name.len() <= IMAP_NAME_BYTES && !name.contains(char::is_control)
}

fn mailbox(items: &[Value<'_>]) -> Option<Response> {
    // RFC 5258 appends extended data.
    let [Value::List(attributes), _, name, ..] = items else { return None };
    let hidden = ["\\noselect", "\\nonexistent"];
    let is_hidden = attributes
        .iter()
        .filter_map(Value::text)
        .any(|attribute| hidden.contains(&attribute.to_ascii_lowercase().as_str()));
    let name = name.text().filter(|name| is_usable_name(name))?;
    Some(Response::Mailbox { name, is_selectable: !is_hidden })
}

impl State {
    /// Parses a status response without its tag, such as `OK [CODE] text`.
    fn parse(line: &str) -> Self {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let status = match word.to_ascii_uppercase().as_str() {
            "OK" => Status::Ok,
            "NO" => Status::No,
            "BYE" => Status::Bye,
            "PREAUTH" => Status::PreAuth,
            _ => Status::Bad,
        };
        let split = rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (code, text) = split.unwrap_or(("", rest));
        let (code, text) = (cut(code, IMAP_CODE_BYTES), cut(text.trim(), IMAP_TEXT_BYTES));
        Self { status, code: code.to_owned(), text: text.to_owned() }
    }

    /// What follows `name` in the response code; `None` if the code is another one. Empty if nothing follows.
    pub fn code_value(&self, name: &str) -> Option<&str> {
        let (word, value) = self.code.split_once(' ').unwrap_or((&self.code, ""));
        word.eq_ignore_ascii_case(name).then_some(value)
    }

    /// The capabilities in the response code, in upper case; `None` without them.
    pub fn capabilities(&self) -> Option<BTreeSet<String>> {
        self.code_value("CAPABILITY").map(upper_words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(line: &str) -> State {
        match Response::parse(line.as_bytes()) {
            Response::State(state) | Response::Done { state, .. } => state,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_end_of_a_command_has_its_tag_its_status_and_its_code() {
        let Response::Done { tag, state: end } = Response::parse(b"A7 NO [TRYCREATE] no such mailbox\r")
        else {
            panic!()
        };
        assert_eq!((tag.as_str(), end.status, end.text.as_str()), ("A7", Status::No, "no such mailbox"));
        assert_eq!(end.code_value("trycreate"), Some(""));
        assert_eq!(state("* OK [UIDVALIDITY 17] ok").code_value("UIDVALIDITY"), Some("17"));
        let flags = state("* OK [PERMANENTFLAGS (\\Seen \\*)] limited");
        assert_eq!(flags.code_value("PERMANENTFLAGS"), Some("(\\Seen \\*)"));
        let greeting = state("* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 LoginDisabled] hi");
        assert!(greeting.capabilities().unwrap().contains("LOGINDISABLED"));
        assert_eq!(state("* BYE").status, Status::Bye);
        assert_eq!(state("A1 WHAT").status, Status::Bad);
    }

    #[test]
    fn a_fetched_message_is_found_however_the_server_writes_it() {
        let fetch = |text: &str| match Response::parse(text.as_bytes()) {
            Response::Fetch(found) => found,
            other => panic!("{text}: {other:?}"),
        };
        let body = |text: &str| Some(text.as_bytes().to_vec());
        let full = fetch("* 3 FETCH (UID 9 RFC822.SIZE 5 FLAGS (\\Seen) BODY[] {5}\r\na) \"b)");
        assert_eq!(full, Fetched { uid: Some(9), size: Some(5), body: body("a) \"b") });
        let part = fetch("* 3 fetch (body[]<0> \"a \\\"b\\\"\" uid 9)");
        assert_eq!(part, Fetched { uid: Some(9), size: None, body: body("a \"b\"") });
        let header = fetch("* 3 FETCH (BODY[HEADER.FIELDS (FROM)] {2}\r\nhi UID 4 BODY[] NIL)");
        assert_eq!(header, Fetched { uid: Some(4), size: None, body: None });
    }

    #[test]
    fn data_responses_are_told_apart_and_unknown_ones_are_ignored() {
        let found = |uids: &[u32]| Response::Search(UidSet::from_ranges(uids.iter().map(|uid| (*uid, *uid))));
        for (text, expected) in [
            ("* SEARCH", found(&[])),
            ("* search 4 7 (MODSEQ 12)", found(&[4, 7])),
            ("* SEARCH 7 0 4 7", found(&[4, 7])),
            ("* ESEARCH (TAG \"A1\") UID COUNT 3 ALL 4,7:8", found(&[4, 7, 8])),
            ("* ESEARCH (TAG \"A1\") UID", found(&[])),
            ("* 12 EXISTS", Response::Exists(12)),
            ("+ idling", Response::Continuation("idling".into())),
            (
                "* NAMESPACE ((\"INBOX.\" \".\")) NIL ((\"Public/\" \"/\")(\"\" NIL))",
                Response::Namespaces(vec!["INBOX.".into(), "Public/".into(), String::new()]),
            ),
            (
                "* LIST (\\HasNoChildren) \".\" {4}\r\na \"b",
                Response::Mailbox { name: "a \"b".into(), is_selectable: true },
            ),
            (
                "* LIST (\\NoSelect) NIL Reports",
                Response::Mailbox { name: "Reports".into(), is_selectable: false },
            ),
            (
                "* LIST () NIL \"a \\\\ \\\"b\\\"\" (\"CHILDINFO\" (\"SUBSCRIBED\"))",
                Response::Mailbox { name: "a \\ \"b\"".into(), is_selectable: true },
            ),
            ("* LIST () \"\\\\\" ~{3}\r\na b", Response::Mailbox { name: "a b".into(), is_selectable: true }),
            ("* LIST () \".\" {4}\r\na\r\nb", Response::Other),
            ("* 3 FETCH (UID", Response::Other),
            ("* VANISHED 5", Response::Other),
            ("* 3 EXPUNGE", Response::Other),
            ("* VANISHED (EARLIER) 1:3", Response::Other),
            ("* ", Response::Other),
        ] {
            assert_eq!(Response::parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_a_response_keeps_is_bounded_whatever_the_server_sends() {
        let Response::Search(found) = Response::parse(b"* ESEARCH UID ALL 1:4294967295,7") else { panic!() };
        assert_eq!((found.range_count(), found.is_complete()), (1, true));
        let many = format!("* CAPABILITY {}", (0..100_000).map(|n| format!("X{n} ")).collect::<String>());
        let Response::Capabilities(listed) = Response::parse(many.as_bytes()) else { panic!() };
        assert_eq!(listed.len(), IMAP_CAPABILITIES);
        let long = format!("* CAPABILITY IDLE {}", "X".repeat(1 << 20));
        let Response::Capabilities(listed) = Response::parse(long.as_bytes()) else { panic!() };
        assert_eq!(listed.into_iter().collect::<Vec<_>>(), ["IDLE"]);
        let name = |length| format!("* LIST () \"/\" \"{}\"", "n".repeat(length));
        assert!(matches!(Response::parse(name(IMAP_NAME_BYTES).as_bytes()), Response::Mailbox { .. }));
        assert_eq!(Response::parse(name(IMAP_NAME_BYTES + 1).as_bytes()), Response::Other);
        let spaces = format!("* NAMESPACE ({}) NIL NIL", "(\"a\" \"/\")".repeat(1000));
        let Response::Namespaces(prefixes) = Response::parse(spaces.as_bytes()) else { panic!() };
        assert_eq!(prefixes.len(), IMAP_NAMESPACES);
        let text = state(&format!("* BYE [X {}] {}", "é".repeat(1 << 19), "é".repeat(1 << 19)));
        assert!(text.code.len() <= IMAP_CODE_BYTES && text.text.len() <= IMAP_TEXT_BYTES);
        // A list of many small values takes more memory than its bytes.
        let values = format!("* 1 FETCH (UID 3 X ({}))", "a ".repeat(1 << 20));
        assert_eq!(Response::parse(values.as_bytes()), Response::Other);
    }

    #[test]
    fn a_search_that_is_not_understood_to_its_end_is_not_complete() {
        for (text, uids) in [("* SEARCH 4 x 7", vec![4]), ("* ESEARCH UID ALL 4,x,7", vec![4, 7])] {
            let Response::Search(found) = Response::parse(text.as_bytes()) else { panic!() };
            assert_eq!((found.iter().collect::<Vec<_>>(), found.is_complete()), (uids, false), "{text}");
        }
    }

    #[test]
    fn items_of_a_message_are_found_in_any_order_beside_unknown_ones() {
        for text in [
            "* 3 FETCH (MODSEQ (12) ENVELOPE NIL BODY[] ~{2}\r\nhi FLAGS () UID 9 RFC822.SIZE 2)",
            "* 3 FETCH (RFC822.SIZE 2 X-GM-LABELS (\"a\" \\Inbox) UID 9 BODY[] {2+}\r\nhi)",
            "* 3 FETCH (BODY[] \"hi\" UID 9 ENVELOPE (NIL NIL ((NIL NIL \"a\" \"b\")) NIL) RFC822.SIZE 2)",
        ] {
            let expected = Fetched { uid: Some(9), size: Some(2), body: Some(b"hi".to_vec()) };
            assert_eq!(Response::parse(text.as_bytes()), Response::Fetch(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_response(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Response::parse(&frame);
        }

        #[test]
        fn any_body_is_returned_as_it_was_sent(body in prop::collection::vec(any::<u8>(), 0..200), uid: u32) {
            let head = format!("* 1 FETCH (UID {uid} BODY[] {{{}}}\r\n", body.len());
            let frame = [head.as_bytes(), &body, b")"].concat();
            let expected = Fetched { uid: Some(uid), size: None, body: Some(body) };
            prop_assert_eq!(Response::parse(&frame), Response::Fetch(expected));
        }
    }
}
