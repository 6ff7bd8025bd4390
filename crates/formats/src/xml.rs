//! A reader for XML 1.0 documents, and the escaping that requests to Amazon Route 53 need. It reads elements, text and the
//! predefined entities. Document types are errors, so that no entity can be declared. Attributes are checked and dropped.
//!
//! There are two ways to read. [`parse`] is strict and returns a tree of [`Element`]s, for the small documents that Route 53
//! sends (`net::dns::provider`). [`read`] passes each element to a function and keeps nothing, for DMARC reports
//! (`dmarc`), which strangers send and which may be large.

use crate::limits::{XML_DEPTH, XML_ELEMENTS};

/// An element with either text or child elements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// The name as written, with a namespace prefix if it has one.
    pub name: String,
    /// The text with entities replaced; empty if the element has children.
    pub text: String,
    /// The child elements in document order.
    pub children: Vec<Element>,
}

/// Why a document is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// The syntax is invalid, or uses a part of XML that this reader does not support.
    #[error("invalid XML at byte {at}: {what}")]
    Syntax {
        /// The byte offset in the document.
        at: usize,
        /// What was expected, or is not supported.
        what: &'static str,
    },
    /// Elements are nested deeper than [`XML_DEPTH`].
    #[error("XML elements are nested deeper than {XML_DEPTH}")]
    Depth,
    /// The document has more elements than this, the limit for its kind.
    #[error("the XML document has over {0} elements")]
    Elements(usize),
}

impl Element {
    /// Returns the first child with this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Returns all children with this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Returns the text of the first child with this name. `None` if there is no such child.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str())
    }

    /// Appends the element and its children to `out`, without an XML declaration.
    pub fn write(&self, out: &mut String) {
        out.push('<');
        out.push_str(&self.name);
        out.push('>');
        match self.children.is_empty() {
            true => out.push_str(&escape(&self.text)),
            false => self.children.iter().for_each(|child| child.write(out)),
        }
        out.push_str("</");
        out.push_str(&self.name);
        out.push('>');
    }
}

/// Escapes text for an element's content.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\r' => out.push_str("&#13;"),
            other => out.push(other),
        }
    }
    out
}

/// Which documents [`read`] accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// The maximum number of elements.
    pub elements: usize,
    /// Whether comments, CDATA sections, processing instructions, control characters, white space around `=`, and `&` that
    /// begins no known entity are accepted. Comments and instructions are skipped, the rest is taken literally.
    pub is_lenient: bool,
}

/// A part of a document, in document order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'d> {
    /// The start of an element, with its name as written.
    Start(&'d str),
    /// The end of the element that was started last and has not ended.
    End {
        /// All text directly in the element, with entities replaced.
        text: String,
        /// Whether the element has child elements.
        has_children: bool,
    },
}

/// The dialect of Route 53.
const STRICT: Dialect = Dialect { elements: XML_ELEMENTS, is_lenient: false };

/// Reads a document and returns its root element.
///
/// # Errors
///
/// Any [`XmlError`]; text beside elements is a syntax error.
pub fn parse(document: &str) -> Result<Element, XmlError> {
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    read(document, STRICT, &mut |at, event| {
        match event {
            Event::Start(name) => open.push(Element { name: name.to_owned(), ..Element::default() }),
            Event::End { text, has_children } => {
                let Some(mut element) = open.pop() else { return Ok(()) };
                match has_children {
                    true if !is_blank(&text) => {
                        return Err(XmlError::Syntax { at, what: "text beside elements" });
                    }
                    true => {}
                    false => element.text = text,
                }
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => root = Some(element),
                }
            }
        }
        Ok(())
    })?;
    root.ok_or(XmlError::Syntax { at: 0, what: "an element expected" })
}

/// An element that has not ended.
struct Open<'d> {
    name: &'d str,
    text: String,
    has_children: bool,
}

/// Reads a document, and passes each start and end of an element to `each`, with the byte offset behind it.
///
/// # Errors
///
/// Any [`XmlError`], or the error that `each` returns.
pub fn read<E: From<XmlError>>(
    document: &str,
    dialect: Dialect,
    each: &mut dyn FnMut(usize, Event<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = Reader { document, at: 0, is_lenient: dialect.is_lenient };
    reader.prologue()?;
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut elements = 0;
    loop {
        let text = reader.text()?;
        match open.last_mut() {
            Some(element) if element.text.is_empty() => element.text = text,
            Some(element) => element.text.push_str(&text),
            None if is_blank(&text) => {}
            None => return Err(reader.fault("text outside of the root element").into()),
        }
        if reader.skip("</") {
            let name = reader.name()?;
            reader.blank();
            reader.expect(">", "`>` expected")?;
            match open.pop() {
                Some(Open { name: opened, text, has_children }) if opened == name => {
                    each(reader.at, Event::End { text, has_children })?;
                }
                _ => return Err(reader.fault("end tag without its start tag").into()),
            }
        } else {
            reader.expect("<", "an element expected")?;
            elements += 1;
            if elements > dialect.elements {
                return Err(XmlError::Elements(dialect.elements).into());
            }
            if open.len() >= XML_DEPTH {
                return Err(XmlError::Depth.into());
            }
            let name = reader.name()?;
            let is_ended = reader.attributes()?;
            if let Some(parent) = open.last_mut() {
                parent.has_children = true;
            }
            each(reader.at, Event::Start(name))?;
            if !is_ended {
                open.push(Open { name, text: String::new(), has_children: false });
                continue;
            }
            each(reader.at, Event::End { text: String::new(), has_children: false })?;
        }
        if open.is_empty() {
            return reader.end().map_err(E::from);
        }
    }
}

struct Reader<'a> {
    document: &'a str,
    at: usize,
    is_lenient: bool,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.document.get(self.at..).unwrap_or_default()
    }

    fn fault(&self, what: &'static str) -> XmlError {
        XmlError::Syntax { at: self.at, what }
    }

    fn skip(&mut self, token: &str) -> bool {
        let is_there = self.rest().starts_with(token);
        if is_there {
            self.at += token.len();
        }
        is_there
    }

    fn expect(&mut self, token: &str, what: &'static str) -> Result<(), XmlError> {
        if self.skip(token) { Ok(()) } else { Err(self.fault(what)) }
    }

    /// Consumes the text before the first character for which `ends` is true.
    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = rest.get(..rest.find(ends).unwrap_or(rest.len())).unwrap_or_default();
        self.at += taken.len();
        taken
    }

    fn blank(&mut self) -> bool {
        !self.until(|character| !is_space(character)).is_empty()
    }

    fn name(&mut self) -> Result<&'a str, XmlError> {
        let name = self.until(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')));
        match name.bytes().next() {
            Some(first) if first.is_ascii_alphabetic() || first == b'_' => Ok(name),
            _ => Err(self.fault("a name expected")),
        }
    }

    /// Skips the byte-order mark and the declaration, if present.
    fn prologue(&mut self) -> Result<(), XmlError> {
        self.skip("\u{feff}");
        if self.is_lenient {
            // Declarations are instructions, which `text` skips.
            return Ok(());
        }
        if self.skip("<?xml ") {
            self.until(|character| matches!(character, '?' | '<' | '>'));
            self.expect("?>", "`?>` expected")?;
        }
        Ok(())
    }

    /// Reads the rest of a start tag after its name. Returns whether the tag also ends the element.
    fn attributes(&mut self) -> Result<bool, XmlError> {
        loop {
            let is_apart = self.blank();
            if self.skip("/>") {
                return Ok(true);
            }
            if self.skip(">") {
                return Ok(false);
            }
            if !is_apart {
                return Err(self.fault("`>` expected"));
            }
            self.name()?;
            self.blank_if_lenient();
            self.expect("=", "`=` expected")?;
            self.blank_if_lenient();
            let quote = match self.rest().chars().next() {
                Some(quote @ ('"' | '\'')) => quote,
                _ => return Err(self.fault("a quoted value expected")),
            };
            self.at += 1;
            self.until(|character| character == quote || character == '<');
            if self.rest().starts_with('<') || self.rest().is_empty() {
                return Err(self.fault("a quoted value does not end"));
            }
            self.at += 1;
        }
    }

    fn blank_if_lenient(&mut self) {
        if self.is_lenient {
            self.blank();
        }
    }

    /// Consumes everything up to `end`, and `end` itself. Returns what is before it.
    fn through(&mut self, end: &str, what: &'static str) -> Result<&'a str, XmlError> {
        let rest = self.rest();
        let before = rest.find(end).and_then(|at| rest.get(..at)).ok_or_else(|| self.fault(what))?;
        self.at += before.len() + end.len();
        Ok(before)
    }

    /// Consumes a comment, an instruction or a CDATA section if there is one; returns its text, which is empty for the
    /// first two.
    fn extra(&mut self) -> Result<Option<&'a str>, XmlError> {
        if !self.is_lenient {
            return Ok(None);
        }
        if self.skip("<!--") {
            return self.through("-->", "a comment does not end").map(|_| Some(""));
        }
        if self.skip("<?") {
            return self.through("?>", "an instruction does not end").map(|_| Some(""));
        }
        if self.skip("<![CDATA[") {
            return self.through("]]>", "a CDATA section does not end").map(Some);
        }
        Ok(None)
    }

    /// Reads text up to the next tag.
    fn text(&mut self) -> Result<String, XmlError> {
        let mut text = String::new();
        loop {
            let plain = self.until(|character| matches!(character, '<' | '&'));
            if !self.is_lenient && !plain.chars().all(is_allowed) {
                return Err(self.fault("a control character"));
            }
            text.push_str(plain);
            if let Some(extra) = self.extra()? {
                text.push_str(extra);
            } else if self.skip("&") {
                text.push(self.reference()?);
            } else {
                return Ok(text);
            }
        }
    }

    /// Reads an entity after its `&`.
    fn reference(&mut self) -> Result<char, XmlError> {
        let before = self.at;
        let name = self.until(|character| !(character.is_ascii_alphanumeric() || character == '#'));
        match entity(name) {
            Some(character) if self.skip(";") => Ok(character),
            _ if self.is_lenient => {
                self.at = before;
                Ok('&')
            }
            Some(_) => Err(self.fault("`;` expected")),
            None => Err(self.fault("an unknown entity")),
        }
    }

    /// Checks that nothing but white space, and what the dialect skips, follows the root element.
    fn end(&mut self) -> Result<(), XmlError> {
        loop {
            self.blank();
            match self.extra()? {
                Some(text) if is_blank(text) => {}
                None if self.rest().is_empty() => return Ok(()),
                _ => return Err(self.fault("unexpected content after the root element")),
            }
        }
    }
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let (digits, radix) = match number.strip_prefix('x') {
                Some(digits) => (digits, 16),
                None => (number, 10),
            };
            let character = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
            is_allowed(character).then_some(character)
        }
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

fn is_blank(text: &str) -> bool {
    text.chars().all(is_space)
}

/// True for the characters of XML 1.0 §2.2, except the control characters U+007F to U+009F.
fn is_allowed(character: char) -> bool {
    is_space(character) || !(character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn elements_are_read_with_attributes_dropped_and_entities_replaced() {
        let document = "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<A xmlns=\"https://example.org/\" b='&lt;'>\n <B>&quot;x &#38; &#x79;&quot;</B><C/>\n<B >2</B ></A>\n";
        let root = parse(document).unwrap();
        assert_eq!(root.name, "A");
        assert_eq!(root.text_of("B"), Some("\"x & y\""));
        assert_eq!(root.text_of("C"), Some(""));
        assert_eq!(root.all("B").count(), 2);
        assert_eq!(root.child("D"), None);
    }

    #[test]
    fn invalid_and_unsupported_syntax_is_rejected() {
        for document in [
            "",
            "text",
            "<A>",
            "</A>",
            "<A></B>",
            "<A/><B/>",
            "<A/>text",
            "<A>text<B/></A>",
            "<A>&unknown;</A>",
            "<A>&#0;</A>",
            "<A>&amp</A>",
            "<A>\u{1b}</A>",
            "<A b=c/>",
            "<A b=\"c/>",
            "<A b=\"c\"d=\"e\"/>",
            "<1/>",
            "<!DOCTYPE A [<!ENTITY x \"y\">]><A>&x;</A>",
            "<A><!-- --></A>",
            "<A><![CDATA[x]]></A>",
            "<A><?php?></A>",
            "<?xml version=\"1.0\"><A/>",
        ] {
            assert!(matches!(parse(document), Err(XmlError::Syntax { .. })), "{document:?}");
        }
    }

    #[test]
    fn depth_and_number_of_elements_are_bounded() {
        let deep = |depth: usize| "<A>".repeat(depth) + &"</A>".repeat(depth);
        assert!(parse(&deep(XML_DEPTH)).is_ok());
        assert_eq!(parse(&deep(XML_DEPTH + 1)), Err(XmlError::Depth));
        let wide = |many: usize| format!("<A>{}</A>", "<B/>".repeat(many));
        assert!(parse(&wide(XML_ELEMENTS - 1)).is_ok());
        assert_eq!(parse(&wide(XML_ELEMENTS)), Err(XmlError::Elements(XML_ELEMENTS)));
    }

    /// The elements of a document with their texts, as the lenient dialect reads them.
    fn leniently(document: &str) -> Result<Vec<String>, XmlError> {
        let (mut open, mut found) = (Vec::new(), Vec::new());
        let dialect = Dialect { elements: 10, is_lenient: true };
        read(document, dialect, &mut |_, event| {
            match event {
                Event::Start(name) => open.push(name.to_owned()),
                Event::End { text, .. } => found.push(format!("{}={}", open.pop().unwrap(), text.trim())),
            }
            Ok::<_, XmlError>(())
        })?;
        Ok(found)
    }

    #[test]
    fn the_lenient_dialect_skips_comments_and_never_declares_entities() {
        let document = "\u{feff}\n<?xml version='1.0'?><!-- <X> --><A b = \"1\" ><!-- --><B>AT&T &amp; <![CDATA[<x>]]></B><?y ?>text</A>\n<!-- end -->";
        assert_eq!(leniently(document).unwrap(), ["B=AT&T & <x>", "A=text"]);
        assert_eq!(leniently("<A>&unknown;\u{1b}</A>").unwrap(), ["A=&unknown;\u{1b}"]);
        for wrong in [
            "<!DOCTYPE A [<!ENTITY x \"y\">]><A>&x;</A>",
            "<A><!DOCTYPE A></A>",
            "<A><!-- </A>",
            "<A><![CDATA[</A>",
            "<A/><![CDATA[x]]>",
            "<A/><A/>",
        ] {
            assert!(matches!(leniently(wrong), Err(XmlError::Syntax { .. })), "{wrong}");
        }
        assert_eq!(leniently(&format!("<A>{}</A>", "<B/>".repeat(10))), Err(XmlError::Elements(10)));
    }

    fn element() -> impl Strategy<Value = Element> {
        let name = "[A-Za-z_][A-Za-z0-9_.:-]{0,8}";
        let text = prop::collection::vec(any::<char>().prop_filter("allowed", |c| is_allowed(*c)), 0..20);
        let leaf = (name, text).prop_map(|(name, text)| Element {
            name,
            text: text.into_iter().collect(),
            children: Vec::new(),
        });
        leaf.prop_recursive(4, 32, 4, move |inner| {
            (name, prop::collection::vec(inner, 1..4)).prop_map(|(name, children)| Element {
                name,
                text: String::new(),
                children,
            })
        })
    }

    proptest! {
        #[test]
        fn written_elements_are_read_unchanged(element in element()) {
            let mut text = String::new();
            element.write(&mut text);
            prop_assert_eq!(parse(&text), Ok(element));
        }

        #[test]
        fn no_text_panics(text in "[<>/&;#x!?=\"' A-C0-9\\[\\]-]{0,200}") {
            let _ = parse(&text);
            let _ = leniently(&text);
        }
    }
}
