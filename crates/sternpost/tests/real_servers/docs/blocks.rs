//! The code blocks of a page: what each is, and what stands before it. A fence names its kind by its first word; a comment
//! directly before the fence may say why the block is not run, or what its world needs first.

use std::path::{Path, PathBuf};

/// A fenced block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The number of the line with the fence, from 1.
    pub line: usize,
    /// The first word after the fence; empty if there is none.
    pub kind: String,
    /// The other words after the fence.
    pub words: Vec<String>,
    /// The text between the fences, without the indentation of the fence.
    pub text: String,
    /// Why the block is not run: `<!-- not run: REASON -->`.
    pub not_run: Option<String>,
    /// Commands that prepare the block's world: `<!-- before: COMMANDS -->`.
    pub before: Option<String>,
}

impl Block {
    /// The exit code of the last command: `exit=CODE` among the words.
    pub fn exit_code(&self) -> i32 {
        self.words.iter().find_map(|word| word.strip_prefix("exit=")).map_or(0, |code| code.parse().unwrap())
    }
}

/// The top folder of the source tree.
pub fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// README.md and the pages of docs/, by their path in the source tree.
pub fn pages() -> Vec<String> {
    let docs = std::fs::read_dir(tree().join("docs")).unwrap();
    let names = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.push("README.md".to_owned());
    pages.sort();
    pages
}

/// The blocks of a page, in order.
///
/// # Errors
///
/// A message for each block that no kind can be found for: indented code, or a fence that does not end.
pub fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut comment: Option<String> = None;
    let mut open_comment: Option<String> = None;
    let (mut list, mut after_blank) = (0, true);
    while let Some((number, line)) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if let Some(mut begun) = open_comment.take() {
            begun += "\n";
            begun += line;
            match begun.strip_suffix("-->") {
                Some(whole) => comment = Some(whole.to_owned()),
                None => open_comment = Some(begun),
            }
            continue;
        }
        if let Some(begun) = text.strip_prefix("<!--") {
            match begun.strip_suffix("-->") {
                Some(whole) => comment = Some(whole.to_owned()),
                None => open_comment = Some(begun.to_owned()),
            }
            continue;
        }
        if let Some(info) = text.strip_prefix("```") {
            let mut block = opened(number + 1, info, comment.take());
            loop {
                let Some((_, line)) = lines.next() else {
                    return Err(format!("line {}: the block does not end", number + 1));
                };
                if line.trim() == "```" {
                    break;
                }
                let own = line.len() - line.trim_start().len();
                block.text += &line[own.min(indent)..];
                block.text.push('\n');
            }
            found.push(block);
            after_blank = false;
            continue;
        }
        if text.is_empty() {
            after_blank = true;
            continue;
        }
        let item = list_item(text).map(|width| indent + width);
        if after_blank && indent >= list + 4 && item.is_none() {
            return Err(format!("line {}: code in a block without a fence: {text}", number + 1));
        }
        match item {
            Some(offset) => list = offset,
            None if indent == 0 => list = 0,
            None => {}
        }
        (comment, after_blank) = (None, false);
    }
    Ok(found)
}

/// How wide the mark of a list item is.
fn list_item(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    match text.get(digits..)? {
        rest if digits > 0 && rest.starts_with(". ") => Some(digits + 2),
        rest if digits == 0 && (rest.starts_with("- ") || rest.starts_with("* ")) => Some(2),
        _ => None,
    }
}

fn opened(line: usize, info: &str, comment: Option<String>) -> Block {
    let mut words = info.split_whitespace().map(str::to_owned);
    let comment = comment.unwrap_or_default();
    let said = |key: &str| comment.trim().strip_prefix(key).map(|rest| rest.trim().to_owned());
    Block {
        line,
        kind: words.next().unwrap_or_default(),
        words: words.collect(),
        text: String::new(),
        not_run: said("not run:"),
        before: said("before:"),
    }
}

#[test]
fn a_block_has_its_kind_and_the_comment_before_it_and_none_goes_unseen() {
    let page = "text\n\n```toml one two exit=3\na = 1\n```\n\n1. item\n\n   <!-- before: a\n   b -->\n   ```sh\n   x\n     y\n   ```\n\n\
                <!-- not run: too large -->\n\n```sh\nz\n```\n\n<!-- a remark -->\nwords\n```\n```\n";
    let found = blocks(page).unwrap();
    let kinds: Vec<&str> = found.iter().map(|block| block.kind.as_str()).collect();
    assert_eq!(kinds, ["toml", "sh", "sh", ""]);
    assert_eq!((found[0].line, found[0].exit_code(), found[0].text.as_str()), (3, 3, "a = 1\n"));
    assert_eq!((found[1].text.as_str(), found[1].before.as_deref()), ("x\n  y\n", Some("a\n   b")));
    assert_eq!(found[2].not_run.as_deref(), Some("too large"));
    assert_eq!((found[3].not_run.as_deref(), found[3].exit_code()), (None, 0));
    assert!(blocks("text\n\n    indented\n").is_err() && blocks("```sh\n").is_err());
    assert!(blocks("- item\n\n      indented\n").is_err());
    assert_eq!(blocks("- item\n\n    its text\n"), Ok(Vec::new()));
}
