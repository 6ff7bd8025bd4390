//! The links between the pages: each leads to a file of the source tree, and to a heading of it.

use super::blocks::{pages, tree};
use std::path::Path;

#[test]
fn every_link_between_the_pages_leads_to_a_heading_that_is_there() {
    let mut dead = Vec::new();
    for page in pages() {
        let path = tree().join(&page);
        let text = std::fs::read_to_string(&path).unwrap();
        for target in links(&prose(&text)) {
            if !is_there(&path, &target) {
                dead.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

/// The page without its code blocks.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

/// The targets of links that stay in the source tree.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

fn is_there(page: &Path, target: &str) -> bool {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => page.to_owned(),
        file => page.parent().unwrap().join(file),
    };
    if heading.is_empty() {
        return path.exists();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    prose(&text).lines().any(|line| line.starts_with('#') && anchor(line) == heading)
}

/// The anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.collect::<String>().replace(' ', "-")
}

#[test]
fn anchors_are_those_of_github() {
    assert_eq!(anchor("## 5. Why is my mail queued?"), "5-why-is-my-mail-queued");
    assert_eq!(anchor("### `sternpost apply`, again"), "sternpost-apply-again");
    assert_eq!(links("[a](b.md#c) <https://x> [d](https://e)"), ["b.md#c"]);
    assert!(!is_there(&tree().join("README.md"), "docs/postfix.md#nowhere"));
}
